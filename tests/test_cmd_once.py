"""`token-agent once` from outside: real processes against a real server, judged by exit codes, files and output."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from agent import lock
from tests.process_helpers import Scene, run, scene, start, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider, an app, and room."""
    with scene(tmp_path) as made:
        yield made


def test_fresh(stage: Scene) -> None:
    """A first round writes the token, readable by the owner alone, says so on standard output, and exits 0."""
    config = stage.config()
    done = run("once", "--config", config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("graph  fresh until ")
    assert stage.token().count(".") == 2
    assert stat.S_IMODE((stage.directory / "run" / "graph.token").stat().st_mode) == 0o600
    document = status(config)
    assert (document["profiles"][0]["state"], document["agent"]["running"]) == ("fresh", False)


def test_not_due(stage: Scene) -> None:
    """A second round leaves a token that is not due alone; --force acquires it all the same."""
    config = stage.config()
    run("once", "--config", config)
    first = stage.token()
    assert run("once", "--config", config).returncode == 0
    assert (stage.token_requests, stage.token()) == (1, first)
    assert run("once", "--force", "--config", config).returncode == 0
    assert stage.token_requests == 2
    assert stage.token() != first


def test_quiet(stage: Scene) -> None:
    """With --quiet nothing is said of what is well, so that cron has nothing to mail, and of trouble what always is."""
    config = stage.config()
    done = run("once", "--quiet", "--config", config)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stage.token()
    stage.provider.fault("error", code=700016)
    failed = run("once", "-q", "--force", "--config", config)
    assert (failed.returncode, failed.stdout) == (77, "")
    assert "AADSTS700016" in failed.stderr


def test_two_configurations_with_one_state_directory(stage: Scene) -> None:
    """What another configuration keeps is not taken for a profile that was removed, whatever profiles are called."""
    first = stage.config()
    text = first.read_text()
    second = first.with_name("second.toml")
    for name in ("other", "graph"):
        named = text.replace('"graph"', f'"{name}"').replace(f"{stage.directory}/run", f"{stage.directory}/run2")
        assert "run2" in named
        second.write_text(named)
        for config in (first, second, first, second):
            assert run("once", "--config", config).returncode == 0
            assert stage.token()
        assert (stage.directory / "run2" / f"{name}.token").exists()
    assert not (stage.directory / "run2" / "other.token").exists()  # this one was removed


def test_names(stage: Scene) -> None:
    """Names choose profiles, whatever order; an unknown one is wrong use and nothing is done."""
    config = stage.config(*(stage.profile(name) for name in ("a", "b", "c")))
    unknown = run("once", "c", "nobody", "--config", config)
    assert (unknown.returncode, unknown.stdout, stage.token_requests) == (2, "", 0)
    assert "no profile named nobody; known: a, b, c" in unknown.stderr
    done = run("once", "c", "a", "c", "--config", config)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["c", "a"]
    assert stage.token_requests == 2


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"kind": "status"}, 75),
        ({"kind": "throttle"}, 75),
        ({"kind": "drop"}, 75),
        ({"kind": "error", "code": 700027}, 77),
    ],
    ids=str,
)
def test_provider_fails(stage: Scene, fault: dict[str, object], code: int) -> None:
    """What may pass exits 75, what a person must mend 77; with the reason and the fix on standard error."""
    config = stage.config()
    stage.provider.fault(**fault, count=None)  # type: ignore[arg-type]
    done = run("once", "--config", config)
    assert (done.returncode, done.stdout) == (code, "")
    assert "graph  failed: " in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (stage.directory / "run" / "graph.token").exists()
    assert run("status", "--config", config).returncode == code


def test_some_fail(stage: Scene) -> None:
    """A profile's failure does not keep the others from their tokens; the code that most needs a person wins."""
    missing = stage.directory / "missing.pem"
    good, unknown = stage.profile("good"), stage.profile("unknown", client_id="00000000-0000-4000-8000-000000000000")
    away = stage.profile("away", authority="https://127.0.0.1:9/contoso.onmicrosoft.com")
    for others, code in (([away], 75), ([away, unknown], 77), ([away, unknown, good | {"name": "bad"}], 78)):
        if code == 78:
            others[-1]["certificate"] = missing
        done = run("once", "--config", stage.config(good, *others))
        assert done.returncode == code
        assert done.stdout.startswith("good ")
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr.count("failed: ") == len(others)
    assert f"bad      failed: {missing}: " in done.stderr


def test_bad_configuration(stage: Scene) -> None:
    """A configuration that cannot be used exits 78 with every problem, each with its line, and touches nothing."""
    config = stage.config(stage.profile(clientid="x", scopes=None), log_levl="info")
    done = run("once", "--config", config)
    assert (done.returncode, done.stdout) == (78, "")
    for said in ("log_levl", "clientid", "scopes"):
        assert said in done.stderr
    assert f"{config}:" in done.stderr
    assert not (stage.directory / "run").exists()


def test_another_agent_runs(stage: Scene) -> None:
    """While an agent keeps the same runtime directory, `once` exits 75 and names its pid."""
    config = stage.config()
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written")
        done = run("once", "--config", config)
        assert (done.returncode, done.stdout) == (75, "")
        assert f"pid {agent.pid}" in done.stderr
        assert agent.stop() == 0


def test_locked_by_anybody(stage: Scene) -> None:
    """The lock is the kernel's: whoever holds it is named, and when it is gone the way is free."""
    config = stage.config()
    (stage.directory / "run").mkdir()
    with lock.hold(stage.directory / "run"):
        assert run("once", "--config", config).returncode == 75
    assert run("once", "--config", config).returncode == 0


def test_lock_file_unusable(stage: Scene) -> None:
    """A lock file that cannot be opened is the operator's problem, named, not a bug."""
    config = stage.config()
    (stage.directory / "run" / "lock").mkdir(parents=True)
    done = run("once", "--config", config)
    assert done.returncode == 78
    assert f"{stage.directory}/run/lock: " in done.stderr
    assert "Traceback" not in done.stderr


def test_log_is_separate(stage: Scene) -> None:
    """Events go to standard error, one JSON object a line; standard output holds the result alone."""
    done = run("once", "--config", stage.config())
    names = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert "token.acquired" in names
    assert "token.written" in names
    assert len(done.stdout.splitlines()) == 1


def test_unwritable(stage: Scene) -> None:
    """A token file that cannot be written exits 78 and names path, reason and fix."""
    config = stage.config(stage.profile(token_file=stage.directory / "no" / "such" / "token"))
    done = run("once", "--config", config)
    assert done.returncode == 78
    assert f"{stage.directory}/no/such/token: the directory does not exist" in done.stderr
    assert "hint: install -d" in done.stderr
