"""``token-agent status``: how fresh each profile is, whether the agent runs or not."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from agent import lock, status, words
from agent.commands import asking, common, completing, known, reality
from agent.errors import ConfigurationError, OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.status import ProfileStatus

Document = dict[str, Any]
COLOURS = {"fresh": "green", "degraded": "yellow", "expired": "red", "pending": "yellow", "stopped": "red"}
EXIT_BY_KIND = {"configuration": 78, "output": 78, "rejected": 77, "transient": 75}
INTERVAL = 1.0
"""Seconds between two looks of --watch."""


@click.command(
    epilog=common.examples(
        "token-agent status",
        "token-agent status graph --json",
        "token-agent status --watch",
        "token-agent status >/dev/null || mail -s 'a token is not fresh' ops",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completing.profiles)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--watch", is_flag=True, help="Show it again every second until interrupted.")
@common.config_option
def command(names: tuple[str, ...], config: Path | None, *, as_json: bool, watch: bool) -> int:
    """Show how fresh each profile is; exit 0 only if every profile shown is fresh.

    Works from files, also when no agent runs, and says so; root and the agent's user are told by the running
    agent itself. RUNWAY is how long the token on disk still serves if nothing works from now on. Other exit codes:
    75 not fresh yet or any more, 77 the provider refuses, 78 a file is wrong, 69 the agent is gone.
    """
    path = common.config_path(config, os.environ)
    if not watch:
        document = _selected(_document(path), names)
        show(document, as_json=as_json)
        return exit_code(document)
    return _watch(path, names, as_json=as_json)


def _watch(path: Path, names: Sequence[str], *, as_json: bool) -> int:
    """Show again and again; on a terminal in place."""
    while True:
        document = _selected(_document(path), names)
        click.clear()  # nothing where this is no terminal
        show(document, as_json=as_json)
        time.sleep(INTERVAL)


def _document(config: Path) -> Document:
    """Return the contract's document as of now; without an agent the configuration says which profiles there are.

    Raises:
        OutputError: the status file is there but cannot be read.
        ConfigurationError: it is not known which agent is meant.
    """
    settings = asking.settings(config)
    now = datetime.now(UTC)
    path = settings.runtime_dir / "status.json"
    try:
        found = known.of(settings.runtime_dir, now)
    except (FileNotFoundError, NotADirectoryError):
        return _nothing_left(config, settings.runtime_dir, now)
    except ValueError:
        click.echo(f"token-agent: {path}: is damaged; taken as if no agent had run", err=True)
        return _nothing_left(config, settings.runtime_dir, now)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(
            path, reason, hint="the agent writes it for everybody: see the rights of its folder"
        ) from error
    running, agent, profiles = found.pid is not None, found.agent, found.profiles
    if not running:
        profiles, config_error = reality.configured(profiles, config, settings.state_dir)
        agent = dataclasses.replace(agent, config_error=config_error)
    idle = found.pid is not None and lock.is_stopped(found.pid)
    compared = tuple(reality.compared(profile, now, running=running and not idle) for profile in profiles)
    document = status.document(agent, compared, now, running=running, idle=idle)
    if found.before:
        document["agent"] |= {"pid": found.pid or None, "started_at": None}
    return document


def _nothing_left(config: Path, directory: Path, now: datetime) -> Document:
    """Return the document where no agent has left one: all profiles are pending."""
    from agent import __version__

    pending: tuple[ProfileStatus, ...] = ()
    error = None
    try:
        pending = tuple(map(reality.unknown, common.read_config(config).profiles))
    except ConfigurationError as problem:
        error = problem.message
    agent = status.AgentStatus(__version__, 0, now, str(config), config_error=error, mode="once")
    pid = lock.holder(directory)
    document = status.document(agent, pending, now, running=pid is not None)
    document["agent"] |= {"pid": pid or None, "started_at": None}
    return document


def _selected(document: Document, names: Sequence[str]) -> Document:
    """Keep the profiles asked for.

    Raises:
        click.UsageError: there is no such profile.
    """
    every = [entry["name"] for entry in document["profiles"]]
    unknown = [name for name in names if name not in every]
    if unknown:
        raise click.UsageError(f"no profile named {', '.join(unknown)}; known: {', '.join(every) or 'none'}")
    if names:
        document["profiles"] = [entry for entry in document["profiles"] if entry["name"] in names]
    return document


def exit_code(document: Document) -> int:
    """Return 0 if everything shown is fresh, else the code that most needs a person."""
    codes = set()
    for entry in document["profiles"]:
        if entry["state"] == "fresh":
            continue
        error = entry["last_error"]
        codes.add(69 if entry["state"] == "stopped" else EXIT_BY_KIND[error["kind"]] if error else 75)
    if not document["profiles"]:
        return 78 if document["agent"]["config"]["error"] else 69
    return max(codes, default=0)


def show(document: Document, *, as_json: bool = False) -> None:
    """Print the document as JSON, or as a table with what is wrong below it; on standard error, what is refused."""
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        now = datetime.now(UTC)
        lines = table(document, now) if document["profiles"] else []
        for entry in document["profiles"]:
            lines += complaints(entry, now)
        click.echo("\n".join([*lines, *footer(document, now)]).strip())
    for line in refusal(document):
        click.echo(line, err=True)


def table(document: Document, now: datetime) -> list[str]:
    """Return the table of profiles, line by line."""
    rows = [["PROFILE", "STATE", "RUNWAY", "NEXT TRY", "CREDENTIAL UNTIL"]]
    for entry in document["profiles"]:
        not_after = (entry["credential"] or {}).get("not_after")
        upcoming = _next_try(entry, now) if document["agent"]["running"] else "-"
        name = common.printable(entry["name"])
        rows.append([name, entry["state"], _runway(entry), upcoming, (not_after or "-")[:10]])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)]
        cells[1] = common.coloured(cells[1], COLOURS.get(row[1]))
        lines.append("  ".join(cells).rstrip())
    return lines


def _runway(entry: Document) -> str:
    return words.duration(timedelta(seconds=entry["runway_seconds"])) if entry["expires_at"] else "-"


def _next_try(entry: Document, now: datetime) -> str:
    refresh_at = status.parse_rfc3339(entry["refresh_at"])
    if refresh_at is None:
        return "-"
    return words.relative(refresh_at - now) if refresh_at > now else "now"


def complaints(entry: Document, now: datetime) -> list[str]:
    """Return what is wrong with a profile, in lines."""
    name, error = entry["name"], entry["last_error"]
    lines = []
    if error:
        code = f"{error['code']}: " if error["code"] and error["code"] not in error["message"] else ""
        lines += [f"{name}: {code}{error['message']}", f"  hint: {error['hint']}" if error["hint"] else ""]
        lines.append(f"  {_history(entry, error, now)}")
    candidate = (entry["credential"] or {}).get("candidate_error")
    if candidate and not (error and candidate in error["message"]):
        lines.append(f"{name}: not used: {candidate}")
    if entry["hook"]["error"]:
        lines.append(f"{name}: on_refresh failed: {entry['hook']['error']}")
    return ["", *(common.printable(line) for line in lines if line)] if lines else []


def _history(entry: Document, error: Document, now: datetime) -> str:
    """Say for how long it has been failing, and how to find the last attempt in the provider's log."""
    failures, at = entry["consecutive_failures"], status.parse_rfc3339(error["at"])
    times = f"{failures} failures in a row, the last" if failures > 1 else "failed" if failures else "seen"
    when = words.relative(min(at - now, timedelta(0))) if at else "at an unknown time"
    request = f"; correlation id {error['correlation_id']}" if error["correlation_id"] else ""
    return f"{times} {when}{request}"


