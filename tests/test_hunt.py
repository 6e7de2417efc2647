"""The hunt for a torn read (`tests.hunt`), for a moment; and that it finds what it is there to find."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.process_helpers import ROOT

TMPFS = "/dev/shm"
BROKEN = {
    "in-place": ("empty", "no whole json file", "no whole raw file", "an open file changed"),
    "unlink": ("No such file or directory", "is missing"),
    "stray": ("a file of nobody: ",),
    "open": ("mode 0644",),
    "other-token": ("a token of another profile, for api://other",),
    "backwards": ("number 2, after 4 was there",),
}
"""What is said of a writer that is not as it should be: one of these."""


def hunt(*arguments: object) -> tuple[int, bool, str]:
    """Hunt, and return how many reads of tokens there were, whether all was well, and all that was said."""
    command = [sys.executable, "-m", "tests.hunt", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False)
    counted = re.search(r"^  all +([\d,]+) ", done.stdout, re.MULTILINE)
    assert counted, done.stdout + done.stderr
    well = done.stdout.endswith("no bad reads, nothing left behind\n")
    assert done.returncode == (0 if well else 1)
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    return int(counted[1].replace(",", "")), well, done.stdout


def test_no_read_is_torn() -> None:
    """While everything rotates and is killed, readers find whole tokens in their order; nothing is left at the end."""
    reads, well, said = hunt("--directory", TMPFS, "--reads", 20_000, "--kills", 3, "--seed", 314)
    assert said.startswith("hunting in /dev/shm: at least 20,000 reads and 3 kills\ntmpfs (/dev/shm)")
    assert well, said
    assert reads >= 20_000
    assert re.search(r"killed [3-9] times", said)


@pytest.mark.parametrize("writer", BROKEN)
def test_a_bad_writer_is_found(writer: str) -> None:
    """A writer that is not atomic, opens the file to others, or writes the wrong token is found, and it is said how."""
    _, well, said = hunt("--directory", TMPFS, "--reads", 3000, "--writer", writer)
    assert not well
    assert any(text in said for text in BROKEN[writer]), said
    assert "eyJhbGciOiJSUzI1NiIs" not in said, "no more of a token than the start of its header is shown"
