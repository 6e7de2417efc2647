"""A quick and tolerant look at a configuration: only where the agent keeps its files.

`status` and the like must answer even if the configuration is broken or may not be read: then by what its lines say, or
by the defaults. Nothing heavy is imported, and nothing is ever refused.
"""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.config.values import default_directories, resolve_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


_TABLE = re.compile(r"\s*\[\s*agent\s*\]\s*(#.*)?")
_SETTING = re.compile(r"\s*(runtime_dir|state_dir)\s*=")


@dataclass(frozen=True, slots=True)
class Peek:
    """The agent's directories; ``problem`` is why ``runtime_dir`` is the default though another may be meant."""

    runtime_dir: Path
    state_dir: Path
    problem: str = ""


def peek_settings(config_path: Path, environ: Mapping[str, str], read_bytes: Callable[[Path], bytes]) -> Peek:
    """Return the directories that a configuration names, or their defaults.

    Args:
        config_path: of the main file, absolute.
        environ: for systemd's directories.
        read_bytes: returns the content of a file, or raises OSError.
    """
    runtime_dir, state_dir = default_directories(environ)
    table, problem = _agent_table(config_path, read_bytes)
    named = _directory(table.get("runtime_dir"), config_path.parent, environ)
    return Peek(
        named or runtime_dir,
        _directory(table.get("state_dir"), config_path.parent, environ) or state_dir,
        "" if named else problem,
    )


def _agent_table(path: Path, read_bytes: Callable[[Path], bytes]) -> tuple[dict[str, Any], str]:
    """Return [agent], as much of it as there is, and why there may be more."""
    try:
        text = read_bytes(path).decode("utf-8-sig", errors="replace")
    except OSError as error:
        return {}, f"{path} cannot be read ({error.strerror})"
    if not text.strip():
        return {}, f"{path} is empty"
    try:
        table = tomllib.loads(text).get("agent")
    except (ValueError, RecursionError):
        return _scanned(text), f"{path} is not valid TOML"
    return (table if isinstance(table, dict) else {}), ""


def _scanned(text: str) -> dict[str, Any]:
    """Return the directories that stand in the lines of [agent], each taken by itself."""
    found: dict[str, Any] = {}
    inside = False
    for line in text.splitlines():
        if line.lstrip().startswith("["):
            inside = _TABLE.fullmatch(line) is not None
        elif inside and _SETTING.match(line):
            with suppress(ValueError, RecursionError):
                found |= tomllib.loads(line)
    return found


def _directory(value: object, base: Path, environ: Mapping[str, str]) -> Path | None:
    try:
        return resolve_path(value, environ, base) if isinstance(value, str) else None
    except ValueError:
        return None
