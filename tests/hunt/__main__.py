"""The command line; see the package."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import tests.hunt
from agent.doctor.surroundings import mount_of
from tests.hunt import report
from tests.hunt.play import Order, hunt
from tests.hunt.writers import WRITERS

if TYPE_CHECKING:
    from collections.abc import Sequence

MEMORY = Path("/dev/shm")
DISKS = (Path("/var/tmp"), Path(tempfile.gettempdir()), Path.home())
IN_MEMORY = ("tmpfs", "ramfs")


def main(arguments: Sequence[str]) -> int:
    """Hunt in one place after the other, and return 1 if anything was not as it has to be."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.hunt",
        description=tests.hunt.__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    least = "in each place; it ends when both are reached"
    parser.add_argument("--reads", type=int, default=1_000_000, metavar="N", help=f"of token files, {least}")
    parser.add_argument("--kills", type=int, default=50, metavar="N", help=f"of the agent, {least}")
    parser.add_argument("--directory", type=Path, action="append", metavar="DIR", help="default: on tmpfs, and on disk")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="of the moments, not of what they meet")
    parser.add_argument(
        "--writer",
        choices=WRITERS,
        default="sink",
        help="sink: the program's own; all others are to be found, and are alone",
    )
    chosen = parser.parse_args(arguments)
    order = Order(chosen.reads, chosen.kills, chosen.seed, chosen.writer)
    bad = False
    for place in chosen.directory or usual_places():
        kills = f" and {order.kills:,} kills" * order.is_real
        sys.stdout.write(f"hunting in {place}: at least {order.reads:,} reads{kills}\n")
        sys.stdout.flush()
        result = hunt(place.resolve(), order)
        sys.stdout.write("\n".join(report.lines(result, order)) + "\n")
        sys.stdout.flush()
        bad |= result.is_bad
    return 1 if bad else 0


def usual_places() -> list[Path]:
    """Return a place in memory, and one on a disk, as far as there are such."""
    disk = next((path for path in DISKS if path.is_dir() and mount_of(path.resolve()).kind not in IN_MEMORY), None)
    return [path for path in (MEMORY, disk) if path and path.is_dir()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
