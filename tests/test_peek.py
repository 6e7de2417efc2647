"""The quick look: finds the agent's directories in any state of the configuration, and as the loader does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent import files
from agent.peek import peek_settings
from tests.config_helpers import HEAD, load, write

DEFAULTS = (Path("/run/token-agent"), Path("/var/lib/token-agent"))


def peek(path: Path, environ: dict[str, str] | None = None) -> tuple[Path, Path]:
    settings = peek_settings(path, environ or {}, files.read_bytes)
    return settings.runtime_dir, settings.state_dir


@pytest.mark.parametrize(
    "settings",
    [
        "",
        'runtime_dir = "run"\nstate_dir = "../state"',
        'runtime_dir = "/run/x"',
        'runtime_dir = "${RUNTIME_DIRECTORY}/x"\nstate_dir = "${CONFIGURATION_DIRECTORY}"',
    ],
)
@pytest.mark.parametrize(
    "environ",
    [
        {"RUNTIME_DIRECTORY": "/run/a:/run/b", "CONFIGURATION_DIRECTORY": "/etc/c"},
        {"RUNTIME_DIRECTORY": "/run/a", "STATE_DIRECTORY": "/var/lib/a", "CONFIGURATION_DIRECTORY": "/etc/c"},
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_as_the_loader(tmp_path: Path, settings: str, environ: dict[str, str], mark: str) -> None:
    """Where the configuration is right, the quick look sees what the loader sees."""
    config = load(tmp_path, f"{mark}[agent]\n{settings}\n{HEAD}", environ)
    assert peek(config.path, environ) == (config.agent.runtime_dir, config.agent.state_dir)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[agent",
        b"agent = 3",
        b"[[agent]]",
        b"[agent]\nruntime_dir = 5\nstate_dir = []",
        b"[agent]\nruntime_dir = ''\nstate_dir = '~/x'",
        b"[agent]\nruntime_dir = '${CREDENTIALS_DIRECTORY}/x'\nstate_dir = '${NO}/x'",
        b"a = " + b"[" * 50_000,
        b"a = " + b"1" * 5_000,
    ],
)
def test_whatever_is_wrong_the_defaults_stand(tmp_path: Path, content: bytes) -> None:
    """A configuration that cannot be used leaves the defaults, and raises nothing."""
    assert peek(write(tmp_path, content)) == DEFAULTS


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and a directory leave the defaults, and those are systemd's where it sets them."""
    assert peek(tmp_path / "missing.toml") == DEFAULTS
    assert peek(tmp_path) == DEFAULTS
    environ = {"RUNTIME_DIRECTORY": "/run/a", "STATE_DIRECTORY": "/var/lib/a"}
    assert peek(tmp_path, environ) == (Path("/run/a"), Path("/var/lib/a"))


def test_one_wrong_setting_does_not_hide_the_other(tmp_path: Path) -> None:
    """What is right is used, though the rest of the configuration is not."""
    path = write(tmp_path, "[agent]\nstate_dir = 7\nruntime_dir = 'run'\nunknown = 1\n[[profile]]\n")
    assert peek(path) == (tmp_path / "run", DEFAULTS[1])


@pytest.mark.parametrize(
    "content",
    [
        "[agent]\nruntime_dir = 'run'\nnonsense\n",
        "[agent]\n  runtime_dir = \"r\\u0075n\" # here\n[[profile]\nruntime_dir = 'no'\n",
        "what\n[other]\nruntime_dir = 'no'\n[ agent ] # the agent\nruntime_dir = 'run'\nstate_dir = [\n",
        "\ufeff[agent]\nruntime_dir = '${RUN}/x'\nruntime_dir = 'run'\nx = 'unfinished",
        b"# \xff\n[agent]\nruntime_dir = 'run'\n",
    ],
)
def test_what_is_not_toml_is_read_by_lines(tmp_path: Path, content: str | bytes) -> None:
    """A slip somewhere in the file does not hide where the agent is, if a line of [agent] says so."""
    assert peek(write(tmp_path, content)) == (tmp_path / "run", DEFAULTS[1])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", " is empty"),
        ("[agent", " is not valid TOML"),
        ("[agent]\nruntime_dir = '/run/x'\nnonsense", ""),
        ("[agent]\nstate_dir = '/x'\nlog_level = 'info'\n[[profile]]\nname = 'runtime'", ""),
        ("[agent]\nruntime_dir = 5", " has `runtime_dir`, and no runtime_dir that can be used"),
        ("[agent]\nruntime_dirr = 'run'", " has `runtime_dirr`, and no runtime_dir that can be used"),
        ("[agnet]\nruntime_dir = 'run'", " has `runtime_dir`, and no runtime_dir that can be used"),
        ("[[profile]]\nname = 'a'\nruntime-dir = 'run'", " has `runtime-dir`, and no runtime_dir that can be used"),
        ("[agent]\nruntime_dir = 'run'\nruntime_dirr = 'x'", ""),
    ],
)
def test_why_the_default_may_be_wrong(tmp_path: Path, content: str, said: str) -> None:
    """That another directory may be meant is told where the configuration could not be read, and only there."""
    path = write(tmp_path, content)
    assert peek_settings(path, {}, files.read_bytes).problem == (f"{path}{said}" if said else "")
    missing = tmp_path / "missing.toml"
    problem = f"{missing} cannot be read (No such file or directory)"
    assert peek_settings(missing, {}, files.read_bytes).problem == problem


def test_nothing_heavy_is_imported() -> None:
    """The quick look needs neither pydantic nor MSAL nor cryptography."""
    code = (
        "import sys, agent.peek\n"
        "print(sorted({'pydantic', 'pydantic_core', 'msal', 'cryptography', 'requests', 'rich'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=50)
    assert done.stdout == "[]\n"
