"""The state of the whole agent in one line, as ``systemctl status`` shows it.

"3 of 4 fresh, billing degraded: AADSTS700027, runway 41 min": how many are well, what is wrong with the worst of the
others, and how long their readers have until it hurts them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from agent import status, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from agent.schedule import State
    from agent.status import AgentStatus, ProfileStatus

SHOWN = 3
"""Profiles that are named; of the others there is a count."""
LONGEST_REASON = 120
_WORST_FIRST: tuple[State, ...] = ("expired", "pending", "degraded", "stopped", "fresh")


def headline(agent: AgentStatus, profiles: Iterable[ProfileStatus], now: datetime) -> str:
    """Return the line for a running agent."""
    stated = [(status.state_of(profile, now, kept=True), profile) for profile in profiles]
    bad = [pair for pair in stated if pair[0] != "fresh"]
    parts = [f"{len(stated) - len(bad)} of {len(stated)} fresh" if stated else "no profile is configured"]
    if agent.config_error:
        parts.append(f"configuration refused: {_cut(agent.config_error)}")
    if agent.metrics_error:
        parts.append(f"metrics not shown: {_cut(agent.metrics_error)}")
    if agent.skews:
        skew = max(agent.skews.values(), key=abs)
        parts.append(f"clock {words.duration(skew)} {'ahead' if skew > timedelta(0) else 'behind'}")
    parts += _bad(sorted(bad, key=lambda pair: _WORST_FIRST.index(pair[0])), now)
    parts += _unused(stated)
    if stated and not bad:
        parts.append(_runway([profile for _, profile in stated], now))
    return ", ".join(parts)


def _bad(bad: Sequence[tuple[State, ProfileStatus]], now: datetime) -> list[str]:
    """Return what is wrong, worst first."""
    parts = [_wrong(state, profile, now) for state, profile in bad[:SHOWN]]
    return parts + ([f"{len(bad) - SHOWN} more not fresh"] if len(bad) > SHOWN else [])


def _wrong(state: State, profile: ProfileStatus, now: datetime) -> str:
    error = profile.last_error
    reason = f": {error.code or _cut(error.message)}" if error else ""
    return f"{profile.name} {state}{reason}" + (f", {_runway([profile], now)}" if state == "degraded" else "")


def _unused(stated: Iterable[tuple[State, ProfileStatus]]) -> list[str]:
    """Return whose certificate on disk waits to be usable while another one serves."""
    names = [p.name for state, p in stated if state == "fresh" and p.credential and p.credential.candidate_error]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"new credential not in use: {' '.join(names[:SHOWN])}{more}"] if names else []


def _runway(profiles: Iterable[ProfileStatus], now: datetime) -> str:
    """Return how long the first of the tokens still serves."""
    return f"runway {words.duration(min(status.runway(profile, now) for profile in profiles))}"


def _cut(text: str) -> str:
    first, *more = text.splitlines() or [""]
    if len(first) > LONGEST_REASON:
        return f"{first[:LONGEST_REASON]}…"
    return f"{first} …" if more else first
