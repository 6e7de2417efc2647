"""``token-agent refresh``: new tokens now, from the running agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent import status
from agent.commands import asking, common, completing, consumer
from agent.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SEVERITY = (78, 77, 75)
"""Of several failures the exit code names the one that most needs a person; as `once` does."""


@click.command(
    epilog=common.examples(
        "token-agent refresh graph    after a role was granted: the token has it",
        "token-agent refresh graph billing",
        "token-agent refresh --all    after an outage: no waiting for the next try",
    )
)
@click.argument("names", nargs=-1, metavar="NAME... | --all", shell_complete=completing.profiles)
@click.option("--all", "everything", is_flag=True, help="Refresh every profile.")
@common.config_option
def command(names: tuple[str, ...], config: Path | None, *, everything: bool) -> int:
    """Ask the running agent for new tokens now, and wait for one attempt each.

    Also ends the waiting of a profile that the provider refused. A token that is still good stays in its file if the
    attempt fails.

    Exit codes: 0 all have a new token; 75 not now, try again; 77 refused, a person must act; 78 a file or folder
    is wrong (of several the one that most needs a person); 69 no agent is running. One that is stopped by a signal,
    or does not answer in time (5 min), is 75, too.
    """
    if everything and names:
        raise click.UsageError("--all is every profile: leave out the names, or leave out --all")
    if not everything and not names:
        raise click.UsageError("name profiles, or say --all")
    request = {"op": "refresh", "names": "all" if everything else list(names)}
    directory = asking.directory(config)
    try:
        answer = asking.accept(asking.ask(directory, request, config))
    except UnreachableError:
        consumer.Knowledge(directory, config).reject_unknown(names)
        raise
    return report(asking.outcomes(answer, *names))


def report(profiles: Mapping[str, Any]) -> int:
    """Print how each profile stands, and return the exit code."""
    profiles = {common.printable(name): outcome for name, outcome in profiles.items()}
    width = max(map(len, profiles), default=0)
    codes = set()
    for name, outcome in profiles.items():
        error = outcome["error"]
        if error is None:
            click.echo(f"{name:{width}}  fresh until {_instant(outcome['expires_at'])}")
            continue
        codes.add(asking.EXIT_BY_KIND.get(error["kind"], 75))
        code = f" ({error['code']})" if error["code"] and error["code"] not in error["message"] else ""
        click.echo(f"{name:{width}}  failed: {common.printable(error['message'] + code)}", err=True)
        if error["hint"]:
            click.echo(f"{'':{width}}  hint: {common.printable(error['hint'])}", err=True)
        if outcome["state"] in ("fresh", "degraded") and outcome["expires_at"]:
            click.echo(f"{'':{width}}  the token on disk is good until {_instant(outcome['expires_at'])}", err=True)
    return next((code for code in SEVERITY if code in codes), 0)


def _instant(text: str | None) -> str:
    instant = status.parse_rfc3339(text)
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC" if instant else "-"
