"""A command that runs in our place, and is told what we are told; its end is our exit code.

The child shares terminal, group and session with us, so what is typed (Ctrl-C, Ctrl-Z) reaches it from the kernel
itself; what was sent to our process alone is passed on. Signals are waited for instead of handled: none gets
lost between two looks, and where one came from is known.

A child that ends by itself may leave processes behind, as anywhere. One that is replaced may not: whatever it had
started and did not end, the next one would start again. Such orphans come to us (prctl(2): PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL for a child that is to be replaced."""
INTERVAL = 0.5
"""Seconds between two looks whether it is to be replaced."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes as of shells and env(1)."""

_PR_SET_CHILD_SUBREAPER = 36
_PARENT = 1
"""Where in /proc/PID/stat, after the name, the parent stands (proc_pid_stat(5))."""
_PASSED_ON = frozenset(
    {
        signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
        signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP,
    }
)  # fmt: skip
_ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
_JOB_CONTROL = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_IGNORED_BY_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
"""Python ignores them, and a child would inherit that."""


def supervise(
    command: Sequence[str],
    environ: Callable[[], Mapping[str, str]],
    outdated: Callable[[], bool] | None = None,
    grace: float = GRACE,
) -> int:
    """Run a command to its own end, and return its exit status, or 128 and the number of the signal that killed it.

    Args:
        command: program and arguments.
        environ: returns the environment; asked at each start.
        outdated: tells whether the command is to be ended and started anew; None if it never is.
        grace: seconds for it to end by itself then.

    Raises:
        OSError: it cannot be started.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever started us may have had it ignored
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON | {signal.SIGCHLD})
    _adopt(outdated is not None)
    try:
        while True:
            child = _Child(command, environ(), mask, outdated, grace)
            code = child.run()
            if not child.replaced:
                return code
    finally:
        _adopt(False)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _adopt(wanted: bool) -> None:  # noqa: FBT001 - on or off is all there is to it
    """Let orphans of our children become our children, or no longer; best effort."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def _children() -> set[int]:
    """Return our children, as far as /proc shows them."""
    ours = str(os.getpid()).encode()
    found = set()
    for directory in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError, IndexError):  # gone meanwhile
            if (directory / "stat").read_bytes().rpartition(b")")[2].split()[_PARENT] == ours:
                found.add(int(directory.name))
    return found


class _Child:
    """One run of the command."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        mask: set[signal.Signals | int],
        outdated: Callable[[], bool] | None,
        grace: float,
    ) -> None:
        self.replaced = False
        self._outdated, self._grace = outdated, grace
        self._kill_at = math.inf
        self._left_alone_until = -math.inf
        self._others = _children() if outdated else set()  # of whoever we were before: `exec` in a script
        self._has_ended = False
        self._pid = os.posix_spawnp(
            command[0], tuple(command), environ, setsigmask=mask, setsigdef=_IGNORED_BY_PYTHON | {signal.SIGCHLD}
        )

    def run(self) -> int:
        """Serve the child until its end."""
        while True:
            self._hear()
            code = self._look()
            if code is not None:
                self._has_ended = True
                self._end_orphans()
                return code
            if self._outdated is not None:
                self._consider(self._outdated)

    def _hear(self) -> None:
        """Wait for a signal, and pass it on if the child has not got it as well."""
        heard = _PASSED_ON | {signal.SIGCHLD}
        told = signal.sigwaitinfo(heard) if self._outdated is None else signal.sigtimedwait(heard, INTERVAL)
        if told is None or told.si_signo == signal.SIGCHLD:
            return
        if told.si_signo in _ENDING:
            self._leave_alone(told.si_signo)
        if told.si_code <= 0:  # from a process (kill(2)); what the terminal sends goes to the whole group
            self._send(told.si_signo)

    def _leave_alone(self, number: int) -> None:
        """Take a signal as somebody's wish to end the child: it is not started anew behind their back."""
        self.replaced, self._kill_at = False, math.inf
        # A service that is being stopped may take its time; at Ctrl-C many programs only pause.
        self._left_alone_until = math.inf if number == signal.SIGTERM else time.monotonic() + self._grace

    def _look(self) -> int | None:
        """Return the exit code if the child has ended; if it was stopped from the terminal, stop as well."""
        self._bury_orphans()
        pid, status = os.waitpid(self._pid, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return None
        if os.WIFSTOPPED(status):
            if os.WSTOPSIG(status) in _JOB_CONTROL:
                os.kill(os.getpid(), signal.SIGSTOP)  # the shell sees its job stopped; SIGCONT goes on from here
            return None
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _consider(self, outdated: Callable[[], bool]) -> None:
        """End the child if it is outdated: gently first."""
        now = time.monotonic()
        if now >= self._kill_at:
            self._send(signal.SIGKILL)
        elif not self.replaced and now >= self._left_alone_until and outdated():
            self.replaced, self._kill_at = True, now + self._grace
            self._send(signal.SIGTERM)

    def _bury_orphans(self) -> None:
        """Take note of the end of those that came to us, as somebody must."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid == self._pid and not self._has_ended:
                    return
                os.waitpid(ended.si_pid, 0)

    def _end_orphans(self) -> None:
        """End what a child that is replaced has left behind: gently first, and as long as nobody ends us."""
        told: set[int] = set()
        while self.replaced and (orphans := _children() - self._others) and time.monotonic() < self._kill_at + GRACE:
            number = signal.SIGKILL if time.monotonic() >= self._kill_at else signal.SIGTERM
            for orphan in orphans if number == signal.SIGKILL else orphans - told:
                with contextlib.suppress(PermissionError, ProcessLookupError):
                    os.kill(orphan, number)
            told |= orphans
            self._hear()
            self._bury_orphans()

    def _send(self, number: int) -> None:
        if self._has_ended:
            return
        with contextlib.suppress(PermissionError):  # it became another user, as sudo does; it hears the terminal
            os.kill(self._pid, number)
