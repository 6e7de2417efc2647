"""A path as the kernel walks it: every directory, through symbolic links, down to the file."""

from __future__ import annotations

import errno
import stat
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from agent import users
from agent.doctor.rights import Step, entries
from agent.output.access import read_acl

_MAX_LINKS = 40
"""As the kernel has it (path_resolution(7))."""


@dataclass(frozen=True, slots=True)
class Walk:
    """The steps that were found, and what ended the walk before the file was reached.

    Attributes:
        steps: from / on, without links.
        real: where the file is, or where the walk ended.
        error: the kernel's number; 0 if the file was reached.
        is_above: whether it ended at a directory on the way rather than at the file.
        links: the symbolic links that it went through.
    """

    steps: tuple[Step, ...]
    real: Path
    error: int = 0
    is_above: bool = False
    links: tuple[Path, ...] = ()

    @property
    def missing(self) -> bool:
        """Whether the file, or a directory on the way, is not there."""
        return self.error in (errno.ENOENT, errno.ENOTDIR)

    @property
    def missing_directory(self) -> Path | None:
        """The directory on the way that is not there, or is none."""
        if self.error == errno.ENOTDIR:
            return self.real.parent
        return self.real if self.missing and self.is_above else None


def walk(path: Path) -> Walk:
    """Return the way to a file, as far as this process may look."""
    here, steps, rest = Path("/"), [_look(Path("/"))], deque(path.parts[1:])
    links: list[Path] = []
    while rest:
        part = rest.popleft()
        if part == "..":
            here = here.parent
            continue
        try:
            target = _target(here / part)
            if target is None:
                here /= part
                steps.append(_look(here))
                continue
        except OSError as error:
            return Walk(tuple(steps), here / part, error.errno or errno.EIO, bool(rest), tuple(links))
        links.append(here / part)
        if len(links) > _MAX_LINKS:
            return Walk(tuple(steps), here / part, errno.ELOOP, bool(rest), tuple(links))
        here = Path("/") if target.is_absolute() else here
        rest.extendleft(reversed(target.parts[target.is_absolute() :]))
    return Walk(tuple(steps), here, links=tuple(links))


def _target(path: Path) -> Path | None:
    """Return where a symbolic link leads, None for anything else."""
    return path.readlink() if stat.S_ISLNK(path.lstat().st_mode) else None


def _look(path: Path) -> Step:
    found = path.lstat()
    return Step(
        path=path,
        is_directory=stat.S_ISDIR(found.st_mode),
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        acl=entries(read_acl(str(path))),
        owner=users.user_name(found.st_uid),
        group=users.group_name(found.st_gid),
    )
