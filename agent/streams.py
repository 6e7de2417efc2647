"""The process's own standard streams: there even where the caller has closed them, and honest where they are full.

A closed stream is a trap: the next file that is opened gets its number, and what is printed lands in it. So each has a
stand-in before anything else is opened. Results that cannot be written are an error that is named, not a traceback;
messages that cannot be are lost, and change nothing.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from agent import messages
from agent.errors import AgentError

if TYPE_CHECKING:
    from typing import TextIO

    from typing_extensions import Buffer


class ResultError(AgentError):
    """A result could not be written to standard output."""


class _Results(io.FileIO):
    """Standard output that says what cannot be written; that a reader has left (`| head`) is no failure."""

    def write(self, data: Buffer) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ResultError(f"standard output: {error.strerror}") from None


class _Messages(io.FileIO):
    """Standard error that never fails: a message has no outcome of its own."""

    def write(self, data: Buffer) -> int:
        messages.STANDARD_ERROR.write(bytes(data))
        return memoryview(data).nbytes


def prepare() -> None:
    """Open what is closed, and let the outputs deal with their failures.

    A closed output stays one that cannot be written to; a closed input is empty, and messages go nowhere.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # it takes the lowest number that is free: this one
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it lives as long as the process
    sys.stdout = _text(_Results(1, "w", closefd=False), sys.stdout, line_buffering=os.isatty(1))
    sys.stderr = _text(_Messages(2, "w", closefd=False), sys.stderr, line_buffering=True)


def _text(raw: io.FileIO, before: TextIO | None, *, line_buffering: bool) -> TextIO:
    """Return a stream in the encoding of the one before, which is None where it was closed."""
    encoding, errors = (before.encoding, before.errors) if before else ("utf-8", "backslashreplace")
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=line_buffering)


def let_go(stream: TextIO | None) -> ResultError | None:
    """Write out what is left; what cannot be is dropped and returned as an error, or Python would complain of it.

    That a reader has left is none.
    """
    if stream is None:
        return None
    try:
        stream.flush()
    except (OSError, ResultError) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error if isinstance(error, ResultError) else None
    return None
