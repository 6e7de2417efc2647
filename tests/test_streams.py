"""Standard streams as callers leave them: closed, full, on a pipe nobody reads; outcomes stay what they are."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.process_helpers import COMMAND, PATIENCE, environment, scene

if TYPE_CHECKING:
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
