"""Real inotify whose events are delivered in virtual time: takes the place of watchfiles' own object.

The kernel queues an event during the system call that causes it, so that reading the queue after each piece of disk
work is exact; only the 100 ms in which watchfiles gathers events are virtual.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from typing import TYPE_CHECKING

from agent.watching import listener
from tests.simulation.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulation.turns import Loop

_libc = ctypes.CDLL(None, use_errno=True)
_MASK = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
"""MODIFY ATTRIB CLOSE_WRITE MOVED_FROM MOVED_TO CREATE DELETE DELETE_SELF MOVE_SELF, as the notify crate has it."""
_DELETED = 0x200
_EVENT = struct.Struct("iIII")


class Notices:
    """All that watch on one machine; ``deaf`` refuses new ones, as the kernel does at its limit."""

    def __init__(self) -> None:
        self.alive: list[_Inotify] = []
        self.loop: Loop | None = None
        self.deaf = False

    def install(self) -> None:
        """Let the agent's listener use this."""
        setattr(listener, "RustNotify", self._open)  # noqa: B010 - it is another library's

    def _open(self, paths: Sequence[str], *_options: object) -> _Inotify:
        if self.deaf:
            raise OSError("OS file watch limit reached.")
        watch = _Inotify(paths)
        self.alive.append(watch)
        return watch

    def settle(self) -> None:
        """Let those end that were asked to; they may be waited for."""
        for watch in [each for each in self.alive if each.stops]:
            self.alive.remove(watch)
            watch.end()

    def poll(self) -> None:
        """Take what the kernel tells."""
        for watch in self.alive:
            if watch.drain() and watch.timer is None and self.loop:
                watch.timer = self.loop.call_later(listener.DEBOUNCE / 1000, self._deliver, watch)

    def deleted(self) -> set[str]:
        """Return the files that were deleted since the last time, as far as anybody watches."""
        found: set[str] = set()
        for watch in self.alive:
            if watch.deleted:
                found |= watch.deleted
                watch.deleted.clear()
        return found

    def _deliver(self, watch: _Inotify) -> None:
        if watch in self.alive and not watch.stops:
            watch.deliver()

    def end_all(self) -> None:
        """End them all, whose process is no more."""
        for watch in self.alive:
            watch.end()
        self.alive.clear()


class _Inotify:
    """Stands for RustNotify."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._paths: dict[int, str] = {}
        for path in paths:
            number = _libc.inotify_add_watch(self._descriptor, os.fsencode(path), _MASK)
            if number < 0:
                code = ctypes.get_errno()
                self.close()
                raise FileNotFoundError(code, f'{os.strerror(code)} about ["{path}"]')
            self._paths[number] = path
        self._found: set[tuple[int, str]] = set()
        self.deleted: set[str] = set()
        self._turn, self._ended = Turn(), threading.Event()
        self._stop: listener._Stop | None = None
        self.timer: object = None

    @property
    def stops(self) -> bool:
        return self._stop is not None and self._stop.asked

    def watch(self, _debounce: int, _step: int, _timeout: int, stop: listener._Stop) -> set[tuple[int, str]] | str:
        """Block the listener's thread until there is something to tell."""
        self._stop = stop
        if not stop.asked:
            self._turn.take()
        if self._ended.is_set() or stop.is_set():
            return "stop"
        found, self._found = self._found, set()
        return found

    def drain(self) -> bool:
        """Read what is queued; return whether there is anything to tell."""
        try:  # not contextlib's suppress: after each piece of disk work, there is mostly nothing
            while data := os.read(self._descriptor, 65536):
                self._parse(data)
        except BlockingIOError:
            pass
        return bool(self._found)

    def _parse(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, at)
            name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0").decode()
            at += _EVENT.size + length
            if path := self._paths.get(number):
                self._found.add((mask, f"{path}/{name}" if name else path))
                if mask & _DELETED:
                    self.deleted.add(f"{path}/{name}")

    def deliver(self) -> None:
        """Hand over what was found, and wait until the loop has been told."""
        self.timer = None
        self._turn.give()

    def end(self) -> None:
        """Let the thread go."""
        self._ended.set()
        self._turn._threads.set()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
