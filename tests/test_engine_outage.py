"""What goes wrong at the provider, and how little of it a reader notices."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import pytest

from tests import virtual
from tests.engine_helpers import World

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = 60.0
HOUR = 3600.0


def test_an_outage_within_the_runway_goes_unnoticed(tmp_path: Path) -> None:
    """The provider is down for 29 minutes from the moment a token is due: the old one serves all the time."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(29 * MINUTE)
            world.provider.fault("status", None, status=503)
            for _ in range(29):
                await anyio.sleep(MINUTE)
                assert world.state()["state"] in ("fresh", "degraded")
                assert world.token()
            shown = world.state()
            assert shown["state"] == "degraded"
            assert shown["last_error"]["kind"] == "transient"
            assert 60 <= shown["runway_seconds"] <= 121
            world.provider.recover()
            await anyio.sleep(MINUTE)
            assert world.state()["state"] == "fresh"
            assert world.state()["last_error"] is None

    virtual.run(main)


def test_three_hours_without_provider(tmp_path: Path) -> None:
    """The token expires and is said to be; retries go on a minute apart at most; all is well a minute after its end."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(29 * MINUTE)
            world.provider.fault("drop", None)
            await anyio.sleep(3 * HOUR)
            assert world.state()["state"] == "expired"
            assert world.token()  # the file stays by default
            assert len(world.log.named("token.expired")) == 1
            failures = [event["at"] for event in world.log.named("acquisition.failed")]
            gaps = [(after - before).total_seconds() for before, after in pairwise(failures)]
            assert max(gaps) <= 61
            assert min(gaps) >= 1
            world.provider.recover()
            await anyio.sleep(61)
            assert world.state()["state"] == "fresh"

    virtual.run(main)


def test_on_expiry_delete(tmp_path: Path) -> None:
    """With on_expiry = "delete" the file goes when the token ends, and comes back with the next one."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(app='on_expiry = "delete"')
        async with world.running():
            await anyio.sleep(MINUTE)
            world.provider.fault("drop", None)
            await anyio.sleep(58 * MINUTE)
            assert world.token()
            await anyio.sleep(2 * MINUTE)
            assert world.token() is None
            world.provider.recover()
            await anyio.sleep(61)
            assert world.token()

    virtual.run(main)


def test_on_expiry_spares_a_file_that_has_the_new_token(tmp_path: Path) -> None:
    """Where only one of two files could be written, the end of the old token deletes none that has the new one."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(app='on_expiry = "delete"\ntoken_file = ["app.token", "second.token"]')
        second = tmp_path / "run" / "second.token"
        async with world.running() as supervisor:
            await anyio.sleep(29 * MINUTE)
            old = world.token()
            second.unlink()
            second.mkdir()  # which no file can be written over
            world.provider.settings(token_lifetime="2h")
            await supervisor.refresh(["app"])
            await anyio.sleep(30 * MINUTE)
            new = world.token()
            assert new
            assert new != old
            for _ in range(120):
                await anyio.sleep(1)
                assert world.token() == new
            assert world.log.named("token.expired")
            second.rmdir()
            await anyio.sleep(MINUTE)
            assert second.read_text() == world.token() == new
        assert len(world.requests()) == 2

    virtual.run(main)


@pytest.mark.parametrize("kind", ["throttle", "throttle_text"])
def test_retry_after_is_honoured(tmp_path: Path, kind: str) -> None:
    """A 429 with Retry-After of five minutes, in JSON or in Entra's plain text, is not asked again before."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        world.provider.fault(kind, count=1, retry_after=300, endpoint="token")
        async with world.running():
            await anyio.sleep(299)
            assert len(world.requests()) == 1
            await anyio.sleep(2)
            assert len(world.requests()) == 2
            assert world.state()["state"] == "fresh"

    virtual.run(main)


