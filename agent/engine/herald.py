"""Keeps the service manager informed: ready, reloading, stopping, a line of status, and that the engine still works."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from agent import systemd
from agent.headline import headline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from agent.engine.renewal import Keeper
    from agent.engine.services import Services
    from agent.systemd import Manager

INTERVAL = timedelta(seconds=30)
"""How often the line is brought up to date if nothing happens: the runway in it shrinks."""
PAUSE = 0.2
"""Seconds between two lines; a burst of changes becomes one."""
LATE = timedelta(seconds=90)
"""How long a keeper may oversleep. A step of the clock is noticed within 30 s; beyond, something is wedged."""


class Herald:
    """Tells the manager; what could not be delivered is told again with the next beat.

    The watchdog is fed by `keep`, a task of the engine among the others: an event loop that hangs feeds nothing, nor
    does one in which renewals no longer come when they are due. What may take long for good reasons (a provider, a
    disk) is no reason to end an agent whose tokens still serve.
    """

    def __init__(self, services: Services, manager: Manager) -> None:
        self._services, self._manager = services, manager
        self._state: tuple[str, ...] = ()
        self._owed = False
        self._line = ""

    def ready(self) -> None:
        """Say that the agent does its work."""
        self._enter(systemd.READY)

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that the agent reloads, and at the end, whatever came of it, that it is ready again."""
        if systemd.READY not in self._state:  # it has not begun, or is about to end
            yield
            return
        self._enter(*systemd.reloading())
        try:
            yield
        finally:
            if systemd.STOPPING not in self._state:
                self.ready()

    def stopping(self) -> None:
        """Say that the agent ends; the last thing that is said."""
        self._enter(systemd.STOPPING)

    async def keep(self, keepers: Callable[[], Iterable[Keeper]]) -> None:
        """Feed the watchdog and keep the line up to date until cancelled.

        Args:
            keepers: returns those at work.
        """
        if not self._manager.listens:
            return
        interval = min(INTERVAL, (self._manager.watchdog or INTERVAL) / 2)
        while True:
            news = self._services.board.news
            self._beat(alive=not late(keepers(), self._services.clock.now()))
            with anyio.move_on_after(interval.total_seconds() - PAUSE):
                await news.wait()
            await anyio.sleep(PAUSE)

    def _enter(self, *state: str) -> None:
        self._state, self._owed = state, True
        self._beat(alive=False)

    def _beat(self, *, alive: bool) -> None:
        board = self._services.board
        line = headline(board.agent, board.profiles.values(), self._services.clock.now())
        told = [
            *(self._state if self._owed else ()),
            *([systemd.status(line)] if line != self._line else []),
            *([systemd.ALIVE] if alive and self._manager.watchdog else []),
        ]
        if self._manager.tell(*told):
            self._owed, self._line = False, line


def late(keepers: Iterable[Keeper], now: datetime) -> list[str]:
    """Return whose keepers sleep that should long be awake: with them, something in here is wedged."""
    asleep = ((keeper.job.profile.name, keeper.sleeps_until) for keeper in keepers)
    return [name for name, until in asleep if until is not None and now - until > LATE]
