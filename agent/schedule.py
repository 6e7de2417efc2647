"""When to refresh, when to retry, how fresh a token is: every decision about time, as pure functions.

``now`` and randomness are arguments. Instants are aware UTC datetimes, durations timedeltas.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from agent.config.model import Refresh
    from agent.errors import AgentError
    from agent.tokens import AccessToken

State = Literal["pending", "fresh", "degraded", "expired", "stopped"]

LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""Before everything."""
NEVER = datetime.max.replace(tzinfo=UTC)
"""After everything."""
MIN_INTERVAL = timedelta(seconds=1)
"""Never two requests of a profile closer than this: Entra answers loops with AADSTS50196."""
MAX_BACKOFF = timedelta(seconds=60)
"""A provider that comes back is noticed within a minute."""
MAX_RETRY_AFTER = timedelta(hours=1)
"""A provider's Retry-After is believed up to here; beyond, it is a mistake or an attack."""
REJECTED_INTERVAL = timedelta(minutes=5)
"""A person has to act, mostly in a portal the agent cannot see; asking more often changes nothing."""
REJECTED_JITTER = 0.1
"""Fraction of the interval: machines that were refused in the same second do not ask in the same second for ever."""
LOCAL_INTERVAL = timedelta(seconds=10)
"""A missing or broken file costs nothing to look at again."""


def spread(seed: str) -> float:
    """Return a number in [0, 1) that is the same for the same seed: a fleet spreads, a machine stays put."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:6], "big") / (1 << 48)


def place(machine: str, profile: str) -> float:
    """Return a profile's place in the fleet, the share of its jitter: always the same on one machine."""
    return spread(f"{machine}/{profile}")


def refresh_at(token: AccessToken, policy: Refresh, jitter: float) -> datetime:
    """Return when to renew a token: a fraction of its observed lifetime, jitter only ever earlier.

    Args:
        token: its ``refresh_in`` wins where it is sooner.
        policy: ``at`` and ``jitter`` as fractions of the lifetime.
        jitter: in [0, 1), how much of the policy's jitter to take.
    """
    due = token.acquired_at + token.lifetime * (policy.at - policy.jitter * jitter)
    if token.refresh_in is not None:
        due = min(due, token.acquired_at + token.refresh_in)
    return max(due, token.acquired_at + MIN_INTERVAL)


def pause(failures: int, error: AgentError, jitter: float) -> timedelta:
    """Return how long to wait after the given number of failures in a row (1 or more).

    Transient: exponential back-off with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"),
    1 s to 60 s; after a Retry-After it begins where that ends, or all who were sent away together would come back
    together. Rejected: every five minutes, a tenth more or less for the same reason. Local files: see LOCAL_INTERVAL
    for what is missing or wrong, back-off for what cannot be written.

    Args:
        failures: how many there were in a row, the last one included.
        error: what happened.
        jitter: in [0, 1).
    """
    if error.kind == "rejected":
        return REJECTED_INTERVAL * (1 + REJECTED_JITTER * (2 * jitter - 1))
    if error.kind == "configuration":
        return LOCAL_INTERVAL
    window = min(MAX_BACKOFF, MIN_INTERVAL * (1 << min(failures, 6)))
    wish: timedelta = getattr(error, "retry_after", None) or timedelta(0)
    return max(MIN_INTERVAL, min(wish, MAX_RETRY_AFTER)) + (window - MIN_INTERVAL) * jitter


def retry_at(now: datetime, failures: int, error: AgentError, jitter: float) -> datetime:
    """Return when to try again after a failure just now; see `pause`."""
    return now + pause(failures, error, jitter)


def degraded_at(token: AccessToken, policy: Refresh) -> datetime:
    """Return when the remaining life gets too small.

    ``min_remaining`` before the end; for short-lived tokens at most half of what a punctual refresh would leave,
    so that a token on schedule is never called degraded.
    """
    punctual_rest = token.lifetime * (1 - policy.at)
    return token.expires_at - min(policy.min_remaining, punctual_rest / 2)


def judge(now: datetime, expires_at: datetime | None, degraded_at: datetime | None, *, failing: bool) -> State:
    """Return the state of a profile that is being kept fresh (``stopped`` is for those that are not)."""
    if expires_at is None:
        return "pending"
    if now >= expires_at:
        return "expired"
    if failing or (degraded_at is not None and now >= degraded_at):
        return "degraded"
    return "fresh"


def runway(now: datetime, expires_at: datetime | None) -> timedelta:
    """Return how long the token on disk still serves if nothing works from now on."""
    return max(timedelta(0), expires_at - now) if expires_at else timedelta(0)
