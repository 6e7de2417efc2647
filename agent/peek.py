"""A quick and tolerant look at a configuration: where the agent keeps its files, and what its profiles are called.

`status` and the like must answer even if the configuration is broken or may not be read: then by what its lines say, or
by the defaults. Nothing heavy is imported, and nothing is ever refused.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.config import includes, source
from agent.config.values import default_directories, is_convoluted, resolve_path, resolve_pattern, shown
from agent.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


_TABLE = re.compile(r"\s*\[\s*agent\s*\]\s*(#.*)?")
_SETTING = re.compile(r"\s*(runtime_dir|state_dir)\s*=")
_WANTED, _ALIKE = "runtime_dir", 0.75
"""How alike a key is to the one that is meant; `state_dir` and the like are less."""


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
    document, problem = _document(config_path, read_bytes)
    table = document["agent"] if isinstance(document.get("agent"), dict) else {}
    named = _directory(table.get("runtime_dir"), config_path.parent, environ)
    return Peek(
        named or runtime_dir,
        _directory(table.get("state_dir"), config_path.parent, environ) or state_dir,
        "" if named else problem or _slip(config_path, document),
    )


def _slip(path: Path, document: dict[str, Any]) -> str:
    """Return what may be meant as the runtime directory and is not: a wrong value, a misspelt or misplaced key."""
    level: list[Any] = [document]
    while level:
        keys = {key for table in level if isinstance(table, dict) for key in table}
        if near := difflib.get_close_matches(_WANTED, keys, 1, _ALIKE):
            return f"{path} has `{shown(near[0])}`, and no runtime_dir that can be used"
        inner = (value for each in level for value in (each.values() if isinstance(each, dict) else each))
        level = [value for value in inner if isinstance(value, dict | list)]
    return ""


def _document(path: Path, read_bytes: Callable[[Path], bytes]) -> tuple[dict[str, Any], str]:
    """Return what a file says, as much of it as there is, and why there may be more."""
    try:
        text = read_bytes(path).decode("utf-8-sig", errors="replace")
    except OSError as error:
        return {}, f"{path} cannot be read ({error.strerror})"
    if not text.strip():
        return {}, f"{path} is empty"
    if is_convoluted(text):
        return {}, f"{path} is not valid TOML"
    try:
        return tomllib.loads(text), ""
    except (ValueError, RecursionError):
        return {"agent": _scanned(text)}, f"{path} is not valid TOML"


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


def peek_names(
    config_path: Path,
    environ: Mapping[str, str],
    read_bytes: Callable[[Path], bytes],
    expand: Callable[[Path, str], list[Path]],
) -> Iterator[str]:
    """Yield the names of the profiles, of a configuration that can be read and parsed; else nothing.

    Args:
        config_path: of the main file, absolute.
        environ: for systemd's directories.
        read_bytes: returns the content of a file, or raises OSError.
        expand: returns the files that match a pattern.
    """
    try:
        main = source.parse(config_path, read_bytes(config_path))
    except (OSError, ConfigurationError):
        return
    agent = main.data.get("agent")
    named = agent.get("include", []) if isinstance(agent, dict) else []
    yield from _names(main)
    for pattern in named if isinstance(named, list) else [named]:
        with suppress(ValueError):
            resolved = resolve_pattern(str(pattern), environ, config_path.parent)
            for included in includes.load_included(main, [resolved], read_bytes, expand):
                yield from _names(included)


def _names(file: object) -> Iterator[str]:
    """Yield the names in one file, if it is one and not what is wrong with it."""
    profiles = file.data.get("profile") if isinstance(file, source.Source) else None
    for profile in profiles if isinstance(profiles, list) else ():
        name = profile.get("name") if isinstance(profile, dict) else None
        if isinstance(name, str):
            yield str(name)
