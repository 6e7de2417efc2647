"""Where token files lie: on what file system, seen by whom, with what rights, and what was left beside them."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from agent import users
from agent.doctor import surroundings
from agent.doctor.findings import Topic
from agent.doctor.walk import walk
from agent.errors import OutputError
from agent.output import access, temporary
from agent.output.directories import opened_to_list

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from agent.config.model import Profile, TokenFile
    from agent.doctor.findings import Finding

IN_MEMORY = {"tmpfs", "ramfs"}
_PRIVATE = {
    Path("/tmp"): "PrivateTmp=",  # noqa: S108 - looked at, not written to
    Path("/var/tmp"): "PrivateTmp=",  # noqa: S108 - as above
    Path("/home"): "ProtectHome=",
    Path("/root"): "ProtectHome=",
    Path("/run/user"): "ProtectHome=",
}
_STALE = 60.0
"""Seconds; a temporary file of a write that is under way is gone long before."""


def examine(
    profile: Profile, token_file: TokenFile, runtime_dir: Path, agent_pid: int | None, now: datetime
) -> Iterator[Finding]:
    """Yield what is to be said of a token file's place and rights.

    Args:
        profile: whose it is.
        token_file: as configured.
        runtime_dir: the only directory that the agent makes by itself.
        agent_pid: None if none runs.
        now: the time.
    """
    topic = Topic.of_profile("token file", profile.name)
    path = token_file.path
    if os.path.islink(path) and not token_file.follow_symlink:  # noqa: PTH114 - Path's raises where we may not look
        yield topic.problem(f"{path} is a symbolic link", "name the file itself, or set follow_symlink = true")
        return
    if (missing := walk(path).missing_directory) and missing != runtime_dir:
        yield _absent(topic, path, missing)
        return
    real = Path(os.path.realpath(path))
    yield from _place(topic, real)
    try:
        found = real.stat()
    except FileNotFoundError:
        fix = f"see why: token-agent status {profile.name}" if agent_pid else "start the agent"
        yield topic.problem(f"{path} is not there", fix)
    except OSError:
        return  # whoever may not look is told so by the readers' part
    else:
        yield from _rights(topic, token_file, real, found)
        if agent_pid and surroundings.differs_for(agent_pid, real):
            text = f"{path}: the agent has another file under this name, in a mount of its own"
            yield topic.problem(text, "PrivateTmp= or the like in its unit hides it: write to /run/token-agent")
    yield from _leftovers(topic, real, now)


def _absent(topic: Topic, path: Path, missing: Path) -> Finding:
    """Return that a token file has no directory: whoever configures one makes it, for its rights are his decision."""
    if os.path.lexists(missing):
        return topic.problem(f"{path}: {missing} is no directory", "name another place for the token file")
    wanted = shlex.quote(str(path.parent if path.parent.is_relative_to(missing) else missing))  # that behind a link
    return topic.problem(
        f"{path}: the directory {missing} does not exist", f"install -d -o token-agent -m 0755 {wanted}"
    )


def _place(topic: Topic, path: Path) -> Iterator[Finding]:
    mount = surroundings.mount_of(path.parent)
    if mount.kind in IN_MEMORY:
        yield topic.ok(f"{path.parent} is in memory ({mount.kind}): no token reaches a disk")
    else:
        fix = "a directory below /run keeps tokens in memory; on a disk, mind its backups"
        yield topic.note(f"{path.parent} is on a disk ({mount.kind} at {mount.point})", fix)
    for place, setting in _PRIVATE.items():
        if path.is_relative_to(place):
            text = f"{path}: a service with {setting} does not see this {place}"
            yield topic.warning(text, "put the file below /run or /srv")


def _rights(topic: Topic, token_file: TokenFile, path: Path, found: os.stat_result) -> Iterator[Finding]:
    """Yield whether owner, group, mode and ACL are those of the configuration."""
    if not stat.S_ISREG(found.st_mode):
        yield topic.problem(f"{path} is not a regular file", "remove it, or name another file")
        return
    try:
        grant = access.resolve(access.access_of(token_file))
        look = access.Look(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, access.read_acl(str(path)))
    except (LookupError, OSError):
        return  # the readers' part names what does not exist
    shown = f"{look.mode:04o}{'+' * bool(look.acl)} {users.user_name(look.uid)}:{users.group_name(look.gid)}"
    if grant.matches(look):
        yield topic.ok(f"{path} has the rights it should have ({shown})")
        return
    everybody = ": everybody may read the token" if look.mode & ~grant.mode & 0o004 else ""
    text = f"{path} has other rights than configured ({shown} instead of {_wanted(token_file)}){everybody}"
    yield topic.problem(text, f"a running agent mends it: token-agent refresh {topic.subject}")


def _wanted(token_file: TokenFile) -> str:
    owners = f" {token_file.owner or ''}:{token_file.group or ''}" if token_file.owner or token_file.group else ""
    readers = f", readers {', '.join(token_file.readers)}" if token_file.readers else ""
    return f"{token_file.mode:04o}{owners}{readers}"


def _leftovers(topic: Topic, path: Path, now: datetime) -> Iterator[Finding]:
    """Yield whether a killed agent has left temporary files; they hold tokens."""
    old = []
    with contextlib.suppress(OSError, OutputError), opened_to_list(path.parent) as directory:
        for name in temporary.leftovers(directory, {temporary.stem(path.name)}):
            with contextlib.suppress(OSError):
                changed = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
                old += [name] if now.timestamp() - changed > _STALE else []
    if old:
        text = f"{len(old)} temporary file{'s' * (len(old) != 1)} left beside {path}, such as {min(old)}"
        yield topic.warning(text, "the agent removes them when it starts: systemctl restart token-agent")
