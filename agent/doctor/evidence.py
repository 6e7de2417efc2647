"""What the kernel really says: a child process becomes the user and opens the file, for which it takes root.

Whoever is not root can try for themselves.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from agent.doctor.rights import Person

_UNTRIED = 255
"""The child's exit status if it cannot become that user (user namespaces); no errno is as large."""
_KEEP_CAPABILITIES = 8
_VERSION_3 = 0x20080522


def available() -> bool:
    """Tell whether we can become somebody else."""
    return os.geteuid() == 0


def opening(person: Person, path: Path) -> int | None:
    """Return the errno of an attempt to open a file as somebody, 0 for success, None if it cannot be tried.

    To be called while the process has no other threads: it forks.
    """
    if not available():
        return _try(path) if _is_us(person) else None
    pid = os.fork()
    if pid == 0:
        _be(person, path)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return None if code < 0 or code == _UNTRIED else code


def _is_us(person: Person) -> bool:
    return (person.uid, person.gids) == (os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


def _be(person: Person, path: Path) -> None:
    """Become the user, try, and tell by the exit status; never returns. Opening reads nothing."""
    code = _UNTRIED
    try:
        code = _try(path) if become(person) else _UNTRIED
    finally:
        os._exit(code)


def become(person: Person) -> bool:
    """Be somebody else for the rest of this process, which has no other threads; return whether with what they may do.

    Without their capabilities, where this process lacks one of them, it has none at all rather than root's.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0)
    os.setgroups(sorted(person.gids))
    os.setresgid(person.gid, person.gid, person.gid)
    os.setresuid(person.uid, person.uid, person.uid)
    if person.uid == 0 and person.capabilities is None:
        return True
    mask = person.capabilities or 0
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(*(part for half in (mask & 0xFFFFFFFF, mask >> 32) for part in (half, half, 0)))
    if not libc.capset(header, sets):
        return True
    libc.capset(header, (ctypes.c_uint32 * 6)())
    return False


def _try(path: Path) -> int:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or 1
    return 0
