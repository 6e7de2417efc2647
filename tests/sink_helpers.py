"""Processes of other users, with other umasks, capabilities, mounts and faults: what writing has to stand up to.

A child imports everything first, then becomes who it is to be, and only then calls its function. Functions that run
in children stand here too, so that a child need not import a test module.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent import lock
from agent.errors import AgentError, BusyError, OutputError
from agent.output import access, sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parent.parent
NOBODY, OTHER, GROUP, OTHER_GROUP = 65534, 54321, 54322, 54323
"""Ids that need not be in any database."""
OLD, NEW = b"the-old-token", b"the-new-token-which-is-longer"
PATIENCE = 60.0

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be several users or to mount")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, to inject faults")


@dataclass(frozen=True)
class Who:
    """Who a child is to be and what surrounds it.

    ``capabilities`` are numbers (linux/capability.h); ``mounts`` and ``pids`` give it namespaces of its own; ``strace``
    are expressions for its ``-e``.
    """

    uid: int | None = None
    gid: int = NOBODY
    groups: Sequence[int] = ()
    umask: int | None = None
    capabilities: Sequence[int] = ()
    mounts: bool = False
    pids: bool = False
    strace: Sequence[str] = field(default=())


MYSELF = Who()
CAP_CHOWN, CAP_SETUID = 0, 7


def start(function: Callable[..., Any], *arguments: Any, who: Who = MYSELF) -> subprocess.Popen[bytes]:
    """Start a child that calls a function of an importable module."""
    prefix: list[str] = []
    if who.mounts:
        prefix += ["unshare", "--mount", "--propagation", "private"]
    if who.pids:
        prefix += ["unshare", "--pid", "--fork"]
    if who.strace:
        prefix += ["strace", "-f", "-qq", "-o", os.devnull, *(part for one in who.strace for part in ("-e", one))]
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", "from tests import sink_helpers; sink_helpers.serve()"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            "PYTHONDONTWRITEBYTECODE": "1",  # a `write` that is injected into is one of ours
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # so that `wait_until_ready` takes one line and no more
    )
    assert process.stdin
    with process.stdin:
        process.stdin.write(pickle.dumps((who, function, arguments)))
    process.stdin = None
    return process


def wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    """Wait for a child's `ready`."""
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"


def ready() -> None:
    """Tell the parent, in a child, that it may go on."""
    os.write(1, b"ready\n")


def result(process: subprocess.Popen[bytes]) -> Any:
    """Return what a child's function returned, or raise the operator's error that it raised."""
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors.decode()
    kind, *values = pickle.loads(output)  # noqa: S301 - it comes from our own child
    if kind == "output":
        path, message, hint = values
        raise OutputError(path, message.removeprefix(f"{path}: "), hint=hint)
    if kind == "busy":
        raise BusyError(values[0], hint=values[1])
    return values[0]


def call(function: Callable[..., Any], *arguments: Any, who: Who = MYSELF) -> Any:
    """Call a function in a child."""
    return result(start(function, *arguments, who=who))


def die(function: Callable[..., Any], *arguments: Any, who: Who) -> int:
    """Call a function in a child that does not live to tell, and return the signal that ended it."""
    process = start(function, *arguments, who=who)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode < 0, errors.decode()
    return -process.returncode


def serve() -> None:
    """Be the child."""
    who, function, arguments = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - it comes from our own parent
    _become(who)
    outcome: tuple[Any, ...]
    try:
        outcome = ("value", function(*arguments))
    except OutputError as error:
        outcome = ("output", error.path, error.message, error.hint)
    except AgentError as error:
        outcome = ("busy", error.message, error.hint)
    sys.stdout.buffer.write(pickle.dumps(outcome))


def _become(who: Who) -> None:
    if who.umask is not None:
        os.umask(who.umask)
    if who.uid is None:
        return
    os.setgroups(list(who.groups))
    os.setgid(who.gid)
    if not who.capabilities:
        os.setuid(who.uid)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    keep_capabilities, version_3 = 8, 0x20080522
    assert libc.prctl(keep_capabilities, 1, 0, 0, 0) == 0
    os.setuid(who.uid)
    wanted = sum(1 << number for number in who.capabilities)
    header, data = struct.pack("Ii", version_3, 0), struct.pack("IIIIII", wanted, wanted, 0, 0, 0, 0)
    assert libc.capset(header, data) == 0, os.strerror(ctypes.get_errno())


@contextlib.contextmanager
def ground() -> Iterator[Path]:
    """Make a directory that every user can reach, below a sticky one as usual."""
    with tempfile.TemporaryDirectory(prefix="token-agent-test-", ignore_cleanup_errors=True) as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        yield path


def directory(path: Path, mode: int = 0o755, uid: int = -1, gid: int = -1) -> Path:
    """Make a directory with this mode and these owners."""
    path.mkdir()
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


def mode_of(path: Path) -> int:
    """Return the permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def stamp(path: Path) -> tuple[int, int, int, int]:
    """Return what changes with whatever is done to a file or directory, to the nanosecond."""
    found = path.stat()
    return (found.st_dev, found.st_ino, found.st_ctime_ns, found.st_mtime_ns)


def names(path: Path) -> set[str]:
    """Return what is in a directory."""
    return {entry.name for entry in path.iterdir()}


def refusal(function: Callable[..., Any], *arguments: Any, who: Who | None = None) -> OutputError:
    """Return the error by which a call is refused; in a child, if it is said who that is."""
    with pytest.raises(OutputError) as caught:
        _ = call(function, *arguments, who=who) if who else function(*arguments)
    assert caught.value.hint, "an error says what to do"
    return caught.value


# ---- what children do


def read(path: Path) -> bytes | None:
    """Return the content, None if this user may not read it."""
    try:
        return path.read_bytes()
    except PermissionError:
        return None


def hold_lock_until_killed(path: Path) -> None:
    """Hold the lock of a directory until killed."""
    with lock.hold(path):
        ready()
        signal.pause()


def swap_until_killed(app: Path, target: Path) -> None:
    """Exchange the directory ``run`` for a link to the target and back, again and again."""
    run, aside, link = app / "run", app / "aside", app / "link"
    link.symlink_to(target)
    ready()
    while True:
        run.rename(aside)
        link.rename(run)
        run.rename(link)
        aside.rename(run)


def watch_tokens(path: Path, last: int) -> dict[str, int]:
    """Read a token file again and again until it holds the last one, and count what was seen."""
    seen = {"whole": 0, "torn": 0, "empty": 0, "missing": 0}
    number = 0
    ready()
    while number < last:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            seen["missing"] += 1
            continue
        number = numbered(content)
        seen["empty" if not content else "torn" if number < 0 else "whole"] += 1
    return seen


def numbered_token(number: int) -> bytes:
    """Return a content whose wholeness can be told; its length changes with the number."""
    return f"{number}:{'x' * (1000 + number % 7 * 1000)}:{number}".encode()


def numbered(content: bytes) -> int:
    """Return the number of a whole content, -1 for any other."""
    number = content.split(b":")[0]
    whole = number.isdigit() and numbered_token(int(number)) == content
    return int(number) if whole else -1


def write_twice(path: Path, content: bytes, wanted: access.Access) -> tuple[bool, bool]:
    """Write the same content twice and return whether each changed the file."""
    return sink.write(path, content, wanted).changed, sink.write(path, content, wanted).changed


def mount(source: str, kind: str, target: Path, options: str) -> None:
    """Mount in the child's own namespace."""
    subprocess.run(["mount", "-t", kind, "-o", options, source, str(target)], check=True)
