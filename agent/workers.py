"""Blocking work in threads: bounded in number, and never able to hold up the stop.

Two kinds: writing to disk is always waited for; a network exchange may be given up, but its thread counts
until it has really ended, so that a hanging provider cannot pile up threads.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Place:
    """One place among the network threads: left by the thread that took it, or by the caller if none ever did."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = ""

    def claim(self, owner: str) -> bool:
        """Return whether ``owner`` is the first to claim the place, and so the one to leave it."""
        with self._lock:
            first = not self._owner
            self._owner = self._owner or owner
        return first


class Workers:
    """The threads of one agent.

    Args of the constructor: ``max_in_flight`` acquisitions at once. Disk work has its own, fixed bound.
    """

    DISK_THREADS = 4

    def __init__(self, max_in_flight: int) -> None:
        self._network = anyio.CapacityLimiter(max_in_flight)
        self._disk = anyio.CapacityLimiter(self.DISK_THREADS)
        self._unbounded = anyio.CapacityLimiter(math.inf)

    async def disk(self, work: Callable[[], T]) -> T:
        """Run local work; once begun it is waited for, whatever is cancelled meanwhile."""
        return await anyio.to_thread.run_sync(work, limiter=self._disk)

    async def network(self, begin: Callable[[], tuple[Callable[[], T], Callable[[], None]]], timeout: float) -> T:  # noqa: ASYNC109 - the time for a free place does not count
        """Run an exchange once a place is free.

        Args:
            begin: called when the place is there; returns the work, and how to abort it from another thread.
            timeout: in seconds, for the work.

        Raises:
            TimeoutError: the time is over; the work was aborted. The same happens if the caller is cancelled.
        """
        place = _Place()
        await self._network.acquire_on_behalf_of(place)
        work, abort = begin()
        try:
            with anyio.fail_after(timeout):
                return await anyio.to_thread.run_sync(
                    self._in_place, work, place, limiter=self._unbounded, abandon_on_cancel=True
                )
        finally:
            abort()  # harmless when the work is done
            if place.claim("caller"):
                self._network.release_on_behalf_of(place)

    def _in_place(self, work: Callable[[], T], place: _Place) -> T:
        """Run in the thread; the place is given back when the thread is done, not when the caller gave up."""
        if not place.claim("thread"):
            raise TimeoutError("given up before it began")
        try:
            return work()
        finally:
            anyio.from_thread.run_sync(self._network.release_on_behalf_of, place)