def footer(document: Document, now: datetime) -> list[str]:
    """Say whether the agent runs."""
    agent = document["agent"]
    if not agent["running"]:
        return ["", "no agent is running; nothing renews these tokens"]
    if agent["pid"] and lock.is_stopped(agent["pid"]):
        return ["", asking.STOPPED.format(pid=agent["pid"]), f"  hint: {asking.GO_ON.format(pid=agent['pid'])}"]
    loaded_at = status.parse_rfc3339(agent["config"]["loaded_at"])
    clock = [f"{common.printable(host)}: {_clock(seconds)}" for host, seconds in agent["clock_skew_seconds"].items()]
    read = f"; configuration read {words.relative(min(loaded_at - now, timedelta(0)))}" if loaded_at else ""
    return ["", *clock, f"agent {common.printable(agent['version'])} running, pid {agent['pid']}{read}"]


def _clock(seconds: int) -> str:
    """Say how far the clock is off, and what to do."""
    from agent import diagnosis

    return f"{diagnosis.clock_is_off(timedelta(seconds=seconds))}: {diagnosis.SET_CLOCK}"


def refusal(document: Document) -> list[str]:
    """Say what is wrong with the configuration."""
    error = document["agent"]["config"]["error"]
    if not error:
        return []
    stays = ": it is refused, the old one stays" if document["agent"]["running"] else ""
    return [
        f"token-agent: the configuration on disk cannot be used{stays}",
        *(f"  {common.printable(problem)}" for problem in error.splitlines()),
    ]
