"""Readers of token files, tried by real processes of other users: who can, who cannot, where it ends, and the fix."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from agent import users
from agent.output import access, sink
from agent.output.access import Access
from tests import sink_helpers
from tests.doctor_helpers import packed, reader_findings, reader_findings_from, said
from tests.process_helpers import write_config
from tests.sink_helpers import GROUP, NOBODY, OTHER, Who, directory, needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from agent.doctor.findings import Finding

pytestmark = needs_root


@pytest.fixture
def ground() -> Iterator[Path]:
    with sink_helpers.ground() as made:
        yield made


def config(ground: Path, **token_file: Any) -> Path:
    """Write a configuration with one token file, ``srv/token``."""
    profile = {
        "name": "graph",
        "tenant": "contoso.onmicrosoft.com",
        "client_id": "ace7a10d-aaaa-4a01-8663-1440b6b78cb9",
        "scopes": "https://graph.microsoft.com/.default",
        "certificate": "graph.pem",
        "token_file": [{"path": ground / "srv" / "token"} | token_file],
    }
    return write_config(ground, profile)


def place(ground: Path, wanted: Access, mode: int = 0o755) -> Path:
    """Write the token file as the agent does, into a directory with this mode."""
    folder = directory(ground / "srv")
    path = folder / "token"
    sink.write(path, b"token", wanted)
    folder.chmod(mode)
    return path


def examine(path: Path, *users: str, who: Who = sink_helpers.MYSELF) -> list[Finding]:
    found: list[Finding] = sink_helpers.call(reader_findings, path, users, who=who)
    return found


def problems(path: Path, *users: str) -> Sequence[tuple[str, str]]:
    return said(examine(path, *users), "problem")


def test_all_intended_readers_are_tried(ground: Path) -> None:
    """Owner, group and readers of a profile are each looked at, without being named; who can read is told so."""
    readers = (f"user:{NOBODY}", "group:daemon")
    path = place(ground, Access(0o640, str(OTHER), str(GROUP), readers))
    found = examine(config(ground, owner=str(OTHER), group=str(GROUP), readers=readers))
    assert [finding.level for finding in found] == ["ok"] * 4
    assert [finding.message.partition(f" {path}")[0] for finding in found] == [
        f"user {OTHER} can read",
        f"user {users.user_name(NOBODY)} can read",
        f"group {GROUP} can read",
        "group daemon can read",
    ]
    assert found[3].message.endswith("(members daemon)")


def test_a_directory_that_is_closed_is_named(ground: Path) -> None:
    """The first directory that a reader cannot enter is named with mode and owners, and with both ways in."""
    place(ground, Access(readers=(f"user:{OTHER}",)), mode=0o750)
    os.chown(ground / "srv", 0, GROUP)
    ((message, fix),) = problems(config(ground, readers=[f"user:{OTHER}"]))
    assert message == f"user {OTHER} cannot enter {ground}/srv (0750 root:{GROUP})"
    assert fix == f"add {OTHER} to group {GROUP}, or setfacl -m u:{OTHER}:x {ground}/srv"


def test_an_acl_lets_in(ground: Path) -> None:
    """A directory's ACL is looked at with its mask: the entry lets in, an empty place in the mask does not."""
    place(ground, Access(readers=(f"user:{OTHER}",)), mode=0o700)
    os.setxattr(ground / "srv", access.ACL_ATTRIBUTE, packed(0o700, {OTHER: 1}, {}, 1))
    assert problems(config(ground, readers=[f"user:{OTHER}"])) == []
    os.setxattr(ground / "srv", access.ACL_ATTRIBUTE, packed(0o700, {OTHER: 1}, {}, 4))
    ((message, fix),) = problems(config(ground, readers=[f"user:{OTHER}"]))
    assert "the ACL's mask takes it away" in message
    assert fix == f"setfacl -m m::r-x {ground}/srv"


def test_a_file_is_mended_by_the_configuration(ground: Path) -> None:
    """A file's own rights are the agent's: the fix is a reader in the profile, or a refresh if it is there already."""
    path = place(ground, Access(0o600))
    shown = f"user {OTHER} cannot read {path} (0600 root:root)"
    line = f'`readers = ["user:{OTHER}"]` in the profile\'s [[profile.token_file]]'
    assert problems(config(ground), str(OTHER)) == [(shown, line)]
    refresh = "the agent puts the file's rights right again: token-agent refresh graph"
    assert problems(config(ground, readers=[f"user:{OTHER}"])) == [(shown, refresh)]


