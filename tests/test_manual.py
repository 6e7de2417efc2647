"""The manual pages: nothing of the help and of the configuration is missing in them, and they read well."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from agent import files
from agent.cli import COMMANDS
from agent.commands import troff
from agent.commands.manual import EXAMPLE, EXIT_STATUS
from agent.commands.schema import schema
from agent.config.load import load_config
from tests.process_helpers import ROOT, environment, run

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text()

needs_man = pytest.mark.skipif(not shutil.which("man"), reason="man is not installed")
needs_mandoc = pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
both = pytest.mark.parametrize("section", ["1", "5"])


def page(section: str, **environ: str) -> str:
    """Return a page as it is installed."""
    done = run("manual", section, environ=environ)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def shown(source: str, *, width: int = 80) -> str:
    """Return a page as `man` shows it; what it warns of fails the test."""
    command = ["man", "--warnings", "--encoding=UTF-8", "--local-file", "-"]
    environ = environment(MANWIDTH=str(width), LC_ALL="C.UTF-8", MAN_KEEP_FORMATTING="")
    done = subprocess.run(command, input=source, env=environ, text=True, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def dense(text: str) -> str:
    """Return text without spaces, and without what is bold in a page and in backticks elsewhere."""
    return "".join(text.replace("`", "").split())


@both
@needs_man
def test_fits(section: str) -> None:
    """Shown in 80 columns no line is longer, nothing is unknown to `man`, and no markup is left over."""
    text = shown(page(section))
    assert not [line for line in text.splitlines() if len(line) > 80]
    assert text.startswith(f"TOKEN-AGENT{'.TOML' if section == '5' else ''}({section})")
    assert not re.search(r"\\f|`|\\-|^\.", text, re.MULTILINE)


@both
@needs_mandoc
def test_lint(section: str) -> None:
    """The other program that shows manual pages, which is the stricter one, finds nothing to complain of."""
    done = subprocess.run(
        ["mandoc", "-Tlint"], input=page(section), text=True, capture_output=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.fixture(scope="module")
def commands() -> str:
    """The page of the commands as it is shown, without spaces, so that it does not matter where lines are broken."""
    return dense(shown(page("1")))


@needs_man
@pytest.mark.parametrize("call", [*([name] for name in COMMANDS), ["cert", "new"], ["cert", "show"]], ids=" ".join)
def test_all_of_the_help(call: list[str], commands: str) -> None:
    """Whatever a command says in its help, the page says: its usage, each paragraph, its options, its examples."""
    usage, _, text = run(*call, "--help").stdout.partition("\n")
    if call == ["cert"]:  # its two subcommands have entries of their own
        return
    assert dense(usage.removeprefix("Usage: ").replace(" [OPTIONS]", "")) in commands
    own = re.sub(r"Options:\n(.*?)(  -c, --config|  --version).*?\n\n", r"\1\n\n", text, flags=re.DOTALL)
    assert "--help" not in own.partition("Examples:")[0]
    parts = [dense(part) for part in re.split(r"\n\s*\n", own)]
    assert len(parts) > 2
    assert not [part for part in parts if part not in commands]


@needs_man
def test_what_all_have_in_common(commands: str) -> None:
    """The page says what the help of all says, and the exit codes as the README does."""
    _, _, text = run("--help").stdout.partition("Options:\n")
    assert dense(text.partition("\n\n")[0]) in commands
    assert dense(text.partition("Examples:\n")[2]) in commands
    rows = re.findall(r"^\| ([0-9n+]+) \| (.*) \|$", README.partition("| Exit code |")[2], re.MULTILINE)
    assert dict(rows) == EXIT_STATUS
    assert all(dense(code + text) in commands for code, text in rows)


@needs_man
def test_all_of_the_configuration() -> None:
    """Every table has a section in which every key stands with its default and what it means, and none twice."""
    sections = dict(re.findall(r"^(\[\S+\])\n(.*?)(?=^\S)", shown(page("5")), re.MULTILINE | re.DOTALL))
    tables = [table["properties"] for table in schema()["$defs"].values() if "properties" in table]
    assert len(sections) == len(tables)
    keys = [re.findall(r"^       ([a-z_]+) \(", section, re.MULTILINE) for section in sections.values()]
    common = set(keys[list(sections).index("[defaults]")])
    for table in tables:
        (found,) = [each for each in keys if set(each) in (set(table), set(table) - common) and each]
        section = dense(sections[list(sections)[keys.index(found)]])
        assert all(dense(table[key]["description"]) in section for key in found)
    assert "rescan_interval(duration;default10s)" in dense(sections["[agent]"])
    assert "log_level(debug,info,warning,error;defaultinfo)" in dense(sections["[agent]"])


def test_example(tmp_path: Path) -> None:
    """The example is a configuration, and the one in the README."""
    path = tmp_path / "config.toml"
    path.write_text(EXAMPLE)
    assert load_config(path, {}, files.read_bytes, files.expand).profiles
    assert "".join(f"   {line}\n" for line in EXAMPLE.splitlines()) in README
    assert "\n".join(map(troff.literal, EXAMPLE.splitlines())) in page("5")


def test_date() -> None:
    """The date is that of the source where a builder names it, so that the same source gives the same page."""
    made = page("1", SOURCE_DATE_EPOCH="86400")
    assert made.splitlines()[0].startswith('.TH TOKEN\\-AGENT 1 "1970-01-02" "token\\-agent ')
    assert made == page("1", SOURCE_DATE_EPOCH="86400")
    assert "1970" not in page("1").splitlines()[0]


@needs_man
@pytest.mark.parametrize(
    "text", [".TH x", "'quoted' start", r"a\\b \\fBc", '"~^" - --x', "[x] \u00e9 \u2026", "it's .b"]
)
def test_nothing_is_markup(text: str) -> None:
    """Text with what troff would take for its own is shown as it was written, filled, literal, and in a tag."""
    body = [*troff.heading("A"), *troff.paragraph(text), *troff.example([text]), *troff.item(troff.bold(text), "y")]
    assert shown(troff.page("x", "1", "2026-01-01", "x 1", body)).count(text) == 3
    assert "`" in shown(troff.page("x", "1", "2026-01-01", "x 1", troff.example(["`x`"])))
