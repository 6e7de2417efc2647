"""The only writer of files. One way of writing, and it is atomic.

A temporary file beside the target gets content, owner, mode and ACL, and is synced; then it takes the target's
name. A reader sees the old file or the new one, never anything in between, and whatever fails, the old file stays.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent import files, users
from agent.errors import OutputError
from agent.output import access as access_rights
from agent.output import temporary
from agent.output.access import Access, Grant, Look, NotGrantedError, access_of
from agent.output.directories import Place, make_directory, opened, opened_to_list, probe_directory
from agent.output.reserved import NOTHING, Reserved, ReservedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "Access", "Reserved", "ReservedError", "Written", "access_of", "make_directory", "probe", "probe_directory",
    "remove", "sweep", "write",
]  # fmt: skip

_REASONS = {
    errno.ENOENT: ("no file can be made in {directory}", "name a directory of a real file system, such as /run"),
    errno.ENOTDIR: ("part of the path is not a directory", "check {directory}"),
    errno.EACCES: (
        "no permission to write in {directory}",
        "let {user} write there: chown {user} {directory}",
    ),
    errno.EPERM: ("not permitted", "is the file immutable? see lsattr -d {directory} {path}"),
    errno.EROFS: (
        "{directory} is read-only for the agent",
        "under systemd: ReadWritePaths={directory}, as the drop-in write-paths.conf has it",
    ),
    errno.ENOSPC: ("no space left on the file system", "free space or inodes below {directory}"),
    errno.EDQUOT: ("the disk quota is used up", "raise the quota of the agent's user"),
    errno.EIO: ("the disk fails: {strerror}", "see the kernel's log: journalctl -k"),
    errno.ENAMETOOLONG: ("the name is too long", f"at most {temporary.NAME_MAX} bytes"),
    errno.EBUSY: ("it is a mount point", "mount its directory into the container instead of the file"),
    errno.EISDIR: ("it is a directory", "name a file in it"),
    errno.EMFILE: ("the agent has too many files open", "raise LimitNOFILE= of the unit (ulimit -n)"),
    errno.ENFILE: ("the system has too many files open", "raise fs.file-max, or find who opens so many (lsof)"),
    errno.ENOMEM: ("the system has no memory left for it", "free memory, or raise MemoryMax= of the unit"),
    errno.ESTALE: ("its network file system is another one than before", "mount {directory} anew"),
    errno.ENOTCONN: ("the program that serves its file system has ended", "mount {directory} anew"),
    errno.ELOOP: ("its symbolic links lead nowhere, or one was put there meanwhile", "check {directory}"),
}

_NO_DIRECTORY = ("the directory does not exist", "install -d -o {user} -m 0755 {directory}")

_handed_over: dict[Path, tuple[bytes, tuple[int, ...], Look]] = {}
"""Files that went to another user, which we may be unable to read: hash of the content, stat, and access given."""


@dataclass(frozen=True, slots=True)
class Written:
    """What came of writing: whether anything changed, and what an operator should know though it was written.

    ``same_content``: only owner, mode or readers had to be put right.
    """

    changed: bool
    warning: str = ""
    same_content: bool = False


def write(path: Path, content: bytes, access: Access, *, durable: bool = True, reserved: Reserved = NOTHING) -> Written:
    """Make a file hold exactly this content with exactly this access; nothing is done if it does.

    Args:
        path: absolute.
        content: all of it.
        access: owner, group, mode, readers.
        durable: sync file and directory, so that it survives a power loss.
        reserved: places that may have to be left alone.

    Raises:
        OutputError: why not; the old file is still there, whole.
    """
    with _translated(path), _opened(path, access, reserved) as (place, grant):
        known = _look_of_same(place, content)
        if known and grant.matches(known) and _is_as_we_make_it(known, place, grant):
            return Written(changed=False)
        with temporary.written(place.directory, place.name, content, grant, durable=durable) as new:
            if known == new.look:
                return Written(changed=False)  # this file system gives no other owner (NFS with squashed users)
            os.rename(new.name, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory)
            _remember(place, content, new)
        warning = _sync(place.directory) if durable else ""
        return Written(changed=True, warning=warning, same_content=known is not None)


def probe(path: Path, access: Access, reserved: Reserved = NOTHING) -> tuple[str, ...]:
    """Try everything but the last step, and leave nothing behind.

    Returns:
        What works but deserves a look.

    Raises:
        OutputError: why writing would fail.
    """
    with _translated(path), _opened(path, access, reserved) as (place, grant):
        _existing(place)
        if _is_mount_point(place.path):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        with temporary.written(place.directory, place.name, b"", grant, durable=False):
            pass
        return place.warnings


def remove(path: Path, *, follow_symlink: bool = False, reserved: Reserved = NOTHING) -> None:
    """Delete a file that `write` wrote, durably; one that is not there is fine.

    Whoever owns its directory: what stands there under this name is no more than he could delete himself.

    Args:
        path: absolute.
        follow_symlink: as it was written; the link itself stays, as it stays when writing.
        reserved: places that may have to be left alone.

    Raises:
        ReservedError: it is something else's by now.
        OutputError: it is still there.
    """
    with (
        _translated(path),
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        opened(path, follow_symlink=follow_symlink, anywhere=True) as place,
    ):
        reserved.check(path, place.directory, place.name)
        if _existing(place):
            os.unlink(place.name, dir_fd=place.directory)
        temporary.sweep(place.directory, {temporary.stem(place.name)}, {os.geteuid()})
        _handed_over.pop(place.path, None)
        _sync(place.directory)


def sweep(paths: Iterable[Path], owners: Iterable[str] = ()) -> None:
    """Remove what a killed agent may have left beside its targets: temporary files of our making, nothing else.

    Args:
        paths: the targets.
        owners: users to whom targets are given; a leftover may be theirs already.
    """
    ours = {os.geteuid()}
    for owner in owners:
        with contextlib.suppress(LookupError):
            ours.add(access_rights.user_id(owner))
    by_directory: dict[Path, set[str]] = {}
    for path in paths:
        for target in (path, *_behind(path)):
            by_directory.setdefault(target.parent, set()).add(temporary.stem(target.name))
    for directory, stems in by_directory.items():
        # A directory that cannot be opened now will be named when it is written to.
        with contextlib.suppress(OSError, OutputError), opened_to_list(directory) as descriptor:
            temporary.sweep(descriptor, stems, ours)


def _behind(path: Path) -> Iterator[Path]:
    """Yield where a file really is, if its own name is a symbolic link."""
    if path.is_symlink():
        with contextlib.suppress(OSError, OutputError), opened(path, follow_symlink=True, anywhere=True) as place:
            yield place.path


@contextlib.contextmanager
def _opened(path: Path, access: Access, reserved: Reserved) -> Iterator[tuple[Place, Grant]]:
    """Look up the names and open the directory, unless the place is something else's."""
    try:
        grant = access_rights.resolve(access)
    except LookupError as error:
        raise OutputError(path, str(error), hint="create it, or correct owner, group or readers") from None
    friends = {grant.uid} - {-1}
    with opened(path, friends, follow_symlink=access.follow_symlink, anywhere=access.anywhere) as place:
        reserved.check(path, place.directory, place.name)
        yield place, grant


