"""Writing token files: what readers see, who may read, and when a file is left alone."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from agent.output import access, sink
from agent.output.access import Access
from tests import sink_helpers as helpers
from tests.sink_helpers import CAP_CHOWN, CAP_SETUID, GROUP, NEW, NOBODY, OLD, OTHER, OTHER_GROUP, Who, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PLAIN = Access()


@pytest.fixture
def ground() -> Iterator[Path]:
    with helpers.ground() as path:
        yield path


def test_readers_see_whole_tokens_only(ground: Path) -> None:
    """While a file is rewritten thousands of times, other processes never see a torn, empty or missing one."""
    path, last = ground / "token", 2000
    sink.write(path, helpers.numbered_token(0), PLAIN)
    readers = [helpers.start(helpers.watch_tokens, path, last) for _ in range(2)]
    for reader in readers:
        helpers.wait_until_ready(reader)
    for number in range(1, last + 1):
        sink.write(path, helpers.numbered_token(number), PLAIN, durable=number % 100 == 0)
    for seen in map(helpers.result, readers):
        assert seen["whole"] > 100
        assert seen["torn"] == seen["empty"] == seen["missing"] == 0
    assert helpers.names(ground) == {"token"}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o440, 0o644])
def test_the_mode_is_the_one_asked_for(ground: Path, umask: int, mode: int) -> None:
    """Whatever the umask is, the file has exactly the mode of the profile."""
    before = os.umask(umask)
    try:
        assert sink.write(ground / "token", NEW, Access(mode=mode)).changed
    finally:
        os.umask(before)
    assert helpers.mode_of(ground / "token") == mode
    assert (ground / "token").read_bytes() == NEW


@pytest.mark.parametrize("content", [b"", b"x", OLD, bytes(range(256)) * 5000])
def test_content_comes_back_as_it_was(ground: Path, content: bytes) -> None:
    """Any bytes, also none and more than a megabyte of them, are written whole."""
    sink.write(ground / "token", content, PLAIN)
    assert (ground / "token").read_bytes() == content


def test_a_file_that_is_right_is_left_alone(ground: Path) -> None:
    """The same content, mode and owner is not written again: inode and times stay, and it is said."""
    path = ground / "token"
    assert sink.write(path, OLD, PLAIN) == sink.Written(changed=True)
    before = helpers.stamp(path), helpers.stamp(ground)
    assert sink.write(path, OLD, PLAIN) == sink.Written(changed=False)
    assert (helpers.stamp(path), helpers.stamp(ground)) == before


@pytest.mark.parametrize("altered", [b"", b"x", OLD[:-1], OLD + b"\n", OLD.upper()])
def test_altered_content_is_put_right(ground: Path, altered: bytes) -> None:
    """A file that somebody emptied, cut, lengthened or changed gets its content back."""
    path = ground / "token"
    sink.write(path, OLD, PLAIN)
    path.write_bytes(altered)
    assert sink.write(path, OLD, PLAIN).changed
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o400, 0o000, 0o4600, 0o1600])
def test_an_altered_mode_is_put_right(ground: Path, mode: int) -> None:
    """A file with the right content but another mode gets its mode back."""
    path = ground / "token"
    sink.write(path, OLD, PLAIN)
    path.chmod(mode)
    assert sink.write(path, OLD, PLAIN).changed
    assert helpers.mode_of(path) == 0o600


def test_a_deleted_file_comes_back(ground: Path) -> None:
    """A file that somebody deleted is there again after the next write."""
    path = ground / "token"
    sink.write(path, OLD, PLAIN)
    path.unlink()
    assert sink.write(path, OLD, PLAIN).changed
    assert path.read_bytes() == OLD


@needs_root
@pytest.mark.parametrize(
    "wanted",
    [
        Access(),
        Access(owner=str(OTHER)),
        Access(mode=0o640, group=str(GROUP)),
        Access(mode=0o440, owner=str(OTHER), group=str(GROUP)),
        Access(readers=("user:65534", f"group:{GROUP}")),
        Access(mode=0o640, owner=str(OTHER), group=str(GROUP), readers=("user:65534",)),
    ],
)
def test_owner_group_and_readers_are_put_right(ground: Path, wanted: Access) -> None:
    """What somebody did to owner, group or ACL is undone, and then the file is left alone."""
    path = ground / "token"
    assert helpers.write_twice(path, OLD, wanted) == (True, False)
    right = _look(path)
    spoils: tuple[Callable[[], None], ...] = (
        lambda: os.chown(path, 1, -1),
        lambda: os.chown(path, -1, 1),
        lambda: os.setxattr(path, access.ACL_ATTRIBUTE, _acl("user:1")),
        lambda: os.removexattr(path, access.ACL_ATTRIBUTE) if wanted.readers else path.chmod(0o666),
    )
    for spoil in spoils:
        spoil()
        assert helpers.write_twice(path, OLD, wanted) == (True, False)
        assert _look(path) == right


@needs_root
def test_owner_and_group_are_those_of_the_profile(ground: Path) -> None:
    """Root gives the file to the owner and group of the profile, by number or by name."""
    sink.write(ground / "numbers", NEW, Access(mode=0o640, owner=str(OTHER), group=str(GROUP)))
    assert _look(ground / "numbers") == access.Look(0o640, OTHER, GROUP, None)
    sink.write(ground / "names", NEW, Access(owner="daemon", group="root"))
    assert _look(ground / "names") == access.Look(0o600, access.user_id("daemon"), 0, None)


@needs_root
def test_only_the_readers_can_read(ground: Path) -> None:
    """A user named in `readers` and a member of a group named there can read, nobody else can."""
    path = ground / "token"
    sink.write(path, NEW, Access(readers=(f"user:{OTHER}", f"group:{GROUP}")))
    assert helpers.call(helpers.read, path, who=Who(OTHER)) == NEW
    assert helpers.call(helpers.read, path, who=Who(NOBODY, gid=GROUP)) == NEW
    assert helpers.call(helpers.read, path, who=Who(NOBODY, groups=[GROUP])) == NEW
    assert helpers.call(helpers.read, path, who=Who(NOBODY, groups=[OTHER_GROUP])) is None


@needs_root
def test_an_agent_that_is_not_root_lets_readers_in(ground: Path) -> None:
    """Readers by ACL and an own supplementary group need no capability."""
    home = helpers.directory(ground / "run", uid=NOBODY, gid=NOBODY)
    agent = Who(NOBODY, groups=[GROUP])
    wanted = Access(mode=0o640, group=str(GROUP), readers=(f"user:{OTHER}",))
    assert helpers.call(helpers.write_twice, home / "token", NEW, wanted, who=agent) == (True, False)
    assert helpers.call(helpers.read, home / "token", who=Who(OTHER)) == NEW
    assert helpers.call(helpers.read, home / "token", who=Who(12345, groups=[GROUP])) == NEW
    assert helpers.call(helpers.read, home / "token", who=Who(12345, groups=[OTHER_GROUP])) is None


@needs_root
def test_a_file_that_the_agent_gave_away_is_not_written_again_and_again(ground: Path) -> None:
    """With CAP_CHOWN alone the agent cannot read the owner's file, and yet knows whether it is untouched."""
    home = helpers.directory(ground / "run", uid=NOBODY, gid=NOBODY)
    agent = Who(NOBODY, capabilities=[CAP_CHOWN, CAP_SETUID])  # the second for the test, to act as the owner
    assert helpers.call(_give_away, home / "token", who=agent) == {
        "first": True, "again": False, "new content": True, "new again": False, "chmod by the owner": True,
        "right again": False, "content by the owner": True,
    }  # fmt: skip
    assert _look(home / "token") == access.Look(0o600, OTHER, NOBODY, None)


