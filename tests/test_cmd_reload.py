"""`token-agent reload` from outside: what the running agent did, or why it did nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent import control, lock
from agent.commands import asking
from agent.errors import TransientError
from tests.certificate_helpers import written
from tests.process_helpers import COMMAND, PATIENCE, Scene, current_certificate, environment, run, scene, start
from tests.test_cli import HEAVY, imported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.process_helpers import Running


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider, an app, and room."""
    with scene(tmp_path) as made:
        yield made


@pytest.fixture
def agent(stage: Scene) -> Iterator[Running]:
    """An agent that does not look at its files by itself, and has its token."""
    with start("run", "--config", stage.config(watch=False)) as running:
        running.wait_for_text("agent.started")
        running.wait_for("token.written")
        yield running


def test_reload(stage: Scene, agent: Running) -> None:
    """Only what differs is touched and told, a profile a line; the others keep their tokens."""
    config = stage.config(stage.profile(), stage.profile("b"), watch=False)
    done = run("reload", "--config", config)
    assert (done.returncode, done.stdout, done.stderr) == (0, "added      b\nuntouched  1 profile\n", "")
    agent.wait_for("token.written", profile="b")
    token = stage.token()
    stage.config(stage.profile("b", timeout="30s", refresh={"at": 0.4}), watch=False)
    done = run("reload", "--config", config)
    assert done.stdout == "changed    b: timeout, refresh\nremoved    graph\nuntouched  0 profiles\n"
    assert run("reload", "--config", config).stdout == "untouched  1 profile\n"
    assert not (stage.directory / "run" / "graph.token").exists()
    assert token


def test_certificate(stage: Scene, agent: Running) -> None:
    """A new certificate is a change of the profile; one that cannot be used is told, and the one at work stays."""
    pair = current_certificate(number=1)
    stage.provider.register(certificate=pair)
    written(stage.certificate, pair.pem)
    done = run("reload", "--config", stage.directory / "config.toml")
    assert (done.returncode, done.stdout) == (0, "changed    graph: certificate on disk\nuntouched  0 profiles\n")
    written(stage.certificate, b"nonsense")
    done = run("reload", "--config", stage.directory / "config.toml")
    assert done.returncode == 0
    assert f"not used: graph: {stage.certificate}" in done.stderr
    assert run("refresh", "graph", "--config", stage.directory / "config.toml").returncode == 0
    assert agent.stop() == 0


def test_refused(stage: Scene, agent: Running) -> None:
    """A configuration that cannot be used exits 78 with all its problems, file and line; what runs goes on."""
    config = stage.config(stage.profile(clientid="x"), stage.profile("b", scopes=None), log_levl="info")
    done = run("reload", "--config", config)
    assert (done.returncode, done.stdout) == (78, "")
    for said in ("log_levl", "clientid", "scopes"):
        assert said in done.stderr
    *problems, last = done.stderr.splitlines()
    assert all(line.startswith(f"token-agent: {config}:") for line in problems)
    assert last == "token-agent: refused: the configuration has 3 problems; what is running stays as it is"
    event = agent.wait_for("config.rejected")
    assert event["reason"] == "asked for"
    assert run("refresh", "graph", "--config", config).returncode == 0


@pytest.mark.parametrize("op", ["reload", "plan"])
@pytest.mark.parametrize("way", ["lost", "environment", "line"])
def test_no_toml(stage: Scene, agent: Running, way: str, op: str) -> None:
    """A file that is not even TOML exits 78 with the line; the agent itself says so where it can be found."""
    config = stage.directory / "config.toml"
    assert run("wait", "--config", config).returncode == 0  # it has told everybody
    line = f'runtime_dir = "{stage.directory}/run"\n' if way == "line" else ""
    config.write_text(f"[agent]\nnonsense\n{line}")
    more = {"RUNTIME_DIRECTORY": str(stage.directory / "run")} if way == "environment" else {}
    done = run(op, "--config", config, environ=more)
    assert (done.returncode, done.stdout) == (78, "")
    assert f"token-agent: {config}:2: not valid TOML" in done.stderr
    assert ("what is running stays as it is" in done.stderr) == (way != "lost")
    assert agent.stop() == 0


