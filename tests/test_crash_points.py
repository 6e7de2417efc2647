"""The agent killed before each system call that changes files, one by one: nothing torn, nothing open, nothing left."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.crashpoints.calls import SUPPORTED
from tests.process_helpers import ROOT
from tests.sink_helpers import needs_root

pytestmark = [
    pytest.mark.skipif(not SUPPORTED, reason="needs to know the numbers of system calls"),
    pytest.mark.timeout(300),
]
ENUMERATED = {
    "reload": 80, "slow-reload": 70, "once": 60, "first": 40, "renewal": 40, "promotion": 25, "outage": 25,
    "write": 8, "write-for-group": 9, "write-for-readers": 9, "write-inherited": 8, "write-for-group-inherited": 9,
    "write-for-readers-inherited": 9, "remove": 3, "save": 12,
}  # fmt: skip
"""The operations, the longest first, and how many points each has at the least."""
STEPS = {"slow-reload": 3}
"""Only each n-th point, where it is another one's with slow disks; ``python -m tests.crashpoints`` takes all."""


def enumerate_points(*arguments: str) -> tuple[int, int, str]:
    """Run the enumeration, and return its kills, the wrong ones of them, and all that it said."""
    command = [sys.executable, "-m", "tests.crashpoints", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    counted = re.search(r"(\d+) kills +(\d+) wrong", done.stdout)
    assert counted, done.stderr
    kills, wrong = map(int, counted.groups())
    assert done.returncode == (1 if wrong else 0)
    return kills, wrong, done.stdout


@needs_root
@pytest.mark.parametrize("scenario", ENUMERATED)
def test_killed_anywhere(scenario: str) -> None:
    """Readers find old or new as a whole, nobody else reads; the next start ends fresh, with just the right files."""
    every = STEPS.get(scenario, 1)
    kills, wrong, said = enumerate_points(scenario, "--step", str(every))
    assert not wrong, said
    assert kills >= ENUMERATED[scenario] // every


@pytest.mark.parametrize(
    ("scenario", "found"),
    [
        ("broken-in-place", "is torn"),
        ("broken-gap", "gone"),
        ("broken-open", "open to others"),
        ("broken-stray", "a file of nobody"),
        ("broken-forgetful", "something else is there"),
    ],
)
def test_what_is_broken_is_found(scenario: str, found: str) -> None:
    """A writer that is not atomic, lets others read, or leaves something behind is caught, and the place named."""
    _, wrong, said = enumerate_points(scenario)
    assert wrong
    assert found in said


def test_every_call_can_be_a_point() -> None:
    """With --all also the calls that only look are points, in whatever thread they are made."""
    kills, wrong, said = enumerate_points("write", "--all", "--calls", "--step", "7")
    assert kills > 5
    assert not wrong, said
    assert "futex" not in said
    assert "renameat" in said
