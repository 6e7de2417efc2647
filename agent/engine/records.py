"""The file of what must survive a restart, where agents with other configurations may keep theirs as well.

One state directory is meant for one agent. Two that share one are a mistake that nobody notices for weeks; so each
leaves alone what the other has written meanwhile, instead of putting back what it knew of it.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from agent import files, state
from agent.errors import OutputError
from agent.output import sink

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ACCESS = sink.Access(mode=0o600)
UNREAD_HINT = "let the agent's user own it, mode 0600; until it can be read it is not written over"


class Records:
    """``state.json`` at ``path``, for the agent of one configuration; all methods block."""

    def __init__(self, path: Path, config: str) -> None:
        self.path = path
        self._config = config
        self._known = b""
        self._is_unread = False
        self._others: dict[str, state.Record] = {}

    def load(self) -> dict[str, state.Record]:
        """Return all that was left, others' as well: a configuration that was moved finds its tokens again.

        Raises:
            OSError: it cannot be read.
            ValueError: it is damaged.
        """
        self._is_unread = True
        content = self._read()
        self._is_unread = False
        found = state.parse(content)
        self._learn(content, found)
        return found

    def save(self, records: Mapping[str, state.Record]) -> None:
        """Write this configuration's records, beside those that others have there by now.

        Raises:
            OutputError: the file cannot be written; what was there still is. Nor is one that cannot be read: what it
                says of profiles that are gone is for a start that can read it.
        """
        try:
            content = self._read()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            told = sink.explained(self.path, error)
            hint = UNREAD_HINT if isinstance(error, PermissionError) else told.hint
            reason = told.message.removeprefix(f"{self.path}: ")
            raise OutputError(self.path, f"cannot be read: {reason}", hint=hint) from error
        if content != self._known:
            with contextlib.suppress(ValueError):  # if it is damaged, it is nobody's
                self._learn(content, state.parse(content), records)
        self._is_unread = False
        document = state.render({**self._others, **{n: r for n, r in records.items() if self.is_own(r)}})
        if len(document) > state.LARGEST:
            message = f"would be larger than the {state.LARGEST >> 20} MiB that are read"
            raise OutputError(self.path, message, hint="fewer token files in a profile, or shorter paths")
        sink.write(self.path, document, ACCESS)
        self._known = document

    def _read(self) -> bytes:
        """Return the file; one that is far too large is as good as damaged, and empty here."""
        try:
            return files.read_bytes(self.path, limit=state.LARGEST)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            return b""

    def is_own(self, record: state.Record) -> bool:
        """Whether a record is of this configuration, as far as it says."""
        return record.config in ("", self._config)

    def _learn(
        self, content: bytes, found: Mapping[str, state.Record], known: Mapping[str, state.Record] | None = None
    ) -> None:
        """Keep what is not ours; of a file that was not read before, all that is not known."""
        unread = found.keys() - (known or {}) if self._is_unread else ()
        others = {n: record for n, record in found.items() if not self.is_own(record) or n in unread}
        self._known, self._others = content, others
