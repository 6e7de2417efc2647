"""The clocks of a machine: true time, the wall clock that may be wrong, and the boot-time clock; suspends included."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio

from agent.clock import SLICE, STEP
from tests.virtual import START

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.simulation.turns import Loop


class Time:
    """Time as it really is, in seconds since the start of the scenario; goes on while no process runs.

    ``wrong`` is how far the wall clock of the machine is ahead. ``now`` is what a provider calls the time.
    """

    def __init__(self) -> None:
        self.loop: Loop | None = None
        self._elapsed, self.suspended, self.wrong = 0.0, 0.0, 0.0

    @property
    def elapsed(self) -> float:
        """Seconds in which the machine ran."""
        return self.loop.elapsed if self.loop else self._elapsed

    @property
    def true(self) -> float:
        return self.elapsed + self.suspended

    def now(self) -> datetime:
        return START + timedelta(seconds=self.true)

    def leave(self, loop: Loop | None) -> None:
        """Follow another loop, or none."""
        self._elapsed, self.loop = self.elapsed, loop

    def pass_by(self, seconds: float) -> None:
        """Let time pass while no process runs."""
        self._elapsed += seconds


class MachineClock:
    """The engine's clock, as `agent.clock.SystemClock` is: what disturbs it is noticed at the end of a slice."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self._disturbed, self._noticed = anyio.Event(), anyio.Event()

    def now(self) -> datetime:
        return self._time.now() + timedelta(seconds=self._time.wrong)

    def boot(self) -> float:
        return self._time.true

    async def sleep_until(self, deadline: datetime) -> None:
        with anyio.move_on_after(max(0.0, (deadline - self.now()).total_seconds())):
            await self._noticed.wait()

    async def steps(self) -> AsyncIterator[timedelta]:
        began = self._time.elapsed
        before, asleep = self._time.wrong, self._time.suspended
        while True:
            await self._disturbed.wait()
            self._disturbed = anyio.Event()
            since = self._time.elapsed - began
            await anyio.sleep((math.floor(since / SLICE) + 1) * SLICE - since)
            after, woken = self._time.wrong, self._time.suspended
            if abs(after - before) >= STEP.total_seconds() or woken - asleep >= STEP.total_seconds():
                self._noticed.set()
                self._noticed = anyio.Event()
            if abs(step := after - before) >= STEP.total_seconds():
                yield timedelta(seconds=step)
            before, asleep = after, woken

    def disturb(self) -> None:
        """Tell that the wall clock was set, or the machine suspended."""
        self._disturbed.set()


def stamp(seconds: float) -> str:
    """Return a time of the scenario as days and clock."""
    days, rest = divmod(seconds, 86400)
    return f"d{int(days)} {datetime.fromtimestamp(rest, UTC):%H:%M:%S}.{int(rest * 1000 % 1000):03}"
