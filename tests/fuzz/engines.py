"""What makes inputs, each in a process of its own: libFuzzer by way of atheris, or chance."""

from __future__ import annotations

import importlib
import random
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fuzz.target import Target

SLOW = 5.0
"""Seconds for one input; the longest take some tens of milliseconds."""
MEMORY = 1 << 30
"""Bytes beyond what the engine itself takes."""


def names() -> list[str]:
    """Return the names of all targets."""
    from tests.fuzz import targets  # noqa: PLC0415 - not before `agent` may be imported

    return list(targets())


def _target(name: str) -> Target:
    from tests.fuzz import targets  # noqa: PLC0415 - not before `agent` may be imported

    return targets()[name]


def one(name: str, _seconds: float, _directory: Path, _seed: int, file: str) -> None:
    """Run a target with the content of a file."""
    _target(name).run(Path(file).read_bytes())


def at_random(name: str, seconds: float, directory: Path, seed: int, _file: str) -> None:
    """Change seeds at random until the time is over."""
    from tests.fuzz.mutation import mutants  # noqa: PLC0415 - likewise

    target = _target(name)
    limit = MEMORY + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    end, count = time.monotonic() + seconds, 0
    for content in mutants(target, seed):
        began = time.monotonic()
        if began > end:
            break
        try:
            target.run(content)
            assert time.monotonic() - began < SLOW, "slow"
        except BaseException:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "failed").write_bytes(content)
            raise
        count += 1
    sys.stderr.write(f"{name}: {count} inputs, nothing found\n")


def by_coverage(name: str, seconds: float, directory: Path, seed: int, _file: str) -> None:
    """Let libFuzzer choose until the time is over; ends the process."""
    from tests.fuzz.mutation import mutated  # noqa: PLC0415 - likewise

    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["agent", "json", "tomllib", "http", "msal", "jwt"]):
        target = _target(name)
    directory.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(target.seeds):
        (directory / f"seed-{number}").write_bytes(content)
    dictionary = directory.with_suffix(".dict")
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    options: Sequence[str] = (
        name, str(directory), *([f"-dict={dictionary}"] if target.words else []), f"-max_total_time={int(seconds)}",
        f"-max_len={target.largest}", f"-seed={seed}",
        f"-timeout={int(SLOW)}", f"-rss_limit_mb={MEMORY >> 20}", f"-artifact_prefix={directory.with_suffix('')}-",
        "-print_final_stats=1",
    )  # fmt: skip

    def mutate(content: bytes, largest: int, number: int) -> bytes:
        """Change an input as libFuzzer does, or as one who knows what a value of JSON looks like."""
        if number % 2:
            return bytes(atheris.Mutate(content, largest))
        return mutated(content, target, random.Random(number))[:largest]  # noqa: S311 - not for secrets

    atheris.Setup(list(options), target.run, custom_mutator=mutate)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    """Write a word as libFuzzer's dictionaries want it."""
    return "".join(f"\\x{byte:02x}" for byte in word)
