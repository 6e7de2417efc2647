"""What ``check`` says of the configuration's own files: who else could change what the agent does.

Whoever may write the configuration may send tokens of any profile to any file, and have commands run as the agent's
user; whoever may write a directory on the way may put another file in its place.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from agent import users

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agent.config.model import Config


def of_all(config: Config) -> Iterator[str]:
    """Yield the warnings of all files of a configuration, and of those it may miss."""
    yield from open_to_others(config.sources)
    yield from _absent(config.agent.include)


def open_to_others(sources: Iterable[Path]) -> Iterator[str]:
    """Yield a warning for each file, and each directory above one, that others than root and this user may change.

    A group that may write is left alone: administrators who share a configuration have one.
    """
    seen: set[Path] = set()
    for source in sources:
        real = source.resolve()
        for path in (real, *real.parents):
            if path not in seen:
                seen.add(path)
                yield from _look(path)


def _look(path: Path) -> Iterator[str]:
    try:
        found = path.stat()
    except OSError:
        return  # it was there a moment ago, or may not be seen: whoever reads it says so
    what = "what the agent does" if stat.S_ISREG(found.st_mode) else "the configuration below it"
    if found.st_uid not in (0, os.geteuid()):
        yield f"{path} belongs to user {users.user_name(found.st_uid)}, who can so change {what}: chown root {path}"
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_mode & stat.S_IWOTH and not sticky:
        mode = stat.S_IMODE(found.st_mode)
        yield f"{path} may be written by everybody (mode {mode:04o}), who can so change {what}: chmod o-w {path}"


def _absent(patterns: Iterable[str]) -> Iterator[str]:
    """Yield a warning for each directory of `include` that is not there: nothing in it is missed."""
    from agent.config.values import is_wild
    from agent.watching.watchset import fixed_directory

    for directory in dict.fromkeys(map(fixed_directory, filter(is_wild, patterns))):
        if not directory.is_dir():
            yield f"agent.include: the directory {directory} does not exist: no profile comes from there"
