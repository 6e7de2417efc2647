"""The agent's own places are taken away under it: it makes them anew, and never are there two agents in one place."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from agent import control, lock
from tests.machine_helpers import assert_last_good, fresh
from tests.process_helpers import Scene, run, scene, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider, an app, and room."""
    with scene(tmp_path) as made:
        yield made


def take_away(directory: Path) -> None:
    """Let a directory be gone in one instant, whatever is written there meanwhile."""
    shutil.rmtree(directory.rename(directory.with_name("gone")), ignore_errors=True)


def test_a_removed_runtime_directory_comes_back(stage: Scene) -> None:
    """Directory, lock, socket, status and tokens are there again by themselves; no token is acquired for it."""
    config, directory = stage.config(rescan_interval="1s"), stage.directory / "run"
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written")
        fresh(config)
        for _ in range(2):
            take_away(directory)
            agent.wait_for("runtime_dir.restored")
            agent.wait_for_text(f'"path": "{directory}/graph.token"')
            assert fresh(config)["agent"]["pid"] == lock.holder(directory) == agent.pid
            assert run("reload", "--config", config).returncode == 0
            second = run("run", "--config", config)
            assert (second.returncode, f"pid {agent.pid}" in second.stderr) == (75, True)
        assert stage.token_requests == 1
        assert agent.stop() == 0
    assert_last_good(agent, directory / "graph.token")
    assert not (directory / control.NAME).exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"garbage"])
def test_a_damaged_status_is_put_right(stage: Scene, content: bytes) -> None:
    """Those who may not ask the agent read its file: what somebody else has written there does not stay."""
    config, path = stage.config(rescan_interval="1s"), stage.directory / "run" / "status.json"
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written")
        whole = fresh(config)
        path.write_bytes(content)
        assert run("wait", "--timeout", "20s", "--config", config).returncode == 0  # which reads the file
        assert whole["profiles"][0]["expires_at"] in path.read_text()
        assert agent.stop() == 0


@pytest.mark.parametrize("names", [[control.NAME], [lock.NAME], [control.NAME, lock.NAME, "status.json"]], ids=str)
def test_a_removed_file_comes_back(stage: Scene, names: list[str]) -> None:
    """Socket, lock and status come back one by one, too, and so does the state directory."""
    config, directory = stage.config(rescan_interval="1s"), stage.directory / "run"
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written")
        fresh(config)
        for name in names:
            (directory / name).unlink()
        take_away(stage.directory / "state")
        agent.wait_for("runtime_dir.restored")
        fresh(config)
        assert run("refresh", "graph", "--config", config).returncode == 0
        assert lock.holder(directory) == agent.pid
        assert agent.stop() == 0
    assert "graph" in (stage.directory / "state" / "state.json").read_text()


def test_an_agent_that_was_displaced_ends(stage: Scene) -> None:
    """An agent whose lock is gone and which finds another one in its place leaves everything to it, and says why."""
    config = stage.config(stage.profile(on_stop="delete"), rescan_interval="2s")
    with start("run", "--config", config) as first:
        first.wait_for("token.written")
        fresh(config)
        (stage.directory / "run" / lock.NAME).unlink()
        with start("run", "--config", config) as second:
            second.wait_for("agent.started")
            assert first.wait() == 75
            assert f"another token-agent (pid {second.pid}) keeps {stage.directory}/run" in first.stderr
            assert fresh(config)["agent"]["pid"] == second.pid
            assert run("refresh", "graph", "--config", config).returncode == 0
            assert second.stop() == 0


def test_a_socket_that_cannot_be_had_is_tried_again(stage: Scene) -> None:
    """Something else in the socket's place is named once; once it is gone the agent can be asked."""
    config, obstacle = stage.config(rescan_interval="1s"), stage.directory / "run" / control.NAME
    obstacle.mkdir(parents=True)
    with start("run", "--config", config) as agent:
        assert agent.wait_for("control.unavailable")["hint"]
        agent.wait_for("token.written")
        obstacle.rmdir()
        while run("reload", "--config", config).returncode:
            assert agent.process.poll() is None
        assert agent.stop() == 0
    assert [event["event"] for event in agent.events()].count("control.unavailable") == 1
