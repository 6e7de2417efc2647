"""Every way in which tools and people replace files, met by the whole agent: each time the new content is in force.

The deeds are those of `test_watch_replacing`. Here they are done to certificates, keys, passwords, secrets, CA files
and configurations, under the real engine with real files, the real watcher and real time, and what counts is what the
agent does then: a token acquired with that certificate, a token file of that name. With an hour between comparisons
it is an event that brings it about; where there is none, the comparison does, each second.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import uuid
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread
import pytest

from agent.commands import assembly
from agent.engine.loading import Loader
from agent.engine.supervisor import Supervisor
from agent.errors import AgentError
from tests import emulator_helpers
from tests import test_watch_replacing as deeds
from tests.certificate_helpers import make_certificate, pool_key
from tests.process_helpers import PATIENCE, current_certificate, scene, start
from tests.watch_helpers import maker, skip, unshared

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from tests.emulator_helpers import Handle
    from tests.test_watch_replacing import Scenario

HOUR, SECOND = "1h", "1s"
FEW: list[Scenario] = [
    deeds.in_place, deeds.in_chunks, deeds.renamed_over, deeds.deleted_and_created, deeds.deleted_and_created_later,
    deeds.link_retargeted, deeds.kubernetes, deeds.certbot, deeds.directory_renamed, deeds.directory_recreated,
    deeds.missing_with_directories,
]  # fmt: skip
"""For what is watched like a certificate, and taken in by the same step."""


class Log:
    """A logger that keeps what it is told, and tells who waits for something."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._news = anyio.Event()

    def record(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})
        self._news.set()
        self._news = anyio.Event()

    debug = info = warning = error = record

    def named(self, *names: str, since: int = 0, **fields: Any) -> list[dict[str, Any]]:
        """Return the events of these names and fields, the first so many left out."""
        return [event for event in self.events[since:] if event["event"] in names and fields.items() <= event.items()]

    async def reloaded(self, since: int) -> None:
        """Wait until everything was read again."""
        await self.until(lambda: bool(self.named("config.loaded", "config.rejected", since=since)), "reload")

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition, which can become true only together with an event."""
        with anyio.move_on_after(PATIENCE):
            while not condition():
                await self._news.wait()
            return
        raise AssertionError(f"no {what}; the last events: {self.events[-6:]}")


class Subject:
    """One agent, and one file that decides what it does.

    ``contents`` are all that the file was ever given, with what each of them brings about: a number, a thumbprint.
    """

    lines: str
    """TOML of the profile's credential; {path} is the file."""
    needed = False
    """Whether no agent starts without the file."""

    def __init__(self, directory: Path, provider: Handle, rescan_interval: str = HOUR) -> None:
        self.directory, self.provider, self.rescan_interval = directory, provider, rescan_interval
        self.client_id = str(uuid.uuid4())
        self.contents: dict[str, str] = {}
        self.log = Log()
        self.supervisor: Supervisor
        self._numbers = count()

    def make(self) -> str:
        """Return the next content, and see to it that the provider will take it."""
        raise NotImplementedError

    async def in_force(self, effect: str, since: int) -> None:
        """Return when the agent does what a content brings about, going by the events after the first so many."""
        raise NotImplementedError

    def agent_lines(self) -> str:
        return (
            f'[agent]\nruntime_dir = "{self.directory}/run"\nstate_dir = "{self.directory}/state"\n'
            f'rescan_interval = "{self.rescan_interval}"\n'
        )

    def profile_lines(self, more: str) -> str:
        return (
            f'[[profile]]\nname = "app"\nauthority = "{self.provider.authority}"\n'
            f'scopes = "api://app/.default"\n{more}\nclient_id = "{self.client_id}"\n'
        )

    def config(self, path: Path) -> Path:
        """Write the configuration of an agent that uses the file, and return its path."""
        lines = self.lines.format(path=path, directory=self.directory, ca_file=self.provider.ca_file)
        config = self.directory / "config.toml"
        config.write_text(self.agent_lines() + self.profile_lines(lines))
        return config

    @asynccontextmanager
    async def running(self, config: Path) -> AsyncIterator[None]:
        """Run the agent, all of it but the log."""
        loader = Loader(config, {})
        loaded = loader.config()
        send, receive = anyio.create_memory_object_stream[signal.Signals](1)
        with assembly.engine(loaded, "run") as assembled:
            services = dataclasses.replace(assembled, log=cast("Any", self.log))
            self.supervisor = Supervisor(services, loaded, loader)
            async with send, receive, anyio.create_task_group() as tasks:
                tasks.start_soon(self.supervisor.run, receive)
                yield
                await send.send(signal.SIGTERM)


