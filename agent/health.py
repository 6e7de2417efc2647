"""Whether readers can work with what the agent keeps for them: what `/readyz` answers. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent import harmless, status

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from agent.schedule import State
    from agent.status import ProfileStatus

SERVING: tuple[State, ...] = ("fresh", "degraded")
"""A token in one of these states opens its door: that it could not be renewed yet hurts nobody so far."""


class Readiness(NamedTuple):
    """Whether every profile has a valid token in all its files, and a line for each that is not as it should be."""

    ready: bool
    lines: tuple[str, ...]


def readiness(profiles: Iterable[ProfileStatus], now: datetime) -> Readiness:
    """Return how all profiles of a running agent stand."""
    stated = [(status.state_of(profile, now, kept=True), profile) for profile in profiles]
    return Readiness(
        ready=all(state in SERVING and status.serves_until(profile) for state, profile in stated),
        lines=tuple(_line(state, profile) for state, profile in stated if state != "fresh"),
    )


def _line(state: State, profile: ProfileStatus) -> str:
    """Return such as "billing: expired: AADSTS700027: the certificate is not registered"."""
    error = profile.last_error
    if error is None:
        return f"{profile.name}: {state}"
    code = f"{error.code}: " if error.code and error.code not in error.message else ""
    return f"{profile.name}: {state}: {harmless.line(code + error.message, harmless.MAX_TEXT)}"
