"""Says when to look at the disk again: soon after something happened there, and in any case every so often.

A hint has no content, and one too many costs no more than a comparison. So nothing is lost when events are: after
the directories to watch have changed there is a hint, and when they cannot be watched the hints come by time alone.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import anyio

from agent.watching import listener
from agent.watching.listener import Listener
from agent.watching.watchset import Directory, watch_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from typing import Self

    from watchfiles._rust_notify import RustNotify

    from agent.clock import Clock

T = TypeVar("T")

TICK = 0.001
"""Seconds; time is over when less is left."""
BURST = 10
"""Hints that may come at once; then it is one a second, so that noise in a directory costs no more than that."""
LONGEST_RETRY = 300.0
"""Seconds until directories that cannot be watched are tried again."""
RECOVERED = 60.0
"""Seconds without trouble after which the next one is news."""


class Disk(Protocol):
    """Runs blocking work in a thread; `Workers.disk` is one."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Return what the work returns.

        Raises:
            TimeoutError: a disk does not answer.
        """


@dataclass(frozen=True, slots=True)
class Hint:
    """Somebody should look again.

    ``event``: something happened. ``scan``: it is time. ``armed``: other directories are watched from now on.
    ``degraded``: the same, but the ``message`` says which cannot be watched; each message comes once.
    ``asked``: `Watcher.again` was called.
    """

    kind: Literal["event", "scan", "armed", "degraded", "asked"]
    message: str = ""


@dataclass(slots=True)
class _Pace:
    """How soon a hint may follow another: a few at once, and one a second while something goes on and on."""

    _paid_until: float = -math.inf

    def wait(self, now: float) -> float:
        """Return the seconds until the next hint may be given, which counts as given then."""
        self._paid_until = max(self._paid_until, now - BURST) + 1
        return max(0.0, self._paid_until - now)


@dataclass(slots=True)
class _Refused:
    """Directories that cannot be watched, and when to try them again."""

    reasons: dict[Directory, str] = field(default_factory=dict)
    retry_at: float = math.inf
    _failures: int = 0
    _told: str = ""
    _well_since: float = math.inf

    def without(self, directories: frozenset[Directory], now: float) -> frozenset[Directory]:
        """Return those of the directories that are to be watched."""
        if now >= self.retry_at - TICK:
            self.reasons, self.retry_at = {}, math.inf
        return directories - self.reasons.keys()

    def touched(self, paths: frozenset[str]) -> None:
        """Try again at once if something was done to one of them."""
        if any(each.path in paths for each in self.reasons):
            self.retry_at = 0.0

    def add(self, reasons: Mapping[Directory, str], now: float) -> str:
        """Note what could not be watched now; return what to say about it, empty if that was said."""
        if not reasons:
            self._well_since = min(self._well_since, now)
            return ""
        if now - self._well_since >= RECOVERED:
            self._failures, self._told = 0, ""
        self._well_since = math.inf
        self.reasons.update(reasons)
        self.retry_at = now + min(LONGEST_RETRY, 2.0 ** min(self._failures, 10))
        self._failures += 1
        said, self._told = self._told, _describe(self.reasons)
        return self._told if self._told != said else ""


def _describe(reasons: Mapping[Directory, str]) -> str:
    (path, *_), reason = min(reasons.items())
    name = os.fsencode(path).decode(errors="backslashreplace")
    more = f" and {len(reasons) - 1} more directories" if len(reasons) > 1 else ""
    return f"{name}{more} cannot be watched for changes, which are found by the periodic comparison alone: {reason}"


class Watcher:
    """Watches for one consumer, who asks for hint after hint and compares contents at each.

    Made inside the event loop. A context manager: leaving it ends the watching without waiting for anything.
    """

    def __init__(self, clock: Clock, disk: Disk) -> None:
        self._clock, self._disk = clock, disk
        self._listener: Listener | None = None
        self._armed: frozenset[Directory] = frozenset()
        self._refused = _Refused()
        self._pace = _Pace()
        self._noticed: Literal["event", "asked"] | None = None
        self._stale = False
        self._broken = ""
        self._sleep = anyio.CancelScope()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener:
            self._listener.stop()

    def again(self) -> None:
        """Let the present or the next call of `hint` return soon: there are other places to watch."""
        self._notice("asked")

    async def hint(self, places: Callable[[], Iterable[Path]], rescan_interval: timedelta) -> Hint:
        """Return when it is time to look again, at the latest after ``rescan_interval``.

        What happens between two calls is not lost: the next one returns at once.

        Args:
            places: returns the files that matter, and directories in which files may appear; called in a thread.
            rescan_interval: until the hint that comes without any event.
        """
        end = self._clock.boot() + rescan_interval.total_seconds()
        while True:
            if self._broken:
                await self._pause()
                return self._give_up()
            wanted = await self._wanted(places)
            if self._stale or wanted != self._armed:
                await self._pause()
                return await self._arm(wanted)
            if noticed := self._noticed:
                await self._pause()
                self._noticed = None
                return Hint(noticed)
            if self._clock.boot() >= end - TICK:
                return Hint("scan")
            if not self._broken:  # which came while we looked
                await self._wait_until(min(end, self._refused.retry_at))
            if self._is_over(end):
                return Hint("scan")  # and the next call sees to the directories: once is enough

    async def _wanted(self, places: Callable[[], Iterable[Path]]) -> frozenset[Directory]:
        """Return the directories to watch; those that are watched, while one of them does not answer."""
        try:
            directories = await self._disk(lambda: watch_set(places()))
        except TimeoutError:
            return self._armed
        return self._refused.without(directories, self._clock.boot())

    def _is_over(self, end: float) -> bool:
        """Whether the time is over, and nothing else is to be done."""
        disturbed = self._noticed or self._stale or self._broken
        return not disturbed and end - TICK <= self._clock.boot() < self._refused.retry_at - TICK

    async def _pause(self) -> None:
        if wait := self._pace.wait(self._clock.boot()):
            await self._sleep_for(wait)

    async def _wait_until(self, end: float) -> None:
        """Wait until a time since boot, or until something is noticed."""
        with anyio.CancelScope() as self._sleep:
            await self._sleep_for(end - self._clock.boot())

    async def _sleep_for(self, seconds: float) -> None:
        await self._clock.sleep_until(self._clock.now() + timedelta(seconds=seconds))

    async def _arm(self, wanted: frozenset[Directory]) -> Hint:
        """Watch other directories than before; in between nobody watches, which is why there is a hint after it."""
        self._noticed, self._stale, self._armed = None, False, frozenset()
        old, self._listener = self._listener, None
        if old:
            old.stop()
        try:
            watched, reasons = await self._disk(lambda: _replace(old, [each.path for each in wanted]))
        except TimeoutError:
            return Hint("armed")  # with nothing, until they all answer again
        if watched:
            try:
                self._listener = Listener(watched, self._hear, self._end)
            except RuntimeError as error:
                reasons = dict.fromkeys((each.path for each in wanted), str(error))
        left = {each: reasons[each.path] for each in wanted if each.path in reasons}
        self._armed = wanted - left.keys()
        # What has vanished meanwhile is no trouble: the next look finds what stands in its place.
        refused = {each: reason for each, reason in left.items() if not listener.vanished(reason)}
        return self._report(refused)

    def _give_up(self) -> Hint:
        """The listener has ended by itself: do without the directory that was to blame, or without any, for a while."""
        reason, self._broken = self._broken, ""
        lost, self._armed, self._listener = self._armed, frozenset(), None
        blamed = listener.named(reason, [each.path for each in lost])
        return self._report({each: listener.explain(reason) for each in lost if not blamed or each.path in blamed})

    def _report(self, refused: Mapping[Directory, str]) -> Hint:
        message = self._refused.add(refused, self._clock.boot())
        return Hint("degraded", message) if message else Hint("armed")

    def _hear(self, paths: frozenset[str]) -> None:
        """A directory that is itself named may be another one now, even with the same inode, or may be open to us."""
        self._stale |= any(each.path in paths for each in self._armed)
        self._refused.touched(paths)
        self._notice("event")

    def _end(self, reason: str) -> None:
        self._broken = reason
        self._sleep.cancel()

    def _notice(self, kind: Literal["event", "asked"]) -> None:
        self._noticed = kind
        self._sleep.cancel()


def _replace(old: Listener | None, directories: list[str]) -> tuple[RustNotify | None, dict[str, str]]:
    """Watch other directories; the old watches are given back first, so that both together meet no limit."""
    if old:
        old.join()
    return listener.watch(directories)
