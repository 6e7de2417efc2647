"""``token-agent wait``: returns when token files are valid, for the services that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agent.commands import asking, common, completing, consumer

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path


@click.command(
    epilog=common.examples(
        "token-agent wait graph billing",
        "token-agent wait graph --min-valid 10m --timeout 2m",
        "ExecStartPre=/usr/bin/token-agent wait billing  in a unit that also has",
        "                                                After=token-agent.service",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completing.profiles)
@consumer.min_valid_option
@consumer.timeout_option
@common.config_option
def command(names: tuple[str, ...], config: Path | None, min_valid: timedelta | None, timeout: timedelta) -> int:
    """Return when the token files of the named profiles, or of all, are there and valid.

    Any user may wait: neither the configuration nor the tokens need be readable. While there is nothing to wait for
    yet, as before the agent's start, this waits as well.

    Exit codes: 0 all are valid; 2 there is no such profile; 75 not in time; 69 not in time, and no agent is running;
    78 the same, and the configuration cannot be used; or the one named is not there, and with it unknown which agent
    is meant.
    """
    knowledge = consumer.Knowledge(asking.directory(config), config)
    with asking.blaming(config):
        consumer.wait(knowledge, names, min_valid, timeout)
    return 0
