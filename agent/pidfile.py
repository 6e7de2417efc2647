"""A signal to the process that a pid file names, and to no other."""

from __future__ import annotations

import errno
import os
import re
import signal
from pathlib import Path

from agent import files
from agent.hookplan import OTHERS_PROCESS, UNPRIVILEGED, Outcome

REFUSED = 1
"""The exit code of kill(1)."""

_PID = re.compile(rb"[0-9]{1,9}")


def send_signal(pid_file: Path, name: str) -> Outcome:
    """Send a signal to the process that a pid file names."""
    try:
        pid = read_pid(pid_file)
        _send(pid_file, pid, signal.Signals[f"SIG{name}"])
    except ProcessLookupError:
        return Outcome(REFUSED, f"{pid_file}: there is no process {pid}", hint="the file is a leftover")
    except PermissionError as error:
        if error.filename is None:
            return Outcome(REFUSED, f"process {pid} {OTHERS_PROCESS}", hint=UNPRIVILEGED)
        return Outcome(REFUSED, f"{pid_file}: {error.strerror}", hint="let the agent's user read it")
    except OSError as error:
        return Outcome(REFUSED, f"{pid_file}: {error.strerror}", hint="is the service running?")
    return Outcome(0)


def read_pid(pid_file: Path) -> int:
    """Return the number in the first line of a pid file.

    Raises:
        OSError: it cannot be read, or does not hold the number of a process that may get a signal.
    """
    text = files.read_bytes(pid_file, limit=4096).partition(b"\n")[0].strip()
    if not _PID.fullmatch(text) or int(text) <= 1:
        raise OSError(errno.EINVAL, "does not hold the number of a process", str(pid_file))
    if int(text) == os.getpid():
        raise OSError(errno.EINVAL, "names the agent itself", str(pid_file))
    return int(text)


def _send(pid_file: Path, pid: int, number: signal.Signals) -> None:
    """Send a signal to the very process that was checked; its number may be another's by then."""
    descriptor = _pidfd(pid)
    try:
        if read_pid(pid_file) != pid:
            raise OSError(errno.EAGAIN, "changes just now", str(pid_file))
        if os.geteuid() == 0 and (writer := pid_file.stat().st_uid) not in (0, owner_of(pid)):
            message = f"user {writer} wrote it, and process {pid} is another user's"
            raise OSError(errno.EINVAL, message, str(pid_file))
        if descriptor is None:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def owner_of(pid: int) -> int | None:
    """Return the user of a process, None where it is not shown.

    Raises:
        ProcessLookupError: there is no such process, or it is hidden.
    """
    try:
        lines = files.read_bytes(Path(f"/proc/{pid}/status")).splitlines()
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(b"Uid:")), None)


def _pidfd(pid: int) -> int | None:
    """Return a descriptor of a process that stays the same one; None where there are none (before Linux 5.3).

    Raises:
        ProcessLookupError: there is no such process.
    """
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return None
