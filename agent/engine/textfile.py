"""The file of metrics for node_exporter's textfile collector: written at changes, and once a minute as a sign of life.

At a clean stop it says that nobody renews the tokens any more, and stays: an alert on their expiry still works. After a
crash its age tells (``node_textfile_mtime_seconds``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from agent import status
from agent.errors import OutputError
from agent.output import sink
from agent.workers import StalledError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from agent.engine.services import Services
    from agent.engine.troubles import Troubles

INTERVAL = 60.0
"""Seconds; states depend on time, and the file's age tells whether the agent lives."""
PAUSE = 2.0
"""Seconds between two writes; a burst of changes becomes one."""
ACCESS = sink.Access(mode=0o644, anywhere=True)


class Textfile:
    """Keeps the file.

    Args of the constructor: ``path`` returns where it is to be now; ``render`` what is to be in it, given whether an
    agent keeps the tokens fresh.
    """

    def __init__(
        self,
        services: Services,
        troubles: Troubles,
        path: Callable[[], Path | None],
        render: Callable[[bool], Awaitable[bytes]],
    ) -> None:
        self._services, self._troubles, self._path, self._render = services, troubles, path, render

    async def keep(self) -> None:
        """Keep the file that is configured up to date, until cancelled."""
        written: Path | None = None
        while True:
            path, news = self._path(), self._services.board.news
            if written and written != path:
                await self._remove(written)
            if path:
                await self._write(path, kept=True)
            written = path
            with anyio.move_on_after(INTERVAL - PAUSE if path else None):
                await news.wait()
            await anyio.sleep(PAUSE)

    async def leave(self) -> None:
        """Say that nobody keeps the tokens fresh any more."""
        if path := self._path():
            await self._write(path, kept=False)

    async def _write(self, path: Path, *, kept: bool) -> None:
        text, board = await self._render(kept), self._services.board
        # The time makes each content another one, so that the file is written though nothing has happened.
        head = f"# Written by token-agent at {status.rfc3339(self._services.clock.now())}; states are as of then.\n"
        content = head.encode() + text
        try:
            await self._services.workers.disk(
                lambda: sink.write(path, content, ACCESS, durable=False, reserved=board.reserved), at=path.parent
            )
        except (OutputError, StalledError) as caught:
            error = caught if isinstance(caught, OutputError) else caught.of(path)
            self._troubles.met("metrics_textfile", error.message, error.hint)
        else:
            self._troubles.over("metrics_textfile")

    async def _remove(self, path: Path) -> None:
        """Remove the file that is no longer configured; what it says would never change again."""
        self._troubles.over("metrics_textfile")
        board = self._services.board
        try:
            await self._services.workers.disk(lambda: sink.remove(path, reserved=board.reserved), at=path.parent)
        except (OutputError, StalledError) as caught:
            error = caught if isinstance(caught, OutputError) else caught.of(path)
            self._services.log.error("metrics.undeleted", message=error.message, hint=error.hint)
