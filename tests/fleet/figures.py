"""Peak and mean of requests, and how long a fleet waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.fleet.scenarios import MINUTE, STEADY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fleet.scenarios import Outcome


class Load(NamedTuple):
    """Requests a second: the most in one second, and the mean of the busiest minute and of all the time."""

    second: float
    minute: float
    mean: float


def load(requests: Sequence[int], begin: int, end: int) -> Load:
    """Return the load between two instants; only whole minutes are looked at one by one."""
    part = requests[begin:end]
    minutes = [sum(part[at : at + MINUTE]) / MINUTE for at in range(0, len(part) - MINUTE + 1, MINUTE)]
    return Load(max(part), max(minutes, default=sum(part) / len(part)), sum(part) / len(part))


def steady(outcome: Outcome) -> Load:
    """Return the load while nothing happens."""
    return load(outcome.requests, *STEADY)


def waited(served: Sequence[float], share: float) -> float:
    """Return after how many seconds a share of the profiles, such as 0.99, was served."""
    return served[min(len(served) - 1, int(len(served) * share))]
