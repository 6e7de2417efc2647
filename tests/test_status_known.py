"""Whom `status` believes: the agent itself, if it may be asked; else its file, unless that is too old."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent import control, lock, status
from agent.commands import known
from tests.machine_helpers import UNPRIVILEGED, fill, fresh, needs_root, open_scene, tmpfs
from tests.process_helpers import COMMAND, ROOT, run, scene, start

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
GOOD = status.ProfileStatus(
    "graph",
    acquired_at=NOW - 10 * MINUTE,
    expires_at=NOW + 50 * MINUTE,
    refresh_at=NOW + 15 * MINUTE,
    degraded_at=NOW + 45 * MINUTE,
)
OTHER = status.ProfileStatus("other", last_error=status.LastError(NOW, "rejected", "no"), refresh_at=NOW - 9 * MINUTE)


KEEP = """
import os, sys
from pathlib import Path
from agent import lock
with lock.hold(Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


@dataclass
class Kept:
    """A runtime directory, and the process that keeps it."""

    directory: Path
    pid: int

    @property
    def agent(self) -> status.AgentStatus:
        return agent(self.pid)

    def leave(self, *profiles: status.ProfileStatus, pid: int | None = None) -> None:
        """Leave a status file."""
        leave(self.directory, agent(pid or self.pid), *profiles)

    def look(self, now: datetime = NOW) -> known.Known:
        return known.of(self.directory, now)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """A runtime directory that another process keeps: of one's own locks nobody can ask the kernel."""
    command = [sys.executable, "-c", KEEP, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        yield Kept(tmp_path, process.pid)
        process.stdin.close()


def agent(pid: int) -> status.AgentStatus:
    return status.AgentStatus("1.0", pid, NOW, "/etc/config.toml")


def leave(directory: Path, agent: status.AgentStatus, *profiles: status.ProfileStatus) -> None:
    (directory / "status.json").write_text(json.dumps(status.to_file(agent, profiles, NOW)))


def answering(directory: Path, answer: bytes) -> threading.Thread:
    """Answer one question at the control socket of a directory."""
    listener = control.listen(directory)
    listener.setblocking(True)

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            assert json.loads(connection.recv(1000)) == {"op": "status"}
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_the_agent_is_believed_before_its_file(kept: Kept) -> None:
    """What it says is newer than what it could write."""
    kept.leave(GOOD)
    said = status.to_file(kept.agent, (OTHER,), NOW)
    thread = answering(kept.directory, json.dumps({"ok": True, "status": said}).encode() + b"\n")
    assert kept.look() == known.Known(kept.pid, kept.agent, (OTHER,))
    thread.join()


@pytest.mark.parametrize(
    "answer", [b"", b"\n", b"{", b"null\n", b'{"ok": false}\n', b'{"ok": true}\n', b'{"ok": true, "status": [1]}\n']
)
def test_an_answer_that_is_none(kept: Kept, answer: bytes) -> None:
    """An agent from before this could be asked, or one that says nonsense, leaves the file to be believed."""
    kept.leave(GOOD)
    thread = answering(kept.directory, answer)
    assert kept.look().profiles == (GOOD,)
    thread.join()


@pytest.mark.parametrize(("late", "doubted"), [(0, False), (2, False), (3, True)])
def test_a_file_that_is_overdue(kept: Kept, late: int, doubted: bool) -> None:  # noqa: FBT001 - what is expected
    """A good word from before an attempt that was due is not passed on as if it were of now; an error says more."""
    kept.leave(GOOD, OTHER)
    found = kept.look(NOW + (15 + late) * MINUTE)
    good, other = found.profiles
    assert other == OTHER
    assert not found.before
    assert (good.last_error is not None) == doubted
    if good.last_error:
        assert good.last_error.kind == "transient"
        assert str(kept.directory) in good.last_error.hint


def test_a_file_of_an_agent_before(kept: Kept) -> None:
    """The one that runs is there, and knows better; what the one before it knew is shown as that."""
    kept.leave(GOOD, pid=1)
    found = kept.look()
    assert (found.pid, found.before) == (kept.pid, True)
    assert found.profiles[0].last_error
    assert "before it was started" in found.profiles[0].last_error.message


def test_no_agent(tmp_path: Path) -> None:
    """Without an agent the file is all there is, and overdue by nature."""
    leave(tmp_path, agent(1), GOOD)
    assert known.of(tmp_path, NOW + 60 * MINUTE) == known.Known(None, agent(1), (GOOD,))


def test_a_process_is_known_by_its_own_number(tmp_path: Path) -> None:
    """By what it wrote into its lock, else by what the kernel says; if neither is to be had, it is believed."""
    assert lock.is_by(tmp_path, os.getpid(), os.getpid())
    assert not lock.is_by(tmp_path, os.getpid(), 1)
    assert lock.is_by(tmp_path, 0, 1)
    (tmp_path / "lock").write_text("17\n")
    assert lock.is_by(tmp_path, os.getpid(), 17)
    assert not lock.is_by(tmp_path, os.getpid(), os.getpid())


@needs_root
def test_a_process_in_a_container_counts_by_itself(tmp_path: Path) -> None:
    """There it is number 1, or 2; outside it is another, and both are one."""
    command = ("unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "echo $$; read line")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        inside = int(process.stdout.readline())
        outside = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        assert inside != outside
        assert lock.is_by(tmp_path, outside, inside)
        assert not lock.is_by(tmp_path, outside, outside)
        process.stdin.close()


def shown(config: Path, command: Sequence[str] = COMMAND) -> tuple[dict[str, Any], int]:
    """Return the document of `status` and its exit code."""
    done = run("status", "--json", "--config", config, command=command)
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document, done.returncode


@needs_root
def test_a_full_runtime_directory(tmp_path: Path) -> None:
    """The status of an agent that can write none is true all the same, before its restart and after."""
    with open_scene() as stage, tmpfs(stage.directory / "small", "size=64k") as small:
        config = stage.config(runtime_dir=str(small), state_dir=str(stage.directory / "own"))
        with start("run", "--config", config) as first:
            first.wait_for("token.written")
            fresh(config)
            filler = fill(small)
            run("refresh", "graph", "--config", config)
            document, code = shown(config)
            assert (document["profiles"][0]["state"], code) == ("degraded", 78)
            assert json.loads((small / "status.json").read_bytes())["profiles"][0]["state"] == "fresh"
            first.stop(signal.SIGKILL)
        with start("run", "--config", config) as second:
            second.wait_for("state.unsaved")
            second.wait_for("agent.started")
            for command, expected in ((COMMAND, ("fresh", 0)), (UNPRIVILEGED, ("degraded", 75))):
                document, code = shown(config, command)
                assert document["agent"]["running"]
                assert document["agent"]["pid"] == second.pid
                assert (document["profiles"][0]["state"], code) == expected
            filler.unlink()
            fresh(config)
            assert second.stop() == 0


def test_a_stopped_agent_is_named(tmp_path: Path) -> None:
    """An agent that was stopped by a signal does nothing: `status` says so at once, and how it goes on."""
    with scene(tmp_path) as stage, start("run", "--config", config := stage.config()) as running:
        running.wait_for("token.written")
        fresh(config)
        running.send(signal.SIGSTOP)
        done = run("status", "--config", config)
        assert (done.returncode, f"kill -CONT {running.pid}" in done.stdout) == (69, True)
        document, _ = shown(config)
        assert (document["agent"]["running"], document["profiles"][0]["state"]) == (True, "stopped")
        (tmp_path / "run" / "graph.token").write_text("other")
        document, _ = shown(config)
        assert "was altered" in document["profiles"][0]["last_error"]["message"]
        running.send(signal.SIGCONT)
        assert running.stop() == 0
