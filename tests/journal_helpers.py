"""A journal for tests: a socket that takes events as systemd's journal does, and understands its native protocol."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 20_000
"""Milliseconds."""
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class FakeJournal:
    """Binds a path and yields what arrives there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def close(self) -> None:
        self.socket.close()
        self.path.unlink()

    def entry(self, *, timeout: int = PATIENCE) -> dict[str, str]:
        """Return the next event; each field occurs once."""
        fields = parse(self.datagram(timeout=timeout))
        assert len(dict(fields)) == len(fields)
        return dict(fields)

    def datagram(self, *, timeout: int = PATIENCE) -> bytes:
        """Return the bytes of the next event, from a file in memory where it came as one."""
        waiting = select.poll()
        waiting.register(self.socket, select.POLLIN)
        assert waiting.poll(timeout), "nothing has arrived"
        content, descriptors, _, _ = socket.recv_fds(self.socket, 1 << 20, 2)
        if not descriptors:
            return content
        (descriptor,) = descriptors
        try:  # what journald insists on
            assert content == b""
            assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
            return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        finally:
            os.close(descriptor)

    def is_empty(self) -> bool:
        """Whether nothing waits to be read."""
        waiting = select.poll()
        waiting.register(self.socket, select.POLLIN)
        return not waiting.poll(0)


def parse(content: bytes) -> list[tuple[str, str]]:
    """Return the fields of an event in the native protocol."""
    fields = []
    while content:
        line, _, rest = content.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", rest)
            value, end, content = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert end == b"\n"
        else:
            content = rest
        fields.append((name.decode(), value.decode()))
    return fields
