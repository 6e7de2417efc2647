"""Reading files and finding them by pattern, without being harmed by what is there."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

from agent import files
from tests.sink_helpers import OTHER, Who, call, ground, needs_root

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    """Up to the limit all of it is returned, also through a link; one byte more is an error, never a part."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        assert files.read_bytes(tmp_path / name, limit=10) == b"x" * 10
        with pytest.raises(OSError, match="larger than 9 bytes") as caught:
            files.read_bytes(tmp_path / name, limit=9)
        assert caught.value.errno == errno.EFBIG
    (tmp_path / "empty").touch()
    assert files.read_bytes(tmp_path / "empty") == b""


def test_what_is_no_file_does_not_block(tmp_path: Path) -> None:
    """A pipe that nobody writes to, a socket, an endless device, a directory: an error each, at once."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for name in ("fifo", "zero", "socket", "", "missing", "fifo/below"):
        with pytest.raises(OSError, match=r".+") as caught:
            files.read_bytes(tmp_path / name)
        assert caught.value.errno


def test_a_descriptor_is_not_left_open(tmp_path: Path) -> None:
    """Whether reading succeeds or not, no descriptor stays open."""
    (tmp_path / "file").write_bytes(b"xx")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - no directory of files
    files.read_bytes(tmp_path / "file")
    for name in ("", "file"):
        with pytest.raises(OSError, match=r".+"):
            files.read_bytes(tmp_path / name, limit=1)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - no directory of files


def test_patterns_find_files_in_order(tmp_path: Path) -> None:
    """A pattern relative to a directory, or absolute, gives its files sorted by name and no directories."""
    for name in ("b.toml", "a.toml", "c.txt", "10.toml", "9.toml"):
        (tmp_path / name).touch()
    (tmp_path / "d.toml").mkdir()
    (tmp_path / "d.toml" / "e.toml").touch()
    expected = [tmp_path / name for name in ("10.toml", "9.toml", "a.toml", "b.toml")]
    assert files.expand(tmp_path, "*.toml") == expected
    assert files.expand(tmp_path / "elsewhere", f"{tmp_path}/*.toml") == expected
    assert files.expand(tmp_path, "*/*.toml") == [tmp_path / "d.toml" / "e.toml"]
    assert files.expand(tmp_path, "none/*.toml") == []


def _expand(directory: Path, pattern: str) -> list[Path] | str:
    try:
        return files.expand(directory, pattern)
    except PermissionError as error:
        return str(error.filename)


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o711, 0o744])
@pytest.mark.parametrize("pattern", ["closed/*.toml", "*/a.toml", "*/*.toml", "**/*.toml", "closed/inner/*.toml"])
def test_a_directory_that_may_not_be_searched_is_not_empty(pattern: str, mode: int) -> None:
    """Where a pattern leads into a directory that this user may not list or enter, that one is named."""
    with ground() as base:
        (base / "closed" / "inner").mkdir(parents=True)
        (base / "closed" / "inner" / "b.toml").touch()
        (base / "closed" / "a.toml").touch()
        (base / "open").mkdir()
        (base / "open" / "a.toml").touch()
        everything = _expand(base, pattern)
        (base / "closed").chmod(mode)
        found = call(_expand, base, pattern, who=Who(OTHER))
        assert isinstance(found, str) or sorted(found) == everything
        if isinstance(found, str):
            assert found.startswith(f"{base}/closed")
        assert call(_expand, base, "open/*.toml", who=Who(OTHER)) == [base / "open" / "a.toml"]
        assert call(_expand, base, "missing/*.toml", who=Who(OTHER)) == []
