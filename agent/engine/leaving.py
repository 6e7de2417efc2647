"""Profiles that have left the configuration on disk, whose token files go a little later.

Whoever writes a configuration in pieces, or takes a directory away for a moment, leaves one behind for so long that is
valid and has fewer profiles. Everything else is undone by the next look; a token file that was deleted is a gap for its
readers, and without a provider one that lasts. So a profile that comes back in time finds its token where it was.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from agent.engine import tidying

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.engine.services import Services

GRACE = 5.0
"""Seconds of boot time; who asks for a reload does not wait."""


class Leaving:
    """Cleans up after profiles; what is still to do when the agent ends, the next start does.

    Args of the constructor: ``services``; ``reloading`` is held by whoever changes what is configured.
    """

    def __init__(self, services: Services, reloading: anyio.Lock) -> None:
        self._services, self._reloading = services, reloading
        self._due: dict[str, float] = {}
        self._news = anyio.Event()

    async def changed(self, configured: Collection[str], removed: Collection[str], *, at_once: bool) -> None:
        """Take note of a configuration in force; to be called with ``reloading`` held.

        Args:
            configured: the profiles that are in it.
            removed: those that were, until now.
            at_once: somebody asked for it, and is done writing.
        """
        due = self._services.clock.boot() + (0 if at_once else GRACE)
        before = {} if at_once else self._due
        names = [*self._due, *removed]
        self._due = {name: before.get(name, due) for name in names if name not in configured}
        if at_once:
            await self._clean_up()
        self._news.set()

    async def run(self) -> None:
        """Clean up in time, until cancelled."""
        clock = self._services.clock
        while True:
            while not self._due:
                self._news = anyio.Event()
                await self._news.wait()
            left = min(self._due.values()) - clock.boot()
            if left > 0:  # never by nothing: what is less than a microsecond would be waited for in circles
                await clock.sleep_until(clock.now() + max(timedelta(seconds=left), timedelta.resolution))
                continue
            async with self._reloading:
                await self._clean_up()

    async def _clean_up(self) -> None:
        now = self._services.clock.boot()
        for name in [name for name, due in self._due.items() if due <= now]:
            del self._due[name]
            await tidying.clean_up(name, self._services)
