"""The one place where the running state is kept, and its copy on disk.

Status (``status.json``, for everybody) and records (``state.json``, for the next start) are saved soon after a
change, a burst of changes together. Readers judge freshness by the times in them, so nothing is written just
because time passes.
"""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio

from agent import files, state, status
from agent.errors import OutputError
from agent.output import sink

if TYPE_CHECKING:
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from agent.clock import Clock
    from agent.config.model import AgentSettings
    from agent.tokens import AccessToken
    from agent.workers import Workers

STATUS_ACCESS = sink.Access(mode=0o644)
STATE_ACCESS = sink.Access(mode=0o600)
SAVE_INTERVAL = timedelta(milliseconds=50)
RETRY_INTERVAL = timedelta(seconds=10)
"""After a disk that was full or read-only."""
SAVE_INTERVAL_PER_PROFILE = timedelta(milliseconds=1)
"""Rendering a thousand profiles takes some ten milliseconds; a start of a thousand is a burst of changes."""


class Board:
    """What is known of all profiles; touched by the event loop only.

    ``claimed`` are the paths of all configured token files: never deleted on behalf of a profile that left them;
    ``reserved`` are the places, whatever their names, that are something's already.
    ``news`` is set, and replaced, at each change.
    """

    def __init__(
        self, agent: status.AgentStatus, settings: AgentSettings, clock: Clock, log: FilteringBoundLogger
    ) -> None:
        self.agent = agent
        self.profiles: dict[str, status.ProfileStatus] = {}
        self.records: dict[str, state.Record] = {}
        self.claimed: frozenset[Path] = frozenset()
        self.reserved = sink.Reserved()
        self._status_path = settings.runtime_dir / "status.json"
        self._state_path = settings.state_dir / "state.json"
        self._clock, self._log = clock, log
        self._changed = anyio.Event()
        self.news = anyio.Event()
        self._complaints: dict[Path, str] = {}

    def update(self, name: str, **changes: Any) -> None:
        """Change what is known of a profile."""
        known = self.profiles.get(name) or status.ProfileStatus(name)
        self.profiles[name] = dataclasses.replace(known, **changes)
        self._touch()

    def update_agent(self, **changes: Any) -> None:
        """Change what is known of the agent itself."""
        self.agent = dataclasses.replace(self.agent, **changes)
        self._touch()

    def remember(self, name: str, record: state.Record) -> None:
        """Keep what the next start needs to recognise a token; for which one the hook has run is known better here."""
        before = self.records.get(name)
        self.records[name] = dataclasses.replace(record, announced=before.announced) if before else record
        self._touch()

    def is_announced(self, name: str, token: AccessToken) -> bool:
        """Whether the hook of a profile has come to its end for this token."""
        record = self.records.get(name)
        return record is not None and record.announced == state.token_hash(token.secret)

    def announce(self, name: str, token: AccessToken) -> None:
        """Keep that the hook of a profile has come to its end for this token."""
        if record := self.records.get(name):
            self.records[name] = dataclasses.replace(record, announced=state.token_hash(token.secret))
            self._touch()

    def forget(self, name: str) -> None:
        """Drop a profile that is no longer configured."""
        self.profiles.pop(name, None)
        self.records.pop(name, None)
        self._touch()

    def arrange(self, names: list[str]) -> None:
        """Put the profiles in the order of the configuration."""
        self.profiles = {name: self.profiles[name] for name in names if name in self.profiles}
        self._touch()

    def _touch(self) -> None:
        self._changed.set()
        self.news.set()
        self.news = anyio.Event()

    def restore(self) -> None:
        """Read the records of the last run; without them every token is acquired anew, which is safe."""
        try:
            self.records = state.parse(files.read_bytes(self._state_path, limit=64 << 20))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            self._log.warning("state.unusable", path=str(self._state_path), message=str(error))

    async def keep_saved(self, workers: Workers) -> None:
        """Save whenever something changed; runs until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            interval = SAVE_INTERVAL + SAVE_INTERVAL_PER_PROFILE * len(self.profiles)
            if not await workers.disk(self.save):
                interval = max(interval, RETRY_INTERVAL)
                self._changed.set()
            await self._clock.sleep_until(self._clock.now() + interval)

    def save(self) -> bool:
        """Write both files, and return whether they are; may be called in a thread.

        A full or read-only disk costs the copy, never the tokens; said once.
        """
        profiles, records = tuple(self.profiles.values()), dict(self.records)
        document = json.dumps(status.to_file(self.agent, profiles, self._clock.now()), indent=1).encode()
        shown = self._write(self._status_path, document, STATUS_ACCESS, durable=False)
        remembered = self._write(self._state_path, state.render(records), STATE_ACCESS, durable=True)
        return shown and remembered

    def _write(self, path: Path, content: bytes, access: sink.Access, *, durable: bool) -> bool:
        try:
            sink.write(path, content, access, durable=durable)
        except OutputError as error:
            if self._complaints.get(path) != error.message:
                self._log.error("state.unsaved", message=error.message, hint=error.hint)
            self._complaints[path] = error.message
            return False
        self._complaints.pop(path, None)
        return True