ASKING = (
    ["reload"],
    ["plan"],
    ["refresh", "--all"],
    ["get", "graph"],
    ["wait", "graph"],
    ["exec", "graph", "--", "true"],
    ["status"],
)
"""Every command that acts on, or tells of, the agent of a configuration."""


@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
def test_another_ones_agent(stage: Scene, agent: Running, arguments: list[str]) -> None:
    """A file that is named and does not tell where its agent is never means another agent that can be found."""
    wrong = stage.directory / "wrong.toml"
    other = {"RUNTIME_DIRECTORY": str(stage.directory / "run")}  # stands for the default directory, with an agent in it
    before = stage.token()
    for content, said in (
        (None, f"{wrong}: there is no such file"),
        ("", f"{wrong}: there is no [[profile]]"),
        ("[agent]\nnonsense", f"{wrong}:2: not valid TOML"),
        ('[agent]\nruntime_dirr = "run"', f"{wrong}:2: agent.runtime_dirr: there is no such key"),
        ("[agent]\nruntime_dir = 5", f"{wrong}:2: agent.runtime_dir: must be a path"),
    ):
        if content is not None:
            wrong.write_text(content)
        for way in (["-c", wrong, *arguments], [arguments[0], "-c", wrong, *arguments[1:]]):
            done = run(*way, environ=other)
            assert (done.returncode, done.stdout) == (78, "")
            assert f"token-agent: {said}" in done.stderr
            assert "no agent is running" not in done.stderr
    assert run(*arguments, environ={**other, "TOKEN_AGENT_CONFIG": str(wrong)}).returncode == 78
    assert stage.token() == before


@pytest.mark.parametrize("content", [None, "", "nonsense", "[agent]\nruntime_dir = 5"], ids=str)
def test_its_own_agent(stage: Scene, agent: Running, content: str | None) -> None:
    """An agent that says it was started with this very file is asked, whatever became of the file."""
    config = stage.directory / "config.toml"
    assert run("wait", "--config", config).returncode == 0  # it has told everybody
    config.unlink()
    if content is not None:
        config.write_text(content)
    its = {"RUNTIME_DIRECTORY": str(stage.directory / "run")}
    done = run("reload", "--config", config, environ=its)
    assert (done.returncode, "what is running stays as it is" in done.stderr) == (78, True)
    assert run("refresh", "graph", "--config", config, environ=its).returncode == 0
    assert run("get", "graph", "--config", config, environ=its).stdout == stage.token()


def test_another_runtime_dir(stage: Scene, agent: Running) -> None:
    """Where the directory was edited, nobody is in the new one: that is said, and that the agent keeps the old one."""
    config, elsewhere = stage.directory / "config.toml", stage.directory / "elsewhere"
    assert run("wait", "--config", config).returncode == 0
    stage.config(runtime_dir=elsewhere)
    for op in ("reload", "plan"):
        done = run(op, "--config", config)
        assert (done.returncode, done.stdout) == (69, "")
        assert f"no agent is running that keeps {elsewhere}" in done.stderr
        assert "keeps the runtime_dir that it was started with until it is restarted" in done.stderr
        # An agent of this file in the default directory can be found there, and refuses it.
        done = run(op, "--config", config, environ={"RUNTIME_DIRECTORY": str(stage.directory / "run")})
        assert (done.returncode, "runtime_dir" in done.stderr) == (78, True)
    stage.config(runtime_dir=elsewhere, log_levl="info")
    for arguments in (*ASKING[:4], ["wait", "--timeout", "0"], ["exec", "graph", "--timeout", "0", "--", "true"]):
        done = run(*arguments, "--config", config) if arguments[0] != "exec" else run("-c", config, *arguments)
        assert (done.returncode, done.stdout) == (78, "")
        assert "agent.log_levl: there is no such key" in done.stderr
        assert "systemctl start" not in done.stderr


