"""A token file that does not hold the token, and cannot be made to: nobody is told that it serves, until it does."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from agent import health, metrics, status
from agent.commands import consumer
from agent.errors import ConfigurationError
from tests import virtual
from tests.certificate_helpers import make_certificate, pool_key
from tests.engine_helpers import World
from tests.process_helpers import run, scene, start, wait_for_status
from tests.test_metrics import fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

MINUTE = 60.0
OFTEN = 'rescan_interval = "1s"'
FILES = 'token_file = ["out/one.token", "more/two.token"]'
FIRST = "run/out/one.token"


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.unlink()
    path.with_name("other").write_text("junk")
    path.symlink_to("other")


def _moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("away"))


def _immutable(path: Path) -> None:
    path.write_text("junk")
    assert _chattr("+i", path)


def _chattr(change: str, path: Path) -> bool:
    """Change an attribute of a file; only root can, and not everywhere."""
    tool = shutil.which("chattr")
    return tool is not None and not subprocess.run([tool, change, path], capture_output=True, check=False).returncode


HARMS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "a directory": (_directory, lambda path: path.rmdir()),
    "a pipe": (_pipe, lambda path: path.unlink()),
    "a link": (_link, lambda path: path.unlink()),
    "no directory": (_moved, lambda path: path.parent.with_name("away").rename(path.parent)),
    "immutable": (_immutable, lambda path: _chattr("-i", path)),
}
"""What is done to a token file, and how it is undone."""


class Onlooker:
    """What the world's only profile looks like to all who may ask."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def state(self) -> str:
        """What `status` calls it."""
        return str(self._world.state()["state"])

    @property
    def runway(self) -> int:
        """What `status` says it is."""
        return int(self._world.state()["runway_seconds"])

    @property
    def error(self) -> str:
        """What `status` says is wrong, after its kind."""
        error = self._world.state()["last_error"]
        return f"{error['kind']}: {error['message']}" if error else ""

    @property
    def lacks(self) -> str:
        """What `wait` waits for, by what everybody may read."""
        _, (profile,) = status.parse((self._world.directory / "run" / "status.json").read_bytes())
        return consumer.lacking(profile, None, self._world.clock.now())

    @property
    def readiness(self) -> health.Readiness:
        """What `/readyz` answers."""
        return health.readiness(self._world.services.board.profiles.values(), self._world.clock.now())

    @property
    def expiry(self) -> float | None:
        """What the metric says, if there is one."""
        board = self._world.services.board
        profiles = tuple(board.profiles.values())
        text, _ = metrics.render(
            metrics.Snapshot(board.agent, profiles, board.tally, self._world.clock.now(), kept=True)
        )
        found = {sample.name: sample.value for family in parse(text.decode()) for sample in family.samples}
        return found.get("token_agent_token_expiry_timestamp_seconds")


