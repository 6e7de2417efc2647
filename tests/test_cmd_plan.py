"""`token-agent plan` from outside: what a reload would do, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.process_helpers import Scene, run, scene, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider, an app, and room."""
    with scene(tmp_path) as made:
        yield made


def test_plan(stage: Scene) -> None:
    """The plan names what differs as often as it is asked for, changes nothing, and is what a reload then does."""
    config = stage.config(stage.profile(), stage.profile("b"), watch=False)
    with start("run", "--config", config) as agent:
        agent.wait_for_text("agent.started")
        agent.wait_for("token.written", profile="b")
        assert run("plan", "--config", config).stdout == "untouched  2 profiles\n"
        stage.config(stage.profile(timeout="30s"), stage.profile("c"), watch=False)
        expected = "added      c\nchanged    graph: timeout\nremoved    b\nuntouched  0 profiles\n"
        for _ in range(2):
            done = run("plan", "--config", config)
            assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
        assert (stage.directory / "run" / "b.token").exists()
        assert len([event for event in agent.events() if event["event"] == "config.loaded"]) == 1
        assert run("reload", "--config", config).stdout == expected
        assert run("plan", "--config", config).stdout == "untouched  2 profiles\n"


def test_settings_and_what_cannot_be_used(stage: Scene) -> None:
    """Also the agent's own settings are named, and what lies on disk and would not be used; a reload says the same."""
    config = stage.config(watch=False)
    with start("run", "--config", config) as agent:
        agent.wait_for_text("agent.started")
        agent.wait_for("token.written")
        stage.config(watch=False, log_level="debug", max_in_flight=3)
        stage.certificate.write_text("broken")
        lines = (
            "changed    [agent]: log_level, max_in_flight (from the next start on)\n"
            "changed    graph: certificate on disk\n"
            "untouched  0 profiles\n"
        )
        for command in ("plan", "reload"):
            done = run(command, "--config", config)
            assert (done.returncode, done.stdout) == (0, lines)
            assert f"token-agent: not used: graph: {stage.certificate}: " in done.stderr
        assert run("plan", "--config", config).stdout == "untouched  1 profile\n"


def test_refused(stage: Scene) -> None:
    """What a reload would refuse exits 78 with all problems, and the agent is not told that anything was wrong."""
    config = stage.config(watch=False)
    with start("run", "--config", config) as agent:
        agent.wait_for_text("agent.started")
        stage.config(stage.profile(clientid="x", scopes=None), watch=False)
        done = run("plan", "--config", config)
        assert (done.returncode, done.stdout) == (78, "")
        assert "clientid" in done.stderr
        assert "scopes" in done.stderr
        assert not [event for event in agent.events() if event["event"] == "config.rejected"]


def test_no_agent(stage: Scene) -> None:
    """Without an agent the exit code is 69, and what validates without one is named."""
    done = run("plan", "--config", stage.config())
    assert (done.returncode, done.stdout) == (69, "")
    assert "no agent is running" in done.stderr
    assert "`token-agent check` validates without an agent" in done.stderr
