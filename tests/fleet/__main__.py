"""``python -m tests.fleet [--agents N]``: prints the figures; for 10,000 agents also renews `docs/fleet.*`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fleet import plot, report
from tests.fleet.simulate import SCALE, simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCUMENTS = Path(__file__).parents[2] / "docs"
AGENTS = 10_000
MARKS = ("<!-- figures: python -m tests.fleet -->\n", "<!-- end of figures -->\n")


def main(arguments: Sequence[str]) -> int:
    """Simulate, print, and for the usual size write what the documentation shows."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    parser.add_argument("--agents", type=int, default=AGENTS, help=f"a multiple of {SCALE} (default: %(default)s)")
    results = simulate(parser.parse_args(arguments).agents)
    text = "\n".join(report.lines(results)) + "\n"
    sys.stdout.write(text)
    if results.agents == AGENTS:
        (DOCUMENTS / "fleet.svg").write_text(plot.svg(results), encoding="utf-8")
        write(DOCUMENTS / "fleet.md", text)
    return 0


def write(path: Path, text: str) -> None:
    """Put the figures between the two marks of a document."""
    before, rest = path.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    path.write_text(f"{before}{MARKS[0]}```text\n{text}```\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
