"""Directories that a secret may be put into: opened step by step, each step checked, so that nobody can swap one.

Every directory from / down belongs to root, to the agent, or to the user the token is meant for, and is not writable
for everybody. A group that may write (other than root's or the agent's own), or whoever an ACL names, is somebody's
decision: it is warned of. A sticky directory such as /tmp is fine on the way, where it cannot harm what belongs to us,
but never as the last step. A symbolic link is followed where it and its directory belong to root or the agent: whoever
else owns one could point it at a directory in which the agent, but not he, may write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from agent import users
from agent.errors import OutputError
from agent.output.access import read_acl

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_MAX_LINKS = 40
"""As the kernel has it (path_resolution(7))."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file is or is to be: an open directory and the name in it; ``path`` is free of symbolic links.

    ``warnings`` are what works but deserves a look.
    """

    directory: int
    name: str
    path: Path
    warnings: tuple[str, ...]


@contextlib.contextmanager
def opened(
    path: Path, friends: Collection[int] = (), *, follow_symlink: bool = False, anywhere: bool = False
) -> Iterator[Place]:
    """Open the directory of a file.

    Args:
        path: absolute; symbolic links on the way are followed, and what they lead to is checked.
        friends: user ids besides root and our own that may own a directory.
        follow_symlink: if the name itself is a link, open the directory of what it leads to.
        anywhere: whoever owns the directories, for looking and deleting; links of others are not followed even so.

    Raises:
        OutputError: a step is not safe, or the name is a symbolic link.
        OSError: there is no such directory, or it cannot be opened.
    """
    with _Walk(friends, anywhere=anywhere) as walk:
        walk.to(path.parent)
        name = path.name
        while (target := walk.link(name)) is not None:
            if not follow_symlink:
                hint = "name or put a file itself there; follow_symlink = true has a token file's link followed"
                raise OutputError(path, "it is a symbolic link", hint=hint)
            walk.to(target.parent)
            name = target.name
        if not name:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        directory = walk.stay()
    try:
        yield Place(directory, name, walk.step / name, tuple(dict.fromkeys(walk.warnings)))
    finally:
        os.close(directory)


@contextlib.contextmanager
def opened_to_list(path: Path) -> Iterator[int]:
    """Open a directory, whoever owns it; links of others than root and the agent are not followed even so.

    Raises:
        OutputError: such a link is on the way.
        OSError: there is no such directory, or it cannot be opened.
    """
    with _Walk(anywhere=True) as walk:
        walk.to(path)
        directory = walk.stay()
    try:
        yield directory
    finally:
        os.close(directory)


class _Walk:
    """A walk from / down that holds the directory it has reached, ``step``, and checks each."""

    def __init__(self, friends: Collection[int] = (), *, anywhere: bool = False) -> None:
        self._trusted = {0, os.geteuid()}
        self._owners = self._trusted | set(friends)
        self._anywhere = anywhere
        self._links = 0
        self.warnings: list[str] = []
        self.step = Path("/")
        self.descriptor = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def to(self, path: Path) -> None:
        """Go down a path, from here or from /, and through the links in it."""
        if path.is_absolute():
            self._enter("/", Path("/"))
        for part in path.parts[path.is_absolute() :]:
            target = self.link(part)
            if target is not None:
                self.to(target)
            else:
                self._enter(part, self.step.parent if part == ".." else self.step / part)

    def link(self, name: str) -> Path | None:
        """Return where a symbolic link leads that may be followed, None if it is something else or absent."""
        found = self._find(name)
        if found is None or not stat.S_ISLNK(found.st_mode):
            return None
        self._links += 1
        if self._links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        for owner in (found.st_uid, os.fstat(self.descriptor).st_uid):
            if owner not in self._trusted:
                raise OutputError(
                    self.step / name,
                    f"unsafe symbolic link: user id {owner} could point it at any directory of the agent",
                    hint="name what it leads to instead",
                )
        return Path(os.readlink(name, dir_fd=self.descriptor))

    def has(self, name: str) -> bool:
        """Return whether there is anything of this name here."""
        return self._find(name) is not None

    def _find(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def stay(self) -> int:
        """Open the directory that was reached; sticky is not enough here, for anybody could put a file there first."""
        if os.fstat(self.descriptor).st_mode & stat.S_IWOTH and not self._anywhere:
            raise OutputError(
                self.step, "unsafe directory: everybody may write to it", hint="use a directory of its own inside it"
            )
        # So far O_PATH sufficed, for we may not be allowed to list what is on the way; this one has to be synced.
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor)

    def _enter(self, name: str, step: Path) -> None:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            following = os.open(name, flags, dir_fd=self.descriptor)
        except OSError as error:
            error.filename = str(step)  # which one it is that cannot be entered
            raise
        os.close(self.descriptor)
        self.descriptor, self.step = following, step
        if not self._anywhere:
            self._check(os.fstat(following))

    def _check(self, found: os.stat_result) -> None:
        """Refuse a directory in which somebody else could replace what we put below it."""
        if found.st_uid not in self._owners:
            raise OutputError(
                self.step,
                f"unsafe directory: user id {found.st_uid} owns it and could replace what the agent writes below it",
                hint=_whose(found.st_uid, self.step),
            )
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            raise OutputError(self.step, "unsafe directory: everybody may write to it", hint=f"chmod o-w {self.step}")
        if found.st_mode & stat.S_IWGRP and (whose := self._other_writers(found)):
            self.warnings.append(f"{self.step}: {whose} may write to it, and so replace what the agent writes below it")

    def _other_writers(self, found: os.stat_result) -> str:
        """Return who may write besides the owner; with an ACL the group bits are those of its mask."""
        with contextlib.suppress(OSError):  # without /proc nothing but the group is known
            if read_acl(f"/proc/self/fd/{self.descriptor}") is not None:
                return "somebody named in its ACL (getfacl)"
        return "" if found.st_gid in (0, os.getegid()) else f"group id {found.st_gid}"


def make_directory(path: Path, mode: int) -> None:
    """Make a directory of the agent's own, with its parents; one that exists is checked and left as it is.

    Raises:
        OutputError: it cannot be made, or is not safe.
    """
    try:
        with _Walk() as walk:
            walk.to(Path("/"))
            _make_all(walk, path.parts[1:], mode)
            os.close(walk.stay())
    except OSError as error:
        raise _unusable(path, error) from error


def _make_all(walk: _Walk, parts: Sequence[str], mode: int) -> None:
    for number, part in enumerate(parts, 1):
        if not walk.has(part):
            _make(walk, part, mode if number == len(parts) else 0o755)
        walk.to(Path(part))


def _make(walk: _Walk, name: str, mode: int) -> None:
    """Make a directory; its mode is the one asked for, whatever the umask is.

    With the usual umask it has that mode from the first moment: after a crash nobody would mend it, for one that exists
    is left as it is.
    """
    try:
        os.mkdir(name, mode, dir_fd=walk.descriptor)
    except FileExistsError:
        return  # somebody was faster; the next step looks at whose it is
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.open(name, flags, dir_fd=walk.descriptor)
    try:
        os.fchmod(made, mode)
    finally:
        os.close(made)


def probe_directory(path: Path) -> None:
    """Tell whether the agent could use a directory, or make it; changes nothing.

    Raises:
        OutputError: it could not.
    """
    try:
        with _Walk() as walk:
            walk.to(Path("/"))
            missing = _go_as_far_as_possible(walk, path)
            writable = os.access(".", os.W_OK | os.X_OK, dir_fd=walk.descriptor, effective_ids=True)
    except OSError as error:
        raise _unusable(path, error) from error
    if not writable:
        what = f"it does not exist, and {walk.step} is" if missing else "it is"
        raise OutputError(path, f"{what} not writable for this user", hint=_MAKE.format(path=path))


def _go_as_far_as_possible(walk: _Walk, path: Path) -> bool:
    """Go down a path while there is one, and return whether a part is missing."""
    for part in path.parts[1:]:
        if not walk.has(part):
            return True
        walk.to(Path(part))
    os.close(walk.stay())
    return False


_MAKE = "install -d -o token-agent {path}, or set RuntimeDirectory= and StateDirectory= in the unit"


def _whose(uid: int, step: Path) -> str:
    """Say what helps where a directory belongs to somebody else; root must not take the agent's own away from it."""
    way = f"run this as that user: runuser -u {users.user_name(uid)} -- token-agent ..."
    return (
        f"{way}; or use a directory that root owns"
        if os.geteuid() == 0
        else f"{way}; or chown {users.own_name()} {step}"
    )


def _unusable(path: Path, error: OSError) -> OutputError:
    if error.errno == errno.ENOENT:  # there was a directory to make it in
        step = Path(error.filename if isinstance(error.filename, str) else "")
        if step.is_absolute():
            message = f"cannot be used as a directory: {step} does not exist"
            return OutputError(path, message, hint=_MAKE.format(path=step))
        hint = "name a directory of a real file system"
        return OutputError(path, "cannot be used as a directory: none can be made there", hint=hint)
    return OutputError(path, f"cannot be used as a directory: {error.strerror}", hint=_MAKE.format(path=path))
