"""What is refused, and that the old content is still there: unsafe places, odd targets, disks that are full."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent import users
from agent.errors import OutputError
from agent.output import sink
from agent.output.access import Access
from tests import sink_helpers as helpers
from tests.sink_helpers import CAP_CHOWN, GROUP, NEW, NOBODY, OLD, OTHER, Who, needs_root, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLAIN = Access()
FOLLOW = Access(follow_symlink=True)


@pytest.fixture
def ground() -> Iterator[Path]:
    with helpers.ground() as path:
        yield path


def refused_twice(path: Path, wanted: Access = PLAIN, who: Who | None = None) -> OutputError:
    """Return the error of writing; probing has to say the same."""
    error = refusal(sink.write, path, NEW, wanted, who=who)
    assert refusal(sink.probe, path, wanted, who=who).message == error.message
    return error


# ---- unsafe directories


@needs_root
@pytest.mark.parametrize(
    ("mode", "uid", "said"),
    [
        (0o777, 0, "everybody may write"),
        (0o757, 0, "everybody may write"),
        (0o1777, 0, "everybody may write"),
        (0o755, OTHER, f"user id {OTHER}"),
        (0o700, OTHER, f"user id {OTHER}"),
    ],
)
def test_a_directory_of_others_is_refused(ground: Path, mode: int, uid: int, said: str) -> None:
    """Where somebody else owns the directory or everybody may write to it, sticky or not, nothing is written."""
    home = helpers.directory(ground / "run", mode=mode, uid=uid)
    assert said in refused_twice(home / "token").message
    assert helpers.names(home) == set()


@needs_root
@pytest.mark.parametrize(("mode", "uid"), [(0o777, 0), (0o755, OTHER), (0o1777, OTHER)])
def test_a_directory_above_that_is_unsafe_is_refused(ground: Path, mode: int, uid: int) -> None:
    """A safe directory below one that somebody else can rearrange is not safe."""
    home = helpers.directory(ground / "app", mode=mode, uid=uid)
    inner = helpers.directory(home / "run")
    assert str(home) in refused_twice(inner / "token").message
    assert helpers.names(inner) == set()


@needs_root
def test_another_user_than_the_owner_of_the_token_may_not_own_the_directory(ground: Path) -> None:
    """The directory may be the owner's, nobody else's; the number -1 is nobody's."""
    home = helpers.directory(ground / "app", uid=OTHER)
    assert f"user id {OTHER}" in refused_twice(home / "token", Access(owner=str(NOBODY))).message
    assert "no id" in refused_twice(home / "token", Access(owner=str(2**32 - 1))).message


# ---- symbolic links


def test_a_link_as_target_is_refused(ground: Path) -> None:
    """A symbolic link is neither written through nor replaced nor removed."""
    for name, target in (("link", "file"), ("dangling", "nowhere"), ("loop", "loop")):
        (ground / name).symlink_to(target)
    (ground / "file").write_bytes(OLD)
    for name in ("link", "dangling", "loop"):
        assert "symbolic link" in refused_twice(ground / name).message
        assert "symbolic link" in refusal(sink.remove, ground / name).message
        assert (ground / name).is_symlink()
    assert (ground / "file").read_bytes() == OLD


@pytest.mark.parametrize("target", ["loop", "missing/file", "file/below", "directory", ".", "/", ".."])
def test_a_link_that_leads_to_no_file_is_refused(ground: Path, target: str) -> None:
    """Loops, missing directories, files taken for directories and directories are named, and the link stays."""
    (ground / "loop").symlink_to("loop")
    (ground / "file").write_bytes(OLD)
    helpers.directory(ground / "directory")
    (ground / "token").symlink_to(target)
    refused_twice(ground / "token", FOLLOW)
    assert (ground / "token").readlink() == Path(target)
    assert helpers.names(ground) == {"loop", "file", "directory", "token"}


