"""What people write in a configuration, as values: durations, paths, modes, names.

Pure, and free of heavy imports, so that a quick look at a configuration (`peek`) can use it too. Every function
raises ``ValueError`` with a sentence that says what would be right; none repeats what was written.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES = ("CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CONFIGURATION_DIRECTORY")
"""What systemd sets for a service (systemd.exec(5)); a path may begin with one of them."""
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
NAME_LENGTH = 128
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
PATH_MAX = 4095
"""Bytes in a path (limits.h, less the NUL)."""
FILE_NAME_MAX = 255
"""Bytes in a file name (limits.h)."""

_DURATION = re.compile(r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?")
_CONVOLUTED = re.compile(r"""(?<![\w.-])(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){100}""", re.ASCII)
_LONGEST = 1e9
"""Seconds, some thirty years; also keeps sums within what a timedelta can hold."""
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_OWNERS = (4, 6)
_GROUPS = (0, 4, 6)
_OTHERS = (0, 4)


def is_convoluted(text: str) -> bool:
    """Tell whether a text that should be TOML has a key of a great many parts.

    `tomllib` takes a time that grows with their square: hours for a file of a megabyte. No other text that could be
    valid has such a row of words and dots, be it in a string.
    """
    return _CONVOLUTED.search(text) is not None


class Located(str):
    """A string of a configuration file that remembers the directory relative paths start from."""

    __slots__ = ("base",)
    base: Path

    def __new__(cls, text: str, base: Path) -> Self:
        """Take a text and the directory it is relative to."""
        self = super().__new__(cls, text)
        self.base = base
        return self


def parse_duration(value: object) -> timedelta:
    """Return ``"90s"``, ``"10m"``, ``"1h30m"``, ``"2d"`` or a number of seconds as a timedelta.

    Raises:
        ValueError: it is none of these, or negative.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LONGEST:
        return timedelta(seconds=value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if match is None:
        raise ValueError('a duration is written "90s", "10m", "1h30m", or as a number of seconds')
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total >= _LONGEST:
        raise ValueError("this is longer than thirty years")
    return timedelta(seconds=total)


def default_directories(environ: Mapping[str, str]) -> tuple[Path, Path]:
    """Return runtime and state directory where the configuration names none."""
    runtime = _directory("RUNTIME_DIRECTORY", environ) or "/run/token-agent"
    state = _directory("STATE_DIRECTORY", environ) or "/var/lib/token-agent"
    return Path("/", runtime), Path("/", state)


def _directory(name: str, environ: Mapping[str, str]) -> str:
    """Return what systemd says; of several directories the first."""
    return environ.get(name, "").split(":")[0]


def resolve_path(text: str, environ: Mapping[str, str], base: Path = Path("/")) -> Path:
    """Expand one of systemd's directory variables at the start of a path, and make the path absolute.

    Nothing else is ever expanded, so that a path means what it says.

    Raises:
        ValueError: it is empty, or begins with something that would have to be expanded.
    """
    if not text or "\0" in text:
        raise ValueError("a path may not be empty or hold a NUL")
    if text.startswith("~"):
        raise ValueError("~ is not expanded here: a service has no home; write the whole path")
    path = _absolute(base, expand_variable(text, environ))
    if len(str(path).encode(errors="surrogateescape")) > PATH_MAX:
        raise ValueError(f"a path has at most {PATH_MAX} bytes")
    return path


def _absolute(base: Path, text: str) -> Path:
    path = base / text
    # POSIX gives two leading slashes a meaning of their own, which Linux does not; here one path has one name.
    return Path("/" + str(path).lstrip("/")) if str(path).startswith("//") else path


def expand_variable(text: str, environ: Mapping[str, str]) -> str:
    """Return a path with the variable at its start replaced.

    Raises:
        ValueError: the variable is not known here, not set, or not at the start.
    """
    known = f"a path may begin with ${{{'}, ${'.join(VARIABLES)}}}"
    match = _VARIABLE.match(text)
    if match is None:
        if text.startswith("$") or "${" in text:
            raise ValueError(f"no variable is expanded here; {known}")
        return text
    rest = text[match.end() :]
    if match[1] not in VARIABLES:
        raise ValueError(f"this variable is not known here; {known}")
    if "${" in rest or (rest and not rest.startswith("/")):
        raise ValueError(f"after ${{{match[1]}}} comes a slash, and no further variable")
    directory = _directory(match[1], environ)
    if not directory:
        raise ValueError(f"${{{match[1]}}} is not set: systemd sets it for a service ({_SETTINGS[match[1]]})")
    return directory + rest


_SETTINGS = {
    "CREDENTIALS_DIRECTORY": "LoadCredential=",
    "RUNTIME_DIRECTORY": "RuntimeDirectory=",
    "STATE_DIRECTORY": "StateDirectory=",
    "CONFIGURATION_DIRECTORY": "ConfigurationDirectory=",
}


def shown(path: Path) -> str:
    """Return a path as it may appear in a message of one line."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(path))


def resolve_pattern(text: str, environ: Mapping[str, str], base: Path) -> str:
    """Make a glob pattern absolute; what is special in the directory it starts from stands for itself.

    Raises:
        ValueError: it is empty, or begins with something that would have to be expanded.
    """
    if not text or "\0" in text:
        raise ValueError("a pattern may not be empty or hold a NUL")
    expanded = expand_variable(text, environ)
    if text.startswith("/"):
        return expanded
    rest = text.partition("}")[2] if text.startswith("$") else expanded
    start = expanded.removesuffix(rest) or str(base)
    return f"{quote_pattern(start).rstrip('/')}/{rest.lstrip('/')}"


_QUOTED = re.compile(r"\[([*?[])\]")


def quote_pattern(text: str) -> str:
    """Return a glob pattern that matches just this text."""
    return re.sub(r"([*?[])", r"[\1]", text)


def unquote_pattern(pattern: str) -> str:
    """Return what a pattern without wildcards matches."""
    return _QUOTED.sub(r"\1", pattern)


def is_wild(pattern: str) -> bool:
    """Tell whether a pattern has wildcards that are not quoted."""
    return any(mark in _QUOTED.sub("", pattern) for mark in "*?[")


def names_a_directory(text: str) -> bool:
    """Tell whether a path can only be a directory by the way it is written."""
    return text.rpartition("/")[2] in ("", ".", "..")


def parse_mode(value: object) -> int:
    """Return a mode as a number: ``"0640"`` (octal, as chmod takes it) or TOML's ``0o640``.

    Raises:
        ValueError: it is something else, or no sensible mode of a token file.
    """
    if isinstance(value, str) and re.fullmatch(r"(0o|0)?[0-7]{3}", value):
        return _sensible(int(value.removeprefix("0o"), 8))
    if isinstance(value, int) and not isinstance(value, bool):
        if is_sensible(value):
            return value
        digits = str(value) if 0 < value < 1000 else ""  # noqa: PLR2004 - three digits
        if re.fullmatch(r"[0-7]{3}", digits) and is_sensible(int(digits, 8)):
            raise ValueError(f'a mode is octal, and {digits} is decimal here: write "0{digits}" in quotes')
    raise ValueError('a mode is three octal digits in quotes, such as "0640"')


def is_sensible(mode: int) -> bool:
    """Tell whether a mode lets the owner read and gives nobody more than reading (the group also writing).

    No sensible mode, taken as a decimal number, looks like another one in octal: 640 is never mistaken for 0o640.
    """
    return (
        0 <= mode <= 0o777  # noqa: PLR2004 - nine bits
        and mode >> 6 in _OWNERS
        and mode >> 3 & 7 in _GROUPS
        and mode & 7 in _OTHERS
    )


def _sensible(mode: int) -> int:
    if is_sensible(mode):
        return mode
    if mode & 0o111:
        raise ValueError('a token is not executable; a mode such as "0640" is meant')
    if not mode & 0o400:
        raise ValueError('the owner has to read the file; a mode such as "0640" is meant')
    if mode & 0o002:
        raise ValueError("a mode never lets everybody write")
    raise ValueError("whoever may write the file must be able to read it")


def check_name(name: str) -> str:
    """Refuse a profile name that would not make a file name.

    Raises:
        ValueError: says what a name may hold.
    """
    if not re.fullmatch(NAME_PATTERN.strip("^$"), name):
        raise ValueError("a name holds letters, digits, `.`, `_` and `-`, and begins with a letter or digit")
    if len(name) > NAME_LENGTH:
        raise ValueError(f"a name has at most {NAME_LENGTH} characters")
    return name


def check_variable(name: str) -> str:
    """Refuse what a shell would not take as the name of a variable.

    Raises:
        ValueError: says what it may hold.
    """
    if not re.fullmatch(VARIABLE_PATTERN.strip("^$"), name):
        raise ValueError("a variable's name holds letters, digits and `_`, and does not begin with a digit")
    return name


def check_account(name: str) -> str:
    """Refuse what cannot be a user or group (names of directory services may hold nearly everything).

    Raises:
        ValueError: says what it may not hold.
    """
    if not name.isprintable() or ":" in name:
        raise ValueError("the name of a user or group, or its number, holds no colon and nothing unprintable")
    return name


def check_reader(text: str) -> str:
    """Refuse a reader that is neither ``user:NAME`` nor ``group:NAME``.

    Raises:
        ValueError: says how it is written.
    """
    kind, colon, name = text.partition(":")
    if kind not in ("user", "group") or not colon or not name:
        raise ValueError('a reader is written "user:NAME" or "group:NAME"')
    check_account(name)
    return text
