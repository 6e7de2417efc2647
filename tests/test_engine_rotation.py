"""A new certificate is tried before it is trusted, and the old one serves until then."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from tests import virtual
from tests.certificate_helpers import make_certificate, pool_key
from tests.engine_helpers import World

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificate_helpers import Pair

MINUTE = 60.0
HOUR = 3600.0
NEXT_YEAR = virtual.START + timedelta(days=400)


def side_by_side(world: World) -> Pair:
    """Configure two certificates, of which the newer one is not registered, and return that."""
    new = make_certificate("new", pool_key(1), not_before=virtual.START - timedelta(days=1), not_after=NEXT_YEAR)
    world.write("new.pem", new.pem)
    world.configure()
    text = (world.directory / "config.toml").read_text()
    world.write("config.toml", text.replace('certificate = "app.pem"', 'certificate = ["app.pem", "new.pem"]'))
    return new


def test_a_registered_certificate_is_promoted_at_once(tmp_path: Path) -> None:
    """A new certificate that the provider knows is proven by an acquisition, promoted, and its token published."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        new = make_certificate("new", pool_key(1), not_after=NEXT_YEAR)
        async with world.running():
            await anyio.sleep(5 * MINUTE)
            before = world.token()
            world.register(new)
            world.write("app.pem", new.pem)
            await anyio.sleep(11)
            assert world.token() != before
            assert world.state()["credential"]["thumbprint"] == new.thumbprint
            assert len(world.log.named("certificate.promoted")) == 1
            assert len(world.requests()) == 2

    virtual.run(main)


@pytest.mark.parametrize(("pause", "levels"), [(0.15, []), (0.4, ["warning"])])
def test_copied_in_chunks(tmp_path: Path, pause: float, levels: list[str]) -> None:
    """Half a certificate is waited for while it grows; if it rests for longer than that, one warning comes of it."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        new = make_certificate("new", pool_key(1), not_after=NEXT_YEAR)
        world.register(new)
        async with world.running():
            await anyio.sleep(MINUTE - 0.1)  # the comparison comes just after the first chunk
            with (tmp_path / "app.pem").open("wb", buffering=0) as file:
                for begin in range(0, len(new.pem), 400):
                    file.write(new.pem[begin : begin + 400])
                    await anyio.sleep(pause)
            await anyio.sleep(11)
            assert world.state()["credential"]["thumbprint"] == new.thumbprint
            assert [event["level"] for event in world.log.named("certificate.rejected")] == levels
            assert len(world.log.named("certificate.promoted")) == 1
        assert not world.log.named("acquisition.failed")

    virtual.run(main)


def test_registered_three_hours_late(tmp_path: Path) -> None:
    """As long as the provider does not know the new certificate the old one serves; then it is taken over."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        new = make_certificate("new", pool_key(1), not_after=NEXT_YEAR)
        async with world.running():
            await anyio.sleep(5 * MINUTE)
            world.write("app.pem", new.pem)
            for _ in range(18):
                await anyio.sleep(10 * MINUTE)
                shown = world.state()
                assert shown["state"] == "fresh"
                assert shown["credential"]["thumbprint"] == world.pair.thumbprint
                assert "AADSTS700027" in shown["credential"]["candidate_error"]
                assert new.thumbprint in shown["credential"]["candidate_error"]
                assert "upload" in shown["credential"]["candidate_error"]
            rejected = world.log.named("certificate.rejected")
            assert 34 <= len(rejected) <= 40  # 30 s growing to 5 min
            assert new.thumbprint in rejected[0]["hint"]
            world.register(new)
            await anyio.sleep(5 * MINUTE + 1)
            assert world.state()["credential"]["thumbprint"] == new.thumbprint
            assert world.state()["credential"]["candidate_error"] is None
        assert not world.log.named("acquisition.failed")

    virtual.run(main)


