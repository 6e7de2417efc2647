"""Profiles that vanish from the configuration on disk for a moment keep their token files, and need no new tokens."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from tests import virtual
from tests.engine_helpers import World

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = 60.0
QUICK = 'rescan_interval = "1s"'


@pytest.mark.parametrize("pause", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("outage", [False, True])
def test_half_a_configuration_for_a_moment(tmp_path: Path, pause: float, *, outage: bool) -> None:
    """Who writes a configuration in two parts with a pause in between takes no token from anybody, outage or not."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two", agent=QUICK)
        async with world.running():
            await anyio.sleep(MINUTE)
            before = world.token("two")
            if outage:
                world.provider.fault("drop", None)
            whole = (tmp_path / "config.toml").read_text()
            half = whole[: whole.rindex("[[profile]]")]
            end = loop.elapsed + pause
            (tmp_path / "config.toml").write_text(half)
            while loop.elapsed < end:
                await anyio.sleep(0.1)
                assert world.token("two") == before
            (tmp_path / "config.toml").write_text(whole)
            for _ in range(300):
                await anyio.sleep(0.1)
                assert world.token("two") == before
            assert world.state("two")["state"] == "fresh"
            assert len(world.requests()) == 2
        assert not world.log.named("token.deleted")

    virtual.run(main)


def test_what_is_left_of_a_microsecond_is_waited_for(tmp_path: Path) -> None:
    """However little is left when the wait is disturbed, it comes to its end."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two", agent=QUICK)
        async with world.running():
            for number in range(10):
                await anyio.sleep(MINUTE)
                world.configure("one", agent=QUICK)
                await anyio.sleep(3 + number * 0.1234567)
                world.clock.step(timedelta(0))
                await anyio.sleep(MINUTE)
                assert world.token("two") is None
                world.configure("one", "two", agent=QUICK)
                await anyio.sleep(MINUTE)
                assert world.token("two")

    virtual.run(main)


def test_a_profile_that_left_is_cleaned_up(tmp_path: Path) -> None:
    """A removal on disk takes the token file within ten seconds; the profile itself is gone at once."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two", "three", agent=QUICK)
        async with world.running():
            await anyio.sleep(MINUTE)
            world.configure("one", "two", agent=QUICK)
            await anyio.sleep(2.5)
            assert set(world.services.board.profiles) == {"one", "two"}
            world.configure("one", agent=QUICK)
            await anyio.sleep(4.5)
            assert world.token("three") is None
            assert world.token("two")  # each has a time of its own
            await anyio.sleep(5)
            assert world.token("two") is None
            assert set(world.services.board.records) == {"one"}

    virtual.run(main)


def test_who_asks_does_not_wait(tmp_path: Path) -> None:
    """After `reload` what was removed is gone when it answers, also what was removed on disk a moment before."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two", "three", agent=QUICK)
        async with world.running() as supervisor:
            await anyio.sleep(MINUTE)
            world.configure("one", "two", agent=QUICK)
            await anyio.sleep(2)
            assert world.token("three")
            world.configure("one", agent=QUICK)
            await supervisor.reload(reason="asked for")
            assert world.token("two") is None
            assert world.token("three") is None

    virtual.run(main)


def test_the_end_comes_before(tmp_path: Path) -> None:
    """What an agent had no time to clean up the next start does, and takes nothing from a profile that has its path."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two", "three", agent=QUICK)
        async with world.running():
            await anyio.sleep(MINUTE)
            kept = world.token("three")
            world.configure("one", "heir", heir='token_file = "three.token"', agent=QUICK)
            world.provider.fault("drop", None)
            await anyio.sleep(2)
            assert world.token("two")
            assert world.token("three") == kept
        world.provider.recover()
        async with world.running():
            await anyio.sleep(MINUTE)
            assert world.token("two") is None
            assert world.token("three") not in (None, kept)

    virtual.run(main)
