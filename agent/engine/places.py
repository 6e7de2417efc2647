"""Who may use the network's threads, which are few: a place for each request, from its turn to the end of its thread.

A thread that hangs cannot be taken back (a look-up of a name may take minutes). So hosts that did not answer at last,
new ones among them, never get the last places (`admission.has_room`). And what hangs lends its place to others: what
was given up, and what such a host has not answered for some seconds; at most so many (`admission.LENT`), all threads.

Of those who may go on, the next one is of the host with the fewest requests under way, and of these the one whose turn
was longest ago.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from agent import admission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@dataclass(eq=False)
class _Way:
    """A host, and how it is reached: requests under way, whether it answered at last, who waits, its latest turn."""

    under_way: int = 0
    answers: bool = False
    waiting: deque[anyio.Event] = field(default_factory=deque)
    turn: int = 0


LATE = 3.0
"""Seconds; most answers take less than one."""


class Place:
    """Leave to make one request; given back when it has been left, and no thread holds it.

    ``lent`` says that somebody else may use it meanwhile.
    """

    def __init__(self, way: _Way, give_back: Callable[[Place], None]) -> None:
        self.way, self._give_back, self._holders = way, give_back, 1
        self.lent = False

    @property
    def is_held(self) -> bool:
        """Whether it has not been given back."""
        return self._holders > 0

    def hold(self) -> Callable[[], None]:
        """Keep the place for a thread that has begun; what is returned is to be called at its end."""
        self._holders += 1
        return self.let_go

    def let_go(self) -> None:
        """End one hold."""
        self._holders -= 1
        if not self._holders:
            self._give_back(self)

    def heard(self, *, answers: bool) -> None:
        """Take note of what came of the request."""
        self.way.answers = answers


class Places:
    """The places of one agent; touched by the event loop only."""

    def __init__(self, total: int) -> None:
        self._free, self._kept = total, admission.kept_places(total)
        self._to_lend = admission.LENT
        self._ways: dict[object, _Way] = {}
        self._queue: dict[_Way, None] = {}  # the ways somebody waits for
        self._turns = itertools.count(1)

    @asynccontextmanager
    async def taken(self, way: object) -> AsyncIterator[Place]:
        """Wait for a place, and have it while in the block, or for as long as a thread holds it."""
        known = self._ways.setdefault(way, _Way())
        await self._turn(known)
        place = Place(known, self._give_back)
        timer = asyncio.get_running_loop().call_later(LATE, self._is_late, place)
        try:
            yield place
        finally:
            timer.cancel()
            place.let_go()
            self._lend(place)

    def _is_late(self, place: Place) -> None:
        if not place.way.answers:
            self._lend(place)

    def _lend(self, place: Place) -> None:
        """Let others use a place that is still held."""
        if place.is_held and not place.lent and self._to_lend:
            self._to_lend -= 1
            place.lent = True
            self._free += 1
            self._grant()

    async def _turn(self, known: _Way) -> None:
        granted = anyio.Event()
        known.waiting.append(granted)
        self._queue[known] = None
        self._grant()
        try:
            await granted.wait()
        except BaseException:
            if granted.is_set():
                Place(known, self._give_back).let_go()
            else:
                self._forget(known, granted)
            raise

    def _grant(self) -> None:
        """Give places to those who may have one."""
        while ready := [way for way in self._queue if self._has_room(way)]:
            way = min(ready, key=lambda each: (each.under_way, each.turn))
            self._free -= 1
            way.under_way += 1
            way.turn = next(self._turns)
            self._forget(way, way.waiting[0]).set()

    def _has_room(self, way: _Way) -> bool:
        return admission.has_room(self._free, self._kept, way.under_way, answers=way.answers)

    def _forget(self, way: _Way, waiter: anyio.Event) -> anyio.Event:
        way.waiting.remove(waiter)
        if not way.waiting:
            del self._queue[way]
        return waiter

    def _give_back(self, place: Place) -> None:
        place.way.under_way -= 1
        if place.lent:
            self._to_lend += 1
        else:
            self._free += 1
        self._grant()
