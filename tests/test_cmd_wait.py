"""`token-agent wait` from outside: what a service that reads tokens relies on before it starts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent import lock, tokens
from agent.status import AgentStatus, LastError, ProfileStatus, TokenFileStatus, to_file
from tests.process_helpers import COMMAND, PATIENCE, environment, run, scene, start, write_config
from tests.test_cli import HEAVY, imported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
GRAPH = {
    "name": "graph",
    "tenant": "contoso.test",
    "client_id": "ace7a10d-aaaa-4a01-8663-1440b6b78cb9",
    "scopes": "api://x/.default",
    "certificate": "/nonexistent.pem",
}


@pytest.fixture
def config() -> Iterator[Path]:
    """A configuration in a directory that every user may enter, and the agent's directory beside it."""
    with tempfile.TemporaryDirectory(prefix="token-agent-tests-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "run").mkdir()
        yield write_config(directory, include=["conf.d/*.toml"])


def profile(config: Path, name: str = "graph", left: timedelta = 50 * MINUTE, **values: Any) -> ProfileStatus:
    """Return what is known of a profile whose token is good for so long, and write its token file."""
    now = datetime.now(UTC)
    path = config.parent / "run" / f"{name}.token"
    path.write_text("secret")
    path.chmod(0o600)
    usual = ProfileStatus(
        name,
        acquired_at=now - 10 * MINUTE,
        expires_at=now + left,
        token_sha256=tokens.fingerprint("secret"),
        token_files=(TokenFileStatus(str(path), "raw", now),),
    )
    return dataclasses.replace(usual, **values)


def publish(config: Path, *profiles: ProfileStatus, pid: int | None = None) -> None:
    """Leave what an agent leaves for everybody, whole at once."""
    now = datetime.now(UTC)
    agent = AgentStatus("0.1.0", os.getpid() if pid is None else pid, now, str(config))
    path = config.parent / "run" / "status.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(to_file(agent, profiles, now)))
    temporary.chmod(0o644)
    temporary.replace(path)


def wait(config: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return run("wait", *arguments, "--config", config, **more)


def test_valid(config: Path) -> None:
    """Valid tokens cost nothing and no word, whether an agent runs or not."""
    publish(config, profile(config), profile(config, "b"))
    for arguments in ((), ("graph",), ("b", "graph"), ("graph", "--min-valid", "49m", "--timeout", "0")):
        done = wait(config, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with lock.hold(config.parent / "run"):
        assert wait(config, "--timeout", "0").returncode == 0


@pytest.mark.parametrize(
    ("left", "lifetime", "arguments", "code"),
    [
        (6 * MINUTE, 60 * MINUTE, [], 0),
        (4 * MINUTE, 60 * MINUTE, [], 69),  # five minutes are asked for by default
        (4 * MINUTE, 60 * MINUTE, ["--min-valid", "3m"], 0),
        (50 * MINUTE, 60 * MINUTE, ["--min-valid", "55m"], 69),
        (40 * SECOND, 60 * SECOND, [], 0),  # of a short life, half of it
        (20 * SECOND, 60 * SECOND, [], 69),
        (40 * SECOND, 60 * SECOND, ["--min-valid", "5m"], 69),  # what is asked for is meant
        (5 * SECOND, 60 * SECOND, ["--min-valid", "0"], 0),
        (-5 * SECOND, 60 * SECOND, ["--min-valid", "0"], 69),
    ],
    ids=str,
)
def test_min_valid(config: Path, left: timedelta, lifetime: timedelta, arguments: list[str], code: int) -> None:
    """A token serves if it is good for as long as asked; five minutes, or half of a life shorter than ten."""
    now = datetime.now(UTC)
    publish(config, profile(config, left=left, acquired_at=now + left - lifetime))
    assert wait(config, "graph", "--timeout", "0", *arguments).returncode == code


def test_missing_file(config: Path) -> None:
    """Every token file has to be there; one that is missing is named."""
    whole = profile(config)
    missing = TokenFileStatus(str(config.parent / "run" / "second.token"), "json", datetime.now(UTC))
    publish(config, dataclasses.replace(whole, token_files=(*whole.token_files, missing)))
    done = wait(config, "--timeout", "0")
    assert done.returncode == 69
    assert "graph: fresh, " in done.stderr
    assert f"{missing.path}: the token file is missing" in done.stderr
    Path(missing.path).write_text('{"access_token": "secret", "token_type": "Bearer", "expires_on": 1}\n')
    assert wait(config, "--timeout", "0").returncode == 0


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _other(path: Path) -> None:
    path.write_text("another")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize("harm", [_empty, _other, _directory, _link])
def test_harmed_file(config: Path, harm: Callable[[Path], None]) -> None:
    """What does not hold the token is waited for, with an agent that may put it right and without one."""
    known = profile(config)
    publish(config, known)
    harm(Path(known.token_files[0].path))
    for code in (69, 75):
        with lock.hold(config.parent / "run") if code == 75 else contextlib.nullcontext():
            done = wait(config, "--timeout", "0")
        assert done.returncode == code
        assert f"{known.token_files[0].path}: the token file was altered" in done.stderr


def test_in_vain(config: Path) -> None:
    """In the end each profile that lacks something is named with its state, its last error and the fix."""
    error = LastError(datetime.now(UTC), "rejected", "AADSTS700027: \x1b[31mrefused", "upload the certificate")
    pending = ProfileStatus("crm", last_error=error)
    publish(config, profile(config), profile(config, "old", -3 * MINUTE), pending)
    with lock.hold(config.parent / "run"):
        began = time.monotonic()
        done = wait(config, "--timeout", "0.7")
    assert time.monotonic() - began > 0.7
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr.splitlines() == [
        "token-agent: waiting for old: expired 3 min ago",
        "token-agent: no valid token within 0.7 s:",
        "  old: expired 3 min ago",
        "  crm: pending, no token yet",
        "    AADSTS700027: \\x1b[31mrefused",
        "    hint: upload the certificate",
    ]
    done = wait(config, "crm", "nobody", "--timeout", "0")
    assert done.returncode == 69
    assert "nobody: no such profile yet; known: graph, old, crm" in done.stderr
    assert "no agent is running" in done.stderr
    assert "graph:" not in done.stderr


@pytest.mark.parametrize("command", [["wait"], ["exec"], ["get"], ["refresh"]], ids=str)
@pytest.mark.parametrize("source", ["agent", "configuration"])
def test_a_name_that_no_profile_has(config: Path, source: str, command: list[str]) -> None:
    """A name that neither the configuration nor a running agent knows is wrong use, at once, with the right ones."""
    more = ["--", "true"] if command == ["exec"] else []
    if source == "configuration":
        write_config(config.parent, GRAPH)
        done = run(*command, "nobody", "--config", config, *more)
    else:
        publish(config, profile(config))
        write_config(config.parent, top="nonsense")
        with lock.hold(config.parent / "run"):
            done = run(*command, "nobody", "--config", config, *more)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no profile named nobody; known: graph" in done.stderr


def test_a_name_that_may_come(config: Path) -> None:
    """A profile that the configuration has, or that it may have for all that can be read, is waited for."""
    publish(config, profile(config, "other"))
    write_config(config.parent, top="nonsense")
    assert wait(config, "graph", "--timeout", "0.1").returncode == 78  # not wrong use, but the configuration is wrong
    write_config(config.parent, GRAPH)
    with lock.hold(config.parent / "run"):
        assert wait(config, "graph", "--timeout", "0.1").returncode == 75


def test_nothing_there(config: Path) -> None:
    """Where no agent has ever run, or what it left is no sense, this waits, and then says so."""
    for content in (None, "", "nonsense", "[]", '{"agent": 1}'):
        if content is not None:
            (config.parent / "run" / "status.json").write_text(content)
        done = wait(config, "--timeout", "0.1")
        assert done.returncode == 69
        assert "no agent has run here yet" in done.stderr
    (config.parent / "run" / "status.json").unlink()
    (config.parent / "run").rmdir()
    assert wait(config, "graph", "--timeout", "0").returncode == 69


@pytest.mark.parametrize(
    "arguments", [["--timeout", "soon"], ["--min-valid", "-5"], ["--min-valid", "nan"], ["--timeout", "1e99"]], ids=str
)
def test_wrong_use(config: Path, arguments: list[str]) -> None:
    """What is no duration is wrong use, and what would be right is said."""
    done = wait(config, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr


def test_it_comes(config: Path) -> None:
    """A token that comes while this waits ends the waiting at once, and before it was said what was waited for."""
    with subprocess.Popen(
        [*COMMAND, "wait", "graph", "--config", str(config)], env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "token-agent: waiting for graph: no agent has run here yet\n"
        for pending in (ProfileStatus("other"), ProfileStatus("graph")):
            publish(config, pending)
        publish(config, profile(config))
        began = time.monotonic()
        assert process.wait(PATIENCE) == 0
        assert time.monotonic() - began < 2
        assert process.stderr.read() == ""


def test_an_earlier_agent(config: Path) -> None:
    """While an agent starts, what an earlier one has left does not count: it may be about other profiles."""
    publish(config, profile(config), pid=1)
    assert wait(config, "--timeout", "0").returncode == 0  # nobody runs: it is the best that is known
    with lock.hold(config.parent / "run"):
        done = wait(config, "--timeout", "0")
        assert done.returncode == 75
        assert "the agent is starting" in done.stderr
        publish(config, profile(config))
        assert wait(config, "--timeout", "0").returncode == 0


AS_NOBODY = """
import contextlib, os, sys
import agent.log, agent.child, agent.commands.exec
from agent import cli
with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
    for arguments in (["wait", "--nonsense"], ["wait", "--timeout", "0"], sys.argv[1:]):
        cli.run(arguments)  # imports what it needs while that can be read
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(cli.run(sys.argv[1:]))
"""


def as_nobody(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command as another user."""
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *arguments],
        env=environment(**environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@needs_root
def test_another_user(config: Path) -> None:
    """A user that may read neither configuration nor token nor the token's directory can wait all the same."""
    hidden = config.parent / "hidden"
    hidden.mkdir(0o700)
    whole = profile(config)
    file = TokenFileStatus(str(hidden / "token"), "raw", datetime.now(UTC))
    publish(config, dataclasses.replace(whole, token_files=(*whole.token_files, file)))
    done = as_nobody("wait", "graph", "--config", str(config), "--timeout", "0")
    assert (done.returncode, done.stderr) == (0, "")
    config.chmod(0o600)
    runtime = str(config.parent / "run")
    done = as_nobody("wait", "graph", "--config", str(config), "--timeout", "0", RUNTIME_DIRECTORY=runtime)
    assert (done.returncode, done.stderr) == (0, "")


@needs_root
def test_closed_directory(config: Path) -> None:
    """A runtime directory that others may not enter is named at once, with what it should be."""
    publish(config, profile(config))
    (config.parent / "run").chmod(0o700)
    done = as_nobody("wait", "graph", "--config", str(config))
    assert (done.returncode, done.stdout) == (78, "")
    assert "status.json: Permission denied" in done.stderr
    assert "0755" in done.stderr


@needs_root
def test_a_consumers_own_directory(config: Path) -> None:
    """The $RUNTIME_DIRECTORY of the service that waits does not lead astray: the agent is in /run/token-agent."""
    publish(config, profile(config))
    (config.parent / "run" / lock.NAME).touch()
    own = config.parent / "consumer"
    own.mkdir()
    script = 'mount -t tmpfs none /run && cp -a "$1" /run/token-agent && shift && exec "$@"'
    command = [*COMMAND, "wait", "--timeout", "0"]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", config.parent / "run", *command],
        env=environment(RUNTIME_DIRECTORY=str(own)),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path("/run/token-agent/lock").exists()


def test_light(config: Path) -> None:
    """Waiting imports none of the libraries that work."""
    publish(config, profile(config))
    assert not imported("wait", "graph", "--config", config) & HEAVY


def test_agent(tmp_path: Path) -> None:
    """With a real agent: begun before it, `wait` returns when the token is there, however many wait."""
    with scene(tmp_path, token_lifetime=timedelta(seconds=20)) as stage:
        config = stage.config(stage.profile(), stage.profile("b"))
        codes: list[int] = []
        waiting = [threading.Thread(target=lambda: codes.append(wait(config).returncode)) for _ in range(3)]
        for thread in waiting:
            thread.start()
        with start("run", "--config", config) as agent:
            for thread in waiting:
                thread.join(PATIENCE)
            assert codes == [0, 0, 0]
            assert stage.token()
            assert stage.token("b")
            assert agent.stop() == 0


def test_agent_fails(tmp_path: Path) -> None:
    """With a real agent that is refused: exit 75, with the code and the fix."""
    with scene(tmp_path) as stage:
        stage.provider.fault("error", count=None, code=700027)
        config = stage.config()
        with start("run", "--config", config) as agent:
            agent.wait_for("acquisition.failed")
            done = wait(config, "graph", "--timeout", "1")
    assert done.returncode == 75
    assert "graph: pending, no token yet" in done.stderr
    assert "AADSTS700027" in done.stderr
    assert "    hint: upload" in done.stderr
