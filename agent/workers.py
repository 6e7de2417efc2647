"""Blocking work in threads: bounded in number, and never able to hold up the stop.

Three kinds: disk work is waited for; a network exchange or a hook may be given up. Its thread then counts until it has
really ended, so that a hanging provider cannot pile up threads. What cannot be aborted (a name look-up) is left to
itself: at the end of the process nobody waits for these threads, as one would for those of `anyio.to_thread`.

A disk may stop answering without any error, such as a mount whose server is gone, and nothing frees a thread that waits
for it. So disk work says which place it is about, and is waited for so long and no longer. From then on its thread does
not count, and until it has ended nothing else is tried at that place: no second thread is lost there, no file has two
writers, and all other places go on.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import contextvars
import errno
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import anyio
from anyio import CapacityLimiter as Limiter

from agent.errors import OutputError
from agent.threads import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")
Begin: TypeAlias = "Callable[[], tuple[Callable[[], T], Callable[[], None]]]"
"""Returns work, and how to abort it from another thread."""
Hold: TypeAlias = "Callable[[], Callable[[], None]]"
"""Told that a thread has begun; returns what is to be told of its end."""

PATIENCE = 5.0
"""Seconds for disk work; disks that are merely busy answer sooner."""


def _nobody() -> Callable[[], None]:
    return lambda: None


class StalledError(TimeoutError):
    """A place on disk does not answer; what was begun there goes on, and is waited for no longer."""

    hint = "does its device or its server still answer (findmnt)? once it does, all goes on by itself"

    def __init__(self) -> None:
        super().__init__(errno.ETIMEDOUT, f"its disk has not answered for {PATIENCE:g} s")

    def of(self, path: Path) -> OutputError:
        """Return the error of a file there that is to be written."""
        return OutputError(path, str(self.strerror), hint=self.hint)


class _NoThreadError(Exception):
    """The system gives us no thread now."""


class Workers:
    """The threads of one agent; touched by the event loop only.

    Args of the constructor: ``max_in_flight`` acquisitions at once, those that hang included. Disk work and hooks have
    bounds of their own, so that neither waits for the other.

    ``exhausted`` says that the system gives us no thread. ``news`` is set, and replaced, when that or `stalled`
    changes.
    """

    DISK_THREADS = 4
    HOOK_THREADS = 4
    TOGETHER = 16
    """Works about several places that one thread does at a time."""
    GRACE = 0.25
    """Seconds; how long an aborted exchange is waited for. In truth it ends at once, but for a name look-up."""
    PAUSE = 0.5
    """Seconds until a thread is asked for again that the system would not give."""

    def __init__(self, max_in_flight: int) -> None:
        self._network, self._disk = Limiter(max_in_flight), Limiter(self.DISK_THREADS)
        self._hooks = Limiter(self.HOOK_THREADS)
        self._lost: dict[object, int] = {}  # how many threads hang, by place
        self.exhausted = False
        self.news = anyio.Event()

    @property
    def stalled(self) -> frozenset[Path]:
        """The places that do not answer."""
        return frozenset(place for place in self._lost if isinstance(place, Path))

    # ---- the disk

    async def disk(self, work: Callable[[], T], at: object = None) -> T:
        """Run local work; once begun it is waited for, whatever is cancelled meanwhile.

        Args:
            work: blocks.
            at: the directory that it is about, or several; None for work that touches no disk.

        Raises:
            StalledError: the place does not answer. What was begun may come to its end later; until then all that is
                tried at this place ends like this, at once.
        """
        while True:
            async with self._disk:
                if self._is_lost(at):
                    raise StalledError
                with contextlib.suppress(_NoThreadError):
                    return await self._patiently(_Work(work), at)
            await self._rest()

    async def disk_each(self, works: Iterable[tuple[object, Callable[[], T]]]) -> list[T | StalledError]:
        """Run works about several places each, which change nothing; what comes of each, in their order.

        Args:
            works: with the places they are about.
        """
        found: list[T | StalledError] = []
        left = list(works)
        while left:
            some, left = left[: self.TOGETHER], left[self.TOGETHER :]
            found += await self._together(some)
        return found

    async def _together(self, works: Sequence[tuple[object, Callable[[], T]]]) -> Sequence[T | StalledError]:
        """Run works in one thread; if that hangs, or would, each by itself."""
        if not any(self._is_lost(place) for place, _ in works):
            with contextlib.suppress(StalledError):
                return await self.disk(lambda: [work() for _, work in works], at=object())
        return [await self._alone(work, place) for place, work in works]

    async def _alone(self, work: Callable[[], T], place: object) -> T | StalledError:
        try:
            return await self.disk(work, at=place)
        except StalledError as error:
            return error

    async def _patiently(self, work: _Work[T], at: object) -> T:
        """Wait for work in a thread, but not for ever.

        Raises:
            StalledError: it took too long.
            _NoThreadError: there is no thread for it.
        """
        work.start()
        with anyio.CancelScope(shield=True):
            if await work.over(None if at is None else PATIENCE):
                return work.result()
        self._lost[at] = self._lost.get(at, 0) + 1
        work.then = lambda: self._found(at)
        self._tell()
        raise StalledError

    def _is_lost(self, place: object) -> bool:
        places = place if isinstance(place, frozenset) else {place}
        return place in self._lost or not places.isdisjoint(self._lost)

    def _found(self, place: object) -> None:
        """Take note that a thread which was lost at a place has ended: with the last one it answers again."""
        self._lost[place] -= 1
        if not self._lost[place]:
            del self._lost[place]
            self._tell()

    # ---- network and hooks

    async def network(self, begin: Begin[T], timeout: float, hold: Hold = _nobody) -> T:  # noqa: ASYNC109 - the time for a free place does not count
        """Run an exchange once a place is free.

        Args:
            begin: called when the place is there; returns the work, and how to abort it from another thread.
            timeout: in seconds, for the work.
            hold: called when its thread has begun; what that returns is called at the end of the thread.

        Raises:
            TimeoutError: the time is over; the work was aborted. The same happens if the caller is cancelled.
        """
        return await self._abortable(self._network, begin, timeout, hold)

    async def hook(self, begin: Begin[T]) -> T:
        """Run a hook once a place is free; it keeps its time itself, and is aborted if the caller is cancelled."""
        return await self._abortable(self._hooks, begin, None)

    async def _abortable(self, places: Limiter, begin: Begin[T], timeout: float | None, hold: Hold = _nobody) -> T:  # noqa: ASYNC109 - as above
        while True:
            with contextlib.suppress(_NoThreadError):
                return await self._attempt(places, begin, timeout, hold)
            await self._rest()

    async def _attempt(self, places: Limiter, begin: Begin[T], timeout: float | None, hold: Hold) -> T:  # noqa: ASYNC109 - as above
        place = object()
        await places.acquire_on_behalf_of(place)
        try:
            to_do, abort = begin()
            work = _Work(to_do)
            work.start()
        except BaseException:
            places.release_on_behalf_of(place)
            raise
        # The place is given back when the thread is done, not when the caller gives up.
        let_go = hold()

        def ended() -> None:
            places.release_on_behalf_of(place)
            let_go()

        work.then = ended
        self._note(exhausted=False)
        try:
            if not await work.over(timeout):
                raise TimeoutError
        finally:
            abort()  # harmless when the work is done
            with anyio.CancelScope(shield=True):
                await work.over(self.GRACE)
        return work.result()

    # ---- what is wrong

    async def _rest(self) -> None:
        """Wait a little for a thread that the system would not give."""
        self._note(exhausted=True)
        await anyio.sleep(self.PAUSE)

    def _note(self, *, exhausted: bool) -> None:
        if self.exhausted != exhausted:
            self.exhausted = exhausted
            self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()


class _Work(Generic[T]):
    """Work in a thread of its own, which can be left to itself; ``then`` is called in the event loop at its end.

    The thread is begun without `threading`, which waits for it without end: where memory is short, it may never begin.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work, self._context = work, contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._outcome: Future[T] = Future()
        self._begun = threading.Semaphore(0)
        self._claim = threading.Lock()  # of whoever is first: the thread to begin, or we to give it up
        self._ended = anyio.Event()
        self.then: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin.

        Raises:
            _NoThreadError: there is no thread.
        """
        try:
            _thread.start_new_thread(self._run, ())
        except (RuntimeError, MemoryError):
            raise _NoThreadError from None
        if not self._begun.acquire(timeout=BEGINNING) and self._claim.acquire(blocking=False):
            raise _NoThreadError

    async def over(self, timeout: float | None) -> bool:  # noqa: ASYNC109 - it says how long, and what then
        """Wait for the end, and return whether it came in time."""
        with anyio.move_on_after(timeout):
            await self._ended.wait()
        return self._ended.is_set()

    def result(self) -> T:
        """Return what the work returned, or raise what it raised."""
        return self._outcome.result()

    def _run(self) -> None:
        if not self._claim.acquire(blocking=False):
            return
        self._begun.release()
        try:
            self._outcome.set_result(self._context.run(self._work))
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            self._outcome.set_exception(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._ended.set()
        self.then()
