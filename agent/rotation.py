"""Which credential to use: a new one is a candidate until a provider has accepted it. Pure decisions.

What lies on disk is tried before what was used so far; what the provider refuses is tried again later, while the one
that worked last goes on being used as long as it is valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

from agent.schedule import LONG_AGO, NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

FIRST_RETRY = timedelta(seconds=30)
"""A certificate that was uploaded a moment ago is known everywhere within seconds to minutes."""
LAST_RETRY = timedelta(minutes=5)
"""Nobody may ever upload it; asking more often changes nothing."""


class Candidate(Protocol):
    """What is asked of a credential here."""

    @property
    def identity(self) -> str:
        """Return what a provider tells credentials apart by."""

    @property
    def not_after(self) -> datetime | None:
        """Return the end of its validity, None where it has none."""


C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a provider said to a candidate: how often, why, and when to try again."""

    times: int
    message: str
    retry_at: datetime


def refuse(earlier: Refusal | None, message: str, now: datetime) -> Refusal:
    """Return the refusal that follows an earlier one: 30 s, doubling, up to five minutes."""
    times = earlier.times + 1 if earlier else 1
    return Refusal(times, message, now + min(LAST_RETRY, FIRST_RETRY * (1 << min(times - 1, 10))))


def valid(candidate: Candidate, now: datetime) -> bool:
    """Return whether a credential has not expired."""
    return candidate.not_after is None or now <= candidate.not_after


def order(on_disk: Sequence[C], accepted: C | None, refused: Mapping[str, Refusal], now: datetime) -> list[C]:
    """Return the credentials to try for a token that is needed now, in this order.

    Args:
        on_disk: what can be used of what the profile names, the newest first.
        accepted: the one that worked last, still in memory; possibly no longer on disk.
        refused: by identity.
        now: the time.
    """
    asked = [each for each in on_disk if _due_at(each, refused) <= now]
    known = {each.identity for each in asked}
    if accepted is not None and accepted.identity not in known and valid(accepted, now):
        asked.append(accepted)
    return asked or list(on_disk)


def newer(on_disk: Sequence[C], proven: str) -> list[C]:
    """Return the candidates: what is on disk and goes before the one that was accepted last.

    Args:
        on_disk: what can be used, the newest first.
        proven: the identity of that one, which may be gone from disk and memory; empty if none is known.
    """
    if not proven:
        return []
    identities = [each.identity for each in on_disk]
    end = identities.index(proven) if proven in identities else len(identities)
    return list(on_disk[:end])


def due(candidates: Sequence[C], refused: Mapping[str, Refusal], now: datetime) -> list[C]:
    """Return the candidates that ought to be tried now, though no token is needed."""
    return [each for each in candidates if _due_at(each, refused) <= now]


def due_at(candidates: Sequence[Candidate], refused: Mapping[str, Refusal]) -> datetime:
    """Return when the next candidate is due: long ago for one that was never tried, never if there is none."""
    return min((_due_at(each, refused) for each in candidates), default=NEVER)


def _due_at(candidate: Candidate, refused: Mapping[str, Refusal]) -> datetime:
    refusal = refused.get(candidate.identity)
    return refusal.retry_at if refusal else LONG_AGO


def threshold(left: timedelta, warn_before: Sequence[timedelta]) -> timedelta | None:
    """Return the threshold that the time left of a certificate has passed last, None if it has passed none."""
    return min((each for each in warn_before if left <= each), default=None)
