"""On which line of a TOML text a key stands: what `tomllib` does not tell.

Only texts that `tomllib` has accepted come here, so that nothing is checked a second time: the scanner need but
know where keys, strings, arrays and tables begin and end (toml.io/en/v1.0.0).
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from bisect import bisect_right

Key = tuple[str | int, ...]
"""A path into the parsed document: names of keys, numbers of array elements."""

_GAP = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BLANKS = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
)
_SCALAR = re.compile(r"[^,\]}#\n]+")


class Lines:
    """The line of every key of a text."""

    def __init__(self, text: str) -> None:
        """Scan a text that `tomllib` accepts."""
        scanner = _Scanner(text.replace("\r\n", "\n"))
        # A line is a courtesy: a text that confuses the scanner has fewer of them, and no message is lost.
        with contextlib.suppress(ValueError, IndexError):
            scanner.run()
        self._lines = scanner.lines

    def find(self, key: Key) -> tuple[int | None, int]:
        """Return the line of a key, or of the nearest table around it, and how many of its parts were found."""
        for length in range(len(key), 0, -1):
            if key[:length] in self._lines:
                return self._lines[key[:length]], length
        return None, 0

    def line(self, key: Key) -> int | None:
        """Return the line of a key, or of the nearest table around it; None for what is nowhere in the text."""
        return self.find(key)[0]


class _Scanner:
    """Walks over the text once, statement by statement."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self.lines: dict[Key, int] = {}
        self._last: dict[Key, int] = {}
        """Of each array of tables, the number of its last table."""

    def run(self) -> None:
        """Fill ``lines``."""
        table: Key = ()
        self._skip(_GAP)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_GAP)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        """Step over what a pattern matches here, and return it."""
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"not TOML at character {self._at}")
        self._at = match.end()
        return match[0]

    def _takes(self, mark: str) -> bool:
        """Step over a mark if it stands here."""
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        return True

    def _note(self, key: Key) -> None:
        """Remember where a key stands; its first place counts."""
        self.lines.setdefault(key, bisect_right(self._ends, self._at - 1) + 1)

    def _header(self) -> Key:
        """Read ``[a.b]`` or ``[[a.b]]``, and return the table that what follows belongs to."""
        many = self._takes("[[")
        if not many:
            self._takes("[")
        *outer, name = self._names()
        table: Key = ()
        for part in outer:
            table = self._open((*table, part))
        table = (*table, name)
        if many:
            self._note(table)
            self._last[table] = self._last.get(table, -1) + 1
            table = (*table, self._last[table])
        self._note(table)
        self._takes("]]" if many else "]")
        return table

    def _open(self, table: Key) -> Key:
        """Return the table that a name on the way means: of an array of tables, the last one."""
        self._note(table)
        return (*table, self._last[table]) if table in self._last else table

    def _names(self) -> list[str]:
        """Read the parts of a dotted key."""
        names = [self._name()]
        while self._takes("."):
            names.append(self._name())
        return names

    def _name(self) -> str:
        self._skip(_BLANKS)
        if self._text[self._at] in "\"'":
            quoted = self._skip(_STRING)
            name = str(tomllib.loads(f"x = {quoted}")["x"]) if "\\" in quoted else quoted[1:-1]
        else:
            name = self._skip(_BARE)
        self._skip(_BLANKS)
        return name

    def _pair(self, table: Key) -> None:
        """Read ``a.b = value``; every part of the key is a key."""
        for name in self._names():
            table = (*table, name)
            self._note(table)
        self._takes("=")
        self._skip(_BLANKS)
        self._value(table)

    def _value(self, key: Key) -> None:
        if self._text[self._at] in "\"'":
            self._skip(_STRING)
        elif self._takes("["):
            self._array(key)
        elif self._takes("{"):
            self._inline_table(key)
        else:
            self._skip(_SCALAR)

    def _array(self, key: Key) -> None:
        number = 0
        self._skip(_GAP)
        while not self._takes("]"):
            self._note((*key, number))
            self._value((*key, number))
            number += 1
            self._skip(_GAP)
            self._takes(",")
            self._skip(_GAP)

    def _inline_table(self, key: Key) -> None:
        self._skip(_GAP)
        while not self._takes("}"):
            self._pair(key)
            self._skip(_GAP)
            self._takes(",")
            self._skip(_GAP)
