"""`token-agent refresh` from outside: new tokens now, and what comes of it as exit code and words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.process_helpers import Scene, run, scene, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.process_helpers import Running

NAMES = ("a", "b", "c")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider, an app, and room."""
    with scene(tmp_path) as made:
        yield made


@pytest.fixture
def agent(stage: Scene) -> Iterator[Running]:
    """An agent that has its tokens."""
    with start("run", "--config", stage.config(*map(stage.profile, NAMES))) as running:
        running.wait_for_text("agent.started")
        for _ in NAMES:
            running.wait_for("token.written")
        yield running


def refresh(stage: Scene, *arguments: str) -> Any:
    return run("refresh", *arguments, "--config", stage.directory / "config.toml")


def test_refresh(stage: Scene, agent: Running) -> None:
    """New tokens are in the files of the profiles named when the command ends, and nowhere else."""
    before = {name: stage.token(name) for name in NAMES}
    done = refresh(stage, "c", "a", "c")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["c", "a"]
    assert re.search(r"^c  fresh until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$", done.stdout, re.MULTILINE)
    assert [stage.token(name) == before[name] for name in NAMES] == [False, True, False]
    done = refresh(stage, "--all")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)
    assert stage.token("b") != before["b"]
    assert stage.token_requests == 3 + 2 + 3
    assert not any(before[name] in done.stdout + agent.stderr for name in NAMES)


@pytest.mark.parametrize("arguments", [[], ["a", "--all"], ["nobody"], ["a", "nobody"]], ids=str)
def test_wrong_use(stage: Scene, agent: Running, arguments: list[str]) -> None:
    """No names, names and --all, or unknown names are wrong use, and nothing is acquired."""
    done = refresh(stage, *arguments)
    assert (done.returncode, done.stdout, stage.token_requests) == (2, "", 3)
    if "--all" in arguments:
        assert "--all is every profile: leave out the names" in done.stderr
    if "nobody" in arguments:
        assert "no profile named nobody; known: a, b, c" in done.stderr


@pytest.mark.parametrize(
    ("fault", "code"), [({"kind": "status"}, 75), ({"kind": "error", "code": 700027}, 77)], ids=str
)
def test_provider_fails(stage: Scene, agent: Running, fault: dict[str, Any], code: int) -> None:
    """A failure has its exit code, reason and fix, and says for how long the token on disk is good."""
    before = stage.token("a")
    stage.provider.fault(**fault, count=None)
    done = refresh(stage, "a")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("a  failed: ")
    assert "   hint: " in done.stderr
    assert "the token on disk is good until " in done.stderr
    assert stage.token("a") == before
    stage.provider.recover()
    if code == 77:  # after an outage, the provider's own back-off has to pass first
        assert refresh(stage, "a").returncode == 0
        assert stage.token("a") != before


def test_worst_counts(stage: Scene, agent: Running) -> None:
    """Of several outcomes each is told, and the exit code is the one that most needs a person."""
    (stage.directory / "run" / "b.token").unlink()
    (stage.directory / "run" / "b.token").mkdir()
    stage.provider.fault("error", count=1, code=700027)
    done = refresh(stage, "--all")
    assert done.returncode == 78
    assert len(done.stdout.splitlines()) + done.stderr.count("failed: ") == 3
    assert "b  failed: " in done.stderr


def test_no_agent(stage: Scene) -> None:
    """Without an agent the exit code is 69."""
    stage.config()
    done = refresh(stage, "--all")
    assert (done.returncode, done.stdout) == (69, "")
    assert "no agent is running" in done.stderr
