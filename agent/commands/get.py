"""``token-agent get``: a fresh token on standard output, never one that has less life left than was asked for."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from agent import formats, status, tokens, words
from agent.commands import asking, common, completing, consumer, held
from agent.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.commands.consumer import Knowledge
    from agent.commands.held import Held
    from agent.config.model import Profile

TRIES = 4
"""How often the agent is asked, where tokens age faster than this machine works."""
MARGIN = timedelta(seconds=5)
"""What the agent is asked for beyond what is needed: answer and print take time."""


@click.command(
    epilog=common.examples(
        "token-agent get graph | token-agent show -",
        "token-agent get billing --format header | curl -H @- https://api.test/",
        "token-agent get graph --min-valid 30m --format json",
    )
)
@click.argument("name", metavar="NAME", shell_complete=completing.profiles)
@consumer.min_valid_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["raw", "json", "header", "env"]),
    default="raw",
    show_default=True,
    help="How to print it; as in a token file.",
)
@common.config_option
def command(name: str, config: Path | None, min_valid: timedelta | None, form: str) -> int:
    """Print a profile's token; if too little of its life is left, a new one from the running agent.

    The token comes from the profile's token file, which the caller must be able to read; a new one can be asked for
    by root and by the agent's own user. A token that has less left than --min-valid is never printed, even if no better
    one is to be had. On a terminal a newline follows the token, in a pipe nothing does.

    Exit codes: 0 printed; 75 no such token now, try again; 77 the provider refuses, a person must act; 78 a file
    cannot be read, or is wrong; 69 too little is left and no agent can be asked.
    """
    knowledge = consumer.Knowledge(asking.directory(config), config)
    found = fresh(knowledge, name, min_valid, config, form)
    text = rendered(found, form, name, config)
    click.echo(text, nl=sys.stdout.isatty() and not text.endswith("\n"))
    return 0


def fresh(knowledge: Knowledge, name: str, asked: timedelta | None, config: Path | None, form: str) -> Held:
    """Return a token that is good for long enough, from the file, or after the agent has refreshed it."""
    found, need = _look(knowledge, name, asked, config, form)
    for _ in range(TRIES):
        if found and _serves(found, need):
            return found
        # The agent may know more than the file, by another caller's refresh; what has no token it has to write anew.
        enough = {"min_valid_seconds": (need + min(need / 10, MARGIN)).total_seconds()}
        outcome = _refresh(knowledge, name, enough if found else {})
        _settle(knowledge, name, outcome)
        found, need = _look(knowledge, name, asked, config, form)
        _judge(name, outcome, found, need)
        if found and tokens.fingerprint(found.secret) != outcome["token_sha256"] and not _serves(found, need):
            found = None
    hint = f"see `token-agent status {name}`"
    raise asking.failed(f"{name}: the agent has a token, and its token file has not", 75, hint)


def _judge(name: str, outcome: Mapping[str, Any], found: Held | None, need: timedelta) -> None:
    """End the command if asking again would not help."""
    if found and _serves(found, need):
        return
    if outcome["error"]:
        raise _failed(name, outcome["error"], found, need)
    if (life := _life(outcome)) + consumer.RESOLUTION < need:
        short = f"{name}: a new token is good for {words.duration(life)}, and {words.duration(need)} are asked for"
        raise asking.failed(short, 75, "ask for less with --min-valid")


def _look(
    knowledge: Knowledge, name: str, asked: timedelta | None, config: Path | None, form: str
) -> tuple[Held | None, timedelta]:
    """Return the token on disk, and how long it has to be good."""
    found = held.current(knowledge, name, config, form)
    profile = knowledge.profiles().get(name)
    return found, consumer.needed(profile, asked) if profile else asked or timedelta(0)


def _serves(found: Held, need: timedelta) -> bool:
    return found.left > timedelta(0) and found.left >= need


def _life(outcome: Mapping[str, Any]) -> timedelta:
    """Return how long the agent's token was good when it was new."""
    ends, begins = (status.parse_rfc3339(outcome[key]) for key in ("expires_at", "acquired_at"))
    return ends - begins if ends and begins else timedelta(0)


def _settle(knowledge: Knowledge, name: str, outcome: Mapping[str, Any]) -> None:
    """Wait until what is known to everybody is what the agent has answered, or is newer."""
    deadline, acquired_at = time.monotonic() + held.LAG, status.parse_rfc3339(outcome["acquired_at"])
    while acquired_at and time.monotonic() < deadline:
        known = knowledge.profiles().get(name)
        if known and known.acquired_at and known.acquired_at >= acquired_at:
            break
        time.sleep(held.GLANCE)


def _refresh(knowledge: Knowledge, name: str, wish: Mapping[str, Any]) -> dict[str, Any]:
    """Let the agent acquire a token if it has none that serves; return how the profile stands."""
    try:
        answer = asking.ask(knowledge.directory, {"op": "refresh", "names": [name], **wish}, knowledge.config)
    except UnreachableError as error:
        knowledge.reject_unknown([name])
        known = knowledge.configured or knowledge.profiles()
        if known and name not in known:
            raise asking.unknown([name], list(known)) from None
        hint = f"{error.hint}; or write one with `token-agent once {name}`"
        raise UnreachableError(f"{name}: no token is good for long enough, and {error.message}", hint=hint) from None
    return asking.outcomes(asking.accept(answer), name)[name]


def _failed(name: str, error: Mapping[str, Any], found: Held | None, need: timedelta) -> click.exceptions.Exit:
    """Say why there is no new token, and that the old one is not printed."""
    code = f" ({error['code']})" if error["code"] and error["code"] not in error["message"] else ""
    left = found.left if found else timedelta(0)
    if left > timedelta(0):
        asking.say(f"{name}: good for {words.duration(left)} only, and {words.duration(need)} are asked for")
    exit_code = asking.EXIT_BY_KIND.get(error["kind"], 75)
    return asking.failed(f"{name}: {error['message']}{code}", exit_code, error["hint"] or "")


def rendered(found: Held, form: str, name: str, config: Path | None) -> str:
    """Return a token in a format: as it lies in its file if that has the format, else as such a file would be."""
    if form == "raw":
        return found.secret
    if found.file.format == form:
        return found.content.decode()
    token = tokens.AccessToken(found.secret, "Bearer", datetime.now(UTC), found.expires_at or datetime.now(UTC))
    profile = _profile(name, config) if form == "json" else held.NO_PROFILE
    return formats.render(token, profile, held.shape(found.file.path, form)).decode()


def _profile(name: str, config: Path | None) -> Profile:
    """Return the profile, which knows what a token does not say.

    Raises:
        ConfigurationError: the configuration cannot be read.
    """
    known = {profile.name: profile for profile in common.read_config(config).profiles}
    if name not in known:
        raise asking.unknown([name], list(known))
    return known[name]
