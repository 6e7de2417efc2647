"""A clock that is not the provider's is named while tokens still flow, shown as long as it is off, and said once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
from hypothesis import given
from hypothesis import strategies as st

from agent import diagnosis, status
from agent.commands.status import footer
from agent.headline import headline
from tests import virtual
from tests.engine_helpers import World

if TYPE_CHECKING:
    from pathlib import Path

MINUTE, HOUR = 60.0, 3600.0
HOST = "127.0.0.1:4430"


def said(world: World) -> list[tuple[str, int]]:
    """Return what was said of the clock so far: event and seconds."""
    return [(each["event"], each["seconds"]) for each in world.log.events if each["event"].startswith("clock.")]


def shown(world: World) -> dict[str, int]:
    """Return what `status` says of the clock."""
    agent = world.services.board.agent
    skews: dict[str, int] = status.document(agent, (), world.clock.now(), running=True)["agent"]["clock_skew_seconds"]
    return skews


def provider_ahead(world: World, seconds: float) -> None:
    """Set the provider's clock."""
    world.provider.recover()
    world.provider.fault("clock", None, seconds=seconds)


def test_a_clock_is_named_before_it_is_refused(tmp_path: Path) -> None:
    """Two minutes behind the provider, with tokens as ever: a warning with the fix, once for all profiles and hours."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two", "three")
        provider_ahead(world, 120)
        async with world.running():
            await anyio.sleep(2 * HOUR)
            assert said(world) == [("clock.skewed", -120)]
            (event,) = world.log.named("clock.skewed")
            assert (event["level"], event["authority"]) == ("warning", HOST)
            assert event["message"] == "this machine's clock is 2 min behind the provider's"
            assert "chronyc" in event["hint"]
            assert shown(world) == {HOST: -120}
            assert world.services.board.tally.skews == {HOST: timedelta(minutes=-2)}
            assert not world.log.named("acquisition.failed")

    virtual.run(main)


def test_it_is_said_again_when_it_changes_and_when_it_is_over(tmp_path: Path) -> None:
    """A clock that drifts on is named again after another minute; set right, that is said, and the status is clear."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(MINUTE)
            for seconds in (-59, -61, -70, -122, -200, -50, -29, -61):
                provider_ahead(world, seconds)
                await anyio.sleep(30 * MINUTE)
            assert said(world) == [
                ("clock.skewed", 61),
                ("clock.skewed", 122),
                ("clock.skewed", 200),
                ("clock.skewed", 50),
                ("clock.agrees", 29),
                ("clock.skewed", 61),
            ]
            provider_ahead(world, 0)
            await anyio.sleep(30 * MINUTE)
            assert shown(world) == {}

    virtual.run(main)


def test_a_clock_that_is_refused_and_then_set_right(tmp_path: Path) -> None:
    """An hour behind, assertions are refused and every hint names the clock; set right, tokens come within a minute."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        world.provider.settings(clock_offset=3600)
        async with world.running():
            await anyio.sleep(10 * MINUTE)
            error = world.state()["last_error"]
            assert (error["kind"], error["code"]) == ("transient", "AADSTS700024")
            assert "59 min behind" in error["hint"]
            assert said(world) == [("clock.skewed", -3600)]
            world.clock.step(timedelta(hours=1))
            world.provider.settings(clock_offset=0)
            await anyio.sleep(0.001)
            assert said(world)[1:] == [("clock.stepped", 3600), ("clock.agrees", 0)]
            assert shown(world) == {}
            await anyio.sleep(61)
            assert world.state()["state"] == "fresh"

    virtual.run(main)


def test_a_step_that_was_measured_before_it_was_noticed(tmp_path: Path) -> None:
    """An exchange between a step and its discovery has measured it already: it does not count twice."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world, step = World(loop, tmp_path), timedelta(minutes=4)
        world.configure()
        async with world.running() as supervisor:
            await anyio.sleep(MINUTE)
            world.clock.step_unnoticed(step)
            provider_ahead(world, -240)
            await supervisor.refresh(["app"])
            world.clock.notice(step)
            await anyio.sleep(0.001)
            assert said(world) == [("clock.skewed", 240), ("clock.stepped", 240)]
            assert shown(world) == {HOST: 240}
            world.clock.step(-step)
            await anyio.sleep(0.001)
            assert said(world)[2:] == [("clock.stepped", -240), ("clock.agrees", 0)]

    virtual.run(main)


def test_a_provider_that_is_gone_is_not_named_any_longer(tmp_path: Path) -> None:
    """After a reload that leaves a provider out, nothing is said of its clock."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        provider_ahead(world, 300)
        async with world.running():
            await anyio.sleep(MINUTE)
            assert shown(world) == {HOST: -300}
            text = (tmp_path / "config.toml").read_text()
            world.write("config.toml", text.replace(HOST, "elsewhere.example"))
            await world.supervisor.reload(reason="test")
            assert shown(world) == {}

    virtual.run(main)


moments = st.timedeltas(timedelta(minutes=-5), timedelta(minutes=5))


@given(st.lists(moments, max_size=20))
def test_what_is_said_is_never_far_from_what_is(skews: list[timedelta]) -> None:
    """Whatever is measured, what was said last is a minute off at most, and nothing is said twice."""
    last: timedelta | None = None
    for skew in skews:
        news = diagnosis.skew_news(last, skew)
        last = skew if news == "off" else None if news == "right" else last
        assert abs(skew - (last or timedelta(0))) <= timedelta(minutes=1)
        assert diagnosis.skew_news(last, skew) is None
        assert last is None or abs(skew) > timedelta(seconds=30)


def test_what_people_see() -> None:
    """The status file keeps it, `status` has a line with the fix, `systemctl status` a word; a dead agent nothing."""
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    skews = {"login.example": timedelta(hours=2), "other.example": timedelta(minutes=-3)}
    agent = status.AgentStatus("1", 1, now, "/etc/token-agent/config.toml", skews=skews)
    assert status.from_file(status.to_file(agent, (), now))[0] == agent
    document: dict[str, Any] = status.document(agent, (), now, running=True)
    lines = footer(document, now)
    assert lines[1].startswith("login.example: this machine's clock is 2 h ahead of the provider's: set it right")
    assert lines[2].startswith("other.example: this machine's clock is 3 min behind")
    assert "clock 2 h ahead" in headline(agent, [], now)
    assert status.document(agent, (), now, running=False)["agent"]["clock_skew_seconds"] == {}
