"""The names of users and groups, for what is told to people."""

from __future__ import annotations

import grp
import os
import pwd


def user_name(uid: int) -> str:
    """Return a user's name, the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Return a group's name, the number where there is none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def own_name() -> str:
    """Return the name of the user this process is."""
    return user_name(os.geteuid())
