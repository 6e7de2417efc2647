"""Reading the files credentials are made of; every failure is put so that an operator can mend it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from agent import files, users
from agent.errors import CredentialError

_OTHERS = 0o007
_REASONS = {
    errno.EISDIR: "is a directory, not a file",
    errno.EINVAL: "is not a regular file",
    errno.EFBIG: f"is larger than {files.LIMIT} bytes, which no certificate, key or secret is",
    errno.ELOOP: "is a loop of symbolic links",
}
_HOMES = ("/home", "/root", "/run/user")
_HIDDEN = (
    "ProtectHome= of the unit hides {home} from the service: move the file to /etc/token-agent, or pass it with "
    "LoadCredential= in the unit"
)


def read(path: Path) -> bytes:
    """Return the content of a certificate, key, password, secret or assertion file.

    Raises:
        CredentialError: it cannot be read; ``missing`` is set where it does not exist.
    """
    try:
        return files.read_bytes(path)
    except OSError as error:
        reason, hint = explained(path, error)
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise CredentialError(path, reason, hint=hint, missing=missing) from error


def explained(path: Path, error: OSError) -> tuple[str, str]:
    """Return why a file cannot be read, and what to do about it."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "does not exist", _missing_hint(path)
    if isinstance(error, PermissionError):
        return "permission denied", _permission_hint(path)
    return _REASONS.get(error.errno or 0) or error.strerror or type(error).__name__, "name the file itself"


def read_password(path: Path | None) -> bytes | None:
    """Return the content of a password file without the newline that editors put at its end; None for no file.

    An empty file is an empty password.

    Raises:
        CredentialError: it cannot be read.
    """
    return None if path is None else without_newline(read(path))


def without_newline(content: bytes) -> bytes:
    """Take one newline off the end, LF or CRLF."""
    return content[:-1].removesuffix(b"\r") if content.endswith(b"\n") else content


def exposure(*paths: Path | None) -> tuple[str, ...]:
    """Return a warning for each file of secrets that is open to users who are neither owner nor in its group.

    Owner and group are left alone: systemd's credentials are 0400 of the service user in one version and 0440 of
    root with an ACL in another, and both are right.
    """
    return tuple(
        f"{path} is open to all users (mode {mode:04o}): chmod o= {path}"
        for path in dict.fromkeys(paths)
        if path and (mode := _mode(path)) & _OTHERS
    )


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0  # it was there a moment ago; whoever reads it next will say what is wrong


def _missing_hint(path: Path) -> str:
    if path.is_symlink():
        return f"it is a symbolic link to {Path.readlink(path)}, which does not exist"
    nearest = next((parent for parent in path.parents if parent.exists()), Path("/"))
    if nearest == path.parent:
        return "put it there, or correct the path"
    return f"{nearest} is there, the rest of the path is not"


def _permission_hint(path: Path) -> str:
    """Say whose file it is and who we are, and the two ways out."""
    user = users.own_name()
    try:
        status = path.stat()
    except OSError:
        way = f"user {user} may not enter one of the folders above it (x for the user or a group of theirs)"
        real = os.path.realpath(path)  # a link may lead there from elsewhere
        home = next((home for home in _HOMES if real.startswith(f"{home}/")), None)
        return f"{_HIDDEN.format(home=home)}; or else {way}" if home else way
    owner, group, mode = users.user_name(status.st_uid), users.group_name(status.st_gid), stat.S_IMODE(status.st_mode)
    if status.st_uid == os.geteuid() and not mode & stat.S_IRUSR:
        return f"it belongs to {owner}, who is us, and its mode is {mode:04o}: chmod u+r {path}"
    return (
        f"it belongs to {owner}:{group} with mode {mode:04o}, and this process is user {user}: "
        f"chgrp it to a group of {user} and chmod g+r, or pass it with LoadCredential= in the unit"
    )
