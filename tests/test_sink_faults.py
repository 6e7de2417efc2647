"""Writing that is killed or fails at any system call: the file is the whole old one or the whole new one, always.

strace makes the kernel's part: it kills the writer as it enters a call, or lets the call fail. What is left of a
killed writer is also the proof of the order of its steps: at no moment may anybody read who should not.
"""

from __future__ import annotations

import os
import signal
import stat
from typing import TYPE_CHECKING

import pytest

from agent.output import access, sink
from agent.output.access import Access, Look
from tests import sink_helpers as helpers
from tests.sink_helpers import GROUP, NEW, OLD, OTHER, OTHER_GROUP, Who, needs_root, needs_strace, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAIN = Access()
FULL = Access(mode=0o640, owner=str(OTHER), group=str(GROUP))
READERS = Access(mode=0o640, owner=str(OTHER), group=str(GROUP), readers=("user:65534",))
STEPS = ("write", "fchown", "fsetxattr", "fremovexattr", "fchmod", "fsync", "renameat")


@pytest.fixture
def ground() -> Iterator[Path]:
    with helpers.ground() as path:
        yield path


def killing(call: str, when: int) -> Who:
    """Return a child that is killed as it enters a system call for the n-th time."""
    return Who(strace=(f"trace={call}", f"inject={call}:signal=KILL:when={when}"))


def failing(call: str, error: str, when: int = 1) -> Who:
    """Return a child whose n-th system call of a kind fails."""
    return Who(strace=(f"trace={call}", f"inject={call}:error={error}:when={when}"))


