"""Ends a process as it enters its n-th system call, in whichever of its threads (ptrace(2)).

strace counts for each thread and each kind of call; here all that one process does is one sequence. The tracer is
to be the only thread of a process without other children: it waits for all of them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.crashpoints import calls

if TYPE_CHECKING:
    from collections.abc import Sequence

_TRACEME, _CONT, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 7, 24, 0x4200, 0x420E
_OPTIONS = 0x1 | 0x8 | 0x80 | 0x100000
"""PTRACE_O_TRACESYSGOOD, PTRACE_O_TRACECLONE, PTRACE_O_TRACESECCOMP, PTRACE_O_EXITKILL."""
_WALL = 0x40000000
_CALL_STOP = signal.SIGTRAP | 0x80
_FILTER_STOP = signal.SIGTRAP | 7 << 8
_ENTRY, _FILTERED = 1, 3
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Info(ctypes.Structure):
    """``struct ptrace_syscall_info`` at the entry of a call."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("padding", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
        ("more", ctypes.c_uint64),
    )


@dataclass
class Run:
    """A process that was traced: the calls that counted, in words, and how it ended (as ``os.waitstatus_to_exitcode``).

    ``killed`` says that it was ended at the point asked for, as it entered the last of the calls.
    """

    killed: bool = False
    code: int = 0
    calls: list[str] = field(default_factory=list)


def wait_to_be_traced() -> None:
    """Let the parent trace this process from here on; the kernel tells it of calls that may change files only."""
    _ptrace(_TRACEME, 0)
    _filter(sorted(calls.NAMES))
    os.kill(os.getpid(), signal.SIGSTOP)


def _filter(numbers: Sequence[int]) -> None:
    """Let the kernel stop this process, and all it starts, at some calls (seccomp(2)); others cost nothing."""
    load, equal, done = 0x20, 0x15, 0x06
    trace, allow = 0x7FF00000, 0x7FFF0000
    tests = [(equal, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    program = [(load, 0, 0, 0), *tests, (done, 0, 0, allow), (done, 0, 0, trace)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    described = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    for arguments in ((_SET_NO_NEW_PRIVS, 1, 0), (_SET_SECCOMP, _FILTER, ctypes.addressof(described))):
        if _libc.prctl(*map(ctypes.c_ulong, arguments), 0, 0) == -1:
            raise OSError(ctypes.get_errno(), "no filter")


def follow(process: int, point: int, *, every: bool) -> Run:
    """Let a child run that is to be traced, and end it as it enters its n-th call.

    Args:
        process: a child that calls `wait_to_be_traced`.
        point: which call; 0 for none.
        every: count all calls, and not only those that change files.
    """
    run = Run()
    _, status = os.waitpid(process, 0)
    if not os.WIFSTOPPED(status):
        run.code = os.waitstatus_to_exitcode(status)
        return run
    _ptrace(_SETOPTIONS, process, data=_OPTIONS)
    further = _SYSCALL if every else _CONT
    _ptrace(further, process)
    while True:
        thread, status = os.waitpid(-1, _WALL)
        if not os.WIFSTOPPED(status):
            if thread == process:
                run.code = os.waitstatus_to_exitcode(status)
                return run
        elif not run.killed and _reaches(thread, status, point, run, every=every):
            run.killed = True
            os.kill(process, signal.SIGKILL)
        elif not run.killed:
            _ptrace(further, thread, data=_to_deliver(status))


def _reaches(thread: int, status: int, point: int, run: Run, *, every: bool) -> bool:
    """Take note of a stop, and return whether it is the entry of the call where the process has to end."""
    if status >> 8 != (_CALL_STOP if every else _FILTER_STOP):
        return False
    info, describe = _Info(), _describe if every else calls.changes_files
    _ptrace(_GET_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.addressof(info))
    if info.op != (_ENTRY if every else _FILTERED) or not (
        said := describe(thread, info.number, tuple(info.arguments))
    ):
        return False
    run.calls.append(said)
    return len(run.calls) == point


def _describe(process: int, number: int, arguments: tuple[int, ...]) -> str:
    return calls.changes_files(process, number, arguments) or calls.NAMES.get(number, f"call {number}")


def _to_deliver(status: int) -> int:
    """Return the signal that a stopped thread was to get, but for those that only tell the tracer something."""
    number = os.WSTOPSIG(status)
    return 0 if number in (_CALL_STOP, signal.SIGTRAP, signal.SIGSTOP) else number


def _ptrace(request: int, thread: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, thread, address, data) == -1:
        code = ctypes.get_errno()
        if code != 3:  # ESRCH: it has just ended
            raise OSError(code, os.strerror(code))
