"""Hooks: a program or the reload of a unit, bounded in time. The only owner of subprocesses.

A program runs in a session of its own, and its end is the end of all that it started there, as with systemd's
oneshot services: whatever is left of its process group is ended too. What blocks here is meant for a thread; `abort`
ends it from another one, at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from agent.hookplan import TIMED_OUT, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for, whatever the agent's own PATH says."""
GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
NOT_FOUND, NOT_EXECUTABLE, BY_SIGNAL = 127, 126, 128
"""Exit codes as of shells."""

_LOOK = 0.02
"""Seconds between two looks whether a process has ended; mostly the end of its output says so first."""
_REAPED_WITHIN = 1.0
"""Seconds for what was killed to be gone; only what the kernel holds fast takes longer."""
_TAIL = 1 << 16
"""Bytes of output that are kept: enough to recognise a secret before the text is cut."""


def inherit_nothing() -> None:
    """Be told of the end of children, even if whoever started us ignores it; for the main thread."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


class Execution:
    """One run of a program, bounded in time.

    Args of the constructor: ``argv`` is program and arguments, and no shell is between; ``environ`` is all of its
    environment; ``timeout`` in seconds.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], timeout: float) -> None:
        self._argv, self._environ, self._timeout = tuple(argv), dict(environ), timeout
        self._lock = threading.Lock()
        self._aborted = False
        self._group: int | None = None  # as long as it may be killed: until its leader may have been reaped

    def run(self) -> Outcome:
        """Run the program to its end, or to the end of its time."""
        try:
            process = self._start()
        except (OSError, ValueError) as error:
            code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            return Outcome(code, f"cannot be started: {getattr(error, 'strerror', None) or error}")
        if process is None:
            return Outcome(TIMED_OUT, "the agent stops")
        with cast("IO[bytes]", process.stdout) as pipe:
            return self._follow(process, _Observer(process.pid, pipe))

    def _follow(self, process: subprocess.Popen[bytes], observer: _Observer) -> Outcome:
        """See a program to its end, and what it started as well."""
        in_time = observer.wait(lambda: observer.exited, self._timeout)
        if not (observer.exited and observer.silent) and not self._aborted:
            self._kill(signal.SIGTERM)
            observer.wait(lambda: self._aborted or (observer.exited and observer.silent), GRACE)
        self._kill(signal.SIGKILL, last=True)
        return self._outcome(_reap(process), observer.output, in_time=in_time)

    def abort(self) -> None:
        """End it now, with its whole group; harmless when it has ended or never began."""
        self._aborted = True
        self._kill(signal.SIGKILL)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._aborted:
                return None
            process = subprocess.Popen(  # noqa: S603 - the operator's own program, without a shell
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                close_fds=True,
                cwd="/",
                env=self._environ,
                start_new_session=True,
            )
            self._group = process.pid
            return process

    def _kill(self, number: signal.Signals, *, last: bool = False) -> None:
        with self._lock:
            if self._group is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):  # all of it became another user's
                    os.killpg(self._group, number)
            if last:
                self._group = None

    def _outcome(self, code: int | None, output: bytes, *, in_time: bool) -> Outcome:
        if code is None:
            return Outcome(TIMED_OUT, f"took longer than {self._timeout:g} s and cannot be killed", output=output)
        if not in_time:
            return Outcome(TIMED_OUT, f"took longer than {self._timeout:g} s and was killed", output=output)
        if code < 0:
            return Outcome(BY_SIGNAL - code, f"killed by signal {-code}", output=output)
        return Outcome(code, f"exit code {code}" if code else "", output=output)


class _Observer:
    """Reads what a process says, and sees its end without reaping it: until then its group cannot be another's."""

    def __init__(self, pid: int, pipe: IO[bytes]) -> None:
        self._pid, self._pipe = pid, pipe
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        self.output = b""
        self.exited = self.silent = False

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for a condition, or so many seconds; return whether it is met."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._look(min(left, _LOOK))
        return True

    def _look(self, seconds: float) -> None:
        self._read(seconds)
        if not self.exited and _has_exited(self._pid):
            self.exited = True
            self._read(0)  # what a pipe holds at most, and then
            self._read(0)  # its end, if nobody else writes to it

    def _read(self, seconds: float) -> None:
        if not self._poll.poll(1000 * seconds):
            return
        data = os.read(self._pipe.fileno(), _TAIL)
        self.output = (self.output + data)[-_TAIL:]
        if not data:
            self.silent = True
            self._poll.unregister(self._pipe)


def _has_exited(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _reap(process: subprocess.Popen[bytes]) -> int | None:
    """Return how a killed process ended, None if it does not.

    Where we are init, as in a container, orphans of its group have become our children: none stays a zombie.
    """
    deadline = time.monotonic() + _REAPED_WITHIN
    try:
        code = process.wait(_REAPED_WITHIN)
    except subprocess.TimeoutExpired:
        threading.Thread(target=process.wait, name="token-agent hook", daemon=True).start()
        return None
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-process.pid, os.WNOHANG)[0] == 0:
                time.sleep(0.01)
    return code


def reload_command(units: Sequence[str], search_path: str = SEARCH_PATH) -> list[str]:
    """Return the command that reloads units, or restarts those that cannot reload; those that do not run stay so."""
    systemctl = shutil.which("systemctl", path=search_path) or "/usr/bin/systemctl"
    return [systemctl, "--no-ask-password", "reload-or-try-restart", *units]


def obstacle(program: str) -> str | None:
    """Return why a program cannot be run, None if it can."""
    try:
        if not Path(program).is_file():
            return "it is not a file" if Path(program).exists() else "it does not exist"
    except OSError as error:
        return error.strerror or type(error).__name__
    return None if os.access(program, os.X_OK) else "it is not executable"
