"""The README says what is true: its configurations load, its commands exist and run, its tables are complete."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import cli, errors, files
from agent.config.load import load_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OURS = sorted(
    {
        line
        for line in re.findall(r"^ *\$ (.+)$", README, re.MULTILINE)
        if re.search(r"(^| |bin/)token-agent [a-z]", line)
    }
)


def call(*arguments: str, cwd: Path, **keys: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=50, check=False, **keys)


def test_the_two_commands_are_there() -> None:
    """The first screen shows the command that runs the demo and the one that runs the tests, each in one line."""
    first_screen = README.splitlines()[:30]
    assert "$ .ci/setup && .venv/bin/token-agent demo" in first_screen
    assert "$ .ci/setup && .venv/bin/python -m tests" in first_screen
    assert os.access(ROOT / ".ci" / "setup", os.X_OK)


def test_configurations_load(tmp_path: Path) -> None:
    """Every configuration shown is accepted as it stands."""
    blocks = re.findall(r"^ *```toml\n(.*?)```", README, re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        path = tmp_path / "config.toml"
        path.write_text(re.sub(r"^ {3}", "", block, flags=re.MULTILINE))
        assert load_config(path, {}, files.read_bytes, files.expand).profiles


def test_all_commands_are_listed() -> None:
    """The table of commands names each command, and none that does not exist; likewise the exit codes."""
    rows = re.findall(
        r"^\| (`[^|]+(?:\\\|[^|]+)*) \|", README.partition("## Commands\n")[2].split("\n## ")[0], re.MULTILINE
    )
    named = {words.split()[0] for row in rows for words in re.findall(r"`([a-z][^`]*)`", row)}
    assert named == set(cli.COMMANDS)
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    known = {kind.exit_code for kind in _tree(errors.AgentError)}
    assert codes == {0, 2} | known


def _tree(kind: type[errors.AgentError]) -> set[type[errors.AgentError]]:
    return {kind}.union(*(_tree(each) for each in kind.__subclasses__()))


@pytest.mark.parametrize("line", OURS)
def test_commands_are_understood(line: str, tmp_path: Path) -> None:
    """Every command shown exists, with all the options it is shown with."""
    words = shlex.split(line.replace("$(", "").replace(")", ""))
    words = words[next(i for i, word in enumerate(words) if word.split("/")[-1] == "token-agent") + 1 :]
    command = words[:2] if words[0] == "cert" else words[:1]
    shown = call(*command, "--help", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    for option in (word for word in words if word.startswith("--")):
        assert option in shown.stdout


def test_trying_things_without_entra(tmp_path: Path) -> None:
    """The two commands of that section, a profile as it says there, and a token by `once`."""
    section = README.partition("## Trying things without Entra")[2]
    cert, emulator = (shlex.split(line)[1:] for line in re.findall(r"^\$ (token-agent .+)$", section, re.MULTILINE)[:2])
    assert call(*cert, cwd=tmp_path).returncode == 0
    command = [sys.executable, "-m", "agent", *emulator]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            ready = json.loads(process.stdout.readline())
            client_id = emulator[emulator.index("--app") + 1].partition("=")[0]
            (tmp_path / "config.toml").write_text(
                f'[agent]\nruntime_dir = "run"\nstate_dir = "state"\n[[profile]]\nname = "demo"\n'
                f'client_id = "{client_id}"\nauthority = "{ready["url"]}/{ready["tenant"]}"\n'
                f'ca_file = "{ready["ca_file"]}"\nscopes = ["api://x/.default"]\ncertificate = "demo.pem"\n'
            )
            assert call("check", "--online", "-c", "config.toml", cwd=tmp_path).returncode == 0
            done = call("once", "-c", "config.toml", cwd=tmp_path)
            assert done.returncode == 0
            assert done.stdout.startswith("demo  fresh until ")
            assert (tmp_path / "run" / "demo.token").read_text().count(".") == 2
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
