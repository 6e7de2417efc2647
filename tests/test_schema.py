"""The JSON Schema for editors: the same keys as the loader, and every configuration that is right conforms to it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from agent.commands.schema import DIALECT, schema
from agent.config.complaints import TABLES, TOP_LEVEL
from tests.config_helpers import HEAD, load
from tests.test_config_example import EXAMPLE, uncommented
from tests.test_config_load import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Node = dict[str, Any]
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "object": (dict,), "array": (list,),
    "boolean": (bool,), "integer": (int,), "number": (int, float),
}  # fmt: skip


def is_of(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def faults(value: Any, node: Node, root: Node, at: str = "") -> Iterator[str]:
    """Yield where a value does not conform; a small part of draft 2020-12, and all that our schema uses."""
    used = {
        "$defs", "$ref", "$schema", "additionalProperties", "anyOf", "default", "description", "enum", "examples",
        "exclusiveMaximum", "exclusiveMinimum", "items", "maxLength", "maximum", "minItems", "minLength", "minimum",
        "pattern", "properties", "required", "title", "type",
    }  # fmt: skip
    assert node.keys() <= used, node.keys() - used
    if "$ref" in node:
        yield from faults(value, root["$defs"][node["$ref"].rpartition("/")[2]], root, at)
    if "anyOf" in node and all(list(faults(value, option, root, at)) for option in node["anyOf"]):
        yield f"{at}: none of the alternatives"
    types = [node["type"]] if isinstance(node.get("type"), str) else node.get("type", [])
    if types and not any(is_of(value, name) for name in types):
        yield f"{at}: not {types}"
        return
    if "enum" in node and value not in node["enum"]:
        yield f"{at}: not in {node['enum']}"
    yield from _faults_of_kind(value, node, root, at)


def _faults_of_kind(value: Any, node: Node, root: Node, at: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from _faults_of_table(value, node, root, at)
    elif isinstance(value, list):
        if len(value) < node.get("minItems", 0):
            yield f"{at}: too short"
        for number, inner in enumerate(value):
            yield from faults(inner, node.get("items", {}), root, f"{at}/{number}")
    elif isinstance(value, str):
        if not node.get("minLength", 0) <= len(value) <= node.get("maxLength", 1 << 20):
            yield f"{at}: length"
        if not re.search(node.get("pattern", ""), value):
            yield f"{at}: pattern"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _faults_of_number(value, node, at)


def _faults_of_table(value: Node, node: Node, root: Node, at: str) -> Iterator[str]:
    yield from (f"{at}: no {key}" for key in node.get("required", []) if key not in value)
    for key, inner in value.items():
        if key in node.get("properties", {}):
            yield from faults(inner, node["properties"][key], root, f"{at}/{key}")
        elif node.get("additionalProperties") is False:
            yield f"{at}/{key}: unknown"


def _faults_of_number(value: float, node: Node, at: str) -> Iterator[str]:
    if not node.get("minimum", value) <= value <= node.get("maximum", value):
        yield f"{at}: out of range"
    if not node.get("exclusiveMinimum", value - 1) < value < node.get("exclusiveMaximum", value + 1):
        yield f"{at}: out of range"


def conforms(text: str) -> list[str]:
    root = schema()
    return list(faults(tomllib.loads(text), root, root))


@pytest.mark.parametrize(
    "text",
    [
        HEAD,
        LONG,
        EXAMPLE,
        uncommented(EXAMPLE),
        f"{HEAD}token_file = 'x'",
        f"{HEAD}token_file = ['x', {{ path = 'y', mode = 0o640 }}]",
        f"{HEAD}token_file = {{ mode = '0640' }}",
        f"{HEAD}timeout = 20\nrefresh = {{ at = 0.5, min_remaining = '5m' }}",
        f"{HEAD}federated = {{ assertion_file = 'x' }}\ncertificate2 = 1".replace('certificate = "graph.pem"\n', "")
        .replace("\ncertificate2 = 1", ""),
        f"[agent]\ninclude = 'conf.d/*.toml'\n[defaults]\ncertificate.send_chain = true\n{HEAD}",
        "",
    ],
)  # fmt: skip
def test_what_is_right_conforms(text: str) -> None:
    """Short and long forms, the example, and everything in it uncommented conform to the schema."""
    assert conforms(text) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"{HEAD}unknown = 1", "/profile/0/unknown: unknown"),
        ("[agent]\nlog_level = 'loud'", "/agent/log_level: not in"),
        ("[defaults]\nname = 'x'", "/defaults/name: unknown"),
        ("[[profile]]\nname = 'x'", "/profile/0: no client_id"),
        (f"{HEAD}refresh.at = 1.5", "/profile/0/refresh/at: out of range"),
        (f"{HEAD}timeout = true", "/profile/0/timeout: not"),
        (f"{HEAD}token_file = 5", "/profile/0/token_file: none of the alternatives"),
        ("profile = 3", "/profile: not"),
        (HEAD.replace('"graph"', '"-x"'), "/profile/0/name: pattern"),
    ],
)
def test_what_is_wrong_does_not(text: str, fault: str) -> None:
    """Unknown keys, wrong types and words are marked by an editor as well."""
    assert any(found.startswith(fault) for found in conforms(text)), conforms(text)


def properties(node: Node) -> set[str]:
    assert node["additionalProperties"] is False
    return set(node["properties"])


def test_schema_and_loader_know_the_same_keys() -> None:
    """Every table has the keys of the loader, no more, and allows no others; all are described."""
    root = schema()
    assert properties(root) == set(TOP_LEVEL)
    for model in TABLES.values():
        assert properties(root["$defs"][model.__name__]) == set(model.model_fields)
    assert root["$defs"].keys() - {"Cloud"} == {model.__name__ for model in TABLES.values()}
    for table in (root, *(root["$defs"][model.__name__] for model in TABLES.values())):
        for key, node in table["properties"].items():
            assert node.get("description"), key


def defaults(root: Node) -> Iterator[tuple[str, str, Any]]:
    for name, table in root["$defs"].items():
        for key, node in table.get("properties", {}).items():
            if "default" in node:
                yield name, key, node["default"]


def test_defaults_are_shown_as_people_write_them(tmp_path: Path) -> None:
    """A default in the schema can be written as it stands, and changes nothing."""
    shown = {(name, key): default for name, key, default in defaults(schema())}
    assert shown["ProfileKeys", "timeout"] == "20s"
    assert shown["Refresh", "min_remaining"] == "5m"
    assert shown["AgentSettings", "runtime_dir"] == "/run/token-agent"
    agent = "\n".join(f"{key} = {json.dumps(value)}" for (name, key), value in shown.items() if name == "AgentSettings")
    keys = "\n".join(f"{key} = {json.dumps(value)}" for (name, key), value in shown.items() if name == "Profile")
    refresh = "\n".join(f"{key} = {json.dumps(value)}" for (name, key), value in shown.items() if name == "Refresh")
    text = f"[agent]\n{agent}\n{HEAD}{keys}\n[profile.refresh]\n{refresh}\n"
    written, plain = load(tmp_path, text), load(tmp_path, HEAD)
    assert written.agent == plain.agent
    assert written.profiles == plain.profiles


def test_the_command_prints_it() -> None:
    """`token-agent schema` prints one JSON document in the dialect editors know, and needs no configuration."""
    done = subprocess.run([sys.executable, "-m", "agent", "schema"], capture_output=True, check=True, timeout=50)
    document: Mapping[str, Any] = json.loads(done.stdout)
    assert document == schema()
    assert document["$schema"] == DIALECT == "https://json-schema.org/draft/2020-12/schema"
    assert done.stderr == b""
