"""Runs scenarios, each in a process of its own, forked when everything is loaded; and reports what came of them."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import resource
import shutil
import sys
import time
import traceback
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.certificate_helpers import pool_key
from tests.emulator_helpers import signing_key
from tests.simulation import broken, disks, mutants, plans, scenario
from tests.simulation.play import Play

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TAIL = 40
"""Lines of the trace that a failure shows."""
DAYS_EACH = 10.0
GROWTH, GROWTH_PER_DAY = 32 << 10, 1 << 9
"""KiB by which memory may grow: twice of what ten days take, and of what is kept of each day to judge by."""


@dataclass
class Outcome:
    """What came of a scenario: the digest of its trace, counts, seconds of CPU, KiB more; what was broken, if any.

    ``at`` is the virtual day at which it ended.
    """

    seed: int
    days: float
    digest: str
    counts: dict[str, int]
    cpu: float
    growth: int
    broken: str = ""
    at: float = 0.0

    @property
    def promise(self) -> str:
        """What was broken, in one line."""
        return self.broken.rstrip().splitlines()[-1]


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def play(
    seed: int,
    days: float,
    tell: Callable[[str], None] = lambda _line: None,
    spoil: Callable[[Play], None] = lambda _play: None,
) -> Outcome:
    """Play the scenario of a seed in this process, which is of no use for anything else afterwards."""
    drawn = scenario.draw(seed, days)
    digest, tail = hashlib.sha256(), deque[str](maxlen=TAIL)

    def line(text: str) -> None:
        digest.update(text.encode())
        tail.append(text)
        tell(text)

    mounted = disks.isolate()
    directory = disks.own_directory(mounted=mounted)
    began, memory, wrong = time.process_time(), _memory(), ""
    work = Play(drawn, directory, line, mounted=mounted)
    spoil(work)
    try:
        work.run()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the finding
        wrong = "\n".join((str(drawn), *map(str, drawn.events), "---- the last that happened", *tail, _said(error)))
    finally:
        if not mounted:  # else all of it ends with this process
            shutil.rmtree(directory, ignore_errors=True)
    cpu = time.process_time() - began
    grown, at = _memory() - memory, work.time.true / scenario.DAY
    if not wrong and grown > GROWTH + GROWTH_PER_DAY * days:
        wrong = f"{drawn}\nmemory grew by {grown} KiB"
    return Outcome(seed, days, digest.hexdigest(), dict(work.counts), cpu, grown, wrong, at)


def _said(error: BaseException) -> str:
    return "---- what is wrong\n" + "".join(traceback.format_exception(error)[-12:])


def _memory() -> int:
    """Return the KiB that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def prepare() -> None:
    """Load and make what all scenarios need."""
    signing_key()
    for number in range(plans.KEYS):
        pool_key(number)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # what is collected is little, and looking for it a tenth of the time


def forked(
    seed: int, days: float, *, trace: bool = False, spoil: Callable[[Play], None] = lambda _play: None
) -> tuple[int, int]:
    """Start a scenario in a child; return its pid, and where its outcome can be read."""
    ours, theirs = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return pid, ours
    os.close(ours)
    code = 1
    try:
        outcome = play(seed, days, say if trace else lambda _line: None, spoil)
        sys.stdout.flush()
        with os.fdopen(theirs, "w") as pipe:
            json.dump(vars(outcome), pipe)
        code = 0
    except BaseException:  # noqa: BLE001 - the child must not go on as its parent
        traceback.print_exc()
    os._exit(code)


def collect(pid: int, pipe: int, seed: int, days: float) -> Outcome:
    """Return what a child says at its end."""
    with os.fdopen(pipe) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return Outcome(**json.loads(text)) if text else Outcome(seed, days, "", {}, 0.0, 0, "the process has died")


def run_many(seeds: Sequence[int], days: float, report: Callable[[Outcome], None], jobs: int) -> None:
    """Run scenarios, as many at a time as there are jobs."""
    waiting, running = deque(seeds), deque[tuple[int, int, int]]()
    while waiting or running:
        while waiting and len(running) < jobs:
            seed = waiting.popleft()
            running.append((*forked(seed, days), seed))
        pid, pipe, seed = running.popleft()
        report(collect(pid, pipe, seed, days))


def first_broken(
    seeds: Sequence[int], days: float, spoil: Callable[[Play], None] = lambda _play: None
) -> Outcome | None:
    """Play scenarios one after the other until a promise is broken; return that one."""
    outcomes = (collect(*forked(seed, days, spoil=spoil), seed, days) for seed in seeds)
    return next((each for each in outcomes if each.broken), None)


