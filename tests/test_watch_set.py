"""Which directories are watched for a path: those of all links, the real one, its parent; never more than needed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent.watching.watchset import pattern_directories, watch_set


def directories(*places: Path) -> set[Path]:
    return {Path(directory.path) for directory in watch_set(places)}


def touched(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_file_is_watched_by_its_directory_and_the_one_above(tmp_path: Path) -> None:
    """Both the file and its directory can be replaced."""
    assert directories(touched(tmp_path / "a" / "b" / "file")) == {tmp_path / "a" / "b", tmp_path / "a"}


def test_the_directory_of_every_link_is_watched(tmp_path: Path) -> None:
    """Each link on the way can be retargeted: links to links, relative ones, links to directories."""
    touched(tmp_path / "x" / "store" / "real" / "file")
    for name in ("etc", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "link").symlink_to("../x/store")
    (tmp_path / "etc" / "app").symlink_to(tmp_path / "other" / "link" / "real")
    assert directories(tmp_path / "etc" / "app" / "file") == {
        tmp_path / "etc",
        tmp_path / "other",
        tmp_path / "x" / "store" / "real",
        tmp_path / "x" / "store",
    }


def test_dots_follow_links_as_the_kernel_does(tmp_path: Path) -> None:
    """``link/../file`` is beside what the link points to, not beside the link."""
    touched(tmp_path / "far" / "away" / "x")
    touched(tmp_path / "far" / "file")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "away")
    found = directories(tmp_path / "near" / "link" / ".." / "." / "file")
    assert found == {tmp_path / "near", tmp_path / "far", tmp_path}


def test_a_relative_path_is_one_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It means the same as the absolute one."""
    monkeypatch.chdir(tmp_path)
    touched(tmp_path / "a" / "file")
    assert directories(Path("a/file")) == directories(tmp_path / "a" / "file")


@pytest.mark.parametrize("missing", ["file", "b/file", "b/c/d/file"])
def test_what_is_missing_is_waited_for_at_the_nearest_directory(missing: str, tmp_path: Path) -> None:
    """There it will appear first."""
    (tmp_path / "a").mkdir()
    assert directories(tmp_path / "a" / missing) == {tmp_path / "a", tmp_path}


def test_a_file_where_a_directory_should_be(tmp_path: Path) -> None:
    """The directory of that file is where it will be replaced."""
    assert directories(touched(tmp_path / "a" / "file") / "b" / "file") == {tmp_path / "a", tmp_path}


def test_a_named_directory_is_watched_itself(tmp_path: Path) -> None:
    """Files appear in it."""
    (tmp_path / "a" / "conf.d").mkdir(parents=True)
    assert directories(tmp_path / "a" / "conf.d") == {tmp_path / "a" / "conf.d", tmp_path / "a"}


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    """Links that lead nowhere are watched where they are."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").symlink_to("two")
    (tmp_path / "a" / "two").symlink_to("one")
    assert directories(tmp_path / "a" / "one" / "file") == {tmp_path / "a", tmp_path}


@pytest.mark.parametrize("name", ["file\0", "x" * 300])
def test_an_impossible_name_is_no_failure(name: str, tmp_path: Path) -> None:
    """No such file can appear, and the others are still watched."""
    (tmp_path / "a").mkdir()
    assert tmp_path / "a" in directories(tmp_path / "a" / name)


@pytest.mark.parametrize(
    ("place", "watched"),
    [
        ("/missing-here/app/file", {"/"}),
        ("/etc/passwd", {"/etc"}),
        ("/etc/missing-here/file", {"/etc"}),
        ("/bin/sh", set()),
    ],
)
def test_busy_directories_are_watched_only_where_there_is_no_other(place: str, watched: set[str]) -> None:
    """``/``, ``/etc`` and the like count as the directory of a file, not as the parent of another or of /bin."""
    busy = {Path("/"), Path("/etc"), Path("/tmp"), Path("/run")}
    assert directories(Path(place)) & busy == {Path(path) for path in watched}


def test_another_directory_of_the_same_path_is_another_one(tmp_path: Path) -> None:
    """A set differs when a directory was replaced, although all paths are the same."""
    path = touched(tmp_path / "a" / "file")
    before = watch_set([path])
    (tmp_path / "a").rename(tmp_path / "old")
    touched(path)
    assert {each.path for each in watch_set([path])} == {each.path for each in before}
    assert watch_set([path]) != before
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "old").rename(tmp_path / "a")
    assert watch_set([path]) == before


def test_paths_share_directories(tmp_path: Path) -> None:
    """A thousand files of one directory need two watches."""
    assert len(watch_set(tmp_path / "a" / f"{number}" for number in range(1000))) == 2


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("conf.d/*.toml", {"conf.d"}),
        ("missing/*.toml", {"missing"}),
        ("*.toml", {"."}),
        ("apps/*/agent.toml", {"apps", "apps/one", "apps/two"}),
        ("apps/*/[a-z]*/agent.toml", {"apps", "apps/one", "apps/two", "apps/one/x"}),
        ("named.toml", {"."}),
        ("[[]odd]/*.toml", {"[odd]"}),
    ],
)
def test_a_pattern_of_files_is_watched_where_they_can_appear(pattern: str, expected: set[str], tmp_path: Path) -> None:
    """Each directory counts that the pattern's wildcards lead to, there or not; a file does not."""
    for directory in ("conf.d", "apps/one/x", "apps/two", "[odd]"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "apps" / "file").touch()
    assert set(pattern_directories(f"{tmp_path}/{pattern}")) == {tmp_path / path for path in expected}
