"""Changes on disk: what differs is restarted, everything else keeps its token, timer and back-off."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import anyio
import pytest

from agent.errors import ConfigurationError
from tests import virtual
from tests.certificate_helpers import make_certificate, pool_key
from tests.engine_helpers import World

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = 60.0
NAMES = [f"p{number}" for number in range(200)]


def test_one_of_many_changes(tmp_path: Path) -> None:
    """Of 200 profiles one gets another scope: one request follows, and the others keep their instants."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(*NAMES)
        async with world.running():
            await anyio.sleep(10 * MINUTE)
            before = {name: world.state(name)["refresh_at"] for name in NAMES}
            text = (tmp_path / "config.toml").read_text()
            world.write("config.toml", text.replace("api://p7/", "api://seven/"))
            changes = await world.supervisor.reload(reason="test")
            assert list(changes.lines()) == ["changed    p7: scopes", "untouched  199 profiles"]
            await anyio.sleep(5)
            assert len(world.requests()) == 201
            after = {name: world.state(name)["refresh_at"] for name in NAMES}
            assert {name for name in NAMES if before[name] != after[name]} == {"p7"}

    virtual.run(main)


def test_a_broken_configuration_changes_nothing(tmp_path: Path) -> None:
    """What cannot be used is refused whole; all goes on, and status and log say why."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two")
        async with world.running():
            await anyio.sleep(MINUTE)
            good = (tmp_path / "config.toml").read_text()
            world.write("config.toml", good + "\nnonsense = [")
            with pytest.raises(ConfigurationError):
                await world.supervisor.reload(reason="test")
            assert "config.toml" in str(world.services.board.agent.config_error)
            assert len(world.log.named("config.rejected")) == 1
            await anyio.sleep(30 * MINUTE)
            assert world.state("one")["state"] == world.state("two")["state"] == "fresh"
            world.write("config.toml", good)
            await world.supervisor.reload(reason="test")
            assert world.services.board.agent.config_error is None
        assert len(world.requests()) == 4

    virtual.run(main)


def test_the_scan_notices_by_itself(tmp_path: Path) -> None:
    """Without any event the periodic comparison finds a changed configuration within its interval; SIGHUP at once."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one")
        async with world.running():
            await anyio.sleep(MINUTE)
            world.configure("one", "two")
            await anyio.sleep(11)
            assert world.token("two")
            world.configure("one", "two", "three", agent="watch = false")
            await world.send_signal(signal.SIGHUP)
            await anyio.sleep(0.5)
            assert world.token("three")
            world.configure("one", agent="watch = false")
            await anyio.sleep(MINUTE)
            assert world.token("two")
            await world.send_signal(signal.SIGHUP)
            await anyio.sleep(0.5)
            assert world.token("two") is None

    virtual.run(main)


def test_on_removal(tmp_path: Path) -> None:
    """A profile that leaves takes its file along, unless it is to be kept; also when no agent ran meanwhile."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two", "three", two='on_removal = "keep"')
        async with world.running():
            await anyio.sleep(1)
            world.configure("one", "three")
            await world.supervisor.reload(reason="test")
            assert world.token("two")
        world.configure("one")
        async with world.running():
            await anyio.sleep(1)
            assert world.token("three") is None
            assert world.token("one")

    virtual.run(main)


def test_a_changed_path_never_leaves_a_gap(tmp_path: Path) -> None:
    """A new path is written, with the same token and no request, before the old one goes."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(1)
            old = world.token()
            world.configure(app='token_file = { path = "moved.token" }')
            await world.supervisor.reload(reason="test")
            await anyio.sleep(1)
            assert world.token("moved") == old
            assert world.token() is None
            events = [(event["event"], event.get("path", "").rpartition("/")[2]) for event in world.log.events]
            assert events.index(("token.written", "moved.token")) < events.index(("token.deleted", "app.token"))
        assert len(world.requests()) == 1

    virtual.run(main)


