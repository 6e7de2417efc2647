"""Token files that somebody else has touched are put right, without an acquisition and without a fight."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

from tests import virtual
from tests.engine_helpers import World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MINUTE = 60.0


def _alter(path: Path) -> None:
    path.write_text("nonsense")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _replace_by_a_link(path: Path) -> None:
    path.unlink()
    path.with_name("elsewhere").write_text("secret of somebody else")
    path.symlink_to("elsewhere")


DEEDS: dict[str, Callable[[Path], None]] = {
    "deleted": lambda path: path.unlink(),
    "altered": _alter,
    "emptied": _empty,
    "chmodded": lambda path: path.chmod(0o644),
    "chowned": lambda path: os.chown(path, 12345, 12345),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_what_was_done_is_undone(tmp_path: Path, deed: str) -> None:
    """A file that is deleted, altered, emptied, chmodded or chowned is as before within two seconds, twice."""
    if deed == "chowned" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(MINUTE)
            path, before = tmp_path / "run" / "app.token", world.token()
            for times in (1, 2):
                DEEDS[deed](path)
                await anyio.sleep(11)  # by the scan at the latest; the events of a real disk take no virtual time
                assert path.read_text() == before
                status = path.stat()
                assert (status.st_mode & 0o7777, status.st_uid) == (0o600, os.geteuid())
                assert len(world.log.named("output.repaired")) == times
        assert len(world.requests()) == 1

    virtual.run(main)


def test_a_link_in_its_place_is_left_and_named(tmp_path: Path) -> None:
    """A symbolic link that somebody put in the file's place is never written through; the profile says so."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(MINUTE)
            path = tmp_path / "run" / "app.token"
            _replace_by_a_link(path)
            await anyio.sleep(11)
            assert "symbolic link" in world.log.named("output.unrepaired")[0]["message"]
            assert path.with_name("elsewhere").read_text() == "secret of somebody else"
            shown = world.state()
            assert (shown["state"], shown["last_error"]["kind"]) == ("degraded", "output")
            await anyio.sleep(MINUTE)
            assert len(world.log.named("output.unrepaired")) == 1
            assert not world.log.named("output.contested")
            path.unlink()
            await anyio.sleep(11)
            assert world.state()["state"] == "fresh"
            assert world.token()

    virtual.run(main)


def test_a_profile_that_is_restarted_goes_on_being_watched(tmp_path: Path) -> None:
    """While `refresh` restarts the only profile, whoever asks which files to watch is told of its file."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running() as supervisor, anyio.create_task_group() as tasks:
            await anyio.sleep(MINUTE)
            before = supervisor._crew.keepers
            tasks.start_soon(supervisor.refresh, ["app"])
            while supervisor._crew.keepers == before:
                assert supervisor._guard._files()
                await anyio.lowlevel.checkpoint()
            assert supervisor._guard._files()
        assert len(world.requests()) == 2

    virtual.run(main)


def test_a_fight_is_given_up_slowly(tmp_path: Path) -> None:
    """A program that changes the file every second is named once, and repaired ever more rarely."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(agent='rescan_interval = "1s"')
        async with world.running():
            await anyio.sleep(MINUTE)
            path = tmp_path / "run" / "app.token"
            for _ in range(300):
                path.write_text("mine")
                await anyio.sleep(1)
            assert len(world.log.named("output.contested")) == 1
            assert 5 < len(world.log.named("output.repaired")) < 60
            await anyio.sleep(2 * MINUTE)
            assert path.read_text() != "mine"

    virtual.run(main)


def test_what_cannot_be_put_right_is_tried_ever_more_rarely(tmp_path: Path) -> None:
    """A file that cannot be written is tried again after one second at first, and after ten in the end."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(agent='rescan_interval = "1s"')
        async with world.running():
            await anyio.sleep(MINUTE)
            path = tmp_path / "run" / "app.token"
            _replace_by_a_link(path)
            tried = set()
            for _ in range(300):
                await anyio.sleep(1)
                if error := world.state()["last_error"]:
                    tried.add(error["at"])
            assert 20 < len(tried) < 50
            path.unlink()
            await anyio.sleep(11)
            assert world.token()

    virtual.run(main)


def test_a_removed_profile_is_not_brought_back(tmp_path: Path) -> None:
    """The guard never writes a file of a profile that has left the configuration."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two", agent='rescan_interval = "1s"')
        async with world.running():
            await anyio.sleep(MINUTE)
            world.configure("one", agent='rescan_interval = "1s"')
            await anyio.sleep(3)
            (tmp_path / "run" / "two.token").unlink()  # before it goes by itself
            await anyio.sleep(10)
            assert world.token("two") is None
            assert not world.log.named("output.repaired")

    virtual.run(main)


def test_a_file_that_is_deleted_when_it_has_just_come(tmp_path: Path) -> None:
    """Nobody takes a file for one that never was: deleted right after it was written for the first time, it is back."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        world.provider.fault("drop", None)
        async with world.running():
            await anyio.sleep(MINUTE)  # the place of the file was looked at many times
            assert world.token() is None
            world.provider.recover()
            while world.token() is None:  # noqa: ASYNC110 - virtual time
                await anyio.sleep(0.01)
            (tmp_path / "run" / "app.token").unlink()
            await anyio.sleep(11)
            assert world.token()

    virtual.run(main)


def test_patient_edits_are_no_fight(tmp_path: Path) -> None:
    """A file that is deleted now and then is put right at once, every time."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(agent='rescan_interval = "1s"')
        async with world.running():
            await anyio.sleep(MINUTE)
            for _ in range(20):
                (tmp_path / "run" / "app.token").unlink()
                await anyio.sleep(8)
                assert world.token()
            assert not world.log.named("output.contested")

    virtual.run(main)