class Certificate(Subject):
    """A file with certificate and key: a token is acquired with each, which is promoted for that."""

    lines = 'certificate = "{path}"\nca_file = "{ca_file}"'

    def make(self) -> str:
        pair = current_certificate(number=next(self._numbers) % 2)
        self.provider.register(self.client_id, pair)
        content = pair.pem.decode().ljust(4000, "\n")  # always of the same length
        self.contents[content] = pair.thumbprint
        return content

    async def in_force(self, effect: str, since: int) -> None:
        def written() -> bool:
            acquired = self.log.named("token.acquired", since=since, thumbprint=effect)
            known = {event["token_sha256"] for event in acquired}
            return any(event["token_sha256"] in known for event in self.log.named("token.written", since=since))

        await self.log.until(written, f"token of {effect}")
        if {event["thumbprint"] for event in self.log.named("token.acquired")} - {effect}:
            assert self.log.named("certificate.promoted", since=since, thumbprint=effect)
        assert not self.log.named("certificate.rejected", thumbprint=effect)


class Key(Certificate):
    """The key alone; its certificate was exchanged a moment before, and did not match until now."""

    lines = 'certificate = {{ path = "{directory}/app.crt", key = "{path}" }}\nca_file = "{ca_file}"'

    def make(self) -> str:
        pair = current_certificate(number=next(self._numbers) % 2)
        self.provider.register(self.client_id, pair)
        replace(self.directory / "app.crt", pair.cert_pem)
        content = pair.key_pem.decode().ljust(2000, "\n")
        self.contents[content] = pair.thumbprint
        return content


class Password(Certificate):
    """The password of a PFX file, which was exchanged a moment before."""

    lines = 'certificate = {{ path = "{directory}/app.pfx", password_file = "{path}" }}\nca_file = "{ca_file}"'

    def make(self) -> str:
        pair, content = current_certificate(), f"password {next(self._numbers):08}\n"
        self.provider.register(self.client_id, pair)
        replace(self.directory / "app.pfx", pair.pfx(content.strip().encode()))
        self.contents[content] = pair.thumbprint
        return content


class ClientSecret(Subject):
    """A client secret, with which a token is acquired anew; the provider knows the latest one only."""

    lines = 'client_secret_file = "{path}"\nca_file = "{ca_file}"'

    def make(self) -> str:
        content = f"secret {next(self._numbers):08}"
        self.contents[content] = content
        self.provider.unregister(self.client_id)
        self.provider.register(self.client_id, secret=content)
        return content

    async def in_force(self, effect: str, since: int) -> None:
        await self.log.reloaded(since)  # the file is read at each use, so there may be a token before
        await self.log.until(lambda: bool(self.log.named("token.written", since=since)), f"token with {effect}")


class CaFile(Subject):
    """Whom to trust: by turns an authority that the provider has not, and the one it has."""

    lines = 'certificate = "{directory}/app.pem"\nca_file = "{path}"'

    def make(self) -> str:
        number = next(self._numbers)
        pair = current_certificate()
        if number == 0:
            self.provider.register(self.client_id, pair)
            replace(self.directory / "app.pem", pair.pem)
        stranger = make_certificate("Stranger", pool_key(1), ca=True).cert_pem.decode()
        content = (self.provider.ca_file.read_text() if number % 2 else stranger).ljust(4000) + f"\n# {number}\n"
        self.contents[content] = "right" if number % 2 else "wrong"
        return content

    async def in_force(self, effect: str, since: int) -> None:
        await self.log.reloaded(since)
        error = (await self.supervisor.refresh(["app"]))["app"].error
        assert (error.kind if error else "right") == ("right" if effect == "right" else "transient"), error


class Configuration(Subject):
    """The configuration itself: each names another token file, which is there a moment later."""

    needed = True

    def make(self) -> str:
        if not self.contents:
            pair = current_certificate()
            self.provider.register(self.client_id, pair)
            replace(self.directory / "app.pem", pair.pem)
        name = f"{next(self._numbers):08}.token"
        more = f'token_file = "{name}"\nca_file = "{self.provider.ca_file}"\ncertificate = "{self.directory}/app.pem"'
        content = self.top() + self.profile_lines(more)
        self.contents[content] = name
        return content

    def top(self) -> str:
        return self.agent_lines()

    def config(self, path: Path) -> Path:
        return path

    async def in_force(self, effect: str, since: int) -> None:
        path = self.directory / "run" / effect
        await self.log.until(lambda: bool(self.log.named("token.written", since=since, path=str(path))), effect)
        assert path.exists()


class Included(Configuration):
    """A file that the configuration includes if it is there: without it there is no profile."""

    needed = False

    def top(self) -> str:
        return ""

    def config(self, path: Path) -> Path:
        pattern = f"{path.parent}/{path.name[:-1]}?"
        config = self.directory / "config.toml"
        config.write_text(f'{self.agent_lines()}include = ["{pattern}"]\n')
        return config


def replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_bytes(content)
    temporary.replace(path)


KINDS = (Certificate, Configuration, Key, Password, ClientSecret, CaFile, Included)


# ---- the play


