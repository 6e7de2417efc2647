"""Faults of the machine that are real: file systems that are full, read-only or frozen, agents without privileges."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import sink_helpers
from tests.process_helpers import PATIENCE, Scene, scene, wait_for_status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.process_helpers import Running

USER = 54321
"""Of agents without privileges; need not be in any database."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount and to be another user")
needs_bindfs = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("bindfs") is None or not Path("/dev/fuse").exists(),
    reason="needs root, bindfs and /dev/fuse, for a file system that stops answering",
)

_UNPRIVILEGED = f"""
import ctypes, encodings.idna, encodings.utf_8_sig, importlib, os, pkgutil, sys
import agent, msal, urllib3
for module in pkgutil.walk_packages(agent.__path__, "agent."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
os.setgroups([])
os.setgid({USER})
os.setuid({USER})
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self belongs to us again, as after execve(2)
from agent.cli import run
sys.exit(run(sys.argv[1:]))
"""
UNPRIVILEGED = (sys.executable, "-c", _UNPRIVILEGED)
"""The command as another user; what it may need is imported before, for that user may not reach the interpreter."""


# ---- file systems


@contextlib.contextmanager
def tmpfs(path: Path, options: str) -> Iterator[Path]:
    """Mount a small file system, in memory."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def remount(path: Path, options: str) -> None:
    """Mount a file system differently, such as read-only."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)


def fill(path: Path) -> Path:
    """Use up all space of a file system, to the last byte, and return what has to be removed to mend it."""
    filler = path / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return filler


def use_up_inodes(path: Path) -> list[Path]:
    """Make files until no more can be made, and return them."""
    made: list[Path] = []
    try:
        while True:
            made.append(path / f"filler-{len(made)}")
            made[-1].touch()
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017 - what stops it
    return made[:-1]


def _watches(pid: int) -> str:
    """Return what the kernel says of the inotify instances of a process (proc_pid_fdinfo(5))."""
    found = ""
    for path in sorted(Path(f"/proc/{pid}/fdinfo").iterdir()):
        with contextlib.suppress(OSError):  # closed meanwhile
            found += "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("inotify"))
    return found


QUIET = 1.5
"""Seconds without a change of what an agent watches: who puts a watch on a disk that freezes just then hangs whole."""


class Frozen:
    """A file system whose server can be stopped: then whoever touches it waits, as on NFS."""

    def __init__(self, source: Path, path: Path) -> None:
        self.path = path
        options = "attr_timeout=0,entry_timeout=0,negative_timeout=0"
        with Path("/proc/self/mountinfo").open("rb") as table:
            changed = select.poll()
            changed.register(table, select.POLLPRI | select.POLLERR)
            self._server = subprocess.Popen(["bindfs", "-f", "-o", options, str(source), str(path)])
            deadline = time.monotonic() + 3 * PATIENCE
            while not os.path.ismount(path) and time.monotonic() < deadline:
                changed.poll(500)
        if not os.path.ismount(path):
            self.end()
            raise AssertionError("bindfs does not mount")

    def freeze_when_watched(self, agent: Running, *directories: Path) -> None:
        """Let it answer nobody, once an agent watches directories on it.

        Not while it sets that up: watchfiles asks the kernel for it under the lock of the interpreter, and a disk that
        stops in just these milliseconds stops the whole process, until systemd's watchdog begins it anew.
        """
        inodes = {f"ino:{directory.stat().st_ino:x} " for directory in directories}
        deadline = time.monotonic() + PATIENCE
        while missing := {inode for inode in inodes if inode not in _watches(agent.pid)}:
            assert time.monotonic() < deadline, f"not watched: {missing}"
        seen, since = "", time.monotonic()
        while time.monotonic() < min(since + QUIET, deadline):  # no watch is being put anywhere
            if (now := _watches(agent.pid)) != seen:
                seen, since = now, time.monotonic()
            select.select([], [], [], 0.05)
        self.freeze()

    def freeze(self) -> None:
        """Let it answer nobody."""
        self._server.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it answer again."""
        self._server.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=False)
        self._server.kill()
        self._server.wait()


@contextlib.contextmanager
def freezable(path: Path) -> Iterator[Frozen]:
    """Mount a file system that can be frozen."""
    source = path.with_name(f"{path.name}.served")
    source.mkdir()
    path.mkdir()
    made = Frozen(source, path)
    try:
        yield made
    finally:
        made.end()


# ---- agents


@contextlib.contextmanager
def open_scene(**settings: Any) -> Iterator[Scene]:
    """Run a provider, and have room that agents of every user reach; ``run`` and ``state`` are theirs."""
    with sink_helpers.ground() as directory, scene(directory, **settings) as made:
        for path in (directory / "graph.pem", made.provider.ca_file):
            os.chown(path, USER, USER)
        made.provider.ca_file.parent.chmod(0o755)
        for name in ("run", "state"):
            sink_helpers.directory(directory / name, uid=USER, gid=USER)
        yield made


LIFETIME = timedelta(seconds=6)
"""Of tokens: each half of it a new one is written, or cannot be."""


def assert_last_good(agent: Running, path: Path) -> None:
    """Make sure that a token file is whole: what the agent says it wrote there last, and nothing beside it."""
    written = [event for event in agent.events() if event["event"] == "token.written" and event["path"] == str(path)]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest.startswith(written[-1]["token_sha256"])
    assert not list(path.parent.glob(".*.tmp"))


def said(agent: Running, name: str, text: str) -> list[dict[str, Any]]:
    """Return the events of a name that have a text in their message; each has to have a hint."""
    found = [event for event in agent.events() if event["event"] == name and text in event["message"]]
    assert all(event["hint"] for event in found)
    return found


def fresh(config: Path) -> dict[str, Any]:
    """Wait until the agent runs, all its profiles are fresh, and nothing is wrong."""

    def well(shown: dict[str, Any]) -> bool:
        profiles = shown["profiles"]
        return shown["agent"]["running"] and all(p["state"] == "fresh" and not p["last_error"] for p in profiles)

    return wait_for_status(config, well)


@contextlib.contextmanager
def limited(pid: int, limit: str, value: int) -> Iterator[None]:
    """Give a running agent without privileges another limit (prlimit(1)) for a while."""

    def prlimit(*arguments: str) -> str:
        command = ["prlimit", "--pid", str(pid), *arguments]
        done = subprocess.run(
            command, check=True, user=USER, group=USER, extra_groups=[], stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip()

    before = prlimit(f"--{limit}", "--output=SOFT", "--noheadings", "--raw")
    prlimit(f"--{limit}={value}:")
    try:
        yield
    finally:
        prlimit(f"--{limit}={before}:")


@contextlib.contextmanager
def without_inotify() -> Iterator[None]:
    """Use up all inotify instances of the user without privileges."""
    process = sink_helpers.start(_use_up_inotify, who=sink_helpers.Who(USER, gid=USER))
    try:
        sink_helpers.wait_until_ready(process)
        yield
    finally:
        process.kill()
        process.communicate()


def _use_up_inotify() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    libc = ctypes.CDLL(None, use_errno=True)
    while libc.inotify_init() >= 0:
        pass
    assert len(os.listdir("/proc/self/fd")) < most, "the limit of open files came first"  # noqa: PTH208 - cheaper
    sink_helpers.ready()
    signal.pause()
