"""Completion as a shell asks for it: what is offered, from where, how lightly; and a real bash on a terminal."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from agent import aadsts, status
from agent.cli import COMMANDS
from tests.process_helpers import COMMAND, PATIENCE, environment, write_config
from tests.terminal_helpers import read
from tests.test_cli import HEAVY

if TYPE_CHECKING:
    from pathlib import Path


def offered(line: str, environ: dict[str, str] | None = None) -> list[str]:
    """Return what is offered at the end of a line, as the script for bash gets it."""
    done = subprocess.run(COMMAND, env=asking(line) | (environ or {}), text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [answer.removeprefix("plain,") for answer in done.stdout.splitlines() if answer]


def asking(line: str) -> dict[str, str]:
    """Return the environment in which the command is asked for completion."""
    words = len(shlex.split(line)) - (not line.endswith(" "))
    return environment(COMP_WORDS=line, COMP_CWORD=str(words), _TOKEN_AGENT_COMPLETE="bash_complete")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of two profiles, and of one in a file of its own."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "one.toml").write_text('[[profile]]\nname = "included"\n')
    return write_config(tmp_path, {"name": "graph"}, {"name": "billing"}, include=["conf.d/*.toml"])


def test_commands() -> None:
    """All commands are offered, those that fit, the subcommands, and the options of each."""
    assert offered("token-agent ") == list(COMMANDS)
    assert offered("token-agent re") == ["reload", "refresh"]
    assert offered("token-agent chek ") == list(COMMANDS)  # and no word about the slip
    assert offered("token-agent cert ") == ["new", "show"]
    assert {"--json", "--watch", "--config", "--version", "--help"} <= set(offered("token-agent status -"))
    assert offered("token-agent get --format ") == ["raw", "json", "header", "env"]


@pytest.mark.parametrize("command", ["once", "refresh", "status", "wait", "get", "exec", "show", "doctor"])
def test_profiles(command: str, config: Path) -> None:
    """Every command that takes the name of a profile completes it, of whichever configuration is meant."""
    names = ["graph", "billing", "included"]
    assert offered(f"token-agent {command} -c {config} ") == names
    assert offered(f"token-agent -c {config} {command} ") == names
    assert offered(f"token-agent {command} ", {"TOKEN_AGENT_CONFIG": str(config)}) == names
    assert offered(f"token-agent {command} -c {config} gr") == ["graph"]


def test_each_once(config: Path) -> None:
    """A profile that is named already is not offered again."""
    assert offered(f"token-agent status -c {config} graph ") == ["billing", "included"]


def test_known_to_the_agent(config: Path) -> None:
    """Who may not read the configuration gets what the agent tells everybody, and nobody gets a name twice."""
    runtime = config.parent / "run"
    runtime.mkdir()
    now = datetime.now(UTC)
    profiles = (status.ProfileStatus("kept"), status.ProfileStatus("graph"))
    document = status.to_file(status.AgentStatus("1", 1, now, "/x"), profiles, now)
    (runtime / "status.json").write_text(json.dumps(document))
    assert offered(f"token-agent get -c {config} ") == ["graph", "billing", "included", "kept"]
    environ = {"RUNTIME_DIRECTORY": str(runtime), "TOKEN_AGENT_CONFIG": str(config.parent / "none.toml")}
    assert offered("token-agent get ", environ) == ["kept", "graph"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[[profile]\n",
        b"profile = 1\n",
        b"[[profile]]\nname = 1\n",
        b"agent = 1\n[[profile]]\n",
        b"[agent]\ninclude = 1\n",
        b'[agent]\ninclude = ["**x", 1, "~", "none.toml"]\n',
    ],
)
def test_silent(text: bytes, tmp_path: Path) -> None:
    """Of a configuration that is wrong, and of a status file, nothing is offered and nothing is said."""
    path = tmp_path / "config.toml"
    path.write_bytes(text)
    (tmp_path / "status.json").write_bytes(text)
    assert offered(f"token-agent get -c {path} ", {"RUNTIME_DIRECTORY": str(tmp_path)}) == []
    assert offered(f"token-agent get -c {tmp_path} ", {"RUNTIME_DIRECTORY": str(tmp_path)}) == []


def test_files_and_codes() -> None:
    """The shell completes files where a file is meant, and codes are offered where one is to be explained."""
    for line in ("token-agent run -c ", "token-agent schema -c ", "token-agent cert show ", "token-agent show /e"):
        assert [answer.split(",")[0] for answer in offered(line)] == ["file"]
    assert offered("token-agent cert new --out ") == ["dir,"]
    assert offered("token-agent exec graph -- ./x")[0].startswith("file,")
    assert offered("token-agent explain invalid_cl") == ["invalid_client"]
    assert "AADSTS700027" in offered("token-agent explain AADSTS7")
    assert len(offered("token-agent explain ")) == len(aadsts.entries())


@pytest.mark.parametrize("line", ["token-agent ", "token-agent status ", "token-agent run -"])
def test_light(line: str, config: Path) -> None:
    """Completion needs none of the libraries that work: it answers while somebody types."""
    environ = asking(line) | {"TOKEN_AGENT_CONFIG": str(config)}
    command = [sys.executable, "-X", "importtime", "-m", "agent"]
    done = subprocess.run(command, env=environ, text=True, capture_output=True, check=True)
    assert not {name.strip().split(".")[0] for name in re.findall(r"\| ([^|\n]+)$", done.stderr, re.MULTILINE)} & HEAVY
    if line == "token-agent ":
        assert "agent.commands.run" not in done.stderr


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash(config: Path) -> None:
    """A bash on a terminal that has read the script completes a command and a profile with the tabulator key."""
    program = config.parent / "token-agent"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    program.chmod(0o755)
    script = subprocess.run(
        [program], env=environment(_TOKEN_AGENT_COMPLETE="bash_source"), text=True, capture_output=True, check=True
    ).stdout
    start = config.parent / "start"
    start.write_text(f'{script}\nPS1=\ntoken-agent() {{ echo "called: $*."; }}\n')
    ours, its = os.openpty()
    environ = environment(TERM="dumb", TOKEN_AGENT_CONFIG=str(config), PATH=f"{program.parent}:{os.environ['PATH']}")
    command = ["bash", "--noprofile", "--rcfile", str(start), "-i"]
    with subprocess.Popen(command, env=environ, stdin=its, stdout=its, stderr=its, start_new_session=True) as process:
        os.close(its)
        os.write(ours, b"token-agent stat\tbil\t\nexit\n")
        said = b"".join(iter(lambda: read(ours), b""))
        process.wait(PATIENCE)
    os.close(ours)
    assert b"called: status billing." in said
