"""The agent's own directories: made with the right mode, checked step by step, probed without a trace."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.errors import OutputError
from agent.output.access import ACL_ATTRIBUTE
from agent.output.directories import make_directory, opened, opened_to_list, probe_directory
from tests import sink_helpers as helpers
from tests.sink_helpers import GROUP, NOBODY, OTHER, Who, needs_root, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_ID = 0xFFFFFFFF


@pytest.fixture
def ground() -> Iterator[Path]:
    with helpers.ground() as path:
        yield path


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_a_directory_is_made_with_its_parents(ground: Path, umask: int) -> None:
    """Whatever the umask is, the directory has the mode asked for, and everybody can pass through its parents."""
    before = os.umask(umask)
    try:
        make_directory(ground / "one" / "two" / "run", 0o750)
    finally:
        os.umask(before)
    assert helpers.mode_of(ground / "one") == helpers.mode_of(ground / "one" / "two") == 0o755
    assert helpers.mode_of(ground / "one" / "two" / "run") == 0o750


def test_a_directory_that_exists_is_left_as_it_is(ground: Path) -> None:
    """Mode and content of a directory that is there do not change."""
    home = helpers.directory(ground / "run", mode=0o711)
    (home / "token").touch()
    make_directory(home, 0o755)
    assert helpers.mode_of(home) == 0o711
    assert helpers.names(home) == {"token"}


def test_a_directory_below_a_sticky_one_can_be_made(ground: Path) -> None:
    """Below /tmp and its like a directory of our own is safe; the probe says so beforehand and makes nothing."""
    tmp = helpers.directory(ground / "tmp", mode=0o1777)
    probe_directory(tmp / "run" / "deeper")
    assert helpers.names(tmp) == set()
    make_directory(tmp / "run" / "deeper", 0o755)
    probe_directory(tmp / "run" / "deeper")
    assert "everybody may write" in refusal(make_directory, tmp, 0o755).message
    assert "everybody may write" in refusal(probe_directory, tmp).message


def test_links_on_the_way_are_followed(ground: Path) -> None:
    """Through links of root or the agent directories are made and used, relative and absolute ones."""
    helpers.directory(ground / "real")
    (ground / "link").symlink_to("real/./../real")
    make_directory(ground / "link" / "run", 0o755)
    probe_directory(ground / "link" / "run")
    assert (ground / "real" / "run").is_dir()
    with opened(ground / "link" / ".." / "link" / "run" / "token") as place:
        assert place.path == ground / "real" / "run" / "token"


@pytest.mark.parametrize("name", ["file", "dangling", "loop", "file/below", "dangling/below", "to-file/below"])
def test_what_cannot_be_a_directory_is_refused(ground: Path, name: str) -> None:
    """A file, a link that leads nowhere or in a circle: refused by the probe and when it is made, nothing is left."""
    (ground / "file").touch()
    (ground / "dangling").symlink_to("nowhere")
    (ground / "loop").symlink_to("loop")
    (ground / "to-file").symlink_to("file")
    before = helpers.names(ground)
    for use in (probe_directory, lambda path: make_directory(path, 0o755)):
        error = refusal(use, ground / name)
        assert "cannot be used as a directory" in error.message
        assert str(ground / name) in error.message
    assert helpers.names(ground) == before


@needs_root
@pytest.mark.parametrize(("mode", "uid"), [(0o777, 0), (0o755, OTHER)])
def test_unsafe_directories_are_refused(ground: Path, mode: int, uid: int) -> None:
    """A directory that others own or may write to is refused, itself and as a parent, before anything is made."""
    home = helpers.directory(ground / "run", mode=mode, uid=uid)
    for path in (home, home / "below"):
        assert "unsafe directory" in refusal(probe_directory, path).message
        assert "unsafe directory" in refusal(make_directory, path, 0o755).message
    assert helpers.names(home) == set()


@needs_root
def test_the_directory_of_another_agent_user_names_that_user(ground: Path) -> None:
    """Root that uses the directories of an agent with a user of its own is told to run as that user."""
    home = helpers.directory(ground / "run", uid=OTHER)
    hint = refusal(make_directory, home, 0o755).hint
    assert f"run this as that user: runuser -u {OTHER} --" in hint
    assert "chown" not in hint  # the agent would be shut out of its own directory
    helpers.call(make_directory, home, 0o755, who=Who(OTHER))


@needs_root
def test_a_user_without_rights_is_told_so_by_the_probe(ground: Path) -> None:
    """A probe names what is not writable: the directory itself, or what it would have to be made in."""
    home = helpers.directory(ground / "run")
    helpers.directory(home / "closed", mode=0o700)
    for path, said in (
        (home, "it is not writable"),
        (home / "below" / "it", f"it does not exist, and {home} is not writable"),
        (home / "closed" / "below", "cannot be used as a directory: Permission denied"),
    ):
        error = refusal(probe_directory, path, who=Who(NOBODY))
        assert said in error.message
        assert "install -d" in error.hint
        assert "cannot be used" in refusal(make_directory, path / "x", 0o755, who=Who(NOBODY)).message
    helpers.call(probe_directory, home, who=Who(0, gid=0))


@needs_root
def test_only_friends_may_own_a_step(ground: Path) -> None:
    """A directory may belong to root, to us or to a friend; for deleting, to anybody."""
    home = helpers.directory(ground / "app", uid=OTHER)
    with opened(home / "token", {OTHER}) as place:
        assert place.path == home / "token"
        assert place.warnings == ()
    for friends in ((), {NOBODY}):
        with pytest.raises(OutputError, match=f"user id {OTHER}"), opened(home / "token", friends):
            pass
    with opened(home / "token", anywhere=True) as place, opened_to_list(home) as descriptor:
        assert os.fstat(place.directory) == os.fstat(descriptor)


@needs_root
def test_a_group_that_may_write_is_a_warning(ground: Path) -> None:
    """Directories that a group other than our own may write to are warned of, each once, and used."""
    home = helpers.directory(ground / "app", mode=0o775, gid=GROUP)
    inner = helpers.directory(home / "run", mode=0o2770, gid=GROUP)
    (ground / "link").symlink_to(inner)
    for path in (inner / "token", home / ".." / "link" / "token"):
        with opened(path) as place:
            assert len(place.warnings) == 2
            assert all(f"group id {GROUP}" in warning for warning in place.warnings)


@needs_root
def test_whose_right_to_write_is_no_news(ground: Path) -> None:
    """A directory that root's group may write to is nothing to warn of; by an ACL, somebody else may."""
    home = helpers.directory(ground / "app", mode=0o775, gid=0)
    with opened(home / "token") as place:
        assert place.warnings == ()
    entries = ((0x01, 7, NO_ID), (0x02, 6, OTHER), (0x04, 5, NO_ID), (0x10, 7, NO_ID), (0x20, 5, NO_ID))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(home, ACL_ATTRIBUTE, acl)
    with opened(home / "token") as place:
        (warning,) = place.warnings
        assert warning.startswith(f"{home}: somebody named in its ACL (getfacl) may write to it")


def test_what_cannot_be_a_directory_is_told(ground: Path) -> None:
    """In /proc no directory can be made; behind a link that leads nowhere the missing one is named."""
    error = refusal(make_directory, Path("/proc/token-agent"), 0o755)
    assert "none can be made there" in error.message
    assert "real file system" in error.hint
    (ground / "way").symlink_to(ground / "missing")
    assert f"{ground}/missing does not exist" in refusal(make_directory, ground / "way", 0o755).message


def test_descriptors_are_closed(ground: Path) -> None:
    """Whether a walk succeeds or is refused, no descriptor stays open."""
    before = _open_descriptors()
    helpers.directory(ground / "unsafe", mode=0o777)
    (ground / "loop").symlink_to("loop")
    for name in ("token", "unsafe/token", "loop/token", "missing/token"):
        with contextlib.suppress(OutputError, OSError), opened(ground / name):
            assert _open_descriptors() == before + 1
        with contextlib.suppress(OutputError):
            make_directory(ground / name, 0o755)
    assert _open_descriptors() == before


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_root_directory_is_a_directory() -> None:
    """The root exists, is safe, and is no file."""
    make_directory(Path("/"), 0o755)
    with pytest.raises(IsADirectoryError), opened(Path("/")):
        pass
