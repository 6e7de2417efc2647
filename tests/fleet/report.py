"""The figures in words: what is printed, and what stands in `docs/fleet.md` between two marks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.fleet import figures
from tests.fleet.scenarios import HOUR, MINUTE, OUTAGE, PROFILES, STEADY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fleet.scenarios import Outcome

BUSY_MOST, BUSY_WISH, BUSY_SECONDS = 2000, 60, 900
"""Tokens a second that a busy provider gives to 10,000 agents, its ``Retry-After``, and for how long we look."""
REFUSED_SECONDS = 1000
STAGES = {
    "steady state": STEADY,
    "all boot in one second": (0, MINUTE),
    "the hour after the boot": (MINUTE, HOUR),
    "outage": (OUTAGE[0] + 5 * MINUTE, OUTAGE[1]),
    "its end": (OUTAGE[1], OUTAGE[1] + 2 * MINUTE),
    "the hour after its end": (OUTAGE[1] + 2 * MINUTE, OUTAGE[1] + HOUR),
}


@dataclass
class Results:
    """All that was simulated, by the manner of the fleet: ours, without jitter, cron."""

    agents: int
    days: dict[str, Outcome]
    busy: dict[str, Outcome]
    refused: dict[str, Outcome]
    minute: Outcome


def lines(results: Results) -> Iterator[str]:
    """Yield the figures, 80 columns wide at most."""
    count = results.agents * len(PROFILES)
    yield f"{results.agents:,} agents with {len(PROFILES)} profiles each, one tenant; tokens live one hour."
    yield "Requests a second: the busiest second, the mean of the busiest minute, and each"
    yield "as a multiple of the fleet's own mean in steady state."
    yield ""
    for name, outcome in results.days.items():
        yield from _day(name, outcome)
        yield ""
    yield "After the outage (token-agent): when a share of the profiles has a token"
    served = results.days["token-agent"].served
    yield "  " + ", ".join(f"{share:.0%} {figures.waited(served, share):.0f} s" for share in (0.5, 0.9, 0.99, 1))
    boot = figures.load(results.minute.requests, 0, MINUTE)
    yield f"Boot within a minute instead of a second: busiest second {boot.second:,.0f}"
    yield ""
    yield from _busy(results, count)
    yield ""
    yield from _refused(results)


def _day(name: str, outcome: Outcome) -> Iterator[str]:
    mean = figures.steady(outcome).mean
    yield f"{name:<28}{'second':>10}{'minute':>10}{'mean':>9}{'second':>11}{'minute':>10}"
    for stage, (begin, end) in STAGES.items():
        load = figures.load(outcome.requests, begin, end)
        ratios = f"{load.second / mean:>9,.1f} x{load.minute / mean:>8,.1f} x"
        yield f"  {stage:<26}{load.second:>10,.0f}{load.minute:>10,.0f}{load.mean:>9,.0f}{ratios}"


def _busy(results: Results, count: int) -> Iterator[str]:
    yield f"A boot against a provider that gives {BUSY_MOST:,} tokens a second, and 429 with"
    yield f"Retry-After: {BUSY_WISH} to everybody else; looked at for {BUSY_SECONDS // MINUTE} minutes"
    for name, outcome in results.busy.items():
        share = len(outcome.served) / count
        last = figures.waited(outcome.served, 1)
        end = f"all served after {last:.0f} s" if share == 1 else f"{share:.0%} served"
        total = sum(outcome.requests) / count
        yield f"  {name:<26}{end:<26}{total:.1f} requests a profile"


def _refused(results: Results) -> Iterator[str]:
    yield "A boot with a certificate that the provider refuses: busiest second of the"
    yield "second, third and fourth round of attempts, five minutes apart"
    for name, outcome in results.refused.items():
        rounds = [max(outcome.requests[at - 60 : at + 60]) for at in (300, 600, 900)]
        yield f"  {name:<26}" + "".join(f"{most:>10,}" for most in rounds)