def story(
    tmp_path: Path, act: Callable[[World, Onlooker], Coroutine[Any, Any, None]], keys: str = FILES, **agent: str
) -> None:
    """Let an agent run in virtual time until its token is on disk, then act on it."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path, start=datetime.now(UTC))  # as the files are
        world.configure(each=keys, **agent)
        for name in ("out", "more"):
            (tmp_path / "run" / name).mkdir(parents=True)
        async with world.running():
            await anyio.sleep(MINUTE)
            await act(world, Onlooker(world))

    virtual.run(main)


@pytest.mark.parametrize("harm", HARMS)
def test_what_cannot_be_put_right_serves_nobody(tmp_path: Path, harm: str) -> None:
    """With one of two files beyond repair nobody is ready and the reason is told; put right, all is as before."""
    do, undo = HARMS[harm]
    if harm == "immutable" and not (_chattr("+i", tmp_path) and _chattr("-i", tmp_path)):
        pytest.skip("no file can be made immutable here")

    async def act(world: World, seen: Onlooker) -> None:
        path = world.directory / FIRST
        until = seen.expiry
        assert until
        do(path)
        await anyio.sleep(11)
        assert (seen.state, seen.runway, seen.expiry) == ("degraded", 0, None)
        assert seen.error.startswith(f"output: {path}: ")
        assert str(path) in seen.lacks
        assert not seen.readiness.ready
        assert str(path) in "".join(seen.readiness.lines)
        written = [file["written_at"] is not None for file in world.state()["token_files"]]
        assert written == [False, True]
        await anyio.sleep(2 * MINUTE)
        assert (seen.runway, seen.expiry) == (0, None)
        undo(path)
        await anyio.sleep(11)
        assert (seen.state, seen.error, seen.expiry, seen.lacks) == ("fresh", "", until, "")
        assert seen.readiness == (True, ())
        assert len(world.requests()) == 1

    try:
        story(tmp_path, act)
    finally:
        if harm == "immutable":
            undo(tmp_path / FIRST)  # or nobody can clear up


def test_a_newer_token_that_cannot_be_written_takes_nothing_away(tmp_path: Path) -> None:
    """As long as each file has a token that is good, it serves: the older one, or the newer one in some of them."""

    async def act(world: World, seen: Onlooker) -> None:
        path = world.directory / FIRST
        until = seen.expiry
        before = path.read_text()
        path.parent.chmod(0o777)  # everybody could write there, so the agent does not
        await anyio.sleep(40 * MINUTE)
        assert len(world.requests()) == 2
        assert (path.read_text(), seen.state) == (before, "degraded")
        assert (tmp_path / "run" / "more" / "two.token").read_text() != before
        assert seen.error.startswith("output: ")
        assert 18 * MINUTE < seen.runway < 20 * MINUTE
        assert (seen.expiry, seen.lacks, seen.readiness.ready) == (until, "", True)
        path.unlink()
        await anyio.sleep(11)
        assert (seen.runway, seen.expiry, seen.readiness.ready) == (0, None, False)
        path.parent.chmod(0o755)
        await anyio.sleep(MINUTE)
        assert (seen.state, seen.lacks) == ("fresh", "")
        assert seen.runway > 35 * MINUTE
        assert len(world.requests()) == 2

    story(tmp_path, act)


def test_a_refusal_survives_a_repair(tmp_path: Path) -> None:
    """That a file was wrong for a while does not hide that the provider refuses."""

    async def act(world: World, seen: Onlooker) -> None:
        path = world.directory / FIRST
        world.unregister_all()
        await anyio.sleep(40 * MINUTE)
        assert seen.error.startswith("rejected: ")
        _directory(path)
        await anyio.sleep(11)
        assert (seen.error.split(":")[0], seen.runway) == ("output", 0)
        path.rmdir()
        await anyio.sleep(11)
        assert seen.error.startswith("rejected: ")
        assert seen.runway

    story(tmp_path, act)


async def _until(happened: Callable[[], bool]) -> None:
    """Let time pass until something has happened."""
    with anyio.fail_after(MINUTE):
        while not happened():  # noqa: ASYNC110 - virtual time
            await anyio.sleep(0.25)


def _contest(path: Path, number: int) -> None:
    path.unlink(missing_ok=True)
    if number % 2:
        path.write_text("mine")


@pytest.mark.parametrize("pause", [1.0, 3.5])
def test_a_fight_is_told(tmp_path: Path, pause: float) -> None:
    """A file that is changed again and again is never called fresh, and while it is wrong it serves nobody."""

    async def act(world: World, seen: Onlooker) -> None:
        path = world.directory / FIRST
        good = path.read_text()
        deeds = itertools.count()
        while not world.log.named("output.contested"):
            _contest(path, next(deeds))
            await anyio.sleep(pause)
        assert next(deeds) < 12
        told = set()
        for _ in range(int(200 / pause)):
            _contest(path, next(deeds))
            for _ in range(4):
                await anyio.sleep(pause / 4)
                told.add((seen.state, seen.error.partition(" keeps changing it; ")[0]))
        assert told == {("degraded", f"output: {path}: another program")}
        await _until(lambda: path.exists() and path.read_text() == good)
        _contest(path, next(deeds))
        await anyio.sleep(2)  # it was seen, and is left like that for a while
        assert (seen.runway, seen.expiry, seen.readiness.ready) == (0, None, False)
        assert str(path) in seen.lacks
        await _until(lambda: seen.lacks == "")
        assert (path.read_text(), seen.state, seen.readiness.ready) == (good, "degraded", True)
        assert seen.runway
        await anyio.sleep(30)
        assert (seen.state, seen.error, seen.lacks, seen.readiness) == ("fresh", "", "", (True, ()))
        assert len(world.log.named("output.contested")) == 1
        assert len(world.requests()) == 1

    story(tmp_path, act, agent=OFTEN)


def test_a_reload_ends_the_waiting(tmp_path: Path) -> None:
    """Whoever asks for a reload, even of a configuration that is refused, has the files put right before the answer."""

    async def act(world: World, seen: Onlooker) -> None:
        path = world.directory / FIRST
        good = path.read_text()
        for _ in range(60):
            path.write_text("mine")
            await anyio.sleep(1)
        for number in range(4):
            await _until(lambda: path.read_text() == good)
            if number == 3:
                world.write("config.toml", "nonsense = [")
            path.write_text("mine")
            await anyio.sleep(2)
            assert (path.read_text(), seen.runway, seen.readiness.ready) == ("mine", 0, False)
            with suppress(ConfigurationError):
                await world.supervisor.reload(reason="asked for")
            assert path.read_text() == good
            assert seen.runway
            assert seen.error.startswith(f"output: {path}: another program")

    story(tmp_path, act, agent=OFTEN)


def test_an_expired_certificate_is_named_every_five_minutes(tmp_path: Path) -> None:
    """A local trouble is tried every ten seconds and said every five minutes; a new file is taken at once."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        gone = make_certificate("gone", not_after=world.clock.now() - timedelta(days=1))
        world.write("app.pem", gone.pem)
        world.configure()
        async with world.running():
            await anyio.sleep(65)
            assert world.state()["consecutive_failures"] >= 6
            assert len(world.log.named("acquisition.failed")) == 1
            await anyio.sleep(8 * MINUTE)
            first, second = world.log.named("acquisition.failed")
            assert 299 <= (second["at"] - first["at"]).total_seconds() <= 311
            (tmp_path / "app.pem").unlink()
            await anyio.sleep(25)
            assert [event["message"] != first["message"] for event in world.log.named("acquisition.failed")[2:]] == [
                True
            ]
            pair = make_certificate("new", pool_key(1), not_after=world.clock.now() + timedelta(days=9))
            world.register(pair)
            world.write("app.pem", pair.pem)
            await anyio.sleep(11)
            assert world.token()

    virtual.run(main)


