"""A single file that is written: a token file with all kinds of access, and what the agent knows of itself."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from agent import state, status
from agent.config.model import AgentSettings
from agent.engine.board import Board
from agent.output import access, sink
from agent.output.access import Access
from agent.workers import Workers
from tests import virtual
from tests.crashpoints import tracer
from tests.crashpoints.scenarios import Scenario
from tests.engine_helpers import Recorder
from tests.sink_helpers import GROUP, NEW, OLD, OTHER, OTHER_GROUP, names

if TYPE_CHECKING:
    from pathlib import Path


class Write(Scenario):
    """A token file is replaced; only its owner reads it."""

    name = "write"
    exact: ClassVar[tuple[str, ...]] = ("run/token",)
    wanted: ClassVar = Access()
    mode: ClassVar = 0o755

    @property
    def path(self) -> Path:
        """The token file."""
        return self.root / "run" / "token"

    def prepare(self) -> None:
        self.path.parent.mkdir()
        self.surround(self.path.parent)
        sink.write(self.path, OLD, self.wanted)

    def surround(self, directory: Path) -> None:
        """Give the directory what new files inherit."""

    def act(self) -> None:
        tracer.wait_to_be_traced()
        sink.write(self.path, NEW, self.wanted)

    def restart(self) -> None:
        sink.sweep([self.path], [str(OTHER)])
        assert names(self.path.parent) == {"token"}
        sink.write(self.path, NEW, self.wanted)


class WriteForGroup(Write):
    """The same for another owner, and a group."""

    name = "write-for-group"
    wanted: ClassVar = Access(mode=0o640, owner=str(OTHER), group=str(GROUP))


class WriteForReaders(Write):
    """The same with readers by ACL besides."""

    name = "write-for-readers"
    wanted: ClassVar = Access(mode=0o640, owner=str(OTHER), group=str(GROUP), readers=("user:65534",))


class _Inherited(Write):
    """In a directory that hands down its group, and a default ACL."""

    def surround(self, directory: Path) -> None:
        os.chown(directory, -1, OTHER_GROUP)
        directory.chmod(0o2755)
        os.setxattr(directory, "system.posix_acl_default", access.resolve(Access(readers=("user:1",))).acl or b"")


class WriteInherited(_Inherited):
    """Only the owner reads it, whatever the directory hands down."""

    name = "write-inherited"


class WriteForGroupInherited(_Inherited, WriteForGroup):
    """Owner and group read it, and nobody whom the directory lets in."""

    name = "write-for-group-inherited"


class WriteForReadersInherited(_Inherited, WriteForReaders):
    """Owner, group and readers read it, and nobody whom the directory lets in."""

    name = "write-for-readers-inherited"


class Remove(Write):
    """A token file is removed, and what an earlier writer has left beside it."""

    name = "remove"
    exact: ClassVar = ()

    def prepare(self) -> None:
        super().prepare()
        left = self.path.with_name(f".token.{'0' * 16}.tmp")
        left.write_bytes(NEW)
        left.chmod(0o600)

    def act(self) -> None:
        tracer.wait_to_be_traced()
        sink.remove(self.path)

    def restart(self) -> None:
        sink.remove(self.path)


class Save(Scenario):
    """Status and state are saved."""

    name = "save"
    exact: ClassVar = ("run/status.json", "state/state.json")

    def prepare(self) -> None:
        for name in ("run", "state"):
            (self.root / name).mkdir()
        self._save(1, traced=False)

    def act(self) -> None:
        self._save(3, traced=True)

    def restart(self) -> None:
        settings = self._settings()
        sink.sweep([settings.runtime_dir / "status.json", settings.state_dir / "state.json"])
        self._save(3, traced=False)

    def _settings(self) -> AgentSettings:
        return AgentSettings(runtime_dir=self.root / "run", state_dir=self.root / "state")

    def _save(self, profiles: int, *, traced: bool) -> None:
        """Save what is known of so many profiles."""

        async def main(loop: virtual.VirtualLoop) -> None:
            clock = virtual.VirtualClock(loop)
            log: Any = Recorder(clock)
            workers = Workers(1)
            loop.workers.append(workers)
            board = Board(status.AgentStatus("1.0", 1, virtual.START, "/config.toml"), self._settings(), clock, log)
            for number in range(profiles):
                name = f"p{number}"
                board.update(name, expires_at=virtual.START)
                board.remember(name, _record(f"/run/{name}"))
            if traced:
                tracer.wait_to_be_traced()
            assert await board.save(workers)

        virtual.run(main)


def _record(path: str) -> state.Record:
    end = virtual.START + timedelta(hours=1)
    return state.Record("identity", "00ff", "Bearer", virtual.START, end, None, (path,), "delete")
