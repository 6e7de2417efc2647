"""What the simulation found of clocks and rests: one test for each, with the smallest story that shows it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from agent.engine.guard import LONGEST_PAUSE, _Fight
from agent.watching.watcher import LONGEST_RETRY, _Refused
from agent.watching.watchset import Directory
from tests import virtual
from tests.certificate_helpers import make_certificate, pool_key
from tests.engine_helpers import World

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = 60.0
HOUR = timedelta(hours=1)


def test_a_step_in_the_midst_of_an_attempt(tmp_path: Path) -> None:
    """A clock that goes ahead by an hour while the provider hangs does not put the next attempt off by that hour."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(29 * MINUTE)
            world.provider.fault("hang", 1)
            await anyio.sleep(MINUTE + 5)  # five seconds into the attempt, which takes twenty
            world.clock.step(HOUR)
            before = world.token()
            await anyio.sleep(2 * MINUTE)
            assert world.token() != before
            assert world.state()["state"] == "fresh"

    virtual.run(main)


def test_a_step_that_is_followed_by_a_reload(tmp_path: Path) -> None:
    """A profile that is restarted before anybody noticed that the clock was set back is renewed when it is due."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running() as supervisor:
            await anyio.sleep(10 * MINUTE)
            before = world.token()
            world.clock._start -= HOUR
            world.configure(app='timeout = "19s"')
            await supervisor.reload(reason="test")
            await anyio.sleep(21 * MINUTE)
            assert world.token() != before

    virtual.run(main)


def test_a_clock_that_was_set_back_while_no_agent_ran(tmp_path: Path) -> None:
    """A token from the future is not trusted to be young: after the start it is renewed at once."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(10 * MINUTE)
        before = world.token()
        world.clock._start -= HOUR
        async with world.running():
            await anyio.sleep(1)
            assert world.token() != before

    virtual.run(main)


def test_retry_after_holds_for_all_certificates_of_a_profile(tmp_path: Path) -> None:
    """When a new certificate is answered with Retry-After, neither that nor the old one is used before its end."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        new = make_certificate("new", pool_key(1), not_after=virtual.START + timedelta(days=400))
        world.register(new)
        async with world.running():
            await anyio.sleep(25 * MINUTE)
            world.provider.fault("throttle", 1, retry_after=600)
            world.write("app.pem", new.pem)
            await anyio.sleep(10 * MINUTE)  # the renewal falls into it
            assert len(world.requests()) == 2
            await anyio.sleep(2 * MINUTE)
            assert len(world.requests()) == 3
            assert world.state()["credential"]["thumbprint"] == new.thumbprint

    virtual.run(main)


def test_leftovers_of_a_profile_that_was_removed_meanwhile(tmp_path: Path) -> None:
    """What a killed agent left beside the file of a profile is removed, also if that is no longer configured."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("app", "gone", gone='on_removal = "keep"')
        async with world.running():
            await anyio.sleep(1)
        left = tmp_path / "run" / ".gone.token.0123456789abcdef.tmp"
        left.write_text("half a token")
        world.configure("app")
        async with world.running():
            assert world.token("gone")
            assert not left.exists()

    virtual.run(main)


def test_patience_has_no_end() -> None:
    """A watch that is refused, or a file that is contested, for the two-thousandth time ends nothing."""
    refused, fight, place = _Refused(), _Fight(), Directory("/run", 1, 1)
    for number in range(2000):
        refused.add({place: "no"}, float(number))
        fight.repaired(float(number))
    assert refused.retry_at == 1999 + LONGEST_RETRY
    assert fight.next_at == 1999 + LONGEST_PAUSE
