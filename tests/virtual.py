"""Virtual time for the whole engine: an event loop whose clock jumps to the next deadline when nothing can happen.

Worker threads stay real (MSAL, cryptography and files run in them); time stands still while one is at work, and
moves on when all that is left is waiting. Instants are exact, and a virtual day takes as long as its work.
"""

from __future__ import annotations

import asyncio
import selectors
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from agent.workers import Workers

T = TypeVar("T")

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
REAL_WAIT = 0.05
"""Seconds; how long to wait for a worker thread before looking again, only a bound for lost wake-ups."""


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Advances the loop's time instead of waiting, unless a thread is at work."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready  # type: ignore[no-any-return]
        if self.loop.busy():
            return super().select(REAL_WAIT)  # type: ignore[no-any-return]
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        self.loop.elapsed += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.elapsed = 0.0
        self.workers: list[Workers] = []
        self.waiting_threads = 0
        super().__init__(selector)

    def time(self) -> float:
        return self.elapsed

    def busy(self) -> bool:
        """Whether a worker thread is doing something that takes real time only."""
        running = sum(w._network.borrowed_tokens + w._disk.borrowed_tokens for w in self.workers)
        return running > self.waiting_threads


class VirtualClock:
    """The engine's clock in virtual time; ``step`` moves the wall clock like an operator would."""

    def __init__(self, loop: VirtualLoop, start: datetime = START) -> None:
        self._loop, self._start = loop, start

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.elapsed)

    def boot(self) -> float:
        return self._loop.elapsed

    async def sleep_until(self, deadline: datetime) -> None:
        await anyio.sleep(max(0.0, (deadline - self.now()).total_seconds()))

    def step(self, delta: timedelta) -> None:
        self._start += delta


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function in a loop of its own in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        return runner.run(main(loop))
