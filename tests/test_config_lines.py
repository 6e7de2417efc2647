"""The line of every key of a TOML text, held against what `tomllib` reads in it."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.config.locate import Lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config.locate import Key

NAMES = ("name", "a-b", "é ü", "x.y", 'quo"te', "back\\slash", "", "#no comment", "[x]", "ta\tb")  # fmt: skip
SCALARS = (
    "1", "-0.5e3", "0x1F", "inf", "true", "1979-05-27", "1979-05-27 07:32:00", "07:32:00", '""', "''",
    '"plain"', "'lit#eral'", '"esc \\" \\\\"', '"""\nmany\nli"n""es\\"""x"""', "'''\n[not]\na = 'header'\n'''",
    '"""two quotes at the end"""""', "'''two quotes at the end'''''", '"# [ ] { } , ="', '"""\\\n  folded\n  """',
)  # fmt: skip
gaps = st.sampled_from(["", " ", "\t", "\n", " # [x] = {\n", "\n\n# \"'''\n  "])
blanks = st.sampled_from(["", " ", "\t "])


def quoted(name: str) -> st.SearchStrategy[str]:
    """A name in every way TOML lets it be written."""
    basic = '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'
    ways = [basic, '"' + "".join(f"\\U{ord(letter):08x}" for letter in name) + '"']
    if name in ("name", "a-b"):
        ways.append(name)
    if "'" not in name:
        ways.append(f"'{name}'")
    return st.sampled_from(ways)


keys = st.sampled_from(NAMES).flatmap(quoted)


@st.composite
def dotted(draw: st.DrawFn) -> str:
    parts = draw(st.lists(keys, min_size=1, max_size=3))
    return "".join(f"{draw(blanks)}.{draw(blanks)}{part}" if number else part for number, part in enumerate(parts))


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    items = [f"{draw(gaps)}{item}{draw(gaps)}" for item in draw(st.lists(inner, max_size=3))]
    comma = draw(st.sampled_from(["", ","])) if items else ""
    return f"[{','.join(items)}{comma}{draw(gaps)}]"


@st.composite
def inline_tables(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    pairs = draw(st.lists(st.tuples(dotted(), inner), max_size=3))
    return "{" + ",".join(f"{draw(blanks)}{key}{draw(blanks)}={draw(blanks)}{value} " for key, value in pairs) + "}"


values = st.recursive(
    st.sampled_from(SCALARS), lambda inner: st.one_of(arrays(inner), inline_tables(inner)), max_leaves=6
)


@st.composite
def statements(draw: st.DrawFn) -> str:
    indent, key, end = draw(blanks), draw(dotted()), draw(st.sampled_from(["", " # comment = [", "\t"]))
    kind = draw(st.sampled_from(["pair", "pair", "table", "tables"]))
    if kind == "pair":
        return f"{indent}{key}{draw(blanks)}={draw(blanks)}{draw(values)}{end}"
    opening, closing = ("[", "]") if kind == "table" else ("[[", "]]")
    return f"{indent}{opening}{draw(blanks)}{key}{draw(blanks)}{closing}{end}"


def accepted(lines: list[str]) -> tuple[str, dict[str, Any]]:
    """Put statements together as long as `tomllib` accepts them."""
    text, data = "", {}
    for line in lines:
        try:
            data = tomllib.loads(f"{text}{line}\n")
        except tomllib.TOMLDecodeError:
            continue
        text += f"{line}\n"
    return text, data


def paths(value: Any, key: Key = ()) -> Iterator[Key]:
    """Yield the path of everything in a document."""
    if key:
        yield key
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, deeper in inner:
        yield from paths(deeper, (*key, part))


def spellings(name: str) -> list[str]:
    """What may stand on a line for a name."""
    basic = name.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return [f'"{basic}"', f"'{name}'", '"' + "".join(f"\\U{ord(letter):08x}" for letter in name) + '"'] + (
        [name] if name in ("name", "a-b") else []
    )


@given(st.lists(statements(), max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_every_key_is_found_on_a_line_that_holds_it(lines: list[str], newline: str) -> None:
    """For everything that `tomllib` reads, the line exists and, for a key, holds the key as it is spelled."""
    text, data = accepted(lines)
    found = Lines(text.replace("\n", newline))
    rows = text.split("\n")
    for path in paths(data):
        line, length = found.find(path)
        assert length == len(path), path
        assert line is not None
        assert 1 <= line <= len(rows)
        if isinstance(path[-1], str):
            assert any(spelling in rows[line - 1] for spelling in spellings(path[-1])), (path, line)


@given(st.lists(statements(), max_size=12))
def test_what_is_not_there_falls_back_to_the_table_around_it(lines: list[str]) -> None:
    """A key that is not in the text has the line of the nearest table that is."""
    text, data = accepted(lines)
    found = Lines(text)
    for path in paths(data):
        assert found.line((*path, "missing", 3)) == found.line(path)
    assert found.line(("missing",)) is None


@given(st.text(alphabet=st.sampled_from("a=[]{}\"'.,#\\\n 1"), max_size=60))
@example("a=[}")
@example("a={]")
@example("[[")
@example("a='")
def test_no_text_confuses_it_into_failing(text: str) -> None:
    """A text that is not TOML at all raises nothing, and comes to an end."""
    Lines(text).line(("a",))


TEXT = """\
top = 1
[agent] # comment
watch = true

[[profile]]
name = "a"
scopes = [
  "x",
  '''
y''', "z"]
[profile.refresh]
at = 0.5
[[profile.token_file]]
path = "p"
[[profile.token_file]]
path = "q"
  [[profile]]
certificate.path = "c"
certificate . "key" = "k"
token_file = [{ path = "r" }, { path = "s" }]
expect = { audience = "a", roles = ["x"] }
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 1),
        (("agent",), 2),
        (("agent", "watch"), 3),
        (("profile",), 5),
        (("profile", 0, "name"), 6),
        (("profile", 0, "scopes", 0), 8),
        (("profile", 0, "scopes", 1), 9),
        (("profile", 0, "scopes", 2), 10),
        (("profile", 0, "refresh"), 11),
        (("profile", 0, "refresh", "at"), 12),
        (("profile", 0, "refresh", "jitter"), 11),
        (("profile", 0, "token_file", 0, "path"), 14),
        (("profile", 0, "token_file", 1), 15),
        (("profile", 0, "token_file", 1, "path"), 16),
        (("profile", 1), 17),
        (("profile", 1, "certificate", "path"), 18),
        (("profile", 1, "certificate", "key"), 19),
        (("profile", 1, "token_file", 1, "path"), 20),
        (("profile", 1, "expect", "roles", 0), 21),
        (("profile", 1, "client_id"), 17),
    ],
)
def test_lines_of_a_configuration(path: Key, line: int) -> None:
    """Tables, arrays of tables, dotted keys, inline tables and strings of several lines: each key has its line."""
    assert Lines(TEXT).line(path) == line
