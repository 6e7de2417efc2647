"""What cannot be watched is done without: it is said once, the rest stays watched, and comparing goes on."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from agent.watching import listener
from tests.watch_helpers import Consumer, child, fresh, skip, unshared

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize("call", ["out_of_watches", "out_of_instances"])
def test_limits_of_the_system_leave_the_scan(call: str, tmp_path: Path) -> None:
    """At a limit of inotify nothing is watched, which is said once; tries follow ever more rarely, until one works."""
    unshared([], call, tmp_path)


@contextmanager
def open_directory() -> Iterator[Path]:
    """Make a directory that other users can reach."""
    directory = Path(tempfile.mkdtemp(prefix="watch-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def test_a_directory_closed_to_us_is_left_to_the_scan() -> None:
    """One that may not be read is named once; another stays watched, and this one is as soon as it is opened."""
    if os.geteuid():
        skip("only root can become another user")
    with open_directory() as directory:
        child("closed_directory", directory)


def test_a_name_that_is_not_utf_8_costs_its_own_directory_only(tmp_path: Path) -> None:
    """Such a file ends watchfiles' listening; all other directories are watched again, that one is after a while."""
    bad, good = tmp_path / "bad" / "file", tmp_path / "good" / "file"
    for path in (bad, good):
        path.parent.mkdir()
        path.write_text(fresh())
    odd = Path(os.fsdecode(os.fsencode(bad.parent) + b"/\xff\xfe"))

    async def main() -> None:
        with Consumer(bad, good) as consumer:
            await consumer.calm()
            messages = []
            for _ in range(2):
                await anyio.Path(odd).write_text(fresh())
                hints = [await consumer.hint(), *await consumer.calm()]
                messages += [hint.message for hint in hints if hint.message]
                assert set(await consumer.notices(lambda: good.write_text(fresh()))) <= {"event", "armed"}
            assert len(messages) == 1
            assert messages[0].startswith(f"{bad.parent} cannot be watched")
            await anyio.Path(odd).unlink()
            await consumer.notices(lambda: bad.write_text(fresh()), timedelta(seconds=1))
            while (await consumer.hint(timedelta(seconds=10))).kind != "armed":
                pass
            assert set(await consumer.notices(lambda: bad.write_text(fresh()))) <= {"event", "armed"}

    anyio.run(main)


def test_a_directory_whose_name_is_not_utf_8_is_left_to_the_scan(tmp_path: Path) -> None:
    """A link may lead into one; the message can be printed."""
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    odd.mkdir()
    (tmp_path / "link").symlink_to(odd)

    async def main() -> None:
        with Consumer(tmp_path / "link" / "file") as consumer:
            hint = await consumer.hint()
            assert hint.kind == "degraded"
            assert hint.message.encode()
            kinds = await consumer.notices(lambda: (odd / "file").write_text(fresh()), timedelta(seconds=1))
            assert set(kinds) <= {"scan", "armed"}

    anyio.run(main)


def test_the_directory_that_an_error_is_about_is_found() -> None:
    """Watchfiles quotes a path; of several that fit, the longest is meant."""
    directories = ["/", "/srv", "/srv/app", "/srv/apparatus"]
    assert listener.named('Unable to decode path "/srv/app/\\xFF" to string', directories) == ["/srv/app"]
    assert listener.named('Permission denied (os error 13) about ["/srv/apparatus"]', directories) == ["/srv/apparatus"]
    assert listener.named("nothing quoted", directories) == []


def test_a_directory_that_vanishes_meanwhile_is_left_out(tmp_path: Path) -> None:
    """Between looking and watching anything can go; the others are watched all the same."""
    (tmp_path / "there").mkdir()
    watched, refused = listener.watch([str(tmp_path / "gone"), str(tmp_path / "there")])
    assert refused == {str(tmp_path / "gone"): "No such file or directory"}
    assert watched
    watched.close()
