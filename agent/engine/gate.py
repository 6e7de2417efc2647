"""One probe instead of a thousand: profiles pass, wait or are sent away as `admission` decides.

A profile never asks twice within a second, whatever restarts it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from agent import schedule
from agent.admission import Standing
from agent.errors import AcquisitionError, TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agent.admission import Verdict
    from agent.clock import Clock


@dataclass
class _Authority:
    """One provider: how it stands, how many may ask at once, and who waits for a probe."""

    limiter: anyio.CapacityLimiter
    standing: Standing = field(default_factory=Standing)
    settled: anyio.Event = field(default_factory=anyio.Event)


class Gate:
    """Admission of acquisitions.

    Args of the constructor: ``max_in_flight`` as for the workers; one authority may use all places but one, so
    that a hanging provider never delays another. ``random`` returns numbers in [0, 1).
    """

    def __init__(self, clock: Clock, random: Callable[[], float], max_in_flight: int) -> None:
        self._clock, self._random = clock, random
        self._share = max(1, max_in_flight - 1)
        self._authorities: dict[object, _Authority] = {}
        self._asked: dict[str, float] = {}

    @asynccontextmanager
    async def admit(self, authority: object, profile: str, *, urgent: bool = False) -> AsyncIterator[None]:
        """Hold this while asking; report of success or failure is what leaves the block.

        Args:
            authority: whatever identifies provider and the way to it.
            profile: the name of the profile that asks.
            urgent: somebody wants to know now: probe, if nobody does, though the next probe is not due yet.

        Raises:
            TransientError: the provider does not work now; somebody else found out. ``retry_after`` says when
                the next probe is due.
        """
        known = self._authorities.get(authority)
        if known is None:
            known = self._authorities[authority] = _Authority(anyio.CapacityLimiter(self._share))
        if await self._turn(known, urgent=urgent) == "probe":
            async with self._probe(known):
                await self._pause(profile)
                yield
            return
        async with known.limiter:
            await self._pause(profile)
            try:
                yield
            except TransientError as error:
                if error.unreachable:
                    self._failed(known, error)
                raise

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

    def _failed(self, known: _Authority, error: TransientError) -> None:
        known.standing.failed(self._clock.boot(), error, self._random())

    async def _pause(self, profile: str) -> None:
        """Keep a second between two requests of the same profile."""
        due = self._asked.get(profile, float("-inf")) + schedule.MIN_INTERVAL.total_seconds()
        while (wait := due - self._clock.boot()) > 0:
            # Never by nothing: what is less than a microsecond is no duration, and would be waited for in circles.
            pause = max(timedelta(seconds=wait), timedelta.resolution)
            await self._clock.sleep_until(self._clock.now() + pause)
        self._asked[profile] = self._clock.boot()
