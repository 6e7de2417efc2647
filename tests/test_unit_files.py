"""The files for systemd: judged by systemd itself where its tools are installed, and all of them shipped."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.process_helpers import ROOT, run

if TYPE_CHECKING:
    from pathlib import Path

UNIT = ROOT / "systemd" / "token-agent.service"
EXAMPLES = ROOT / "systemd" / "examples"
DROP_INS = sorted(path.name for path in EXAMPLES.glob("*.conf"))
NEWER = {"newer-systemd.conf": 254, "credentials-reload.conf": 260}
"""What systemd 252 does not know, and the version that knows it."""
EXPOSURE = {None: 1.5, "groups.conf": 1.5, "own-files-only.conf": 1.1, "owner.conf": 1.6, "read-root-keys.conf": 1.8}
"""What `systemd-analyze security` may give at most, with which drop-in."""

needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def installed(directory: Path, *drop_ins: str) -> Path:
    """Return a copy of the unit whose program exists, with drop-ins, as an administrator would have it."""
    unit = directory / UNIT.name
    unit.write_text(UNIT.read_text().replace("=token-agent ", "=/bin/true "))
    for name in drop_ins:
        (directory / f"{UNIT.name}.d").mkdir(exist_ok=True)
        shutil.copy(EXAMPLES / name, directory / f"{UNIT.name}.d")
    return unit


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], text=True, capture_output=True, check=False, timeout=30
    )


def exposure(unit: Path) -> float:
    """Return how exposed systemd thinks a service is."""
    found = re.search(r"exposure level for \S+: ([\d.]+)", analyze("security", "--offline=true", unit).stdout)
    assert found
    return float(found[1])


@needs_analyze
@pytest.mark.parametrize("drop_in", [None, *(name for name in DROP_INS if name not in NEWER)])
def test_verified(tmp_path: Path, drop_in: str | None) -> None:
    """The unit, alone and with each drop-in, has nothing that systemd does not understand."""
    unit = installed(tmp_path, *([drop_in] if drop_in else []))
    done = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert (done.returncode, done.stderr) == (0, "")


@needs_analyze
def test_verification_verifies(tmp_path: Path) -> None:
    """A key that systemd does not know is found by the same verification."""
    unit = installed(tmp_path)
    unit.write_text(unit.read_text().replace("ProtectClock=", "ProtectClok="))
    assert "ProtectClok" in analyze("verify", "--man=no", "--recursive-errors=no", unit).stderr


@needs_analyze
@pytest.mark.parametrize("name", ["token-agent-credentials.path", "token-agent-hook@.path"])
def test_pairs(tmp_path: Path, name: str) -> None:
    """Each path unit and the service it starts are understood by systemd."""
    service = name.replace(".path", ".service")
    for each in (name, service):
        instance = each.replace("@", "@graph")
        (tmp_path / instance).write_text((EXAMPLES / each).read_text())
        done = analyze("verify", "--man=no", "--recursive-errors=no", tmp_path / instance)
        assert (done.returncode, done.stderr) == (0, "")
    assert "StartLimitIntervalSec=0" in (EXAMPLES / service).read_text()


@needs_analyze
@pytest.mark.parametrize(("drop_in", "most"), EXPOSURE.items())
def test_exposure(tmp_path: Path, drop_in: str | None, most: float) -> None:
    """The service is as little exposed as what it does allows."""
    assert exposure(installed(tmp_path, *([drop_in] if drop_in else []))) <= most


def test_promises() -> None:
    """What the design rests on stands in the unit: synchronous reload, no start limit, exit 78 final, files kept."""
    lines = UNIT.read_text().splitlines()
    for line in (
        "Type=notify",
        "NotifyAccess=main",
        "ExecStart=token-agent run",
        "ExecReload=token-agent reload",
        "RestartPreventExitStatus=78",
        "StartLimitIntervalSec=0",
        "RuntimeDirectoryPreserve=yes",
        "After=network-online.target time-sync.target",
    ):
        assert line in lines
    assert not [line for line in lines if line.startswith("ConfigurationDirectory")]  # it would make /etc writable


def test_examples_are_told_of() -> None:
    """Each example is in the list of examples, and each says in its first lines what it is for."""
    told = (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.iterdir():
        if path.name != "README.md":
            assert f"`{path.name}`" in told
            assert path.read_text().startswith("# ")


def test_configuration_of_the_examples(tmp_path: Path) -> None:
    """What the credentials example says about the configuration is a configuration."""
    (line,) = re.findall(r"^#   (certificate = .*)$", (EXAMPLES / "credentials.conf").read_text(), re.MULTILINE)
    config = tmp_path / "config.toml"
    config.write_text(
        f'[agent]\nruntime_dir = "run"\nstate_dir = "state"\n[[profile]]\nname = "graph"\ntenant = "contoso.com"\n'
        f'client_id = "ace7a10d-aaaa-4a01-8663-1440b6b78cb9"\nscopes = "api://x/.default"\n{line}\n'
    )
    done = run("check", "--config", config, environ={"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")})
    assert f"{tmp_path}/credentials/graph.pem" in done.stdout + done.stderr


def test_shipped(tmp_path: Path) -> None:
    """The wheel brings the unit, the user, the directory and the examples to where they belong."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        data = {name.partition(".data/data/")[2] for name in archive.namelist()} - {""}
    assert {
        "lib/systemd/system/token-agent.service",
        "lib/sysusers.d/token-agent.conf",
        "lib/tmpfiles.d/token-agent.conf",
        *(f"share/doc/token-agent/systemd/examples/{path.name}" for path in EXAMPLES.iterdir()),
    } <= data
    assert {name for name in data if name.startswith("lib/systemd/")} == {"lib/systemd/system/token-agent.service"}
