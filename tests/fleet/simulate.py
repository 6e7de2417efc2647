"""All that is to be told of a fleet, on all cores."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import reduce
from multiprocessing import get_context
from operator import add
from os import cpu_count
from typing import TYPE_CHECKING

from tests.fleet import report, scenarios
from tests.fleet.agents import Manner, without_jitter

if TYPE_CHECKING:
    from tests.fleet.scenarios import Outcome

SCALE = 10
"""What agents share is simulated with a tenth of them, and a tenth of what the provider gives."""


def day(machines: range) -> Outcome:
    """Return the day of some machines as they are; runs in a process of its own."""
    return scenarios.day(machines, Manner())


def minute(machines: range) -> Outcome:
    """Return how some machines boot within a minute; runs in a process of its own."""
    return scenarios.short(machines, Manner(), scenarios.Down(), 2 * scenarios.MINUTE, within=scenarios.MINUTE)


def simulate(agents: int) -> report.Results:
    """Return all that is to be told of a fleet."""
    parts = [range(first, min(first + 500, agents)) for first in range(0, agents, 500)]
    with ProcessPoolExecutor(cpu_count(), mp_context=get_context("spawn")) as pool:
        days, minutes = pool.map(day, parts), pool.map(minute, parts)
        ours = {"token-agent": Manner(), "without jitter": without_jitter()}
        few = range(agents // SCALE)
        busy = {name: sent_away(few, manner).times(SCALE) for name, manner in ours.items()}
        refused = {name: refuse(few, manner).times(SCALE) for name, manner in ours.items()}
        still = scenarios.day(range(1), without_jitter()).times(agents)  # where nothing differs, one is like all
        return report.Results(
            agents,
            {
                "token-agent": reduce(add, days),
                "without jitter": still,
                "cron at the full hour": scenarios.cron(agents * len(scenarios.PROFILES)),
            },
            busy,
            refused,
            reduce(add, minutes),
        )


def sent_away(machines: range, manner: Manner) -> Outcome:
    """Return how some machines boot against a provider that is as busy for them as for the whole fleet."""
    provider = scenarios.Busy(report.BUSY_MOST * len(machines) // 10_000, report.BUSY_WISH)
    return scenarios.short(machines, manner, provider, report.BUSY_SECONDS)


def refuse(machines: range, manner: Manner) -> Outcome:
    """Return how some machines boot with a certificate that is refused."""
    return scenarios.short(machines, manner, scenarios.Refusing(), report.REFUSED_SECONDS)
