"""What the demonstration shows: a live table below the story on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from agent import status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.demo.stage import Reader, Stage

BAR = 20
STATE_STYLES = {"fresh": "green", "degraded": "yellow", "expired": "red", "pending": "dim", "stopped": "dim"}
STYLES = {"plain": "", "good": "green", "bad": "yellow", "quiet": "dim"}


class View:
    """Prints the story as it happens; ``tick`` keeps the table moving where there is one.

    ``outage`` is set by the story while the provider is down.
    """

    def __init__(self, stage: Stage, *, color: bool) -> None:
        self._console = Console(no_color=not color or None, highlight=False, emoji=False, soft_wrap=True)
        self._stage, self._began = stage, time.monotonic()
        self._live: Live | None = None
        self._full, self._empty = ("#", ".") if self._console.options.ascii_only else ("━", "·")
        self.reader: Reader | None = None
        self.outage = False

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the table below the story while the block runs; in a pipe there is none."""
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as self._live:
            try:
                yield
            finally:
                self._live.update(Text(), refresh=True)
        self._live = None

    def title(self, text: str, below: str) -> None:
        """Say what this is."""
        self._console.print(Text(text, "bold"))
        self._console.print(Text(below, "dim"))

    def act(self, text: str) -> None:
        """Announce a new act."""
        self._console.print()
        self._console.print(Text(text, "bold cyan"))

    def line(self, text: str, style: str = "plain") -> None:
        """Tell one thing that happened, with the seconds since the beginning."""
        elapsed = time.monotonic() - self._began
        self._console.print(Text.assemble((f"{elapsed:5.1f}s  ", "dim"), (text, STYLES[style])))

    def quote(self, text: str) -> None:
        """Show a few lines of a file."""
        for line in text.strip().splitlines():
            self._console.print(Text(f"        {line}", "dim"))

    def tick(self) -> None:
        """Draw the table anew."""
        document = self._stage.status()
        if self._live and document:
            group = Group(Text(), Rule(style="dim"), self.table(document), self._summary())
            self._live.update(group, refresh=True)

    def final(self, document: dict[str, Any]) -> None:
        """Print the table once more, to stay."""
        self._console.print()
        self._console.print(self.table(document))
        self._console.print()

    def table(self, document: dict[str, Any]) -> Table:
        """Return a row for each profile."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("PROFILE", "STATE", "TOKEN ON DISK", "SERVES", "NOTE"):
            table.add_column(column, no_wrap=True)
        now = datetime.now(UTC)
        for entry in document["profiles"]:
            style = STATE_STYLES[entry["state"]]
            table.add_row(
                entry["name"],
                Text(f"{entry['state']:8}", style),
                self._bar(entry, now, style),
                f"{entry['runway_seconds']:3d} s",
                _note(entry),
            )
        return table

    def _summary(self) -> Text:
        """Return the last line: provider, agent, reader."""
        provider = ("503", "yellow") if self.outage else ("up", "green")
        agent = ("running", "green") if self._stage.is_running else ("gone", "yellow")
        parts: list[Any] = [("provider ", "dim"), provider, ("   agent ", "dim"), agent]
        if self.reader:
            bad = (f"{self.reader.bad} bad", "red" if self.reader.bad else "green")
            parts += [("   your program ", "dim"), f"{self.reader.reads:,} reads, ", bad]
        return Text.assemble(*parts)

    def _bar(self, entry: dict[str, Any], now: datetime, style: str) -> Text:
        """Return how much of a token's life is left."""
        acquired_at, expires_at = (status.parse_rfc3339(entry[key]) for key in ("acquired_at", "expires_at"))
        full = 0
        if acquired_at and expires_at and expires_at > acquired_at:
            full = round(BAR * min(1.0, max(0.0, (expires_at - now) / (expires_at - acquired_at))))
        return Text.assemble((self._full * full, style), (self._empty * (BAR - full), "dim"))


def _note(entry: dict[str, Any]) -> Text:
    """Return what deserves a look, in a few words."""
    error, credential = entry["last_error"], entry["credential"] or {}
    if error:
        return Text(f"fails: {error['code'] or error['kind']}, tries again", "yellow")
    if credential.get("candidate_error"):
        code = credential["candidate_error"].partition(":")[0]
        return Text(f"new certificate: {code}", "yellow")
    return Text()