def test_only_the_refused_one_after_a_restart(tmp_path: Path) -> None:
    """After a restart with only a refused certificate on disk the token serves to its end, and nobody storms."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        new = make_certificate("new", pool_key(1), not_after=NEXT_YEAR)
        async with world.running():
            await anyio.sleep(MINUTE)
        token = world.token()
        world.write("app.pem", new.pem)
        async with world.running():
            await anyio.sleep(MINUTE)
            for _ in range(2):  # what there is to do is said from the first minute, however long the token serves
                assert world.state()["state"] == "fresh"
                assert world.state()["credential"]["thumbprint"] is None
                assert "AADSTS700027" in world.state()["credential"]["candidate_error"]
                assert new.thumbprint in world.state()["credential"]["candidate_error"]
                await anyio.sleep(20 * MINUTE)
            assert 5 <= len(world.requests()) <= 16  # 30 s growing to 5 min
            await anyio.sleep(9 * MINUTE)
            assert world.token() == token
            assert world.state()["state"] == "degraded"
            assert world.state()["last_error"]["code"] == "AADSTS700027"
            world.register(new)
            await anyio.sleep(5 * MINUTE + 1)
            assert world.state()["state"] == "fresh"
            assert world.state()["credential"]["thumbprint"] == new.thumbprint
            assert world.state()["credential"]["candidate_error"] is None

    virtual.run(main)


def test_one_that_is_all_there_is_is_asked_in_one_rhythm(tmp_path: Path) -> None:
    """When a new certificate must bring the token, since the old one is gone, it is offered every 5 minutes only."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(1)
        world.write("app.pem", make_certificate("new", pool_key(1), not_after=NEXT_YEAR).pem)
        await anyio.sleep(31 * MINUTE)
        world.provider.fault("status", 2, status=503, endpoint="discovery")
        async with world.running():
            await anyio.sleep(20 * MINUTE)
        refused = world.requests()[1:]
        gaps = [(after - before).total_seconds() for before, after in itertools.pairwise(refused)]
        assert len(gaps) >= 3
        assert min(gaps) > 4 * MINUTE

    virtual.run(main)


def test_one_that_is_taken_after_a_restart(tmp_path: Path) -> None:
    """A certificate that was replaced while no agent ran is tried at once, and taken over with its token."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two")
        new = make_certificate("new", pool_key(1), not_after=NEXT_YEAR)
        async with world.running():
            await anyio.sleep(MINUTE)
        async with world.running():
            await anyio.sleep(MINUTE)
        assert len(world.requests()) == 2  # the same certificate: nothing to prove
        world.write("app.pem", new.pem)
        world.register(new)
        async with world.running():
            await anyio.sleep(MINUTE)
            assert len(world.requests()) == 4
            assert world.state("one")["credential"]["thumbprint"] == new.thumbprint
            assert world.state("one")["state"] == world.state("two")["state"] == "fresh"

    virtual.run(main)


def test_the_newer_of_two_is_tried_again_after_a_restart(tmp_path: Path) -> None:
    """With old and new side by side, a new one that was refused is tried at the next start, and the old one serves."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        new = side_by_side(world)
        for _ in range(2):
            async with world.running():
                await anyio.sleep(MINUTE)
                assert world.state()["state"] == "fresh"
                assert world.state()["credential"]["thumbprint"] == world.pair.thumbprint
                assert new.thumbprint in world.state()["credential"]["candidate_error"]
        world.register(new)
        async with world.running():
            await anyio.sleep(MINUTE)
            assert world.state()["credential"]["thumbprint"] == new.thumbprint

    virtual.run(main)


def test_the_certificate_expires_during_an_outage(tmp_path: Path) -> None:
    """The provider is down while the certificate ends; the renewed one on disk is used as soon as it is back."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        old = make_certificate("short", pool_key(2), not_after=virtual.START + timedelta(minutes=45))
        new = make_certificate("new", pool_key(1), not_after=NEXT_YEAR)
        world.register(old)
        world.write("app.pem", old.pem)
        world.configure()
        async with world.running():
            await anyio.sleep(29 * MINUTE)
            world.provider.fault("drop", None)
            world.register(new)
            await anyio.sleep(10 * MINUTE)
            world.write("app.pem", new.pem)
            await anyio.sleep(15 * MINUTE)
            world.provider.recover()
            await anyio.sleep(2 * MINUTE)
            assert world.state()["state"] == "fresh"
            assert world.state()["credential"]["thumbprint"] == new.thumbprint

    virtual.run(main)


def test_an_expired_certificate_is_named(tmp_path: Path) -> None:
    """A certificate that ends while the agent runs is said to have expired, not sent to be refused."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        old = make_certificate("short", pool_key(2), not_after=virtual.START + timedelta(minutes=20))
        world.register(old)
        world.write("app.pem", old.pem)
        world.configure()
        async with world.running():
            await anyio.sleep(40 * MINUTE)
            assert "expired" in world.state()["last_error"]["message"]
            assert world.state()["last_error"]["kind"] == "configuration"
            assert len(world.requests()) == 1
            new = make_certificate("new", pool_key(1), not_after=NEXT_YEAR)
            world.register(new)
            world.write("app.pem", new.pem)
            await anyio.sleep(11)
            assert world.state()["state"] == "fresh"

    virtual.run(main)


