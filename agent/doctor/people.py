"""Users and groups as the user database has them, or as a running process is them."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

from agent import files, users
from agent.doctor.rights import Person
from agent.output import access

NOBODY = 0xFFFFFFFD
"""A user id that no user has, for somebody of whom only a group is known."""
NO_GROUP = 65534
"""The group of a user that is in no database (nogroup)."""


def user(name: str) -> Person:
    """Return a user by name or number, with all groups.

    Raises:
        LookupError: there is no user of this name.
    """
    uid = access.user_id(name)
    try:
        entry = pwd.getpwuid(uid) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        return Person(name, uid, NO_GROUP, frozenset({NO_GROUP}))
    gids = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Person(entry.pw_name, uid, entry.pw_gid, frozenset({entry.pw_gid, *gids}))


def in_group(name: str) -> Person:
    """Return somebody who has this group and nothing else, such as a service by ``SupplementaryGroups=``.

    Raises:
        LookupError: there is no such group.
    """
    gid = access.group_id(name)
    return Person(name, NOBODY, gid, frozenset({gid}), "group")


def members(name: str) -> list[str]:
    """Return the users of a group: those it names, and those whose primary group it is."""
    gid = access.group_id(name)
    try:
        named = grp.getgrgid(gid).gr_mem
    except KeyError:
        named = []
    primary = [entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == gid]
    return sorted({*filter(_exists, named), *primary})


def _exists(name: str) -> bool:
    """Whether there is such a user; groups may name some that are gone, and not every directory can be listed."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def process(pid: int) -> Person | None:
    """Return who a process is, with the groups and capabilities it has (proc_pid_status(5)); None if there is none."""
    try:
        text = files.read_bytes(Path(f"/proc/{pid}/status")).decode(errors="replace")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    uid, gid = int(fields["Uid"].split()[1]), int(fields["Gid"].split()[1])
    gids = frozenset({gid, *map(int, fields["Groups"].split())})
    return Person(users.user_name(uid), uid, gid, gids, capabilities=int(fields["CapEff"], 16))


def myself() -> Person:
    """Return who this process is."""
    gids = frozenset({os.getegid(), *os.getgroups()})
    return process(os.getpid()) or Person(users.own_name(), os.geteuid(), os.getegid(), gids)
