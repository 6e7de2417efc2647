"""Blocking work in threads: bounded in number, and never able to hold up the stop.

Three kinds: writing to disk is always waited for; a network exchange or a hook may be given up. Its thread then
counts until it has really ended, so that a hanging provider cannot pile up threads. What cannot be aborted (a name
look-up) is left to a daemon thread: those of `anyio.to_thread` would be waited for at the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Begin: TypeAlias = "Callable[[], tuple[Callable[[], T], Callable[[], None]]]"
"""Returns work, and how to abort it from another thread."""


class Workers:
    """The threads of one agent.

    Args of the constructor: ``max_in_flight`` acquisitions at once. Disk work and hooks have bounds of their own, so
    that neither waits for the other.
    """

    DISK_THREADS = 4
    HOOK_THREADS = 4
    GRACE = 0.25
    """Seconds; how long an aborted exchange is waited for. In truth it ends at once, but for a name look-up."""

    def __init__(self, max_in_flight: int) -> None:
        self._network = anyio.CapacityLimiter(max_in_flight)
        self._disk = anyio.CapacityLimiter(self.DISK_THREADS)
        self._hooks = anyio.CapacityLimiter(self.HOOK_THREADS)

    async def disk(self, work: Callable[[], T]) -> T:
        """Run local work; once begun it is waited for, whatever is cancelled meanwhile."""
        return await anyio.to_thread.run_sync(work, limiter=self._disk)

    async def network(self, begin: Begin[T], timeout: float) -> T:  # noqa: ASYNC109 - the time for a free place does not count
        """Run an exchange once a place is free.

        Args:
            begin: called when the place is there; returns the work, and how to abort it from another thread.
            timeout: in seconds, for the work.

        Raises:
            TimeoutError: the time is over; the work was aborted. The same happens if the caller is cancelled.
        """
        return await self._abortable(self._network, begin, timeout)

    async def hook(self, begin: Begin[T]) -> T:
        """Run a hook once a place is free; it keeps its time itself, and is aborted if the caller is cancelled."""
        return await self._abortable(self._hooks, begin, None)

    async def _abortable(self, places: anyio.CapacityLimiter, begin: Begin[T], timeout: float | None) -> T:  # noqa: ASYNC109 - as above
        place = object()
        await places.acquire_on_behalf_of(place)
        outcome: Future[T] = Future()
        ended = anyio.Event()

        def end() -> None:  # the place is given back when the thread is done, not when the caller gives up
            places.release_on_behalf_of(place)
            ended.set()

        try:
            work, abort = begin()
            _start(work, outcome, end)
        except BaseException:
            end()
            raise
        try:
            with anyio.fail_after(timeout):
                await ended.wait()
        finally:
            abort()  # harmless when the work is done
            with anyio.move_on_after(self.GRACE, shield=True):
                await ended.wait()
        return outcome.result()


def _start(work: Callable[[], T], outcome: Future[T], end: Callable[[], None]) -> None:
    """Run work in a thread; its end is reported to the event loop, if that is still there."""
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()

    def run() -> None:
        try:
            outcome.set_result(context.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            outcome.set_exception(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
            loop.call_soon_threadsafe(end)

    threading.Thread(target=run, name="token-agent network", daemon=True).start()
