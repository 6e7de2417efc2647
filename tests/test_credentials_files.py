"""The files of credentials: what cannot be read is explained, what everybody can read is warned of."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from agent import files
from tests.certificate_helpers import load_certificate, make_certificate, refused, written

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


def test_missing(tmp_path: Path) -> None:
    """A missing file says so, is marked as missing, and the hint shows how far the path exists."""
    error = refused(tmp_path / "none" / "app.pem")
    assert error.missing
    assert "does not exist" in error.message
    assert str(tmp_path) in error.hint
    assert refused(tmp_path / "app.pem").hint == "put it there, or correct the path"


def test_dangling_link(tmp_path: Path) -> None:
    """A link whose target is gone is missing, and the hint names the target."""
    (tmp_path / "app.pem").symlink_to(tmp_path / "gone.pem")
    error = refused(tmp_path / "app.pem")
    assert error.missing
    assert f"symbolic link to {tmp_path}/gone.pem" in error.hint


@pytest.mark.parametrize("role", ["key", "password_file"])
def test_missing_companion(role: str, tmp_path: Path) -> None:
    """A missing key or password file is named itself."""
    path = written(tmp_path / "app.pem", make_certificate().pem)
    error = refused(path, **{role: tmp_path / "gone"})
    assert (error.path, error.missing) == (tmp_path / "gone", True)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's right to read everything, if we have it."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_permission_denied() -> None:
    """A file of others names its owner, its mode, and us, and how to let us in; it is not "missing"."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = written(Path(directory) / "app.pem", make_certificate().pem, 0)
        with as_nobody():
            error = refused(path)
        assert not error.missing
        assert "permission denied" in error.message
        assert "mode 0000" in error.hint
        assert "chgrp" in error.hint
        assert "LoadCredential=" in error.hint


def test_permission_denied_to_its_owner() -> None:
    """A file of our own that we have closed to ourselves needs no group, but a right of ours."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = written(Path(directory) / "app.pem", make_certificate().pem, 0)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, -1)
        with as_nobody():
            error = refused(path)
        assert error.hint.endswith(f"its mode is 0000: chmod u+r {path}")


def test_permission_denied_above() -> None:
    """A folder that we may not enter is told from a file that we may not read."""
    with TemporaryDirectory() as directory:
        path = written(Path(directory) / "app.pem", make_certificate().pem)
        Path(directory).chmod(0)
        with as_nobody():
            error = refused(path)
        Path(directory).chmod(0o700)
    assert "folders above it" in error.hint
    assert "ProtectHome=" not in error.hint


def test_permission_denied_in_a_home() -> None:
    """Below /root, /home or /run/user the unit may hide a file: the hint names ProtectHome= and the ways out."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        link = Path(directory) / "app.pem"
        link.symlink_to("/root/certs/app.pem")
        with as_nobody():
            errors = [refused(link), refused(Path("/root/certs/app.pem"))]
    for error in errors:
        assert error.hint.startswith("ProtectHome= of the unit hides /root from the service: move the file to /etc")
        assert "LoadCredential=" in error.hint
        assert "folders above it" in error.hint


def test_what_is_not_a_file(tmp_path: Path) -> None:
    """Directories and pipes are refused at once: nothing waits for somebody to write into a pipe."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "is a directory" in refused(tmp_path).message
    assert "not a regular file" in refused(tmp_path / "pipe").message
    assert "loop of symbolic links" in refused(tmp_path / "loop").message


def test_too_large(tmp_path: Path) -> None:
    """A huge file is refused without being read into memory."""
    with (tmp_path / "huge.pem").open("wb") as file:
        file.truncate(50 * files.LIMIT)
    assert "larger than" in refused(tmp_path / "huge.pem").message


# ---- not refused, but worth a word


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640, 0o660])
def test_modes_without_warning(mode: int, tmp_path: Path) -> None:
    """Owner and group are the operator's choice; systemd's credentials are 0400 or 0440."""
    assert load_certificate(written(tmp_path / "app.pem", make_certificate().pem, mode)).warnings == ()


def test_open_to_all(tmp_path: Path) -> None:
    """Files of secrets that everybody may read are warned of, the public certificate is not."""
    pair = make_certificate()
    certificate = written(tmp_path / "app.crt", pair.cert_pem, 0o644)
    key = written(tmp_path / "app.key", pair.key_pem, 0o604)
    password = written(tmp_path / "password", b"pw", 0o644)
    warnings = load_certificate(certificate, key=key, password_file=password).warnings
    assert [warning.split(" ")[0] for warning in warnings] == [str(key), str(password)]
    assert "mode 0604" in warnings[0]
    assert f"chmod o= {key}" in warnings[0]
