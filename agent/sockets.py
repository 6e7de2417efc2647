"""Opens and removes the sockets at which the agent is asked; those with a path come with the right mode."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKLOG = 1024

_LONGEST_ADDRESS = 107
"""Bytes of a path in a socket's address (unix(7), less the NUL)."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens, and its address as it is written; leaving it closes it, and takes its name away."""

    socket: socket.socket
    address: str
    path: Path | None = None
    identity: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_in_place(self) -> bool:
        """Whether whoever asks at its path comes here."""
        try:
            return self.path is not None and _identity(self.path) == self.identity
        except OSError:
            return False

    def close(self) -> None:
        """Close it, and take its name away."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if self.path and _identity(self.path) == self.identity:  # not a successor's
                self.path.unlink()


def open_local(path: Path, mode: int) -> socket.socket:
    """Listen at a path where nothing is.

    Raises:
        OSError: it cannot be had.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(listener.fileno(), mode)  # before it has a name: Linux gives the name the same mode, less the umask
        with address_of(path) as address:
            listener.bind(address)
        _complete_mode(path, mode)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _complete_mode(path: Path, mode: int) -> None:
    """Give a socket what the umask has taken away, and nothing else that may have come in its place."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) != mode:
            Path(f"/proc/self/fd/{descriptor}").chmod(mode)
    finally:
        os.close(descriptor)


def open_instead(path: Path, mode: int) -> Listener:
    """Listen at a path where nobody else does.

    Raises:
        OSError: somebody answers there, it is something else, or it cannot be had.
    """
    _clear(path)
    return named(open_local(path, mode), path)


def named(opened: socket.socket, path: Path) -> Listener:
    """Return a socket that listens at a path as one that knows its name.

    Raises:
        OSError: the name is gone already.
    """
    return Listener(opened, f"unix:{path}", path, _identity(path))


def _clear(path: Path) -> None:
    """Remove the socket of somebody who listens no longer; where nothing is, nothing is done.

    Raises:
        OSError: somebody answers there, or it is something else.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "something else than a socket is there")
    asking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with asking, address_of(path) as address:
        try:
            asking.connect(address)
        except BlockingIOError:  # he has many callers waiting
            pass
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _identity(path: Path) -> tuple[int, int]:
    """Return what tells a socket from another one that has its name later."""
    found = path.lstat()
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """Return what to bind or connect to; a path too long for an address goes by way of its open directory."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


# ---- TCP

Address = tuple[socket.AddressFamily, Any]


def look_up(host: str, port: int, *, numeric: bool = False) -> list[Address]:
    """Return where to listen; blocks, unless only numbers will do.

    Raises:
        OSError: there is no such host.
    """
    flags = socket.AI_PASSIVE | (socket.AI_NUMERICHOST if numeric else 0)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, address) for family, _, _, _, address in found]


def open_tcp(addresses: list[Address]) -> Listener:
    """Listen at the first of several addresses that can be had.

    Raises:
        OSError: why it is not the last one.
    """
    for family, address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return _open_tcp(family, address)
    return _open_tcp(*addresses[-1])


def _open_tcp(family: socket.AddressFamily, address: Any) -> Listener:
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    host, port = listener.getsockname()[:2]
    return Listener(listener, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