@needs_root
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_followed_link_into_an_unsafe_directory_is_refused(ground: Path, mode: int) -> None:
    """Following a link changes nothing about which directories are safe."""
    home = helpers.directory(ground / "run", mode=mode)
    (ground / "token").symlink_to(home / "file")
    assert "everybody may write" in refused_twice(ground / "token", FOLLOW).message
    assert helpers.names(home) == set()


@needs_root
def test_a_link_of_somebody_else_is_not_followed(ground: Path) -> None:
    """A link of another user in a sticky directory could lead anywhere, as a directory or as the file."""
    helpers.directory(ground / "tmp", mode=0o1777)
    real = helpers.directory(ground / "real")
    (ground / "tmp" / "way").symlink_to(real)
    os.chown(ground / "tmp" / "way", OTHER, OTHER, follow_symlinks=False)
    assert f"user id {OTHER}" in refused_twice(ground / "tmp" / "way" / "token").message
    assert f"user id {OTHER}" in refused_twice(ground / "tmp" / "way", FOLLOW).message
    assert helpers.names(real) == set()


@needs_root
@pytest.mark.parametrize("owner_of_link", [0, OTHER])
def test_the_owner_of_a_token_cannot_send_it_elsewhere(ground: Path, owner_of_link: int) -> None:
    """In a directory of the token's owner no link is followed: he could point it into a directory of root."""
    system = helpers.directory(ground / "etc")
    app = helpers.directory(ground / "app", uid=OTHER)
    wanted = Access(owner=str(OTHER), follow_symlink=True)
    for name, target in (("way", system), ("token", system / "file")):
        (app / name).symlink_to(target)
        os.chown(app / name, owner_of_link, -1, follow_symlinks=False)
    assert "unsafe symbolic link" in refused_twice(app / "way" / "token", wanted).message
    assert "unsafe symbolic link" in refused_twice(app / "token", wanted).message
    assert "unsafe symbolic link" in refusal(_remove_followed, app / "token").message
    assert helpers.names(system) == set()


def _remove_followed(path: Path) -> None:
    sink.remove(path, follow_symlink=True)


@needs_root
def test_a_directory_that_is_swapped_meanwhile_is_not_followed(ground: Path) -> None:
    """While its owner exchanges a directory for a link and back, nothing ever arrives where the link leads."""
    system = helpers.directory(ground / "etc")
    app = helpers.directory(ground / "app", uid=OTHER)
    helpers.directory(app / "run", uid=OTHER)
    attacker = helpers.start(helpers.swap_until_killed, app, system, who=Who(OTHER))
    helpers.wait_until_ready(attacker)
    wanted = Access(owner=str(OTHER))
    outcomes = [_outcome(app / "run" / "token", b"%d" % number, wanted) for number in range(3000)]
    attacker.kill()
    attacker.communicate()
    assert helpers.names(system) == set()
    assert None in outcomes
    assert any(outcome and "unsafe symbolic link" in outcome for outcome in outcomes)


def _outcome(path: Path, content: bytes, wanted: Access = PLAIN) -> str | None:
    try:
        sink.write(path, content, wanted, durable=False)
    except OutputError as error:
        return error.message
    return None


# ---- odd targets


def test_a_directory_as_target_is_refused(ground: Path) -> None:
    """A directory is not replaced, however it is named, nor removed."""
    helpers.directory(ground / "token")
    for path in (ground / "token", ground / "token" / ".." / "token", ground / "token" / "..", Path("/")):
        assert "directory" in refused_twice(path).message
    assert "directory" in refusal(sink.remove, ground / "token").message
    assert (ground / "token").is_dir()


def test_what_is_no_file_is_refused(ground: Path) -> None:
    """A FIFO, a socket or a device is neither replaced nor opened nor removed."""
    os.mkfifo(ground / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(ground / "socket"))
    paths = [ground / "fifo", ground / "socket", Path("/dev/null")]
    for path in paths:
        before = path.stat()
        error = refused_twice(path)
        assert "neither a file nor absent" in error.message or path == Path("/dev/null")
        refusal(sink.remove, path)
        assert path.stat().st_ino == before.st_ino


