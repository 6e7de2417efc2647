"""``token-agent doctor``: an installed system, examined from the reader's side; every finding with its fix."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import click

from agent.commands import common, completing, layout

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from agent.config.model import Config, Profile
    from agent.doctor.findings import Finding
    from agent.doctor.rights import Person
    from agent.doctor.runtime import Known
    from agent.errors import ConfigurationError

T = TypeVar("T")
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
    groups. Who may not read the configuration, such as an application, is told whether he can read the tokens, and
    how long they serve. Nothing is changed, no credential is sent. Exit codes: 0 no problem; 78 something here is
    wrong; 75 only network or clock are.
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
    from agent import files
    from agent.commands import asking
    from agent.doctor import confinement, network, runtime, surroundings

    asked, unit = _people(users), surroundings.unit()
    now = _now()
    path = common.config_path(config, os.environ)
    found = runtime.known(asking.guess(path).runtime_dir, now)
    pid = found.pid or int(unit.get("MainPID", "0")) or None
    agent = surroundings.agent_user(pid, unit)
    if files.is_hidden(path) and (agent is None or agent.uid != os.geteuid()):
        yield from _without_configuration(found, unit, names, asked, path)
        return
    given = surroundings.environment(pid, os.environ) if pid else surroundings.before_the_start(unit, os.environ)
    loaded, refused = _load(path, given)
    profiles = _selected({profile.name: profile for profile in loaded.profiles}, names) if loaded else []
    if loaded and loaded.agent.runtime_dir != found.directory:
        found = runtime.known(loaded.agent.runtime_dir, now)
    found = runtime.as_configured(found, loaded)
    yield from runtime.examine(found, unit, refused)
    confined = confinement.of_service(loaded, agent, found.pid) if loaded else None
    if loaded and confined:
        yield from confinement.findings(confined.of_agent(loaded, common.DEFAULT_CONFIG))
    yield from _trying()
    for profile in profiles:
        yield from runtime.examine_profile(found, profile.name, _now())
        obstacles = list(confined.of_profile(profile)) if confined else []
        yield from confinement.findings(obstacles)
        kept = {each.path for each in obstacles if not each.writing}
        said = _profile(profile, found, asked, agent, kept)
        yield from (each for each in said if not confinement.refutes(kept, each))
    yield from network.examine(profiles, _now)


def _without_configuration(
    found: Known, unit: Mapping[str, str], names: Sequence[str], asked: Sequence[Person], path: Path
) -> Iterator[Finding]:
    """Yield what can be said to somebody who may not read the configuration."""
    from agent.doctor import onlooker

    yield from onlooker.examine(found, unit, path)
    yield from _trying() if asked else ()
    profiles = _selected(found.profiles, names)
    yield from onlooker.examine_profiles(found, profiles, asked, _now(), named=bool(names))
    yield onlooker.unseen(path)


def _now() -> datetime:
    return datetime.now(UTC)


def _trying() -> Iterator[Finding]:
    from agent.doctor import evidence
    from agent.doctor.findings import Topic

    if not evidence.available():
        text = "you are not root: what users can read is worked out from modes, ACLs and groups, not tried"
        yield Topic("agent", "doctor", "agent").note(text, "run this as root")


def _profile(
    profile: Profile, found: Known, asked: Sequence[Person], agent: Person | None, kept: Collection[Path]
) -> Iterator[Finding]:
    from agent.doctor import keys, places, readers

    now = _now()
    yield from keys.examine(profile, found.profiles.get(profile.name), agent, now, kept)
    for token_file in profile.token_file:
        yield from places.examine(profile, token_file, found.directory, found.pid, now)
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


def _load(path: Path, environ: dict[str, str]) -> tuple[Config | None, ConfigurationError | None]:
    """Return the configuration as the running agent reads it, or what is wrong with it."""
    from agent import files
    from agent.config.load import load_config
    from agent.errors import ConfigurationError

    try:
        return load_config(path, environ, files.read_bytes, files.expand), None
    except ConfigurationError as error:
        return None, error


def _selected(known: Mapping[str, T], names: Sequence[str]) -> list[T]:
    """Return the profiles asked for, of those that are known by name.

    Raises:
        click.UsageError: there is no such profile.
    """
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"no profile named {', '.join(unknown)}; known: {', '.join(known) or 'none'}")
    return [known[name] for name in dict.fromkeys(names or known)]


def _show(findings: Iterable[Finding], *, quiet: bool) -> Iterator[Finding]:
    """Pass findings on, and print them as they come."""
    heading = ""
    columns = COLUMNS if layout.width() else None
    for finding in findings:
        if not quiet:
            if finding.heading != heading:
                heading = finding.heading
                click.echo("\n".join(_folded(common.printable(heading), "", "  ", columns)))
            click.echo("\n".join(lines(finding, columns)))
            sys.stdout.flush()  # the network can take its time
        yield finding


def lines(finding: Finding, columns: int | None) -> Iterator[str]:
    """Yield the lines of a finding; without columns, in a pipe, message and fix are each one, to `grep` and to copy."""
    first, *rest = _folded(common.printable(finding.message), f"  {LABELS[finding.level]:9}", _INDENT, columns)
    label = LABELS[finding.level]
    yield first.replace(label, common.coloured(label, COLOURS.get(finding.level)), 1)
    yield from rest
    if finding.fix:
        word = "fix: " if finding.level in ("problem", "warning") else ""
        yield from _folded(f"{word}{common.printable(finding.fix)}", _INDENT, f"{_INDENT}{' ' * len(word)}", columns)


def _folded(text: str, first: str, rest: str, columns: int | None) -> list[str]:
    """Return a text in lines, none longer than the columns unless a word of it is."""
    if columns is None:
        return [f"{first}{text}"]
    return textwrap.wrap(
        text,
        columns,
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
