"""Virtual time for the whole engine: an event loop whose clock jumps to the next deadline when nothing can happen.

Worker threads stay real (MSAL, cryptography and files run in them); time stands still while one is at work, and
moves on when all that is left is waiting. Instants are exact, and a virtual day takes as long as its work.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from agent.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

T = TypeVar("T")

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
REAL_WAIT = 0.05
"""Seconds; how long to wait for a worker thread before looking again, only a bound for lost wake-ups."""


class _Selector(selectors.DefaultSelector):
    """Advances the loop's time instead of waiting, unless a thread is at work."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.loop.busy():
            return super().select(REAL_WAIT)
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        self.loop.advance(max(timeout, 0.0))
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self, selector: _Selector | None = None) -> None:
        selector = selector or _Selector()
        selector.loop = self
        self.elapsed = 0.0
        self.workers: list[Workers] = []
        self.waiting_threads = 0
        self.hooks_take_their_time = False  # whether time goes on while the program of a hook runs
        super().__init__(selector)

    def time(self) -> float:
        return self.elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass in which nothing happens."""
        self.elapsed += seconds

    def wait_in_thread(self, delta: timedelta) -> None:
        """Block the calling network thread until so much virtual time has passed, or its work is given up."""
        wait: _Wait = _thread.wait
        self.call_soon_threadsafe(wait.begin, delta.total_seconds())
        wait.over.wait()

    def busy(self) -> bool:
        """Whether a worker thread is doing something that takes real time only."""
        running = sum(w._network.borrowed_tokens + w._disk.borrowed_tokens for w in self.workers)
        if not self.hooks_take_their_time:
            running += sum(w._hooks.borrowed_tokens for w in self.workers)
        return running > self.waiting_threads


_thread = threading.local()


class _Wait:
    """The wait of one network thread for virtual time; ended by the time, or by whoever gives the work up."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop, self.over, self.waiting = loop, threading.Event(), False

    def begin(self, seconds: float) -> None:
        if self.over.is_set():
            return
        self.over.clear()
        self.waiting = True
        self.loop.waiting_threads += 1
        self.loop.call_later(seconds, self.end)

    def end(self) -> None:
        if self.waiting:
            self.waiting = False
            self.loop.waiting_threads -= 1
        self.over.set()


class VirtualWorkers(Workers):
    """The engine's workers, whose network threads may wait in virtual time."""

    def __init__(self, max_in_flight: int, loop: VirtualLoop) -> None:
        super().__init__(max_in_flight)
        self._loop = loop
        loop.workers.append(self)

    async def network(
        self,
        begin: Callable[[], tuple[Callable[[], T], Callable[[], None]]],
        timeout: float,  # noqa: ASYNC109 - as the class it extends
        hold: Callable[[], Callable[[], None]] = lambda: lambda: None,
    ) -> T:
        def begin_waiting() -> tuple[Callable[[], T], Callable[[], None]]:
            work, abort = begin()
            wait = _Wait(self._loop)

            def run() -> T:
                _thread.wait = wait
                return work()

            def give_up() -> None:
                wait.end()
                abort()

            return run, give_up

        return await super().network(begin_waiting, timeout, hold)


class VirtualClock:
    """The engine's clock in virtual time; ``step`` moves the wall clock like an operator would."""

    def __init__(self, loop: VirtualLoop, start: datetime = START) -> None:
        self._loop, self._start = loop, start
        self._stepped = anyio.Event()
        self._last_step = timedelta(0)

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.elapsed)

    def boot(self) -> float:
        return self._loop.elapsed

    async def sleep_until(self, deadline: datetime) -> None:
        with anyio.move_on_after(max(0.0, (deadline - self.now()).total_seconds())):
            await self._stepped.wait()

    async def steps(self) -> AsyncIterator[timedelta]:
        while True:
            await self._stepped.wait()
            yield self._last_step

    def step(self, delta: timedelta) -> None:
        self.step_unnoticed(delta)
        self.notice(delta)

    def step_unnoticed(self, delta: timedelta) -> None:
        self._start += delta

    def notice(self, delta: timedelta) -> None:
        self._last_step = delta
        self._stepped.set()
        self._stepped = anyio.Event()


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function in a loop of its own in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        return runner.run(main(loop))
