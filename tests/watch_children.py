"""What tests of the watching do in processes of their own: mounts, limits, another user. They fail by raising."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from agent.watching.watcher import Hint, Watcher
from agent.workers import Workers
from tests import virtual
from tests.test_agent_replacing import Certificate, Configuration, play_all
from tests.test_watch_replacing import play, written
from tests.watch_helpers import HOUR, Consumer, fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


# ---- mounts, in a mount namespace


def mounts(root: Path) -> Iterator[Path]:
    """Mount a file system with another content over the directory of a file, and take it away again, twice."""
    path = written(root / "certs" / "app.pem")
    yield path
    for _ in range(2):
        subprocess.run(["mount", "-t", "tmpfs", "none", path.parent], check=True)
        yield written(path)
        subprocess.run(["umount", path.parent], check=True)
        yield path


def overlay(root: Path) -> Iterator[Path]:
    """Change a file in the lower directory of an overlay."""
    lower, upper, work, merged = (root / name for name in ("lower", "upper", "work", "merged"))
    for directory in (upper, work, merged):
        directory.mkdir()
    written(lower / "app.pem")
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    yield merged / "app.pem"
    for _ in range(2):
        written(lower / "app.pem")
        yield merged / "app.pem"


def mounted_over(root: str) -> None:
    """Each mount is noticed by the comparison, or because another directory is to be watched."""
    kinds = anyio.run(play, mounts(Path(root)), timedelta(seconds=1))
    assert kinds <= {"scan", "armed"}, kinds


def changed_below_an_overlay(root: str) -> None:
    """Each change below is noticed by the comparison."""
    kinds = anyio.run(play, overlay(Path(root)), timedelta(seconds=1))
    assert kinds == {"scan"}, kinds


def agents_and_mounts(root: str) -> None:
    """The whole agent follows, with its certificate and with its configuration."""
    parts = [(kind, deed, "1s") for kind in (Certificate, Configuration) for deed in (mounts, overlay)]
    directories = iter([Path(root, str(number)) for number in range(len(parts))])

    def directory(_: object) -> Path:
        (path := next(directories)).mkdir()
        return path

    assert play_all(parts, directory) == dict.fromkeys(parts)


# ---- limits, in a user namespace


@contextmanager
def limited(name: str, number: int) -> Iterator[None]:
    """Lower a limit of this user namespace, and put it back."""
    setting = Path("/proc/sys/user") / name
    before = setting.read_text()
    setting.write_text(f"{number}\n")
    try:
        yield
    finally:
        setting.write_text(before)


def out_of_watches(root: str) -> None:
    """Ten directories, five watches."""
    exhausted(root, "max_inotify_watches", "the limit fs.inotify.max_user_watches is reached")


def out_of_instances(root: str) -> None:
    """No instance of inotify at all."""
    exhausted(root, "max_inotify_instances", "the limit fs.inotify.max_user_instances, or that of open files")


def exhausted(root: str, limit: str, message: str) -> None:
    """Watch under a limit that is too low, in virtual time; lift it, and hear of an event."""
    paths = [written(Path(root) / str(number) / "app.pem") for number in range(10)]

    async def main(loop: virtual.VirtualLoop) -> None:
        clock, workers = virtual.VirtualClock(loop), Workers(1)
        loop.workers.append(workers)
        with Watcher(clock, workers.disk) as hints:
            with limited(limit, 0 if "instances" in limit else 5):
                first = await hints.hint(lambda: paths, HOUR)
                assert first.kind == "degraded", first
                assert message in first.message, first
                assert "periodic comparison" in first.message
                rest = [await hints.hint(lambda: paths, timedelta(minutes=1)) for _ in range(40)]
                assert {hint.kind for hint in rest} == {"scan", "armed"}, rest
                tries = [number for number, hint in enumerate(rest) if hint.kind == "armed"]
                assert 8 <= len(tries) <= 16, tries  # 1, 2, 4 … 256 s, then every 5 minutes
            kinds = [(await hints.hint(lambda: paths, timedelta(minutes=1))).kind for _ in range(8)]
            assert kinds.count("armed") == 1, kinds
            written(paths[9])
            while (await hints.hint(lambda: paths, HOUR)).kind != "event":
                pass  # an hour is over at once, and again: the event comes in real time

    virtual.run(main)


# ---- directories closed to the agent's user


def closed_directory(root: str) -> None:
    """A directory may be passed through but not read; its files can be read, but not watched."""
    good, closed = (written(Path(root) / name / "app.pem") for name in ("good", "closed"))

    async def main() -> None:
        for path in (Path(root), good, good.parent, closed, closed.parent):
            os.chown(path, NOBODY, NOBODY)
        closed.parent.chmod(0o311)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with Consumer(good, closed) as consumer:
            first = await consumer.hint()
            assert first == Hint("degraded", first.message), first
            assert f"{closed.parent} cannot be watched" in first.message, first
            assert "Permission denied" in first.message, first
            for _ in range(2):
                assert set(await consumer.notices(lambda: good.write_text(fresh()))) <= {"event", "armed"}
            assert "scan" in await consumer.notices(lambda: closed.write_text(fresh()), timedelta(seconds=1))
            for mode in (0o310, 0o311) * 3:  # each is tried at once, in vain: until the next try it is a minute
                closed.parent.chmod(mode)
                await consumer.calm()
            closed.parent.chmod(0o711 | 0o444)
            assert (await consumer.hint()).kind == "armed"
            for _ in range(2):
                assert set(await consumer.notices(lambda: closed.write_text(fresh()))) <= {"event", "armed"}

    anyio.run(main)


# ---- the end of the interpreter


def never_left(path: str) -> None:
    """A watcher that nobody stops: neither the loop nor the interpreter waits for its thread."""

    async def main() -> None:
        assert (await Consumer(Path(path)).hint()).kind == "armed"

    anyio.run(main)
