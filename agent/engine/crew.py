"""The tasks at work: one keeper for each job, started, succeeded by another, or stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from agent import status
from agent.engine import publishing
from agent.engine.progress import inherit
from agent.engine.renewal import Keeper

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.engine.jobs import Job
    from agent.engine.services import Services


@dataclass(frozen=True, slots=True)
class _Working:
    """A keeper at work, and how to end it."""

    keeper: Keeper
    scope: anyio.CancelScope
    ended: anyio.Event


class Crew:
    """Runs keepers in a task group; a job that is replaced hands on how far it came."""

    def __init__(self, services: Services, tasks: anyio.abc.TaskGroup) -> None:
        self._services, self._tasks = services, tasks
        self._working: dict[str, _Working] = {}

    @property
    def jobs(self) -> dict[str, Job]:
        """The jobs at work, by profile."""
        return {name: working.keeper.job for name, working in self._working.items()}

    @property
    def keepers(self) -> list[Keeper]:
        """The keepers at work."""
        return [working.keeper for working in self._working.values()]

    async def replace(self, stop: Iterable[str], start: Iterable[Job]) -> None:
        """End jobs, wait until they have, and begin others: two jobs never write one file."""
        ended = {name: self._working.pop(name) for name in stop}
        for working in ended.values():
            working.scope.cancel()
        for working in ended.values():
            await working.ended.wait()
        for job in start:
            before = ended.get(job.profile.name)
            if before is None or before.keeper.job.usable != job.usable:
                self._announce(job)
            self._start(self._successor(job, before.keeper) if before else Keeper(job, self._services))

    async def restart(self, name: str) -> Keeper | None:
        """Begin a job anew where it stands, due at once, and return its keeper; None if it has just been ended."""
        working = self._working.get(name)  # it stays at work for whoever asks whose files to watch meanwhile
        if working is None:
            return None
        working.scope.cancel()
        await working.ended.wait()
        keeper = Keeper(working.keeper.job, self._services, working.keeper.progress)
        keeper.make_due()
        self._start(keeper)
        return keeper

    def _successor(self, job: Job, before: Keeper) -> Keeper:
        jitter = self._services.jitter(job.profile.name)
        progress = inherit(job, before.job, before.progress, self._services.clock.now(), jitter)
        return Keeper(job, self._services, progress)

    def _start(self, keeper: Keeper) -> None:
        working = _Working(keeper, anyio.CancelScope(), anyio.Event())
        name = keeper.job.profile.name
        self._working[name] = working
        publishing.name_files(keeper.job.profile, self._services)
        keeper.show()
        self._tasks.start_soon(_work, working, name=f"profile {name}")

    def _announce(self, job: Job) -> None:
        """Say which credentials a job has."""
        for credential in job.usable:
            self._services.log.info(
                "certificate.loaded",
                profile=job.profile.name,
                kind=credential.kind,
                path=str(credential.path),
                thumbprint=credential.thumbprint,
                not_after=status.rfc3339(credential.not_after),
            )


async def _work(working: _Working) -> None:
    try:
        with working.scope:
            await working.keeper.run()
    finally:
        working.ended.set()
