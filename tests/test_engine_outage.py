"""What goes wrong at the provider, and how little of it a reader notices."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from agent.network.transport import Reply, unreachable
from tests import virtual
from tests.engine_helpers import World

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.network.transport import Call

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


def test_a_token_that_only_one_file_has_outlives_an_outage(tmp_path: Path) -> None:
    """Due again before all files have it, while the provider is down, it goes to the others; none gets the old one."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(app='token_file = ["app.token", "second.token"]')
        second = tmp_path / "run" / "second.token"
        async with world.running():
            await anyio.sleep(29 * MINUTE)
            second.unlink()
            second.mkdir()  # which no file can be written over
            world.provider.settings(token_lifetime="20m")
            await anyio.sleep(2 * MINUTE)
            new = world.token()
            assert len(world.requests()) == 2
            world.provider.fault("drop", None)
            await anyio.sleep(11 * MINUTE)
            second.rmdir()
            await anyio.sleep(MINUTE)
            assert world.token() == new
            assert second.read_text() == new

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


class Moving:
    """A provider whose token endpoint moves, once there is something ``left`` that is answered at the old place."""

    def __init__(self, world: World) -> None:
        self._inner, self._new = world.transport, f"{world.provider.authority}/oauth2/v2.0/token"
        self.left: Reply | None = None
        self.asked: list[str] = []
        world.transport = cast("Any", self)

    def request(
        self, call: Call, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        self.asked.append("discovery" if method == "GET" else "new" if url == self._new else "old")
        if self.left and self.asked[-1] == "old":
            return self.left
        reply = self._inner.request(call, method, url, headers, body)
        if self.left and method == "GET":
            return replace(reply, body=json.dumps(json.loads(reply.body) | {"token_endpoint": self._new}).encode())
        return reply


NOT_FOUND = Reply(404, {"content-type": "application/json"}, b'{"error": "not_found"}')
REFUSED = Reply(401, {"content-type": "application/json"}, b'{"error": "invalid_client"}')


def test_a_token_endpoint_that_moves_is_found(tmp_path: Path) -> None:
    """Where the old one answers in JSON that nothing is there, the next attempt asks discovery, and nobody restarts."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        moving = Moving(world)
        async with world.running():
            await anyio.sleep(29 * MINUTE)
            moving.left = NOT_FOUND
            await anyio.sleep(7 * MINUTE)
            assert world.state()["state"] == "fresh"
            assert world.state()["last_error"] is None
        assert moving.asked == ["discovery", "old", "old", "discovery", "new"]

    virtual.run(main)


@pytest.mark.parametrize("how", ["refresh", "reload"])
def test_who_asks_has_discovery_asked(tmp_path: Path, how: str) -> None:
    """A refresh, and a reload that restarts what fails, ask where the endpoint is, and share the answer."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        names = [f"p{number}" for number in range(20)]
        world.configure(*names, agent="max_in_flight = 3")
        moving = Moving(world)
        async with world.running() as supervisor:
            await anyio.sleep(29 * MINUTE)
            moving.left = REFUSED
            await anyio.sleep(3 * MINUTE)
            assert world.state("p0")["last_error"]["code"] == "invalid_client"
            moving.asked.clear()
            if how == "refresh":
                await supervisor.refresh(names)
            else:
                world.configure(*names, each='timeout = "31s"')
                await supervisor.reload(reason="test")
                await anyio.sleep(5)
            assert all(world.state(name)["last_error"] is None for name in names)
        assert 1 <= moving.asked.count("discovery") <= 3
        assert [url for url in moving.asked if url != "discovery"] == ["new"] * 20

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


class Stuck:
    """A network in which the look-up of some names never ends, whoever gives it up."""

    def __init__(self, world: World) -> None:
        self._inner, self._loop, self.released = world.transport, world.loop, threading.Event()
        world.transport = cast("Any", self)

    def request(
        self, call: Call, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        if ".hangs.test/" not in url:
            return self._inner.request(call, method, url, headers, body)
        self._loop.call_soon_threadsafe(self._waits, 1)
        self.released.wait()
        self._loop.call_soon_threadsafe(self._waits, -1)
        raise unreachable("x.hangs.test", TimeoutError())

    def _waits(self, count: int) -> None:
        self._loop.waiting_threads += count


@pytest.mark.parametrize(("host", "name"), [("h{}.hangs.test", "app"), ("x.hangs.test", "last")])
def test_look_ups_that_never_end_delay_no_other(tmp_path: Path, host: str, name: str) -> None:
    """Twenty hosts, or tenants of one host, whose threads hang for good: of another no token is ever late."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(name)
        text = (tmp_path / "config.toml").read_text()
        entry = text.partition("[[profile]]")[2]
        for number in range(20):
            there = f"https://{host.format(number)}/tenant-{number}.test"
            named = entry.replace(world.provider.authority, there).replace(f'name = "{name}"', f'name = "bad-{number}"')
            text += f"[[profile]]{named}"
        world.write("config.toml", text)
        stuck = Stuck(world)
        async with world.running():
            await anyio.sleep(4 * HOUR)
            stuck.released.set()
        at = [round((instant - virtual.START).total_seconds()) for instant in world.requests()]
        assert at == [1800 * number for number in range(len(at))]
        assert len(at) >= 8

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