def test_two_profiles_exchange_their_files(tmp_path: Path) -> None:
    """A path that another profile takes over is never deleted on behalf of the one that had it."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two")
        async with world.running():
            await anyio.sleep(1)
            one, two = world.token("one"), world.token("two")
            world.configure("one", "two", one='token_file = "two.token"', two='token_file = "one.token"')
            await world.supervisor.reload(reason="test")
            await anyio.sleep(2)
            assert (world.token("one"), world.token("two")) == (two, one)

    virtual.run(main)


def test_plan_changes_nothing(tmp_path: Path) -> None:
    """A plan says what a reload would do, and does not do it."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two")
        async with world.running():
            await anyio.sleep(1)
            world.configure("two", "three", two='mode = "0640"'.replace("mode", "timeout").replace("0640", "7s"))
            changes = await world.supervisor.plan()
            assert list(changes.lines()) == [
                "added      three",
                "changed    two: timeout",
                "removed    one",
                "untouched  0 profiles",
            ]
            await anyio.sleep(1)
            assert world.token("one")
            assert world.token("three") is None
            assert list((await world.supervisor.reload(reason="test")).lines()) == list(changes.lines())

    virtual.run(main)


def test_refresh_acquires_now(tmp_path: Path) -> None:
    """A refresh asks for a new token at once, only for the profiles named, and tells what came of it."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two")
        async with world.running():
            await anyio.sleep(MINUTE)
            before = world.token("one")
            results = await world.supervisor.refresh(["one", "nobody"])
            assert list(results) == ["one"]
            assert results["one"].error is None
            assert world.token("one") != before
            assert len(world.requests()) == 3
            world.provider.fault("drop", None)
            assert (await world.supervisor.refresh(["two"]))["two"].exit_code == 75
            assert world.token("two")

    virtual.run(main)


def test_a_broken_certificate_never_displaces_a_good_one(tmp_path: Path) -> None:
    """Half a file, a stranger's certificate, an expired one: each is named, and the old pair goes on signing."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        good = world.pair
        other = make_certificate("other", pool_key(1))
        expired = make_certificate("old", not_after=virtual.START)
        broken = [good.pem[:700], b"", good.key_pem + other.cert_pem, expired.pem]
        async with world.running():
            await anyio.sleep(1)
            for content in broken:
                world.write("app.pem", content)
                await world.supervisor.reload(reason="test")
                await anyio.sleep(31 * MINUTE)
                shown = world.state()
                assert shown["state"] == "fresh"
                assert shown["credential"]["candidate_error"]
                assert shown["credential"]["thumbprint"] == good.thumbprint
            levels = [event["level"] for event in world.log.named("certificate.rejected")]
            assert levels == ["warning", *["error"] * len(broken)]
            assert len({event["message"] for event in world.log.named("certificate.rejected")}) == len(broken)
            world.write("app.pem", good.pem)
            await world.supervisor.reload(reason="test")
            assert world.state()["credential"]["candidate_error"] is None
        assert not world.log.named("acquisition.failed")

    virtual.run(main)


