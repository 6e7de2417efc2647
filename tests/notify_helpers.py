"""A service manager for tests: a real datagram socket, with a path or an abstract name, and what is said to it."""

from __future__ import annotations

import os
import select
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 20.0
"""Seconds."""


class FakeManager:
    """Binds an address as a service manager does, and reads what services say."""

    def __init__(self, directory: Path, *, abstract: bool = False) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = directory / "notify"
        self.address = f"@token-agent-test-{os.getpid()}-{id(self)}" if abstract else str(path)
        self.socket.bind("\0" + self.address[1:] if abstract else self.address)

    def environ(self, *, watchdog_usec: int | None = None) -> dict[str, str]:
        """Return what the manager sets for a service."""
        more = {} if watchdog_usec is None else {"WATCHDOG_USEC": str(watchdog_usec)}
        return {"NOTIFY_SOCKET": self.address} | more

    def message(self, *, timeout: float = PATIENCE) -> dict[str, str]:
        """Return the assignments of the next message."""
        assert self.has_message(timeout=timeout), "nothing was said"
        lines = self.socket.recv(1 << 16).decode().split("\n")
        pairs = [line.split("=", 1) for line in lines]
        return {name: value for name, value in pairs}  # noqa: C416 - lists of two, for mypy

    def messages(self) -> list[dict[str, str]]:
        """Return all that has arrived."""
        arrived = []
        while self.has_message(timeout=0):
            arrived.append(self.message())
        return arrived

    def has_message(self, *, timeout: float) -> bool:
        """Whether something arrives within a time."""
        waiting = select.poll()
        waiting.register(self.socket, select.POLLIN)
        return bool(waiting.poll(timeout * 1000))

    def wait_for(self, name: str, text: str = "", *, timeout: float = PATIENCE) -> dict[str, str]:
        """Return the next message that assigns to a name something with a text in it."""
        deadline, seen = time.monotonic() + timeout, []
        while time.monotonic() < deadline and self.has_message(timeout=deadline - time.monotonic()):
            message = self.message()
            if name in message and text in message[name]:
                return message
            seen.append(message)
        raise AssertionError(f"no {name}={text}, only {seen}")

    def close(self) -> None:
        self.socket.close()
