"""What tests of the doctor share: findings as values, and functions that run in children of other users."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import shlex
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from agent import cli, files
from agent.commands import asking, doctor, status
from agent.config.load import load_config
from agent.doctor import (
    evidence,
    findings,
    keys,
    network,
    onlooker,
    people,
    places,
    readers,
    rights,
    runtime,
    surroundings,
)
from agent.doctor.rights import Person
from agent.doctor.walk import walk
from agent.output.access import ACL_ATTRIBUTE
from tests.sink_helpers import mount

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agent.doctor.findings import Finding

USERS, GROUPS = (51001, 51002), (52001, 52002)
"""Ids that need not be in any database."""
Entries = dict[int, int]
NEEDED = (
    *map(codecs.lookup, ("idna", "utf-8-sig")),
    asking,
    doctor,
    findings,
    keys,
    network,
    onlooker,
    places,
    runtime,
    status,
    surroundings,
)
"""What the command imports when it is called, which another user's process may no longer read."""


def said(findings: Iterable[Finding], level: str) -> list[tuple[str, str]]:
    """Return message and fix of the findings of a level."""
    return [(finding.message, finding.fix) for finding in findings if finding.level == level]


def reader_findings(config: Path, users: Sequence[str] = ()) -> list[Finding]:
    """Return what is found of the readers of all token files; runs in a child, since it forks."""
    loaded = load_config(config, {}, files.read_bytes, files.expand)
    asked = [people.user(name) for name in users]
    return [
        finding
        for profile in loaded.profiles
        for token_file in profile.token_file
        for finding in readers.examine(profile, token_file, asked)
    ]


def reader_findings_from(folder: Path, config: Path, users: Sequence[str]) -> list[Finding]:
    """Return the same, looked at from a folder."""
    os.chdir(folder)
    return reader_findings(config, users)


def with_group_file(groups: Path, user: str, group: str) -> tuple[frozenset[int], list[str]]:
    """Return a user's groups and a group's members by another /etc/group; for a child with mounts of its own."""
    mount(str(groups), "none", Path("/etc/group"), "bind")
    return people.user(user).gids, people.members(group)


def call(runtime_dir: Path, *arguments: str) -> tuple[int, str]:
    """Call a command in this process, which is a child's, and return exit code and output."""
    os.environ["RUNTIME_DIRECTORY"] = str(runtime_dir)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = cli.run([*arguments])
    return code, output.getvalue()


def examine(config: Path, runtime_dir: Path, *arguments: str) -> tuple[int, list[dict[str, str]]]:
    """Examine as somebody who is told nothing but where the agent is; for a child."""
    code, output = call(runtime_dir, "doctor", "--json", "--config", str(config), *arguments)
    return code, json.loads(output)


def packed(mode: int, users: Entries, groups: Entries, mask: int) -> bytes:
    """Return an ACL as the kernel takes it."""
    nobody = 0xFFFFFFFF
    entries = [
        (0x01, mode >> 6 & 7, nobody),
        *((0x02, bits, uid) for uid, bits in sorted(users.items())),
        (0x04, mode >> 3 & 7, nobody),
        *((0x08, bits, gid) for gid, bits in sorted(groups.items())),
        (0x10, mask, nobody),
        (0x20, mode & 7, nobody),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


bits = st.integers(0, 7)
given_rights = st.tuples(
    st.sampled_from((0, *USERS)),
    st.sampled_from((0, *GROUPS)),
    st.integers(0, 0o777),
    st.none()
    | st.tuples(
        st.dictionaries(st.sampled_from(USERS), bits), st.dictionaries(st.sampled_from(GROUPS), bits), st.integers(0, 7)
    ),
)
capabilities = st.just(0) | st.sets(st.sampled_from(sorted(rights.CAPABILITIES.values()))).map(
    lambda numbers: sum(1 << number for number in numbers)
)
people_drawn = st.one_of(
    st.builds(
        lambda uid, gids, mask: Person(str(uid), uid, (*gids, 65534)[0], frozenset(gids or {65534}), capabilities=mask),
        st.sampled_from((*USERS, 0)),
        st.frozensets(st.sampled_from(GROUPS)).map(sorted),
        st.none() | capabilities,
    ),
    st.sampled_from(GROUPS).map(lambda gid: Person(str(gid), people.NOBODY, gid, frozenset({gid}), "group")),
)
Rights = tuple[int, int, int, tuple[Entries, Entries, int] | None]


def give(path: Path, chosen: Rights) -> None:
    """Give a file or directory owner, group, mode and ACL."""
    uid, gid, mode, acl = chosen
    os.chown(path, uid, gid)
    path.chmod(mode)
    if acl and (acl[0] or acl[1]):
        os.setxattr(path, ACL_ATTRIBUTE, packed(mode, *acl))


@contextlib.contextmanager
def laid_out(directory: Path, on_directory: Rights, on_file: Rights) -> Iterator[Path]:
    """Make a directory and a file in it with these rights, for as long as they are looked at."""
    path = directory / "token"
    directory.mkdir()
    path.touch()
    give(path, on_file)
    give(directory, on_directory)
    try:
        yield path
    finally:
        path.unlink()
        directory.rmdir()


def agree_with_the_kernel(ground: Path, examples: int) -> int:
    """Compare what is worked out with what the kernel says, for all kinds of rights; return how often it refused."""
    refused = 0

    @settings(max_examples=examples, deadline=None, database=None)
    @given(on_directory=given_rights, on_file=given_rights, person=people_drawn)
    def compare(on_directory: Rights, on_file: Rights, person: Person) -> None:
        nonlocal refused
        with laid_out(ground / "folder", on_directory, on_file) as path:
            refusal = rights.first_refusal(person, walk(path).steps)
            tried = evidence.opening(person, path)
            assert tried is not None
            assert (refusal is None) == (tried == 0), (refusal, tried)
            refused += refusal is not None

    compare()
    return refused


def fixes_help(ground: Path, examples: int) -> int:
    """Do what the fixes say until nothing is refused any more; return how many it took."""
    done = 0

    @settings(max_examples=examples, deadline=None, database=None)
    @given(on_directory=given_rights, on_file=given_rights, person=people_drawn)
    def mend(on_directory: Rights, on_file: Rights, person: Person) -> None:
        nonlocal done
        with laid_out(ground / "a folder", on_directory, on_file) as path:
            for _ in range(4):  # at most two of each: a right, and a mask that lets it through
                refusal = rights.first_refusal(person, walk(path).steps)
                if refusal is None:
                    break
                command = rights.fix(person, *refusal).rpartition(", or ")[2]
                subprocess.run(shlex.split(command), check=True, capture_output=True)
                done += 1
            assert evidence.opening(person, path) == 0

    mend()
    return done
