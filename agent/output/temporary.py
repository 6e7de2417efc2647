"""The temporary files that `sink` writes: their names, their making, and what a killed agent left of them."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from agent.output.access import Grant, Look

NAME_MAX = 255
"""Bytes in a file name (limits.h)."""
_HEX_DIGITS = 16
_ROOM = NAME_MAX - len("...tmp") - _HEX_DIGITS
_LEFTOVER = re.compile(rf"\.(.*)\.[0-9a-f]{{{_HEX_DIGITS}}}\.tmp", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Temporary:
    """A complete file under a name that nobody could guess: its name, the access it gives, and what stat says."""

    name: str
    look: Look
    found: os.stat_result


@contextlib.contextmanager
def written(directory: int, name: str, content: bytes, grant: Grant, *, durable: bool) -> Iterator[Temporary]:
    """Write a file beside the one that it is to replace; it is removed at the end, if it is still there.

    Args:
        directory: an open one.
        name: of the file to be replaced.
        content: all of it.
        grant: what access the file gives.
        durable: sync it.

    Raises:
        OSError: as the kernel says it.
        NotGrantedError: the access cannot be given.
    """
    temporary = f".{stem(name)}.{secrets.token_hex(_HEX_DIGITS // 2)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        try:
            _write_all(descriptor, content)
            look = grant.apply(descriptor)
            if durable:
                os.fsync(descriptor)
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        yield Temporary(temporary, look, found)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def stem(name: str) -> str:
    """Cut a name so that its temporary name is not too long, on a character boundary."""
    return os.fsencode(name)[:_ROOM].decode(errors="ignore")


def leftovers(directory: int, stems: Collection[str]) -> list[str]:
    """Return the names of what may be left of files with these stems, or is being written.

    Raises:
        OSError: the directory cannot be listed.
    """
    matches = ((name, _LEFTOVER.fullmatch(name)) for name in os.listdir(directory))
    return [name for name, match in matches if match and match[1] in stems]


def sweep(directory: int, stems: Collection[str], owners: Collection[int]) -> None:
    """Remove what was left of files with these stems: regular files of these owners without a second name.

    Raises:
        OSError: the directory cannot be listed.
    """
    for name in leftovers(directory, stems):
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to remove
            _remove_leftover(directory, name, owners)


def _remove_leftover(directory: int, name: str, owners: Collection[int]) -> None:
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid in owners:
        os.unlink(name, dir_fd=directory)
