"""Agents without privileges that lose a right, or meet a limit of the system: they stay, say so once, and recover."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.machine_helpers import (
    LIFETIME,
    UNPRIVILEGED,
    USER,
    assert_last_good,
    fresh,
    limited,
    needs_root,
    open_scene,
    said,
    without_inotify,
)
from tests.process_helpers import Running, Scene, start

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs_root


@pytest.fixture
def stage() -> Iterator[Scene]:
    """A provider of short-lived tokens, and room for another user."""
    with open_scene(token_lifetime=LIFETIME) as made:
        yield made


@contextlib.contextmanager
def running(stage: Scene) -> Iterator[Running]:
    """An agent without privileges that is as well in the end as if nothing had happened."""
    config = stage.config(rescan_interval="1s")
    os.chown(config, USER, USER)
    with start("run", "--config", config, command=UNPRIVILEGED) as agent:
        agent.wait_for("token.written")
        yield agent
        agent.wait_for("token.written")
        fresh(config)
        assert agent.stop() == 0
    assert_last_good(agent, stage.directory / "run" / "graph.token")


def test_directories_that_can_no_longer_be_written(stage: Scene) -> None:
    """Without the right to write, the last token stays and the missing right is named."""
    directories = [stage.directory / name for name in ("run", "state")]
    with running(stage) as agent:
        for directory in directories:
            directory.chmod(0o555)
        agent.wait_for("acquisition.failed", kind="output")
        assert said(agent, "acquisition.failed", "no permission to write")
        agent.wait_for("acquisition.failed", kind="output")
        assert len(said(agent, "state.unsaved", "no permission to write")) == 2
        assert_last_good(agent, directories[0] / "graph.token")
        for directory in directories:
            directory.chmod(0o755)


def test_a_directory_that_can_no_longer_be_entered(stage: Scene) -> None:
    """A closed runtime directory is named once; the agent is there again as soon as it is opened."""
    with running(stage) as agent:
        (stage.directory / "run").chmod(0)
        agent.wait_for("runtime_dir.unusable")
        agent.wait_for("acquisition.failed", kind="output")
        assert_last_good(agent, stage.directory / "run" / "graph.token")
        (stage.directory / "run").chmod(0o755)
        agent.wait_for("runtime_dir.restored")
    assert len(said(agent, "runtime_dir.unusable", "Permission denied")) == 1


def test_no_file_can_be_opened_any_more(stage: Scene) -> None:
    """At the limit of open files nothing that is there is lost, and the limit is named."""
    with running(stage) as agent, limited(agent.pid, "nofile", 3):
        agent.wait_for("acquisition.failed", kind="output")
        assert "LimitNOFILE" in said(agent, "acquisition.failed", "too many files open")[0]["hint"]
        assert_last_good(agent, stage.directory / "run" / "graph.token")
    assert len(said(agent, "state.unsaved", "too many files open")) == 2


@pytest.mark.parametrize("limit", ["nproc", "as"])
def test_no_thread_can_be_started_any_more(stage: Scene, limit: str) -> None:
    """Whether tasks or memory are used up: it is said once, and threads come when they can again."""
    with running(stage) as agent:
        with limited(agent.pid, limit, 1 if limit == "nproc" else _memory(agent.pid)):
            agent.wait_for("threads.exhausted")
            assert_last_good(agent, stage.directory / "run" / "graph.token")
        agent.wait_for("token.written")
    assert len(said(agent, "threads.exhausted", "")) == 1


def _memory(pid: int) -> int:
    """Return how much address space a process has (proc_pid_statm(5))."""
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123
        return int(file.read().split()[0]) * resource.getpagesize()


def test_no_directory_can_be_watched(stage: Scene) -> None:
    """With all inotify instances of the user gone it is said once, and a change is found all the same."""
    config = stage.config(rescan_interval="1s")
    os.chown(config, USER, USER)
    with without_inotify(), start("run", "--config", config, command=UNPRIVILEGED) as agent:
        degraded = agent.wait_for("watch.degraded")
        assert "max_user_instances" in degraded["message"]
        agent.wait_for("token.written", profile="graph")
        os.chown(stage.config(stage.profile(), stage.profile("second"), rescan_interval="1s"), USER, USER)
        agent.wait_for("token.written", profile="second")
        assert agent.stop() == 0


@pytest.mark.parametrize("limit", ["nproc=1", "nproc=3", "nproc=6", "data=48000000"])
def test_too_few_threads_to_start(stage: Scene, limit: str) -> None:
    """Without the threads that it needs the agent ends with one clear error: it can start another time."""
    config = stage.config()
    os.chown(config, USER, USER)
    with start("run", "--config", config, command=("prlimit", f"--{limit}", *UNPRIVILEGED)) as agent:
        assert agent.wait() == 75
    error, hint = agent.stderr.splitlines()
    assert error == "token-agent: the system does not give us 6 threads"
    assert "TasksMax=" in hint


WATCHING = """
import os, resource, sys
from agent.watching import listener
os.setgroups([])
os.setgid(54322)
os.setuid(54322)  # nobody else's: the limit counts all threads of a user
resource.setrlimit(resource.RLIMIT_NPROC, (int(sys.argv[1]),) * 2)
watched, refused = listener.watch(["/"])
print(watched is not None, refused)
"""


def test_nothing_is_watched_without_a_thread() -> None:
    """Where watchfiles would end the process, for want of a thread, it is not asked, and the reason is told."""
    for limit, expected in ((1, False), (2, False), (4, False), (5, True)):
        command = [sys.executable, "-c", WATCHING, str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(str(expected))
        assert ("no thread" in done.stdout) is not expected
