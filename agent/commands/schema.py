"""``token-agent schema``: the configuration file for editors, as JSON Schema (draft 2020-12)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from agent.commands import common

if TYPE_CHECKING:
    from datetime import timedelta

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TITLE = "Configuration of token-agent"
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


@click.command(
    epilog=common.examples(
        "token-agent schema >token-agent.schema.json",
        "#:schema ./token-agent.schema.json    first line of config.toml (Taplo)",
    )
)
def command() -> int:
    """Print the JSON Schema of the configuration file, for completion and checks while you type.

    It knows keys, types and forms; `token-agent check` knows everything else.
    """
    click.echo(json.dumps(schema(), indent=2))
    return 0


def schema() -> dict[str, Any]:
    """Return the schema of a configuration file as people write it."""
    from datetime import timedelta

    from pydantic import BaseModel
    from pydantic.json_schema import GenerateJsonSchema

    from agent.config.model import Document

    class Generator(GenerateJsonSchema):
        """Shows defaults as people would write them."""

        def encode_default(self, dft: Any) -> Any:
            if isinstance(dft, timedelta):
                return _written(dft)
            if isinstance(dft, tuple):
                return [self.encode_default(item) for item in dft]
            return {} if isinstance(dft, BaseModel) else super().encode_default(dft)

    document = Document.model_json_schema(schema_generator=Generator)
    for name, table in document["$defs"].items():
        if name != "Profile":
            table.pop("required", None)  # what a table needs may come from [defaults], or from the profile's name
    document["$defs"]["TokenFile"]["properties"]["mode"].pop("default")  # it depends on `group`
    return {"$schema": DIALECT, "title": _TITLE, **_tidy(document)}


def _written(span: timedelta) -> str:
    """Return a duration in the largest unit that it is a multiple of."""
    seconds = span.total_seconds()
    unit, name = next(((unit, name) for unit, name in _UNITS if seconds and seconds % unit == 0), (1, "s"))
    return f"{seconds / unit:g}{name}"


def _tidy(node: Any) -> Any:
    """Leave out what says nothing: null, which TOML does not have, and titles that repeat the key."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy = {key: _tidy(value) for key, value in node.items() if not _says_nothing(key, value)}
    alternatives = [option for option in tidy.get("anyOf", ()) if option != {"type": "null"}]
    if len(alternatives) == 1:
        del tidy["anyOf"]
        return {**alternatives[0], **tidy}
    return {**tidy, "anyOf": alternatives} if alternatives else tidy


def _says_nothing(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or (key == "default" and value in (None, {}, []))
