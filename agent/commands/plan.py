"""``token-agent plan``: what a reload would do, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agent.commands import asking, common
from agent.commands.reload import asked
from agent.errors import UnreachableError

if TYPE_CHECKING:
    from pathlib import Path


@click.command(
    epilog=common.examples(
        "token-agent plan",
        "token-agent plan && token-agent reload",
    )
)
@common.config_option
def command(config: Path | None) -> int:
    """Show what a reload would do now: profiles added, changed, removed, untouched.

    The running agent compares what is on disk with what it does, and names the keys or files that differ. Nothing is
    changed. Without an agent there is nothing to compare with; `token-agent check` validates on its own.

    Exit codes: 0 shown; 78 a reload would be refused, or no agent is found by a configuration that is wrong; 69 no
    agent is running; 75 it does not answer in time (90 s), or is stopped by a signal.
    """
    try:
        answer = asked(config, "plan")
    except UnreachableError as error:
        hint = f"{error.hint}; `token-agent check` validates without an agent"
        raise UnreachableError(error.message, hint=hint) from None
    asking.show_lines(answer)
    return 0
