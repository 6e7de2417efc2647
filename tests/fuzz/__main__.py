"""Hostile input for as long as you like: ``python -m tests.fuzz [TARGET...] [--minutes N]``.

With `atheris` in the environment (``pip install atheris``; it is none of the project's dependencies) inputs are
chosen by the code they reach (libFuzzer), and what reached something new is kept below ``--corpus``. Without it seeds
are changed at random, which finds less. A target that fails writes its input to ``--corpus`` and names it; give that
file as TARGET=FILE to run it alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import engines


def main() -> int:
    """Run the targets one after the other, and return 1 if any failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all of them, one after the other")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--corpus", type=Path, default=Path(tempfile.gettempdir()) / "token-agent-fuzz")
    arguments = parser.parse_args()
    engine = engines.by_coverage if importlib.util.find_spec("atheris") else engines.at_random
    failed = []
    for name in arguments.targets or engines.names():
        target, _, file = name.partition("=")
        process = multiprocessing.get_context("spawn").Process(
            target=engines.one if file else engine,
            args=(target, arguments.minutes * 60, arguments.corpus / target, arguments.seed, file),
        )
        sys.stderr.write(f"== {target}\n")
        process.start()
        process.join()
        if process.exitcode:
            failed.append(target)
    if failed:
        sys.stderr.write(f"FAILED: {', '.join(failed)}; see {arguments.corpus}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
