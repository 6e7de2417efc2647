"""The files that ``include`` names: found, read, parsed.

Pure: patterns are expanded and files are read through the arguments. A pattern may match nothing; a file that is
named without wildcards has to be there.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.claims import normal
from agent.config.source import Source, parse, read_problem
from agent.config.values import is_wild, shown, unquote_pattern
from agent.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_HINT = "a pattern with * may match nothing; a file that is named has to be there"


def load_included(
    main: Source,
    patterns: Sequence[str],
    read_bytes: Callable[[Path], bytes],
    expand: Callable[[Path, str], list[Path]],
) -> Iterator[Source | Problem]:
    """Yield the included files in their order, each once, and what is wrong with one in its place.

    Args:
        main: the file that includes them; it is never one of them, even if a pattern matches it.
        patterns: absolute.
        read_bytes: returns the content of a file, or raises OSError.
        expand: returns the files that match a pattern.
    """
    seen = {normal(main.path)}
    for number, pattern in enumerate(patterns):
        try:
            paths = _matches(pattern, expand)
        except (ValueError, NotImplementedError, OSError, RecursionError) as error:
            yield _problem(main, number, *_unexpandable(error))
            continue
        for path in paths:
            if normal(path) not in seen:
                seen.add(normal(path))
                yield from _load(main, number, path, read_bytes)


def _load(main: Source, number: int, path: Path, read_bytes: Callable[[Path], bytes]) -> Iterator[Source | Problem]:
    try:
        yield parse(path, read_bytes(path))
    except ConfigurationError as error:
        yield from error.problems
    except OSError as error:
        reason, hint = read_problem(error)
        yield _problem(main, number, f"{shown(path)}: {reason}", _HINT if error.errno == errno.ENOENT else hint)


def _unexpandable(error: Exception) -> tuple[str, str]:
    """Return why a pattern cannot be expanded, and what to do about it."""
    if isinstance(error, PermissionError):
        place = shown(error.filename)
        hint = f"let the agent's user list it: chgrp token-agent {place} && chmod 0750 {place}"
        return f"cannot be expanded: no permission to search {place}", hint
    return f"cannot be expanded: {getattr(error, 'strerror', None) or 'it is not a pattern of file names'}", ""


def _problem(main: Source, number: int, message: str, hint: str = "") -> Problem:
    line = main.lines.line(("agent", "include", number))
    return Problem(main.path, line, "agent.include", message, hint)


def _matches(pattern: str, expand: Callable[[Path, str], list[Path]]) -> list[Path]:
    if not is_wild(pattern):
        return [Path(unquote_pattern(pattern))]
    return [path for path in expand(Path("/"), pattern) if not _is_hidden(path, pattern)]


def _is_hidden(path: Path, pattern: str) -> bool:
    """Tell whether a wildcard took something hidden, an editor's file or Kubernetes' ..data; shells would not."""
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if is_wild(part))
    asked = any(part.startswith(".") for part in parts[fixed:])
    return not asked and any(part.startswith(".") for part in path.parts[fixed:])
