"""What is asked of disks of which one may not answer: the rest goes on, and what was known of that one stays.

`workers` says that a place does not answer. Here is what that means: a file there counts as unchanged, a credential
there as one that cannot be used, a token file there as one that cannot be written. Each such place is named once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from agent.engine.jobs import unreachable
from agent.errors import ConfigurationError, CredentialError, Problem
from agent.watching import watch
from agent.workers import StalledError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from agent.config.model import Config, Profile
    from agent.credentials.store import Credential
    from agent.engine.jobs import Job
    from agent.engine.loading import Loader
    from agent.engine.services import Services
    from agent.watching.watcher import Disk

V = TypeVar("V")
Load: TypeAlias = "tuple[frozenset[Path], Callable[[], Job]]"
"""The directories that a job is loaded from, and how."""
LASTING = 60.0
"""Seconds without a trouble that comes and goes, until it is news again."""
NO_THREAD = "the system gives the agent no thread for its work"
NO_THREAD_HINT = "see TasksMax= and MemoryMax= of the unit, ulimit -u, kernel.threads-max; it goes on by itself"


async def look(loader: Loader, config: Config, seen: watch.Contents, services: Services) -> watch.Contents:
    """Return the contents of all files that decide what the agent does; what was seen last, where none can be had."""
    looks = list(loader.looks(config))
    outcomes = await services.workers.disk_each(looks)
    found: watch.Contents = {}
    for (directory, _), outcome in zip(looks, outcomes, strict=True):
        if isinstance(outcome, StalledError):
            found |= {path: content for path, content in seen.items() if path.is_relative_to(directory)}
    for outcome in outcomes:
        found |= {} if isinstance(outcome, StalledError) else outcome
    return found


async def configuration(loader: Loader, before: Config, services: Services) -> Config:
    """Return the configuration on disk.

    Raises:
        ConfigurationError: it cannot be used, or be read at all.
    """
    try:
        return await services.workers.disk(loader.config, at=parents(before.sources))
    except StalledError as error:
        loader.read = dict.fromkeys(before.sources, str(error.strerror))  # another content is a reason to look again
        raise ConfigurationError([Problem(before.path, None, "", str(error.strerror), error.hint)]) from error


async def jobs(loader: Loader, config: Config, now: datetime, services: Services) -> list[Job]:
    """Return all profiles with what they need from disk."""
    return await jobs_of(config.profiles, loader.jobs(config, now), services)


async def jobs_of(profiles: Sequence[Profile], loads: Iterable[Load], services: Services) -> list[Job]:
    """Return profiles with what they need from disk, given how each is loaded."""
    outcomes, stalled = await services.workers.disk_each(loads), services.workers.stalled
    return [
        outcome
        if not isinstance(outcome, StalledError)
        else unreachable(profile, stalled, str(outcome.strerror), outcome.hint)
        for profile, outcome in zip(profiles, outcomes, strict=True)
    ]


async def fingerprints(
    paths: Iterable[Path], seen: Mapping[Path, watch.Fingerprint], services: Services
) -> dict[Path, watch.Fingerprint]:
    """Return the fingerprints of files; where they cannot be had, what was seen last."""
    groups = list(watch.portions(paths))
    outcomes = await services.workers.disk_each(
        (directory, partial(watch.fingerprints, group)) for directory, group in groups
    )
    found: dict[Path, watch.Fingerprint] = {}
    for (_, group), outcome in zip(groups, outcomes, strict=True):
        if isinstance(outcome, StalledError):
            found |= {path: seen.get(path, str(outcome.strerror)) for path in group}
        else:
            found |= outcome
    return found


async def prove_readable(credential: Credential, now: datetime, services: Services) -> None:
    """Read a credential's file before the provider is asked: no thread that asks may hang at a disk.

    Raises:
        CredentialError: it cannot be read, or holds none that can be used.
    """
    path = credential.path
    try:
        await services.workers.disk(partial(credential.check, now), at=path.parent)
    except StalledError as error:
        raise CredentialError(path, str(error.strerror), hint=error.hint) from error


def watching(services: Services) -> Disk:
    """Return where a watcher looks for the directories to watch: in a thread of its own, since it walks everywhere."""
    return partial(services.workers.disk, at=object())


def parents(paths: Iterable[Path]) -> frozenset[Path]:
    """Return the directories of files."""
    return frozenset(path.parent for path in paths)


def by_directory(values: Iterable[tuple[Path, V]]) -> dict[Path, list[V]]:
    """Return values that belong to files, by the directories of these."""
    found: dict[Path, list[V]] = {}
    for path, value in values:
        found.setdefault(path.parent, []).append(value)
    return found


async def tell(services: Services, recovered: Callable[[], Awaitable[None]]) -> None:
    """Say of each place once that it does not answer, and that it does again; until cancelled.

    Args:
        services: the collaborators.
        recovered: called when one does.
    """
    workers, log = services.workers, services.log
    known: frozenset[Path] = frozenset()
    silent_until = 0.0
    while True:
        news, now = workers.news, workers.stalled
        for path in sorted(now - known):
            log.error("disk.stalled", path=str(path), message=str(StalledError().strerror), hint=StalledError.hint)
        for path in sorted(known - now):
            log.info("disk.recovered", path=str(path))
            await recovered()
        if workers.exhausted:
            if services.clock.boot() >= silent_until:
                log.error("threads.exhausted", message=NO_THREAD, hint=NO_THREAD_HINT)
            silent_until = services.clock.boot() + LASTING
        known = now
        await news.wait()
