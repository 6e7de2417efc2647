"""`token-agent run` from outside: started, signalled, reloaded, killed and restarted as a real process."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.certificate_helpers import written
from tests.process_helpers import Scene, run, sabotage, scene, start, status, wait_for_status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.process_helpers import Running

STOP_WITHIN = 2.0
"""Seconds, by the contract."""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider, an app, and room."""
    with scene(tmp_path) as made:
        yield made


def settled(config: Path) -> dict[str, object]:
    """Return the status of the running agent once all its profiles are fresh."""
    return wait_for_status(
        config, lambda shown: shown["agent"]["running"] and all(p["state"] == "fresh" for p in shown["profiles"])
    )


def stop_in_time(agent: Running, number: int = signal.SIGTERM) -> int:
    """Stop an agent, hold it to its time, and return the exit code."""
    began = time.monotonic()
    code = agent.stop(number)
    assert time.monotonic() - began < STOP_WITHIN
    return code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_life(stage: Scene, number: int) -> None:
    """An agent acquires, writes, runs, and ends at a signal with exit code 0; the token stays; stdout is silent."""
    config = stage.config()
    with start("run", "--config", config) as agent:
        written_event = agent.wait_for("token.written", profile="graph")
        assert written_event["path"] == str(stage.directory / "run" / "graph.token")
        shown = settled(config)
        assert shown["agent"]["pid"] == agent.pid  # type: ignore[index]
        assert run("status", "--config", config).returncode == 0
        assert stop_in_time(agent, number) == 0
    assert stage.token().count(".") == 2
    assert agent.stdout == ""
    names = [event["event"] for event in agent.events()]
    assert len(names) == len(agent.stderr.splitlines())
    assert {"certificate.loaded", "config.loaded", "agent.started", "token.acquired"} <= set(names)
    assert names[-1] == "agent.stopping"


@pytest.mark.parametrize("endpoint", ["discovery", "token"])
def test_stop_while_the_provider_hangs(stage: Scene, endpoint: str) -> None:
    """SIGTERM ends an agent within 2 s, with exit code 0, while it waits for an answer that never comes."""
    stage.provider.fault("hang", count=None, endpoint=endpoint)
    with start("run", "--config", stage.config()) as agent:
        stage.wait_for_requests(1, endpoint)
        assert stop_in_time(agent) == 0


def test_stop_while_backing_off(stage: Scene) -> None:
    """SIGTERM ends an agent at once while it waits for its next try."""
    stage.provider.fault("drop", count=None)
    with start("run", "--config", stage.config()) as agent:
        agent.wait_for("acquisition.failed", profile="graph", kind="transient")
        assert stop_in_time(agent) == 0


def test_second_agent(stage: Scene) -> None:
    """A second agent on the same runtime directory exits 75 and names the first; the first does not notice."""
    config = stage.config()
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written")
        second = run("run", "--config", config)
        assert (second.returncode, second.stdout) == (75, "")
        assert f"pid {agent.pid}" in second.stderr
        assert "hint: " in second.stderr
        assert settled(config)["agent"]["pid"] == agent.pid  # type: ignore[index]
        assert agent.stop() == 0
    assert stage.token_requests == 1


def test_bad_configuration(stage: Scene) -> None:
    """An agent does not start with a configuration it cannot use: exit 78, every problem with file and line."""
    config = stage.config(stage.profile(clientid="x"), stage.profile("a", scopes=None), log_levl="info")
    done = run("run", "--config", config)
    assert (done.returncode, done.stdout) == (78, "")
    for said in ("log_levl", "clientid", "scopes"):
        assert said in done.stderr
    assert all(line.startswith(f"token-agent: {config}:") for line in done.stderr.splitlines()[:-1])
    assert not (stage.directory / "run").exists()


def test_no_configuration(stage: Scene) -> None:
    """A configuration that is not there exits 78 and names it, wherever its name came from."""
    missing = stage.directory / "none.toml"
    for done in (run("run", "-c", missing), run("run", environ={"TOKEN_AGENT_CONFIG": str(missing)})):
        assert done.returncode == 78
        assert f"token-agent: {missing}: " in done.stderr


def test_unusable_directory(stage: Scene) -> None:
    """A runtime directory that cannot be one exits 78 and says why."""
    (stage.directory / "run").write_text("a file")
    done = run("run", "--config", stage.config())
    assert done.returncode == 78
    assert f"{stage.directory}/run: " in done.stderr
    assert "Traceback" not in done.stderr


def test_restart_reuses(stage: Scene) -> None:
    """An agent that starts again uses the token on disk instead of asking for another."""
    config = stage.config()
    for _ in range(2):
        with start("run", "--config", config) as agent:
            agent.wait_for("agent.started")
            settled(config)
            assert agent.stop() == 0
    assert run("once", "--config", config).returncode == 0
    assert stage.token_requests == 1


