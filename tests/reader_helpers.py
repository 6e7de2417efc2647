"""Readers beside the agent: threads that read what it writes again and again, and note whatever was not whole."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import jwt

from tests.certificate_helpers import pool_key
from tests.process_helpers import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

PAUSE = 0.0005
"""Seconds between two rounds, so that the reader is not all that runs."""


def verified(token: str) -> float:
    """Check a token of the emulator's, signature and all, and return when it expires."""
    claims = jwt.decode(token, pool_key(9).public_key(), ["RS256"], options={"verify_aud": False})
    return float(claims["exp"])


def parsed(document: str) -> float:
    """Check a JSON document, which is good at all times."""
    json.loads(document)
    return float("inf")


class Reader:
    """Reads files all the time while its block runs.

    A failed read is a file that is missing, or a content that ``check`` does not take, or one that is past the end
    that ``check`` returned for it (unless ``in_time`` is false). ``failures`` has them all, the first hundred in words;
    ``contents`` all contents there were, in their order.
    """

    def __init__(self, *paths: Path, check: Callable[[str], float] = verified, in_time: bool = True) -> None:
        self.failures: list[str] = []
        self.contents: dict[Path, list[str]] = {path: [] for path in paths}
        self.reads = 0
        self._check, self._in_time = check, in_time
        self._good_until: dict[str, float] = {}
        self._news = threading.Condition()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read_all, name="reader")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def wait_for(self, path: Path, count: int) -> list[str]:
        """Wait until a file has had so many different contents, and return them."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.contents[path]) >= count, PATIENCE), self.failures[:5]
            return list(self.contents[path])

    def _read_all(self) -> None:
        while not self._over.wait(PAUSE):
            for path in self.contents:
                self._read(path)

    def _read(self, path: Path) -> None:
        self.reads += 1
        try:
            content = path.read_text()
            if content not in self._good_until:
                self._good_until[content] = self._check(content)
                with self._news:
                    self.contents[path].append(content)
                    self._news.notify_all()
            if self._in_time and time.time() > self._good_until[content]:
                raise ValueError("past its end")  # noqa: TRY301 - one place notes what is wrong
        except Exception as error:  # noqa: BLE001 - whatever it is, the reader has failed
            self.failures.append(f"{path.name}: {error!r}" if len(self.failures) < 100 else "")


def figures(pid: int) -> dict[str, int]:
    """Return what a process holds: threads, descriptors, resident memory in kB."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    memory = int(lines["VmRSS"].split()[0])
    try:
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except PermissionError:  # the agent's are for root alone; what it has room for is not
        descriptors = int(lines["FDSize"])
    return {
        "threads": int(lines["Threads"]),
        "descriptors": descriptors,
        "memory": memory,
    }
