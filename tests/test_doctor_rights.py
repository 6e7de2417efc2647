"""Who may enter and read: what is worked out from modes, ACLs and groups is what the kernel says."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import users
from agent.doctor import people, rights
from agent.doctor.rights import Entry, Person, Step
from agent.doctor.walk import walk
from tests import doctor_helpers, sink_helpers
from tests.doctor_helpers import GROUPS, USERS
from tests.sink_helpers import needs_root

if TYPE_CHECKING:
    from collections.abc import Sequence

needs_setfacl = pytest.mark.skipif(shutil.which("setfacl") is None, reason="needs setfacl, to do what a fix says")


def step(mode: int, acl: Sequence[Entry] = (), *, gid: int = GROUPS[0], directory: bool = True) -> Step:
    return Step(Path("/srv/billing"), directory, mode, 0, gid, tuple(acl), "root", "billing")


def user(*gids: int) -> Person:
    return Person("legacy", USERS[0], 65534, frozenset({65534, *gids}))


@needs_root
def test_the_kernel_agrees() -> None:
    """For any owner, group, mode and ACL of a directory and a file, and any capabilities, opening says the same."""
    with sink_helpers.ground() as ground:
        assert sink_helpers.call(doctor_helpers.agree_with_the_kernel, ground, 300) > 50


@needs_root
@needs_setfacl
def test_fixes_help() -> None:
    """Whatever refuses somebody, doing what the fixes say lets them read."""
    with sink_helpers.ground() as ground:
        assert sink_helpers.call(doctor_helpers.fixes_help, ground, 60) > 20


modes = st.integers(0, 0o777)
some_bits = st.integers(0, 7)
acls = st.builds(
    lambda named, group, mask: (*named, Entry(0x04, group, 2**32 - 1), Entry(0x10, mask, 2**32 - 1)),
    st.lists(st.builds(Entry, st.sampled_from((0x02, 0x08)), some_bits, st.sampled_from((*USERS, *GROUPS)))),
    some_bits,
    some_bits,
)


@given(mode=modes, acl=acls, directory=st.booleans())
def test_root_is_never_refused(mode: int, acl: Sequence[Entry], directory: bool) -> None:  # noqa: FBT001 - drawn
    """No mode and no ACL keeps root out."""
    root = Person("root", 0, 0, frozenset({0}))
    assert rights.judge(root, step(mode, acl, directory=directory)).granted


@given(mode=modes, bits=some_bits, mask=some_bits)
def test_an_entry_for_the_user_counts_before_all_others(mode: int, bits: int, mask: int) -> None:
    """Whatever group and others may do, a user with an entry has that entry's rights behind the mask, no more."""
    acl = [Entry(0x02, bits, USERS[0]), Entry(0x04, mode >> 3 & 7, 0), Entry(0x10, mask, 0)]
    shown = mode & 0o707 | mask << 3  # as stat shows it
    verdict = rights.judge(user(*GROUPS), step(shown, acl))
    if mask:
        assert verdict.granted == bool(bits & mask & 1)
        assert verdict.masked == bool(bits & ~mask & 1)


@given(mode=modes, acl=acls | st.just(()), groups=st.sets(st.sampled_from(GROUPS)))
def test_a_group_is_recommended_only_if_it_helps(mode: int, acl: Sequence[Entry], groups: set[int]) -> None:
    """Whoever follows "add … to group …" is let in, and nobody is sent into root's group."""
    for gid in (0, GROUPS[0]):
        place = step(mode, acl, gid=gid)
        verdict = rights.judge(user(*groups), place)
        if not verdict.granted and rights.fix(user(*groups), place, verdict).startswith("add legacy to group billing"):
            assert gid != 0
            assert rights.judge(user(*groups, gid), place).granted


def test_it_is_said_in_words() -> None:
    """A refusal names user, directory, mode, owner and group; the fix names the group and a command."""
    place = step(0o750)
    (found, verdict) = rights.first_refusal(user(), [place]) or pytest.fail("it should be refused")
    assert rights.reason(user(), found, verdict) == "user legacy cannot enter /srv/billing (0750 root:billing)"
    fix = "add legacy to group billing, or setfacl -m u:legacy:x /srv/billing"
    assert rights.fix(user(), found, verdict) == fix


def test_a_mask_is_named() -> None:
    """Where only the mask takes a right away, that is said, and the fix widens the mask and nothing else."""
    acl = [Entry(0x02, 5, USERS[0]), Entry(0x04, 0, 0), Entry(0x10, 4, 0)]
    place = step(0o740, acl)
    verdict = rights.judge(user(), place)
    assert rights.reason(user(), place, verdict) == (
        "user legacy cannot enter /srv/billing (0740+ root:billing)"
        "; its ACL would allow it, but the ACL's mask takes it away"
    )
    assert rights.fix(user(), place, verdict) == "setfacl -m m::r-x /srv/billing"


def test_a_walk_goes_through_links(tmp_path: Path) -> None:
    """Every real directory on the way is a step, wherever links lead: absolute, relative, up again, or in a circle."""
    real = tmp_path / "real" / "inner"
    real.mkdir(parents=True)
    (real / "token").touch(mode=0o640)
    (tmp_path / "there").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "again").symlink_to("../there/inner")
    (tmp_path / "loop").symlink_to("loop")
    way = walk(tmp_path / "there" / "again" / ".." / "inner" / "token")
    assert (way.error, way.real) == (0, real / "token")
    assert [each.path for each in way.steps if each.path.is_relative_to(tmp_path / "real")][-2:] == [real, way.real]
    assert stat.S_IMODE(way.steps[-1].mode) == 0o640
    assert all(each.is_directory for each in way.steps[:-1])
    assert walk(tmp_path / "no" / "token").missing
    assert walk(real / "token" / "x").missing
    assert "loop" in str(walk(tmp_path / "loop").real)
    assert not walk(tmp_path / "loop").missing


@needs_root
def test_further_groups_are_known(tmp_path: Path) -> None:
    """Groups that name a user count beside the primary one; members are named or primary, and exist."""
    groups = tmp_path / "group"
    lines = [f"web:x:{GROUPS[0]}:daemon,no-such-user,mail", f"db:x:{GROUPS[1]}:mail", "daemon:x:1:", "mail:x:8:"]
    groups.write_text("\n".join(lines) + "\n")
    found = sink_helpers.call(doctor_helpers.with_group_file, groups, "mail", "web", who=sink_helpers.Who(mounts=True))
    assert found == ({8, *GROUPS}, ["daemon", "mail"])


def test_groups_are_those_of_the_database() -> None:
    """A user has the groups that id(1) shows; an unknown name is an error, an unknown number a user without groups."""
    for name in ("root", "daemon", "nobody"):
        shown = subprocess.run(["id", "-G", name], capture_output=True, text=True, check=True).stdout
        assert people.user(name).gids == set(map(int, shown.split()))
        assert name in people.members(users.group_name(people.user(name).gid))
    assert people.user(str(USERS[0])) == Person(str(USERS[0]), USERS[0], 65534, frozenset({65534}))
    with pytest.raises(LookupError, match="no user 'no-such-user'"):
        people.user("no-such-user")
    with pytest.raises(LookupError, match="no group 'no-such-group'"):
        people.in_group("no-such-group")
