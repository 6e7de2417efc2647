"""`cert new` and the files that are there: none is ever overwritten, and a failure leaves none behind."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent import cli
from agent.credentials import making as certificates
from agent.credentials.making import new_certificate
from agent.errors import OutputError
from tests.certificate_helpers import written

if TYPE_CHECKING:
    from pathlib import Path


def new(out: Path, *arguments: str) -> int:
    return cli.run(["cert", "new", "--out", str(out), "--subject", "CN=app", *arguments])


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("suffix", ["pem", "pfx", "cer"])
@pytest.mark.parametrize("kind", ["file", "dangling link", "directory"])
def test_never_overwrites(suffix: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If one of the three names is taken, by whatever, none is written."""
    taken = tmp_path / f"app.{suffix}"
    if kind == "file":
        taken.write_text("precious")
    elif kind == "directory":
        taken.mkdir()
    else:
        taken.symlink_to(tmp_path / "nowhere")
    assert new(tmp_path) == 78
    error = capsys.readouterr().err
    assert f"{taken}: exists already and is never overwritten" in error
    assert "--name" in error
    assert names(tmp_path) == [taken.name]
    assert kind != "file" or taken.read_text() == "precious"


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """If the second file cannot be written, the first is taken away again."""
    command = [sys.executable, "-m", "agent", "cert", "new", "--out", str(tmp_path), "--subject", "CN=app"]
    limited = ["bash", "-c", 'ulimit -f 2; exec "$@"', "-", *command]  # 2 KiB: enough for the .cer alone
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(limited, check=False, capture_output=True, text=True, env=environment, timeout=50)
    assert result.returncode == 78
    assert "app.pfx: cannot be written: File too large" in result.stderr
    assert "no file was left behind" in result.stderr
    assert names(tmp_path) == []


def test_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that cannot be there is named in the error."""
    (tmp_path / "file").write_text("")
    assert new(tmp_path / "file" / "out") == 78
    assert f"{tmp_path}/file/out: cannot be written: Not a directory" in capsys.readouterr().err


def test_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    """Only a folder that is made gets 0700."""
    tmp_path.chmod(0o750)
    assert new(tmp_path) == 0
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_unusable_password(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A password file without password is a mistake, not a PFX without password."""
    password = written(tmp_path / "password", content)
    assert new(tmp_path / "out", "--pfx-password-file", str(password)) == 78
    assert str(password) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_password_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing password file is named, and nothing is made."""
    assert new(tmp_path / "out", "--pfx-password-file", str(tmp_path / "none")) == 78
    assert f"{tmp_path}/none: does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_called_by_programs(tmp_path: Path) -> None:
    """What was made comes back as a value: paths and thumbprint; twice in one place is an error."""
    made = new_certificate(tmp_path, "CN=app")
    assert (made.pem, made.pfx, made.cer) == (tmp_path / "app.pem", tmp_path / "app.pfx", tmp_path / "app.cer")
    assert made.thumbprint == hashlib.sha1(made.cer.read_bytes()).hexdigest().upper()  # noqa: S324 - as the portal
    with pytest.raises(OutputError, match="exists already"):
        new_certificate(tmp_path, "CN=app")


def test_file_that_appears_meanwhile(tmp_path: Path) -> None:
    """A file that somebody else makes while the key is being made is not overwritten either, and the rest goes."""
    mine, theirs = tmp_path / "app.cer", written(tmp_path / "app.pem", b"precious")
    with pytest.raises(OutputError, match=r"app.pem: cannot be written: File exists"):
        certificates._create_all(tmp_path, [(mine, b"x", 0o644), (theirs, b"x", 0o600)])
    assert names(tmp_path) == ["app.pem"]
    assert theirs.read_bytes() == b"precious"
