"""What is wrong with the values of a table, in a person's words: pydantic's errors translated, once, here.

No message repeats a value; messages name keys and what would be right. For an unknown key the hint is the nearest
valid one, or the table it belongs to: a key that slipped below the wrong header is the commonest slip in TOML.
"""

from __future__ import annotations

import datetime as dt
import difflib
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import ValidationError

from agent.config.model import (
    AgentSettings,
    Certificate,
    Expect,
    Federated,
    Model,
    OnRefresh,
    Profile,
    ProfileKeys,
    Refresh,
    Signal,
    TokenFile,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from agent.config.locate import Key

M = TypeVar("M", bound=Model)

TABLES: dict[str, type[Model]] = {
    "[agent]": AgentSettings,
    "[defaults]": ProfileKeys,
    "[[profile]]": Profile,
    "[profile.certificate]": Certificate,
    "[profile.refresh]": Refresh,
    "[profile.expect]": Expect,
    "[profile.on_refresh]": OnRefresh,
    "[[profile.token_file]]": TokenFile,
    "federated": Federated,
    "on_refresh.signal": Signal,
}
"""Every table of a configuration, by the name a person knows it by."""
MISSING = "is missing"
LISTED = 6
"""Keys that are named where an unknown one resembles none; some tables have more than twenty."""
TOP_LEVEL = ("agent", "defaults", "profile")
_NESTED: dict[Key, type[Model]] = {
    ("certificate",): Certificate,
    ("federated",): Federated,
    ("refresh",): Refresh,
    ("expect",): Expect,
    ("on_refresh",): OnRefresh,
    ("on_refresh", "signal"): Signal,
    ("token_file",): TokenFile,
}


class Complaint(NamedTuple):
    """Something wrong with a key of a table; ``key`` is relative to the table."""

    key: Key
    message: str
    hint: str = ""


def validate(model: type[M], data: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[M | None, list[Complaint]]:
    """Return the model of a table, and what is wrong with it; one of the two is empty."""
    try:
        return model.model_validate(data, context=environ), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        deeper = {detail["loc"][:length] for detail in details for length in range(len(detail["loc"]))}
        # A list of nothing but wrong items is not an empty one.
        told = [detail for detail in details if detail["type"] != "too_short" or detail["loc"] not in deeper]
        return None, [_complaint(model, detail) for detail in told]


def _complaint(model: type[Model], detail: ErrorDetails) -> Complaint:
    key = detail["loc"]
    if detail["type"] == "extra_forbidden":
        return unknown_key(key, _table_of(model, key[:-1]))
    message = _MESSAGES.get(detail["type"], "")
    if detail["type"] == "model_type" and _names(key)[-1:] == ("certificate",):
        message = "must be a path in quotes, a table, or a list of these, not {found}"
    if detail["type"] == "float_type" and type(detail["input"]) is int:
        message = "must be a number of fewer digits"
    if detail["type"] == "int_type" and isinstance(detail["input"], float):
        message = "must be a whole number, without a decimal point"
    context = {name: _quoted(value) for name, value in detail.get("ctx", {}).items()}
    text = message.format(found=_kind(detail["input"]), **context) if message else detail["msg"]
    return Complaint(key, text, _HINTS.get(_names(key), "") if detail["type"] == "missing" else "")


_MESSAGES = {
    "missing": MISSING,
    "value_error": "{error}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "string_type": "must be text in quotes, not {found}",
    "path_type": "must be a path in quotes, not {found}",
    "bool_type": "must be true or false, not {found}",
    "int_type": "must be a whole number, not {found}",
    "float_type": "must be a number, not {found}",
    "finite_number": "must be a number",
    "tuple_type": "must be a list, not {found}",
    "model_type": "must be a table, not {found}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "may not be empty",
    "too_short": "may not be empty",
}
_HINTS: dict[Key, str] = {
    ("name",): 'such as name = "graph": it names the profile in commands, and its token file',
    ("client_id",): "the Application (client) ID on the overview page of the app registration",
    ("certificate", "path"): "the file with the certificate",
}


def _quoted(value: object) -> str:
    """Return what pydantic tells, as it is written in TOML."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, Exception) else str(value).replace("'", '"')


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    ((int, float), "a number"),
    (str, "text"),
    ((list, tuple), "a list"),
    (dict, "a table"),
    ((dt.date, dt.time), "a date or time"),
)


def _kind(value: object) -> str:
    """Name the type of a value by what it is called in TOML."""
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "that")


def _table_of(model: type[Model], key: Key) -> type[Model]:
    """Return the model of a table within a table."""
    return _NESTED.get(_names(key), model)


def _names(key: Key) -> Key:
    return tuple(part for part in key if isinstance(part, str))


def unknown_key(key: Key, table: type[Model] | None) -> Complaint:
    """Say that there is no such key, and which was meant; ``table`` is None at the top of a file."""
    name = str(key[-1])
    valid = list(table.model_fields) if table else list(TOP_LEVEL)
    near = difflib.get_close_matches(name.lower().replace("-", "_"), valid, 1, 0.7)
    homes = [place for place, model in TABLES.items() if name in model.model_fields and model is not table]
    if near:
        hint = f"did you mean `{near[0]}`?"
    elif homes:
        above = ", above [profile.refresh] and the like" if "[[profile]]" in homes else ""
        hint = f"`{name}` belongs in {' or '.join(homes)}{above}"
    else:
        loose = difflib.get_close_matches(name.lower(), valid, 1, 0.5)
        more = f", and {len(valid) - LISTED} more: see `token-agent schema`" if len(valid) > LISTED + 1 else ""
        known = ", ".join(valid[:LISTED] if more else valid)
        hint = f"did you mean `{loose[0]}`?" if loose else f"known here: {known}{more}"
    return Complaint(key, "there is no such key", hint)