def test_not_yet_valid_mends_itself(tmp_path: Path) -> None:
    """A certificate that becomes valid later is taken when its time has come, without a change on disk."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        early = make_certificate("early", not_before=virtual.START + timedelta(minutes=5), not_after=NEXT_YEAR)
        world.register(early)
        world.write("app.pem", early.pem)
        world.configure()
        async with world.running():
            await anyio.sleep(4 * MINUTE)
            assert world.state()["state"] == "pending"
            assert "not valid before" in world.state()["last_error"]["message"]
            await anyio.sleep(2 * MINUTE)
            assert world.state()["state"] == "fresh"

    virtual.run(main)


def test_the_same_certificate_in_another_form_is_no_candidate(tmp_path: Path) -> None:
    """The same pair as PFX, or with its parts in another order, is used without asking anybody."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(MINUTE)
            for content in (world.pair.pfx(), world.pair.cert_pem + world.pair.key_pem):
                world.write("app.pem", content)
                await world.supervisor.reload(reason="test")
                await anyio.sleep(MINUTE)
            assert len(world.requests()) == 1
            assert world.state()["state"] == "fresh"

    virtual.run(main)


def test_side_by_side_the_newest_accepted_one_wins(tmp_path: Path) -> None:
    """Of several certificates on disk the newest that the provider takes is used, with no gap while it changes."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        new = side_by_side(world)
        async with world.running():
            await anyio.sleep(MINUTE)
            assert world.state()["state"] == "fresh"
            assert world.state()["credential"]["thumbprint"] == world.pair.thumbprint
            assert "AADSTS700027" in world.state()["credential"]["candidate_error"]
            world.register(new)
            await anyio.sleep(5 * MINUTE)
            assert world.state()["credential"]["thumbprint"] == new.thumbprint
            assert world.state()["credential"]["candidate_error"] is None
        assert not world.log.named("acquisition.failed")

    virtual.run(main)


def test_a_candidate_that_expires_unproven_is_passed_over(tmp_path: Path) -> None:
    """A newer certificate that nobody registered, and that ends first, never keeps the older one from being used."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        end = virtual.START + timedelta(minutes=20)
        short = make_certificate("short", pool_key(1), not_before=virtual.START - timedelta(days=1), not_after=end)
        world.write("short.pem", short.pem)
        world.configure()
        text = (tmp_path / "config.toml").read_text()
        world.write("config.toml", text.replace('"app.pem"', '["short.pem", "app.pem"]'))
        async with world.running():
            for _ in range(5):
                await anyio.sleep(25 * MINUTE)
                assert (await world.supervisor.refresh(["app"]))["app"].error is None
                assert world.state()["state"] == "fresh"
                assert world.state()["credential"]["thumbprint"] == world.pair.thumbprint
        assert not world.log.named("acquisition.failed")

    virtual.run(main)


def test_expiry_is_announced_step_by_step(tmp_path: Path) -> None:
    """Each threshold before a certificate's end is announced once, and whether a renewed file lies unused."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        old = make_certificate("short", pool_key(2), not_after=virtual.START + timedelta(hours=26))
        world.register(old)
        world.write("app.pem", old.pem)
        world.configure(agent='rescan_interval = "5m"')
        async with world.running():
            await anyio.sleep(3 * HOUR)
            world.write("app.pem", make_certificate("new", pool_key(1), not_after=NEXT_YEAR).pem)
            await anyio.sleep(20 * HOUR)
        warned = world.log.named("certificate.expiring")
        hours = [round((virtual.START + timedelta(hours=26) - event["at"]).total_seconds() / HOUR) for event in warned]
        assert hours == [26, 24, 12]
        assert ["unused" in event["message"] for event in warned] == [False, False, True]

    virtual.run(main)