def test_what_lasts_becomes_an_error(tmp_path: Path) -> None:
    """A certificate that cannot be used is a warning at once and an error after two minutes, each once, till mended."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(agent='rescan_interval = "1h"')
        good = world.pair.pem

        async def replaced(content: bytes) -> None:
            world.write("app.pem", content)
            await world.supervisor.reload(reason="test")

        async with world.running():
            await anyio.sleep(1)
            for _ in range(2):
                began = world.clock.now()
                for size in (0, 100, 700, 2000):  # it grows, and is wrong in another way each time
                    await replaced(good[:size])
                    await anyio.sleep(20)
                await anyio.sleep(5 * MINUTE)
                assert world.state()["credential"]["candidate_error"]
                rejected = world.log.named("certificate.rejected")[-2:]
                assert [event["level"] for event in rejected] == ["warning", "error"]
                assert rejected[0]["at"] == began
                assert 0 <= (rejected[1]["at"] - began).total_seconds() - 2 * MINUTE < 1
                await replaced(good)
            await anyio.sleep(5 * MINUTE)
        assert len(world.log.named("certificate.rejected")) == 4

    virtual.run(main)


def test_nothing_usable_is_an_error_at_once(tmp_path: Path) -> None:
    """At a start with a broken certificate there is nothing to go on with: that is said as an error, and once."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.write("app.pem", world.pair.pem[:700])
        world.configure()
        async with world.running():
            await anyio.sleep(30 * MINUTE)
            assert [event["level"] for event in world.log.named("certificate.rejected")] == ["error"]
            assert len(world.log.named("config.loaded")) == 1
            world.write("app.pem", world.pair.pem)
            await anyio.sleep(11)
            assert world.state()["state"] == "fresh"
            assert len(world.log.named("config.loaded")) == 2

    virtual.run(main)


def test_half_a_configuration_ends_nothing(tmp_path: Path) -> None:
    """A configuration written in two parts 0.4 s apart, of which the first would do, is taken as a whole."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two")
        path = tmp_path / "config.toml"
        half, mark, rest = path.read_text().rpartition("[[profile]]")
        async with world.running():
            await anyio.sleep(MINUTE - 0.1)
            for timeout in range(7, 17):  # each a little later, so that the comparison meets some in their middle
                path.write_text(half)
                await anyio.sleep(0.4)
                path.write_text(f"{half}{mark}{rest}timeout = {timeout}\n")
                await anyio.sleep(10.05 - 0.4)
            await anyio.sleep(15)  # for the last one to be seen
            assert world.token("two")
            changes = await world.supervisor.plan()
            assert not any((changes.start, changes.stop))  # the last one is in force
        assert not world.log.named("token.deleted")
        loaded = world.log.named("config.loaded")
        assert len(loaded) > 5  # two that come close together may be taken as one
        assert {(event["profiles"], len(event["removed"])) for event in loaded} == {(2, 0)}

    virtual.run(main)


def test_no_file_slips_in_between_reading_and_comparing(tmp_path: Path) -> None:
    """An included file that appears just after the configuration was read is news at the next comparison."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        (tmp_path / "conf.d").mkdir()
        world.configure(agent='include = ["conf.d/*.toml"]')
        world.write("conf.d/.hidden.toml", "it is left out, and not looked at again and again")
        for name in ("one", "two"):
            config = world.load()
            assert world.loader.seen(config, world.loader.look(config)) == world.loader.look(config)
            profile = (tmp_path / "config.toml").read_text().partition("[[profile]]")[2].replace('"app"', f'"{name}"')
            world.write(f"conf.d/{name}.toml", f"[[profile]]{profile}".replace('"app.pem"', f'"{tmp_path}/app.pem"'))
            assert world.loader.seen(config, world.loader.look(config)) != world.loader.look(config)

    virtual.run(main)