def test_a_rejection_is_asked_again_every_five_minutes(tmp_path: Path) -> None:
    """What a person must fix is retried in five-minute steps, with code and hint shown, and mends itself."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        world.unregister_all()
        async with world.running():
            await anyio.sleep(12 * MINUTE)
            at = [round((instant - virtual.START).total_seconds()) for instant in world.requests()]
            assert at == [0, 300, 600]
            error = world.state()["last_error"]
            assert (error["kind"], error["code"]) == ("rejected", "AADSTS700027")
            assert world.pair.thumbprint in error["hint"]
            world.register(world.pair)
            await anyio.sleep(4 * MINUTE)
            assert world.state()["state"] == "fresh"

    virtual.run(main)


@pytest.mark.parametrize("kind", ["garbage", "html", "drop", "status", "hang"])
def test_whatever_comes_back_the_agent_goes_on(tmp_path: Path, kind: str) -> None:
    """Garbage, a captive portal, cut connections, 5xx and silence are outages like any other."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(app='timeout = "5s"')
        world.provider.fault(kind, count=3)
        async with world.running():
            await anyio.sleep(2 * MINUTE)
            assert len(world.log.named("acquisition.failed")) >= 1
            assert {event["kind"] for event in world.log.named("acquisition.failed")} == {"transient"}
            assert world.state()["state"] == "fresh"

    virtual.run(main)


def test_a_thousand_profiles_of_a_dead_provider_probe_one_by_one(tmp_path: Path) -> None:
    """While the provider is unreachable one profile probes for all, and all are fresh soon after it is back."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        names = [f"p{number}" for number in range(100)]
        world.configure(*names)
        world.provider.fault("drop", None)
        async with world.running():
            await anyio.sleep(10 * MINUTE)
            asked = len(world.provider.requests)
            assert asked < 40
            world.provider.recover()
            await anyio.sleep(62)
            assert all(world.state(name)["state"] == "fresh" for name in names)

    virtual.run(main)


def test_a_hanging_provider_delays_neither_others_nor_the_stop(tmp_path: Path) -> None:
    """A profile whose provider never answers times out by itself; the stop does not wait for it."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two", one='timeout = "300s"')
        world.provider.fault("hang", client_id=None, count=1)
        async with world.running():
            await anyio.sleep(100)
            began = loop.time()
        assert loop.time() - began < 1

    virtual.run(main)


def test_a_full_disk_costs_nothing(tmp_path: Path) -> None:
    """A folder that cannot be written keeps the old token; the new one is kept and written when it can be."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        target = tmp_path / "out"
        target.mkdir(mode=0o755)
        world.configure(app=f'token_file = "{target}/app.token"')
        async with world.running():
            await anyio.sleep(29 * MINUTE)
            old = (target / "app.token").read_text()
            target.chmod(0o777)
            await anyio.sleep(2 * MINUTE)
            assert (target / "app.token").read_text() == old
            assert world.state()["last_error"]["kind"] == "output"
            assert world.state()["state"] == "degraded"
            requests = len(world.requests())
            target.chmod(0o755)
            await anyio.sleep(61)
            assert (target / "app.token").read_text() != old
            assert len(world.requests()) == requests == 2
            assert world.state()["state"] == "fresh"

    virtual.run(main)


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_step_of_the_wall_clock_changes_nothing(tmp_path: Path, step: timedelta) -> None:
    """An hour forth or back neither lets the token expire nor causes a storm: the next request comes when it should."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(20 * MINUTE)
            world.clock.step(step)
            await anyio.sleep(1)
            assert world.state()["state"] == "fresh"
            assert 2390 <= world.state()["runway_seconds"] <= 2400
            await anyio.sleep(70 * MINUTE)
            assert world.state()["state"] == "fresh"
            assert len(world.log.named("clock.stepped")) == 1
        at = [event["at"] - virtual.START for event in world.log.named("token.acquired")]
        assert [
            round((instant - (step if index else timedelta(0))).total_seconds() / 60)
            for index, instant in enumerate(at)
        ] == [
            0,
            30,
            60,
            90,
        ]

    virtual.run(main)


def test_on_expiry_also_after_a_restart(tmp_path: Path) -> None:
    """A token that expired while no agent ran is shown as expired, and deleted if the profile wants that."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two", one='on_expiry = "delete"')
        async with world.running():
            await anyio.sleep(MINUTE)
        world.provider.fault("drop", None)
        await anyio.sleep(2 * HOUR)
        async with world.running():
            await anyio.sleep(MINUTE)
            assert world.token("one") is None
            assert world.token("two")
            assert world.state("one")["state"] == world.state("two")["state"] == "expired"

    virtual.run(main)
