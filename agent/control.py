"""The control socket: one question, one answer, each a line of JSON; then the connection is closed.

Here are the socket itself, and the end that asks: plain blocking code, so that commands which ask import nothing
heavy. Those who ask are served in `reception`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from agent import sockets
from agent.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "control.sock"
MAX_REQUEST = 64 << 10
"""Bytes of a request; several hundred profiles can be named in it."""
SILENCE = 5.0
"""Seconds without a word after which whoever waits for an answer looks whether there can be one."""
MAX_REPLY = 8 << 20
"""Bytes of an answer; it tells of ten thousand profiles in it, and parsing takes twenty times as many."""

Answer = dict[str, Any]

_CHUNK = 1 << 16
_TIMEVAL = struct.Struct("ll")


def refusal(message: str, *, hint: str = "", exit_code: int = 69) -> Answer:
    """Return the answer to a request that is not carried out."""
    return {"ok": False, "exit_code": exit_code, "message": message, "hint": hint}


# ---- the agent's end


def listen(directory: Path) -> socket.socket:
    """Open the socket of a runtime directory, which the caller holds the lock of: one that is there is a dead agent's.

    Raises:
        OSError: it cannot be made.
    """
    path = directory / NAME
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return sockets.open_local(path, 0o600)


# ---- the asking end


def ask(directory: Path, request: object, timeout: float, on_silence: Callable[[], None] = lambda: None) -> Answer:
    """Ask the agent of a runtime directory, and return its answer.

    Args:
        directory: the runtime directory.
        request: anything JSON has.
        timeout: in seconds, for all of it.
        on_silence: called again and again while nothing comes; raises if nothing will.

    Raises:
        UnreachableError: why there is no answer, and the socket; see `is_late`.
    """
    path, deadline = directory / NAME, time.monotonic() + timeout
    message = json.dumps(request).encode()
    if len(message) > MAX_REQUEST:
        raise UnreachableError("the request is too long for one connection", hint="name fewer profiles, or all of them")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            _connect(connection, path, timeout)
            content = _exchange(connection, message, deadline, on_silence)
    except OSError as error:
        raise _unreachable(path, error, timeout) from error
    return _understood(content, path)


def _connect(connection: socket.socket, path: Path, timeout: float) -> None:
    """Connect; where the backlog is full this waits, unlike a connection that was made not to block."""
    seconds = max(timeout, 0.001)
    connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1_000_000))
    )
    with sockets.address_of(path) as address:
        connection.connect(address)


def _exchange(connection: socket.socket, message: bytes, deadline: float, on_silence: Callable[[], None]) -> bytes:
    """Return all that was answered; a refusal may come before the question was taken."""
    heard = bytearray()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _until(connection, deadline).sendall(message + b"\n")
    while not heard.endswith(b"\n") and len(heard) < MAX_REPLY:
        chunk = _next(connection, deadline, on_silence)
        if not chunk:
            break
        heard += chunk
    return bytes(heard)


def _next(connection: socket.socket, deadline: float, on_silence: Callable[[], None]) -> bytes:
    """Return what comes next, nothing at the end."""
    while True:
        until = min(deadline, time.monotonic() + SILENCE)
        try:
            return _until(connection, until).recv(_CHUNK)
        except TimeoutError:
            if until == deadline:
                raise
            on_silence()


def _until(connection: socket.socket, deadline: float) -> socket.socket:
    """Let the next call end at the deadline."""
    connection.settimeout(max(deadline - time.monotonic(), 0.001))
    return connection


def _understood(content: bytes, path: Path) -> Answer:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        said = "something else than an agent does" if content else "nothing, and closed the connection"
        raise UnreachableError(f"{path}: it answered {said}", hint="see the agent's log; was it just stopped?")
    return answer


def is_late(error: UnreachableError) -> bool:
    """Tell whether somebody is there who did not answer in time."""
    return isinstance(error.__cause__, TimeoutError | BlockingIOError)


def _unreachable(path: Path, error: OSError, timeout: float) -> UnreachableError:
    if isinstance(error, PermissionError):
        reason, hint = "not permitted", "root and the agent's own user may ask it"
    elif isinstance(error, TimeoutError | BlockingIOError):
        reason, hint = f"no answer within {timeout:g} s", "see the agent's log"
    elif isinstance(error, FileNotFoundError | NotADirectoryError):
        reason, hint = "there is no such socket", ""
    elif isinstance(error, ConnectionRefusedError):
        reason, hint = "nobody answers there any more", ""
    else:
        reason, hint = error.strerror or type(error).__name__, ""
    return UnreachableError(f"{path}: {reason}", hint=hint)
