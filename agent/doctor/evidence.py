"""What the kernel really says: a child process becomes the user and opens the file. Needs root."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from agent.doctor.rights import Person

_UNTRIED = 255
"""The child's exit status if it cannot become that user (user namespaces); no errno is as large."""


def available() -> bool:
    """Tell whether we can become somebody else."""
    return os.geteuid() == 0


def opening(person: Person, path: Path) -> int | None:
    """Return the errno of an attempt to open a file as somebody else, 0 for success, None if it cannot be tried.

    To be called while the process has no other threads: it forks.
    """
    if not available():
        return None
    pid = os.fork()
    if pid == 0:
        _be(person, path)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return None if code < 0 or code == _UNTRIED else code


def _be(person: Person, path: Path) -> None:
    """Become the user, try, and tell by the exit status; never returns. Opening reads nothing."""
    code = _UNTRIED
    try:
        os.setgroups(sorted(person.gids))
        os.setgid(person.gid)
        os.setuid(person.uid)
        code = _try(path)
    finally:
        os._exit(code)


def _try(path: Path) -> int:
    try:
        os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        return error.errno or 1
    return 0
