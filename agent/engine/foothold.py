"""The agent's own places: its runtime directory with lock and control socket, and its state directory.

They are there when the agent starts, and may be taken away under it: somebody tidies /run, or mounts something over it.
So they are looked at as often as everything else, and made anew. Should another agent have been faster, this one ends:
its lock is worth nothing any more, and two agents must not write the same files.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from agent import control, reception, sockets
from agent.errors import BusyError, OutputError
from agent.output import sink
from agent.workers import StalledError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta
    from typing import Any

    from agent.config.model import AgentSettings
    from agent.control import Answer
    from agent.engine.services import Services

RUNTIME_MODE, STATE_MODE = 0o755, 0o700
UNUSABLE, UNAVAILABLE = "runtime_dir.unusable", "control.unavailable"
UNUSABLE_HINT = "a restart of the agent makes it anew (RuntimeDirectory= under systemd)"
SOCKET_HINT = "tokens are kept fresh all the same; it is tried again by itself"


class Foothold:
    """Keeps the places of a running agent.

    Args of the constructor: ``answer`` says what to say to a request at the control socket; ``restored`` is called when
    something had to be made anew. ``displaced`` is why the agent has to end.
    """

    def __init__(
        self,
        services: Services,
        settings: AgentSettings,
        answer: Callable[[dict[str, Any]], Awaitable[Answer]],
        restored: Callable[[], Awaitable[None]],
    ) -> None:
        self._services, self._answer, self._restored = services, answer, restored
        self._runtime_dir, self._state_dir = settings.runtime_dir, settings.state_dir
        self._listener: sockets.Listener | None = None
        self._said: dict[str, str] = {}
        self._stood = False
        self.displaced: BusyError | None = None

    async def keep(
        self,
        rescan_interval: Callable[[], timedelta],
        stop: Callable[[], None],
        *,
        task_status: anyio.abc.TaskStatus[None],
    ) -> None:
        """Answer at the control socket, and make anew what is taken away, until cancelled.

        Args:
            rescan_interval: how often to look.
            stop: called when this agent has to end.
            task_status: told when callers can be answered, or could be if the socket could be had.
        """
        try:
            await self._stand()
            task_status.started()
            while not self.displaced:
                await self._serve(rescan_interval)
                await self._stand()
            stop()
        finally:
            await self._leave()

    async def _serve(self, rescan_interval: Callable[[], timedelta]) -> None:
        """Answer callers as long as everything is in its place."""
        clock = self._services.clock
        async with anyio.create_task_group() as tasks:
            if self._listener:
                tasks.start_soon(reception.serve, self._listener.socket, self._answer)
            while True:
                await clock.sleep_until(clock.now() + rescan_interval())
                if not await self._is_in_place():
                    break
            tasks.cancel_scope.cancel()

    async def _is_in_place(self) -> bool:
        """Whether everything is where it was; where a disk does not answer, it is taken to be."""
        workers = self._services.workers
        with contextlib.suppress(OutputError, StalledError):  # `board` says that it cannot write there
            await workers.disk(lambda: sink.make_directory(self._state_dir, STATE_MODE), at=self._state_dir)
        for path, is_right in self._services.board.files:
            with contextlib.suppress(OSError):  # a disk that does not answer is one, too
                if not await workers.disk(is_right, at=path.parent):
                    self._services.board.save_anew()
        try:
            return await workers.disk(self._look, at=self._runtime_dir)
        except StalledError:
            return True

    def _look(self) -> bool:
        lock = self._services.lock
        return bool(self._listener and self._listener.is_in_place() and (lock is None or lock.is_in_place()))

    async def _stand(self) -> None:
        """Make everything anew that is not in its place; what fails is said once, and tried again."""
        await self._leave()
        try:
            self._listener = await self._services.workers.disk(self._take_place, at=self._runtime_dir)
        except BusyError as error:
            self.displaced = error
        except (OutputError, StalledError) as caught:
            reason = caught if isinstance(caught, OutputError) else caught.of(self._runtime_dir)
            self._complain(UNUSABLE, reason.message, reason.hint or UNUSABLE_HINT)
        except OSError as error:
            self._said.pop(UNUSABLE, None)
            self._complain(UNAVAILABLE, error.strerror or type(error).__name__, SOCKET_HINT)
        else:
            self._said.clear()
            await self._welcome()

    def _take_place(self) -> sockets.Listener:
        """Make what is missing: directory and lock, and then the socket.

        Raises:
            BusyError, OutputError: directory or lock cannot be had.
            OSError: the socket cannot.
        """
        sink.make_directory(self._runtime_dir, RUNTIME_MODE)
        if self._services.lock:
            self._services.lock.renew()
        return sockets.named(control.listen(self._runtime_dir), self._runtime_dir / control.NAME)

    async def _welcome(self) -> None:
        """Say that everything is there again, if it was not."""
        if self._stood:
            self._services.log.warning("runtime_dir.restored", path=str(self._runtime_dir))
            await self._restored()
        self._stood = True

    async def _leave(self) -> None:
        """Close the socket and take its name away, whatever is cancelled."""
        listener, self._listener = self._listener, None
        if listener:
            with anyio.CancelScope(shield=True), contextlib.suppress(StalledError):
                await self._services.workers.disk(listener.close, at=self._runtime_dir)

    def _complain(self, event: str, message: str, hint: str) -> None:
        if self._said.get(event) != message:
            path = self._runtime_dir if event == UNUSABLE else self._runtime_dir / control.NAME
            self._services.log.error(event, path=str(path), message=message, hint=hint)
        self._said[event] = message
