"""One agent per runtime directory: who holds the lock, that it dies with its holder, and who cannot take it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent import lock
from agent.errors import BusyError, OutputError
from tests import sink_helpers as helpers
from tests.sink_helpers import NOBODY, OTHER, Who, needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ground() -> Iterator[Path]:
    with helpers.ground() as path:
        yield path


@pytest.fixture
def holding(ground: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock."""
    process = helpers.start(helpers.hold_lock_until_killed, ground)
    try:
        helpers.wait_until_ready(process)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_holder_is_refused_and_told_the_first(ground: Path, holding: subprocess.Popen[bytes]) -> None:
    """While one process holds a directory another is refused, again and again, with the first one's pid."""
    for _ in range(3):
        with pytest.raises(BusyError) as caught, lock.hold(ground):
            pass
        assert f"(pid {holding.pid})" in caught.value.message
        assert str(ground) in caught.value.message
        assert "runtime_dir" in caught.value.hint
        assert caught.value.exit_code == 75


def test_everybody_can_ask_who_holds_it(ground: Path, holding: subprocess.Popen[bytes]) -> None:
    """Another process learns the holder's pid; asking neither takes nor frees the lock."""
    assert lock.holder(ground) == lock.holder(ground) == holding.pid
    if os.geteuid() == 0:
        assert helpers.call(lock.holder, ground, who=Who(NOBODY)) == holding.pid
    with pytest.raises(BusyError), lock.hold(ground):
        pass


def test_the_lock_is_free_when_its_holder_was_killed(ground: Path, holding: subprocess.Popen[bytes]) -> None:
    """After SIGKILL the next one takes the lock at once, and the file that was left means nothing."""
    holding.kill()
    holding.wait()
    assert (ground / lock.NAME).read_text() == f"{holding.pid}\n"
    assert lock.holder(ground) is None
    with lock.hold(ground):
        assert helpers.call(lock.holder, ground) == os.getpid()
    assert helpers.call(lock.holder, ground) is None


def test_a_child_of_the_holder_inherits_nothing(ground: Path) -> None:
    """A process that the holder started does not keep the lock after its holder's end."""
    sleeper = helpers.call(_hold_and_leave_a_child, ground)
    try:
        opened = [entry.readlink() for entry in Path(f"/proc/{sleeper}/fd").iterdir()]
        assert opened
        assert ground / lock.NAME not in opened
        assert lock.holder(ground) is None
        with lock.hold(ground):
            pass
    finally:
        os.kill(sleeper, 9)


def _hold_and_leave_a_child(path: Path) -> int:
    with lock.hold(path):
        code = "import sys; sys.stdout.close(); sys.stdin.read()"
        null, end = os.pipe()  # which nobody writes to, and which ends with the child alone
        os.set_inheritable(end, True)
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", code], stdin=null, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False,
        )  # fmt: skip
        return child.pid


def test_a_directory_that_nobody_keeps_has_no_holder(ground: Path) -> None:
    """Without a file, without a directory, or with a file that nobody locks, there is no holder."""
    assert lock.holder(ground) is None
    assert lock.holder(ground / "missing") is None
    (ground / lock.NAME).write_text("1\n")
    assert lock.holder(ground) is None


def test_a_directory_is_the_same_by_any_name(ground: Path) -> None:
    """A runtime directory reached through a symbolic link is held as the directory it is."""
    (ground / "run").mkdir()
    (ground / "link").symlink_to("run")
    process = helpers.start(helpers.hold_lock_until_killed, ground / "link")
    try:
        helpers.wait_until_ready(process)
        assert lock.holder(ground / "run") == lock.holder(ground / "link") == process.pid
        with pytest.raises(BusyError), lock.hold(ground / "run"):
            pass
    finally:
        process.kill()
        process.communicate()


@needs_root
def test_nobody_else_can_take_the_lock(ground: Path) -> None:
    """Another user can neither open the lock file nor lock it, and so cannot keep the agent from starting."""
    (ground / lock.NAME).touch(mode=0o644)  # as an older version left it
    with lock.hold(ground):
        assert helpers.mode_of(ground / lock.NAME) == 0o600
        assert helpers.call(_try_to_lock, ground / lock.NAME, who=Who(NOBODY)) == "PermissionError"
    assert helpers.call(_try_to_lock, ground / lock.NAME, who=Who(NOBODY)) == "PermissionError"


def _try_to_lock(path: Path) -> str:
    try:
        with path.open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return type(error).__name__
    return "locked"


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_the_umask_does_not_matter(ground: Path, umask: int) -> None:
    """The lock file is the agent's alone whatever the umask is, and can be taken again."""
    before = os.umask(umask)
    try:
        for _ in range(2):
            with lock.hold(ground):
                assert helpers.mode_of(ground / lock.NAME) == 0o600
    finally:
        os.umask(before)


def test_a_lock_file_that_is_no_file_is_refused(ground: Path) -> None:
    """A symbolic link or a directory in its place, or a missing directory, is an error that names it."""
    (ground / "precious").write_text("precious")
    for name in ("link", "directory"):
        (ground / name).mkdir()
    (ground / "link" / lock.NAME).symlink_to(ground / "precious")
    (ground / "directory" / lock.NAME).mkdir()
    for name in ("link", "directory", "missing"):
        with pytest.raises(OutputError, match=f"{name}/lock: cannot be used as a lock"), lock.hold(ground / name):
            pass
        assert lock.holder(ground / name) is None
    assert (ground / "precious").read_text() == "precious"


@needs_root
def test_a_lock_file_of_another_user_is_named(ground: Path) -> None:
    """An agent that may not open the file that another user's agent left is told so, with the fix."""
    home = helpers.directory(ground / "run", uid=OTHER)
    helpers.call(_hold, home)
    with pytest.raises(OutputError, match="Permission denied") as caught:
        helpers.call(_hold, home, who=Who(OTHER))
    assert "rm " in caught.value.hint


def _hold(path: Path) -> None:
    with lock.hold(path):
        pass


@needs_root
def test_a_holder_in_another_container_is_called_so(ground: Path) -> None:
    """Where the holder's pid means nothing here, the message does not name one."""
    process = helpers.start(helpers.hold_lock_until_killed, ground)
    try:
        helpers.wait_until_ready(process)
        with pytest.raises(BusyError, match="in another container"):
            helpers.call(_hold, ground, who=Who(pids=True))
    finally:
        process.kill()
        process.communicate()
