"""What all readers have in common: a process each, files by chance, every single read checked, findings at the end."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.hunt.board import Board, die_with_parent
from tests.hunt.contents import HOT, BadReadError, File, excerpt

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

NICE = 5
"""Readers leave the processor to those who write, so that there is something to read."""
BATCH = 16
REMEMBERED = 2000
"""Contents that are known to be good."""
DESCRIBED = 5
"""Bad reads of one reader that are described."""


@dataclass
class Findings:
    """What a reader has found; ``seen`` are the tokens by profile and number, ``bad`` describes the first bad reads."""

    name: str
    manner: str
    of_tokens: bool
    reads: int = 0
    bad_reads: int = 0
    bad: list[str] = field(default_factory=list)
    seen: set[tuple[str, int]] = field(default_factory=set)


class Reader:
    """Opens a file, reads all of it, closes it."""

    name = "whole"
    manner = "open, read all, close"
    formats: Sequence[str] = ()
    """Those it reads; none: all."""
    of_tokens = True
    """Whether it is token files that it reads."""

    def __init__(self, board: Board, files: Sequence[File], documents: Sequence[Path], seed: str) -> None:
        mine = [file for file in files if not self.formats or file.format in self.formats]
        self._hot = [file for file in mine if file.profile == HOT]
        self._others = [file for file in mine if file.profile != HOT] or self._hot
        self._board, self._documents = board, documents
        self._random = random.Random(f"{seed} {self.name}")  # noqa: S311 - which file comes next is no secret
        self._known: dict[tuple[int, bytes], int] = {}
        self._findings = Findings(self.name, self.manner, self.of_tokens)

    def run(self, place: int, results: Connection) -> None:
        """Read until the hunt is over, then say what was found."""
        die_with_parent()
        os.nice(NICE)
        while not self._board.is_over:
            for _ in range(BATCH):
                self.look()
            self._findings.reads += BATCH
            self._board.reads[place] = self._findings.reads
        results.send(self._findings)

    def killed(self, by: signal.Signals, reads: int) -> Findings:
        """Return what is known of a reader that was killed, such as by SIGBUS when its file was cut off under a map."""
        self._findings.reads, self._findings.bad_reads = reads + 1, 1
        self._findings.bad.append(f"{self.name}: killed by {by.name}")
        return self._findings

    def look(self) -> None:
        """Read once, and check what comes of it."""
        file = self._random.choice(self._hot if self._random.random() < 1 / 3 else self._others)
        self._judge(file)

    def read(self, file: File) -> bytes | None:
        """Return what is in a file; None if it was checked already.

        Raises:
            OSError: it cannot be read.
            BadReadError: something else is wrong.
        """
        return file.path.read_bytes()

    def _judge(self, file: File) -> None:
        floor = self._board.newest[file.number]  # before the file is opened
        try:
            content = self.read(file)
            serial = floor if content is None else self._serial(file, content)
        except (OSError, BadReadError) as error:
            self._bad(file.path, error)
            return
        if serial < floor:
            self._bad(file.path, BadReadError(f"number {serial}, after {floor} was there", content))
        self._board.note(file.number, serial)

    def _serial(self, file: File, content: bytes) -> int:
        """Return the number of the token in a content, which is examined when it is met for the first time."""
        known = self._known.get((file.number, content))
        if known is not None:
            return known
        serial = file.serial(content)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[file.number, content] = serial
        self._findings.seen.add((file.profile, serial))
        return serial

    def _bad(self, path: Path, error: OSError | BadReadError) -> None:
        self._findings.bad_reads += 1
        if len(self._findings.bad) < DESCRIBED:
            reason = (error.strerror or "unreadable") if isinstance(error, OSError) else str(error)
            content = None if isinstance(error, OSError) else error.content
            shown = "" if content is None else f"\n      {excerpt(content)}"
            self._findings.bad.append(f"{self.name}: {path.name}: {reason}{shown}")
