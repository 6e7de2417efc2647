"""The address at which metrics and health are served: opened, followed when it changes, and never worth a token.

One that cannot be had (another program is there) is tried again and again; everything else goes on meanwhile.
"""

from __future__ import annotations

import errno
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from agent import sockets, web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.engine.services import Services
    from agent.engine.troubles import Troubles

RETRY = 10.0
"""Seconds until an address is tried again that could not be had."""
LOOK_UP = 10.0
"""Seconds for the name of a host."""
MODE = 0o660
"""Of a socket in the file system: the agent's user and group, so that a scraper needs the group only."""
LOCAL = "unix:"

_HINTS = {
    errno.EADDRINUSE: "another program is there, as `ss -lp` tells: stop it, or choose another address",
    errno.EACCES: "not the agent's: choose a port from 1024 on, or a directory in which it may write",
    errno.EEXIST: "remove it, or choose another path",
}


class Endpoint:
    """Serves monitors.

    Args of the constructor: ``listen`` returns the address that is configured now; ``answer`` what a monitor is told.
    """

    def __init__(
        self,
        services: Services,
        troubles: Troubles,
        listen: Callable[[], str | None],
        answer: Callable[[web.Request], Awaitable[web.Page]],
    ) -> None:
        self._services, self._troubles, self._listen, self._answer = services, troubles, listen, answer

    async def keep(self) -> None:
        """Serve at the address that is configured, until cancelled."""
        while True:
            listen = self._listen()
            async with anyio.create_task_group() as tasks:
                if listen:
                    tasks.start_soon(self._offer, listen)
                while self._listen() == listen:
                    await self._services.board.news.wait()
                tasks.cancel_scope.cancel()
            self._troubles.over("metrics_listen")

    async def _offer(self, listen: str) -> None:
        """Serve at an address as soon as it can be had."""
        while True:
            try:
                listener = await self._open(listen)
            except OSError as error:
                reason = error.strerror or str(error) or type(error).__name__
                hint = _HINTS.get(error.errno or 0, "is it an address of this machine?")
                self._troubles.met("metrics_listen", f"{listen}: {reason}", f"{hint}; it is tried again by itself")
                await anyio.sleep(RETRY)
            else:
                self._troubles.over("metrics_listen")
                await self._serve(listener)

    async def _open(self, listen: str) -> sockets.Listener:
        if listen.startswith(LOCAL):
            path = Path(listen.removeprefix(LOCAL))
            return await self._services.workers.disk(lambda: sockets.open_instead(path, MODE), at=path.parent)
        host, _, port = listen.rpartition(":")
        return sockets.open_tcp(await self._addresses(host.strip("[]"), int(port)))

    async def _addresses(self, host: str, port: int) -> list[sockets.Address]:
        """Return where to listen; only a name may take its time."""
        try:
            return sockets.look_up(host, port, numeric=True)
        except OSError:
            look_up = functools.partial(sockets.look_up, host, port)
            return await self._services.workers.network(lambda: (look_up, lambda: None), LOOK_UP)

    async def _serve(self, listener: sockets.Listener) -> None:
        self._services.log.info("metrics.listening", address=listener.address)
        with listener:
            await web.serve(listener.socket, self._answer)
