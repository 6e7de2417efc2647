"""The process that replaces its files every 50 ms: by the program's own sink, or in a way that has to be found."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent import formats
from agent.config.model import Profile
from agent.output import sink
from agent.tokens import AccessToken
from tests.certificate_helpers import CLIENT_ID
from tests.emulator_helpers import TENANT
from tests.hunt.board import WRITER, Board, die_with_parent
from tests.hunt.contents import HOT, resource
from tests.hunt.provider import LIFETIME, Numbering

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.hunt.contents import File

INTERVAL = 0.05
MOMENT = 0.001
"""Seconds that what is wrong can be seen for."""


class Writer:
    """Writes as the agent does."""

    name = "sink"

    def __init__(self, board: Board, files: Sequence[File]) -> None:
        self._board, self._files = board, files
        self._key = Numbering.of(board, WRITER)
        keys = {"name": HOT, "tenant": TENANT, "client_id": CLIENT_ID, "scopes": f"{resource(HOT)}/.default"}
        self._profile = Profile.model_validate(keys | {"token_file": [file.keys() for file in files]})

    def run(self) -> None:
        """Begin as the agent does, and write until the hunt is over."""
        die_with_parent()
        sink.sweep(file.path for file in self._files)
        due = time.monotonic()
        while not self._board.is_over:
            self.rotate()
            due += INTERVAL  # what a slow disk delays is made up for
            time.sleep(max(0.0, due - time.monotonic()))

    def rotate(self) -> None:
        """Give a new token to every file. What has been written is what the next reader has to find."""
        now = datetime.now(UTC)
        token = AccessToken(self.issue(now), "Bearer", now, now + LIFETIME)
        serial = self._board.issued[WRITER]
        for file, wanted in zip(self._files, self._profile.token_file, strict=True):
            self.write(file.path, formats.render(token, self._profile, wanted))
            self._board.note(file.number, serial)

    def issue(self, now: datetime) -> str:
        """Return the next token."""
        return self._key.sign(self.claims(now))

    def claims(self, now: datetime, profile: str = HOT) -> dict[str, object]:
        """Return what a token says."""
        return {"aud": resource(profile), "exp": int((now + LIFETIME).timestamp())}

    def write(self, path: Path, content: bytes) -> None:
        """Make a file hold a content."""
        sink.write(path, content, sink.Access())


class InPlace(Writer):
    """Writes over the old file, piece by piece."""

    name = "in-place"

    def write(self, path: Path, content: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for piece in (content[: len(content) // 2], content[len(content) // 2 :]):
            time.sleep(MOMENT)
            os.write(descriptor, piece)
        os.close(descriptor)


class Unlink(Writer):
    """Removes the old file before there is a new one."""

    name = "unlink"

    def write(self, path: Path, content: bytes) -> None:
        path.unlink(missing_ok=True)
        time.sleep(MOMENT)
        super().write(path, content)


class Stray(Writer):
    """Has a temporary file that nobody knows as one."""

    name = "stray"

    def write(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f"{path.name}.new")
        super().write(temporary, content)
        time.sleep(MOMENT)
        temporary.replace(path)


class Open(Writer):
    """Lets everybody read the file until its mode is put right."""

    name = "open"

    def write(self, path: Path, content: bytes) -> None:
        sink.write(path, content, sink.Access(mode=0o644))
        time.sleep(MOMENT)
        path.chmod(0o600)


class OtherToken(Writer):
    """Now and then writes the token of another profile."""

    name = "other-token"

    def issue(self, now: datetime) -> str:
        wrong = self._board.issued[WRITER] % 5 == 4
        return self._key.sign(self.claims(now, "other" if wrong else HOT))


class Backwards(Writer):
    """Now and then writes a token that is older than the one before."""

    name = "backwards"

    def issue(self, now: datetime) -> str:
        newest = super().issue(now)
        serial = self._board.issued[WRITER]
        return self._key.numbered(self.claims(now), serial - 2) if serial % 5 == 4 else newest


WRITERS = {each.name: each for each in (Writer, InPlace, Unlink, Stray, Open, OtherToken, Backwards)}
