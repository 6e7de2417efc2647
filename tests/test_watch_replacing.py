"""Every way in which tools and people replace files is noticed, each time: real files, the real watcher.

A scenario is a generator: it yields the file that is watched, and then makes one change after another, each of which
gives the file another content. With an hour between scans, a change that causes no event is never noticed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from tests.watch_helpers import HOUR, Consumer, Over, fresh, unshared

Scenario = Callable[[Path], Iterator[Path]]


def written(path: Path) -> Path:
    """Write fresh content into a file whose directory may be missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(fresh())
    return path


def link(path: Path, target: str) -> None:
    """Let a symbolic link point to another target, as ``ln -sfn`` does."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.symlink_to(target)
    temporary.rename(path)


# ---- the file itself


def in_place(root: Path) -> Iterator[Path]:
    path = written(root / "app.pem")
    yield path
    for _ in range(3):
        yield written(path)


def in_chunks(root: Path) -> Iterator[Path]:
    path = written(root / "app.pem")
    yield path
    for _ in range(2):
        content = fresh()
        with path.open("w") as file:
            yield path  # truncated
            file.write(content[: len(content) // 2])
            file.flush()
            yield path  # the first half
            file.write(content[len(content) // 2 :])
        yield path


def appended_by_dd(root: Path) -> Iterator[Path]:
    path, source = written(root / "app.pem"), root.parent / "source"
    yield path
    for _ in range(2):
        subprocess.run(["dd", f"if={written(source)}", f"of={path}", "conv=notrunc", "status=none"], check=True)
        yield path


def renamed_over(root: Path) -> Iterator[Path]:
    path = written(root / "app.pem")
    yield path
    for _ in range(3):
        yield written(root / "app.pem.new").rename(path)


def by_sed(root: Path) -> Iterator[Path]:
    path = written(root / "app.pem")
    yield path
    for _ in range(3):
        content = fresh().replace("\n", "\\n")
        subprocess.run(["sed", "-i", "-z", f"s|.*|{content}|", path], check=True)
        yield path


def by_install(root: Path) -> Iterator[Path]:
    path = written(root / "app.pem")
    yield path
    for _ in range(3):
        subprocess.run(["install", "-m", "0600", written(root.parent / "source"), path], check=True)
        yield path


def moved_from_elsewhere(root: Path) -> Iterator[Path]:
    path = written(root / "app.pem")
    yield path
    for _ in range(3):
        with tempfile.NamedTemporaryFile("w", dir="/dev/shm", delete=False) as file:
            file.write(fresh())
        subprocess.run(["mv", file.name, path], check=True)
        yield path


def deleted_and_created(root: Path) -> Iterator[Path]:
    path = written(root / "app.pem")
    yield path
    for _ in range(3):
        path.unlink()
        yield written(path)


def deleted_and_created_later(root: Path) -> Iterator[Path]:
    path = written(root / "app.pem")
    yield path
    for _ in range(2):
        path.unlink()
        yield path
        yield written(path)


def on_tmpfs(root: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield from renamed_over(Path(directory))


# ---- links


def link_retargeted(root: Path) -> Iterator[Path]:
    path = root / "etc" / "app.pem"
    path.parent.mkdir()
    path.symlink_to(written(root / "store" / "0.pem"))
    yield path
    for number in range(1, 4):
        link(path, f"../store/{written(root / 'store' / f'{number}.pem').name}")
        yield path


def target_replaced(root: Path) -> Iterator[Path]:
    path, target = root / "etc" / "app.pem", written(root / "store" / "0.pem")
    path.parent.mkdir()
    path.symlink_to(target)
    yield path
    for _ in range(3):
        written(root / "store" / "new").rename(target)
        yield path


def retargeted_then_changed_in_place(root: Path) -> Iterator[Path]:
    path = root / "etc" / "app.pem"
    path.parent.mkdir()
    path.symlink_to(written(root / "0" / "app.pem"))
    yield path
    for number in "12":
        target = written(root / number / "app.pem")
        link(path, str(target))
        yield path
        written(target)
        yield path


def chain_of_links(root: Path) -> Iterator[Path]:
    path, middle = root / "a" / "app.pem", root / "b" / "app.pem"
    for directory in (path.parent, middle.parent):
        directory.mkdir()
    middle.symlink_to(written(root / "c" / "0"))
    path.symlink_to("../b/app.pem")
    yield path
    for number in range(1, 4):
        link(middle, str(written(root / "c" / str(number))))
        yield path


def linked_directory_retargeted(root: Path) -> Iterator[Path]:
    path = root / "etc" / "current" / "tls" / "app.pem"
    (root / "etc").mkdir()
    written(root / "releases" / "0" / "tls" / "app.pem")
    (root / "etc" / "current").symlink_to("../releases/0")
    yield path
    for number in "123":
        written(root / "releases" / number / "tls" / "app.pem")
        link(root / "etc" / "current", f"../releases/{number}")
        yield path


def kubernetes(root: Path) -> Iterator[Path]:
    volume = root / "volume"
    written(volume / "..0" / "tls.crt")
    (volume / "..data").symlink_to("..0")
    (volume / "tls.crt").symlink_to("..data/tls.crt")
    yield volume / "tls.crt"
    for number in range(1, 4):
        written(volume / f"..{number}" / "tls.crt")
        link(volume / "..data", f"..{number}")
        shutil.rmtree(volume / f"..{number - 1}")
        yield volume / "tls.crt"


def certbot(root: Path) -> Iterator[Path]:
    live, archive = root / "live" / "site", root / "archive" / "site"
    live.mkdir(parents=True)
    written(archive / "privkey1.pem")
    (live / "privkey.pem").symlink_to("../../archive/site/privkey1.pem")
    yield live / "privkey.pem"
    for number in (2, 3):
        written(archive / f"privkey{number}.pem")
        (live / "privkey.pem").unlink()
        (live / "privkey.pem").symlink_to(f"../../archive/site/privkey{number}.pem")
        yield live / "privkey.pem"


# ---- directories


def directory_renamed(root: Path) -> Iterator[Path]:
    path = written(root / "certs" / "app.pem")
    yield path
    for number in range(3):
        written(root / "certs.new" / "app.pem")
        path.parent.rename(root / f"certs.old{number}")
        (root / "certs.new").rename(path.parent)
        yield path
        yield written(path)


def directories_exchanged(root: Path) -> Iterator[Path]:
    path, other = written(root / "certs" / "app.pem"), written(root / "other" / "app.pem")
    yield path
    for _ in range(3):
        exchange(path.parent, other.parent)
        yield path
        yield written(path)


def exchange(one: Path, other: Path) -> None:
    """Swap two directories in one step."""
    here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), flag):
        raise OSError(ctypes.get_errno(), "renameat2")


def directory_recreated(root: Path) -> Iterator[Path]:
    """Often with the same inode: nothing but the event tells that it is another one."""
    path = written(root / "certs" / "app.pem")
    yield path
    for _ in range(3):
        shutil.rmtree(path.parent)
        yield written(path)
        yield written(path)


def directory_deleted_and_created_later(root: Path) -> Iterator[Path]:
    path = written(root / "certs" / "app.pem")
    yield path
    for _ in range(2):
        shutil.rmtree(path.parent)
        yield path
        yield written(path)
        yield written(path)


def two_levels_deleted_and_recreated(root: Path) -> Iterator[Path]:
    path = written(root / "etc" / "certs" / "app.pem")
    yield path
    for _ in range(3):
        shutil.rmtree(root / "etc")
        yield path
        yield written(path)
        yield written(path)


def missing_at_first(root: Path) -> Iterator[Path]:
    path = root / "app.pem"
    yield path
    yield written(path)
    yield written(path)


def missing_with_directories(root: Path) -> Iterator[Path]:
    path = root / "a" / "b" / "c" / "app.pem"
    yield path
    for _ in range(2):
        yield written(path)
        yield written(path)
        shutil.rmtree(root / "a")
        yield path


def moved_into_place(root: Path) -> Iterator[Path]:
    path = root / "a" / "b" / "app.pem"
    yield path
    for _ in range(2):
        written(root.parent / "made" / "b" / "app.pem")
        (root.parent / "made").rename(root / "a")
        yield path
        yield written(path)
        shutil.rmtree(root / "a")
        yield path


def link_to_what_is_missing(root: Path) -> Iterator[Path]:
    path = root / "etc" / "app.pem"
    path.parent.mkdir()
    path.symlink_to(root / "later" / "x" / "app.pem")
    yield path
    for _ in range(2):
        yield written(root / "later" / "x" / "app.pem")
        shutil.rmtree(root / "later")
        yield path


# ---- what no event tells


def through_another_hard_link(root: Path) -> Iterator[Path]:
    path, other = written(root / "a" / "app.pem"), root / "b" / "app.pem"
    other.parent.mkdir()
    other.hardlink_to(path)
    yield path
    for _ in range(2):
        yield written(other)


def through_memory(root: Path) -> Iterator[Path]:
    path = written(root / "app.pem")
    yield path
    for _ in range(2):
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            memory[:] = fresh().encode()
        yield path


HEARD: list[Scenario] = [
    in_place, in_chunks, appended_by_dd, renamed_over, by_sed, by_install, moved_from_elsewhere, deleted_and_created,
    deleted_and_created_later, on_tmpfs,
    link_retargeted, target_replaced, retargeted_then_changed_in_place, chain_of_links, linked_directory_retargeted,
    kubernetes, certbot,
    directory_renamed, directories_exchanged, directory_recreated, directory_deleted_and_created_later,
    two_levels_deleted_and_recreated, missing_at_first, missing_with_directories, moved_into_place,
    link_to_what_is_missing,
]  # fmt: skip
UNHEARD: list[Scenario] = [through_another_hard_link, through_memory]


async def play(scenario: Iterator[Path], interval: timedelta = HOUR) -> set[str]:
    """Let each change of a scenario be noticed, as often as it says; return the kinds of all hints."""
    kinds: set[str] = set()

    def change() -> None:
        if next(scenario, None) is None:
            raise Over

    with Consumer(next(scenario)) as consumer:
        assert (await consumer.hint()).kind == "armed"
        while noticed := await consumer.notices(change, interval):
            kinds.update(noticed)
    return kinds


Outcomes = dict[Scenario, set[str] | Exception]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """All scenarios at once, each with a watcher of its own: most of the time is waiting."""
    found: Outcomes = {}

    async def try_out(scenario: Scenario, interval: timedelta) -> None:
        root = tmp_path_factory.mktemp(scenario.__name__) / "root"
        root.mkdir()
        try:
            found[scenario] = await play(scenario(root), interval)
        except (TimeoutError, ExceptionGroup, OSError, AssertionError) as error:
            found[scenario] = error

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for scenario in HEARD:
                tasks.start_soon(try_out, scenario, HOUR)
            for scenario in UNHEARD:
                tasks.start_soon(try_out, scenario, timedelta(seconds=1))

    anyio.run(main)
    return found


def kinds(outcome: set[str] | Exception) -> set[str]:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@pytest.mark.parametrize("scenario", HEARD, ids=lambda scenario: scenario.__name__)
def test_every_replacement_is_noticed_by_an_event(scenario: Scenario, outcomes: Outcomes) -> None:
    """Each change, the second and third like the first, is followed by a hint after which the content differs."""
    assert kinds(outcomes[scenario])
    assert kinds(outcomes[scenario]) <= {"event", "armed"}


@pytest.mark.parametrize("scenario", UNHEARD, ids=lambda scenario: scenario.__name__)
def test_changes_without_events_are_found_by_the_scan(scenario: Scenario, outcomes: Outcomes) -> None:
    """A write through another name or through memory is found by comparing contents when it is time."""
    assert kinds(outcomes[scenario]) == {"scan"}


def test_a_path_that_grows_slowly_is_followed(tmp_path: Path) -> None:
    """Each directory of a missing path is watched from its creation on, however late the next one comes."""
    path = tmp_path / "a" / "b" / "c" / "app.pem"

    async def main() -> None:
        with Consumer(path) as consumer:
            for parent in path.parents[2::-1]:
                await consumer.calm()
                parent.mkdir()
                assert (await consumer.hint()).kind == "armed"
            await consumer.notices(lambda: written(path))

    anyio.run(main)


@pytest.mark.parametrize("call", ["mounted_over", "changed_below_an_overlay"])
def test_mounts_are_found_by_the_scan(call: str, tmp_path: Path) -> None:
    """A file system mounted over a directory, and a change in the lower part of another, are found in time."""
    unshared(["mount"], call, tmp_path)
