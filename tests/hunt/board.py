"""What the processes of a hunt tell one another, without ever waiting: numbers in memory that they share."""

from __future__ import annotations

import ctypes
import mmap
import signal

PROVIDER, WRITER = 0, 1
"""Who issues tokens, and counts them."""
_PR_SET_PDEATHSIG = 1


class Board:
    """Numbers that every process forked from here reads and writes.

    Attributes:
        issued: the number of the last token of the provider, and of the writer.
        reads: how often each reader has read.
        newest: the highest number that was read from each file, or that its writer is done with.
    """

    def __init__(self, readers: int, files: int) -> None:
        numbers = memoryview(mmap.mmap(-1, 8 * (1 + 2 + readers + files))).cast("Q")
        self._over, self.issued, rest = numbers[:1], numbers[1:3], numbers[3:]
        self.reads, self.newest = rest[:readers], rest[readers:]

    @property
    def is_over(self) -> bool:
        """Whether all are to come to an end."""
        return bool(self._over[0])

    def end(self) -> None:
        """Let all come to an end."""
        self._over[0] = 1

    def note(self, file: int, serial: int) -> None:
        """Note what a file holds. Of two who do at once, the lower may win: then less is asked of the next reader."""
        self.newest[file] = max(self.newest[file], serial)


def die_with_parent() -> None:
    """Let this process be killed when its parent ends, in whatever way, and not end with it at a Ctrl-C before."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