def test_a_directory_that_cannot_be_searched_removes_nobody(tmp_path: Path) -> None:
    """Where nobody can tell what is in an included directory its profiles stay: refused once, until it is back."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        (tmp_path / "conf.d").mkdir()
        world.configure(agent='include = ["conf.d/*.toml"]')
        profile = (tmp_path / "config.toml").read_text().partition("[[profile]]")[2].replace('"app"', '"two"')
        world.write("conf.d/two.toml", f"[[profile]]{profile}".replace('"app.pem"', f'"{tmp_path}/app.pem"'))
        async with world.running():
            await anyio.sleep(MINUTE)
            assert world.token("two")
            (tmp_path / "conf.d").rename(tmp_path / "aside")
            (tmp_path / "conf.d").symlink_to("x" * 300)  # for root no directory is closed; this one is no path at all
            await anyio.sleep(10 * MINUTE)
            assert len(world.log.named("config.rejected")) == 1
            assert "cannot be expanded" in str(world.services.board.agent.config_error)
            assert world.state("two")["state"] == "fresh"
            (tmp_path / "conf.d").unlink()
            (tmp_path / "aside").rename(tmp_path / "conf.d")
            await anyio.sleep(MINUTE)
            assert world.services.board.agent.config_error is None
            assert not world.log.named("token.deleted")
        assert len(world.requests()) == 2

    virtual.run(main)


def test_a_directory_of_profiles_that_is_gone_removes_nobody(tmp_path: Path) -> None:
    """A directory that is deployed anew, however slowly, costs no token; an empty one, or none in `include`, does."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two", agent='include = ["conf.d/*.toml"]')
        main_file, included = tmp_path / "config.toml", tmp_path / "conf.d" / "two.toml"
        first, mark, second = main_file.read_text().rpartition("[[profile]]")
        included.parent.mkdir()
        included.write_text((mark + second).replace('"app.pem"', f'"{tmp_path}/app.pem"'))
        world.write("config.toml", first)
        async with world.running() as supervisor:
            await anyio.sleep(MINUTE)
            before = world.token("two")
            included.parent.rename(tmp_path / "elsewhere")
            await anyio.sleep(5 * MINUTE)
            assert world.token("two") == before
            assert "conf.d is gone" in world.log.named("config.rejected")[0]["message"]
            with pytest.raises(ConfigurationError, match="take it out of `include`"):
                await supervisor.reload(reason="a test")
            (tmp_path / "elsewhere").rename(included.parent)
            await anyio.sleep(MINUTE)
            assert world.services.board.agent.config_error is None
            assert len(world.requests()) == 2
            included.unlink()
            await anyio.sleep(MINUTE)
            assert world.token("two") is None

    virtual.run(main)


def test_a_new_profile_without_its_certificate_is_refused_until_it_comes(tmp_path: Path) -> None:
    """What a person has just written and cannot work changes nothing, and is taken once its file is there."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one")
        async with world.running():
            await anyio.sleep(MINUTE)
            world.configure("two", two='ca_file = "later.pem"')
            with pytest.raises(ConfigurationError, match=r'profile "two": ca_file: .*later\.pem'):
                await world.supervisor.reload(reason="test")
            with pytest.raises(ConfigurationError):
                await world.supervisor.plan()
            await anyio.sleep(MINUTE)
            assert world.token("one")
            assert world.token("two") is None
            assert len(world.log.named("config.rejected")) == 1
            world.configure("one", "two")
            await anyio.sleep(11)
            assert world.token("two")

    virtual.run(main)


def test_directories_are_for_life(tmp_path: Path) -> None:
    """Another runtime_dir or state_dir needs a restart; the running state stays whole until then."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(1)
            text = (tmp_path / "config.toml").read_text()
            world.write("config.toml", text.replace('runtime_dir = "run"', 'runtime_dir = "run2"'))
            with pytest.raises(ConfigurationError, match=r"agent\.runtime_dir: cannot change .*restart"):
                await world.supervisor.reload(reason="test")
            await anyio.sleep(MINUTE)
            assert world.state()["state"] == "fresh"
            assert not (tmp_path / "run2").exists()

    virtual.run(main)


def test_refresh_does_not_wait_for_the_end_of_a_back_off(tmp_path: Path) -> None:
    """Whoever asks for a token now gets a request now, not the failure of a while ago; failures go on being counted."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(MINUTE)
            world.provider.fault("status", 4, status=503)
            for failures in (1, 2, 3):
                await anyio.sleep(1.1)
                asked = len(world.provider.requests)
                progress = (await world.supervisor.refresh(["app"]))["app"]
                assert len(world.provider.requests) == asked + 1
                assert progress.failures >= failures
            world.provider.recover()
            await anyio.sleep(1.1)
            assert (await world.supervisor.refresh(["app"]))["app"].error is None

    virtual.run(main)
