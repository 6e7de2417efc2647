"""One acquisition's claim on the network: a deadline for the whole, and a handle to abort it from outside."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Call:
    """Deadline and abort of one acquisition; made by the caller, who keeps it to abort."""

    def __init__(self, timeout: float) -> None:
        """Args: timeout in seconds for everything together, name look-up excepted (it cannot be bounded)."""
        self._deadline = time.monotonic() + timeout
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = threading.Event()

    @property
    def aborted(self) -> bool:
        """Whether the caller has given up."""
        return self._aborted.is_set()

    def remaining(self) -> float:
        """Return the seconds left.

        Raises:
            TimeoutError: none are left, or the call was aborted.
        """
        left = self._deadline - time.monotonic()
        if left <= 0 or self._aborted.is_set():
            raise TimeoutError
        return left

    def pause(self, seconds: float) -> bool:
        """Wait; return whether there is still time afterwards. If there would not be, return at once."""
        return time.monotonic() + seconds < self._deadline and not self._aborted.wait(seconds)

    def watch(self, sock: socket.socket | None) -> None:
        """Name the socket that `abort` shuts; None before it is closed, and when nothing waits for it any more."""
        with self._lock:
            self._socket = sock
            if self._aborted.is_set() and sock is not None:
                _shut(sock)

    def abort(self) -> None:
        """End the exchange at once, whatever it waits for; harmless when there is none."""
        with self._lock:
            self._aborted.set()
            if self._socket is not None:
                _shut(self._socket)


def _shut(sock: socket.socket) -> None:
    """Wake a thread that blocks on the socket; plain close would leave it waiting."""
    with contextlib.suppress(OSError):  # not connected (any more): nothing waits on it
        # Below TLS: SSLSocket.shutdown would touch TLS state that the other thread is using.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
