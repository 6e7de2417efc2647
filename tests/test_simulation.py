"""More than a thousand virtual days of everything that goes wrong, by seed; see tests/simulation.

Each test plays scenarios in a process of its own: fifty of ten days each run at every change; seeds that once found
something are replayed for as long as it took.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DAYS_EACH, SEEDS_EACH, TESTS = 10, 8, 13
FOUND = (
    (100, 10, "a watch that was refused a thousand times ended the agent with an OverflowError"),
)  # fmt: skip


def simulate(*arguments: str) -> str:
    """Play scenarios and return what is said of them; fail with what was broken."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    played = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=280, check=False)
    assert played.returncode == 0, played.stdout + played.stderr
    return played.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(TESTS))
def test_virtual_days(number: int) -> None:
    """Eighty virtual days, in scenarios of ten, keep all promises."""
    days, first = SEEDS_EACH * DAYS_EACH, 1000 + SEEDS_EACH * number
    said = simulate("--days", str(days), "--days-each", str(DAYS_EACH), "--first", str(first), "--jobs", "1")
    assert f"\n{days} virtual days" in f"\n{said}"
    assert "broken: none" in said


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("seed", "days", "reason"), FOUND)
def test_what_was_found_stays_mended(seed: int, days: int, reason: str) -> None:
    """A seed that once found something keeps all promises now."""
    assert "all promises kept" in simulate("--seed", str(seed), "--days", str(days)), reason


def test_a_seed_is_replayed_exactly() -> None:
    """The same seed is the same run to the last line of its trace, threads and all."""
    arguments = ("--seed", "7", "--days", "2", "--trace")
    first, second = simulate(*arguments), simulate(*arguments)
    told = [re.sub(r".*s of CPU, memory.*KiB, ", "", text) for text in (first, second)]
    assert told[0] == told[1]
    assert first.count("\n") > 50
