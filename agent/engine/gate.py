"""One probe instead of a thousand: profiles pass, wait or are sent away as `admission` decides.

A profile never asks twice within a second, whatever restarts it. Who passes gets a place (`places`): those of a host
that hangs, or of forty, never take the ones that are kept for hosts that answer.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from agent import schedule
from agent.admission import Standing
from agent.engine.places import Places
from agent.errors import AcquisitionError, TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from agent.admission import Verdict
    from agent.clock import Clock
    from agent.engine.places import Place


@dataclass
class _Authority:
    """One provider: how it stands, and who waits for a probe."""

    standing: Standing = field(default_factory=Standing)
    settled: anyio.Event = field(default_factory=anyio.Event)


class Gate:
    """Admission of acquisitions.

    Args of the constructor: ``max_in_flight`` as for the workers; ``random`` returns numbers in [0, 1).
    """

    def __init__(self, clock: Clock, random: Callable[[], float], max_in_flight: int) -> None:
        self._clock, self._random = clock, random
        self._places = Places(max_in_flight)
        self._authorities: dict[object, _Authority] = {}
        self._asked: dict[str, float] = {}

    @asynccontextmanager
    async def admit(
        self, authority: object, profile: str, *, way: object = None, urgent: bool = False
    ) -> AsyncIterator[Place]:
        """Hold this while asking; report of success or failure is what leaves the block.

        Args:
            authority: whatever identifies provider and the way to it.
            profile: the name of the profile that asks.
            way: whatever identifies what hangs if the provider does, such as its host; else the authority.
            urgent: somebody wants to know now: probe, if nobody does, though the next probe is not due yet.

        Raises:
            TransientError: the provider does not work now; somebody else found out. ``retry_after`` says when
                the next probe is due.
        """
        known = self._authorities.setdefault(authority, _Authority())
        while True:
            verdict = await self._turn(known, urgent=urgent)
            async with self._probe(known) if verdict == "probe" else self._ask(known):
                await self._pause(profile)
                async with self._places.taken(authority if way is None else way) as place:
                    if verdict == "probe" or known.standing.working:
                        self._asked[profile] = self._clock.boot()
                        with _listening(place):
                            yield place
                        return
            urgent = False  # somebody found out while we waited for the place

    async def _turn(self, known: _Authority, *, urgent: bool) -> Verdict:
        """Wait while somebody else probes, and return how to go on.

        Raises:
            TransientError: not now.
        """
        while (verdict := known.standing.verdict(self._clock.boot(), urgent=urgent)) == "wait":
            await known.settled.wait()
            urgent = False  # the probe was just now
        if verdict == "later":
            raise known.standing.shared(self._clock.boot())
        return verdict

    @asynccontextmanager
    async def _probe(self, known: _Authority) -> AsyncIterator[None]:
        """Be the one who asks; whatever comes of it, those who wait are told."""
        known.standing.probing = True
        try:
            yield
        except AcquisitionError as error:
            if isinstance(error, TransientError) and error.unreachable:
                self._failed(known, error)
            else:
                known.standing.answered()  # an answer that says no is an answer
            raise
        else:
            known.standing.answered()
        finally:
            known.standing.probing = False
            known.settled.set()
            known.settled = anyio.Event()

    @asynccontextmanager
    async def _ask(self, known: _Authority) -> AsyncIterator[None]:
        """Be one of many who ask; they are told if it does not work any more."""
        try:
            yield
        except TransientError as error:
            if error.unreachable:
                self._failed(known, error)
            raise

    def _failed(self, known: _Authority, error: TransientError) -> None:
        known.standing.failed(self._clock.boot(), error, self._random())

    async def _pause(self, profile: str) -> None:
        """Keep a second between two requests of the same profile."""
        due = self._asked.get(profile, float("-inf")) + schedule.MIN_INTERVAL.total_seconds()
        while (wait := due - self._clock.boot()) > 0:
            # Never by nothing: what is less than a microsecond is no duration, and would be waited for in circles.
            pause = max(timedelta(seconds=wait), timedelta.resolution)
            await self._clock.sleep_until(self._clock.now() + pause)


@contextmanager
def _listening(place: Place) -> Iterator[None]:
    """Note whether a request was answered at all."""
    try:
        yield
    except AcquisitionError as error:
        place.heard(answers=not (isinstance(error, TransientError) and error.unreachable))
        raise
    else:
        place.heard(answers=True)
