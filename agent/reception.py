"""Serves those who come to the control socket (`serving`): who they are, what they ask, what they are answered.

The socket's mode lets only root and the agent's own user connect, and the kernel says who did (unix(7): SO_PEERCRED).
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from agent import control, serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import anyio

    from agent.control import Answer

_CREDENTIALS = struct.Struct("iII")
"""struct ucred: process, user, group."""
_NO_REQUEST = f"not a request: one JSON object on a line, of {control.MAX_REQUEST} bytes at most, is"


async def serve(listener: socket.socket, answer: Callable[[dict[str, Any]], Awaitable[Answer]]) -> None:
    """Answer requests until cancelled.

    Args:
        listener: as `control.listen` returns it.
        answer: what to say to a request, which may be any JSON object.
    """

    async def converse(connection: socket.socket, patience: anyio.CancelScope) -> None:
        _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid not in (0, os.geteuid()):
            hint = "root and the agent's own user may"
            await _say(connection, control.refusal(f"user {uid} may not ask", hint=hint))
            return
        heard = await serving.hear(connection, patience, control.MAX_REQUEST, lambda heard: b"\n" in heard)
        if line := heard.partition(b"\n")[0]:  # or what came before the other end had said all
            request = _parse(line)
            await _say(connection, control.refusal(_NO_REQUEST) if request is None else await answer(request))

    await serving.serve(listener, converse)


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return a request, None for anything else."""
    if len(line) > control.MAX_REQUEST:
        return None
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):  # the latter for a great many brackets
        return None
    return request if isinstance(request, dict) else None


async def _say(connection: socket.socket, answer: Answer) -> None:
    await serving.say(connection, json.dumps(answer).encode() + b"\n")
