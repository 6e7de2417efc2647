"""Serves many callers at a listening socket, so that whatever they do, the agent goes on.

Each is heard once and answered once. Every read and write has a time limit, and only so many connections are served
at once: when others wait, whoever has not said what he wants has little time left.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

SERVED = 32
"""Connections served at once; others wait in the backlog."""
TIME_LIMIT = 5.0
"""Seconds for a request to arrive, and for an answer to be taken."""
HURRY = 0.25
"""Seconds for a request to arrive when others wait; who asks has it ready."""
ACCEPT_PAUSE = 0.1
"""Seconds after a failed accept: descriptors or memory are used up, which passes."""

_CHUNK = 1 << 16


async def serve(
    listener: socket.socket, converse: Callable[[socket.socket, anyio.CancelScope], Awaitable[None]]
) -> None:
    """Serve callers until cancelled.

    Args:
        listener: bound, and set not to block.
        converse: hears a caller, within the scope that ends his time for it, and answers; its OSErrors are his loss.
    """
    places = anyio.Semaphore(SERVED)
    arrived: dict[anyio.CancelScope, float] = {}  # when; by what ends the wait for their request

    async def attend(connection: socket.socket, patience: anyio.CancelScope) -> None:
        try:
            with connection, contextlib.suppress(OSError):  # too slow, or gone: its own loss
                await converse(connection, patience)
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


async def hear(
    connection: socket.socket, patience: anyio.CancelScope, limit: int, is_whole: Callable[[bytearray], bool]
) -> bytes:
    """Return what a caller says until it is whole, or he has said all; nothing if his time is over.

    Args:
        connection: of the caller.
        patience: entered here; ends his time.
        limit: in bytes; what is longer is returned as far as it came, more than the limit.
        is_whole: whether so much is a request.

    Raises:
        OSError: the caller is gone.
    """
    heard = bytearray()
    with patience:
        while len(heard) <= limit and not is_whole(heard):
            await anyio.wait_readable(connection)
            chunk = connection.recv(_CHUNK)
            if not chunk:
                break
            heard += chunk
        return bytes(heard)
    return b""


async def say(connection: socket.socket, content: bytes) -> None:
    """Send an answer.

    Raises:
        OSError: the caller does not take it in time, or is gone.
    """
    rest = memoryview(content)
    with anyio.fail_after(TIME_LIMIT):
        while rest:
            await anyio.wait_writable(connection)
            rest = rest[connection.send(rest) :]
