"""The real engine in virtual time: real MSAL, certificates and files; the emulator's logic in process.

A `World` is one machine with its provider. It can be started, stopped and started again on the same disk.
"""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import anyio

from agent.admission import LENT
from agent.credentials.store import CredentialStore
from agent.engine.board import Board
from agent.engine.gate import Gate
from agent.engine.hooking import Hooks
from agent.engine.loading import Loader
from agent.engine.oneshot import once
from agent.engine.services import Services
from agent.engine.supervisor import Supervisor
from agent.hooks import SEARCH_PATH
from agent.network.entra import Discovery
from agent.status import AgentStatus
from tests import virtual
from tests.certificate_helpers import Pair, make_certificate
from tests.emulator_helpers import InProcessTransport, in_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from agent.clock import Clock
    from agent.config.model import Config, Profile
    from agent.engine.progress import Progress
    from agent.network.transport import Transport
    from agent.workers import Workers

CLIENT_ID = "ace7a10d-aaaa-4a01-8663-1440b6b78cb9"
HOUR = timedelta(hours=1)


@dataclass
class Recorder:
    """A logger that keeps what it is told."""

    clock: virtual.VirtualClock
    events: list[dict[str, Any]] = field(default_factory=list)

    def _record(self, level: str, event: str, fields: dict[str, Any]) -> None:
        self.events.append({"at": self.clock.now(), "level": level, "event": event, **fields})

    def debug(self, event: str, **fields: Any) -> None:
        self._record("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._record("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._record("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._record("error", event, fields)

    def named(self, event: str, profile: str | None = None) -> list[dict[str, Any]]:
        """Return the events of a name, of one profile or all."""
        return [e for e in self.events if e["event"] == event and profile in (None, e.get("profile"))]


def assemble(  # noqa: PLR0913 - what differs between the worlds of tests
    config: Config,
    clock: Clock,
    log: object,
    workers: Workers,
    transport: Callable[[Profile], Transport],
    *,
    search_path: str,
    random: Callable[[], float] = lambda: 0.5,
    machine: str = "machine",
) -> Services:
    """Assemble the collaborators as `agent.commands.assembly` does, with another time, chance and network."""
    logger = cast("Any", log)
    board = Board(AgentStatus("test", 1, clock.now(), str(config.path), mode="run"), config.agent, clock, logger)
    return Services(
        clock=clock,
        random=random,
        machine=machine,
        log=logger,
        workers=workers,
        gate=Gate(clock, random, config.agent.max_in_flight),
        discovery=Discovery(clock),
        transport=lambda profile, _trust: transport(profile),
        board=board,
        hooks=Hooks(clock, workers, board, logger, search_path),
    )


class World:
    """A machine: a directory with configuration and certificates, a provider, a clock."""

    def __init__(
        self,
        loop: virtual.VirtualLoop,
        directory: Path,
        *,
        lifetime: timedelta = HOUR,
        start: datetime = virtual.START,
    ) -> None:
        self.loop, self.directory = loop, directory
        self.clock = virtual.VirtualClock(loop, start)
        self.machine = "machine"
        self.random: Callable[[], float] = lambda: 0.5
        self.log = Recorder(self.clock)
        self.provider = in_process(token_lifetime=lifetime)
        self.transport = InProcessTransport(self.provider, self.clock, advance=self._pass_time)
        self.services: Services
        self.supervisor: Supervisor
        self.pair = make_certificate("app", not_after=start + timedelta(days=365))
        self.register(self.pair)
        self.write("app.pem", self.pair.pem)

    # ---- the disk

    def write(self, name: str, content: bytes | str) -> Path:
        """Write a file as an operator does: whole, over the old one."""
        path = self.directory / name
        temporary = path.with_name(f"{path.name}.new")
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.chmod(0o600)
        temporary.replace(path)
        return path

    def configure(self, *profiles: str, agent: str = "", **keys: str) -> None:
        """Write a configuration of profiles by name; ``keys`` are further lines of each profile."""
        text = f'[agent]\nruntime_dir = "run"\nstate_dir = "state"\nlog_format = "json"\n{agent}\n'
        for name in profiles or ("app",):
            text += (
                f'[[profile]]\nname = "{name}"\nclient_id = "{CLIENT_ID}"\nauthority = "{self.provider.authority}"\n'
                f'certificate = "app.pem"\nscopes = ["api://{name}/.default"]\n'
                f"refresh = {{ jitter = 0 }}\n{keys.get(name, keys.get('each', ''))}\n"
            )
        self.write("config.toml", text)

    def token(self, name: str = "app") -> str | None:
        """Return the token on disk, None if there is none."""
        try:
            return (self.directory / "run" / f"{name}.token").read_text()
        except FileNotFoundError:
            return None

    # ---- the provider

    def register(self, pair: Pair) -> None:
        """Upload a certificate for the app."""
        self.provider.register(CLIENT_ID, pair)

    def unregister_all(self) -> None:
        """Forget the app's certificates; the app stays."""
        self.provider.unregister(CLIENT_ID)
        self.provider.register(CLIENT_ID)

    def requests(self) -> list[datetime]:
        """Return the times of all token requests so far, as the provider saw them."""
        return [datetime.fromisoformat(entry.at).astimezone(UTC) for entry in self.provider.token_requests]

    def _pass_time(self, delta: timedelta) -> None:
        if delta:
            self.loop.wait_in_thread(delta)

    # ---- the agent

    def load(self) -> Config:
        """Load the configuration afresh."""
        self.loader = Loader(self.directory / "config.toml", {})
        return self.loader.config()

    def _assemble(self, config: Config) -> Services:
        workers = virtual.VirtualWorkers(config.agent.max_in_flight + LENT, self.loop)
        for directory in (config.agent.runtime_dir, config.agent.state_dir):
            directory.mkdir(exist_ok=True, mode=0o755)
        path = f"{self.directory}/bin:{SEARCH_PATH}"
        self.services = assemble(
            config,
            self.clock,
            self.log,
            workers,
            lambda _profile: self.transport,
            search_path=path,
            random=self.random,
            machine=self.machine,
        )
        return self.services

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        """Run the agent; it is stopped as by SIGTERM at the end."""
        config = self.load()
        services = self._assemble(config)
        send, receive = anyio.create_memory_object_stream[signal.Signals](8)
        self.supervisor = Supervisor(services, config, self.loader)
        self.send_signal = send.send
        async with send, receive, anyio.create_task_group() as tasks:
            tasks.start_soon(self.supervisor.run, receive)
            await anyio.sleep(0.001)  # until it has begun to wait, in virtual time
            yield self.supervisor
            await send.send(signal.SIGTERM)

    async def once(self, *, force: bool = False) -> dict[str, Progress]:
        """Run a single round."""
        config = self.load()
        return await once(config, config.profiles, self._assemble(config), CredentialStore(), force=force)

    def state(self, name: str = "app") -> dict[str, Any]:
        """Return what `status --json` would say of a profile now."""
        from agent import status  # noqa: PLC0415 - the name is used for a value above

        board = self.services.board
        document = status.document(board.agent, tuple(board.profiles.values()), self.clock.now(), running=True)
        return next(entry for entry in document["profiles"] if entry["name"] == name)
