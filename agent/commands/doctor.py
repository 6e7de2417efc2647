"""``token-agent doctor``: an installed system, examined from the reader's side; every finding with its fix."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from agent.commands import common, completing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from agent.config.model import Config, Profile
    from agent.doctor.findings import Finding
    from agent.doctor.rights import Person
    from agent.errors import ConfigurationError

COLUMNS = 80
LABELS = {"ok": "ok", "note": "note", "warning": "warning", "problem": "PROBLEM"}
COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
_INDENT = " " * 11


@click.command(
    epilog=common.examples(
        "token-agent doctor                       all that profiles name",
        "token-agent doctor graph --user legacy   can this user read that token?",
        "token-agent doctor --json | jq '.[] | select(.level == \"problem\")'",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completing.profiles)
@click.option("--user", "users", multiple=True, metavar="USER", help="A reader, by name or number; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list of all findings.")
@common.config_option
def command(names: tuple[str, ...], users: tuple[str, ...], config: Path | None, *, as_json: bool) -> int:
    """Examine an installed system: readers, rights, places, credentials, the agent, the network, the clock.

    As root it tries as each reader whether the token can be read; else it works that out from modes, ACLs and
    groups. Nothing is changed, no credential is sent. Exit codes: 0 no problem; 78 something here is wrong; 75 only
    network or clock are.
    """
    findings = list(_show(_examine(names, users, config), quiet=as_json))
    if as_json:
        click.echo(json.dumps([finding.plain() for finding in findings], indent=2))
    else:
        click.echo(_sum(findings))
    from agent.doctor.findings import exit_code

    return exit_code(findings)


def _examine(names: Sequence[str], users: Sequence[str], config: Path | None) -> Iterator[Finding]:
    """Yield all findings; whatever forks comes before whatever needs threads."""
    from agent.commands import asking
    from agent.doctor import network, runtime, surroundings

    asked, unit = _people(users), surroundings.unit()
    found = runtime.known(asking.directory(config))
    pid = found.pid or int(unit.get("MainPID", "0")) or None
    loaded, refused = _load(config, surroundings.environment(pid, os.environ))
    profiles = _selected(loaded, names) if loaded else []
    if loaded and loaded.agent.runtime_dir != found.directory:
        found = runtime.known(loaded.agent.runtime_dir)
    yield from runtime.examine(found, unit, refused)
    agent = surroundings.agent_user(pid, unit)
    yield from _trying()
    for profile in profiles:
        yield from runtime.examine_profile(found, profile.name, _now())
        yield from _profile(profile, asked, agent, pid)
    yield from network.examine(profiles, _now)


def _now() -> datetime:
    return datetime.now(UTC)


def _trying() -> Iterator[Finding]:
    from agent.doctor import evidence
    from agent.doctor.findings import Topic

    if not evidence.available():
        text = "you are not root: what users can read is worked out from modes, ACLs and groups, not tried"
        yield Topic("agent", "doctor", "agent").note(text, "run this as root")


def _profile(profile: Profile, asked: Sequence[Person], agent: Person | None, pid: int | None) -> Iterator[Finding]:
    from agent.doctor import keys, places, readers

    now = _now()
    yield from keys.examine(profile, agent, now)
    for token_file in profile.token_file:
        yield from places.examine(profile, token_file, pid, now)
        yield from readers.examine(profile, token_file, asked)


def _people(users: Iterable[str]) -> list[Person]:
    """Return the users asked about.

    Raises:
        click.BadParameter: there is no such user.
    """
    from agent.doctor import people

    try:
        return [people.user(name) for name in dict.fromkeys(users)]
    except LookupError as error:
        raise click.BadParameter(str(error), param_hint="--user") from None


def _load(config: Path | None, environ: dict[str, str]) -> tuple[Config | None, ConfigurationError | None]:
    """Return the configuration as the running agent reads it, or what is wrong with it."""
    from agent import files
    from agent.config.load import load_config
    from agent.errors import ConfigurationError

    try:
        return load_config(common.config_path(config, os.environ), environ, files.read_bytes, files.expand), None
    except ConfigurationError as error:
        return None, error


def _selected(config: Config, names: Sequence[str]) -> list[Profile]:
    """Return the profiles asked for.

    Raises:
        click.UsageError: there is no such profile.
    """
    known = {profile.name: profile for profile in config.profiles}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"no profile named {', '.join(unknown)}; known: {', '.join(known) or 'none'}")
    return [known[name] for name in dict.fromkeys(names or known)]


def _show(findings: Iterable[Finding], *, quiet: bool) -> Iterator[Finding]:
    """Pass findings on, and print them as they come."""
    heading = ""
    for finding in findings:
        if not quiet:
            if finding.heading != heading:
                heading = finding.heading
                click.echo("\n".join(_folded(common.printable(heading), "", "  ")))
            click.echo("\n".join(lines(finding)))
            sys.stdout.flush()  # the network can take its time
        yield finding


def lines(finding: Finding) -> Iterator[str]:
    """Yield the lines of a finding, none longer than 80 columns unless a word of it is."""
    first, *rest = _folded(common.printable(finding.message), f"  {LABELS[finding.level]:9}", _INDENT)
    label = LABELS[finding.level]
    yield first.replace(label, common.coloured(label, COLOURS.get(finding.level)), 1)
    yield from rest
    if finding.fix:
        word = "fix: " if finding.level in ("problem", "warning") else ""
        yield from _folded(f"{word}{common.printable(finding.fix)}", _INDENT, f"{_INDENT}{' ' * len(word)}")


def _folded(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sum(findings: Sequence[Finding]) -> str:
    """Return the last line of the report."""
    problems = sum(finding.level == "problem" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    found = f"{problems} problem{'s' * (problems != 1)}" if problems else "no problem found"
    return found + (f", {warnings} warning{'s' * (warnings != 1)}" if warnings else "")
