"""SECURITY.md says what is true: its tests exist, its bounds are those in force, its modes those of the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent import control, files, state, status, web
from agent.credentials import keyfiles, keypair, wrapping
from agent.engine import board, endpoint, foothold
from agent.network import answers, connection
from agent.output.access import Access
from tests.fuzz import engines

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "SECURITY.md").read_text()
MIB = 1 << 20
BOUNDS = {
    "a configuration, certificate, key or secret": f"{files.LIMIT // MIB} MiB, regular files only",
    "a CA file": "16 MiB",
    "`state.json`, `status.json`": f"{state.LARGEST // MIB} and {status.LARGEST // MIB} MiB",
    "a provider's answer, headers included": (
        f"{connection.MAX_ANSWER // MIB} MiB; {answers.MOST_NESTED:,} objects and lists"
    ),
    "a request to the control socket": f"{control.MAX_REQUEST >> 10} KiB",
    "a request to the metrics listener": f"{web.MAX_HEAD >> 10} KiB",
    "key derivation of a PFX or an encrypted key": f"{wrapping.MOST_ROUNDS:,} rounds in all",
    "an RSA key": f"{keypair.MIN_BITS} to {wrapping.MAX_BITS} bits",
    "certificates in a file": f"{keyfiles.MOST_CERTIFICATES}; a chain of {keypair.LONGEST_CHAIN}",
}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table that follows a text, without its head."""
    table = re.search(r"(?:^\|.*\n)+", TEXT.partition(heading)[2], re.MULTILINE)
    assert table
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[0].splitlines()[2:]]


def test_bounds_are_those_in_force() -> None:
    """Each bound is what the program has, and none is forgotten or made up."""
    assert {what: most.rstrip(" |") for what, most in rows("Bounds on what is read:")} == BOUNDS


def test_what_holds_a_promise_exists() -> None:
    """Each promise names tests, and all of them are there, and have tests in them."""
    promises = rows("what holds it")
    assert len(promises) >= 10
    for promise, held_by, *_ in promises:
        named = re.findall(r"`(tests/[^`]+)`", held_by)
        assert named, promise
        for name in named:
            found = list(ROOT.glob(name)) or [ROOT / name]
            assert all(path.is_dir() or "def test_" in path.read_text() for path in found), name


def test_modes_are_those_of_the_program() -> None:
    """What is said of who may read what is what files are made with."""
    assert "| `status.json` | everybody | the agent | 0644" in TEXT
    assert board.STATUS_ACCESS.mode == 0o644
    assert "| `/var/lib/token-agent` | the agent | the agent | 0700 |" in TEXT
    assert foothold.STATE_MODE == 0o700
    assert "| 0600 unless configured;" in TEXT
    assert Access().mode == 0o600
    assert endpoint.MODE & 0o007 == 0


def test_figures_are_there() -> None:
    """No figure is left open, and the number of fuzzing targets is what it is."""
    assert "@@" not in TEXT
    assert f"{len(engines.names())} targets" in TEXT


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_links_lead_somewhere(link: str) -> None:
    """Each file that is linked to is there."""
    assert (ROOT / link).exists()
