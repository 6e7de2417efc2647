"""`token-agent get` from outside: a token that is good for as long as was asked, or none."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent import lock, tokens
from tests.process_helpers import PATIENCE, Scene, run, scene, start, status, wait_for_status
from tests.terminal_helpers import on_terminal
from tests.test_cli import HEAVY, imported
from tests.test_cmd_wait import as_nobody, needs_root

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.process_helpers import Running

FORMATS = [{"path": f"t.{form}", "format": form} for form in ("json", "header", "env")]
TEMPLATE = {"path": "t.template", "format": "template", "template": "{profile}:{access_token}:{tenant}"}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider, an app, and room."""
    with scene(tmp_path) as made:
        yield made


@pytest.fixture
def config(stage: Scene) -> Path:
    """A configuration whose token is on disk, and no agent."""
    config = stage.config()
    assert run("once", "--config", config).returncode == 0
    return config


@pytest.fixture
def agent(stage: Scene) -> Iterator[Running]:
    """A running agent that has its token, and has told everybody."""
    config = stage.config()
    with start("run", "--config", config) as running:
        running.wait_for_text("agent.started")
        running.wait_for("token.written")
        wait_for_status(config, lambda shown: bool(shown["profiles"]) and shown["profiles"][0]["state"] == "fresh")
        yield running


