"""Whether the system gives us threads: asked where a refusal would end the process, or leave it with too few."""

from __future__ import annotations

import _thread
import select
import threading
from pathlib import Path

BEGINNING = 3.0
"""Seconds for a thread to begin, in which nothing else happens."""
_TASKS = Path("/proc/self/task")
_LOOK, _LOOKS = 1, 1000
"""Milliseconds between two looks whether a thread has gone, and how many there are at most."""


def are_spare(count: int) -> bool:
    """Tell whether so many threads could be begun now, all at the same time; they have gone again."""
    begun, over, numbers = threading.Semaphore(0), threading.Event(), list[int]()

    def wait() -> None:
        numbers.append(_thread.get_native_id())
        begun.release()
        over.wait()

    try:
        for _ in range(count):
            _thread.start_new_thread(wait, ())
        return all(begun.acquire(timeout=BEGINNING) for _ in range(count))  # short of memory, one may never begin
    except (RuntimeError, MemoryError):
        return False
    finally:
        over.set()
        _await_end(numbers)


def _await_end(numbers: list[int]) -> None:
    """Wait until the system does not count these threads any more."""
    nothing = select.poll()
    for _ in range(_LOOKS):
        if not any((_TASKS / str(number)).exists() for number in tuple(numbers)):
            return
        nothing.poll(_LOOK)
