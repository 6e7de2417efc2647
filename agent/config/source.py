"""One configuration file: from bytes to what TOML says, with the place of every key.

Pure: the bytes come in as an argument. Whatever the bytes are, the outcome is a `Source` or one clear problem.
"""

from __future__ import annotations

import errno
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.config.locate import Lines
from agent.config.values import Located, is_convoluted
from agent.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from pathlib import Path

_DEEPEST = 20
"""Levels of tables and lists; a configuration needs seven."""
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_READ_HINTS = {
    errno.ENOENT: "start from config.example.toml, or name another file with -c",
    errno.EACCES: "let the agent's user read it: chgrp token-agent FILE, chmod 0640 FILE; its directories need x",
    errno.EISDIR: 'name a file in it; include = ["conf.d/*.toml"] takes all files of a directory',
    errno.EINVAL: "put it into a file: it is read again and again, and a pipe such as /dev/fd/63 can be read only once",
    errno.EFBIG: "is this really a configuration?",
}
_READ_MESSAGES = {
    errno.ENOENT: "there is no such file",
    errno.EACCES: "no permission to read it",
    errno.EISDIR: "it is a directory",
    errno.EINVAL: "it is not a regular file",
    errno.EFBIG: "it is larger than 1 MiB",
    errno.ELOOP: "it is a symbolic link that leads nowhere",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was parsed; all its strings are `Located`, so that paths in it keep their base."""

    path: Path
    data: dict[str, Any]
    lines: Lines


def read_problem(error: OSError) -> tuple[str, str]:
    """Return why a file cannot be read, and what to do about it."""
    number = error.errno or 0
    reason = _READ_MESSAGES.get(number) or error.strerror or type(error).__name__
    return reason, _READ_HINTS.get(number, "")


def parse(path: Path, content: bytes) -> Source:
    """Return what a file says.

    Raises:
        ConfigurationError: it is not UTF-8 or not TOML; one problem, with its line.
    """
    text = _decode(path, content)
    if is_convoluted(text):
        raise _error(path, None, "tables and lists are nested too deeply")
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise _error(path, None, "tables and lists are nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise _syntax_error(path, text, error) from None
    if _is_too_deep(data):
        raise _error(path, None, "tables and lists are nested too deeply")
    return Source(path, _located(data, path.parent), Lines(text))


def _decode(path: Path, content: bytes) -> str:
    if content.startswith(_UTF16_BOMS):
        raise _error(path, 1, "the file is UTF-16, and TOML is UTF-8", "save it as UTF-8, or: iconv -f UTF-16 -t UTF-8")
    body = content.removeprefix(_UTF8_BOM)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        offset = error.start + len(content) - len(body)
        line = content.count(b"\n", 0, offset) + 1
        message = f"byte {offset + 1} of the file is not UTF-8"
        raise _error(path, line, message, "save it as UTF-8, or: iconv -f LATIN1 -t UTF-8") from None


def _syntax_error(path: Path, text: str, error: ValueError) -> ConfigurationError:
    """Say it in the parser's words, which hold nothing of the file but names of keys and single characters."""
    if not isinstance(error, tomllib.TOMLDecodeError):
        return _error(path, None, "not valid TOML: a number has too many digits")
    what = str(error)
    match = _PLACE.search(what)
    reason = what[: match.start()] if match else what
    if match and match[1]:
        return _error(path, int(match[1]), f"not valid TOML: {reason}, at column {match[2]}", _syntax_hint(reason))
    last = max(1, len(text.rstrip("\n").split("\n")))
    return _error(path, last, f"not valid TOML: {reason}, at the end of the file")


def _syntax_hint(reason: str) -> str:
    if reason == "Invalid value":
        return "text stands in quotes"
    if "verwrite" in reason or "twice" in reason or "Duplicate" in reason:
        return "the key or table is there already; several profiles are several [[profile]]"
    return ""


def _error(path: Path, line: int | None, message: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError([Problem(path, line, "", message, hint)])


def _is_too_deep(data: dict[str, Any]) -> bool:
    """Measure without recursion: dotted keys nest as deep as they like."""
    level: list[Any] = [data]
    for _ in range(_DEEPEST):
        inner = (list(value.values()) if isinstance(value, dict) else value for value in level)
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
    return bool(level)


def _located(value: Any, base: Path) -> Any:
    if isinstance(value, str):
        return Located(value, base)
    if isinstance(value, dict):
        return {key: _located(inner, base) for key, inner in value.items()}
    if isinstance(value, list):
        return [_located(inner, base) for inner in value]
    return value
