"""``token-agent once``: a single round, for cron, for timers, and for a first try."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from agent.commands import common, completing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agent.config.model import Config, Profile
    from agent.engine.progress import Progress

SEVERITY = (78, 77, 75, 1)
"""Of several failures the exit code names the one that most needs a person."""


@click.command(
    epilog=common.examples(
        "token-agent once                 bring every profile up to date",
        "token-agent once graph --force   a new token now, due or not",
        "token-agent once --quiet         from cron: mail comes only of trouble",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completing.profiles)
@click.option("--force", is_flag=True, help="Acquire also what is not due.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what is wrong, so that cron has nothing to mail.")
@common.config_option
def command(names: tuple[str, ...], config: Path | None, *, force: bool, quiet: bool) -> int:
    """Acquire what is due, write it, and exit.

    Without NAME all profiles. A token on disk that is not due is left alone. Where a token is new, `on_refresh` runs
    before the end; that it failed is said, and tried again by the next round. Root acts as the service's user where
    there is one, so that the service can go on with what was written. Exit codes are of the tokens: 0 everything
    asked for is fresh; 75 not now, try again; 77 refused, a person must act; 78 a file or folder is wrong. Of several
    the one that most needs a person.
    """
    import os

    import anyio

    from agent import log, streams
    from agent.commands import assembly, becoming
    from agent.credentials.store import CredentialStore
    from agent.engine.oneshot import once

    seen_by = becoming.service(config)
    loaded = becoming.read_config(config, seen_by.environ)
    selected = select(loaded, names)
    becoming.make_promised(seen_by)
    becoming.become(seen_by)
    dull = (sys.stderr.isatty() or quiet) and loaded.agent.log_level == "info"
    level = "error" if dull else loaded.agent.log_level
    log.configure(level, loaded.agent.log_format, os.environ)

    async def main() -> tuple[dict[str, Progress], dict[str, str | None]]:
        with assembly.engine(loaded, "once") as services:
            results = await once(loaded, selected, services, CredentialStore(), force=force)
            return results, {name: services.board.profiles[name].hook.error for name in results}

    outcome = anyio.run(main)
    try:
        return report(*outcome, quiet=quiet)
    except streams.ResultError as error:  # the tokens are written, and only that counts here
        streams.let_go(sys.stdout)
        click.echo(f"token-agent: {error.message}", err=True)
    return exit_code(outcome[0])


def select(config: Config, names: Sequence[str]) -> list[Profile]:
    """Return the profiles named, or all.

    Raises:
        click.UsageError: there is no such profile.
    """
    known = {profile.name: profile for profile in config.profiles}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"no profile named {', '.join(unknown)}; known: {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


def report(results: Mapping[str, Progress], hook_errors: Mapping[str, str | None], *, quiet: bool = False) -> int:
    """Print how each profile stands, and return the exit code, which is of the tokens alone."""
    width = max(map(len, results), default=0)
    for name, progress in results.items():
        token, error = progress.token, progress.error
        if error is None and token is not None:
            if not quiet:
                click.echo(f"{name:{width}}  fresh until {token.expires_at:%Y-%m-%d %H:%M:%S} UTC")
            continue
        code = f" ({error.code})" if error and error.code and error.code not in error.message else ""
        click.echo(f"{name:{width}}  failed: {common.printable(error.message if error else 'unknown')}{code}", err=True)
        if error and error.hint:
            click.echo(f"{'':{width}}  hint: {common.printable(error.hint)}", err=True)
    for name in (name for name in results if hook_errors.get(name)):
        click.echo(f"{name:{width}}  on_refresh failed: {common.printable(str(hook_errors[name]))}", err=True)
    return exit_code(results)


def exit_code(results: Mapping[str, Progress]) -> int:
    """Return 0 if every token is fresh, else the code of the failure that most needs a person."""
    codes = {progress.exit_code for progress in results.values()}
    return next((code for code in SEVERITY if code in codes), 0)
