"""An event loop in virtual time in which only one thread ever runs: the same seed is the same run.

Threads are as real as ever. But one runs only while the loop waits for it, until it has something to tell the loop:
its end, or that it has to wait. Then it is the loop's turn again.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio._backends._asyncio import CancelScope

from agent.workers import Workers
from tests import virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context
    from datetime import timedelta

T = TypeVar("T")

PATIENCE = 60.0
"""Real seconds for a thread that has the turn."""
INSTANT = 0.3
"""Seconds; whatever is looked at from time to time need not be looked at more often."""
STANDSTILL = 300_000
"""Steps of the loop in which no time passes: somebody goes round in circles."""
_current = threading.local()


class Killed(BaseException):
    """The process has been killed: nothing of it runs any more."""


class StandstillError(Exception):
    """The engine is busy for ever in one instant, or waits for ever."""


class Turn:
    """The right of one thread to run."""

    def __init__(self) -> None:
        self._threads, self._loops = threading.Event(), threading.Event()
        self.timer: asyncio.TimerHandle | None = None
        self.given_up = self.abandoned = False

    def give(self) -> None:
        """Let the thread run until it has something to tell; called by the loop."""
        self.timer = None
        self._loops.clear()
        self._threads.set()
        if not self._loops.wait(PATIENCE):
            raise StandstillError("a thread does not come to its end")

    def take(self) -> None:
        """Wait for the turn; called by the thread."""
        _current.turn = self
        self._threads.wait()
        self._threads.clear()
        if self.abandoned:
            raise Killed

    def end(self) -> None:
        """Give the turn back."""
        self._loops.set()

    def give_up(self) -> None:
        """End a wait before its time; called by the loop."""
        self.given_up = True
        if self.timer:
            self.timer.cancel()
            self.give()


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    _numbers = itertools.count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(self._numbers)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Ordered(dict[Any, None]):
    """As much of a set as anyio needs, in the order of insertion."""

    def add(self, item: Any) -> None:
        self[item] = None

    def remove(self, item: Any) -> None:
        del self[item]

    def discard(self, item: Any) -> None:
        self.pop(item, None)


def _order_scopes() -> None:
    """Let anyio cancel nested scopes in the order in which they began: a set's order is that of addresses."""
    begin = CancelScope.__init__

    def begin_in_order(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self._child_scopes = _Ordered()

    CancelScope.__init__ = begin_in_order  # type: ignore[method-assign]


_order_scopes()


def _task(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], **kwargs: Any) -> asyncio.Task[T]:
    return _Task(coro, loop=loop, **kwargs)


class _Selector(virtual._Selector):
    """Asks the kernel before a while passes, not at every step: nothing comes from outside, and threads have turns."""

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > INSTANT:
            return super().select(timeout)
        if timeout > 0:
            self.loop.advance(timeout)
        return []


class Loop(virtual.VirtualLoop):
    """The loop of one process of the agent.

    ``before_jump`` is called with the time at which the next thing happens, before that time comes; ``kill_at`` is the
    number of the step in which the process is killed.
    """

    def __init__(self, elapsed: float, before_jump: Callable[[float], None]) -> None:
        super().__init__(_Selector())
        self.elapsed = elapsed
        self.steps, self.kill_at = 0, -1
        self.turns: dict[Turn, None] = {}
        self._still = 0
        self.failure: BaseException | None = None
        self._before_jump = before_jump
        self.set_task_factory(_task)  # type: ignore[arg-type]

    def _run_once(self) -> None:
        self.steps += 1
        self._still += 1
        if self.failure:
            raise self.failure
        if self.steps == self.kill_at:
            raise Killed
        if self._still > STANDSTILL:
            raise StandstillError("the engine goes round in circles while no time passes")
        super()._run_once()  # type: ignore[misc]

    def advance(self, seconds: float) -> None:
        if seconds > 0:
            self._before_jump(self.elapsed + seconds)
            self._still = 0
        super().advance(seconds)

    def busy(self) -> bool:
        return False  # who runs in a thread has the turn, and the loop stands

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = super().call_soon_threadsafe(callback, *args, context=context)
        if turn := getattr(_current, "turn", None):
            turn.end()
        return handle

    def wait_in_thread(self, delta: timedelta) -> None:
        turn: Turn = _current.turn
        self.call_soon_threadsafe(self._begin_wait, turn, delta.total_seconds())
        turn.take()

    def _begin_wait(self, turn: Turn, seconds: float) -> None:
        if turn.given_up:
            turn.give()
        else:
            turn.timer = self.call_later(seconds, turn.give)

    def abandon(self) -> None:
        """End all threads, whose process is no more."""
        for turn in list(self.turns):
            turn.abandoned = True
            turn.give()
        self.turns.clear()


class TurnWorkers(Workers):
    """The engine's workers: network and hooks in threads by turns, disk work at one instant of the loop.

    Args of the constructor: ``disk_takes`` returns the seconds until the next disk work is done; ``before`` and
    ``after`` are called around each.
    """

    def __init__(
        self,
        max_in_flight: int,
        loop: Loop,
        disk_takes: Callable[[], float],
        before: Callable[[], None],
        after: Callable[[], None],
    ) -> None:
        super().__init__(max_in_flight)
        self._loop, self._takes, self._before, self._after = loop, disk_takes, before, after

    async def disk(self, work: Callable[[], T], at: object = None) -> T:  # noqa: ARG002 - none of these disks hangs
        await anyio.lowlevel.checkpoint()
        try:  # what `async with` does, without its costs
            self._disk.acquire_nowait()
        except anyio.WouldBlock:
            await self._disk.acquire()
        try:
            done: asyncio.Future[T] = self._loop.create_future()
            with anyio.CancelScope(shield=True):
                # In a callback: a kill may come between the work and whoever waits for it.
                self._loop.call_later(self._takes(), self._do, work, done)
                await done
            return done.result()
        finally:
            self._disk.release()

    def _do(self, work: Callable[[], T], done: asyncio.Future[T]) -> None:
        self._before()
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            done.set_exception(error)
        else:
            done.set_result(result)
        self._after()

    async def _abortable(
        self,
        places: anyio.CapacityLimiter,
        begin: Any,
        timeout: float | None,  # noqa: ASYNC109 - as the class it extends
        *others: Any,
    ) -> Any:
        turn = Turn()

        def begin_by_turns() -> tuple[Callable[[], Any], Callable[[], None]]:
            work, abort = begin()

            def run() -> Any:
                turn.take()
                try:
                    return work()
                finally:
                    self._loop.turns.pop(turn, None)

            def give_up() -> None:
                abort()
                turn.give_up()

            self._loop.turns[turn] = None
            self._loop.call_soon(turn.give)
            return run, give_up

        return await super()._abortable(places, begin_by_turns, timeout, *others)
