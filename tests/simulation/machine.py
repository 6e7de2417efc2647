"""One machine: clocks, disks, files, and an agent on it that is started, stopped and killed."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time as real_time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from agent import lock
from agent.engine.loading import Loader
from agent.engine.supervisor import Supervisor
from agent.errors import AgentError
from agent.hooks import SEARCH_PATH
from agent.output import sink
from tests.engine_helpers import assemble
from tests.simulation.cases import TWINS
from tests.simulation.clocks import MachineClock, Time
from tests.simulation.disks import Disk
from tests.simulation.notices import Notices
from tests.simulation.turns import Killed, Loop, TurnWorkers

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from agent.config.model import Profile
    from agent.engine.services import Services
    from agent.network.transport import Transport

TICK = 1e-6
"""Seconds that rounding may take away."""
STOPS_WITHIN = 15.0
"""Seconds; TimeoutStopSec= of the unit."""


class BrokenError(Exception):
    """A promise was broken."""


@dataclass
class Hooks:
    """Who is told of what happens on the machine."""

    before_jump: Callable[[float], None]
    touched: Callable[[], object]
    log: Any
    transport: Callable[[Profile], Transport]


@dataclass
class Machine:
    """The machine; ``agent`` is the task of the running agent."""

    directory: Path
    random: Random
    time: Time
    mounted: bool
    hooks: Hooks
    loop: Loop | None = None
    graveyard: list[object] = field(default_factory=list)
    draws: dict[float, list[float]] = field(default_factory=dict)
    clock_type: type[MachineClock] = MachineClock

    def __post_init__(self) -> None:
        self.notices = Notices()
        self.notices.install()
        self.run_disk = Disk(self.directory / "run", mounted=self.mounted)
        (self.run_disk.path / TWINS).mkdir(mode=0o755)
        self.state_disk = Disk(self.directory / "state", mounted=self.mounted)
        self.slow_disk = 0.0
        self.services: Services
        self.supervisor: Supervisor
        self.clock: MachineClock
        self._agent: asyncio.Task[None]
        self._send: Any
        self._open: set[int] = set()
        self.ready = self.stopping = self.failed_to_start = False

    # ---- the agent's process

    @property
    def running(self) -> bool:
        return self.loop is not None

    def start(self) -> None:
        """Start the agent's process."""
        self._open, self.ready, self.stopping = _descriptors(), False, False
        self.failed_to_start = False
        self.loop = Loop(self.time.elapsed, self.hooks.before_jump)
        self.loop.set_exception_handler(self._complain)
        self.time.leave(self.loop)
        self.notices.loop = self.loop
        self.clock = self.clock_type(self.time)
        self._agent = self.loop.create_task(self._run())
        loop = self.loop
        self._agent.add_done_callback(lambda _task: loop.stop())

    async def _run(self) -> None:
        """Do what `agent.commands.run` does, with this machine's time and network."""
        assert self.loop
        loader = Loader(self.directory / "config.toml", {})
        config = loader.config()
        sink.make_directory(config.agent.runtime_dir, 0o755)
        sink.make_directory(config.agent.state_dir, 0o700)
        with lock.hold(config.agent.runtime_dir):
            workers = TurnWorkers(
                config.agent.max_in_flight, self.loop, self._disk_takes, self.notices.settle, self._disk_done
            )
            path = f"{self.directory}/bin:{SEARCH_PATH}"
            self.services = assemble(
                config,
                self.clock,
                self.hooks.log,
                workers,
                self.hooks.transport,
                search_path=path,
                random=self._draw,
            )
            self._send, receive = anyio.create_memory_object_stream[signal.Signals](8)
            self.supervisor = Supervisor(self.services, config, loader)
            with receive:
                self.ready = True
                await self.supervisor.run(receive)

    def _draw(self) -> float:
        drawn = self.random.random()
        self.draws.setdefault(round(self.time.true, 6), []).append(drawn)
        if len(self.draws) > 10_000:
            self.draws.clear()
        return drawn

    def _disk_takes(self) -> float:
        return self.random.uniform(0.0001, 0.002) + self.slow_disk * self.random.random()

    def _disk_done(self) -> None:
        self.notices.poll()
        self.hooks.touched()

    def _complain(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if self.loop and not isinstance(error, BrokenError):
            error = BrokenError(f"the event loop complains: {context.get('message')}: {error!r}")
        if self.loop:
            self.loop.failure = self.loop.failure or error

    def run_until(self, true: float) -> None:
        """Let time pass; less of it if the agent is killed meanwhile, or ends because it cannot start."""
        if self.time.true >= true - TICK:
            return
        if self.loop:
            self._run_loop(self.loop, true)
        else:
            self.time.pass_by(true - self.time.true)

    def _run_loop(self, loop: Loop, true: float) -> None:
        handle = loop.call_at(loop.elapsed + true - self.time.true, loop.stop)
        try:
            loop.run_forever()
        except Killed:
            self.kill()
            return
        handle.cancel()
        if loop.failure:
            raise loop.failure
        if self._agent.done():
            self._ended()

    def _ended(self) -> None:
        """See how the agent ended by itself: only a start may fail, and for a reason an operator can mend."""
        error = self._agent.exception()
        if not isinstance(error, AgentError) or self.ready:
            raise BrokenError(f"the agent ended by itself: {error!r}") from error
        if not (self.run_disk.fault or self.state_disk.fault):
            raise BrokenError(f"the agent cannot start: {error}") from error
        self.hooks.log.info("process.failed", code=error.exit_code)
        self.failed_to_start = True
        self._leave()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        if self.loop and self.ready:
            self.loop.call_soon(self._send.send_nowait, number)

    def stop(self) -> bool:
        """Stop the agent as systemd does, and see that nothing of it is left; return whether it was not killed."""
        loop, until = self.loop, self.time.true + STOPS_WITHIN
        if not loop:
            return False
        self.stopping = True
        self.hooks.touched()
        self.signal(signal.SIGTERM)
        handle = loop.call_at(loop.elapsed + STOPS_WITHIN, loop.stop)
        try:
            loop.run_forever()
        except Killed:
            self.kill()
            return False
        handle.cancel()
        if loop.failure:
            raise loop.failure
        if not self._agent.done() or self.time.true >= until:
            raise BrokenError("the agent does not stop in time")
        self._agent.result()
        if left := asyncio.all_tasks(loop):
            raise BrokenError(f"tasks are left after the stop: {left}")
        self._leave()
        return True

    def _leave(self) -> None:
        loop = self.loop
        assert loop
        self._agent.exception()
        loop.kill_at = -1  # it has come to its end
        loop.run_until_complete(loop.shutdown_asyncgens())
        self.notices.settle()
        self.notices.end_all()
        self._no_more(loop)
        _wait_for_threads()
        if left := _descriptors() - self._open:
            raise BrokenError(f"descriptors are left after the stop: {[_target(each) for each in left]}")

    def kill(self) -> None:
        """Kill the agent: nothing of it runs any more, and the kernel closes what it had open."""
        loop = self.loop
        if not loop:
            return
        self.graveyard += [loop, *asyncio.all_tasks(loop)]  # kept, so that not even a `finally` runs
        loop.abandon()
        self.notices.end_all()
        self._no_more(loop)
        _wait_for_threads()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in _descriptors() - self._open - {null}:
            os.dup2(null, descriptor, inheritable=False)
        os.close(null)

    def _no_more(self, loop: Loop) -> None:
        self.time.leave(None)
        self.loop = self.notices.loop = None
        loop.close()

    # ---- what else happens to it

    def step_clock(self, seconds: float) -> None:
        """Set the wall clock."""
        self.time.wrong += seconds
        if self.loop:
            self.loop.call_soon(self.clock.disturb)

    def suspend(self, seconds: float) -> None:
        """Sleep with the whole machine."""
        self.time.suspended += seconds
        if self.loop:
            self.loop.call_soon(self.clock.disturb)


def _descriptors() -> set[int]:
    found = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    return {each for each in found if _target(each)}


def _target(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""  # it was that of the listing itself


def _wait_for_threads() -> None:
    until = real_time.monotonic() + 20
    while threading.active_count() > 1:
        if real_time.monotonic() > until:
            raise BrokenError(f"threads are left: {threading.enumerate()}")
        threading.enumerate()[-1].join(0.05)
