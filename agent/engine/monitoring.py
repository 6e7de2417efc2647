"""What monitors are told: metrics at an address and in a file, whether the agent lives, whether its readers are served.

The library that renders metrics is imported with the first use, so that who has no metrics does not pay for it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio

from agent import health, web
from agent.engine.endpoint import Endpoint
from agent.engine.herald import late
from agent.engine.textfile import Textfile
from agent.engine.troubles import Troubles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent.config.model import AgentSettings
    from agent.engine.renewal import Keeper
    from agent.engine.services import Services

EFFORT = 10
"""What was rendered is shown for so many times as long as it took: scraping without end costs a tenth of a core."""
PATHS = ("/metrics", "/livez", "/readyz")


class Monitoring:
    """Shows the agent to monitors.

    Args of the constructor: ``settings`` returns those in force; ``keepers`` those at work.
    """

    def __init__(
        self, services: Services, settings: Callable[[], AgentSettings], keepers: Callable[[], Iterable[Keeper]]
    ) -> None:
        self._services, self._keepers = services, keepers
        self._rendering = anyio.Lock()
        self._pages: dict[bool, tuple[float, web.Page]] = {}
        troubles = Troubles(services)
        self._endpoint = Endpoint(services, troubles, lambda: settings().metrics_listen, self.answer)
        self._textfile = Textfile(services, troubles, lambda: settings().metrics_textfile, self._text)

    async def run(self) -> None:
        """Show everything where the configuration wants it, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._endpoint.keep)
            tasks.start_soon(self._textfile.keep)

    async def leave(self) -> None:
        """Say that the agent has stopped, where that can be said."""
        await self._textfile.leave()

    # ---- what is asked for

    async def answer(self, request: web.Request) -> web.Page:
        """Return the page that somebody asks for."""
        match request.path:
            case "/metrics":
                return await self._metrics(openmetrics="application/openmetrics-text" in request.accept)
            case "/livez":
                return self._livez()
            case "/readyz":
                return self._readyz()
        return web.lines("there are", *PATHS, status=HTTPStatus.NOT_FOUND)

    def _livez(self) -> web.Page:
        """Tell whether renewals come when they are due; that anything answers at all says the rest."""
        overslept = late(self._keepers(), self._services.clock.now())
        if overslept:
            text = (f"{name}: its renewal does not come" for name in overslept)
            return web.lines(*text, status=HTTPStatus.SERVICE_UNAVAILABLE)
        return web.lines("alive")

    def _readyz(self) -> web.Page:
        found = health.readiness(self._services.board.profiles.values(), self._services.clock.now())
        if found.ready:
            return web.lines("ready", *found.lines)
        return web.lines(*found.lines, status=HTTPStatus.SERVICE_UNAVAILABLE)

    async def _metrics(self, *, openmetrics: bool) -> web.Page:
        """Return the metrics; those who ask together get the same, and whoever asks all the time what was there."""
        async with self._rendering:
            now = self._services.clock.boot()
            until, page = self._pages.get(openmetrics, (now, web.Page(b"")))
            if now >= until:
                body, content_type = await self._render(kept=True, openmetrics=openmetrics)
                page = web.Page(body, content_type=content_type)
                took = self._services.clock.boot() - now
                self._pages[openmetrics] = (now + took * (1 + EFFORT), page)
            return page

    async def _text(self, kept: bool) -> bytes:  # noqa: FBT001 - as `Textfile` calls it
        return (await self._render(kept=kept, openmetrics=False))[0]

    async def _render(self, *, kept: bool, openmetrics: bool) -> tuple[bytes, str]:
        """Render in a thread: a thousand profiles take a tenth of a second."""
        board, now = self._services.board, self._services.clock.now()
        agent, profiles, tally = board.agent, tuple(board.profiles.values()), board.tally.copy()

        def work() -> tuple[bytes, str]:
            from agent import metrics  # noqa: PLC0415 - as said above: 4 MB

            return metrics.render(metrics.Snapshot(agent, profiles, tally, now, kept), openmetrics=openmetrics)

        return await self._services.workers.disk(work)