async def play(subject: Subject, scenario: Scenario) -> None:
    """Make each change of a scenario, and wait until the agent has noticed it and a whole content is in force."""
    steps = Steps(subject, scenario)
    async with subject.running(subject.config(steps.path)):
        await subject.log.until(lambda: bool(subject.log.named("agent.started")), "start")
        await steps.noticed(0)
        changes = 0
        while True:
            since = len(subject.log.events)
            if not await anyio.to_thread.run_sync(steps.take):
                break
            await steps.noticed(since)
            changes += 1
    assert changes >= 2, "a scenario does everything twice"


class Steps:
    """The changes of a scenario, to the file of a subject."""

    def __init__(self, subject: Subject, scenario: Scenario) -> None:
        maker.set(subject.make)
        self._subject = subject
        self._steps = scenario(subject.directory / "root")
        (subject.directory / "root").mkdir()
        self.path = next(self._steps)
        while not self.path.exists() and (subject.needed or self.path.is_symlink()):
            next(self._steps)

    def take(self) -> bool:
        """Make the next change; return whether there was one."""
        return next(self._steps, None) is not None

    async def noticed(self, since: int) -> None:
        """Wait until what the file holds is in force; if it holds nothing whole, until the agent has seen that."""
        content = await anyio.to_thread.run_sync(self._read)
        if effect := self._subject.contents.get(content):
            await self._subject.in_force(effect, since)
        elif since:
            await self._subject.log.reloaded(since)

    def _read(self) -> str:
        try:
            return self.path.read_text()
        except OSError:
            return ""


Part = tuple[type[Subject], "Scenario", str]
PARTS: list[Part] = [
    *((Certificate, scenario, HOUR) for scenario in deeds.HEARD),
    *((Configuration, scenario, HOUR) for scenario in deeds.HEARD if scenario != deeds.missing_at_first),
    *((kind, scenario, HOUR) for kind in (Key, Password, ClientSecret, CaFile, Included) for scenario in FEW),
    *((Included, scenario, HOUR) for scenario in (deeds.missing_at_first, deeds.link_to_what_is_missing)),
    *((kind, scenario, SECOND) for kind in KINDS for scenario in deeds.UNHEARD),
]
Outcomes = dict[Part, Exception | None]


def name_of(part: Part) -> str:
    return f"{part[0].__name__}-{part[1].__name__}"


def play_all(parts: Iterable[Part], directory: Callable[[Part], Path]) -> Outcomes:
    """Play all parts at once, each with an agent of its own: most of it is waiting."""
    found: Outcomes = {}

    async def try_out(part: Part, provider: Handle) -> None:
        kind, scenario, rescan_interval = part
        try:
            await play(kind(directory(part), provider, rescan_interval), scenario)
        except (ExceptionGroup, AssertionError, AgentError, OSError) as error:
            found[part] = error
        else:
            found[part] = None

    async def main() -> None:
        with emulator_helpers.running() as provider:
            async with anyio.create_task_group() as tasks:
                for part in parts:
                    tasks.start_soon(try_out, part, provider)

    anyio.run(main)
    return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return play_all(PARTS, lambda part: tmp_path_factory.mktemp(name_of(part)))


@pytest.mark.parametrize("part", PARTS, ids=name_of)
def test_every_way(part: Part, outcomes: Outcomes) -> None:
    """Replaced in this way, the second time like the first, the new content is in force without a restart."""
    if outcome := outcomes[part]:
        raise outcome


def test_mounts(tmp_path: Path) -> None:
    """Certificate and configuration below a mount that comes and goes, and in the lower part of another: each twice."""
    if os.geteuid():
        skip("needs root: in a namespace of users / belongs to nobody else's root, and so to a stranger")
    unshared(["mount"], "agents_and_mounts", tmp_path)


def test_included_files_come_and_go(tmp_path: Path) -> None:
    """A file that appears among the included ones brings its profile and takes it along, each time, by events alone."""
    (tmp_path / "conf.d").mkdir()
    included = tmp_path / "conf.d" / "extra.toml"
    with scene(tmp_path) as stage:
        (tmp_path / "out" / "base").mkdir(parents=True)
        elsewhere = stage.profile(token_file=tmp_path / "out" / "base" / "graph.token")
        config = stage.config(elsewhere, include=["conf.d/*.toml"], rescan_interval="1h")
        with start("run", "--config", config) as agent:
            agent.wait_for("agent.started")
            for number in range(2):
                token_file = tmp_path / "new" / str(number) / "extra.token"
                token_file.parent.mkdir(parents=True)
                lines = [f"{key} = {json.dumps(str(value))}" for key, value in stage.profile("extra").items()]
                replace(included, "\n".join(["[[profile]]", *lines, f'token_file = "{token_file}"']).encode())
                agent.wait_for("config.loaded", added=["extra"])
                agent.wait_for("token.written", path=str(token_file))
                token = token_file.read_text()
                token_file.unlink()  # in a directory that is watched since a moment ago
                agent.wait_for("output.repaired", path=str(token_file))
                assert token_file.read_text() == token
                included.unlink()
                agent.wait_for("config.loaded", removed=["extra"])
                agent.wait_for("token.deleted", path=str(token_file))
                assert not token_file.exists()
        assert stage.token_requests == 3