def test_consumers_of_a_running_agent(tmp_path: Path) -> None:
    """`wait`, `exec`, `/readyz` and metrics say why a file cannot be put right, and succeed once it is."""
    with scene(tmp_path) as stage:
        config = stage.config(metrics_listen="127.0.0.1:0")
        path = tmp_path / "run" / "graph.token"
        with start("run", "--config", config) as agent:
            address = agent.wait_for("metrics.listening")["address"]
            wait_for_status(config, lambda document: document["profiles"][0]["state"] == "fresh")
            _directory(path)
            agent.wait_for("output.unrepaired")
            for command in (["wait", "graph"], ["exec", "graph", "--", "touch", str(tmp_path / "ran")]):
                done = run(*command[:2], "--config", config, "--timeout", "3", *command[2:])
                assert done.returncode == 75, command
                assert f"{path}: it is a directory" in done.stderr
            assert not (tmp_path / "ran").exists()
            code, text = fetch(address, "/readyz")
            assert (code, text.startswith(f"graph: degraded: {path}: it is a directory")) == (503, True)
            assert "token_agent_token_expiry_timestamp_seconds{" not in fetch(address, "/metrics")[1]
            done = run("refresh", "graph", "--config", config)
            assert done.returncode == 78
            assert "is good until" not in done.stderr
            path.rmdir()
            done = run("exec", "graph", "--config", config, "--timeout", "20", "--", "sh", "-c", 'cat "$TOKEN_FILE"')
            assert (done.returncode, done.stdout.count(".")) == (0, 2)
            assert run("wait", "--config", config).returncode == 0
            assert fetch(address, "/readyz")[0] == 200
