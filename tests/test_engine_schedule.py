"""One profile over hours and days of virtual time: when it asks, what lies on disk, what survives a restart."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from tests import virtual
from tests.engine_helpers import World

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

MINUTE = 60.0
HOUR = 3600.0


def minutes(instants: list[datetime]) -> list[float]:
    """Minutes since the beginning."""
    return [round((instant - virtual.START).total_seconds() / 60, 2) for instant in instants]


def test_refresh_at_half_of_the_life(tmp_path: Path) -> None:
    """A token of an hour is renewed every half hour, to the second, and a whole one is always on disk."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(2 * HOUR)
            assert minutes(world.requests()) == [0, 30, 60, 90, 120]
            assert world.state()["state"] == "fresh"
            assert len({event["token_sha256"] for event in world.log.named("token.written")}) == 5

    virtual.run(main)


def test_a_day_asks_forty_eight_times(tmp_path: Path) -> None:
    """A virtual day passes without an error, a leak of tasks or a request too many."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(agent='rescan_interval = "10m"')
        async with world.running():
            await anyio.sleep(24 * HOUR - 1)
        assert len(world.requests()) == 48
        assert not [event for event in world.log.events if event["level"] in ("warning", "error")]

    virtual.run(main)


def test_short_lifetimes_work_alike(tmp_path: Path) -> None:
    """Tokens of a minute are renewed every half minute and are never called degraded."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path, lifetime=timedelta(seconds=60))
        world.configure()
        async with world.running():
            for _ in range(59):
                await anyio.sleep(1)
                assert world.state()["state"] == "fresh"
        assert minutes(world.requests()) == [0, 0.5]

    virtual.run(main)


def test_the_servers_wish_wins_if_sooner(tmp_path: Path) -> None:
    """refresh_in brings the renewal forward."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.provider.settings(refresh_in="10m")
        world.configure()
        async with world.running():
            await anyio.sleep(25 * MINUTE)
        assert minutes(world.requests()) == [0, 10, 20]

    virtual.run(main)


def test_a_restart_reuses_the_token(tmp_path: Path) -> None:
    """A token on disk that is not due is used by the next run, which goes on with the same schedule."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(5 * MINUTE)
        before = world.token()
        async with world.running():
            await anyio.sleep(10 * MINUTE)
            assert world.token() == before
            assert world.state()["state"] == "fresh"
            await anyio.sleep(20 * MINUTE)
        assert minutes(world.requests()) == [0, 30]

    virtual.run(main)


def test_a_restart_does_not_trust_a_foreign_token(tmp_path: Path) -> None:
    """A token file that somebody else wrote, or another scope's, is no reason not to acquire."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        await world.once()
        (tmp_path / "run" / "app.token").write_text("not.a.token")
        assert (await world.once())["app"].error is None
        assert world.token() != "not.a.token"
        world.configure(app='scopes = ["api://other/.default"]'.replace("scopes", "on_removal = 'keep'\n# "))
        await world.once()
        assert len(world.requests()) == 2

    virtual.run(main)


def test_another_scope_is_another_token(tmp_path: Path) -> None:
    """After an edit of the scope the old token is not mistaken for the new one, running or restarted."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        await world.once()
        text = (tmp_path / "config.toml").read_text().replace("api://app/", "api://other/")
        world.write("config.toml", text)
        async with world.running():
            await anyio.sleep(1)
            assert len(world.requests()) == 2
            world.write("config.toml", text.replace("api://other/", "api://third/"))
            await world.supervisor.reload(reason="test")
            await anyio.sleep(5)
            assert len(world.requests()) == 3

    virtual.run(main)


def test_once_does_what_is_due_only(tmp_path: Path) -> None:
    """`once` acquires what is due and nothing else, unless forced."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two")
        assert all(progress.error is None for progress in (await world.once()).values())
        await world.once()
        assert len(world.requests()) == 2
        await world.once(force=True)
        assert len(world.requests()) == 4
        await anyio.sleep(31 * MINUTE)
        await world.once()
        assert len(world.requests()) == 6

    virtual.run(main)


def test_a_thousand_profiles_spread(tmp_path: Path) -> None:
    """With the default jitter the renewals of many profiles spread over a tenth of the lifetime, only ever earlier."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        names = [f"p{number}" for number in range(60)]
        world.configure(*names, each="")
        text = (tmp_path / "config.toml").read_text().replace("refresh = { jitter = 0 }", "")
        world.write("config.toml", text)
        async with world.running():
            await anyio.sleep(31 * MINUTE)
        later = [at for at in minutes(world.requests()) if at > 1]
        assert len(later) == 60
        assert 24 <= min(later) < 25.5
        assert 28.5 < max(later) <= 30.1

    virtual.run(main)


class CountingLoop(virtual.VirtualLoop):
    """Counts how often something happened."""

    wakings = 0

    def advance(self, seconds: float) -> None:
        self.wakings += 1
        super().advance(seconds)


def test_an_agent_with_nothing_to_do_sleeps(tmp_path: Path) -> None:
    """Between two renewals, half a day apart, disks are looked at once in the interval that the configuration names."""

    async def main(loop: CountingLoop) -> None:
        world = World(loop, tmp_path, lifetime=timedelta(hours=24))
        world.configure(agent='rescan_interval = "1h"')
        async with world.running():
            await anyio.sleep(HOUR + MINUTE)
            before = loop.wakings
            await anyio.sleep(10 * HOUR)
            assert loop.wakings - before < 10 * 10  # three who look, and what each of them does then

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, CountingLoop)
        runner.run(main(loop))
