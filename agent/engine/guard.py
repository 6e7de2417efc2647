"""Puts token files right that somebody else has deleted, altered, or given another mode or owner.

Whoever does that again and again is not fought with: the repairs become rarer, and the log says so. So do those that
fail: each leaves traces in the directory, which would be a reason to look, and to try again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from agent.engine import reach
from agent.watching.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import anyio

    from agent.engine.crew import Crew
    from agent.engine.renewal import Keeper
    from agent.engine.services import Services
    from agent.watching import watch

PATIENCE = 5
"""Repairs in a row that are made at once."""
LONGEST_PAUSE = 10.0
"""Seconds between repairs of a file that somebody else keeps changing."""
PEACE = 5.0
"""Seconds in which a file that might have been put right was right; then the next repair is the first again."""


@dataclass(slots=True)
class _Fight:
    """How often a profile's files had to be put right, or could not be, and when they may be again (boot time)."""

    repairs: int = 0
    failures: int = 0
    next_at: float = 0.0

    def repaired(self, now: float) -> bool:
        """Note a repair; return whether it is the one that makes a fight of it."""
        if now > self.next_at + PEACE:
            self.repairs = 0
        self.repairs, self.failures = self.repairs + 1, 0
        excess = self.repairs - PATIENCE
        self.next_at = now + (min(LONGEST_PAUSE, 2.0 ** min(excess, 10)) if excess >= 0 else 0.0)
        return excess == 0

    def failed(self, now: float) -> None:
        """Note that they could not be put right."""
        self.failures += 1
        self.next_at = now + min(LONGEST_PAUSE, 2.0 ** min(self.failures - 1, 10))


class Guard:
    """Compares token files with what they were when the agent left them.

    Args of the constructor: ``exclusive`` is held while files are put right, so that none is written for a profile
    that is just being removed.
    """

    def __init__(self, crew: Crew, services: Services, exclusive: anyio.Lock) -> None:
        self._crew, self._services, self._exclusive = crew, services, exclusive
        self._seen: dict[Path, watch.Fingerprint] = {}
        self._fights: dict[str, _Fight] = {}
        self._watcher: Watcher | None = None

    async def keep(self, rescan_interval: Callable[[], timedelta]) -> None:
        """Keep all token files right until cancelled."""
        clock = self._services.clock
        with Watcher(clock, reach.watching(self._services)) as self._watcher:
            while True:
                wait = min((fight.next_at - clock.boot() for fight in self._pending()), default=float("inf"))
                interval = min(rescan_interval(), timedelta(seconds=max(0.0, min(wait, 3600.0))))
                await self._watcher.hint(lambda: self._files().keys(), interval)
                await self.look()

    def again(self) -> None:
        """Look again soon: there may be other files."""
        if self._watcher:
            self._watcher.again()

    async def look(self) -> None:
        """Compare once, and put right what differs."""
        async with self._exclusive:
            files = self._files()
            now = await reach.fingerprints(files, self._seen, self._services)
            right: dict[Path, watch.Fingerprint] = {}
            for keeper in {id(keeper): keeper for keeper in files.values()}.values():
                own = {file.path: now[file.path] for file in keeper.job.profile.token_file}
                if not keeper.has_written:
                    continue  # what is not there yet was not taken away
                if all(self._seen.get(path) == seen for path, seen in own.items()) or await self._is_right(keeper):
                    right |= own  # as they were seen before they were found to be right
            self._seen = right

    async def publish(self) -> None:
        """Write the tokens at once that could not be written; else each would wait for the end of its back-off."""
        async with self._exclusive:
            for keeper in self._crew.keepers:
                if keeper.progress.unpublished:
                    await self._crew.restart(keeper.job.profile.name)

    def _files(self) -> Mapping[Path, Keeper]:
        return {file.path: keeper for keeper in self._crew.keepers for file in keeper.job.profile.token_file}

    async def _is_right(self, keeper: Keeper) -> bool:
        """Whether nothing had to be put right; what cannot be looked at yet is not."""
        name, clock = keeper.job.profile.name, self._services.clock
        fight = self._fight(name)
        if fight.next_at > clock.boot():
            return False
        repaired = await keeper.repair()
        if repaired is None:
            fight.failed(clock.boot())
            return False
        if not repaired:
            fight.failures = 0
            return True
        if fight.repaired(clock.boot()):
            self._services.log.warning(
                "output.contested",
                profile=name,
                paths=[str(file.path) for file in keeper.job.profile.token_file],
                message="another program keeps changing what the agent writes; repairs become rarer",
                hint="who else writes there? let one of the two write elsewhere",
            )
        return False

    def _fight(self, name: str) -> _Fight:
        return self._fights.setdefault(name, _Fight())

    def _pending(self) -> list[_Fight]:
        boot = self._services.clock.boot()
        return [fight for fight in self._fights.values() if fight.next_at > boot]
