"""Many tokens and a wall clock that is set: nothing is asked for that is not due, and what is due is no storm."""

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

MINUTE, HOUR = 60.0, 3600.0
NAMES = tuple(f"p{number}" for number in range(30))


@pytest.mark.parametrize("hours", [1, -1, 24, -24])
def test_a_step_costs_no_request(tmp_path: Path, hours: int) -> None:
    """Thirty tokens of an hour, and a clock that is set by hours: none is asked for again, all are renewed when due."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(*NAMES)
        async with world.running():
            await anyio.sleep(20 * MINUTE)
            world.clock.step(timedelta(hours=hours))
            await anyio.sleep(9.9 * MINUTE)
            assert len(world.requests()) == len(NAMES)
            assert {world.state(name)["state"] for name in NAMES} == {"fresh"}
            await anyio.sleep(0.2 * MINUTE)
            assert len(world.requests()) == 2 * len(NAMES)
            assert {world.state(name)["state"] for name in NAMES} == {"fresh"}
        assert [event["seconds"] for event in world.log.named("clock.stepped")] == [hours * HOUR]

    virtual.run(main)


@pytest.mark.parametrize("hours", [2, -2])
def test_a_step_while_no_agent_runs(tmp_path: Path, hours: int) -> None:
    """A clock that was set meanwhile makes tokens look expired, or not made yet: one request renews each."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(*NAMES)
        async with world.running():
            await anyio.sleep(5 * MINUTE)
        asked = len(world.provider.requests)
        world.clock.step(timedelta(hours=hours))
        async with world.running():
            await anyio.sleep(MINUTE)
            assert len(world.requests()) == 2 * len(NAMES)
            assert {world.state(name)["state"] for name in NAMES} == {"fresh"}
            assert all(3500 < world.state(name)["runway_seconds"] <= 3600 for name in NAMES)
        assert [entry.endpoint for entry in world.provider.requests[asked:]].count("discovery") == 1

    virtual.run(main)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_step_during_an_outage_changes_no_pace(tmp_path: Path, hours: int) -> None:
    """Probes of a provider that is down go on a second to a minute apart, and end with the outage."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(*NAMES)
        world.provider.fault("drop", None)
        at: list[float] = []
        async with world.running():
            for step in (timedelta(0), timedelta(hours=hours), timedelta(hours=hours)):
                world.clock.step(step)
                for _ in range(int(10 * MINUTE)):
                    await anyio.sleep(1)
                    at += [loop.time()] * (len(world.provider.requests) - len(at))
            gaps = [after - before for before, after in pairwise(at)]
            assert len(at) < 70
            assert 1 <= min(gaps) <= max(gaps) <= 61
            world.provider.recover()
            await anyio.sleep(61)
            assert {world.state(name)["state"] for name in NAMES} == {"fresh"}
            assert len(world.requests()) == len(NAMES)

    virtual.run(main)
