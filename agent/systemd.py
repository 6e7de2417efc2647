"""Tells the service manager how the agent is: the messages of sd_notify(3), one datagram each.

Nothing is waited for, and without a manager nothing is sent. A message that cannot be delivered right now is the
caller's to repeat, which is why `Manager.tell` says whether it was.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"
LONGEST_STATUS = 1000
"""Bytes; the manager drops a message of more than 4096 as a whole."""


class Manager:
    """The service manager that started this process, if one did and wants to be told.

    Args of the constructor: ``address`` is that of its socket, a path or ``@NAME`` in the abstract name space;
    ``watchdog`` how long the service may be silent before it is ended.
    """

    def __init__(self, address: str | None = None, watchdog: timedelta | None = None) -> None:
        self._address = _address(address or "")
        self.watchdog = watchdog if self._address else None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Manager:
        """Return the manager of this process, as its environment tells (sd_notify(3), sd_watchdog_enabled(3))."""
        return cls(environ.get("NOTIFY_SOCKET"), watchdog_of(environ))

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return bool(self._address)

    def tell(self, *assignments: str) -> bool:
        """Send assignments such as ``READY=1`` as one message; return whether the manager has it, or there is none."""
        if not self._address or not assignments:
            return True
        message = "\n".join(assignments).encode(errors="replace")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)  # a manager that is stuck must not hold up the agent
            sender.sendto(message, self._address)
            return True
        return False


def _address(text: str) -> bytes:
    """Return what to send to; empty for what is no address of a local socket (``vsock:`` is for machines)."""
    if text.startswith("@"):
        return b"\0" + os.fsencode(text[1:])
    return os.fsencode(text) if text.startswith("/") else b""


def watchdog_of(environ: Mapping[str, str]) -> timedelta | None:
    """Return how long this process may be silent; None where nobody listens, or another process is meant."""
    with contextlib.suppress(ValueError, OverflowError):
        interval = timedelta(microseconds=int(environ.get("WATCHDOG_USEC", "")))
        if interval > timedelta(0) and int(environ.get("WATCHDOG_PID") or os.getpid()) == os.getpid():
            return interval
    return None


def status(text: str) -> str:
    """Return the assignment of the line that ``systemctl status`` shows."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    data = line.encode(errors="replace")
    if len(data) > LONGEST_STATUS:
        line = data[:LONGEST_STATUS].decode(errors="ignore") + "…"
    return f"STATUS={line}"


def reloading() -> tuple[str, ...]:
    """Return the assignments that a reload begins with; `READY` must follow, whatever comes of it.

    The time tells the manager (from 253 on) that it is not an earlier reload that this is about.
    """
    return ("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def failure(text: str, exit_code: int, errno: int | None) -> tuple[str, ...]:
    """Return the assignments of a service that is about to end because it cannot start.

    Args:
        text: why.
        exit_code: with which it will end.
        errno: what the system said, if it was the system.
    """
    return (status(text), *([f"ERRNO={errno}"] if errno else []), f"EXIT_STATUS={exit_code}")
