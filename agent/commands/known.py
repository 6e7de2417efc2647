"""What is known of the agent of a runtime directory: as it says itself, if it may be asked; else what it wrote last.

Root and the agent's own user may ask. All others read `status.json`, which can be older than it should: the disk may be
full, or the agent stopped. Then that is said of every profile it concerns, instead of a good word from before.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from agent import control, files, lock, status
from agent.errors import UnreachableError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from agent.status import AgentStatus, ProfileStatus

PATIENCE = 2.0
"""Seconds in which an agent that is well tells how it stands."""
OVERDUE = timedelta(minutes=2)
"""After an attempt that was due the agent tells how it went; no attempt takes longer, if it has to wait for others."""
HINT = "if this stays: is there space in {directory}? the agent's log says what keeps it"


@dataclass(frozen=True, slots=True)
class Known:
    """The agent and its profiles; ``pid`` is None if none is running, and 0 if it is in another container.

    ``before`` tells that all this is of an agent before the one that is running.
    """

    pid: int | None
    agent: AgentStatus
    profiles: tuple[ProfileStatus, ...]
    before: bool = False


def of(directory: Path, now: datetime) -> Known:
    """Return what is known.

    Raises:
        FileNotFoundError, NotADirectoryError: there is nothing that an agent has left.
        ValueError: it is damaged.
        OSError: it cannot be read.
    """
    pid = lock.holder(directory)
    if pid is not None and (told := _told(directory, pid)):
        return Known(pid, *told)
    agent, profiles = status.parse(files.read_bytes(directory / "status.json", limit=status.LARGEST))
    if pid is None:
        return Known(None, agent, profiles)
    hint = HINT.format(directory=directory)
    if not lock.is_by(directory, pid, agent.pid):
        problem = f"{_who(pid)} has not told yet how this profile stands; this is from before it was started"
        return Known(pid, agent, tuple(_doubted(each, now, problem, hint) for each in profiles), before=True)
    problem = f"{_who(pid)} has not told how the attempt went that was due; this is from before"
    late = tuple(_doubted(each, now, problem, hint) if _is_overdue(each, now) else each for each in profiles)
    return Known(pid, agent, late)


def _told(directory: Path, pid: int) -> tuple[AgentStatus, tuple[ProfileStatus, ...]] | None:
    """Return what the agent itself says; None if it may not be asked, cannot answer, or is too old to know how."""
    if pid and lock.is_stopped(pid):
        return None
    try:
        return status.from_file(control.ask(directory, {"op": "status"}, PATIENCE).get("status"))
    except (UnreachableError, ValueError):
        return None


def _is_overdue(profile: ProfileStatus, now: datetime) -> bool:
    return profile.refresh_at is not None and profile.refresh_at + OVERDUE < now


def _doubted(profile: ProfileStatus, now: datetime, problem: str, hint: str) -> ProfileStatus:
    """Return a profile with what makes it doubtful; a failure that is known already says more."""
    error = profile.last_error or status.LastError(now, "transient", problem, hint)
    return dataclasses.replace(profile, last_error=error)


def _who(pid: int) -> str:
    return f"the agent (pid {pid})" if pid > 0 else "the agent"
