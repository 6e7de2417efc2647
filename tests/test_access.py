"""Owner, group, mode and readers: names to numbers, and to the bytes of an ACL as the kernel takes and gives them."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.model import TokenFile
from agent.output import access
from agent.output.access import Access, Grant, Look, NotGrantedError
from tests import sink_helpers as helpers
from tests.sink_helpers import NOBODY, OTHER, needs_root

if TYPE_CHECKING:
    from pathlib import Path

IDS = st.integers(0, 2**32 - 2)


def entries(acl: bytes) -> list[tuple[int, int, int]]:
    """Return tag, permissions and id of each entry."""
    assert acl[:4] == struct.pack("<I", 2)
    return list(struct.iter_unpack("<HHI", acl[4:]))


def test_names_and_numbers_are_looked_up() -> None:
    """A user or group is given by name or by number, also by one that has no name."""
    assert access.user_id("root") == access.group_id("root") == 0
    assert access.user_id("4294967294") == access.group_id("4294967294") == 2**32 - 2
    wanted = Access(0o640, "root", "54321", ("user:root",))
    grant = access.resolve(wanted)
    assert (grant.mode, grant.uid, grant.gid) == (0o640, 0, 54321)


@pytest.mark.parametrize("name", ["no-such-name", "4294967295", "99999999999999999999", "-1", "0x0", "²"])
def test_what_is_nobody_is_refused(name: str) -> None:
    """A name that does not exist, and the number that would mean "no change", name nobody."""
    with pytest.raises(LookupError, match=r"no user|no id"):
        access.user_id(name)
    with pytest.raises(LookupError, match=r"no group|no id"):
        access.group_id(name)
    for wanted in (Access(owner=name), Access(group=name), Access(readers=(f"user:{name}",))):
        with pytest.raises(LookupError):
            access.resolve(wanted)


def test_nothing_asked_for_is_nothing_changed() -> None:
    """Without owner, group and readers nothing of the kind is told to the kernel."""
    assert access.resolve(Access()) == Grant(0o600, -1, -1, None)


def test_the_configuration_is_taken_over() -> None:
    """All five keys of a token file that concern access arrive; a group alone means 0640."""
    file = TokenFile.model_validate(
        {
            "path": "/run/x", "mode": "0440", "owner": "root", "group": "1", "readers": ["user:2"],
            "follow_symlink": True,
        }
    )  # fmt: skip
    assert access.access_of(file) == Access(0o440, "root", "1", ("user:2",), follow_symlink=True)
    assert access.access_of(TokenFile.model_validate({"path": "/run/x"})) == Access()
    assert access.access_of(TokenFile.model_validate({"path": "/run/x", "group": "1"})).mode == 0o640


@given(st.sets(IDS, max_size=5), st.sets(IDS, max_size=5), st.sampled_from([0o600, 0o640, 0o660, 0o400, 0o644]))
def test_an_acl_grants_reading_to_the_readers_and_no_more(users: set[int], groups: set[int], mode: int) -> None:
    """Every reader gets exactly the right to read; owner, group and others keep what the mode says."""
    readers = (*(f"user:{uid}" for uid in users), *(f"group:{gid}" for gid in groups))
    if not readers:
        return
    acl = access.resolve(Access(mode, readers=readers * 2)).acl
    assert acl
    found = entries(acl)
    assert [entry for entry in found if entry[0] == 0x02] == [(0x02, 4, uid) for uid in sorted(users)]
    assert [entry for entry in found if entry[0] == 0x08] == [(0x08, 4, gid) for gid in sorted(groups)]
    rest = {tag: rights for tag, rights, number in found if number == 2**32 - 1}
    assert rest == {0x01: mode >> 6, 0x04: mode >> 3 & 7, 0x10: mode >> 3 & 7 | 4, 0x20: mode & 7}
    assert [tag for tag, _, _ in found] == sorted(tag for tag, _, _ in found)


@given(mode=st.sampled_from([0o600, 0o640, 0o660, 0o440]), readers=st.booleans())
def test_what_was_given_is_recognised(tmp_path_factory: pytest.TempPathFactory, mode: int, readers: bool) -> None:  # noqa: FBT001 - drawn
    """A file to which a grant was applied matches it, and nothing that differs in a single respect does."""
    path = tmp_path_factory.mktemp("file") / "token"
    grant = access.resolve(Access(mode, readers=("user:54321",) if readers else ()))
    look = _apply(grant, path)
    assert grant.matches(look)
    assert look == Look(mode | 0o040 * readers, os.geteuid(), os.getegid(), grant.acl)
    assert not grant.matches(look._replace(mode=look.mode ^ 0o004))
    assert not grant.matches(look._replace(acl=b"" if look.acl else b"x"))
    asked = Grant(mode, look.uid, look.gid, grant.acl)
    assert asked.matches(look)
    assert not asked.matches(look._replace(uid=look.uid + 1))
    assert not asked.matches(look._replace(gid=look.gid + 1))


def _apply(grant: Grant, path: Path) -> Look:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        return grant.apply(descriptor)
    finally:
        os.close(descriptor)


@needs_root
def test_a_mode_that_is_asked_for_survives_the_change_of_owner(tmp_path: Path) -> None:
    """Owner, group, mode and readers hold together in one file."""
    grant = access.resolve(Access(0o640, str(OTHER), str(NOBODY), ("group:1",)))
    assert _apply(grant, tmp_path / "token") == Look(0o640, OTHER, NOBODY, grant.acl)


@needs_root
def test_a_right_that_the_kernel_refuses_is_named() -> None:
    """Without CAP_CHOWN the error names what cannot be given, and `readers` as the way that needs no capability."""
    with helpers.ground() as ground:
        home = helpers.directory(ground / "run", uid=NOBODY)
        for wanted, what in ((Access(owner="1"), "owner"), (Access(group="1"), "group")):
            said, hint = helpers.call(_refused, home / "token", wanted, who=helpers.Who(NOBODY))
            assert said.startswith(f"{what} cannot be given: ")
            assert "CAP_CHOWN" in hint
            assert "`readers` needs neither" in hint


def _refused(path: Path, wanted: Access) -> tuple[str, str]:
    with pytest.raises(NotGrantedError) as caught:
        _apply(access.resolve(wanted), path)
    return str(caught.value), caught.value.hint


def test_an_acl_is_read_from_a_path_and_a_descriptor(tmp_path: Path) -> None:
    """A file without an ACL has none; one with an ACL shows the same both ways."""
    path = tmp_path / "token"
    path.touch()
    assert access.read_acl(str(path)) is None
    acl = access.resolve(Access(readers=("user:1",))).acl
    assert acl
    os.setxattr(path, access.ACL_ATTRIBUTE, acl)
    with path.open() as file:
        assert access.read_acl(file.fileno()) == access.read_acl(str(path)) == acl
    with pytest.raises(FileNotFoundError):
        access.read_acl(str(tmp_path / "missing"))
