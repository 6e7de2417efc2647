"""``token-agent reload``: the running agent looks at configuration and certificates again, now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from agent.commands import asking, common
from agent.errors import UnreachableError

if TYPE_CHECKING:
    from pathlib import Path

    from agent.control import Answer


@click.command(
    epilog=common.examples(
        "token-agent reload                      do not wait for the watch",
        "token-agent plan && token-agent reload  see it first",
        "ExecReload=/usr/bin/token-agent reload  systemctl tells of refusals",
    )
)
@common.config_option
def command(config: Path | None) -> int:
    """Ask the running agent to reload now, and print what changed.

    Only profiles that differ are restarted, and they go on with their tokens. If anything is wrong, all problems are
    printed and nothing changes. A certificate that cannot be used is named, and the one at work stays.

    Exit codes: 0 reloaded; 78 the configuration is wrong: it is refused, or no agent is found by it; 69 no agent is
    running; 75 it does not answer in time (90 s), or is stopped by a signal.
    """
    asking.show_lines(asked(config, "reload"))
    return 0


def asked(config: Path | None, op: str) -> Answer:
    """Return what the agent answers to a request about its configuration.

    Raises:
        ConfigurationError: there is no agent, or it is not known where, and no configuration that could be used.
        UnreachableError: there is no agent.
        TransientError: it does not answer in time.
    """
    directory = asking.directory(config)
    try:
        return asking.accept(asking.ask(directory, {"op": op}, config, patience=asking.SHORT_PATIENCE))
    except UnreachableError:
        if not os.path.lexists(common.config_path(config, os.environ)):
            common.read_config(config)  # of interest to nobody but those who want to have it taken over
        raise
