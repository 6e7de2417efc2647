"""No token file ever goes back: where a newer token stands, no older one is put, whatever fails or ends in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from agent.emulator.journal import Journal
from tests import virtual
from tests.engine_helpers import World

if TYPE_CHECKING:
    from pathlib import Path

    from agent.emulator.journal import Entry

MINUTE = 60.0
TWO_FILES = 'token_file = ["first.token", "other/second.token"]'


def texts(world: World) -> list[str]:
    """Return what is in the two files."""
    return [(world.directory / "run" / name).read_text() for name in ("first.token", "other/second.token")]


def configure(world: World, further: str = "") -> None:
    """Write a configuration of one profile with two files, in directories of their own."""
    (world.directory / "run" / "other").mkdir(parents=True, exist_ok=True)
    world.configure(each=f"{TWO_FILES}\n{further}")


async def killed_between_two_files(world: World) -> tuple[str, str]:
    """Leave what an agent leaves that was killed while it wrote a new token; return the new one and the old one."""
    configure(world)
    remembered = world.directory / "state" / "state.json"
    await world.once()
    old, known = texts(world)[0], remembered.read_bytes()
    await world.once(force=True)
    new = texts(world)[0]
    (world.directory / "run" / "other" / "second.token").write_text(old)
    remembered.write_bytes(known)
    world.log.events.clear()
    return new, old


def test_the_next_start_does_not_put_an_older_token_over_a_newer_one(tmp_path: Path) -> None:
    """After a kill between two files the next start acquires a third token, at once, and never writes the first."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        new, old = await killed_between_two_files(world)
        async with world.running():
            await anyio.sleep(MINUTE)
            first, second = texts(world)
            assert first == second
            assert first not in (new, old)
            assert world.state()["state"] == "fresh"
        written = [event["token_sha256"] for event in world.log.named("token.written")]
        assert written == [world.log.named("token.acquired")[0]["token_sha256"]] * 2
        assert not world.log.named("output.repaired")

    virtual.run(main)


def test_both_stay_while_the_provider_is_away(tmp_path: Path) -> None:
    """Until a third token can be had, each file keeps its own, over a reload too; the profile knows the older one."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        new, old = await killed_between_two_files(world)
        world.provider.fault("drop", None)
        async with world.running() as supervisor:
            await anyio.sleep(MINUTE)
            configure(world, 'timeout = "10s"')
            await supervisor.reload(reason="asked for")
            await anyio.sleep(MINUTE)
            assert texts(world) == [new, old]
            assert world.state()["state"] == "degraded"
            world.provider.recover()
            await anyio.sleep(2 * MINUTE)
            first, second = texts(world)
            assert first == second
            assert first not in (new, old)
            (tmp_path / "run" / "other" / "second.token").unlink()
            await anyio.sleep(MINUTE)
            assert texts(world) == [first, first]

    virtual.run(main)


def test_a_file_that_could_be_written_keeps_what_it_has(tmp_path: Path) -> None:
    """While one of two files cannot be written the other keeps the new token: over looks, tries, a reload."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        configure(world)
        second = tmp_path / "run" / "other" / "second.token"
        async with world.running() as supervisor:
            await anyio.sleep(MINUTE)
            second.rename(second.with_name("aside"))
            second.mkdir()
            await anyio.sleep(30 * MINUTE)
            first = tmp_path / "run" / "first.token"
            new = first.read_text()
            assert new != second.with_name("aside").read_text()
            await anyio.sleep(MINUTE)
            configure(world, 'timeout = "10s"')
            await supervisor.reload(reason="asked for")
            await anyio.sleep(MINUTE)
            assert [event["path"] for event in world.log.named("token.written")].count(str(first)) == 2
            assert not world.log.named("output.repaired")
            second.rmdir()
            await anyio.sleep(2 * MINUTE)
            assert texts(world) == [new, new]
            assert world.state()["state"] == "fresh"

    virtual.run(main)


class Witness(Journal):
    """Keeps what was saved when the provider was asked first."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self.saved = path, b""

    def record(self, entry: Entry) -> None:
        self.saved = self.saved or self._path.read_bytes()
        super().record(entry)


@pytest.mark.parametrize("moved", [False, True])
def test_a_kill_right_after_a_first_token_leaves_nothing_behind(tmp_path: Path, *, moved: bool) -> None:
    """Where a token is about to be written is saved before it is: of a profile that goes later, nothing stays."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        remembered, first = tmp_path / "state" / "state.json", tmp_path / "run" / "one.token"
        if moved:  # to a path of which nothing was known until now
            world.configure("one", "two")
            await world.once()
            first = tmp_path / "run" / "elsewhere.token"
        world.configure("one", "two", one=f'token_file = "{first}"')
        world.provider.provider.journal = witness = Witness(remembered)
        await world.once(force=True)
        assert first.exists()
        remembered.write_bytes(witness.saved)  # as if it had been killed before it could save anything more
        world.configure("two")
        await world.once()
        assert sorted(path.name for path in (tmp_path / "run").glob("*.token")) == ["two.token"]

    virtual.run(main)
