"""What a fuzz target is, and what must hold for everything that the program says."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from agent.errors import AgentError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CANARY = "wXz8Q~c4n4ry-Entra.Style_0987654321abcd"
"""A secret; inputs that hold secrets hold this one."""
LONGEST_MESSAGE = 20_000
"""Characters; a message longer than this is a copy of the input."""


@dataclass(frozen=True)
class Target:
    """A place where hostile bytes come in.

    Attributes:
        run: takes any bytes, and raises if the property does not hold.
        seeds: inputs to begin with, good ones among them.
        words: what such inputs are made of, for engines that know nothing of the form.
        largest: bytes that an input has at most.
    """

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    largest: int = 4096


def clean(text: str, *, secret: str = CANARY) -> None:
    """Fail for a text that steers a terminal, copies its input, or tells the secret; lines may be several."""
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)[:300]
    assert secret not in text
    assert len(text) <= LONGEST_MESSAGE, len(text)


def clean_error(error: AgentError) -> None:
    """Fail for an error that should not be shown."""
    shown = [str(problem) for problem in error.problems] if isinstance(error, ConfigurationError) else [error.message]
    for text in (*shown, error.hint):
        clean(text)
        assert "\n" not in text
    assert all(shown)


@contextlib.contextmanager
def command() -> Iterator[None]:
    """Do what a command does, as `agent.cli` would call it: it prints what is clean, and ends as commands end."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield
    except AgentError as error:
        clean_error(error)
    except click.exceptions.Exit as error:
        assert error.exit_code in (0, 2, 69, 75, 77, 78)  # noqa: PT017 - it may also end well
    except click.ClickException as error:
        clean(error.format_message())
    clean(printed.getvalue())
