"""One agent per runtime directory: a lock that dies with its holder, and tells who that is.

POSIX record locks (fcntl(2)): the kernel knows the holder's pid and frees the lock when the process ends, however
it ends. A holder must not open and close the lock file a second time, which would free it; only `hold` does.
Whoever may read a file may lock it, too: the file is for the agent's user alone, and others look into /proc/locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from agent import files
from agent.errors import BusyError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "lock"
_FLOCK = "hhqqi4x"
"""struct flock on 64-bit Linux: type, whence, start, length, pid."""
_ATTEMPTS = 10


class Hold:
    """The lock of a runtime directory, held from now on.

    Raises:
        BusyError: another process holds it; names its pid.
        OutputError: the lock file cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = _locked(directory)

    def is_in_place(self) -> bool:
        """Whether what is locked is still what others find there: directory or file may be gone, or be others."""
        try:
            there = (self._directory / NAME).stat(follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._descriptor))

    def renew(self) -> None:
        """Lock what is there now, if that is something else.

        Raises:
            BusyError: another process was faster.
            OutputError: the lock file cannot be used.
        """
        if self.is_in_place():  # opened a second time it would be free when it is closed
            return
        before, self._descriptor = self._descriptor, _locked(self._directory)
        os.close(before)

    def release(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


@contextlib.contextmanager
def hold(directory: Path) -> Iterator[Hold]:
    """Hold the lock of a runtime directory; raises what `Hold` does."""
    held = Hold(directory)
    try:
        yield held
    finally:
        held.release()


def _locked(directory: Path) -> int:
    """Return the lock file, open and locked."""
    path = directory / NAME
    with _translated(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with _translated(path):
            _take(descriptor, directory)
            os.fchmod(descriptor, 0o600)  # whatever the umask is, and whatever it was before
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _take(descriptor: int, directory: Path) -> None:
    """Lock the file, unless another process has."""
    for attempt in range(_ATTEMPTS):
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows both
            pid = _holder(descriptor)
            if pid is None and attempt < _ATTEMPTS - 1:
                continue  # it ended in this very moment
        else:
            return
        who = f"pid {pid}" if pid and pid > 0 else "in another container"
        raise BusyError(
            f"another token-agent ({who}) keeps {directory}",
            hint="stop it first, or give this one a runtime_dir and a state_dir of its own",
        )


def holder(directory: Path) -> int | None:
    """Return the pid of the agent that keeps a runtime directory, None if there is none.

    Not to be asked by the holder itself: closing the file would free its own lock.
    """
    path = directory / NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        return _listed_holder(path)
    except OSError:
        return None
    try:
        return _holder(descriptor)
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> int | None:
    """Ask the kernel who holds it, without taking it."""
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    return None if kind == fcntl.F_UNLCK else pid


def is_by(directory: Path, pid: int, number: int) -> bool:
    """Tell whether the holder, which is process ``pid`` to us, is ``number`` to itself: containers count anew.

    Where that cannot be seen it is taken to be so.
    """
    with contextlib.suppress(OSError, ValueError):
        if named := files.read_bytes(directory / NAME).decode().strip():
            return named == str(number)
    with contextlib.suppress(OSError):
        for line in files.read_bytes(Path(f"/proc/{pid}/status")).decode(errors="replace").splitlines():
            if line.startswith("NSpid:"):  # proc_pid_status(5): in each of the namespaces, the innermost last
                return line.split()[-1] == str(number)
    return True


def is_stopped(pid: int) -> bool:
    """Tell whether a process was stopped by a signal or a debugger, and does nothing (proc_pid_stat(5))."""
    try:
        text = files.read_bytes(Path(f"/proc/{pid}/stat"))
    except OSError:
        return False
    return text.rpartition(b")")[2].split()[0] in (b"T", b"t")


def _listed_holder(path: Path) -> int | None:
    """Look into the kernel's list of all locks (proc_locks(5)), which everybody may read."""
    try:
        found = path.lstat()
        table = files.read_bytes(Path("/proc/locks"), limit=16 << 20).decode(errors="replace")
    except OSError:
        return None
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in table.splitlines():
        fields = line.split()
        if fields[1:4] == ["POSIX", "ADVISORY", "WRITE"] and fields[5] == file:
            return int(fields[4])
    return None


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = f"the agent locks this file: let its user own it, or rm {path} while no agent runs"
        raise OutputError(path, f"cannot be used as a lock: {error.strerror}", hint=hint) from error
