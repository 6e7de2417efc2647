"""Disks that are full, have no inodes left or become read-only under an agent, and a state that was damaged."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from tests.machine_helpers import (
    LIFETIME,
    assert_last_good,
    fill,
    fresh,
    needs_root,
    remount,
    said,
    tmpfs,
    use_up_inodes,
)
from tests.process_helpers import COMMAND, Running, Scene, run, scene, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NO_SPACE = "no space left on the file system"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider of short-lived tokens."""
    with scene(tmp_path, token_lifetime=LIFETIME) as made:
        yield made


@contextlib.contextmanager
def running(config: Path) -> Iterator[Running]:
    """An agent that has written its token, and is as well in the end as if nothing had happened."""
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written")
        yield agent
        agent.wait_for("token.written")
        fresh(config)
        assert agent.stop() == 0


@needs_root
@pytest.mark.parametrize("full", [("state",), ("run", "state")], ids="+".join)
def test_a_full_disk_keeps_the_last_good_token(stage: Scene, full: tuple[str, ...]) -> None:
    """A full disk is named once with a way out, costs no token that is there, and is forgotten when there is space."""
    directory = stage.directory
    with contextlib.ExitStack() as mounts:
        for name in ("run", "state"):
            mounts.enter_context(tmpfs(directory / name, "size=64k"))
        with running(stage.config()) as agent:
            fillers = [fill(directory / name) for name in full]
            if "run" in full:
                agent.wait_for("acquisition.failed", kind="output")
                agent.wait_for("acquisition.failed", kind="output", failures=2)
            else:
                agent.wait_for("state.unsaved")
                agent.wait_for("token.written")
            assert_last_good(agent, directory / "run" / "graph.token")
            unsaved = said(agent, "state.unsaved", NO_SPACE)
            assert len(unsaved) == len({event["message"] for event in unsaved}) == len(full)
            for filler in fillers:
                filler.unlink()
            agent.wait_for("token.written")
        assert json.loads((directory / "state" / "state.json").read_bytes())["profiles"]


@needs_root
def test_a_disk_without_inodes_keeps_the_last_good_token(stage: Scene) -> None:
    """Where no file can be made though there is space, the hint says what to look for."""
    with tmpfs(stage.directory / "run", "nr_inodes=24") as mounted, running(stage.config()) as agent:
        fillers = use_up_inodes(mounted)
        agent.wait_for("acquisition.failed", kind="output")
        assert "inodes" in said(agent, "acquisition.failed", NO_SPACE)[0]["hint"]
        assert_last_good(agent, mounted / "graph.token")
        for filler in fillers:
            filler.unlink()


@needs_root
def test_a_disk_that_becomes_read_only_keeps_the_last_good_token(stage: Scene) -> None:
    """A disk that is read-only, of tokens and of the state, is named, and written again when it can be."""
    with tmpfs(stage.directory / "srv", "size=1m") as tokens, tmpfs(stage.directory / "state", "size=1m") as state:
        config = stage.config(stage.profile(token_file=str(tokens / "graph.token")))
        with running(config) as agent:
            for mounted in (tokens, state):
                remount(mounted, "ro")
            agent.wait_for("acquisition.failed", kind="output")
            assert said(agent, "acquisition.failed", "read-only")
            assert len(said(agent, "state.unsaved", "read-only")) <= 1
            assert_last_good(agent, tokens / "graph.token")
            for mounted in (tokens, state):
                remount(mounted, "rw")


@pytest.mark.parametrize(
    "content",
    [b"", b'{"version": 1, "profiles": {"graph": {"ide', b"\0" * 4096, b'{"version": 99, "profiles": {}}'],
    ids=["empty", "truncated", "zeros after a power loss", "of a newer version"],
)
def test_a_state_that_cannot_be_used_is_said_and_written_anew(stage: Scene, content: bytes) -> None:
    """An agent starts with whatever its state file has become: it says so, and goes on without it."""
    config, state = stage.config(), stage.directory / "state" / "state.json"
    assert run("once", "--config", config).returncode == 0
    state.write_bytes(content)
    with start("run", "--config", config) as agent:
        assert agent.wait_for("state.unusable")["hint"]
        agent.wait_for("token.written")
        assert agent.stop() == 0
    assert "graph" in json.loads(state.read_bytes())["profiles"]


@needs_root
def test_what_passes_does_not_end_a_service_for_good(stage: Scene) -> None:
    """A start without space, or on a disk that became read-only, is tried again (75); one that never can be is not."""
    with tmpfs(stage.directory / "run", "size=64k") as mounted:
        config = stage.config()
        filler = fill(mounted)
        done = run("run", "--config", config)
        assert (done.returncode, done.stderr.count("\n")) == (75, 2)
        assert NO_SPACE in done.stderr
        assert "hint: free space" in done.stderr
        filler.unlink()
        (mounted / "lock").unlink()
        remount(mounted, "ro")
        assert run("run", "--config", config).returncode == 78  # it never was another way
        remount(mounted, "rw")
        with running(config):
            pass
        remount(mounted, "ro")
        done = run("run", "--config", config)
        assert (done.returncode, "hint: " in done.stderr) == (75, True)
        remount(mounted, "rw")
        with running(config):
            pass


def test_too_few_files_do_not_end_a_service_for_good(stage: Scene) -> None:
    """An agent that may not even open its lock says so, and is tried again."""
    with start("run", "--config", stage.config(), command=("prlimit", "--nofile=6", *COMMAND)) as agent:
        assert agent.wait() == 75
        assert "raise LimitNOFILE=" in agent.stderr
        assert "Traceback" not in agent.stderr