@needs_root
@needs_strace
@pytest.mark.parametrize("wanted", [PLAIN, FULL, READERS], ids=["plain", "owner and group", "readers"])
@pytest.mark.parametrize("inherited", [False, True], ids=["usual directory", "default ACL and setgid"])
def test_a_killed_writer_leaves_old_or_new_and_exposes_nothing(
    ground: Path,
    wanted: Access,
    inherited: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Killed at any step: the file is old or new as a whole, and what is left beside it opened itself to nobody else.

    The next sweep removes it.
    """
    home = helpers.directory(ground / "run", mode=0o2755 if inherited else 0o755, gid=OTHER_GROUP if inherited else -1)
    if inherited:
        os.setxattr(home, "system.posix_acl_default", access.resolve(Access(readers=("user:1",))).acl or b"")
    path, steps = home / "token", 0
    sink.write(path, OLD, wanted)
    final = _look(path)
    for call in STEPS:
        for when in (1, 2):
            if not _kill(path, wanted, killing(call, when)):
                break
            steps += 1
            assert path.read_bytes() in (OLD, NEW)
            assert _look(path) == final
            for name in helpers.names(home) - {"token"}:
                assert _is_closed(_look(home / name), final), f"{name} was open at {call} {when}"
            sink.sweep([path], [str(OTHER)])
            assert helpers.names(home) == {"token"}
            sink.write(path, OLD, wanted)
    assert steps >= len(STEPS) - 2


def _kill(path: Path, wanted: Access, who: Who) -> bool:
    """Write in a child, and return whether it was killed: it may not make that call so often."""
    process = helpers.start(_write, path, wanted, who=who)
    process.communicate(timeout=helpers.PATIENCE)
    if process.returncode == 0:
        sink.write(path, OLD, wanted)
        return False
    assert process.returncode == -signal.SIGKILL
    return True


def _write(path: Path, wanted: Access) -> sink.Written:
    return sink.write(path, NEW, wanted)


def _is_closed(look: Look, final: Look) -> bool:
    """Whether nobody but the writer and those who may read the final file can read it, whatever it holds yet.

    While the group bits are nothing, neither group nor ACL entries give any right: they are the ACL's mask.
    """
    if look.mode & 0o077 == 0:
        return look.uid in (os.geteuid(), final.uid)
    return (look.mode, look.gid, look.acl) == (final.mode, final.gid, final.acl)


@needs_strace
@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ("write", "ENOSPC", "no space left"),
        ("write", "EIO", "the disk fails"),
        ("write", "EDQUOT", "quota"),
        ("fchmod", "EPERM", "mode cannot be given"),
        ("fchmod", "EROFS", "mode cannot be given"),
        ("fsync", "EIO", "the disk fails"),
        ("fsync", "ENOSPC", "no space left"),
        ("renameat", "EPERM", "not permitted"),
        ("renameat", "EBUSY", "mount point"),
        ("renameat", "ENOSPC", "no space left"),
    ],
)
def test_a_failing_step_keeps_the_old_token(ground: Path, call: str, error: str, said: str) -> None:
    """Whichever step fails, the old content stays, no temporary file remains, and the reason is told."""
    path = ground / "token"
    sink.write(path, OLD, PLAIN)
    assert said in refusal(_write, path, PLAIN, who=failing(call, error)).message
    assert path.read_bytes() == OLD
    assert helpers.names(ground) == {"token"}


@needs_root
@needs_strace
@pytest.mark.parametrize(
    ("wanted", "call", "error", "said", "hint"),
    [
        (FULL, "fchown", "EPERM", "group cannot be given", "SupplementaryGroups"),
        (FULL, "fchown", "EINVAL", "group cannot be given", "PrivateUsers"),
        (Access(owner=str(OTHER)), "fchown", "EINVAL", "owner cannot be given", "PrivateUsers"),
        (READERS, "fsetxattr", "EINVAL", "readers cannot be given", "PrivateUsers"),
        (READERS, "fsetxattr", "EOPNOTSUPP", "readers cannot be given", "no ACLs"),
    ],
)
def test_a_refused_right_is_named(ground: Path, wanted: Access, call: str, error: str, said: str, hint: str) -> None:
    """Owner, group or readers that the kernel refuses are named with the way out."""
    refused = refusal(_write, ground / "token", wanted, who=failing(call, error))
    assert said in refused.message
    assert hint in refused.hint
    assert helpers.names(ground) == set()


@needs_strace
@pytest.mark.parametrize("wanted", [Access(mode=0o640), Access(mode=0o440)])
def test_a_file_system_that_does_not_keep_the_mode_is_refused(ground: Path, wanted: Access) -> None:
    """Where changing the mode only seems to work, as on some network file systems, no token is left."""
    who = Who(strace=("trace=fchmod", "inject=fchmod:retval=0"))
    assert "does not keep" in refusal(_write, ground / "token", wanted, who=who).message
    assert helpers.names(ground) == set()


@needs_root
@needs_strace
def test_a_file_system_that_knows_one_owner_only_is_not_written_again_and_again(ground: Path) -> None:
    """Where files do not become the writer's, as on NFS with squashed users, the right content is left alone."""
    home = helpers.directory(ground / "run", mode=0o775, gid=OTHER)
    (home / "token").write_bytes(OLD)
    (home / "token").chmod(0o600)
    os.chown(home / "token", OTHER, OTHER)
    before = helpers.stamp(home / "token")
    # The writer takes itself for another user than the one its files come to belong to.
    who = Who(OTHER, gid=OTHER, strace=("trace=geteuid", "inject=geteuid:retval=0"))
    assert helpers.call(helpers.write_twice, home / "token", OLD, PLAIN, who=who) == (False, False)
    assert helpers.stamp(home / "token") == before
    assert helpers.names(home) == {"token"}


@needs_strace
def test_a_directory_that_cannot_be_synced_is_a_warning(ground: Path) -> None:
    """After the rename the file is written, whatever becomes of its durability: that is said, not retried."""
    written = helpers.call(_write, ground / "token", PLAIN, who=failing("fsync", "EIO", when=2))
    assert written.changed
    assert "not surely durable" in written.warning
    assert (ground / "token").read_bytes() == NEW
    assert helpers.call(_write, ground / "other", PLAIN, who=failing("fsync", "EINVAL", when=2)).warning == ""


@needs_strace
def test_what_is_not_durable_is_not_synced(ground: Path) -> None:
    """Status, which is worthless after a power loss, waits for no disk."""
    who = Who(strace=("trace=fsync", "inject=fsync:signal=KILL"))
    helpers.call(_write_quickly, ground / "status", who=who)
    assert (ground / "status").read_bytes() == NEW
    assert helpers.die(_write, ground / "token", PLAIN, who=who) == signal.SIGKILL


def _write_quickly(path: Path) -> None:
    sink.write(path, NEW, PLAIN, durable=False)


@needs_strace
def test_partial_writes_are_completed(ground: Path) -> None:
    """A call that writes nothing at first, interrupted by a signal, does not shorten the content."""
    who = Who(strace=("trace=write", "inject=write:error=EINTR:when=1"))
    helpers.call(_write, ground / "token", PLAIN, who=who)
    assert (ground / "token").read_bytes() == NEW


def _look(path: Path) -> Look:
    found = path.stat()
    return Look(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, access.read_acl(str(path)))
