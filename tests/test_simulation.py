"""More than a thousand virtual days of everything that goes wrong, by seed; see tests/simulation.

Each test plays scenarios of ten days in a process of its own. What they once found has a test of its own where it was
mended: a seed is another scenario after each change of what is drawn.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import mutants

ROOT = Path(__file__).parent.parent
DAYS_EACH, SEEDS_EACH, TESTS = 10, 13, 8


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
    """A hundred and thirty virtual days, in scenarios of ten, keep all promises."""
    days, first = SEEDS_EACH * DAYS_EACH, 1000 + SEEDS_EACH * number
    said = simulate("--days", str(days), "--days-each", str(DAYS_EACH), "--first", str(first), "--jobs", "1")
    assert f"\n{days} virtual days" in f"\n{said}"
    assert "broken: none" in said


@pytest.mark.timeout(300)
def test_what_is_broken_is_found() -> None:
    """Tokens late, swapped or put back, an unheeded Retry-After, a leak, a false status and more are called out."""
    assert "10 of 10 broken machines are found" in simulate("--broken")


def test_what_a_mutant_replaces_stands_in_the_tree() -> None:
    """Each text that `--mutants` replaces stands exactly once in its file, and no two mutants have the same name."""
    table = mutants.load()
    found = {mutant.name: (ROOT / mutant.path).read_text().count(mutant.text) for mutant in table}
    assert len(found) == len(table) >= 20
    assert set(found.values()) == {1}, [name for name, count in found.items() if count != 1]


def test_a_seed_is_replayed_exactly() -> None:
    """The same seed is the same run to the last line of its trace, threads and all."""
    arguments = ("--seed", "7", "--days", "2", "--trace")
    first, second = simulate(*arguments), simulate(*arguments)
    told = [re.sub(r".*s of CPU, memory.*KiB, ", "", text) for text in (first, second)]
    assert told[0] == told[1]
    assert first.count("\n") > 50
