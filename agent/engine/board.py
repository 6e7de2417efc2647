"""The one place where the running state is kept, and its copy on disk.

Status (``status.json``, for everybody) and records (``state.json``, for the next start) are saved soon after a
change, a burst of changes together. Readers judge freshness by the times in them, so nothing is written just
because time passes.
"""

from __future__ import annotations

import dataclasses
import errno
import json
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from agent import state, status
from agent.engine.records import UNREAD_HINT, Records
from agent.errors import OutputError
from agent.output import sink
from agent.tally import Tally
from agent.workers import StalledError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from agent.clock import Clock
    from agent.config.model import AgentSettings
    from agent.tokens import AccessToken
    from agent.workers import Workers

STATUS_ACCESS = sink.Access(mode=0o644)
UNUSABLE_HINT = "nothing has to be done: every token is acquired anew, and the file is written anew"
SAVE_INTERVAL = timedelta(milliseconds=50)
RETRY_INTERVAL = timedelta(seconds=10)
"""After a disk that was full or read-only."""
SAVE_INTERVAL_PER_PROFILE = timedelta(milliseconds=1)
"""Rendering a thousand profiles takes some ten milliseconds; a start of a thousand is a burst of changes."""


class Board:
    """What is known of all profiles; touched by the event loop only.

    ``claimed`` are the paths of all configured token files: never deleted on behalf of a profile that left them;
    ``reserved`` are the places, whatever their names, that are something's already; ``tally`` counts what happens.
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
        self.tally = Tally()
        self._status_path = settings.runtime_dir / "status.json"
        self._kept = Records(settings.state_dir / "state.json", agent.config_path)
        self._clock, self._log = clock, log
        self._changed = anyio.Event()
        self.news = anyio.Event()
        self._complaints: dict[Path, str] = {}
        self._shown_as: tuple[int, ...] = ()
        self._pause = anyio.CancelScope()

    @property
    def files(self) -> tuple[tuple[Path, Callable[[], bool]], ...]:
        """The files that this keeps, each with what tells whether it is as it has to be; that blocks, and may fail."""
        return (self._status_path, self._is_as_shown), (self._kept.path, self._kept.path.exists)

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
        """Keep what the next start needs to recognise a token; what the record cannot know is kept as it was."""
        if before := self.records.get(name):
            record = dataclasses.replace(record, announced=before.announced, proven=before.proven)
        self.records[name] = dataclasses.replace(record, config=self.agent.config_path)
        self._touch()

    def own(self, name: str) -> state.Record | None:
        """Return what is remembered of a profile of this configuration: others may share the state directory."""
        record = self.records.get(name)
        return record if record and self._kept.is_own(record) else None

    def prove(self, name: str, credential: str) -> None:
        """Keep which credential of a profile the provider took last, by its identity."""
        record = self.records.get(name)
        if record and record.proven != credential:
            self.records[name] = dataclasses.replace(record, proven=credential)
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

    async def restore(self, workers: Workers) -> None:
        """Read the records of the last run; without them every token is acquired anew, which is safe."""
        try:
            self.records = await workers.disk(self._kept.load, at=self._kept.path.parent)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            hint = UNREAD_HINT if isinstance(error, OSError) else UNUSABLE_HINT
            self._log.warning("state.unusable", path=str(self._kept.path), message=str(error), hint=hint)

    async def keep_saved(self, workers: Workers) -> None:
        """Save whenever something changed; runs until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            interval = SAVE_INTERVAL + SAVE_INTERVAL_PER_PROFILE * len(self.profiles)
            if not await self.save(workers):
                interval = max(interval, RETRY_INTERVAL)
                self._changed.set()
            with anyio.CancelScope() as self._pause:
                await self._clock.sleep_until(self._clock.now() + interval)

    def _look(self) -> tuple[int, ...]:
        found = self._status_path.lstat()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _is_as_shown(self) -> bool:
        try:
            return self._look() == self._shown_as
        except FileNotFoundError:
            return False

    def save_anew(self) -> None:
        """Save soon though nothing changed: the files are missing, or were altered."""
        self._touch()
        self._pause.cancel()

    async def save(self, workers: Workers) -> bool:
        """Write both files, and return whether they are.

        A full, read-only or hanging disk costs the copy, never the tokens; said once.
        """
        agent, profiles = self.agent, tuple(self.profiles.values())

        def write_status() -> None:
            document = json.dumps(status.to_file(agent, profiles, self._clock.now()), indent=1).encode()
            sink.write(self._status_path, document, STATUS_ACCESS, durable=False)
            self._shown_as = self._look()

        shown = await self._written(self._status_path, write_status, workers)
        return await self.save_records(workers) and shown

    async def save_records(self, workers: Workers) -> bool:
        """Write what the next start needs, and return whether it is written."""
        return await self._written(self._kept.path, partial(self._kept.save, dict(self.records)), workers)

    async def _written(self, path: Path, write: Callable[[], None], workers: Workers) -> bool:
        try:
            await workers.disk(write, at=path.parent)
        except (OutputError, StalledError, MemoryError) as caught:
            error = _explained(caught, path)
            if self._complaints.get(path) != error.message:
                self._log.error("state.unsaved", message=error.message, hint=error.hint)
            self._complaints[path] = error.message
            return False
        self._complaints.pop(path, None)
        return True


def _explained(error: OutputError | StalledError | MemoryError, path: Path) -> OutputError:
    if isinstance(error, MemoryError):
        return sink.explained(path, OSError(errno.ENOMEM, ""))
    return error if isinstance(error, OutputError) else error.of(path)
