"""config.example.toml: right as it is, right with everything in it uncommented, and complete."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from agent.config.complaints import TABLES
from agent.config.model import Config
from tests.config_helpers import load, refused, write

EXAMPLE = (Path(__file__).parent.parent / "config.example.toml").read_text()
ENVIRON = {"CREDENTIALS_DIRECTORY": "/run/credentials/token-agent"}
ALTERNATIVE = re.compile(r"^# ([a-z_]+) = ", re.MULTILINE)


def uncommented(text: str) -> str:
    """Return the example with every key and table that is commented out brought to life."""
    return re.sub(r"^#(?=[a-z\[])", "", text, flags=re.MULTILINE)


def chosen(key: str, number: int) -> str:
    """Return the example with one of its alternatives in place of what it is an alternative to."""
    text = uncommented(EXAMPLE)
    head, _, rest = text.rpartition("[[profile]]")
    place = list(ALTERNATIVE.finditer(rest))[number]
    rest = f"{rest[: place.start()]}{rest[place.start() + 2 :]}"
    if key in ("authority", "oidc_issuer"):
        rest = re.sub(r"^(tenant|cloud) = .*\n", "", rest, flags=re.MULTILINE)
    elif key == "template_file":
        rest = re.sub(r"^template = .*\n", "", rest, flags=re.MULTILINE)
    else:
        rest = re.sub(r"^\[profile\.certificate\]\n(.+\n)+", "", rest, flags=re.MULTILINE)
    return f"{head}[[profile]]{rest}"


ALTERNATIVES = [(match[1], number) for number, match in enumerate(ALTERNATIVE.finditer(EXAMPLE))]


def test_as_it_is(tmp_path: Path) -> None:
    """Copied as it is, the example is one profile and no warning."""
    config = load(tmp_path, EXAMPLE)
    assert [profile.name for profile in config.profiles] == ["graph"]
    assert config.warnings == ()


def test_everything_uncommented(tmp_path: Path) -> None:
    """With every key and table uncommented the example is still right."""
    config = load(tmp_path, uncommented(EXAMPLE), ENVIRON)
    assert [profile.name for profile in config.profiles] == ["graph", "billing"]
    assert len(config.profiles[1].token_file) == 3


def single_settings() -> list[str]:
    """Return the commented lines before the second profile: settings that stand alone."""
    head = EXAMPLE.partition("#[[profile]]")[0]
    return [line for line in head.splitlines() if re.match(r"#[a-z]", line)]


@pytest.mark.parametrize("line", single_settings())
def test_each_setting_by_itself(tmp_path: Path, line: str) -> None:
    """Each setting of the agent and each default can be uncommented alone."""
    assert isinstance(load(tmp_path, EXAMPLE.replace(f"\n{line}\n", f"\n{line[1:]}\n")), Config)


@pytest.mark.parametrize(("key", "number"), ALTERNATIVES)
def test_each_alternative(tmp_path: Path, key: str, number: int) -> None:
    """Each alternative is right where it replaces what it is an alternative to."""
    write(tmp_path, "{access_token}", "netrc.template")
    assert load(tmp_path, chosen(key, number), ENVIRON).profiles[1].name == "billing"


def test_each_alternative_beside_the_other_is_refused(tmp_path: Path) -> None:
    """Uncommented beside what it is an alternative to, an alternative is an error."""
    text = uncommented(EXAMPLE)
    for match in ALTERNATIVE.finditer(text):
        refused(tmp_path, f"{text[: match.start()]}{text[match.start() + 2 :]}", ENVIRON)


def test_complete() -> None:
    """Every key of every table stands in the example."""
    written = set(re.findall(r"^# ?([a-z_]+) = ", EXAMPLE, re.MULTILINE)) | set(re.findall(r"\b([a-z_]+) = ", EXAMPLE))
    written |= {part for name in re.findall(r"^#?\[+([a-z_.]+)\]", EXAMPLE, re.MULTILINE) for part in name.split(".")}
    for model in TABLES.values():
        assert set(model.model_fields) <= written, model.__name__


def test_fits_a_terminal() -> None:
    """The example is plain text of at most a hundred columns."""
    assert EXAMPLE.isascii()
    assert max(map(len, EXAMPLE.splitlines())) <= 100
    assert tomllib.loads(EXAMPLE)
