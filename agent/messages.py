"""Lines to standard error: written whole if they can be, lost if not; a service never waits for whoever reads them.

A pipe whose reader hangs, such as a stuck log driver's, and a terminal that was stopped (Ctrl-S) take nothing more, and
a write to them never ends. A command's messages are worth waiting for; a service's are not worth a token.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading

PATIENCE = 1.0
"""Seconds that a service waits once; from then on until the reader goes on, not at all."""


class Lines:
    """Writes to a descriptor; errors are dropped. ``patience`` in seconds; None waits for ever."""

    def __init__(self, descriptor: int) -> None:
        self.patience: float | None = None
        self._descriptor = descriptor
        self._writing = threading.Lock()  # lines of several threads do not mix
        self._is_stuck = self._is_torn = False

    def write(self, data: bytes) -> None:
        """Write a line, or lose it: a closed pipe or a full disk is no reason to stop renewing tokens."""
        with self._writing, contextlib.suppress(OSError):
            self._write(b"\n" + data if self._is_torn else data)

    def _write(self, data: bytes) -> None:
        done = 0
        while done < len(data):
            if self.patience is not None and not self._is_ready(self.patience):
                self._is_torn = self._is_torn or done > 0
                return
            # What poll(2) calls ready takes so much without waiting (pipe(7)).
            end = len(data) if self.patience is None else done + select.PIPE_BUF
            done += os.write(self._descriptor, data[done:end])
        self._is_torn = False

    def _is_ready(self, patience: float) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        self._is_stuck = not poll.poll(0 if self._is_stuck else patience * 1000)
        return not self._is_stuck


STANDARD_ERROR = Lines(2)
