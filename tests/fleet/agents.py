"""Agents as instants: what they ask, and when, by the program's own decisions and nothing else."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Literal, Protocol

from agent import schedule
from agent.admission import Standing
from agent.config.model import Refresh
from agent.engine.progress import retry_at
from agent.errors import AcquisitionError, TransientError
from agent.network.discovery import DISCOVERY_TTL
from agent.tokens import AccessToken
from tests.virtual import START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

Endpoint = Literal["discovery", "token"]
LIFETIME = timedelta(hours=1)
"""The shortest that Entra gives; its random 60 to 90 minutes would spread a fleet further."""
MOST_PROFILES = 15
"""More would have to wait for one another (``max_in_flight``), which is left out here."""


class Provider(Protocol):
    """What a fleet asks."""

    took: float
    """Seconds until it has answered."""

    def answer(self, at: float, endpoint: Endpoint, /) -> AcquisitionError | None:
        """Return what comes of a request: a new error, or None for a success."""


@dataclass(frozen=True)
class Manner:
    """How the agents of a fleet decide: as they are, or without what keeps them apart.

    Attributes:
        refresh: as in the configuration.
        random: makes the source of chance of one machine.
        lifetime: of the tokens.
    """

    refresh: Refresh = field(default_factory=Refresh)
    random: Callable[[str], Callable[[], float]] = lambda machine: Random(machine).random  # noqa: S311
    lifetime: timedelta = LIFETIME


def without_jitter() -> Manner:
    """Return a manner in which every machine decides alike."""
    return Manner(Refresh(jitter=0), lambda _machine: lambda: 0.5)


class Agent:
    """One machine with profiles of one authority; it is told what time it is, and never goes back."""

    def __init__(
        self, machine: str, profiles: Iterable[str], manner: Manner, note: Callable[[float, Endpoint, str], None]
    ) -> None:
        """Args: ``note`` is told of each request: when, what for, and of which profile."""
        self._manner, self._note, self._random = manner, note, manner.random(machine)
        self._places = {name: schedule.place(machine, name) for name in profiles}
        if len(self._places) > MOST_PROFILES:
            raise ValueError(f"no more than {MOST_PROFILES} profiles")
        self.tokens: dict[str, float] = {}
        self._failures = dict.fromkeys(self._places, 0)
        self._standing, self._waiting = Standing(), list[str]()
        self._discovered_until = float("-inf")
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = count()

    @property
    def next_at(self) -> float:
        """When something happens next."""
        return self._events[0][0]

    def boot(self, at: float, provider: Provider) -> None:
        """Begin with no token at all."""
        self._provider = provider
        for name in self._places:
            self._later(at, lambda now, name=name: self._due(name, now))  # type: ignore[misc]

    def step(self) -> None:
        """Let the next thing happen."""
        at, _, happens = heapq.heappop(self._events)
        happens(at)

    def _later(self, at: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (at, next(self._number), happens))

    def _due(self, name: str, now: float) -> None:
        match verdict := self._standing.verdict(now):
            case "wait":
                self._waiting.append(name)
            case "later":
                self._failed(name, now, self._standing.shared(now))
            case _:
                self._standing.probing = probing = verdict == "probe"
                self._discover(name, now, probing=probing)

    def _discover(self, name: str, now: float, *, probing: bool) -> None:
        if now < self._discovered_until:
            self._ask(name, now, probing=probing)
            return
        self._note(now, "discovery", name)
        error, answered_at = self._provider.answer(now, "discovery"), now + self._provider.took
        if error:
            self._later(answered_at, lambda at: self._settle(name, at, error, probing=probing))
            return
        self._discovered_until = now + DISCOVERY_TTL
        self._later(answered_at, lambda at: self._ask(name, at, probing=probing))

    def _ask(self, name: str, now: float, *, probing: bool) -> None:
        self._note(now, "token", name)
        error = self._provider.answer(now, "token")
        token = AccessToken("t", "Bearer", _instant(now), _instant(now) + self._manner.lifetime)

        def settle(at: float) -> None:
            self._settle(name, at, error or token, probing=probing)

        self._later(now + self._provider.took, settle)

    def _settle(self, name: str, now: float, outcome: AccessToken | AcquisitionError, *, probing: bool) -> None:
        """Do as `Gate.admit` and `Keeper.step` do at the end of an attempt."""
        if isinstance(outcome, TransientError) and outcome.unreachable:
            self._standing.failed(now, outcome, self._random())
            self._discovered_until = float("-inf")
        elif probing:
            self._standing.answered()
        if isinstance(outcome, AcquisitionError):
            self._failed(name, now, outcome)
        else:
            self._succeeded(name, now, outcome)
        if probing:
            self._standing.probing = False
            waiting, self._waiting = self._waiting, []
            for other in waiting:
                self._due(other, now)

    def _failed(self, name: str, now: float, error: AcquisitionError) -> None:
        self._failures[name] += 1
        next_at = retry_at(_instant(now), self._failures[name], error, self._random())
        self._later(_seconds(next_at), lambda at: self._due(name, at))

    def _succeeded(self, name: str, now: float, token: AccessToken) -> None:
        self._failures[name] = 0
        self.tokens[name] = now
        next_at = schedule.refresh_at(token, self._manner.refresh, self._places[name])
        self._later(_seconds(next_at), lambda at: self._due(name, at))


def _instant(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def _seconds(instant: datetime) -> float:
    return (instant - START).total_seconds()
