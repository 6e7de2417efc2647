"""Writing in which a system call fails: the file is the whole old one or the whole new one, always.

strace makes the kernel's part. A writer that is killed is another matter: see `tests.crashpoints`.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from agent.output import sink
from agent.output.access import Access
from tests import sink_helpers as helpers
from tests.sink_helpers import GROUP, NEW, OLD, OTHER, Who, needs_root, needs_strace, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAIN = Access()
FULL = Access(mode=0o640, owner=str(OTHER), group=str(GROUP))
READERS = Access(mode=0o640, owner=str(OTHER), group=str(GROUP), readers=("user:65534",))


@pytest.fixture
def ground() -> Iterator[Path]:
    with helpers.ground() as path:
        yield path


def failing(call: str, error: str, when: int = 1) -> Who:
    """Return a child whose n-th system call of a kind fails."""
    return Who(strace=(f"trace={call}", f"inject={call}:error={error}:when={when}"))


def _write(path: Path, wanted: Access) -> sink.Written:
    return sink.write(path, NEW, wanted)


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
