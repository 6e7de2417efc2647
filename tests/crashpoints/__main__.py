"""The command line; see the package."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path

from tests.certificate_helpers import pool_key
from tests.crashpoints import broken, commands, living, writing
from tests.crashpoints.runner import Runner

SCENARIOS = (
    writing.Write, writing.WriteForGroup, writing.WriteForReaders, writing.WriteInherited,
    writing.WriteForGroupInherited, writing.WriteForReadersInherited, writing.Remove, writing.Save, commands.First,
    commands.Once, living.Renewal, living.Reload, living.SlowReload, living.Promotion, living.Outage,
)  # fmt: skip
BROKEN = (broken.InPlace, broken.Gap, broken.Open, broken.Stray, broken.Forgetful)
BY_NAME = {each.name: each for each in (*SCENARIOS, *BROKEN)}


def main() -> int:
    """Run the scenarios one after the other, and return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.crashpoints", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    usual = [each.name for each in SCENARIOS]
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"default: {', '.join(usual)}")
    parser.add_argument("--all", action="store_true", help="every system call, not only those that change files")
    parser.add_argument("--from", type=int, default=1, dest="first", metavar="N", help="begin at a point")
    parser.add_argument("--step", type=int, default=1, metavar="N", help="take each n-th point only")
    parser.add_argument("--calls", action="store_true", help="show the calls")
    arguments = parser.parse_args()
    if unknown := set(arguments.scenarios) - BY_NAME.keys():
        parser.error(f"there is no {min(unknown)}")
    for number in (0, 1, 9):
        pool_key(number)
    pool_key()
    failed = 0
    for name in arguments.scenarios or usual:
        failed += enumerate_points(name, arguments)
    return 1 if failed else 0


def enumerate_points(name: str, arguments: argparse.Namespace) -> int:
    """Kill one scenario everywhere; print and return how often something was wrong."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="token-agent-crash-") as directory:
        Path(directory).chmod(0o755)
        runner = Runner(BY_NAME[name], Path(directory).resolve(), every=arguments.all)
        with runner.prepared() as report:
            if arguments.calls:
                print(*(f"{n:5}  {call}" for n, call in enumerate(report.calls, 1)), sep="\n")
            for point in itertools.count(arguments.first, arguments.step):
                if not runner.kill_at(point):
                    break
    print(*(f"{name}: {failure}" for failure in report.failures), sep="\n", end="\n" if report.failures else "")
    took = time.monotonic() - began
    print(f"{name:28} {report.kills:5} kills  {len(report.failures):3} wrong  {took:6.1f} s", flush=True)
    return len(report.failures)


if __name__ == "__main__":
    sys.exit(main())
