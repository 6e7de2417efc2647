"""The command line as users meet it: help, versions, streams, exit codes, and what a command costs to start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __version__
from agent.cli import COMMANDS
from tests.process_helpers import COMMAND, environment, run

HEAVY = {"msal", "cryptography", "pydantic", "requests", "urllib3", "jwt", "rich", "structlog", "watchfiles", "anyio"}
CALLS = [*([name] for name in COMMANDS), ["cert", "new"], ["cert", "show"]]


def imported(*arguments: object) -> set[str]:
    """Return the top-level modules that a call imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "agent", *map(str, arguments)],
        env=environment(),
        text=True,
        capture_output=True,
        check=False,
        timeout=30,
    )
    names = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)
    assert "agent" in names
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_help(call: list[str]) -> None:
    """Every command explains itself, with examples, in 80 columns."""
    done = run(*call, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: token-agent {' '.join(call)}")
    _, _, examples = done.stdout.partition("Examples:\n")
    assert f"token-agent {' '.join(call)}" in examples
    assert not [line for line in done.stdout.splitlines() if len(line) > 80]


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_help_is_light(call: list[str]) -> None:
    """Help needs none of the libraries that work."""
    assert not imported(*call, "--help") & HEAVY


def test_help_of_all() -> None:
    """Without a command the commands are listed; asking for help is right, saying nothing is wrong use."""
    asked, silent = run("--help"), run()
    assert (asked.returncode, asked.stderr, silent.returncode, silent.stdout) == (0, "", 2, "")
    for name, line in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", asked.stdout, re.MULTILINE)
    assert "Examples:" in asked.stdout
    assert max(map(len, asked.stdout.splitlines())) <= 80
    assert not imported("--help") & HEAVY


@pytest.mark.parametrize("call", [[], *CALLS], ids=" ".join)
def test_version(call: list[str]) -> None:
    """The version is one line on standard output, from every command, and costs nothing."""
    done = run(*call, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"token-agent {__version__}\n", "")


def test_version_is_light() -> None:
    """The version needs not even the command line."""
    assert not imported("--version") & (HEAVY | {"click"})


@pytest.mark.parametrize(
    "call",
    [["nonsense"], ["run", "--nonsense"], ["run", "surplus"], ["status", "--config"], ["once", "-c"], ["check", "x"]],
    ids=" ".join,
)
def test_wrong_use(call: list[str]) -> None:
    """Wrong use exits 2, says what is wrong on standard error, and prints no result."""
    done = run(*call)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr


@pytest.mark.parametrize(("slip", "meant"), [("chek", "check"), ("Status", "status"), ("explian", "explain")])
def test_a_slip_of_the_pen(slip: str, meant: str) -> None:
    """For a command that does not exist the nearest one is named."""
    done = run(slip)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"No such command '{slip}'. Did you mean '{meant}'?" in done.stderr
    assert "Did you mean" not in run("nonsense").stderr


def test_every_command_takes_a_configuration(tmp_path: Path) -> None:
    """-c is accepted everywhere, also where no configuration is needed; there it is not in the help."""
    config = tmp_path / "none.toml"
    for call in (["schema"], ["explain", "AADSTS700027"], ["explain", "--list"]):
        assert run(*call, "-c", config).returncode == 0
    assert run("cert", "show", "-c", config, tmp_path / "none.pem").returncode == 78
    for call in (["schema"], ["explain"], ["cert", "show"], ["cert", "new"]):
        assert "--config" not in run(*call, "--help").stdout


@pytest.mark.parametrize("command", ["status", "check", "run", "reload", "wait"])
def test_a_directory_that_is_gone(tmp_path: Path, command: str) -> None:
    """A relative path in a directory that was deleted is one clear error, wherever the path comes from."""
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    for number, (more, environ) in enumerate(
        ((["-c", "agent.toml"], {}), ([], {"TOKEN_AGENT_CONFIG": "agent.toml"})),
    ):
        gone = tmp_path / str(number)
        gone.mkdir()
        call = ["sh", "-c", script, "sh", str(gone), *COMMAND, command, *more]
        done = subprocess.run(call, env=environment(**environ), text=True, capture_output=True, check=False, timeout=30)
        assert (done.returncode, done.stdout) == (78, "")
        assert done.stderr.startswith("token-agent: agent.toml: it is relative to the current directory, which cannot")
        assert "Traceback" not in done.stderr


BROKEN = """
import click
@click.command()
def command():
    hidden = "local " + "value"
    with open("/answer/client_secret=" + "~".join(["s3cret", "value"])):
        pass
"""


def test_bug(tmp_path: Path) -> None:
    """A bug exits 1 with a traceback on standard error: places and messages, with secrets withheld."""
    (tmp_path / "broken.py").write_text(BROKEN)
    code = f"""
import sys, agent.commands, agent.cli
agent.commands.__path__.append({str(tmp_path)!r})
agent.cli.COMMANDS["broken"] = ""
sys.exit(agent.cli.run(["broken"]))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(), text=True, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"Traceback.*broken\.py.*FileNotFoundError: .*client_secret=", done.stderr, re.DOTALL)
    assert "s3cret~value" not in done.stderr
    assert "local value" not in done.stderr


@pytest.mark.parametrize("call", [["--help"], ["run", "--help"], ["explain", "AADSTS700027"]], ids=" ".join)
def test_reader_leaves(call: list[str]) -> None:
    """When the reader of a result leaves (`| head`), the command ends quietly."""
    theirs, ours = os.pipe()
    os.close(theirs)  # nobody reads any more
    done = subprocess.run(
        [*COMMAND, *call], env=environment(), stdout=ours, stderr=subprocess.PIPE, check=False, timeout=30
    )
    os.close(ours)
    assert (done.returncode, done.stderr) == (0, b"")


def test_stderr_full(tmp_path: Path) -> None:
    """A complaint that cannot be written does not change the exit code."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "run", "--config", str(tmp_path / "none.toml")],
            env=environment(),
            stderr=full,
            check=False,
            timeout=30,
        )
    assert done.returncode == 78