def get(config: Path, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return run("get", *arguments, "--config", config, **more)


def path(stage: Scene) -> Path:
    return stage.directory / "config.toml"


def test_pipe_and_terminal(stage: Scene, config: Path) -> None:
    """In a pipe the token is all there is; on a terminal a newline follows it."""
    done = get(config, "graph")
    assert (done.returncode, done.stdout, done.stderr) == (0, stage.token(), "")
    assert "".join(on_terminal("get", "graph", "--config", config)) == stage.token()
    assert stage.token_requests == 1


@pytest.mark.parametrize("own", [*FORMATS, {"path": "t.raw", "newline": True}, TEMPLATE], ids=lambda file: file["path"])
def test_formats(stage: Scene, own: dict[str, Any]) -> None:
    """Whatever the format of the token file, the token is found in it, and printed in any format."""
    config = stage.config(stage.profile(token_file=own))
    assert run("once", "--config", config).returncode == 0
    secret = get(config, "graph").stdout
    assert tokens.decode(secret)[1]["aud"]
    assert get(config, "graph", "--format", "header").stdout == f"Authorization: Bearer {secret}\n"
    assert get(config, "graph", "--format", "env").stdout == f"ACCESS_TOKEN={secret}\n"
    document = json.loads(get(config, "graph", "--format", "json").stdout)
    assert document["access_token"] == secret
    assert document["expires_at"] == status(config)["profiles"][0]["expires_at"]
    assert (document["profile"], document["token_type"]) == ("graph", "Bearer")


def test_own_variable(stage: Scene) -> None:
    """A token file that has the format is printed as it is, its own variable and all."""
    files = [{"path": "t.raw"}, {"path": "t.env", "format": "env", "variable": "GRAPH"}]
    config = stage.config(stage.profile(token_file=files))
    assert run("once", "--config", config).returncode == 0
    assert get(config, "graph", "--format", "env").stdout == (stage.directory / "run" / "t.env").read_text()


def test_wrong_use(stage: Scene, agent: Running) -> None:
    """An unknown profile is wrong use, and names the known ones, with an agent and without."""
    for _ in range(2):
        done = get(path(stage), "nobody")
        assert (done.returncode, done.stdout) == (2, "")
        assert "no profile named nobody; known: graph" in done.stderr
        agent.stop()
    for arguments in ([], ["graph", "b"], ["graph", "--min-valid", "x"], ["graph", "--format", "xml"]):
        assert get(path(stage), *arguments).returncode == 2


def test_refresh(stage: Scene, agent: Running) -> None:
    """When less is left than asked for, the agent gets a new token, and that is printed."""
    before = stage.token()
    stage.provider.settings(token_lifetime="2h")
    done = get(path(stage), "graph", "--min-valid", "90m")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == stage.token() != before
    assert get(path(stage), "graph", "--min-valid", "90m").stdout == done.stdout
    assert stage.token_requests == 2
    assert done.stdout not in agent.stderr


def test_no_such_life(stage: Scene, agent: Running) -> None:
    """More life than the provider gives is not to be had: exit 75 after one try, and no token."""
    done = get(path(stage), "graph", "--min-valid", "3h")
    assert (done.returncode, done.stdout) == (75, "")
    assert "a new token is good for 60 min, and 3 h are asked for" in done.stderr
    assert stage.token_requests == 2


@pytest.mark.parametrize(
    ("fault", "code"), [({"kind": "status"}, 75), ({"kind": "error", "code": 700027}, 77)], ids=str
)
def test_refresh_fails(stage: Scene, agent: Running, fault: dict[str, Any], code: int) -> None:
    """When the refresh fails, a token with too little left is not printed, however valid; the reason and fix are."""
    stage.provider.fault(**fault, count=None)
    done = get(path(stage), "graph", "--min-valid", "2h")
    assert (done.returncode, done.stdout) == (code, "")
    assert "graph: good for 59 min only, and 2 h are asked for" in done.stderr
    assert "  hint: " in done.stderr
    assert get(path(stage), "graph").stdout == stage.token()


def test_no_agent(stage: Scene, config: Path) -> None:
    """Without an agent a token that is good enough is printed; else the exit code is 69, with what to do."""
    assert get(config, "graph", "--min-valid", "50m").stdout == stage.token()
    done = get(config, "graph", "--min-valid", "2h")
    assert (done.returncode, done.stdout) == (69, "")
    assert "no agent is running" in done.stderr
    assert "token-agent once graph" in done.stderr


def test_nothing_yet(stage: Scene) -> None:
    """Where no agent has ever run the exit code is 69."""
    done = get(stage.config(), "graph")
    assert (done.returncode, done.stdout) == (69, "")


def test_provider_refuses_from_the_start(stage: Scene) -> None:
    """A profile that never had a token: the agent tries at once, and what comes of it is told."""
    stage.provider.fault("error", count=None, code=700027)
    config = stage.config()
    with start("run", "--config", config) as agent:
        agent.wait_for("acquisition.failed")
        done = get(config, "graph")
        assert (done.returncode, done.stdout) == (77, "")
        assert "AADSTS700027" in done.stderr
        stage.provider.recover()
        before = stage.token_requests
        done = get(config, "graph")
        assert (done.returncode, done.stdout) == (0, stage.token())
        assert stage.token_requests == before + 1


@pytest.mark.parametrize("content", [None, "", "garbage of somebody", "e30.eyJleHAiOjB9.x"], ids=str)
def test_file_is_not_the_agents(stage: Scene, agent: Running, content: str | None) -> None:
    """A token file that is gone, or holds something else, is written anew or not used: never printed as a token."""
    file = stage.directory / "run" / "graph.token"
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    done = get(path(stage), "graph", "--min-valid", "10m")
    assert (done.returncode, done.stderr) == (0, "")
    assert tokens.decode(done.stdout)[1]["aud"]
    assert done.stdout == stage.token()


def test_the_token_of_the_app_before(stage: Scene, agent: Running) -> None:
    """A profile that was given another app, which the provider refuses, has no token, whatever lies in its file."""
    before = stage.token()
    config = stage.config(stage.profile(client_id="22222222-2222-4222-8222-222222222222"))
    assert run("reload", "--config", config).returncode == 0
    done = get(config, "graph", "--min-valid", "1m")
    assert (done.returncode, done.stdout) == (77, "")
    assert "AADSTS700016" in done.stderr
    assert stage.token() == before  # whoever reads the file is not cut off


def test_a_file_without_an_agent(stage: Scene, config: Path) -> None:
    """A token that nobody vouches for is judged by its own account; an opaque one is not printed."""
    file = stage.directory / "run" / "graph.token"
    secret = file.read_text()
    document = json.loads((stage.directory / "run" / "status.json").read_text())
    document["profiles"][0]["token_sha256"] = "0" * 12
    (stage.directory / "run" / "status.json").write_text(json.dumps(document))
    assert get(config, "graph").stdout == secret
    assert get(config, "graph", "--min-valid", "2h").returncode == 69
    file.write_text("opaque-token-of-some-provider")
    assert get(config, "graph").returncode == 69


@needs_root
def test_another_user() -> None:
    """A user that may not read the token file is told so; one that may gets the token without the configuration."""
    with tempfile.TemporaryDirectory(prefix="token-agent-tests-") as name, scene(Path(name)) as stage:
        stage.directory.chmod(0o755)
        config, runtime = stage.config(), str(stage.directory / "run")
        config.chmod(0o600)
        assert run("once", "--config", config).returncode == 0
        done = as_nobody("get", "graph", "--config", str(config), RUNTIME_DIRECTORY=runtime)
        assert (done.returncode, done.stdout) == (78, "")
        assert "graph.token: cannot be read: Permission denied" in done.stderr
        (stage.directory / "run" / "graph.token").chmod(0o644)
        for form in ("raw", "header", "env"):
            done = as_nobody("get", "graph", "--config", str(config), "--format", form, RUNTIME_DIRECTORY=runtime)
            assert (done.returncode, done.stderr) == (0, "")
            assert stage.token() in done.stdout
        done = as_nobody("get", "graph", "--format", "json", "-c", str(config), RUNTIME_DIRECTORY=runtime)
        assert done.returncode == 78  # scope and tenant stand in the configuration
        assert "no permission to read it" in done.stderr


def test_light(config: Path) -> None:
    """A token that is good enough is printed without the libraries that work: `get` stands in loops of scripts."""
    for form in ("raw", "header", "env"):
        assert not imported("get", "graph", "--format", form, "--config", config) & HEAVY


def test_starting_agent(stage: Scene, config: Path) -> None:
    """A process that holds the directory and does not answer, as an agent that starts, costs nobody a good token."""
    with lock.hold(stage.directory / "run"):
        done = get(config, "graph", "--min-valid", "2h")
    assert (done.returncode, done.stdout) == (69, "")
    assert "is the agent here, but" in done.stderr


def test_race(tmp_path: Path) -> None:
    """Tokens of two seconds, and many that ask at once: each gets a whole one that is still good."""
    found: list[tuple[int, str, float, str]] = []

    with scene(tmp_path, token_lifetime=timedelta(seconds=2)) as stage:
        config = stage.config(stage.profile(token_file=[{"path": "t.raw"}, FORMATS[0]]))

        def ask(form: str) -> None:
            for _ in range(8):
                done = get(config, "graph", "--min-valid", "0.5s", "--format", form)
                found.append((done.returncode, done.stdout, time.time(), done.stderr))

        with start("run", "--config", config) as agent:
            agent.wait_for("token.written")
            threads = [threading.Thread(target=ask, args=(form,)) for form in ("raw", "json", "raw", "json", "header")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE * 3)
        published = {event["token_sha256"] for event in agent.events() if event["event"] == "token.written"}
    assert len(found) == 40
    for code, text, at, said in found:
        assert (code, said) == (0, "")
        secret = json.loads(text)["access_token"] if text.startswith("{") else text.strip().rpartition(" ")[2]
        assert tokens.fingerprint(secret) in published
        assert tokens.decode(secret)[1]["exp"] > at - 0.25, "less than half of what was asked for was left"
    assert len({text for _, text, _, _ in found}) > 2
