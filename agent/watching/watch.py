"""What is on disk, as values that can be compared: events and time stamps can both be missed or wrong."""

from __future__ import annotations

import hashlib
import os
import stat
from datetime import timedelta
from typing import TYPE_CHECKING

from agent import files

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from pathlib import Path

    from agent.clock import Clock

LIMIT = 16 << 20
"""Bytes; as large as a file of trusted authorities may be."""
PORTION = 64
"""Files."""
SETTLE_STEP = timedelta(milliseconds=200)
SETTLE_STEP_OF_CONFIGURATION = timedelta(milliseconds=500)
"""Longer, since half a configuration may be a good one, which would end the profiles of the other half."""
SETTLE_LONGEST = 2.0
"""Seconds; whoever writes for longer is looked at in the middle, and again at the next hint."""

Contents = dict["Path", str]
Fingerprint = tuple[int, ...] | str


def digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's content, or why it cannot be read."""
    try:
        return digest_of(files.read_bytes(path, limit=LIMIT))
    except (OSError, ValueError) as error:
        return reason(error)


def digest_of(content: bytes) -> str:
    """Return the SHA-256 (hex) of a content that was read already."""
    return hashlib.sha256(content).hexdigest()


def reason(error: OSError | ValueError) -> str:
    """Return what stands in the place of a digest where nothing could be read."""
    return getattr(error, "strerror", None) or type(error).__name__


def contents(paths: Iterable[Path]) -> Contents:
    """Return the digests of all the paths; two equal results mean that nothing changed."""
    return {path: digest(path) for path in paths}


def fingerprint(path: Path) -> Fingerprint:
    """Return what changes whenever a file is replaced, written to, or given another mode, owner or ACL.

    It costs no reading, for files that only their writer should touch. It changes also where the content does not
    (`touch`), and not for a write through a memory map before the kernel has dated it.
    """
    try:
        own = os.lstat(path)
        target = (os.stat(path),) if stat.S_ISLNK(own.st_mode) else ()  # noqa: PTH116
    except (OSError, ValueError) as error:
        return reason(error)
    return tuple(number for status in (own, *target) for number in _identity(status))


def _identity(status: os.stat_result) -> tuple[int, ...]:
    times = (status.st_mtime_ns, status.st_ctime_ns)  # the second one is changed by ACLs, too
    return status.st_dev, status.st_ino, status.st_size, status.st_mode, status.st_uid, status.st_gid, *times


def fingerprints(paths: Iterable[Path]) -> dict[Path, Fingerprint]:
    """Return the fingerprints of all the paths; two equal results mean that nobody has touched them."""
    return {path: fingerprint(path) for path in paths}


def portions(paths: Iterable[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Yield all paths once, in portions of one directory each that are looked at in an instant."""
    directories: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(paths):
        directories.setdefault(path.parent, []).append(path)
    for directory, group in directories.items():
        for start in range(0, len(group), PORTION):
            yield directory, group[start : start + PORTION]


async def settled(look: Callable[[], Awaitable[Contents]], clock: Clock, step: timedelta = SETTLE_STEP) -> Contents:
    """Look until two looks in a row agree: whoever is in the middle of writing is waited for, 2 s at most."""
    end = clock.boot() + SETTLE_LONGEST
    before, now = None, await look()
    while before != now and clock.boot() < end:
        await clock.sleep_until(clock.now() + step)
        before, now = now, await look()
    return now
