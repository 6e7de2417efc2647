"""Hears of changes in directories by inotify, through watchfiles: the only user of that library.

What it hears are hints. watchfiles loses events in silence (a full queue, a directory that was replaced), names
paths that have been moved, and stops for good at a file name that is not UTF-8.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from typing import TYPE_CHECKING

from watchfiles._rust_notify import RustNotify

from agent import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

STEP = 50
"""Milliseconds between two looks of the thread: what a stop takes at most; shorter ones cost idle CPU."""
THREADS = 4
"""For watchfiles and for a `Listener`, and as many again, for who else begins one meanwhile."""
NO_THREAD = "the system gives us no thread (TasksMax=, ulimit -u)"
DEBOUNCE = 100
"""Milliseconds for which events are gathered while they keep coming."""


class _Stop:
    """Asked by the thread at each step; true at the interpreter's exit as well, which would wait for the thread."""

    def __init__(self) -> None:
        self.asked = False

    def is_set(self) -> bool:
        return self.asked or not threading.main_thread().is_alive()


class Listener:
    """A thread that listens; made inside the event loop, in which it calls back.

    Raises RuntimeError where there is no thread.

    Args of the constructor: ``heard`` is called with the paths of each batch of events, ``ended`` with the reason
    when listening has ended by itself. Neither is called after `stop`.
    """

    def __init__(
        self, watched: RustNotify, heard: Callable[[frozenset[str]], None], ended: Callable[[str], None]
    ) -> None:
        self._watched, self._heard, self._ended = watched, heard, ended
        self._loop = asyncio.get_running_loop()
        self._stop = _Stop()
        self._thread = threading.Thread(target=self._listen, name="file events")
        try:
            self._thread.start()
        except (RuntimeError, MemoryError):
            watched.close()
            raise RuntimeError(NO_THREAD) from None

    def stop(self) -> None:
        """Ask the thread to end, and return at once."""
        self._stop.asked = True

    def join(self) -> None:
        """Wait until the thread has ended, one step at most after `stop`."""
        self._thread.join()

    def _listen(self) -> None:
        reason = "its thread ended"
        try:
            while isinstance(found := self._watched.watch(DEBOUNCE, STEP, 0, self._stop), set):
                self._tell(self._heard, frozenset(path for _, path in found))
            reason = ""
        except RuntimeError as error:  # watchfiles' own error among them
            reason = str(error)
        finally:
            self._watched.close()
            if reason:
                self._tell(self._ended, reason)

    def _tell(self, whom: Callable[..., None], what: object) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, whom, what)
        except RuntimeError:  # the loop is closed, and nobody is left to be told
            self._stop.asked = True

    def _deliver(self, whom: Callable[..., None], what: object) -> None:
        if not self._stop.asked:
            whom(what)


def watch(directories: Collection[str]) -> tuple[RustNotify | None, dict[str, str]]:
    """Begin to watch directories, not recursively; return what a `Listener` takes, and why others are not watched."""
    if not threads.are_spare(THREADS):  # without one, that library ends the whole process
        return None, dict.fromkeys(directories, NO_THREAD)
    refused = {path: reason for path in directories if (reason := _unreadable(path))}
    while left := sorted(set(directories) - refused.keys()):
        try:
            watched = RustNotify(left, False, False, 0, False, False)  # no debug, polling, recursion, hiding of errors
        except (PermissionError, FileNotFoundError) as error:
            refused |= dict.fromkeys(named(str(error), left) or left, explain(str(error)))
        except (OSError, RuntimeError) as error:  # a limit of the system: it names one path and means all
            refused |= dict.fromkeys(left, explain(str(error)))
        else:
            return watched, refused
    return None, refused


def _unreadable(path: str) -> str:
    """Return why a directory cannot be watched, by the permission that inotify wants; empty if it can be."""
    try:
        path.encode()
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK))
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def named(message: str, directories: Collection[str]) -> list[str]:
    """Return the directory that an error of watchfiles is about, if it can be told."""
    said = [path for path in directories if f'"{path}"' in message or f'"{path.rstrip("/")}/' in message]
    return sorted(said, key=len)[-1:]


def vanished(reason: str) -> bool:
    """Tell whether a directory could not be watched because it is no longer there."""
    return any(os.strerror(number) in reason for number in (errno.ENOENT, errno.ENOTDIR))


def explain(message: str) -> str:
    """Return an error of watchfiles in words for an administrator."""
    if "watch limit" in message:
        return "the limit fs.inotify.max_user_watches is reached"
    if "Too many open files" in message:
        return "the limit fs.inotify.max_user_instances, or that of open files, is reached"
    if "Unable to decode path" in message:
        return "the name of a file in it is not UTF-8"
    return message.partition(" about [")[0]
