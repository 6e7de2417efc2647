"""Our own command on a terminal: a pseudo-terminal of 80 columns, and what stands on it afterwards."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import termios

from tests.process_helpers import COMMAND, PATIENCE, environment


def on_terminal(*arguments: object, columns: int = 80) -> list[str]:
    """Run the command with its standard output on a terminal of so many columns; return the lines it wrote."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)], env=environment(TERM="xterm"), stdout=its, stdin=subprocess.DEVNULL
    ) as process:
        os.close(its)
        output = b"".join(iter(lambda: read(ours), b""))
        process.wait(PATIENCE)
    os.close(ours)
    return output.decode().splitlines()


def read(terminal: int) -> bytes:
    """Return what was written to a terminal, nothing at the end."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux says EIO where nobody holds the other end any more
        return b""
