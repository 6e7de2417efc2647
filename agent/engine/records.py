"""The file of what must survive a restart, where agents with other configurations may keep theirs as well.

One state directory is meant for one agent. Two that share one are a mistake that nobody notices for weeks; so each
leaves alone what the other has written meanwhile, instead of putting back what it knew of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent import files, state
from agent.output import sink

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ACCESS = sink.Access(mode=0o600)


class Records:
    """``state.json`` at ``path``, for the agent of one configuration; all methods block."""

    def __init__(self, path: Path, config: str) -> None:
        self.path = path
        self._config = config
        self._known = b""
        self._others: dict[str, state.Record] = {}

    def load(self) -> dict[str, state.Record]:
        """Return all that was left, others' as well: a configuration that was moved finds its tokens again.

        Raises:
            OSError: it cannot be read.
            ValueError: it is damaged.
        """
        content = files.read_bytes(self.path, limit=state.LARGEST)
        found = state.parse(content)
        self._learn(content, found)
        return found

    def save(self, records: Mapping[str, state.Record]) -> None:
        """Write this configuration's records, beside those that others have there by now.

        Raises:
            OutputError: the file cannot be written; what was there still is.
        """
        try:
            content = files.read_bytes(self.path, limit=state.LARGEST)
            if content != self._known:
                self._learn(content, state.parse(content))
        except (OSError, ValueError):
            pass  # nobody's by now
        document = state.render({**self._others, **{n: r for n, r in records.items() if self.is_own(r)}})
        sink.write(self.path, document, ACCESS)
        self._known = document

    def is_own(self, record: state.Record) -> bool:
        """Whether a record is of this configuration, as far as it says."""
        return record.config in ("", self._config)

    def _learn(self, content: bytes, found: Mapping[str, state.Record]) -> None:
        self._known, self._others = content, {n: record for n, record in found.items() if not self.is_own(record)}
