"""Puts token files right that somebody else has deleted, altered, or given another mode or owner.

Whoever does that again and again is not fought with: the repairs become rarer, and log and status say so. So do those
that fail: each leaves traces in the directory, which would be a reason to look, and to try again. Meanwhile it is known
which files have no token: nobody is told that they serve.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from agent.engine import reach
from agent.errors import OutputError
from agent.watching.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
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
TICK = 0.01
"""Seconds; whoever looks in time may be early by this much."""


@dataclass(slots=True)
class _Fight:
    """How often a profile's files had to be put right, or could not be, and when they may be again (boot time)."""

    repairs: int = 0
    failures: int = 0
    next_at: float = 0.0

    @property
    def contested(self) -> bool:
        """Whether somebody else keeps changing the files."""
        return self.repairs >= PATIENCE

    @property
    def over_at(self) -> float:
        """When peace has lasted long enough."""
        return self.next_at + PEACE

    def repaired(self, now: float) -> bool:
        """Note a repair; return whether it is the one that makes a fight of it."""
        if now > self.over_at:
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
                wait = min((at - clock.boot() for at in self._pending()), default=float("inf"))
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
            await self._look()

    @asynccontextmanager
    async def insisting(self, asked: bool) -> AsyncIterator[None]:  # noqa: FBT001 - whether at all
        """If asked for, put everything right at the end, also what was to wait; for those who hold ``exclusive``."""
        try:
            yield
        finally:
            if asked:
                for fight in self._fights.values():
                    fight.next_at = min(fight.next_at, self._services.clock.boot())
                await self._look()

    async def _look(self) -> None:
        files = self._files()
        now = await reach.fingerprints(files, self._seen, self._services)
        right: dict[Path, watch.Fingerprint] = {}
        for keeper in {id(keeper): keeper for keeper in files.values()}.values():
            own = {file.path: now[file.path] for file in keeper.job.profile.token_file}
            if not keeper.has_written:
                continue  # what is not there yet was not taken away
            if all(self._seen.get(path) == seen for path, seen in own.items()) or await self._is_right(keeper):
                right |= own  # as they were seen before they were found to be right
                self._end(keeper)
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
        fight, clock = self._fight(keeper), self._services.clock
        if fight.next_at > clock.boot() + TICK:
            await keeper.examine()
            if fight.contested and keeper.progress.trouble is None:  # it has written a new token meanwhile
                keeper.troubled(_contest([file.path for file in keeper.job.profile.token_file]))
            return False
        try:
            repaired = await keeper.repair()
        except OutputError as error:
            fight.failed(clock.boot())
            self._unrepaired(keeper, error)
            return False
        if not repaired:
            fight.failures = 0
        elif fight.repaired(clock.boot()):
            self._contested(keeper, repaired)
        if not fight.contested:
            keeper.troubled(None)
        elif repaired:
            keeper.troubled(_contest(repaired))
        return not repaired

    def _unrepaired(self, keeper: Keeper, error: OutputError) -> None:
        """Say that what readers find is not the token; the log has it once as long as the reason stays the same."""
        before = keeper.progress.trouble
        if before is None or before.message != error.message:
            self._services.log.warning(
                "output.unrepaired", profile=keeper.job.profile.name, message=error.message, hint=error.hint
            )
        keeper.troubled(error)

    def _contested(self, keeper: Keeper, repaired: Sequence[Path]) -> None:
        """Say that somebody else keeps changing files."""
        error = _contest(repaired)
        self._services.log.warning(
            "output.contested",
            profile=keeper.job.profile.name,
            paths=[str(path) for path in repaired],
            message=error.message,
            hint=error.hint,
        )

    def _end(self, keeper: Keeper) -> None:
        """Forget a fight once there is peace."""
        fight = self._fight(keeper)
        if fight.contested and fight.over_at <= self._services.clock.boot() + TICK:
            fight.repairs = 0
            keeper.troubled(None)

    def _fight(self, keeper: Keeper) -> _Fight:
        return self._fights.setdefault(keeper.job.profile.name, _Fight())

    def _pending(self) -> Iterator[float]:
        """Yield when to look again on account of fights (boot time)."""
        boot = self._services.clock.boot()
        for fight in self._fights.values():
            due = (fight.next_at, fight.over_at) if fight.contested else (fight.next_at,)
            yield from (at for at in due if at > boot)


def _contest(paths: Sequence[Path]) -> OutputError:
    """Return what to tell of files that somebody else keeps changing."""
    path = paths[0]
    return OutputError(
        path,
        f"another program keeps changing it; the agent puts it right again up to {LONGEST_PAUSE:g} s later",
        hint=f"find that program: auditctl -w {path} -p wa, then ausearch -f {path}, or lsof; let it write elsewhere",
    )