def _give_away(path: Path) -> dict[str, bool]:
    wanted = Access(owner=str(OTHER))
    outcome = {}

    def write(name: str, content: bytes) -> None:
        outcome[name] = sink.write(path, content, wanted).changed

    write("first", OLD)
    write("again", OLD)
    write("new content", OLD.upper())  # of the same length
    write("new again", OLD.upper())
    _as_owner(lambda: path.chmod(0o640))
    write("chmod by the owner", OLD.upper())
    write("right again", OLD.upper())
    _as_owner(lambda: path.write_bytes(OLD))
    write("content by the owner", OLD.upper())
    return outcome


def _as_owner(act: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        os.setuid(OTHER)
        act()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_default_acl_of_the_directory_does_not_let_others_in(ground: Path) -> None:
    """What a directory's default ACL would grant is taken away, whatever mode is asked for."""
    home = helpers.directory(ground / "run")
    os.setxattr(home, "system.posix_acl_default", _acl(f"user:{OTHER}"))
    for mode in (0o600, 0o640, 0o644):
        sink.write(home / "token", NEW, Access(mode=mode))
        assert _look(home / "token") == access.Look(mode, os.geteuid(), os.getegid(), None)
    sink.write(home / "token", NEW, Access(readers=(f"user:{NOBODY}",)))
    assert _look(home / "token").acl == _acl(f"user:{NOBODY}")


@needs_root
def test_the_group_of_a_setgid_directory_is_accepted_or_replaced(ground: Path) -> None:
    """A setgid directory gives its group where the profile says nothing, and loses to the profile's."""
    home = helpers.directory(ground / "run", mode=0o2755, gid=GROUP)
    assert helpers.write_twice(home / "token", NEW, Access(mode=0o640)) == (True, False)
    assert _look(home / "token") == access.Look(0o640, 0, GROUP, None)
    before = helpers.stamp(home)
    assert not sink.write(home / "token", NEW, Access(mode=0o640)).changed
    assert helpers.stamp(home) == before  # not even a temporary file was made
    assert helpers.write_twice(home / "token", NEW, Access(mode=0o640, group=str(OTHER_GROUP))) == (True, False)
    assert _look(home / "token") == access.Look(0o640, 0, OTHER_GROUP, None)


@pytest.mark.parametrize("character", ["x", "ü", "€", "\n", "🙂"])
def test_a_name_of_255_bytes_works(ground: Path, character: str) -> None:
    """The longest name there can be is written, also where cutting it would split a character."""
    size = len(character.encode())
    path = ground / ("t" * (255 % size) + character * (255 // size))
    assert len(path.name.encode()) == 255
    assert helpers.write_twice(path, NEW, PLAIN) == (True, False)
    assert helpers.names(ground) == {path.name}
    sink.remove(path)
    assert helpers.names(ground) == set()


def test_a_directory_with_a_sticky_one_above_works(ground: Path) -> None:
    """A directory of our own below a sticky one that everybody may write to is safe."""
    helpers.directory(ground / "tmp", mode=0o1777)
    home = helpers.directory(ground / "tmp" / "ours")
    assert sink.write(home / "token", NEW, PLAIN).changed


@needs_root
def test_a_directory_of_the_owner_of_the_token_works(ground: Path) -> None:
    """The user a token is meant for may own its directory, and it can be removed from there."""
    home = helpers.directory(ground / "app", uid=OTHER, gid=OTHER)
    assert sink.write(home / "token", NEW, Access(owner=str(OTHER))).changed
    sink.remove(home / "token")
    assert helpers.names(home) == set()


def test_parents_that_are_links_are_followed(ground: Path) -> None:
    """Links of root or the agent on the way are followed, relative, absolute and through several directories."""
    home = helpers.directory(ground / "real")
    (ground / "absolute").symlink_to(home)
    (ground / "relative").symlink_to("real/../absolute/.")
    for way in ("absolute", "relative"):
        sink.write(ground / way / way, NEW, PLAIN)
        assert (home / way).read_bytes() == NEW


def test_a_followed_link_stays_and_its_target_is_replaced(ground: Path) -> None:
    """With follow_symlink the link remains what it is, the file behind it is written, also where there was none."""
    home, path = helpers.directory(ground / "real"), ground / "token"
    path.symlink_to("second")
    (ground / "second").symlink_to(home / "file")
    wanted = Access(follow_symlink=True)
    assert helpers.write_twice(path, OLD, wanted) == (True, False)  # dangling at first
    assert helpers.write_twice(path, NEW, wanted) == (True, False)
    assert path.is_symlink()
    assert (home / "file").read_bytes() == NEW
    assert helpers.names(home) == {"file"}
    sink.remove(path, follow_symlink=True)
    assert path.is_symlink()
    assert helpers.names(home) == set()


def test_other_names_of_a_file_keep_the_old_content(ground: Path) -> None:
    """Writing replaces a name: a hard link to the old file is not written through."""
    path = ground / "token"
    sink.write(path, OLD, PLAIN)
    (ground / "link").hardlink_to(path)
    sink.write(path, NEW, PLAIN)
    assert (ground / "link").read_bytes() == OLD


def test_probing_leaves_nothing_and_changes_nothing(ground: Path) -> None:
    """Before the first write and after it, a probe leaves the directory as it was."""
    assert sink.probe(ground / "token", PLAIN) == ()
    assert helpers.names(ground) == set()
    sink.write(ground / "token", OLD, PLAIN)
    before = helpers.stamp(ground / "token")
    assert sink.probe(ground / "token", PLAIN) == ()
    assert helpers.names(ground) == {"token"}
    assert helpers.stamp(ground / "token") == before


@needs_root
def test_probing_warns_of_directories_that_a_group_may_write_to(ground: Path) -> None:
    """A group, or somebody in a directory's ACL, who could replace the token is named; writing works."""
    home = helpers.directory(ground / "run", mode=0o775, gid=GROUP)
    assert sink.probe(home / "token", PLAIN) == (
        f"{home}: group id {GROUP} may write to it, and so replace what the agent writes below it",
    )
    home.chmod(0o755)
    assert sink.probe(home / "token", PLAIN) == ()
    os.chown(home, 0, 0)
    os.setxattr(home, access.ACL_ATTRIBUTE, _acl(f"user:{OTHER}").replace(b"\x10\x00\x04", b"\x10\x00\x07"))
    assert "ACL" in sink.probe(home / "token", PLAIN)[0]
    assert sink.write(home / "token", NEW, PLAIN).changed


def test_sweeping_removes_exactly_our_leftovers(ground: Path) -> None:
    """What a killed agent left beside its targets goes; everything that merely looks like it stays."""
    ours = {".token.0123456789abcdef.tmp", f".{'n' * 233}.0123456789abcdef.tmp", ".two\nlines.0123456789abcdef.tmp"}
    others = {
        "token", ".token.0123456789abcdef.tmp.bak", ".token.0123456789abcde.tmp", ".token.0123456789ABCDEF.tmp",
        "token.0123456789abcdef.tmp", ".other.0123456789abcdef.tmp", ".token.tmp", ".token.0123456789abcdef0.tmp",
    }  # fmt: skip
    for name in ours | others:
        (ground / name).write_bytes(OLD)
    (ground / ".token.0000000000000000.tmp").mkdir()
    (ground / ".token.1111111111111111.tmp").symlink_to("token")
    (ground / "hard").write_bytes(OLD)
    (ground / ".token.2222222222222222.tmp").hardlink_to(ground / "hard")
    os.mkfifo(ground / ".token.3333333333333333.tmp")
    before = helpers.names(ground)
    sink.sweep([ground / "token", ground / ("n" * 255), ground / "two\nlines", ground / "missing" / "token"])
    assert helpers.names(ground) == before - ours


@needs_root
def test_sweeping_removes_what_was_given_away_already_but_nothing_of_others(ground: Path) -> None:
    """A leftover may belong to the owner of the target; those of anybody else stay."""
    home = helpers.directory(ground / "app", uid=OTHER)
    for number, uid in enumerate((0, OTHER, NOBODY)):
        path = home / f".token.{number:016}.tmp"
        path.write_bytes(OLD)
        os.chown(path, uid, -1)
    sink.sweep([home / "token"], [str(OTHER), "no-such-user"])
    assert helpers.names(home) == {f".token.{2:016}.tmp"}


def test_sweeping_finds_leftovers_behind_a_link(ground: Path) -> None:
    """Beside the file that a followed link leads to, leftovers are found too."""
    home = helpers.directory(ground / "real")
    (ground / "token").symlink_to(home / "file")
    (home / ".file.0123456789abcdef.tmp").write_bytes(OLD)
    sink.sweep([ground / "token"])
    assert helpers.names(home) == set()


def test_removing_takes_the_file_and_its_leftovers(ground: Path) -> None:
    """Removing deletes file and leftovers and nothing else; what is not there is fine."""
    for name in ("token", ".token.0123456789abcdef.tmp", "other"):
        (ground / name).write_bytes(OLD)
    sink.remove(ground / "token")
    assert helpers.names(ground) == {"other"}
    for path in (ground / "token", ground / "missing" / "token", ground / "other" / "token"):
        sink.remove(path)
    assert helpers.names(ground) == {"other"}


@needs_root
def test_the_acl_is_one_that_other_tools_understand(ground: Path) -> None:
    """What the profile says is what getfacl shows of the file."""
    if shutil.which("getfacl") is None:
        pytest.skip("needs getfacl")
    sink.write(ground / "token", NEW, Access(mode=0o640, readers=("user:65534", "group:65534")))
    output = subprocess.run(
        ["getfacl", "-cnp", ground / "token"], check=True, capture_output=True, text=True, timeout=helpers.PATIENCE
    ).stdout
    expected = {"user::rw-", "user:65534:r--", "group::r--", "group:65534:r--", "mask::r--", "other::---"}
    assert set(output.split()) == expected


def _look(path: Path) -> access.Look:
    found = path.stat()
    return access.Look(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, access.read_acl(str(path)))


def _acl(*readers: str) -> bytes:
    acl = access.resolve(Access(readers=readers)).acl
    assert acl
    return acl
