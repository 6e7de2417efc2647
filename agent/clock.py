"""The only reader of time: the wall clock for people and tokens, the boot-time clock for waiting.

The wall clock jumps (NTP, an operator, live migration); CLOCK_MONOTONIC, on which event loops sleep, stands still
while a machine is suspended. CLOCK_BOOTTIME does neither, so waiting is measured in it, and a step of the wall clock
is what changes between the two.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SLICE = 30.0
"""Seconds; a resume from suspend or a step of the wall clock is noticed within one slice."""
STEP = timedelta(seconds=2)
"""What counts as a step; the slewing of NTP (500 ppm) stays below it in any slice."""


class Clock(Protocol):
    """What the engine needs to know of time; one of the two seams for tests."""

    def now(self) -> datetime:
        """Return the wall clock: aware, UTC."""

    def boot(self) -> float:
        """Return seconds since boot, suspend included; never goes back."""

    async def sleep_until(self, deadline: datetime) -> None:
        """Return when ``deadline`` has come; earlier if time did not pass as it should: look again then."""

    def steps(self) -> AsyncIterator[timedelta]:
        """Yield each step of the wall clock, positive when it went ahead; all sleepers have been woken by it."""


def offset(clock: Clock) -> timedelta:
    """Return what a clock's two times differ by; it changes only when the wall clock is set."""
    return timedelta(seconds=clock.now().timestamp() - clock.boot())


class SystemClock:
    """The machine's own clocks; made inside the event loop."""

    def __init__(self, interval: float = SLICE) -> None:
        """Args: the interval is how often the clocks are compared, in seconds."""
        self._interval = interval
        self._disturbed = anyio.Event()

    def now(self) -> datetime:
        """Return the wall clock."""
        return datetime.now(UTC)

    def boot(self) -> float:
        """Return CLOCK_BOOTTIME in seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep_until(self, deadline: datetime) -> None:
        """Sleep; a suspend or a step of the wall clock that `steps` found wakes up."""
        with anyio.move_on_after(max(0.0, (deadline - self.now()).total_seconds())):
            await self._disturbed.wait()

    async def steps(self) -> AsyncIterator[timedelta]:
        """Compare the clocks once a slice: one wake-up for all sleepers together."""
        before, asleep = offset(self), self._suspended()
        while True:
            await anyio.sleep(self._interval)
            after, woken = offset(self), self._suspended()
            if abs(after - before) >= STEP or woken - asleep >= STEP.total_seconds():
                self._disturbed.set()
                self._disturbed = anyio.Event()
            if abs(step := after - before) >= STEP:
                yield step
            before, asleep = after, woken

    def _suspended(self) -> float:
        return self.boot() - time.monotonic()
