"""A single round of the engine: what is due is acquired, everything is written, hooks run, then it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from agent.engine import jobs, reach, tidying
from agent.engine.renewal import Keeper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.config.model import Config, Profile
    from agent.credentials.store import CredentialStore
    from agent.engine.jobs import Job
    from agent.engine.progress import Progress
    from agent.engine.services import Services


async def once(
    config: Config, selected: Sequence[Profile], services: Services, credentials: CredentialStore, *, force: bool
) -> dict[str, Progress]:
    """Bring the selected profiles up to date, each on its own.

    Args:
        config: the whole configuration, which says what was removed.
        selected: the profiles asked for.
        services: the collaborators.
        credentials: where certificates are loaded.
        force: acquire also what is not due.

    Returns:
        How each profile stands, by name, in the order of ``selected``.
    """
    await tidying.prepare(config, services)
    results: dict[str, Progress] = {}
    now = services.clock.now()
    loaded = await reach.jobs_of(selected, jobs.loads(selected, credentials, now), services)
    async with anyio.create_task_group() as tasks:
        for job in loaded:
            tasks.start_soon(_refresh, job, services, force, results)
    services.board.arrange([profile.name for profile in config.profiles])
    await services.board.save(services.workers)  # hooks may take long, or be interrupted
    await services.hooks.finish()
    await services.board.save(services.workers)
    return {profile.name: results[profile.name] for profile in selected}


async def _refresh(job: Job, services: Services, force: bool, results: dict[str, Progress]) -> None:  # noqa: FBT001 - a task's arguments are positional
    """Take the steps of `renewal.Keeper.run` once."""
    keeper = Keeper(job, services)
    await keeper.resume()
    if force or keeper.progress.next_at <= services.clock.now():
        await keeper.step()
    keeper.show()
    results[job.profile.name] = keeper.progress
