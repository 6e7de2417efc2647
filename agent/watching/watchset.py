"""Which directories to watch so that every way of replacing a file is noticed.

A watched file is blind after its first replacement, and so is a directory that is itself replaced. Therefore the
directories are watched in which something on the way to the file can be exchanged: that of every symbolic link, the
real one that holds the file, and that one's parent.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agent.config.values import is_wild, unquote_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_LINKS = 40
"""Symbolic links on one path, as many as the kernel follows."""
NOISY = frozenset(("/", "/etc", "/run", "/tmp", "/var/tmp", "/proc", "/dev", "/sys"))  # noqa: S108 - to stay away
"""Directories in which so much happens that they are not watched merely as the parent of one that matters."""


class Directory(NamedTuple):
    """A real directory; one that was replaced by another of the same path is not equal to it."""

    path: str
    device: int
    inode: int


def watch_set(places: Iterable[Path]) -> frozenset[Directory]:
    """Return the directories to watch, not recursively, for files and directories that may be missing.

    A directory that is named is watched itself. For what is missing, the nearest directory that exists is watched.
    """
    look = cache(_look)  # many places have most of their way in common
    paths = {path for place in places for path in _passed(place, look)}
    return frozenset(found for path in paths if (found := _identify(path)))


def _look(step: str) -> str | bool:
    """Return the target of a symbolic link; else whether it is a directory."""
    try:
        kind = os.lstat(step).st_mode
        return str(Path(step).readlink()) if stat.S_ISLNK(kind) else stat.S_ISDIR(kind)
    except (OSError, ValueError):  # missing, closed to us, or no path at all
        return False


def _passed(place: Path, look: Callable[[str], str | bool]) -> Iterator[str]:
    """Walk to a place as the kernel does, and yield each directory where its meaning can be changed."""
    here, ahead, links = "/", _reversed(str(place.absolute())), 0
    while ahead and links <= MAX_LINKS:
        step = _join(here, ahead.pop())
        found = look(step)
        if isinstance(found, str):
            if here != "/":
                yield here
            here = "/" if found.startswith("/") else here
            ahead += _reversed(found)
            links += 1
        elif found:
            here = step
        else:
            break
    yield here
    if (parent := _join(here, "..")) not in NOISY:
        yield parent


def _reversed(path: str) -> list[str]:
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _join(directory: str, part: str) -> str:
    """Return the path of an entry of a directory that is reached without links, so that ``..`` is its parent."""
    return directory.rpartition("/")[0] or "/" if part == ".." else f"{directory.rstrip('/')}/{part}"


def _identify(path: str) -> Directory | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - twice as fast
    except OSError:
        return None
    return Directory(path, status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None


def fixed_directory(pattern: str) -> Path:
    """Return the directory below which an absolute pattern of file names can match."""
    *parents, _ = Path(pattern).parts
    return Path(*map(unquote_pattern, takewhile(lambda part: not is_wild(part), parents)))


def pattern_directories(pattern: str) -> list[Path]:
    """Return the directories in which files can appear that match an absolute pattern of file names."""
    *parents, _ = Path(pattern).parts
    start = fixed_directory(pattern)
    wild = parents[len(start.parts) :]
    found = [start]
    with suppress(OSError):  # what cannot be listed now is looked at again
        for depth in range(1, len(wild) + 1):
            found += [path for path in start.glob("/".join(wild[:depth])) if path.is_dir()]
    return found
