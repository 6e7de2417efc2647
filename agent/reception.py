"""Serves those who come to the control socket, so that whatever they do, the agent goes on.

The socket's mode lets only root and the agent's own user connect, and the kernel says who did (unix(7):
SO_PEERCRED). Every read and write has a time limit, and only so many connections are served at once: when others wait,
whoever has not said what he wants has little time left.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

import anyio

from agent import control

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.control import Answer

SERVED = 32
"""Connections served at once; others wait in the backlog."""
TIME_LIMIT = 5.0
"""Seconds for a request to arrive, and for an answer to be taken."""
HURRY = 0.25
"""Seconds for a request to arrive when others wait; who asks has it ready."""
ACCEPT_PAUSE = 0.1
"""Seconds after a failed accept: descriptors or memory are used up, which passes."""

_CHUNK = 1 << 16
_CREDENTIALS = struct.Struct("iII")
"""struct ucred: process, user, group."""
_NO_REQUEST = f"not a request: one JSON object on a line, of {control.MAX_REQUEST} bytes at most, is"


async def serve(listener: socket.socket, answer: Callable[[dict[str, Any]], Awaitable[Answer]]) -> None:
    """Answer requests until cancelled.

    Args:
        listener: as `control.listen` returns it.
        answer: what to say to a request, which may be any JSON object.
    """
    places = anyio.Semaphore(SERVED)
    arrived: dict[anyio.CancelScope, float] = {}  # when; by what ends the wait for their request

    async def attend(connection: socket.socket, patience: anyio.CancelScope) -> None:
        try:
            with connection, contextlib.suppress(OSError):  # too slow, or gone: its own loss
                await _converse(connection, answer, patience)
        finally:
            arrived.pop(patience)
            places.release()

    async with anyio.create_task_group() as tasks:
        while True:
            await anyio.wait_readable(listener)
            if places.value == 0:
                for patience, since in arrived.items():
                    patience.deadline = min(patience.deadline, since + HURRY)
            await places.acquire()
            connection, patience = await _accept(listener), anyio.CancelScope()
            arrived[patience] = anyio.current_time()
            patience.deadline = arrived[patience] + TIME_LIMIT
            tasks.start_soon(attend, connection, patience)


async def _accept(listener: socket.socket) -> socket.socket:
    while True:
        await anyio.wait_readable(listener)
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue  # it has left already
        except OSError:
            await anyio.sleep(ACCEPT_PAUSE)
            continue
        connection.setblocking(False)
        return connection


async def _converse(
    connection: socket.socket, answer: Callable[[dict[str, Any]], Awaitable[Answer]], patience: anyio.CancelScope
) -> None:
    """Hear one request and answer it.

    Raises:
        OSError: the other end is too slow or gone.
    """
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if uid not in (0, os.geteuid()):
        await _say(connection, control.refusal(f"user {uid} may not ask", hint="root and the agent's own user may"))
        return
    line = b""
    with patience:
        line = await _hear(connection)
    if line:
        request = _parse(line)
        await _say(connection, control.refusal(_NO_REQUEST) if request is None else await answer(request))


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return a request, None for anything else."""
    if len(line) > control.MAX_REQUEST:
        return None
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):  # the latter for a great many brackets
        return None
    return request if isinstance(request, dict) else None


async def _hear(connection: socket.socket) -> bytes:
    """Return the first line, or what came before the other end had said all; more than a request if it is too long."""
    heard = bytearray()
    while b"\n" not in heard and len(heard) <= control.MAX_REQUEST:
        await anyio.wait_readable(connection)
        chunk = connection.recv(_CHUNK)
        if not chunk:
            break
        heard += chunk
    return bytes(heard).partition(b"\n")[0]


async def _say(connection: socket.socket, answer: Answer) -> None:
    rest = memoryview(json.dumps(answer).encode() + b"\n")
    with anyio.fail_after(TIME_LIMIT):
        while rest:
            await anyio.wait_writable(connection)
            rest = rest[connection.send(rest) :]
