"""The running state and its copy on disk: saved soon after a change, tried again after a failure, read at the start."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from agent import state, status
from agent.config.model import AgentSettings
from agent.engine import board
from agent.engine.board import Board
from agent.workers import Workers
from tests import sink_helpers as helpers
from tests import virtual
from tests.engine_helpers import Recorder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from datetime import datetime
    from pathlib import Path

START = virtual.START
RECORD = state.Record("identity", "00ff", "Bearer", START, START + timedelta(hours=1), None, ("/run/a",), "delete")


@pytest.fixture
def ground() -> Iterator[Path]:
    with helpers.ground() as path:
        for name in ("run", "state"):
            helpers.directory(path / name)
        yield path


class Clock(virtual.VirtualClock):
    """A clock that counts how often it is asked."""

    asked = 0

    def now(self) -> datetime:
        self.asked += 1
        return super().now()


class Desk:
    """A board with its clock, its log and its files."""

    def __init__(self, ground: Path, loop: virtual.VirtualLoop) -> None:
        self.clock = Clock(loop)
        self.log = Recorder(self.clock)
        self.workers = Workers(1)
        loop.workers.append(self.workers)
        self.board = self.new_board(ground, "/etc/token-agent/config.toml")
        self.status_path, self.state_path = ground / "run" / "status.json", ground / "state" / "state.json"

    def new_board(self, ground: Path, config: str) -> Board:
        """Return the board of an agent with a configuration."""
        settings = AgentSettings(runtime_dir=ground / "run", state_dir=ground / "state")
        log: Any = self.log  # it does what the board asks of a logger
        return Board(status.AgentStatus("1.0", 1, START, config), settings, self.clock, log)

    def names(self) -> list[str]:
        """The profiles in the file that `status` reads."""
        return [entry["name"] for entry in json.loads(self.status_path.read_text())["profiles"]]

    def restored(self) -> dict[str, state.Record]:
        """What the next start would know."""
        return state.parse(self.state_path.read_bytes())


def run(ground: Path, work: Callable[[Desk], Awaitable[None]], *, saving: bool = True) -> Desk:
    """Work with a board in virtual time; while ``saving`` it keeps itself saved."""

    async def main(loop: virtual.VirtualLoop) -> Desk:
        desk = Desk(ground, loop)
        async with anyio.create_task_group() as tasks:
            if saving:
                tasks.start_soon(desk.board.keep_saved, desk.workers)
            await work(desk)
            tasks.cancel_scope.cancel()
        return desk

    return virtual.run(main)


def kept(desk: Desk) -> state.Record:
    """Return the record as the board keeps it: with the configuration it belongs to."""
    return replace(RECORD, config=desk.board.agent.config_path)


def test_a_change_is_on_disk_soon(ground: Path) -> None:
    """Within a fifth of a second what changed is in both files, with their modes."""

    async def work(desk: Desk) -> None:
        desk.board.update("graph", expires_at=START)
        desk.board.remember("graph", RECORD)
        await anyio.sleep(0.2)
        assert desk.names() == ["graph"]
        assert desk.restored() == {"graph": kept(desk)}
        desk.board.update("vault", expires_at=START)
        await anyio.sleep(0.2)
        assert desk.names() == ["graph", "vault"]

    desk = run(ground, work)
    assert (helpers.mode_of(desk.status_path), helpers.mode_of(desk.state_path)) == (0o644, 0o600)


def test_every_kind_of_change_is_saved(ground: Path) -> None:
    """Profiles, their order, records, the agent itself and what is forgotten all reach the disk."""

    async def work(desk: Desk) -> None:
        changes: list[Callable[[], Any]] = [
            lambda: desk.board.update("a"),
            lambda: desk.board.update("b", consecutive_failures=1),
            lambda: desk.board.arrange(["b", "a", "unknown"]),
            lambda: desk.board.remember("a", RECORD),
            lambda: desk.board.update_agent(config_error="bad"),
            lambda: desk.board.forget("b"),
            lambda: desk.board.forget("unknown"),
        ]
        seen = []
        for change in changes:
            change()
            await anyio.sleep(0.2)
            seen.append((desk.status_path.read_bytes(), desk.state_path.read_bytes()))
        assert len(set(seen[:6])) == 6
        assert seen[6] == seen[5]
        document = json.loads(desk.status_path.read_text())
        assert document["agent"]["config"]["error"] == "bad"
        assert desk.names() == ["a"]

    run(ground, work)


def test_a_change_leaves_the_rest_as_it_is(ground: Path) -> None:
    """An update changes the fields it names; those of other profiles and its own others stay."""

    async def work(desk: Desk) -> None:
        desk.board.update("a", consecutive_failures=3, expires_at=START)
        desk.board.update("a", consecutive_failures=0)
        assert desk.board.profiles == {"a": status.ProfileStatus("a", expires_at=START)}
        with pytest.raises(TypeError):
            desk.board.update("a", no_such_field=1)

    run(ground, work)


def test_a_burst_of_changes_is_saved_together(ground: Path) -> None:
    """A thousand changes within a second cost a handful of writes, and the last one is on disk."""

    async def work(desk: Desk) -> None:
        versions = set()
        for number in range(1000):
            desk.board.update("graph", consecutive_failures=number)
            await anyio.sleep(0.001)
            if desk.status_path.exists():
                versions.add(helpers.stamp(desk.status_path))
        await anyio.sleep(0.2)
        assert 1 < len(versions) <= 25
        assert json.loads(desk.status_path.read_text())["profiles"][0]["consecutive_failures"] == 999

    run(ground, work)


def test_time_alone_writes_nothing(ground: Path) -> None:
    """A day in which nothing happens leaves both files untouched."""

    async def work(desk: Desk) -> None:
        desk.board.update("graph")
        await anyio.sleep(1)
        before = (helpers.stamp(desk.status_path), helpers.stamp(desk.state_path))
        await anyio.sleep(86400)
        assert (helpers.stamp(desk.status_path), helpers.stamp(desk.state_path)) == before

    run(ground, work)


@pytest.mark.parametrize("broken", ["run", "state"])
def test_a_disk_that_fails_costs_its_own_file_only_and_for_a_while(ground: Path, broken: str) -> None:
    """While one file cannot be written the other is; it is said once; and when it can be, it is, unasked."""
    (ground / broken).chmod(0o777)

    async def work(desk: Desk) -> None:
        for number in range(3):
            desk.board.update("graph", consecutive_failures=number)
            desk.board.remember("graph", RECORD)
            await anyio.sleep(60)
        failing, other = desk.status_path, desk.state_path
        if broken == "state":
            failing, other = other, failing
        assert other.exists()
        assert not failing.exists()
        (event,) = desk.log.named("state.unsaved")
        assert str(ground / broken) in event["message"]
        assert event["hint"]
        (ground / broken).chmod(0o755)
        await anyio.sleep(board.RETRY_INTERVAL.total_seconds() + 1)
        assert failing.exists()
        (ground / broken).chmod(0o777)
        desk.board.update("graph", consecutive_failures=99)
        desk.board.remember("graph", replace(RECORD, token_sha256="11"))
        await anyio.sleep(1)
        assert len(desk.log.named("state.unsaved")) == 2  # it had worked in between

    run(ground, work)


def test_a_disk_that_fails_is_not_hammered(ground: Path) -> None:
    """In an hour of failing to save, it is tried again every ten seconds, not more often."""
    (ground / "run").chmod(0o777)

    async def work(desk: Desk) -> None:
        desk.board.update("graph")
        before = desk.clock.asked
        await anyio.sleep(3600)
        assert 360 <= desk.clock.asked - before <= 360 * 5  # a few times for each attempt

    run(ground, work)


def test_the_next_start_knows_the_records(ground: Path) -> None:
    """What one board saved, the next one restores."""

    async def save(desk: Desk) -> None:
        desk.board.remember("graph", RECORD)
        assert await desk.board.save(desk.workers)

    async def restore(desk: Desk) -> None:
        await desk.board.restore(desk.workers)
        assert desk.board.records == {"graph": kept(desk)}
        assert desk.log.events == []

    run(ground, save, saving=False)
    run(ground, restore, saving=False)


def test_agents_that_share_a_state_directory_leave_each_others_records_alone(ground: Path) -> None:
    """Two boards of other configurations save in turn; each file holds what both have, as it was last."""

    async def work(desk: Desk) -> None:
        other = desk.new_board(ground, "/etc/other.toml")
        await desk.board.restore(desk.workers)
        await other.restore(desk.workers)
        desk.board.remember("graph", RECORD)
        assert await desk.board.save(desk.workers)
        other.remember("mail", RECORD)
        assert await other.save(desk.workers)
        assert set(desk.restored()) == {"graph", "mail"}
        later = replace(RECORD, token_sha256="f" * 64)
        desk.board.remember("graph", later)
        other.forget("mail")
        other.remember("post", RECORD)
        assert await other.save(desk.workers)
        assert await desk.board.save(desk.workers)
        assert set(desk.restored()) == {"graph", "post"}
        assert desk.restored()["graph"].token_sha256 == later.token_sha256
        assert desk.restored()["post"].config == "/etc/other.toml"
        desk.board.forget("graph")
        assert await desk.board.save(desk.workers)
        assert await other.save(desk.workers)
        assert set(desk.restored()) == {"post"}

    run(ground, work, saving=False)


def test_records_that_could_not_be_read_are_not_written_over(ground: Path) -> None:
    """What a start cannot read, of gone profiles too, is there for the next one; what came since is there as well."""

    async def work(desk: Desk) -> None:
        before = state.render({"gone": kept(desk), "graph": kept(desk)})
        os.mkfifo(desk.state_path)  # nobody can read it, not even root
        await desk.board.restore(desk.workers)
        (event,) = desk.log.named("state.unusable")
        assert "not written over" in event["hint"]
        newer = replace(kept(desk), token_sha256="f" * 64)
        desk.board.remember("graph", newer)
        assert not await desk.board.save(desk.workers)
        desk.state_path.unlink()
        desk.state_path.write_bytes(before)
        for _ in range(2):
            assert await desk.board.save(desk.workers)
            assert desk.restored() == {"gone": kept(desk), "graph": newer}

    run(ground, work, saving=False)


def test_more_records_than_can_be_read_are_not_written(ground: Path) -> None:
    """That a next start would know nothing is said when it happens, not then."""

    async def work(desk: Desk) -> None:
        desk.board.remember("graph", RECORD)
        assert await desk.board.save(desk.workers)
        paths = tuple(f"/{number:04}{'x' * 4000}" for number in range(state.LARGEST // 4000))
        desk.board.remember("graph", replace(RECORD, paths=paths))
        assert not await desk.board.save(desk.workers)
        assert desk.restored() == {"graph": kept(desk)}
        assert "larger than" in desk.log.named("state.unsaved")[0]["message"]

    run(ground, work, saving=False)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 9, "profiles": {}}', b"\xff" * 10])
def test_a_damaged_state_is_said_and_done_without(ground: Path, content: bytes) -> None:
    """A state file that cannot be used is named in the log, and nothing of it is believed."""
    (ground / "state" / "state.json").write_bytes(content)

    async def restore(desk: Desk) -> None:
        await desk.board.restore(desk.workers)
        assert desk.board.records == {}
        (event,) = desk.log.named("state.unusable")
        assert event["path"] == str(desk.state_path)
        assert event["message"]
        assert event["hint"]

    run(ground, restore, saving=False)


def test_without_a_state_nothing_is_said(ground: Path) -> None:
    """The first start finds no state file, which is no trouble; one that is no file, or enormous, is."""

    async def restore(desk: Desk) -> None:
        await desk.board.restore(desk.workers)
        assert (desk.board.records, desk.log.events) == ({}, [])
        desk.state_path.mkdir()
        await desk.board.restore(desk.workers)
        assert len(desk.log.named("state.unusable")) == 1

    run(ground, restore, saving=False)