def test_a_missing_directory_is_named(ground: Path) -> None:
    """A missing parent, a parent that is a file, and a relative path are each named, with the fix."""
    (ground / "file").write_bytes(OLD)
    missing = refused_twice(ground / "missing" / "token")
    assert "does not exist" in missing.message
    assert f"install -d -o {users.own_name()} -m 0755 {ground}/missing" in missing.hint
    assert "not a directory" in refused_twice(ground / "file" / "token").message
    assert "not an absolute path" in refused_twice(Path("token")).message
    assert "not an absolute path" in refusal(sink.remove, Path("token")).message


def test_a_directory_missing_behind_a_link_is_named(ground: Path) -> None:
    """Where a link leads into a directory that is not there, that one is named, not the link's own."""
    (ground / "token").symlink_to(ground / "missing" / "file")
    (ground / "way").symlink_to(ground / "missing")
    for path in (ground / "token", ground / "way" / "token"):
        error = refused_twice(path, FOLLOW)
        assert f"the directory {ground}/missing does not exist" in error.message
        assert error.hint == f"install -d -o {users.own_name()} -m 0755 {ground}/missing"


def test_a_directory_in_which_no_file_can_be_made_is_not_called_missing() -> None:
    """In /proc, where the kernel says ENOENT of a directory that is there, a real file system is asked for."""
    error = refused_twice(Path("/proc/token"))
    assert "no file can be made in /proc" in error.message
    assert "real file system" in error.hint


def test_a_name_that_is_too_long_is_refused(ground: Path) -> None:
    """A name of 256 bytes is refused, and the limit is named."""
    error = refused_twice(ground / ("t" * 256))
    assert "too long" in error.message
    assert "255" in error.hint


@needs_root
def test_a_mounted_file_says_so(ground: Path) -> None:
    """A bind-mounted file cannot be replaced: it is called a mount point, and its content stays."""
    for name in ("token", "with space"):
        (ground / name).write_bytes(OLD)
        for function in (sink.write, sink.probe):
            error = refusal(_on_mounted, function, ground / name, who=Who(mounts=True))
            assert "mount point" in error.message
            assert "mount its directory" in error.hint
        assert (ground / name).read_bytes() == OLD
    assert helpers.names(ground) == {"token", "with space"}


def _on_mounted(function: Callable[..., Any], path: Path) -> None:
    subprocess.run(["mount", "--bind", path, path], check=True)
    if function is sink.write:
        sink.write(path, NEW, PLAIN)
    else:
        sink.probe(path, PLAIN)


# ---- disks


@needs_root
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("size=8k,mode=755", "no space left"),
        ("nr_inodes=2,mode=755", "no space left"),
        ("ro,mode=755", "read-only"),
    ],
)
def test_a_disk_that_cannot_take_it_keeps_the_old_token(ground: Path, options: str, said: str) -> None:
    """No space, no inodes or a read-only disk: the old content stays, and no temporary file."""
    message, content, left = helpers.call(_on_small_disk, ground, options, who=Who(mounts=True))
    assert said in message
    assert content == OLD
    assert left == {"token"}


def _on_small_disk(ground: Path, options: str) -> tuple[str | None, bytes, set[str]]:
    path = ground / "token"
    helpers.mount("tmpfs", "tmpfs", ground, options.replace("ro,", ""))
    sink.write(path, OLD, PLAIN)
    if "ro," in options:
        helpers.mount("tmpfs", "tmpfs", ground, "remount,ro")
    return _outcome(path, NEW * 2000), path.read_bytes(), helpers.names(ground)


@needs_root
def test_a_file_system_without_acls_is_named(ground: Path) -> None:
    """Where `readers` cannot be had, the error says to use group, and nothing is left."""
    error = refusal(_on_ramfs, ground, who=Who(mounts=True))
    assert "readers cannot be given" in error.message
    assert "use group" in error.hint


def _on_ramfs(ground: Path) -> None:
    helpers.mount("ramfs", "ramfs", ground, "mode=755")
    sink.write(ground / "token", OLD, PLAIN)
    try:
        sink.probe(ground / "token", Access(readers=("user:65534",)))
    finally:
        assert helpers.names(ground) == {"token"}


