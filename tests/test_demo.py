"""The demonstration as people see it: on a terminal, in a pipe, interrupted; and nothing is left behind."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.demo.stage import LIFETIME, PROFILES

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 50
ACTS = ["1. ", "2. ", "3. ", "4. ", "5. "]


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """Where the demonstration makes its directory; afterwards it is empty and nobody works in it."""
    yield tmp_path
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


def processes_in(directory: Path) -> list[str]:
    """Return the processes whose working directory is below a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink().is_relative_to(directory):
                found.append(entry.name)
        except OSError:
            continue
    return found


@contextmanager
def started(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the demonstration with its output in pipes; whatever happens, it has ended afterwards."""
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "demo", "--seconds", "1"],
        env={**environment, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()


def test_it_tells_its_story_in_a_pipe(temporary: Path) -> None:
    """Plain lines, every act, a good end: no reader met a bad token."""
    with started(temporary) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, ""), out
    assert "The acts need about 14 s" in out  # a second was asked for
    assert "\x1b" not in out
    acts = [line[:3] for line in out.splitlines() if re.match(r"\d\. ", line)]
    assert acts == ACTS
    for word in (f"tokens live {LIFETIME} s", "503", "AADSTS90033", "AADSTS700027", "accepted", "kill -9"):
        assert word in out
    assert re.search(r"[\d,]+ reads by your program: 0 torn, missing or expired; \d+ tokens", out)
    table = out[out.index("PROFILE") :].splitlines()
    assert [line.split()[:2] for line in table[1:4]] == [[name, "fresh"] for name in PROFILES]


def test_it_fits_a_terminal_of_eighty_columns(temporary: Path) -> None:
    """On a terminal there is a live table, no line is longer than 80, and NO_COLOR means no colours."""
    output = on_terminal(temporary, NO_COLOR="1")
    assert "\x1b[1A" in output  # the table moved
    assert not re.search(r"\x1b\[[\d;]*3[1-7]m", output)
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", output)
    assert max(len(line) for part in plain.splitlines() for line in part.split("\r")) <= 80
    assert "your program" in plain
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h")  # the cursor is back


def on_terminal(temporary: Path, **further: str) -> str:
    """Run the demonstration on a pseudo-terminal and return all that was written to it."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    environment = {**os.environ, "TMPDIR": str(temporary), "TERM": "xterm-256color", **further}
    command = [sys.executable, "-m", "agent", "demo", "--seconds", "1"]
    process = subprocess.Popen(command, env=environment, stdin=its, stdout=its, stderr=its)
    os.close(its)
    written = b""
    while chunk := _read(ours):
        written += chunk
    os.close(ours)
    assert process.wait(PATIENCE) == 0, written.decode()
    return written.decode()


def _read(terminal: int) -> bytes:
    """Read what there is; Linux answers EIO when the other end is closed."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_can_be_ended_at_any_time(temporary: Path, number: signal.Signals) -> None:
    """A signal in the middle ends it in order, with the exit code that shells expect, and nothing left behind."""
    with started(temporary) as process:
        wait_for_tokens(process)
        assert len(processes_in(temporary)) == 2
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert err == "token-agent: ended early; nothing is left behind\n"


def wait_for_tokens(process: subprocess.Popen[str]) -> None:
    """Read the story until the first token."""
    assert process.stdout is not None
    assert any("new token" in line for line in process.stdout)


def test_a_reader_may_leave_early(temporary: Path) -> None:
    """`| head` ends it like any other command."""
    with started(temporary) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("The acts need")
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == ""


def test_a_failure_is_told(temporary: Path) -> None:
    """When the agent ends by itself, the demonstration says so, with what the agent said, and exits with 1."""
    with started(temporary) as process:
        wait_for_tokens(process)
        for pid in processes_in(temporary):
            if b"config.toml" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert err.startswith("token-agent: the demonstration failed: the agent ended with exit code -9\n")
    assert "token.written" in err
