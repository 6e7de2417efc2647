"""Whatever a configuration holds: a configuration comes out of it, or problems with a place; nothing else."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.config.complaints import TABLES
from agent.config.model import Config
from agent.errors import OutputError
from agent.formats import template_problem
from agent.peek import peek_settings
from tests.fuzz import STEADY
from tests.fuzz.inputs import ENVIRON, INCLUDED, MAIN, load


@settings(**STEADY)
@given(st.binary(max_size=300))
@example(b"\xff\xfe")
@example(b"[[profile]]\r")
def test_arbitrary_bytes(content: bytes) -> None:
    """Arbitrary bytes are a configuration or problems, and a quick look at them never fails."""
    load({MAIN: content})
    peek_settings(MAIN, ENVIRON, lambda _: content)


KEYS = sorted({key for model in TABLES.values() for key in model.model_fields} | {"agent", "defaults", "profile", "zz"})
texts = st.one_of(
    st.sampled_from(
        ["", "x", "a/b", "/a", "${CREDENTIALS_DIRECTORY}/x", "10s", "raw", "env", "template", "{access_token}", "keep",
         "environment", "http://u:p@h:1", "https://h.example/t", "contoso.example", "public", "user:x", "0640",
         "https://x.example/.default", "ace7a10d-aaaa-4a01-8663-1440b6b78cb9", "127.0.0.1:1", "*.toml", "\u2028\x7f"]
    ),
    st.text(max_size=8),
)  # fmt: skip
scalars = st.one_of(
    texts, st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.sampled_from([1, 0.5, 0o640, 640])
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=5,
)
RIGHT = {
    "tenant": st.just("contoso.example"),
    "client_id": st.just("ace7a10d-aaaa-4a01-8663-1440b6b78cb9"),
    "scopes": st.just("https://x.example/.default"),
    "certificate": st.just("c.pem"),
}


@st.composite
def tables(draw: st.DrawFn, keys: list[str]) -> dict[str, Any]:
    """A table of known keys, most of them right where that is not up to chance."""
    chosen = draw(st.lists(st.sampled_from(keys), max_size=draw(st.sampled_from([0, 0, 1, 2, 5]))))
    table = {key: draw(values) for key in chosen}
    right = {key: draw(value) for key, value in RIGHT.items() if key in keys and draw(st.integers(0, 9))}
    return {**right, **table}


profile_keys = sorted(TABLES["[[profile]]"].model_fields)
names = st.sampled_from(["a", "b", "c"])
profiles = st.tuples(names, tables(profile_keys)).map(lambda pair: {"name": pair[0], **pair[1]})
documents = st.fixed_dictionaries(
    {},
    optional={
        "agent": tables(sorted(TABLES["[agent]"].model_fields)),
        "defaults": tables(sorted(TABLES["[defaults]"].model_fields)),
        "profile": st.lists(profiles, max_size=3),
        "zz": values,
    },
)


def toml(value: Any) -> str:
    """Write a value in TOML, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        letters = (letter if letter.isascii() and letter.isprintable() else f"\\U{ord(letter):08x}" for letter in value)
        return '"' + "".join("\\" + letter if letter in '"\\' else letter for letter in letters) + '"'
    return repr(value)


def document(tree: dict[str, Any]) -> bytes:
    return "".join(f"{key} = {toml(value)}\n" for key, value in tree.items()).encode()


@settings(**STEADY)
@given(documents, documents)
@example({"agent": {"include": "\x1f"}}, {})
def test_arbitrary_values_under_known_keys(main: dict[str, Any], included: dict[str, Any]) -> None:
    """Any value under any key, in the main file and an included one: a configuration or problems with a place."""
    load({MAIN: document(main), INCLUDED: document(included)})


@settings(**STEADY)
@given(tables(profile_keys))
def test_the_same_profile_is_equal(table: dict[str, Any]) -> None:
    """Loading the same text twice gives equal profiles, so that nothing is restarted; or the same problems."""
    content = document({"profile": [{"name": "a", **table}]})
    first, second = load({MAIN: content}), load({MAIN: content})
    if isinstance(first, Config):
        assert isinstance(second, Config)
        assert first.profiles == second.profiles
    else:
        assert first == second


@settings(**STEADY)
@given(st.text(alphabet=st.sampled_from("{}ab_:!.cest[]ok n0"), max_size=40))
def test_any_template(template: str) -> None:
    """Any text is a template or says why not."""
    with contextlib.suppress(OutputError):
        problem = template_problem(template)
        assert problem is None or problem.isprintable()
