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


def test_nothing_heavy_is_imported() -> None:
    """The quick look needs neither pydantic nor MSAL nor cryptography."""
    code = (
        "import sys, agent.peek\n"
        "print(sorted({'pydantic', 'pydantic_core', 'msal', 'cryptography', 'requests', 'rich'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=50)
    assert done.stdout == "[]\n"
