"""A quick and tolerant look at a configuration: only where the agent keeps its files.

`status` and the like must answer even if the configuration is broken or may not be read: then by the defaults.
Nothing heavy is imported, and nothing is ever refused.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.config.values import default_directories, resolve_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Peek:
    """The agent's directories."""

    runtime_dir: Path
    state_dir: Path


def peek_settings(config_path: Path, environ: Mapping[str, str], read_bytes: Callable[[Path], bytes]) -> Peek:
    """Return the directories that a configuration names, or their defaults.

    Args:
        config_path: of the main file, absolute.
        environ: for systemd's directories.
        read_bytes: returns the content of a file, or raises OSError.
    """
    runtime_dir, state_dir = default_directories(environ)
    table = _agent_table(config_path, read_bytes)
    return Peek(
        _directory(table.get("runtime_dir"), config_path.parent, environ) or runtime_dir,
        _directory(table.get("state_dir"), config_path.parent, environ) or state_dir,
    )


def _agent_table(path: Path, read_bytes: Callable[[Path], bytes]) -> dict[str, Any]:
    """Return [agent], empty where the file cannot be read or is not what it should be."""
    try:
        table = tomllib.loads(read_bytes(path).decode("utf-8-sig")).get("agent")
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def _directory(value: object, base: Path, environ: Mapping[str, str]) -> Path | None:
    try:
        return resolve_path(value, environ, base) if isinstance(value, str) else None
    except ValueError:
        return None
