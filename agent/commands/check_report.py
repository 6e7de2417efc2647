"""What ``check`` prints, as it is found: results to standard output, what is wrong to standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from agent.commands import common
from agent.errors import CredentialError, OutputError

if TYPE_CHECKING:
    from pathlib import Path

    from agent.errors import AgentError


class Report:
    """What was found."""

    def __init__(self, subject: str) -> None:
        self.codes: set[int] = set()
        self.errors = self.warnings = 0
        self._wrong: set[Path] = set()
        click.echo(f"configuration {common.printable(subject)}")

    def good(self, text: str, path: Path | None = None) -> None:
        """Print something that is as it should be, unless something else is wrong with that file."""
        if path in self._wrong:
            return
        click.echo(f"  ok       {common.printable(text)}")

    def warning(self, text: str) -> None:
        """Print something that works but deserves a look."""
        self.warnings += 1
        click.echo(f"  warning  {common.printable(text)}", err=True)

    def error(self, error: AgentError, where: str = "") -> None:
        """Print something that is wrong, and how to mend it.

        Args:
            error: what is wrong.
            where: profile and key, where the message does not name them.
        """
        self.codes.add(error.exit_code)
        self.errors += 1
        self._wrong |= {error.path} if isinstance(error, CredentialError | OutputError) else set()
        sys.stdout.flush()  # keep the two streams in step where they end in one place
        what = f"{where}{': ' * bool(where)}{error.message}"
        click.echo(f"  ERROR    {common.printable(what)}", err=True)
        if error.hint:
            click.echo(f"           hint: {common.printable(error.hint)}", err=True)

    def answer(self, online: str | AgentError | None, profile: str) -> None:
        """Print what the provider said, if it was asked."""
        if isinstance(online, str):
            self.good(online)
        elif online is not None:
            self.error(online, profile)

    def finish(self, profiles: int) -> int:
        """Print the sum and return the exit code."""
        count = f"{profiles} profile{'s' * (profiles != 1)}"
        warned = f", {self.warnings} warning{'s' * (self.warnings != 1)}" if self.warnings else ""
        if self.codes:
            sys.stdout.flush()
            click.echo(f"{count}: {self.errors} problem{'s' * (self.errors != 1)}{warned}", err=True)
        else:
            click.echo(f"{count}: all is well{warned}")
        return max(self.codes, default=0)