def test_no_agent(stage: Scene) -> None:
    """Without an agent the exit code is 69, and how to start one is said; so it is after its end or its death."""
    config = stage.config()

    def ask() -> subprocess.CompletedProcess[str]:
        return run("reload", "--config", config)

    done = ask()
    assert (done.returncode, done.stdout) == (69, "")
    assert "no agent is running" in done.stderr
    assert str(stage.directory / "run" / "control.sock") in done.stderr
    assert "systemctl start token-agent" in done.stderr
    for number in (signal.SIGTERM, signal.SIGKILL):
        with start("run", "--config", config) as running:
            running.wait_for_text("agent.started")
            assert ask().returncode == 0
            running.stop(number)
        done = ask()
        assert (done.returncode, "no agent is running" in done.stderr) == (69, True)


def test_mute_agent(stage: Scene) -> None:
    """Who holds the directory is named if it does not answer, as a `once` does not."""
    config = stage.config()
    (stage.directory / "run").mkdir()
    with lock.hold(stage.directory / "run"):
        done = run("reload", "--config", config)
    assert done.returncode == 69
    assert f"process {os.getpid()} is the agent here, but" in done.stderr


def test_stopped_agent(stage: Scene, agent: Running) -> None:
    """An agent that a signal has stopped is named with what lets it go on, at once, and exits 75; then it works."""
    config = stage.directory / "config.toml"
    agent.send(signal.SIGSTOP)
    for arguments in (["reload"], ["plan"], ["refresh", "graph"], ["get", "graph", "--min-valid", "2h"]):
        done = run(*arguments, "--config", config)
        assert (done.returncode, done.stdout) == (75, "")
        assert f"process {agent.pid} is the agent here, and was stopped by a signal" in done.stderr
        assert f"kill -CONT {agent.pid}" in done.stderr
    agent.send(signal.SIGCONT)
    assert run("reload", "--config", config).returncode == 0


def test_stopped_in_the_middle(stage: Scene, agent: Running) -> None:
    """Whoever waits for an answer is told within seconds if the agent is stopped by a signal meanwhile."""
    stage.provider.fault("hang", count=None)
    command = [*COMMAND, "refresh", "graph", "--config", str(stage.directory / "config.toml")]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as caller:
        stage.wait_for_requests(2)
        agent.send(signal.SIGSTOP)
        _, said = caller.communicate(timeout=PATIENCE)
    assert (caller.returncode, f"kill -CONT {agent.pid}" in said) == (75, True)


def test_no_answer_in_time(tmp_path: Path) -> None:
    """An agent that takes a request and does not answer it ends the wait: not now, and what to do."""
    code = "from agent.commands import asking; asking.ask(Path(sys.argv[1]), {'op': 'reload'}, None, patience=0.3)"
    command = [sys.executable, "-c", f"import sys; from pathlib import Path; {code}", str(tmp_path)]
    with lock.hold(tmp_path), control.listen(tmp_path):
        done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=PATIENCE)
    said = (
        f"TransientError: process {os.getpid()} is the agent here, but {tmp_path}/control.sock: no answer within 0.3 s"
    )
    assert done.stderr.strip().endswith(said)
    assert (TransientError.exit_code, asking.SHORT_PATIENCE, asking.PATIENCE) == (75, 90, 300)


def test_stop_does_not_wait(stage: Scene, agent: Running) -> None:
    """An agent that is stopped in the middle of a request ends in time, and the caller is told."""
    stage.provider.fault("hang", count=None)
    command = [*COMMAND, "refresh", "graph", "--config", str(stage.directory / "config.toml")]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as caller:
        stage.wait_for_requests(2)
        assert agent.stop(timeout=2) == 0
        _, said = caller.communicate(timeout=PATIENCE)
    assert caller.returncode == 69
    assert "closed the connection" in said


def test_what_only_the_service_knows(stage: Scene) -> None:
    """A path of systemd's that no shell knows is no fault of a configuration whose agent is not running."""
    config = stage.config(stage.profile(certificate="${CREDENTIALS_DIRECTORY}/graph.pem"))
    assert run("reload", "--config", config).returncode == 69


def test_light(stage: Scene, agent: Running) -> None:
    """Asking imports none of the libraries that work."""
    assert not imported("reload", "--config", stage.directory / "config.toml") & HEAVY
