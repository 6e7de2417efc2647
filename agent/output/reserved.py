"""Places that are taken, known by what they are: a path is only one of many names that lead to a place.

Symbolic links and mounts give further names. So a place is a directory, by device and inode, and the name in it.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.errors import OutputError


class ReservedError(OutputError):
    """A path leads to a place that something else has by another name."""


class Reserved:
    """What has which place; of several that claim one, the first has it."""

    def __init__(self) -> None:
        self._taken: dict[tuple[int, int, str], tuple[Path, str]] = {}

    def take(self, path: Path, what: str, *, through_links: bool) -> None:
        """Let something have a place; a directory that cannot be looked into protects nothing, and needs none.

        Args:
            path: absolute.
            what: is there, for messages.
            through_links: if the name itself is a symbolic link, what it leads to is taken as well.
        """
        names = {path, Path(os.path.realpath(path))} if through_links else {path}
        for name in names:
            try:
                found = name.parent.stat()
            except OSError:
                continue
            self._taken.setdefault((found.st_dev, found.st_ino, name.name), (path, what))

    def add(self, others: Reserved) -> None:
        """Let others have their places, where they are free."""
        for place, taken in others._taken.items():
            self._taken.setdefault(place, taken)

    def check(self, path: Path, directory: int, name: str) -> None:
        """Make sure that nobody else has a place.

        Args:
            path: the name by which it was asked for.
            directory: an open one, where the path leads.
            name: in it.

        Raises:
            ReservedError: who has it.
        """
        found = os.fstat(directory)
        owner, what = self._taken.get((found.st_dev, found.st_ino, name), (path, ""))
        if owner != path:
            raise ReservedError(path, f"this leads to {owner}, which is {what}", hint="name another file")


NOTHING = Reserved()
"""Where nothing else is known that could be overwritten."""