def _existing(place: Place) -> os.stat_result | None:
    """Return what is there, if it may be replaced or removed."""
    try:
        found = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISLNK(found.st_mode):
        raise OutputError(place.path, "it is neither a file nor absent", hint="remove it, or name another file")
    return found


def _look_of_same(place: Place, content: bytes) -> Look | None:
    """Return the access that the file gives, if it holds this content."""
    found = _existing(place)
    if found is None or found.st_size != len(content) or not stat.S_ISREG(found.st_mode):
        return None
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(place.name, flags, dir_fd=place.directory)
    except OSError:
        return _recollect(place, content, found)
    try:
        with open(descriptor, "rb", closefd=False) as file:
            return access_rights.look(descriptor) if file.read(len(content) + 1) == content else None
    finally:
        os.close(descriptor)


def _is_as_we_make_it(look: Look, place: Place, grant: Grant) -> bool:
    """Whether owner and group, where the profile says nothing of them, are those of a file of our making."""
    groups = {os.getegid(), os.fstat(place.directory).st_gid}  # the directory's, if it is setgid
    return (grant.uid != -1 or look.uid == os.geteuid()) and (grant.gid != -1 or look.gid in groups)


def _remember(place: Place, content: bytes, new: temporary.Temporary) -> None:
    """Keep how a file looks that belongs to another user now, so that what became of it can be told unread."""
    if new.look.uid == os.geteuid():
        return
    with contextlib.suppress(OSError):
        found = os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
        if _traits(found)[1:] == _traits(new.found)[1:]:  # renaming changed the ctime, and nothing changed the rest
            _handed_over[place.path] = (hashlib.sha256(content).digest(), _traits(found), new.look)


def _recollect(place: Place, content: bytes, found: os.stat_result) -> Look | None:
    """Return the access of a file that cannot be read, if it is untouched since we wrote this content."""
    digest, traits, look = _handed_over.get(place.path, (b"", (), None))
    return look if digest == hashlib.sha256(content).digest() and traits == _traits(found) else None


def _traits(found: os.stat_result) -> tuple[int, ...]:
    """Return what changes with a file; whatever is done to it sets its ctime."""
    return (found.st_ctime_ns, found.st_mtime_ns, found.st_dev, found.st_ino, found.st_size, found.st_mode)


def _sync(directory: int) -> str:
    """Sync a directory; a failure comes after the rename, so the file is written, though maybe not for ever."""
    try:
        os.fsync(directory)
    except OSError as error:
        return "" if error.errno == errno.EINVAL else f"written, but not surely durable: {error.strerror}"
    return ""


def _is_mount_point(path: Path) -> bool:
    """Whether a file is itself a mount (docker run -v file:file); its name cannot be given to another file."""
    try:
        table = files.read_bytes(Path("/proc/self/mountinfo"), limit=16 << 20)
    except OSError:
        return False  # rename will tell
    escaped = os.fsencode(path)
    for character in b"\\ \t\n":
        escaped = escaped.replace(bytes([character]), b"\\%03o" % character)
    return any(line.split(b" ")[4] == escaped for line in table.splitlines())


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn the kernel's errors into what an operator can mend."""
    if not path.is_absolute():
        raise OutputError(path, "it is not an absolute path", hint="write it from / on")
    try:
        yield
    except NotGrantedError as error:
        raise OutputError(path, str(error), hint=error.hint) from error
    except OSError as error:
        raise explained(path, error) from error


def explained(path: Path, error: OSError) -> OutputError:
    """Return what keeps a file from being written, in an operator's words, and what mends it."""
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), ""))
    directory, step = path.parent, Path(error.filename if isinstance(error.filename, str) else "")
    if step.is_absolute() and error.errno == errno.ENOENT:  # on the way there
        reason, hint = _NO_DIRECTORY
        if not path.parent.is_relative_to(step):  # behind a link
            reason, directory = "the directory {directory} does not exist", step
    names = {"directory": directory, "path": path, "strerror": error.strerror, "user": users.own_name()}
    return OutputError(path, reason.format(**names), hint=hint.format(**names))