def find_broken(seeds: Sequence[int], days: float) -> bool:
    """Play scenarios on each broken machine until it is found; return whether all were."""
    found = 0
    for name, machine in broken.MACHINES.items():
        outcome = first_broken(seeds, days, machine.spoil)
        said = outcome.promise if outcome else "not found"
        found += machine.said in said
        say(f"{name}: {said[:200]} ({f'seed {outcome.seed}' if outcome else f'{len(seeds)} seeds'})")
    say(f"{found} of {len(broken.MACHINES)} broken machines are found")
    return found == len(broken.MACHINES)


def main(argv: Sequence[str]) -> int:
    """Run what the command line asks for; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--days", type=float, help="virtual days, in all")
    parser.add_argument("--days-each", type=float, default=DAYS_EACH, help="of one scenario")
    parser.add_argument("--first", type=int, default=1, help="the first seed of many")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--trace", action="store_true", help="print all that happens")
    parser.add_argument("--broken", action="store_true", help="play on machines that are broken: are they found?")
    parser.add_argument("--until-broken", action="store_true", help="stop at the first broken promise, and say when")
    parser.add_argument(
        "--mutants", nargs="?", const="", metavar="WORD", help="play with a broken engine: is it found?"
    )
    chosen = parser.parse_args(argv)
    if chosen.mutants is not None:
        mutants.survey(chosen.mutants, chosen.first, chosen.days or mutants.DAYS, chosen.jobs, say)
        return 0
    chosen.days = chosen.days or DAYS_EACH
    prepare()
    if chosen.broken:
        return 0 if find_broken(range(chosen.first, chosen.first + 6), min(chosen.days, 3.0)) else 1
    if chosen.seed is not None:
        outcome = collect(*forked(chosen.seed, chosen.days, trace=chosen.trace), chosen.seed, chosen.days)
        _print(outcome)
        return 1 if outcome.broken else 0
    count = max(1, round(chosen.days / chosen.days_each))
    if chosen.until_broken:
        return _until_broken(range(chosen.first, chosen.first + count), chosen.days_each)
    summary = Summary(count * chosen.days_each)
    run_many(range(chosen.first, chosen.first + count), chosen.days_each, summary.add, chosen.jobs)
    summary.show()
    return 1 if summary.broken else 0


def _until_broken(seeds: Sequence[int], days: float) -> int:
    outcome = first_broken(seeds, days)
    if outcome is None:
        say(f"not found in {len(seeds) * days:g} days")
        return 0
    before = (outcome.seed - seeds[0]) * days
    say(f"found after {before + outcome.at:.1f} days (seed {outcome.seed}): {outcome.promise}")
    return 1


def _print(outcome: Outcome) -> None:
    say(outcome.broken or f"seed {outcome.seed}: all promises kept")
    say(
        f"{outcome.days:g} days, {outcome.cpu:.2f} s of CPU, memory grew by {outcome.growth} KiB, {outcome.digest[:16]}"
    )
    say(", ".join(f"{name}: {count}" for name, count in sorted(outcome.counts.items())))
    if outcome.broken:
        say(f"replay: python -m tests.simulation --seed {outcome.seed} --days {outcome.days:g} --trace")


class Summary:
    """Adds up outcomes, and says how far it came."""

    def __init__(self, days: float) -> None:
        self.total, self.days, self.cpu, self.began = days, 0.0, 0.0, time.monotonic()
        self.counts: Counter[str] = Counter()
        self.broken: list[int] = []
        self._told = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count one in; print it if it is bad."""
        self.days += outcome.days
        self.cpu += outcome.cpu
        self.counts.update(outcome.counts)
        if outcome.broken:
            self.broken.append(outcome.seed)
            _print(outcome)
        if time.monotonic() > self._told + 5:
            self._told = time.monotonic()
            say(f"{self.days:g} of {self.total:g} days, {len(self.broken)} broken")

    def show(self) -> None:
        """Print the sum of it."""
        wall = time.monotonic() - self.began
        say(f"{self.days:g} virtual days in {wall:.0f} s, {self.cpu:.0f} s of CPU ({self.cpu / self.days:.3f} s a day)")
        for name, count in sorted(self.counts.items()):
            say(f"  {name}: {count}")
        say(f"broken: {', '.join(map(str, self.broken)) or 'none'}")
