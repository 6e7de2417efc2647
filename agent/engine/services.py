"""The collaborators of the engine, assembled once by the command line (and by tests, with their own time and HTTP)."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent import schedule
from agent.engine.jobs import trust_error
from agent.network.transport import HttpsTransport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from agent.clock import Clock
    from agent.config.model import Profile
    from agent.engine.board import Board
    from agent.engine.gate import Gate
    from agent.engine.hooking import Hooks
    from agent.lock import Hold
    from agent.network.entra import Discovery
    from agent.network.transport import Transport
    from agent.workers import Workers


@dataclass(frozen=True, slots=True)
class Services:
    """What keeping a profile fresh needs besides the job itself.

    ``random`` returns numbers in [0, 1); ``machine`` is the machine's identity, the seed of its place in a fleet;
    ``transport`` finds the way to a profile's provider, given the digest of its trust root; ``lock`` is that of the
    runtime directory.
    """

    clock: Clock
    random: Callable[[], float]
    machine: str
    log: FilteringBoundLogger
    workers: Workers
    gate: Gate
    discovery: Discovery
    transport: Callable[[Profile, str | None], Transport]
    board: Board
    hooks: Hooks
    lock: Hold | None = None

    def jitter(self, profile: str) -> float:
        """Return a profile's share of its jitter: always the same here, spread over a fleet."""
        return schedule.place(self.machine, profile)


class Transports:
    """One connection pool per trust root and proxy, made when first needed."""

    def __init__(self) -> None:
        self._pools: dict[tuple[Path | None, str | None], tuple[str | None, HttpsTransport]] = {}
        self._lock = threading.Lock()

    def __call__(self, profile: Profile, trust: str | None) -> Transport:
        """Return the pool for a profile; a changed CA file (another digest) gets a new one in place of the old.

        Raises:
            CredentialError: the trust root cannot be used.
        """
        way = (profile.ca_file, profile.proxy)
        with self._lock:
            known, pool = self._pools.get(way, (None, None))
            if pool is None or known != trust:
                opened = _open(*way)
                if pool is not None:
                    pool.close()  # exchanges that are under way come to their end
                self._pools[way], pool = (trust, opened), opened
        return pool

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for _, pool in self._pools.values():
                pool.close()
            self._pools.clear()


def _open(ca_file: Path | None, proxy: str | None) -> HttpsTransport:
    try:
        return HttpsTransport(ca_file, proxy)
    except OSError as error:
        raise trust_error(ca_file, error) from error
