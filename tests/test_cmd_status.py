"""`token-agent status`: the document of the contract, a table people can read, and exit codes scripts can use.

The status files are those that `agent.status` makes; the command is a real process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agent import lock
from agent.status import (
    AgentStatus,
    CredentialStatus,
    HookStatus,
    LastError,
    ProfileStatus,
    TokenFileStatus,
    rfc3339,
    to_file,
)
from tests.process_helpers import COMMAND, environment, run, start, write_config
from tests.test_cli import HEAVY, imported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime.now(UTC).replace(microsecond=0)
MINUTE = timedelta(minutes=1)
PROFILE = {
    "tenant": "contoso.onmicrosoft.com",
    "client_id": "ace7a10d-aaaa-4a01-8663-1440b6b78cb9",
    "scopes": "https://graph.microsoft.com/.default",
    "certificate": "graph.pem",
}
FRESH = ProfileStatus(
    "graph",
    acquired_at=NOW - 10 * MINUTE,
    expires_at=NOW + 50 * MINUTE,
    refresh_at=NOW + 15 * MINUTE,
    degraded_at=NOW + 45 * MINUTE,
    credential=CredentialStatus(
        "certificate", "/etc/token-agent/graph.pem", "CN=graph", "AB12" * 10, "cd34" * 16, NOW + timedelta(days=300)
    ),
    token_files=(TokenFileStatus("/run/token-agent/graph.token", "raw", NOW - 10 * MINUTE),),
    hook=HookStatus(NOW - 10 * MINUTE, 0, None),
)
REFUSED = LastError(
    NOW - MINUTE,
    "rejected",
    "AADSTS700027: Client assertion contains an invalid signature.",
    "upload the certificate with thumbprint AB12 to app ace7a10d-aaaa-4a01-8663-1440b6b78cb9",
    "AADSTS700027",
    "1b671a64-40d5-491e-99b0-da01ff1f3341",
)


def changed(name: str, **values: Any) -> ProfileStatus:
    """Return FRESH under another name, with other values."""
    return dataclasses.replace(FRESH, name=name, **values)


FAILING = changed("billing", last_error=REFUSED, consecutive_failures=4, refresh_at=NOW + 4 * MINUTE)
EXPIRED = changed(
    "crm",
    acquired_at=NOW - 90 * MINUTE,
    expires_at=NOW - 30 * MINUTE,
    degraded_at=NOW - 35 * MINUTE,
    refresh_at=NOW - MINUTE,
    last_error=LastError(NOW - MINUTE, "transient", "login.example cannot be looked up", "check DNS on this machine"),
)
PENDING = ProfileStatus(
    "mail",
    refresh_at=NOW + MINUTE,
    consecutive_failures=1,
    last_error=LastError(
        NOW, "output", "/srv/mail/token: the directory does not exist", "install -d -m 0755 /srv/mail"
    ),
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of one profile, and the agent's directories."""
    (tmp_path / "run").mkdir()
    return write_config(tmp_path, {"name": "graph", **PROFILE})


def publish(config: Path, *profiles: ProfileStatus, pid: int | None = None, **agent: Any) -> None:
    """Leave the status file that an agent would."""
    known = AgentStatus(
        version="0.1.0",
        pid=os.getpid() if pid is None else pid,
        started_at=NOW - 60 * MINUTE,
        config_path=str(config),
        loaded_at=NOW - 60 * MINUTE,
        **agent,
    )
    path = config.parent / "run" / "status.json"
    path.write_text(json.dumps(to_file(known, profiles, NOW)))


@pytest.fixture
def running(config: Path) -> Iterator[None]:
    """This process holds the runtime directory, as a running agent does."""
    with lock.hold(config.parent / "run"):
        yield


