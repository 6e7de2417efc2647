"""What belongs to whom on disk, and what becomes of what belongs to nobody any more."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent import state
from agent.engine import jobs, publishing, reach, reserving, timekeeping
from agent.network.discovery import host
from agent.output import sink
from agent.workers import StalledError

if TYPE_CHECKING:
    from agent.config.model import Config
    from agent.engine.services import Services


async def prepare(config: Config, services: Services) -> None:
    """Deal with what happened while no agent ran: leftovers of a crash, profiles that were removed."""
    board = services.board
    await _claim(config, services)
    await board.restore(services.workers)
    owners = [file.owner for profile in config.profiles for file in profile.token_file if file.owner]
    ours = [name for name in board.records if board.own(name)]
    recorded = [Path(path) for name in ours for path in board.records[name].paths]
    targets = reach.by_directory((path, path) for path in (*jobs.output_files(config), *recorded))
    await services.workers.disk_each(
        (directory, partial(sink.sweep, paths, owners)) for directory, paths in targets.items()
    )
    for name in sorted(set(ours) - {profile.name for profile in config.profiles}):
        await clean_up(name, services)
    await _announce(config, services)


async def claim(config: Config, services: Services) -> None:
    """Say what is configured: which profiles count, which paths are theirs, and which places are somebody's."""
    await _claim(config, services)
    await _announce(config, services)


async def _announce(config: Config, services: Services) -> None:
    """Save where token files are about to be written: after a kill right then, the next start knows of them."""
    board, now, news = services.board, services.clock.now(), False
    for profile in config.profiles:
        if record := state.planned(profile, board.own(profile.name), now):
            board.remember(profile.name, record)
            news = True
    if news:
        await board.save_records(services.workers)


async def _claim(config: Config, services: Services) -> None:
    board = services.board
    board.tally.arrange((profile.name for profile in config.profiles), map(host, config.profiles))
    timekeeping.forget(services)
    board.claimed = frozenset(file.path for profile in config.profiles for file in profile.token_file)
    places = sink.Reserved()
    for found in await services.workers.disk_each(reserving.portions(config, services.workers.stalled)):
        if not isinstance(found, StalledError):
            places.add(found)
    board.reserved = places


async def clean_up(name: str, services: Services) -> None:
    """Deal with the token files of a profile that is no longer configured."""
    record = services.board.records.get(name)
    if record and record.on_removal == "delete":
        paths = [Path(path) for path in record.paths if Path(path) not in services.board.claimed]
        await publishing.delete(paths, name, services, record.followed)
    services.board.forget(name)
