"""Standard streams as callers leave them: closed, full, on a pipe nobody reads; outcomes stay what they are."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import termios
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from agent import messages
from tests.process_helpers import COMMAND, PATIENCE, environment, scene, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager as ContextManager
    from pathlib import Path


def shell(redirection: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command with its streams redirected as a shell does it."""
    return subprocess.run(
        ["/bin/bash", "-c", f'"$@" {redirection}', "-", *COMMAND, *map(str, arguments)],
        env=environment(),
        text=True,
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_once_with_a_stream_closed_or_full(tmp_path: Path, closed: str) -> None:
    """`once` writes the token whole and exits 0, whatever became of the streams it reports on."""
    with scene(tmp_path) as stage:
        done = shell(closed, "once", "--config", stage.config())
        assert done.returncode == 0
        assert stage.token().count(".") == 2
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "call", [["--version"], ["--help"], ["run", "--version"], ["explain", "AADSTS700027"]], ids=str
)
@pytest.mark.parametrize(
    ("redirection", "reason"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_a_result_that_cannot_be_written(call: list[str], redirection: str, reason: str) -> None:
    """A result that is lost is an error in one line, and exit code 1."""
    done = shell(redirection, *call)
    assert (done.returncode, done.stderr) == (1, f"token-agent: standard output: {reason}\n")


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_messages_that_cannot_be_written(tmp_path: Path, redirection: str) -> None:
    """Messages that are lost change no exit code and no result."""
    with scene(tmp_path) as stage:
        config = stage.config(stage.profile(certificate="/nowhere/graph.pem"))
        whole, lost = shell("", "check", "--config", config), shell(redirection, "check", "--config", config)
        assert (lost.returncode, lost.stdout, lost.stderr) == (78, whole.stdout, "")


def test_closed_input() -> None:
    """A closed standard input is an empty one."""
    done = shell("<&-", "show", "-")
    assert (done.returncode, done.stdout) == (78, "")
    assert "an empty file?" in done.stderr


@contextlib.contextmanager
def stuck_pipe() -> Iterator[int]:
    """A pipe that is full, and that nobody reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(1 << 12))
    os.set_blocking(writing, True)  # as those who inherit it know it
    yield writing
    os.close(writing)
    os.close(reading)


@contextlib.contextmanager
def stopped_terminal() -> Iterator[int]:
    """A terminal on which somebody has pressed Ctrl-S."""
    master, terminal = pty.openpty()
    termios.tcflow(terminal, termios.TCOOFF)
    yield terminal
    os.close(terminal)
    os.close(master)


@pytest.mark.parametrize("stuck", [stuck_pipe, stopped_terminal])
def test_a_log_that_nobody_takes(tmp_path: Path, stuck: Callable[[], ContextManager[int]]) -> None:
    """A service renews its tokens, and ends when it is told to, though nobody takes what it says."""
    with (
        scene(tmp_path, token_lifetime=timedelta(seconds=4)) as stage,
        stuck() as descriptor,
        start("run", "--config", stage.config(), stderr=descriptor) as agent,
    ):
        stage.wait_for_requests(3)
        assert agent.stop() == 0


def test_a_log_that_somebody_takes_later(tmp_path: Path) -> None:
    """What is written after the reader went on begins with a line of its own."""
    reading, writing = os.pipe()
    lines = messages.Lines(writing)
    lines.patience = 0.0
    long = b"x" * 10_000 + b"\n"
    for _ in range(20):
        lines.write(long)
    os.set_blocking(reading, False)
    taken = os.read(reading, 1 << 20)
    lines.write(b"later\n")
    taken += os.read(reading, 1 << 20)
    assert taken.endswith(b"\nlater\n")
    assert {len(line) for line in taken.splitlines()[:-2]} == {10_000}
    os.close(reading)
    lines.write(b"to nobody\n")
    os.close(writing)
