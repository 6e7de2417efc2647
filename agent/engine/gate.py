"""One probe instead of a thousand: who may ask which provider now.

While an authority works, its profiles go through freely. Until it has answered once, and again when it stops
answering, one profile probes and the others share what it finds; the back-off then belongs to the authority.
A profile never asks twice within a second, whatever restarts it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from agent import schedule
from agent.errors import AcquisitionError, TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agent.clock import Clock


@dataclass
class _Authority:
    """What is known of one provider as a whole; ``probe_at`` in seconds of boot time, which nobody can step."""

    limiter: anyio.CapacityLimiter
    working: bool = False
    failures: int = 0
    error: TransientError | None = None
    probe_at: float = float("-inf")
    probing: bool = False
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
        while not known.working:
            if not known.probing:
                if not urgent:
                    self._raise_if_too_early(known)
                async with self._probe(known):
                    await self._pause(profile)
                    yield
                return
            await known.settled.wait()
            self._raise_if_too_early(known)
        async with known.limiter:
            await self._pause(profile)
            try:
                yield
            except TransientError as error:
                if error.unreachable:
                    self._failed(known, error)
                raise

    @asynccontextmanager
    async def _probe(self, known: _Authority) -> AsyncIterator[None]:
        """Be the one who asks; whatever comes of it, those who wait are told."""
        known.probing = True
        try:
            yield
        except AcquisitionError as error:
            if isinstance(error, TransientError) and error.unreachable:
                self._failed(known, error)
            else:
                self._works(known)  # an answer that says no is an answer
            raise
        else:
            self._works(known)
        finally:
            known.probing = False
            known.settled.set()
            known.settled = anyio.Event()

    def _works(self, known: _Authority) -> None:
        known.working, known.failures, known.error = True, 0, None

    def _failed(self, known: _Authority, error: TransientError) -> None:
        """Note a failure; of several at the same time the first one counts.

        From here on the authority's back-off is everybody's: the error tells when to come again.
        """
        now = self._clock.now()
        if known.working or known.probing:
            known.failures += 1
            wait = schedule.retry_at(now, known.failures, error, self._random()) - now
            known.probe_at = self._clock.boot() + wait.total_seconds()
        known.working, known.error = False, error
        error.retry_after = self._until_probe(known)

    def _raise_if_too_early(self, known: _Authority) -> None:
        """Share the failure that somebody else met, with the time until the next probe."""
        wait = self._until_probe(known)
        if known.working or known.error is None or wait <= timedelta(0):
            return
        raise TransientError(
            known.error.message,
            hint=known.error.hint,
            code=known.error.code,
            correlation_id=known.error.correlation_id,
            retry_after=wait,
            unreachable=True,
        )

    def _until_probe(self, known: _Authority) -> timedelta:
        return timedelta(seconds=max(0.0, known.probe_at - self._clock.boot()))

    async def _pause(self, profile: str) -> None:
        """Keep a second between two requests of the same profile."""
        due = self._asked.get(profile, float("-inf")) + schedule.MIN_INTERVAL.total_seconds()
        while (wait := due - self._clock.boot()) > 0:
            await self._clock.sleep_until(self._clock.now() + timedelta(seconds=wait))
        self._asked[profile] = self._clock.boot()