@needs_root
def test_an_immutable_file_stays(ground: Path) -> None:
    """An immutable file is not replaced; the error tells where to look."""
    path = ground / "token"
    path.write_bytes(OLD)
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+i", path], check=False).returncode:
        pytest.skip("needs chattr +i")
    try:
        error = refusal(sink.write, path, NEW, PLAIN)
        removal = refusal(sink.remove, path)
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    assert "lsattr" in error.hint
    assert "lsattr" in removal.hint
    assert path.read_bytes() == OLD
    assert helpers.names(ground) == {"token"}


# ---- owners and rights


@needs_root
def test_an_agent_without_rights_is_told_what_it_lacks(ground: Path) -> None:
    """Another owner or group needs CAP_CHOWN, and the way without it is named; with it, it works."""
    home = helpers.directory(ground / "run", uid=NOBODY, gid=NOBODY)
    agent = Who(NOBODY, groups=[GROUP])
    owner = refused_twice(home / "token", Access(owner=str(OTHER)), agent)
    group = refused_twice(home / "token", Access(mode=0o640, group=str(OTHER)), agent)
    assert "owner cannot be given" in owner.message
    assert "group cannot be given" in group.message
    for error in (owner, group):
        assert "CAP_CHOWN" in error.hint
        assert "readers" in error.hint
    assert "SupplementaryGroups" in group.hint
    assert helpers.names(home) == set()
    wanted = Access(mode=0o640, owner=str(OTHER), group=str(OTHER), readers=("user:1",))
    assert helpers.call(_changed, home / "token", wanted, who=Who(NOBODY, capabilities=[CAP_CHOWN]))
    assert (home / "token").stat().st_uid == OTHER


def _changed(path: Path, wanted: Access) -> bool:
    return sink.write(path, NEW, wanted).changed


@needs_root
def test_no_permission_in_the_directory_is_named(ground: Path) -> None:
    """A directory that the agent may not write to, or not enter, is named."""
    closed = helpers.directory(ground / "closed", mode=0o700)
    open_one = helpers.directory(ground / "open")
    (open_one / "token").write_bytes(OLD)
    for path in (open_one / "token", closed / "token", closed / "deeper" / "token"):
        assert f"no permission to write in {path.parent}" in refused_twice(path, who=Who(NOBODY)).message
    assert "no permission" in refusal(sink.remove, open_one / "token", who=Who(NOBODY)).message
    assert (open_one / "token").read_bytes() == OLD


def test_unknown_names_are_refused(ground: Path) -> None:
    """A user or group that does not exist is named, as owner, group or reader."""
    for wanted in (
        Access(owner="no-such-user"),
        Access(group="no-such-group"),
        Access(readers=("user:no-such-user",)),
        Access(readers=("group:no-such-group",)),
    ):
        assert "no-such" in refused_twice(ground / "token", wanted).message
    assert helpers.names(ground) == set()


def test_no_error_holds_the_token(ground: Path) -> None:
    """Whatever goes wrong, neither message nor hint nor repr of the error shows what was to be written."""
    helpers.directory(ground / "token")
    for path in (ground / "token", ground / "missing" / "token", ground / ("t" * 256), Path("/proc/token")):
        error = refusal(sink.write, path, NEW, PLAIN)
        chain: BaseException | None = error
        while chain:
            assert NEW.decode() not in f"{chain}{chain!r}{getattr(chain, 'hint', '')}"
            chain = chain.__cause__ or chain.__context__


def test_the_old_token_stays_where_a_directory_became_unsafe(ground: Path) -> None:
    """A directory that was safe at first and is not any more is refused at the next write."""
    home = helpers.directory(ground / "run")
    sink.write(home / "token", OLD, PLAIN)
    home.chmod(0o777)
    refused_twice(home / "token")
    assert (home / "token").read_bytes() == OLD
    assert stat.S_IMODE((home / "token").stat().st_mode) == 0o600
    sink.remove(home / "token")  # deleting needs no safe place
    assert helpers.names(home) == set()
