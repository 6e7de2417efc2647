"""What the commands share: the ``--config`` option, where the configuration is, and how text is shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.config.model import Config

DEFAULT_CONFIG = Path("/etc/token-agent/config.toml")
F = TypeVar("F", bound="Callable[..., Any]")


def examples(*lines: str) -> str:
    """Return an epilog of examples that click prints line by line instead of filling a paragraph."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def config_option(function: F) -> F:
    """Add ``-c/--config`` to a command; it arrives as ``config: Path | None``."""
    return click.option(
        "-c",
        "--config",
        type=click.Path(readable=False, path_type=Path),  # unreadable: not wrong use, and some commands do without it
        metavar="FILE",
        help="Configuration file (default: $TOKEN_AGENT_CONFIG, then /etc/token-agent/config.toml).",
    )(function)


def config_path(config: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the absolute path of the configuration that applies; ``-c`` may also stand before the command.

    Raises:
        ConfigurationError: it is relative to a directory that is gone.
    """
    context = click.get_current_context(silent=True)
    before = context.find_root().obj if context else None
    path = Path(config or before or environ.get("TOKEN_AGENT_CONFIG") or DEFAULT_CONFIG)
    try:
        return path.absolute()
    except OSError as error:
        reason = f"it is relative to the current directory, which cannot be had ({error.strerror})"
        hint = "was that deleted? cd to another one, or name the file by its whole path"
        raise ConfigurationError([Problem(path, None, "", reason, hint)]) from error


def read_config(config: Path | None) -> Config:
    """Load the configuration that applies.

    Raises:
        ConfigurationError: with everything that is wrong.
    """
    from agent import files
    from agent.config.load import load_config

    return load_config(config_path(config, os.environ), os.environ, files.read_bytes, files.expand)


def coloured(text: str, colour: str | None) -> str:
    """Return a text in a colour unless somebody minds (no-color.org); `click.echo` drops it off a terminal."""
    dull = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if dull or colour is None else click.style(text, fg=colour)


def printable(text: str) -> str:
    """Return a text on one line, with what would steer a terminal written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
