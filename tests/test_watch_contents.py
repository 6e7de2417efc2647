"""What is on disk as values: what changes them, what does not, and when they are taken to be complete."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.watching import watch
from tests import virtual
from tests.watch_helpers import fresh, skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def test_only_content_counts(tmp_path: Path) -> None:
    """Touching a file, changing its mode or writing the same again is no change; one other byte is."""
    path = tmp_path / "app.pem"
    path.write_bytes(b"old")
    before = watch.contents([path])
    path.touch()
    path.chmod(0o600)
    (tmp_path / "new").write_bytes(b"old")
    (tmp_path / "new").rename(path)
    assert watch.contents([path]) == before
    status = path.stat()
    path.write_bytes(b"new")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert watch.contents([path]) != before


def test_what_cannot_be_read_is_a_content_too(tmp_path: Path) -> None:
    """A file that is missing, a directory, a pipe or no path at all: each says why, and none is waited for."""
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    names = ["missing", "directory", "pipe", "circle", "no\0path"]
    reasons = watch.contents(tmp_path / name for name in names)
    assert list(reasons.values()) == [
        "No such file or directory",
        "Is a directory",
        "not a regular file",
        "Too many levels of symbolic links",
        "ValueError",
    ]


def test_a_large_file_of_authorities_is_compared(tmp_path: Path) -> None:
    """A change at the end of two megabytes is one."""
    path = tmp_path / "ca.pem"
    path.write_bytes(bytes(2 << 20))
    before = watch.digest(path)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    assert len(before) == 64
    assert watch.digest(path) != before


def set_acl(path: Path) -> None:
    """Let another user read a file: entries of owner, user 1, group, mask, others."""
    entries = [(0x01, 6, 0xFFFFFFFF), (0x02, 4, 1), (0x04, 0, 0xFFFFFFFF), (0x10, 4, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", packed)
    except OSError as error:
        skip(f"no ACLs here: {error}")


def replace(path: Path) -> None:
    shutil.copy2(path, path.with_name("new"))
    path.with_name("new").rename(path)


def overwrite(path: Path) -> None:
    status = path.stat()
    path.write_text(fresh())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def hide_behind_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def give_away(path: Path) -> None:
    if os.geteuid():
        skip("only root may give a file to another")
    os.chown(path, 1, -1)


@pytest.mark.parametrize(
    "change", [overwrite, replace, Path.unlink, lambda path: path.chmod(0o640), give_away, set_acl, hide_behind_a_link]
)
def test_whatever_is_done_to_a_file_shows_in_its_fingerprint(change: Callable[[Path], object], tmp_path: Path) -> None:
    """Another content with the old time stamp, another inode, mode, owner or ACL; and it stays equal without."""
    path = tmp_path / "graph.token"
    path.write_text(fresh())
    before = watch.fingerprints([path])
    path.read_text()
    assert watch.fingerprints([path]) == before
    change(path)
    assert watch.fingerprints([path]) != before


def test_a_fingerprint_sees_behind_a_link(tmp_path: Path) -> None:
    """Where the file is a link by intention, a change of its target shows."""
    (tmp_path / "target").write_text(fresh())
    (tmp_path / "link").symlink_to("target")
    before = watch.fingerprint(tmp_path / "link")
    (tmp_path / "target").chmod(0o640)
    assert watch.fingerprint(tmp_path / "link") != before


def test_a_writer_in_the_middle_is_waited_for() -> None:
    """What counts is the first content that two looks, a fifth of a second apart, agree on."""
    contents, seconds = settle(iter(["", "half", "whole", "whole"]))
    assert contents == {Path("x"): "whole"}
    assert seconds == pytest.approx(0.6)


def test_what_stands_still_is_taken_at_once() -> None:
    """A finished change costs one more look."""
    contents, seconds = settle(iter(["whole", "whole"]))
    assert contents == {Path("x"): "whole"}
    assert seconds == pytest.approx(0.2)


def test_an_endless_writer_is_waited_for_two_seconds() -> None:
    """Then the last look counts, whatever it saw."""
    contents, seconds = settle(iter(map(str, range(1000))))
    assert contents == {Path("x"): str(round(seconds / 0.2))}
    assert 1.99 < seconds < 2.21


def settle(looks: Iterator[str]) -> tuple[watch.Contents, float]:
    """Return what it settles on, and after how many seconds."""

    async def main(loop: virtual.VirtualLoop) -> tuple[watch.Contents, float]:
        async def look() -> watch.Contents:
            return {Path("x"): next(looks)}

        result = await watch.settled(look, virtual.VirtualClock(loop))
        return result, loop.time()

    return virtual.run(main)
