"""The only reader of time: the wall clock for people and tokens, the boot-time clock for waiting.

The wall clock jumps (NTP, an operator, live migration); CLOCK_MONOTONIC stands still while a machine is
suspended. CLOCK_BOOTTIME does neither, so deadlines are kept in it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

import anyio

SLICE = 30.0
"""Seconds; event loops sleep on CLOCK_MONOTONIC, so a resume from suspend is noticed within one slice."""


class Clock(Protocol):
    """What the engine needs to know of time; one of the two seams for tests."""

    def now(self) -> datetime:
        """Return the wall clock: aware, UTC."""

    def boot(self) -> float:
        """Return seconds since boot, suspend included; never goes back."""

    async def sleep_until(self, deadline: datetime) -> None:
        """Return when ``deadline`` (wall clock, as seen at the call) has come."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the wall clock."""
        return datetime.now(UTC)

    def boot(self) -> float:
        """Return CLOCK_BOOTTIME in seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep_until(self, deadline: datetime) -> None:
        """Sleep in slices: by boot time what was asked for, or less if the wall clock got there first."""
        end = self.boot() + (deadline - self.now()).total_seconds()
        while (wait := min(end - self.boot(), (deadline - self.now()).total_seconds())) > 0:
            await anyio.sleep(min(wait, SLICE))  # noqa: ASYNC110 - nobody could set an event when time has passed
