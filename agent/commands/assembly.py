"""From a configuration to the engine's collaborators, with the machine's own time, chance and network."""

from __future__ import annotations

import os
import random
import socket
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agent import __version__, admission, files, hooks, lock, log, memory, threads
from agent.clock import SystemClock
from agent.engine import foothold
from agent.engine.board import Board
from agent.engine.gate import Gate
from agent.engine.hooking import Hooks
from agent.engine.services import Services, Transports
from agent.errors import ShortageError
from agent.network.entra import Discovery
from agent.output import sink
from agent.status import AgentStatus
from agent.workers import PATIENCE, StalledError, Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config.model import Config


THREADS = 6
"""Four that watch, and others to work; for more than that it can wait."""
THREADS_HINT = "raise TasksMax=, LimitNPROC= or LimitAS= of the unit (ulimit -u, ulimit -v, pids.max of the container)"


@contextmanager
def engine(config: Config, mode: Literal["run", "once"]) -> Iterator[Services]:
    """Hold the runtime directory and yield what the engine works with.

    Raises:
        ShortageError: the system does not give us the threads that are needed.
        OutputError: a directory of the agent cannot be used.
        BusyError: another agent holds it.
    """
    settings = config.agent
    if not threads.are_spare(THREADS):
        raise ShortageError(f"the system does not give us {THREADS} threads", hint=THREADS_HINT)
    with _telling_if_stalled(settings.runtime_dir):
        sink.make_directory(settings.runtime_dir, foothold.RUNTIME_MODE)
    with _telling_if_stalled(settings.state_dir):
        sink.make_directory(settings.state_dir, foothold.STATE_MODE)
    hooks.inherit_nothing()
    memory.keep_private()
    with lock.hold(settings.runtime_dir) as held:
        transports = Transports()
        try:
            yield services(config, mode, transports, held)
        finally:
            transports.close()


@contextmanager
def _telling_if_stalled(path: Path) -> Iterator[None]:
    """Say why nothing happens, should a disk not answer: the agent cannot start without its directories."""
    fields = {"path": str(path), "message": str(StalledError().strerror), "hint": StalledError.hint}
    timer = threading.Timer(PATIENCE, log.get_logger().error, ["disk.stalled"], fields)
    timer.daemon = True
    with suppress(RuntimeError):  # no thread: then it is not said
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def services(
    config: Config, mode: Literal["run", "once"], transports: Transports, held: lock.Hold | None = None
) -> Services:
    """Assemble the collaborators with the machine's own time, chance and network."""
    clock, logger = SystemClock(), log.get_logger()
    status = AgentStatus(
        version=__version__, pid=os.getpid(), started_at=datetime.now(UTC), config_path=str(config.path), mode=mode
    )
    workers = Workers(config.agent.max_in_flight + admission.LENT)
    board = Board(status, config.agent, clock, logger)
    return Services(
        clock=clock,
        random=random.random,
        machine=machine_id(),
        log=logger,
        workers=workers,
        gate=Gate(clock, random.random, config.agent.max_in_flight),
        discovery=Discovery(clock),
        transport=transports,
        board=board,
        hooks=Hooks(clock, workers, board, logger),
        lock=held,
    )


def machine_id() -> str:
    """Return what tells this machine from others of a fleet (machine-id(5)); the host name where there is none."""
    try:
        return files.read_bytes(Path("/etc/machine-id")).decode().strip() or socket.gethostname()
    except (OSError, ValueError):
        return socket.gethostname()
