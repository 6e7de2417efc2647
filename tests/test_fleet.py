"""A fleet's load on its provider: spread, bounded, and simulated by the decisions that the real engine takes."""

from __future__ import annotations

import math
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import anyio
import pytest

from agent import schedule
from agent.config.model import Refresh
from tests import virtual
from tests.engine_helpers import World
from tests.fleet import figures, plot, report, scenarios, simulate
from tests.fleet.agents import Agent, Manner, without_jitter
from tests.fleet.scenarios import HOUR, MINUTE, OUTAGE, PROFILES

if TYPE_CHECKING:
    from pathlib import Path

AGENTS = 300


@pytest.fixture(scope="module")
def day() -> scenarios.Outcome:
    """The day of a small fleet."""
    return scenarios.day(range(AGENTS), Manner())


def test_steady_state_is_flat(day: scenarios.Outcome) -> None:
    """Six hours after all machines have booted in the same second, no minute is twice as busy as the mean."""
    load = figures.steady(day)
    assert load.minute < 1.8 * load.mean
    assert load.mean == pytest.approx(AGENTS * len(PROFILES) / (27 * MINUTE), rel=0.05)


def test_the_renewals_after_a_boot_are_spread(day: scenarios.Outcome) -> None:
    """The first renewals after a boot of all machines are spread over minutes, as is what an outage held up."""
    mean = figures.steady(day).mean
    for begin in (0, OUTAGE[1]):
        assert figures.load(day.requests, begin + 2 * MINUTE, begin + HOUR).minute < 6 * mean


def test_an_outage_is_no_storm(day: scenarios.Outcome) -> None:
    """A provider that is down gets a probe of each machine in half a minute; back again, all within a minute."""
    probes = figures.load(day.requests, OUTAGE[0] + 5 * MINUTE, OUTAGE[1])
    assert probes.mean < AGENTS / 25
    assert probes.minute < 1.3 * probes.mean
    after = figures.load(day.requests, OUTAGE[1], OUTAGE[1] + 2 * MINUTE)
    assert after.second < AGENTS * len(PROFILES) / 12
    assert day.served[-1] < 62
    assert len(day.served) == AGENTS * len(PROFILES)


def test_the_first_token_is_not_delayed() -> None:
    """Somebody waits for a first token: discovery, one probe and the others, and no pause between them."""
    booted = scenarios.short(range(20), Manner(), scenarios.Down(), MINUTE)
    assert booted.served[-1] <= 3 * scenarios.TOOK
    assert sum(booted.requests) == 20 * (len(PROFILES) + 1)


def test_a_busy_provider_is_not_besieged() -> None:
    """Who is sent away with a Retry-After does not come back with all the others: all are served soon."""
    ours, still = (
        scenarios.short(range(100), manner, scenarios.Busy(20, 60), 8 * MINUTE)
        for manner in (Manner(), without_jitter())
    )
    assert len(ours.served) == 100 * len(PROFILES)
    assert len(still.served) < 0.3 * len(ours.served)
    assert sum(ours.requests) < 8 * len(ours.served)


def test_refusals_do_not_march_in_step() -> None:
    """Machines that were refused in the same second ask again at different times."""
    outcome = scenarios.short(range(100), Manner(), scenarios.Refusing(), 400)
    again = outcome.requests[200:]
    assert sum(again) == 100 * len(PROFILES)
    assert max(again) < sum(again) / 15


def test_places_are_kept_and_even() -> None:
    """The same machine and profile has the same instant always; over machines, instants are uniform (KS, 0.1 %)."""
    instants = [schedule.place(f"machine{number}", "graph") for number in range(2000)]
    assert instants == [schedule.place(f"machine{number}", "graph") for number in range(2000)]
    away = max(abs(instant - rank / 2000) for rank, instant in enumerate(sorted(instants)))
    assert away < 1.95 / math.sqrt(2000)


def test_places_of_a_machine_do_not_follow_one_another() -> None:
    """Where one profile of a machine stands says nothing about where another one does (chi-square, 0.1 %)."""
    slots = Counter(
        (int(schedule.place(machine, "graph") * 4), int(schedule.place(machine, "billing") * 4))
        for machine in map(str, range(3200))
    )
    assert sum((slots[a, b] - 200) ** 2 / 200 for a in range(4) for b in range(4)) < 37.7


@pytest.mark.parametrize("random", [0.5, 0.83])
def test_the_real_engine_asks_at_the_same_instants(tmp_path: Path, random: float) -> None:
    """The whole engine, with MSAL and files, asks at exactly the instants of the simulation: boot, outage, end."""
    names, down, end = PROFILES[:4], (1.2 * HOUR, 2.7 * HOUR), 3.5 * HOUR

    def chance() -> float:
        return random

    real: list[tuple[float, str]] = []

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.machine, world.random = "machine7", chance
        world.configure(*names, agent="watch = false")
        text = (tmp_path / "config.toml").read_text().replace("refresh = { jitter = 0 }", "")
        world.write("config.toml", text)
        async with world.running():
            await anyio.sleep(down[0])
            world.provider.fault("drop", None)
            await anyio.sleep(down[1] - down[0])
            world.provider.recover()
            await anyio.sleep(end - down[1] - 1)
        for entry in world.provider.requests:
            at = (datetime.fromisoformat(entry.at) - virtual.START).total_seconds()
            real.append((round(at, 1), entry.endpoint))

    virtual.run(main)
    simulated: list[tuple[float, str]] = []
    agent = Agent(
        "machine7",
        names,
        Manner(Refresh(), lambda _machine: chance),
        lambda at, endpoint, _name: simulated.append((round(at, 1), endpoint)),
    )
    agent.boot(0.0, scenarios.Down(down, took=0.0))
    while agent.next_at < end - 1:
        agent.step()
    assert len(simulated) > 100
    assert Counter(simulated) == Counter(real)


def test_the_report_and_the_drawing() -> None:
    """The command's figures fit a terminal of 80 columns, and the drawing is XML without a gap."""
    outcome = scenarios.cron(100)
    names = ("token-agent", "without jitter", "cron at the full hour")
    short = {name: simulate.sent_away(range(10), without_jitter()) for name in names[:2]}
    results = report.Results(10, dict.fromkeys(names, outcome), short, dict.fromkeys(names[:2], outcome), outcome)
    assert max(len(line) for line in report.lines(results)) <= 80
    drawing = ET.fromstring(plot.svg(results))  # noqa: S314
    assert len(drawing.findall("{http://www.w3.org/2000/svg}polyline")) == 6
