"""Who may read a token file: owner, group, mode and POSIX ACL, as numbers and as the bytes the kernel takes."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config.model import TokenFile

ACL_ATTRIBUTE = "system.posix_acl_access"
# linux/posix_acl.h and posix_acl_xattr.h: version, then tag, permissions and id of each entry, little endian.
_VERSION = struct.pack("<I", 2)
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID = 0xFFFFFFFF
_READ = 4
_NO_ACL = (errno.ENODATA, errno.ENOTSUP)


class NotGrantedError(Exception):
    """The kernel does not let us give a file the access that was asked for; ``hint`` is the way out."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Access:
    """What a profile asks for; names as in the configuration, ``mode`` as a number.

    ``anywhere``: the content is no secret, so whoever owns the directories may.
    """

    mode: int = 0o600
    owner: str | None = None
    group: str | None = None
    readers: tuple[str, ...] = ()
    follow_symlink: bool = False
    anywhere: bool = False


class Look(NamedTuple):
    """The access that a file gives now; ``mode`` is what stat shows, with an ACL its group bits are the mask."""

    mode: int
    uid: int
    gid: int
    acl: bytes | None


@dataclass(frozen=True, slots=True)
class Grant:
    """What the kernel is told: ``uid`` and ``gid`` are -1 where nothing is asked for, ``acl`` is None without one."""

    mode: int
    uid: int
    gid: int
    acl: bytes | None

    def matches(self, look: Look) -> bool:
        """Return whether a file gives what is asked for."""
        shown_mode = self.mode | (_READ << 3) if self.acl else self.mode
        return (
            look.mode == shown_mode
            and self.uid in (-1, look.uid)
            and self.gid in (-1, look.gid)
            and look.acl == self.acl
        )

    def apply(self, descriptor: int) -> Look:
        """Give an open file of our own, which nobody else may read yet, all of it.

        The group comes before the mode, or the group it had would be let in for a moment; so would those of a
        directory's default ACL. The owner comes last, for then the file is no longer ours to change.

        Raises:
            NotGrantedError: the kernel refuses, or the file system does not keep it.
        """
        before = os.fstat(descriptor)
        if self.gid not in (-1, before.st_gid):
            with _giving("group"):
                os.fchown(descriptor, -1, self.gid)
        with _giving("readers" if self.acl else "mode"):
            self._open_up(descriptor)
        if self.uid not in (-1, before.st_uid):
            with _giving("owner"):
                os.fchown(descriptor, self.uid, -1)
        after = look(descriptor)
        if not self.matches(after):
            raise NotGrantedError(
                "the file system does not keep owner, mode or ACL, so that others could read the token",
                hint="write token files to a file system of Linux, such as /run",
            )
        return after

    def _open_up(self, descriptor: int) -> None:
        if self.acl is not None:
            os.setxattr(descriptor, ACL_ATTRIBUTE, self.acl)  # sets the mode as well
            return
        try:
            os.removexattr(descriptor, ACL_ATTRIBUTE)  # inherited from the directory; nobody asked for it
        except OSError as error:
            if error.errno not in _NO_ACL:
                raise
        os.fchmod(descriptor, self.mode)


_HINTS = {
    "owner": "another owner needs root or CAP_CHOWN and SystemCallFilter=@chown, as the drop-in owner.conf gives them; "
    "`readers` needs neither",
    "group": "a group has to be one of the agent's own: SupplementaryGroups= and SystemCallFilter=@chown, as in the "
    "drop-in groups.conf; any other needs root or CAP_CHOWN; `readers` needs neither",
    "mode": "write token files to a file system of Linux, such as /run",
    "readers": "see whether the file system is mounted with ACLs",
}


@contextlib.contextmanager
def _giving(what: str) -> Iterator[None]:
    """Say which of the things asked for the kernel refuses, and why as far as it can be known."""
    try:
        yield
    except OSError as error:
        hint = _HINTS[what]
        if error.errno == errno.EINVAL:
            hint = "the id is unknown in the agent's user namespace: PrivateUsers= hides other users and groups"
        elif error.errno == errno.ENOTSUP:
            hint = "the file system has no ACLs: use group instead of readers"
        raise NotGrantedError(f"{what} cannot be given: {error.strerror}", hint=hint) from error


def access_of(token_file: TokenFile) -> Access:
    """Return what the configuration asks for a token file."""
    return Access(token_file.mode, token_file.owner, token_file.group, token_file.readers, token_file.follow_symlink)


def resolve(access: Access) -> Grant:
    """Look up the names.

    Raises:
        LookupError: a user or group does not exist; the text says which.
    """
    return Grant(
        mode=access.mode,
        uid=user_id(access.owner) if access.owner else -1,
        gid=group_id(access.group) if access.group else -1,
        acl=_acl(access) if access.readers else None,
    )


def user_id(name: str) -> int:
    """Return the id of a user, given by name or number.

    Raises:
        LookupError: there is none.
    """
    if name.isdecimal():
        return _number(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise LookupError(f"there is no user {name!r}") from None


def group_id(name: str) -> int:
    """Return the id of a group, given by name or number.

    Raises:
        LookupError: there is none.
    """
    if name.isdecimal():
        return _number(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise LookupError(f"there is no group {name!r}") from None


def _number(text: str) -> int:
    """Return an id; the largest of 32 bits is no id, it stands for "leave it as it is" (chown(2))."""
    if len(text) > len(str(_NO_ID)) or int(text) >= _NO_ID:
        raise LookupError(f"{text} is no id of a user or group: they are below {_NO_ID}")
    return int(text)


def _acl(access: Access) -> bytes:
    """Return an ACL that lets the readers read and leaves everybody else what the mode says (acl(5))."""
    users, groups = [], []
    for reader in access.readers:
        kind, _, name = reader.partition(":")
        if kind == "user":
            users.append(user_id(name))
        else:
            groups.append(group_id(name))
    group_bits = access.mode >> 3 & 7
    entries = [
        (_USER_OBJ, access.mode >> 6 & 7, _NO_ID),
        *((_USER, _READ, uid) for uid in sorted(set(users))),
        (_GROUP_OBJ, group_bits, _NO_ID),
        *((_GROUP, _READ, gid) for gid in sorted(set(groups))),
        (_MASK, group_bits | _READ, _NO_ID),
        (_OTHER, access.mode & 7, _NO_ID),
    ]
    return _VERSION + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def look(descriptor: int) -> Look:
    """Return the access that an open file gives.

    Raises:
        OSError: as the kernel says it.
    """
    found = os.fstat(descriptor)
    return Look(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, read_acl(descriptor))


def read_acl(file: int | str) -> bytes | None:
    """Return the extended ACL of an open file or a path, None where it has none."""
    try:
        return os.getxattr(file, ACL_ATTRIBUTE)
    except OSError as error:
        if error.errno in _NO_ACL:
            return None
        raise