def test_restart_after_change(stage: Scene) -> None:
    """A token of another identity is not reused after a restart."""
    with start("run", "--config", stage.config()) as agent:
        agent.wait_for("token.written")
        agent.stop()
    first = stage.token()
    with start("run", "--config", stage.config(stage.profile(scopes="api://billing/.default"))) as agent:
        agent.wait_for("token.written")
        agent.stop()
    assert stage.token_requests == 2
    assert stage.token() != first


def test_killed(stage: Scene) -> None:
    """After kill -9 the file holds the last good token; the next start sweeps leftovers, and nothing else."""
    config = stage.config()
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written")
        settled(config)
        assert agent.stop(signal.SIGKILL) == -signal.SIGKILL
    token = stage.token()
    leftover = written(stage.directory / "run" / ".graph.token.0123456789abcdef.tmp", b"half a tok")
    others = [written(stage.directory / "run" / name, b"x") for name in (".other.tmp", "graph.token.bak")]
    with start("run", "--config", config) as agent:
        agent.wait_for("agent.started")
        settled(config)
        assert not leftover.exists()
        assert all(other.exists() for other in others)
        agent.stop()
    assert (stage.token(), stage.token_requests) == (token, 1)


def test_killed_at_any_moment(stage: Scene) -> None:
    """Whenever kill -9 strikes while tokens are replaced, a reader finds a whole token and the next start works."""
    config = stage.config()
    assert run("once", "--config", config).returncode == 0
    for _ in range(6):
        with start("once", "--force", "--config", config) as agent:
            agent.wait_for("token.acquired")
            agent.stop(signal.SIGKILL)
        assert stage.token().count(".") == 2
    assert run("once", "--config", config).returncode == 0
    assert {path.name for path in (stage.directory / "run").iterdir()} <= {"graph.token", "status.json", "lock"}


def test_reload(stage: Scene) -> None:
    """SIGHUP takes up a changed configuration: the new profile gets its token, the old one keeps its own."""
    config = stage.config()
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written", profile="graph")
        stage.config(stage.profile(), stage.profile("billing", scopes="api://billing/.default"))
        agent.send(signal.SIGHUP)
        agent.wait_for("token.written", profile="billing")
        assert [entry["name"] for entry in settled(config)["profiles"]] == ["graph", "billing"]  # type: ignore[attr-defined]
        assert agent.stop() == 0
    assert stage.token_requests == 2


def test_reload_removes(stage: Scene) -> None:
    """A profile that is gone after a reload is gone from the status, and its token file with it."""
    config = stage.config(stage.profile(), stage.profile("billing"))
    with start("run", "--config", config) as agent:
        agent.wait_for("agent.started")
        settled(config)
        stage.config()
        agent.send(signal.SIGHUP)
        agent.wait_for("token.deleted", profile="billing")
        shown = wait_for_status(config, lambda document: len(document["profiles"]) == 1)
        assert shown["profiles"][0]["name"] == "graph"
        assert agent.stop() == 0
    assert not (stage.directory / "run" / "billing.token").exists()
    assert stage.token_requests == 2


def test_reload_refused(stage: Scene) -> None:
    """A broken configuration changes nothing, shows in log and status, and is forgotten once it is mended."""
    config = stage.config()
    with start("run", "--config", config) as agent:
        agent.wait_for("agent.started")
        settled(config)
        stage.config(stage.profile(clientid="x"), stage.profile("b", scopes=None))
        agent.send(signal.SIGHUP)
        rejected = agent.wait_for("config.rejected")
        assert rejected["level"] == "error"
        assert "clientid" in rejected["message"]
        assert "scopes" in rejected["message"]
        shown = wait_for_status(config, lambda document: document["agent"]["config"]["error"] is not None)
        assert "clientid" in shown["agent"]["config"]["error"]
        assert [(entry["name"], entry["state"]) for entry in shown["profiles"]] == [("graph", "fresh")]
        assert "clientid" in run("status", "--config", config).stderr
        stage.config()
        agent.send(signal.SIGHUP)
        wait_for_status(config, lambda document: document["agent"]["config"]["error"] is None)
        assert agent.stop() == 0
    assert stage.token_requests == 1


def test_reload_changes_the_log(stage: Scene) -> None:
    """A reload changes the level of the log without a restart; a refused one does not."""
    config = stage.config(log_level="error")
    with start("run", "--config", config) as agent:
        settled(config)
        assert agent.stderr == ""
        stage.config(log_level="debug")
        agent.send(signal.SIGHUP)
        agent.wait_for("config.loaded")
        assert agent.stop() == 0


