"""The journal's native protocol: an event as one datagram of fields, so that journalctl can search them.

Documented at systemd.io/JOURNAL_NATIVE_PROTOCOL. What is too long for a datagram goes as a sealed file in memory,
whose descriptor is sent instead. A journal that is stuck costs events, never more than a moment of the agent's time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SOCKET = Path("/run/systemd/journal/socket")
IDENTIFIER = "token-agent"
PREFIX = "TOKEN_AGENT_"
PATIENCE = 500
"""Milliseconds; how long a full journal is waited for, once: until it takes something again, events are dropped."""
LONGEST_NAME = 64
"""Bytes of a field's name; the journal drops longer ones."""

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_GONE = (errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE)
_TOO_LONG = (errno.EMSGSIZE, errno.ENOBUFS)


def is_stream(environ: Mapping[str, str], descriptor: int = 2) -> bool:
    """Tell whether a descriptor, by default standard error, is the journal's stream (systemd.exec(5))."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def name_of(key: str) -> str:
    """Return the field in which a key of an event is kept: ``retry_at`` is in ``TOKEN_AGENT_RETRY_AT``."""
    return (PREFIX + re.sub(r"[^A-Z0-9_]", "_", key.upper()))[:LONGEST_NAME]


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return fields as the journal reads them; a value of several lines has its length in front."""
    return b"".join(_field(name, value.encode(errors="backslashreplace")) for name, value in fields)


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(value)), value)
    return b"%s=%s\n" % (name.encode(), value)


class Journal:
    """A connection to the journal; may be used from several threads."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._patient = True

    def __del__(self) -> None:
        self._close()

    def send(self, fields: Iterable[tuple[str, str]]) -> bool:
        """Send an event; return False if there is no journal. An event that a stuck journal does not take is lost."""
        content = encode(fields)
        with self._lock:
            try:
                return self._send(content)
            except OSError as error:
                if error.errno not in _GONE:
                    return False
            self._close()
            try:  # its socket was replaced
                return self._send(content)
            except OSError:
                return False

    def _send(self, content: bytes) -> bool:
        sender = self._connected()
        try:
            self._deliver(sender, content)
        except OSError as error:
            if error.errno not in _TOO_LONG:
                raise
            descriptor = _sealed(content)
            try:
                self._deliver(sender, b"", descriptor)
            finally:
                os.close(descriptor)
        return True

    def _deliver(self, sender: socket.socket, content: bytes, *descriptors: int) -> None:
        """Hand a datagram over, or lose it after a while."""
        for wait in (self._patient, False):
            try:
                if descriptors:
                    socket.send_fds(sender, [content], list(descriptors))
                else:
                    sender.send(content)
            except BlockingIOError:
                self._patient = False
                if wait:
                    poll = select.poll()
                    poll.register(sender, select.POLLOUT)
                    poll.poll(PATIENCE)
            else:
                self._patient = True
                return

    def _connected(self) -> socket.socket:
        if self._socket is None:
            sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                sender.setblocking(False)
                sender.connect(str(self._path))
            except OSError:
                sender.close()
                raise
            self._socket = sender
        return self._socket

    def _close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None


def _sealed(content: bytes) -> int:
    """Return the descriptor of a file in memory that nobody can change any more, as the journal wants it."""
    descriptor = os.memfd_create("token-agent-event", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
