"""The running agent, killed at every point: the real engine with its lock and its socket, in virtual time.

Each goes from the start of an agent that finds its tokens, through what happens to it, to its stop.
"""

from __future__ import annotations

import dataclasses
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, TypeVar

import anyio

from agent import lock
from agent.engine.leaving import GRACE
from agent.hooks import SEARCH_PATH
from tests import virtual
from tests.certificate_helpers import make_certificate, pool_key
from tests.crashpoints import checks, tracer
from tests.crashpoints.scenarios import Scenario, apply
from tests.engine_helpers import World, assemble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from agent.config.model import Config
    from agent.engine.services import Services

T = TypeVar("T")

BEGINS = virtual.START + timedelta(minutes=10)
BEGINS_AGAIN = virtual.START + timedelta(minutes=15)
SEEN = 12.0
"""Seconds in which a change on disk is noticed and dealt with."""


class SlowWorkers(virtual.VirtualWorkers):
    """The engine's workers on a disk that takes its time, so that whatever may come in between does."""

    disk_takes = 0.0

    async def disk(self, work: Callable[[], T], at: object = None) -> T:
        result = await super().disk(work, at)
        if self.disk_takes:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.disk_takes)
        return result


class Machine(World):
    """A world whose agent holds the lock of its runtime directory; disk work takes ``disk_takes`` seconds."""

    held: lock.Hold | None = None
    disk_takes = 0.0

    def _assemble(self, config: Config) -> Services:
        workers = SlowWorkers(config.agent.max_in_flight, self.loop)
        workers.disk_takes = self.disk_takes
        made = assemble(config, self.clock, self.log, workers, lambda _: self.transport, search_path=SEARCH_PATH)
        self.services = dataclasses.replace(made, lock=self.held)
        return self.services

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Run the agent."""
        with lock.hold(self.directory / "run") as self.held:
            async with self.running():
                yield


class Living(Scenario):
    """Something that happens to a running agent.

    Attributes:
        files: the token files of each profile, by their paths in the directory.
        further: other keys of profiles.
        from_start: whether its start is killed as well.
        disk_takes: seconds for each work on disk.
        takes: seconds until everything has been dealt with.
    """

    files: ClassVar[Mapping[str, tuple[str, ...]]] = {"app": ("run/app.token",)}
    further: ClassVar[Mapping[str, str]] = {}
    from_start: ClassVar = False
    disk_takes: ClassVar = 0.0
    takes: ClassVar = SEEN

    def prepare(self) -> None:
        for name in ("run", "state", "other"):
            (self.root / name).mkdir(mode=0o755)

        async def main(machine: Machine) -> None:
            self.configure(machine, self.files)
            async with machine.at_work():
                await anyio.sleep(1)
            self.announce(machine)

        self._play(main, virtual.START)

    def configure(self, machine: Machine, files: Mapping[str, tuple[str, ...]]) -> None:
        """Write a configuration of profiles with these token files."""
        keys = {name: f"token_file = [{', '.join(map(self._entry, paths))}]" for name, paths in files.items()}
        machine.configure(*files, **{name: f"{key}\n{self.further.get(name, '')}" for name, key in keys.items()})

    def _entry(self, path: str) -> str:
        return f'{{ path = "{self.root / path}", format = "{_format(path)}" }}'

    def announce(self, machine: Machine) -> None:
        """Lay ready what the operator will do."""

    def act(self) -> None:
        async def main(machine: Machine) -> None:
            self.surround(machine)
            machine.disk_takes = self.disk_takes
            if self.from_start:
                tracer.wait_to_be_traced()
            async with machine.at_work():
                await anyio.sleep(1)
                if not self.from_start:
                    tracer.wait_to_be_traced()
                await self.happen(machine)
                await anyio.sleep(self.takes)

        self._play(main, BEGINS)

    def surround(self, machine: Machine) -> None:
        """Let the provider be as it is when the agent starts."""

    async def happen(self, machine: Machine) -> None:
        """Do what happens to the agent."""
        apply(machine.directory / "config.toml")

    def over(self, machine: Machine) -> None:
        """Let everything be as it is when the agent starts again, whenever the first one was killed."""
        apply(machine.directory / "config.toml")

    def restart(self) -> None:
        async def main(machine: Machine) -> None:
            self.over(machine)
            config = machine.load()
            held = checks.tokens(self.root, self.formats)
            due = {profile.name for profile in config.profiles} - checks.reusable(config, self.root, held, BEGINS_AGAIN)
            async with machine.at_work():
                await anyio.sleep(SEEN)
                for profile in config.profiles:
                    assert machine.state(profile.name)["state"] == "fresh", machine.state(profile.name)
            acquired = [event["profile"] for event in machine.log.named("token.acquired")]
            assert sorted(acquired) == sorted(due), f"acquired: {acquired}; due: {due}"
            assert checks.renewed(config, self.root, held, checks.tokens(self.root, self.formats)) == due
            wrong = [event for event in machine.log.events if event["level"] in ("warning", "error")]
            assert not wrong, wrong

        self._play(main, BEGINS_AGAIN)

    def _play(self, main: Callable[[Machine], Awaitable[None]], start: datetime) -> None:
        async def play(loop: virtual.VirtualLoop) -> None:
            await main(Machine(loop, self.root, start=start))

        virtual.run(play)


def _format(path: str) -> str:
    return "json" if path.endswith(".json") else "raw"


def _formats(*files: Mapping[str, tuple[str, ...]]) -> Mapping[str, str]:
    return {path: _format(path) for each in files for paths in each.values() for path in paths}


class Renewal(Living):
    """A token is renewed, in three files of two formats."""

    name = "renewal"
    files: ClassVar = {"app": ("run/app.token", "run/app.json", "other/app.token")}
    formats: ClassVar = _formats(files)

    async def happen(self, machine: Machine) -> None:
        await machine.supervisor.refresh(["app"])


class Reload(Living):
    """Profiles are added, removed, moved and changed by one new configuration."""

    name = "reload"
    takes: ClassVar = SEEN + GRACE  # then what was removed has been deleted
    from_start: ClassVar = True
    files: ClassVar = {
        "same": ("run/same.token",),
        "gone": ("run/gone.token", "other/gone.json"),
        "kept": ("run/kept.token",),
        "moved": ("run/moved.token", "run/moved.json", "other/moved.token"),
        "asking": ("run/asking.token",),
    }
    later: ClassVar = {
        "same": ("run/same.token",),
        "moved": ("run/moved2.token", "other/moved2.json"),
        "asking": ("run/asking.token",),
        "new": ("run/new.token", "other/new.token"),
    }
    further: ClassVar = {"kept": 'on_removal = "keep"'}
    formats: ClassVar = _formats(files, later)
    either: ClassVar = (("run/moved.token", "run/moved2.token"), ("other/moved.token", "other/moved2.json"))

    def announce(self, machine: Machine) -> None:
        config = machine.directory / "config.toml"
        before = config.read_text()
        self.configure(machine, self.later)
        machine.write("config.toml.next", config.read_text().replace("api://asking/", "api://asks-otherwise/"))
        machine.write("config.toml", before)


class SlowReload(Reload):
    """The same on a disk on which each step takes longer than the agent waits before it saves what it knows."""

    name = "slow-reload"
    from_start: ClassVar = False
    disk_takes: ClassVar = 0.08


class Promotion(Living):
    """A certificate is replaced by a new one, which the provider takes."""

    name = "promotion"
    formats: ClassVar = _formats(Living.files)

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._new = make_certificate("app", pool_key(1), not_after=virtual.START + timedelta(days=700))

    def announce(self, machine: Machine) -> None:
        machine.write("app.pem.next", self._new.pem)

    def surround(self, machine: Machine) -> None:
        machine.register(self._new)

    async def happen(self, machine: Machine) -> None:
        apply(machine.directory / "app.pem")

    def over(self, machine: Machine) -> None:
        machine.unregister_all()
        machine.register(self._new)
        machine.write("app.pem.next", self._new.pem)
        apply(machine.directory / "app.pem")


class Outage(Living):
    """The provider cannot be reached: nothing but what is known of the profile changes."""

    name = "outage"
    formats: ClassVar = _formats(Living.files)

    async def happen(self, machine: Machine) -> None:
        machine.provider.fault("drop", None)
        await machine.supervisor.refresh(["app"])
