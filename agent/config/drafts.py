"""A profile as it was written: its keys with [defaults] merged in, and for each key the place it came from.

Pure. A draft may be wrong in any way; `config` makes a profile or problems of it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.config.complaints import Complaint
from agent.config.model import ProfileKeys
from agent.config.values import NAME_LENGTH, NAME_PATTERN, Located
from agent.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.config.locate import Key
    from agent.config.source import Source

EXCLUSIVE = (
    (("certificate",), ("federated",), ("client_secret_file",)),
    (("tenant", "cloud"), ("authority",), ("oidc_issuer",)),
    (("assertion_file",), ("managed_identity",)),
)
"""Ways of saying one thing: a profile that chooses one of them does not inherit another."""


def merge(defaults: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with what it does not say itself taken from its defaults, tables key by key."""
    merged = {key: value for key, value in defaults.items() if not _is_displaced(key, keys)}
    for key, value in keys.items():
        inherited, own = _long_form(key, merged.get(key)), _long_form(key, value)
        merged[key] = merge(inherited, own) if isinstance(inherited, dict) and isinstance(own, dict) else value
    return merged


def _is_displaced(key: str, keys: Mapping[str, Any]) -> bool:
    for ways in EXCLUSIVE:
        if any(key in way for way in ways):
            return any(key not in way and other in keys for way in ways for other in way)
    return False


def _long_form(key: str, value: Any) -> Any:
    return {"path": value} if key == "certificate" and isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Draft:
    """A ``[[profile]]`` of a file.

    Attributes:
        source: the file.
        number: of the entry in its file, from 0.
        main: the file with [defaults].
        own: what the entry itself says.
        keys: with the defaults.
    """

    source: Source
    number: int
    main: Source
    own: Mapping[str, Any]
    keys: Mapping[str, Any]

    @classmethod
    def of(cls, source: Source, number: int, main: Source, own: Mapping[str, Any]) -> Draft:
        """Return the draft of an entry; what is wrong with [defaults] itself is not inherited."""
        table = main.data.get("defaults")
        known = ProfileKeys.model_fields.keys()
        defaults = {key: value for key, value in table.items() if key in known} if isinstance(table, dict) else {}
        return cls(source, number, main, own, merge(defaults, own))

    @property
    def name(self) -> str | None:
        """The profile's name, if it is one."""
        name = self.own.get("name")
        usable = isinstance(name, str) and re.fullmatch(NAME_PATTERN.strip("^$"), name) and len(name) <= NAME_LENGTH
        return str(name) if usable else None

    @property
    def label(self) -> str:
        """The profile as a person would call it."""
        return f'profile "{self.name}"' if self.name else f"profile #{self.number + 1}"

    def problem(self, complaint: Complaint) -> Problem:
        """Return a complaint with the place of its key, be it here or in [defaults]."""
        key = complaint.key
        if not isinstance(self.keys.get(str(key[0]) if key else ""), list):
            key = without_number(key)
        line, _ = self.source.lines.find(("profile", self.number, *key))
        inherited, found = self.main.lines.find(("defaults", *key))
        if found > 1 + _own_parts(self.own, key) and str(key[0]) in ProfileKeys.model_fields:
            return Problem(
                self.main.path, inherited, f"defaults.{dotted(key, self.keys)}", complaint.message, complaint.hint
            )
        name = f"{self.label}: {dotted(key, self.keys)}" if key else self.label
        return Problem(self.source.path, line, name, complaint.message, complaint.hint)

    def token_files(self, runtime_dir: Path) -> tuple[list[Any], list[Complaint]]:
        """Return the tables of the token files, whichever form they were written in, and what is no table."""
        written = self.own.get("token_file", {})
        entries = written if isinstance(written, list) else [written]
        tables, complaints = [], []
        for number, entry in enumerate(entries):
            table = {"path": entry} if isinstance(entry, str) else entry
            if not isinstance(table, dict):
                message = "must be a path in quotes, a table, or a list of these"
                complaints.append(Complaint(("token_file", number), message))
                table = None
            elif "path" not in table and len(entries) == 1 and self.name:
                table = {**table, "path": Located(f"{self.name}.token", runtime_dir)}
            elif isinstance(table.get("path"), str):
                table = {**table, "path": Located(table["path"], runtime_dir)}
            tables.append(table)
        if not entries:
            complaints.append(Complaint(("token_file",), "may not be empty", "leave it out for NAME.token"))
        return tables, complaints


def without_number(key: Key) -> Key:
    """Return the key of something that may be a list where a person wrote a single one."""
    return (*key[:1], *key[2:]) if key[:1] in (("token_file",), ("certificate",)) else key


def _own_parts(own: Mapping[str, Any], key: Key) -> int:
    """Return how many parts of a key the profile says itself; one that is no table hides what defaults say below."""
    table: Any = own
    for number, part in enumerate(key):
        if not isinstance(table, dict):
            return len(key)
        if part not in table:
            return number
        table = table[part]
    return len(key)


def dotted(key: Key, table: Any) -> str:
    """Return a key as a person would say it: ``refresh.at``, ``token_file #2.mode``."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f" #{part + 1}" if isinstance(table, list) and len(table) > 1 else ""
            table = table[part] if isinstance(table, list) and part < len(table) else None
        else:
            quoted = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part)
            text += f".{quoted}" if text else quoted
            table = table.get(part) if isinstance(table, dict) else None
    return text
