"""The command line of the simulation; see the package."""

from __future__ import annotations

import os
import sys

if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of the replay
    command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
    os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606 - the same program again

from tests.simulation import runner

if __name__ == "__main__":
    sys.exit(runner.main(sys.argv[1:]))
