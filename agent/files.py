"""Reading files without being harmed by them: bounded, regular files only, never blocking on a pipe."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LIMIT = 1 << 20
"""Bytes; no configuration, certificate or token comes near it."""
MOST_WILD = 8
"""Parts of a pattern with wildcards: where links lead back, each part multiplies what there is to search."""


def read_bytes(path: Path, *, limit: int = LIMIT) -> bytes:
    """Return the whole content of a regular file.

    Raises:
        OSError: as ``open`` and ``read`` raise it; EFBIG above ``limit`` bytes, EINVAL for what is not a file.
    """
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = _read(descriptor, status.st_size, limit + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return content


def _read(descriptor: int, expected: int, most: int) -> bytes:
    """Read to the end, or ``most`` bytes; a third of what a file object costs, which counts for a thousand files."""
    parts, left, size = [], most, expected + 1
    while left and (part := os.read(descriptor, min(size, left))):
        parts.append(part)
        left, size = left - len(part), LIMIT
    return b"".join(parts)


def is_hidden(path: Path) -> bool:
    """Tell whether it is our own lack of rights that keeps us from reading a file: its own, or a directory's."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, PermissionError)
    return not os.access(path, os.R_OK)


def expand(directory: Path, pattern: str) -> list[Path]:
    """Return the files that match a glob pattern relative to a directory, sorted by name.

    Raises:
        OSError: the search would have no end, or a directory on the way may not be searched: it is not empty for that.
        ValueError: the pattern means nothing, or one thing in one version of Python and another in the next.
    """
    parts = pattern.split("/")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError("** stands for directories and has no other characters beside it")
    if sum(map(_is_wild, parts)) > MOST_WILD:
        raise OSError(errno.E2BIG, f"it has more than {MOST_WILD} parts with wildcards", pattern)
    base, relative = (Path("/"), pattern.lstrip("/")) if pattern.startswith("/") else (directory, pattern)
    found = sorted(path for path in base.glob(relative) if not path.is_dir())
    _search_all(base, [part for part in relative.split("/") if part])
    return found


def _is_wild(part: str) -> bool:
    return any(mark in part for mark in "*?[")


def _search_all(base: Path, parts: list[str]) -> None:
    """Go where a pattern leads, and raise what `Path.glob` keeps to itself."""
    first = next((number for number, part in enumerate(parts) if _is_wild(part)), len(parts))
    base = base.joinpath(*parts[:first])
    for number, part in enumerate(parts[first:], first):
        before = [*parts[first:number], *(["**"] if part == "**" else [])]
        for place in base.glob("/".join(before)) if before else [base]:
            _search(place, part)


def _search(place: Path, part: str) -> None:
    try:
        if _is_wild(part):
            os.scandir(place).close()
        else:
            os.lstat(place / part)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