def test_unchanged_reload(stage: Scene) -> None:
    """SIGHUP without a change restarts nothing and asks nobody."""
    config = stage.config()
    with start("run", "--config", config) as agent:
        agent.wait_for("config.loaded")
        settled(config)
        agent.send(signal.SIGHUP)
        agent.wait_for("config.loaded")
        settled(config)
        assert agent.stop() == 0
    assert stage.token_requests == 1


def test_refused_by_the_provider(stage: Scene) -> None:
    """A refusal does not end the agent: it is shown with its fix, and over when the provider knows the certificate."""
    stage.provider.fault("error", code=700027, count=1)
    config = stage.config()
    with start("run", "--config", config) as agent:
        failed = agent.wait_for("acquisition.failed", profile="graph", kind="rejected")
        assert (failed["code"], failed["failures"]) == ("AADSTS700027", 1)
        assert failed["hint"]
        shown = wait_for_status(config, lambda document: document["profiles"][0]["last_error"] is not None)
        assert shown["profiles"][0]["state"] == "pending"
        assert run("status", "--config", config).returncode == 77
        assert agent.stop() == 0


def test_recovers(stage: Scene) -> None:
    """An outage at start is survived: the token comes as soon as the provider answers again."""
    stage.provider.fault("status", count=1)
    config = stage.config()
    with start("run", "--config", config) as agent:
        agent.wait_for("acquisition.failed", profile="graph", kind="transient")
        agent.wait_for("token.written", profile="graph")
        assert settled(config)["profiles"][0]["last_error"] is None  # type: ignore[index]
        assert agent.stop() == 0


def test_starts_without_certificate(stage: Scene) -> None:
    """A certificate that is not there yet does not end the agent; it is taken up as soon as it is."""
    stage.certificate.unlink()
    config = stage.config(rescan_interval="1s")
    with start("run", "--config", config) as agent:
        assert str(stage.certificate) in agent.wait_for("certificate.rejected", profile="graph")["message"]
        wait_for_status(config, lambda document: document["profiles"][0]["last_error"] is not None)
        assert run("status", "--config", config).returncode == 78
        written(stage.certificate, stage.pair.pem)
        agent.wait_for("token.written", profile="graph")
        assert agent.stop() == 0


def test_token_deleted_at_stop(stage: Scene) -> None:
    """With on_stop = "delete" the token is gone when the agent is."""
    config = stage.config(stage.profile(on_stop="delete"))
    with start("run", "--config", config) as agent:
        settled(config)
        assert agent.stop() == 0
    assert not (stage.directory / "run" / "graph.token").exists()
    assert status(config)["profiles"][0]["state"] in ("pending", "stopped")


def test_standard_error_breaks(stage: Scene) -> None:
    """When the reader of the log leaves, the agent goes on and still ends well."""
    config = stage.config(log_level="debug")
    reading, writing = os.pipe()
    with start("run", "--config", config, stderr=writing) as agent:
        os.close(writing)
        os.close(reading)
        settled(config)
        agent.send(signal.SIGHUP)
        assert agent.stop() == 0


BUG = """
import agent.network.entra
def broken(*arguments):
    raise RuntimeError(f"client_secret={'~'.join(['s3cret', 'value'])} is in a message")
agent.network.entra.acquire = broken
"""


def test_bug(stage: Scene) -> None:
    """A bug ends the agent with exit code 1, and its traceback is one event of the log, secrets withheld."""
    environ = sabotage(stage.directory, BUG)
    with start("run", "--config", stage.config(), environ=environ) as agent:
        failed = agent.wait_for("agent.failed")
        assert agent.wait() == 1
    assert "Traceback" in failed["exception"]
    assert "RuntimeError: client_secret=[withheld] is in a message" in failed["exception"]
    assert "s3cret~value" not in agent.stderr
    assert len(agent.events()) == len(agent.stderr.splitlines())


SHORT_OF_MEMORY = """
import agent.network.entra
def broken(*arguments):
    raise {}
agent.network.entra.acquire = broken
"""


@pytest.mark.parametrize("error", ["MemoryError", 'RuntimeError("can\'t start new thread")'])
def test_short_of_memory(stage: Scene, error: str) -> None:
    """Where nothing is wrong but that memory or threads are used up, that is said in two lines: it can start again."""
    environ = sabotage(stage.directory, SHORT_OF_MEMORY.format(error))
    with start("run", "--config", stage.config(), environ=environ) as agent:
        assert agent.wait() == 75
    lines = [line for line in agent.stderr.splitlines() if not line.startswith("{")]
    assert lines[0] == "token-agent: there is not enough memory, or there are not enough threads"
    assert "LimitAS=" in lines[1]
    assert len(lines) == 2
    assert "Traceback" not in agent.stderr
