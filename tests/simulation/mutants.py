"""Small breakages of the agent's own code, each in a copy of the tree: are they found, how soon, and by which promise?

What `broken` breaks is the machine around the engine; here it is the engine itself, by a replacement of its text.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent.parent
TABLE = Path(__file__).with_suffix(".toml")
DAYS = 300.0
"""Virtual days for each mutant."""
DAYS_EACH = 5.0
"""Days of one scenario: much is found at its end, when all has to be well."""
BROKEN = "tests.simulation.machine.BrokenError: "
PATIENCE = 1800.0
"""Seconds for all scenarios of one mutant."""


@dataclass(frozen=True)
class Mutant:
    """A text that stands once in a file of the agent, and what takes its place; ``why`` it may survive."""

    name: str
    file: str
    text: str
    instead: str
    why: str = ""

    @property
    def path(self) -> Path:
        """Where the file is, in the tree."""
        return Path("agent", self.file)


def load() -> list[Mutant]:
    """Return all of them."""
    with TABLE.open("rb") as file:
        return [Mutant(**values) for values in tomllib.load(file)["mutant"]]


def found(mutant: Mutant, first: int, days: float) -> str:
    """Play scenarios in a copy of the tree that is broken; return what came of it in one line."""
    with tempfile.TemporaryDirectory(prefix="token-agent-mutant-") as name:
        for part in ("agent", "tests"):
            shutil.copytree(ROOT / part, Path(name) / part, ignore=shutil.ignore_patterns("__pycache__"))
        path = name / mutant.path
        path.write_text(path.read_text().replace(mutant.text, mutant.instead, 1))
        chosen = ["--until-broken", "--first", str(first), "--days", str(days), "--days-each", str(DAYS_EACH)]
        command = [sys.executable, "-m", "tests.simulation", *chosen]
        environ = {**os.environ, "PYTHONHASHSEED": "0"}
        try:
            played = subprocess.run(
                command, cwd=name, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return "found: it does not come to its end"
    return (played.stdout.splitlines() or ["found at once: it does not even start"])[-1]


def survey(word: str, first: int, days: float, jobs: int, tell: Callable[[str], None]) -> None:
    """Print the table of mutants with a word in their names: after how many days each was found, by which promise."""
    mutants, survivors = [mutant for mutant in load() if word in mutant.name], list[Mutant]()
    tell(f"without any: {found(Mutant('', '__init__.py', '', ''), first, days)}")
    width = max((len(mutant.name) for mutant in mutants), default=0)
    with ThreadPoolExecutor(jobs) as pool:
        for mutant, said in zip(mutants, pool.map(lambda each: found(each, first, days), mutants), strict=True):
            tell(f"{mutant.name:{width}}  {said.replace(BROKEN, '')[:150]}")
            survivors += [] if said.startswith("found") else [mutant]
    tell(f"{len(mutants) - len(survivors)} of {len(mutants)} are found; {len(survivors)} survive:")
    for mutant in survivors:
        tell(f"  {mutant.name}: {mutant.why or 'nobody knows why'}")
