"""All checks by one command: ``python -m tests``. Further arguments go to pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORKERS = (os.cpu_count() or 1) + 1
"""Many tests wait most of their time: for a watch, a back-off, a systemd."""
CHECKS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
    ("pytest", "-n", str(WORKERS), "--dist", "worksteal"),
)


def main() -> int:
    """Run every check, also after one has failed, and return 1 if any did."""
    failed = []
    for check in CHECKS:
        arguments = sys.argv[1:] if check[0] == "pytest" else []
        print(f"== {' '.join(check)}", flush=True)
        if subprocess.run([sys.executable, "-m", *check, *arguments], cwd=ROOT, check=False).returncode:
            failed.append(" ".join(check))
    if failed:
        print(f"FAILED: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
