"""No token file takes the place of another file, whatever the paths are called: links and mounts are seen through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from agent.output import sink
from agent.output.access import Access
from agent.output.reserved import Reserved, ReservedError
from tests import virtual
from tests.certificate_helpers import make_certificate, written
from tests.engine_helpers import World
from tests.process_helpers import current_certificate, run, write_config

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = 60.0


@pytest.fixture
def alias(tmp_path: Path) -> Path:
    """Another name of the directory: a link in it that leads to itself."""
    link = tmp_path / "alias"
    link.symlink_to(tmp_path)
    return link


def test_another_name_of_a_place_is_refused(tmp_path: Path, alias: Path) -> None:
    """What is somebody's is neither written nor probed nor removed by way of another name, and is by its own."""
    (tmp_path / "mine").write_bytes(b"old")
    (tmp_path / "link").symlink_to("mine")
    places = Reserved()
    places.take(tmp_path / "mine", "the certificate of a", through_links=True)
    places.take(alias / "mine", "a token file of b", through_links=True)
    for path, access in ((alias / "mine", Access()), (tmp_path / "link", Access(follow_symlink=True))):
        with pytest.raises(ReservedError, match=f"leads to {tmp_path}/mine, which is the certificate of a"):
            sink.write(path, b"new", access, reserved=places)
        with pytest.raises(ReservedError):
            sink.probe(path, access, places)
        with pytest.raises(ReservedError):
            sink.remove(path, follow_symlink=access.follow_symlink, reserved=places)
    assert (tmp_path / "mine").read_bytes() == b"old"
    assert sink.write(tmp_path / "mine", b"new", Access(), reserved=places).changed
    assert sink.write(alias / "other", b"new", Access(), reserved=places).changed


def test_a_place_behind_a_link_is_taken_with_it(tmp_path: Path) -> None:
    """A certificate that is a link, as of certbot, keeps its link and what the link leads to."""
    (tmp_path / "archive").mkdir()
    (tmp_path / "live.pem").symlink_to("archive/1.pem")
    places = Reserved()
    places.take(tmp_path / "live.pem", "the certificate of a", through_links=True)
    with pytest.raises(ReservedError):
        sink.write(tmp_path / "archive" / "1.pem", b"new", Access(), reserved=places)


VICTIMS = ("run/status.json", "state/state.json", "run/lock", "run/control.sock", "config.toml", "app.pem", "ca.pem")


@pytest.mark.parametrize("victim", VICTIMS)
def test_the_agent_does_not_overwrite_what_it_needs(tmp_path: Path, alias: Path, victim: str) -> None:
    """A token file that is one of the agent's or the operator's files by another name is an output error, no more."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.write("ca.pem", make_certificate("ca").pem)
        world.configure(each=f'token_file = "{alias}/{victim}"\nca_file = "ca.pem"')
        async with world.running():
            await anyio.sleep(MINUTE)
            error = world.state()["last_error"]
            assert (error["kind"], f"leads to {tmp_path}/{victim}" in error["message"]) == ("output", True)
        path = tmp_path / victim
        assert not path.exists() or b"eyJ" not in path.read_bytes()

    virtual.run(main)


@pytest.mark.parametrize("on_stop", ["keep", "delete"])
def test_two_names_of_one_token_file(tmp_path: Path, alias: Path, on_stop: str) -> None:
    """Of two profiles whose token files are one place the first has it, the other says so and deletes nothing."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("a", "b", b=f'token_file = "{alias}/run/a.token"\non_stop = "{on_stop}"')
        async with world.running():
            await anyio.sleep(MINUTE)
            assert world.state("a")["state"] == "fresh"
            assert "a token file of a" in world.state("b")["last_error"]["message"]
        assert world.token("a")
        results = await world.once()
        assert [results[name].exit_code for name in "ab"] == [0, 78]

    virtual.run(main)


def test_a_token_file_that_gets_another_name_stays(tmp_path: Path, alias: Path) -> None:
    """Where a configuration now calls a token file by another name, the old name's file is not deleted as left over."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running() as supervisor:
            await anyio.sleep(MINUTE)
            assert world.token()
            world.configure(each=f'token_file = "{alias}/run/app.token"')
            await supervisor.reload(reason="test")
            await anyio.sleep(MINUTE)
            assert world.token()
            assert not world.log.named("token.deleted") + world.log.named("token.undeleted")

    virtual.run(main)


@pytest.fixture
def links(tmp_path: Path, alias: Path) -> Path:
    """A configuration whose token files are others' by way of links."""
    written(tmp_path / "app.pem", current_certificate().pem)
    for name in ("run", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("app.pem")
    usual = {
        "client_id": "ace7a10d-aaaa-4a01-8663-1440b6b78cb9",
        "tenant": "contoso.onmicrosoft.com",
        "scopes": "api://x/.default",
        "certificate": tmp_path / "app.pem",
    }
    return write_config(
        tmp_path,
        usual | {"name": "a", "token_file": {"path": tmp_path / "link", "follow_symlink": True}},
        usual | {"name": "b", "token_file": alias / "run" / "status.json"},
        usual | {"name": "c"},
        usual | {"name": "d", "token_file": alias / "run" / "c.token"},
    )


def test_check_tells(links: Path) -> None:
    """`check` names every such token file, with the profile and what it would overwrite; the exit code is 78."""
    done = run("check", "--config", links)
    assert done.returncode == 78
    for name, what in (
        ("a", "which is the certificate of a"),
        ("b", "which is a file of the agent's own"),
        ("d", "which is a token file of c"),
    ):
        assert any(f" {name}: " in line and what in line for line in done.stderr.splitlines()), done.stderr
    assert " c: " not in done.stderr