def test_a_group_whose_members_have_another_way(ground: Path) -> None:
    """If membership alone does not suffice, and yet all members can read, that is a warning that says both."""
    place(ground, Access(0o640, "daemon", "daemon"), mode=0o700)
    os.chown(ground / "srv", 1, 0)
    found = examine(config(ground, group="daemon"))
    ((message, fix),) = said(found, "warning")
    assert message.startswith(f"group daemon cannot enter {ground}/srv (0700 daemon:root)")
    assert message.endswith("its members can (members daemon), by other rights of theirs")
    assert fix == f"setfacl -m g:daemon:x {ground}/srv"
    assert said(found, "problem") == []


def test_a_member_who_is_kept_out(ground: Path) -> None:
    """A member whom another entry refuses is named, though the group can read."""
    path = place(ground, Access(0o640, "root", "daemon"))
    os.setxattr(path, access.ACL_ATTRIBUTE, packed(0o640, {1: 0}, {}, 4))
    found = examine(config(ground, group="daemon"))
    assert len(said(found, "ok")) == 1
    ((message, _),) = said(found, "problem")
    assert message == f"user daemon cannot read {path} (0640+ root:daemon)"


def test_nobody_is_named(ground: Path) -> None:
    """A token file for nobody in particular is a note that says how to name readers and how to ask."""
    place(ground, Access())
    (finding,) = examine(config(ground))
    assert finding.level == "note"
    assert "token-agent doctor graph --user NAME" in finding.fix


def test_names_that_do_not_exist(ground: Path) -> None:
    """A reader or group that is in no database is a problem; the others are looked at all the same."""
    place(ground, Access(readers=(f"user:{OTHER}",)))
    found = examine(config(ground, readers=["user:no-such-user", "group:no-such-group", f"user:{OTHER}"]))
    assert [message for message, _ in said(found, "problem")] == [
        "there is no user 'no-such-user'",
        "there is no group 'no-such-group'",
    ]
    assert len(said(found, "ok")) == 1


def test_a_file_that_is_not_there_yet(ground: Path) -> None:
    """The way to a missing file is looked at all the same."""
    directory(ground / "srv", 0o700)
    ((message, _),) = problems(config(ground), str(OTHER))
    assert message == f"user {OTHER} cannot enter {ground}/srv (0700 root:root)"
    (ground / "srv").chmod(0o711)
    (finding,) = examine(config(ground), str(OTHER))
    assert (finding.level, finding.message) == ("ok", f"user {OTHER} can reach {ground}/srv")


def test_what_is_tried_counts_more(ground: Path) -> None:
    """Where the kernel refuses what modes allow, as it does of another user's process, the refusal is reported."""
    path = f"/proc/{os.getpid()}/maps"
    ((message, fix),) = problems(config(ground, path=path), str(OTHER))
    assert message == f"user {OTHER} cannot open {path}, though modes and ACLs allow it: Permission denied"
    assert "SELinux" in fix


def test_what_is_let_in_is_no_problem(ground: Path) -> None:
    """Where the kernel lets in whom modes refuse, as through a process's own folder, both are said."""
    place(ground, Access(readers=(f"user:{OTHER}",)))
    inner = directory(ground / "srv" / "inner")
    (ground / "srv" / "token").rename(inner / "token")
    (ground / "srv").chmod(0o700)
    asked = config(ground, path="/proc/self/cwd/token")
    (finding,) = sink_helpers.call(reader_findings_from, inner, asked, [str(OTHER)])
    text = f"user {OTHER} can read /proc/self/cwd/token, though by the modes and ACLs on the way they could not"
    assert (finding.level, finding.message) == ("ok", text)


def test_without_root_it_is_worked_out(ground: Path) -> None:
    """Another user gets the same answers from modes and ACLs alone, and is told where they may not look."""
    place(ground, Access(readers=(f"user:{OTHER}",)))
    asked = config(ground, readers=[f"user:{OTHER}"])
    (finding,) = examine(asked, who=Who(NOBODY))
    assert (finding.level, finding.message) == ("ok", f"user {OTHER} can read {ground}/srv/token")
    (refused,) = examine(asked, "5555", who=Who(NOBODY))
    assert refused.level == "problem"
    (ground / "srv").chmod(0o700)
    (finding,) = examine(asked, who=Who(NOBODY))
    assert finding.message == f"{ground}/srv/token: you may not look beyond {ground}/srv"
