"""What happens to a fleet: a day with an outage, a boot of all machines, a provider that is busy, one that refuses."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

from agent.errors import AcquisitionError, RejectedError, TransientError
from tests.fleet.agents import Agent, Endpoint, Manner, Provider

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MINUTE, HOUR = 60, 3600
PROFILES = tuple(f"profile{number}" for number in range(10))
TOOK = 0.2
"""Seconds until Entra has answered."""
STEADY = (6 * HOUR, 12 * HOUR)
OUTAGE = (12 * HOUR, 14 * HOUR)
END = 17 * HOUR
RETRY = 30
"""Seconds; the fixed pause of those who have no better one."""


@dataclass
class Outcome:
    """What a fleet did: requests in each second, and when each profile had its token (again), in order."""

    requests: list[int]
    served: list[float]

    def __add__(self, other: Outcome) -> Outcome:
        """Return what two parts of a fleet did together."""
        both = zip(self.requests, other.requests, strict=True)
        return Outcome([one + another for one, another in both], sorted(self.served + other.served))

    def times(self, count: int) -> Outcome:
        """Return what so many do that do the same."""
        served = [at for at in self.served for _ in range(count)]
        return Outcome([number * count for number in self.requests], served)


class Down:
    """A provider that answers nobody during the outage, and says so at once: the most requests there can be."""

    def __init__(self, outage: tuple[float, float] = OUTAGE, took: float = TOOK) -> None:
        self._outage, self.took = outage, took

    def answer(self, at: float, _endpoint: Endpoint) -> AcquisitionError | None:
        if self._outage[0] <= at < self._outage[1]:
            return TransientError("no connection", unreachable=True)
        return None


class Busy:
    """A provider that gives so many tokens a second, and everybody else a 429 with ``Retry-After``."""

    took = TOOK

    def __init__(self, most: int, wish: float) -> None:
        self._most, self._wish = most, timedelta(seconds=wish)
        self._second, self._asked = -1, 0

    def answer(self, at: float, endpoint: Endpoint) -> AcquisitionError | None:
        if endpoint == "discovery":
            return None
        if int(at) != self._second:
            self._second, self._asked = int(at), 0
        self._asked += 1
        return TransientError("429", retry_after=self._wish) if self._asked > self._most else None


class Refusing:
    """A provider that takes nobody's certificate."""

    took = TOOK

    def answer(self, _at: float, endpoint: Endpoint) -> AcquisitionError | None:
        return RejectedError("AADSTS700027") if endpoint == "token" else None


class Fleet:
    """Agents that ask one provider, in the order of time."""

    def __init__(self, machines: Iterable[int], manner: Manner, provider: Provider, *, within: float = 0.0) -> None:
        """Boot machines.

        Args:
            machines: their numbers.
            manner: how they decide.
            provider: whom they ask.
            within: seconds in which they boot, one here and one there.
        """
        self._asked: list[float] = []
        self._agents = []
        for number in machines:
            machine = f"machine{number}"
            agent = Agent(machine, PROFILES, manner, lambda at, _endpoint, _name: self._asked.append(at))
            agent.boot(Random(f"boot of {machine}").random() * within, provider)  # noqa: S311
            self._agents.append(agent)
        self._next = [(agent.next_at, index) for index, agent in enumerate(self._agents)]
        heapq.heapify(self._next)

    def go_on(self, until: float) -> None:
        """Let time pass."""
        while self._next[0][0] < until:
            agent = self._agents[self._next[0][1]]
            agent.step()
            heapq.heapreplace(self._next, (agent.next_at, self._next[0][1]))

    def served(self) -> list[float]:
        """Return when each profile got the token that it has."""
        return sorted(at for agent in self._agents for at in agent.tokens.values())

    def outcome(self, end: int, served: list[float]) -> Outcome:
        """Return what they did."""
        requests = [0] * end
        for at in self._asked:
            if at < end:
                requests[int(at)] += 1
        return Outcome(requests, served)


def day(machines: Sequence[int], manner: Manner) -> Outcome:
    """Boot machines in one second; twelve hours later the provider is down for two. ``served``: after the outage."""
    fleet = Fleet(machines, manner, Down())
    fleet.go_on(OUTAGE[1] + 2 * MINUTE)
    served = [at - OUTAGE[1] for at in fleet.served()]
    fleet.go_on(END)
    return fleet.outcome(END, served)


def short(machines: Sequence[int], manner: Manner, provider: Provider, seconds: int, within: float = 0.0) -> Outcome:
    """Boot machines and look at them for a while."""
    fleet = Fleet(machines, manner, provider, within=within)
    fleet.go_on(seconds)
    return fleet.outcome(seconds, fleet.served())


def cron(count: int) -> Outcome:
    """Return what so many profiles do that a timer renews at each full hour, with a fixed pause after a failure."""
    instants = [*range(0, OUTAGE[0], HOUR), *range(*OUTAGE, RETRY), *range(OUTAGE[1], END, HOUR)]
    requests = [0] * END
    for at in instants:
        requests[at] = count
    return Outcome(requests, [TOOK] * count)