def show(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("status", *arguments, "--config", config)


def test_document(config: Path, running: None) -> None:
    """The JSON document has exactly the keys and values of the contract."""
    publish(config, changed("graph", last_error=REFUSED, consecutive_failures=2))
    done = show(config, "--json")
    document = json.loads(done.stdout)
    assert 2000 < document["profiles"][0].pop("runway_seconds") <= 3000
    assert done.stderr == ""
    assert document == {
        "agent": {
            "version": "0.1.0",
            "pid": os.getpid(),
            "started_at": rfc3339(NOW - 60 * MINUTE),
            "running": True,
            "config": {"path": str(config), "loaded_at": rfc3339(NOW - 60 * MINUTE), "error": None},
            "clock_skew_seconds": {},
        },
        "profiles": [
            {
                "name": "graph",
                "state": "degraded",
                "expires_at": rfc3339(NOW + 50 * MINUTE),
                "acquired_at": rfc3339(NOW - 10 * MINUTE),
                "refresh_at": rfc3339(NOW + 15 * MINUTE),
                "consecutive_failures": 2,
                "last_error": {
                    "at": rfc3339(NOW - MINUTE),
                    "kind": "rejected",
                    "code": "AADSTS700027",
                    "message": REFUSED.message,
                    "hint": REFUSED.hint,
                    "correlation_id": REFUSED.correlation_id,
                },
                "credential": {
                    "kind": "certificate",
                    "path": "/etc/token-agent/graph.pem",
                    "subject": "CN=graph",
                    "thumbprint": "AB12" * 10,
                    "thumbprint_sha256": "cd34" * 16,
                    "not_after": rfc3339(NOW + timedelta(days=300)),
                    "candidate_error": None,
                },
                "token_files": [
                    {"path": "/run/token-agent/graph.token", "format": "raw", "written_at": rfc3339(NOW - 10 * MINUTE)}
                ],
                "hook": {"ran_at": rfc3339(NOW - 10 * MINUTE), "exit_code": 0, "error": None},
            }
        ],
    }


@pytest.mark.parametrize(
    ("profiles", "state", "code"),
    [
        ([FRESH], "fresh", 0),
        ([FAILING], "degraded", 77),
        ([EXPIRED], "expired", 75),
        ([PENDING], "pending", 78),
        ([ProfileStatus("new")], "pending", 75),
        ([changed("low", degraded_at=NOW - MINUTE)], "degraded", 75),
        ([FRESH, FAILING, EXPIRED], "fresh", 77),
        ([FRESH, FAILING, PENDING], "fresh", 78),
    ],
)
def test_exit_codes(config: Path, running: None, profiles: list[ProfileStatus], state: str, code: int) -> None:
    """Fresh is 0; of all that is not, the code that most needs a person; the output is the same with --json."""
    publish(config, *profiles)
    table, document = show(config), show(config, "--json")
    assert (table.returncode, document.returncode) == (code, code)
    assert json.loads(document.stdout)["profiles"][0]["state"] == state
    assert table.stdout.splitlines()[1].split()[:2] == [profiles[0].name, state]


def test_table(config: Path, running: None) -> None:
    """The table fits 80 columns, carries no colour in a pipe, and names each failure with its fix."""
    publish(config, FRESH, FAILING, EXPIRED, PENDING)
    done = show(config)
    until = f"{NOW + timedelta(days=300):%Y-%m-%d}"
    rows = [line.split() for line in done.stdout.splitlines()[:5]]
    assert rows[0] == ["PROFILE", "STATE", "RUNWAY", "NEXT", "TRY", "CREDENTIAL", "UNTIL"]
    assert (rows[1][:2], rows[1][3]) == (["graph", "fresh"], "min")
    assert 30 < int(rows[1][2]) < 50
    assert rows[1][-1] == until
    assert rows[3][:4] == ["crm", "expired", "0", "s"]
    assert rows[4][:3] == ["mail", "pending", "-"]
    assert max(len(line) for line in done.stdout.splitlines()[:5]) <= 80
    assert not any(line.endswith(" ") for line in done.stdout.splitlines())
    assert "\x1b" not in done.stdout
    for said in (REFUSED.message, REFUSED.hint, "check DNS on this machine", "install -d -m 0755 /srv/mail"):
        assert said in done.stdout
    assert f"pid {os.getpid()}" in done.stdout
    assert done.stderr == ""


def test_colours_on_a_terminal(config: Path, running: None) -> None:
    """A terminal gets colours, unless NO_COLOR is set; words are the same."""
    publish(config, FRESH)

    def on_terminal(**more: str) -> bytes:
        ours, theirs = pty.openpty()
        subprocess.run(
            [*COMMAND, "status", "-c", str(config)],
            env=environment(TERM="xterm", COLUMNS="80", **more),
            stdout=theirs,
            check=True,
            timeout=30,
        )
        os.close(theirs)
        shown = os.read(ours, 1 << 16)
        os.close(ours)
        return shown

    assert b"\x1b[32mfresh" in on_terminal()
    assert b"\x1b[3" not in on_terminal(NO_COLOR="1")


def test_hostile_text(config: Path, running: None) -> None:
    """Text from elsewhere cannot steer the terminal or pretend to be a line of the table."""
    error = LastError(NOW, "rejected", "no\x1b[2J\rmail  fresh\x07 [red]x[/red]", "a\nmail fresh")
    publish(config, changed("graph", last_error=error), config_error="bad\x1b]0;title\x07")
    done = show(config)
    assert not set(done.stdout + done.stderr) & {"\x1b", "\r", "\x07"}
    assert not any(line.startswith("mail") for line in done.stdout.splitlines())
    assert "[red]x[/red]" in done.stdout


def test_names(config: Path, running: None) -> None:
    """Names choose profiles, and the exit code speaks of these alone; an unknown name is wrong use."""
    publish(config, FRESH, FAILING, EXPIRED)
    chosen, unknown = show(config, "graph", "--json"), show(config, "graph", "nobody")
    assert [entry["name"] for entry in json.loads(chosen.stdout)["profiles"]] == ["graph"]
    assert chosen.returncode == 0
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "no profile named nobody; known: graph, billing, crm" in unknown.stderr


def test_agent_gone(config: Path) -> None:
    """After a service that is gone a good token is stopped, an expired one expired; the exit code is 69."""
    write_config(config.parent, {"name": "graph", **PROFILE}, {"name": "crm", **PROFILE})
    publish(config, FRESH, EXPIRED)
    document, table = show(config, "graph", "--json"), show(config)
    parsed = json.loads(document.stdout)
    assert (parsed["agent"]["running"], parsed["profiles"][0]["state"]) == (False, "stopped")
    assert document.returncode == 69
    assert "no agent is running" in table.stdout
    assert " in 1" not in table.stdout  # nothing will be tried
    assert table.returncode == 75


def test_after_once(config: Path) -> None:
    """What a single `once` left is judged by its times alone: nothing runs by design."""
    file = TokenFileStatus(str(config.parent / "run" / "graph.token"), "raw", NOW - 10 * MINUTE)
    publish(config, changed("graph", token_files=(file,)), mode="once")
    document = json.loads(show(config, "--json").stdout)
    assert (document["agent"]["running"], document["profiles"][0]["state"]) == (False, "fresh")


def test_another_agent_has_begun(config: Path, running: None) -> None:
    """A status file of an agent before the one that runs now is not that one's: it is there, and has not spoken."""
    publish(config, FRESH, pid=1)
    done = show(config, "--json")
    document = json.loads(done.stdout)
    agent, profile = document["agent"], document["profiles"][0]
    assert (agent["running"], agent["pid"], agent["started_at"]) == (True, os.getpid(), None)
    assert (profile["state"], done.returncode) == ("degraded", 75)
    assert "this is from before it was started" in profile["last_error"]["message"]


def test_an_agent_that_has_left_nothing(config: Path, running: None) -> None:
    """Before its first word there is an agent all the same."""
    document = json.loads(show(config, "--json").stdout)
    assert (document["agent"]["running"], document["agent"]["pid"]) == (True, os.getpid())
    assert document["profiles"][0]["state"] == "pending"


@pytest.mark.parametrize("left", [None, "", "{", "[]", "null", '{"agent": {}}'])
def test_never_ran(config: Path, left: str | None) -> None:
    """Where no agent has left a status, the configured profiles are pending and the document is complete."""
    if left is not None:
        (config.parent / "run" / "status.json").write_text(left)
    done = show(config, "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 75
    assert ("status.json: is damaged" in done.stderr) == (left is not None)
    agent = document["agent"]
    assert (agent["pid"], agent["started_at"], agent["running"]) == (None, None, False)
    assert agent["config"] == {"path": str(config), "loaded_at": None, "error": None}
    assert [(entry["name"], entry["state"], entry["runway_seconds"]) for entry in document["profiles"]] == [
        ("graph", "pending", 0)
    ]


def test_no_configuration(tmp_path: Path) -> None:
    """Without a usable configuration the problem is shown; the exit code says that it is the configuration."""
    done = run("status", "--config", tmp_path / "none.toml")
    assert done.returncode == 78
    assert str(tmp_path / "none.toml") in done.stderr


def test_unreadable(config: Path) -> None:
    """A status file that cannot be read is named with the reason; nothing is guessed."""
    (config.parent / "run" / "status.json").mkdir()
    done = show(config)
    assert (done.returncode, done.stdout) == (78, "")
    assert f"{config.parent}/run/status.json: " in done.stderr
    assert "Traceback" not in done.stderr


def test_refused_configuration(config: Path, running: None) -> None:
    """That the configuration on disk was refused is said, with the reason, though all tokens are fresh."""
    publish(config, FRESH, config_error="config.toml:3: unknown key `nmae`")
    document, table = show(config, "--json"), show(config)
    assert json.loads(document.stdout)["agent"]["config"]["error"] == "config.toml:3: unknown key `nmae`"
    assert "config.toml:3: unknown key `nmae`" in table.stderr
    assert "config.toml:3" not in table.stdout
    assert table.returncode == 0


def test_light(config: Path, running: None) -> None:
    """Status answers from files: none of the libraries that work are imported."""
    publish(config, FRESH)
    assert not imported("status", "--json", "--config", config) & HEAVY
    assert not imported("status", "--config", config) & HEAVY


def test_head(config: Path, running: None) -> None:
    """`status | head -1` ends quietly."""
    publish(config, *(changed(f"profile-{number}") for number in range(3000)))
    command = f"{' '.join(COMMAND)} status --config '{config}' | head -1"
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=environment(), text=True, capture_output=True, timeout=30, check=False
    )
    assert done.stdout.startswith("PROFILE ")
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_watch(config: Path, running: None) -> None:
    """--watch shows again what has changed, until interrupted, without a traceback."""
    publish(config, FRESH)
    with start("status", "--watch", "--config", config) as watching:
        watching.wait_for_text("graph")
        publish(config, FAILING)
        watching.wait_for_text("billing")
        assert watching.stop(signal.SIGINT) == 130
        assert watching.stderr.strip() == ""  # a terminal wants a new line after ^C
