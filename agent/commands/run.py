"""``token-agent run``: the agent itself, in the foreground, as systemd wants it."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import click

from agent.commands import common

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config.model import Config


@click.command(
    epilog=common.examples(
        "token-agent run",
        "token-agent run --config ./config.toml",
        "kill -HUP PID          look at configuration and certificates again, now",
    )
)
@common.config_option
def command(config: Path | None) -> int:
    """Keep every profile's token file fresh until SIGTERM or SIGINT; SIGHUP reloads.

    Outages and refusals never end it: it retries. It exits with 78 only when the configuration cannot be used
    at start, and with 75 when another agent already keeps the same runtime directory.
    """
    import os

    import anyio

    from agent import log
    from agent.commands import assembly
    from agent.engine.loading import Loader
    from agent.engine.supervisor import Supervisor

    def accept(loaded: Config) -> None:
        log.configure(loaded.agent.log_level, loaded.agent.log_format, os.environ)

    loader = Loader(common.config_path(config, os.environ), os.environ)
    loaded = loader.config()
    accept(loaded)

    async def main() -> None:
        with (
            assembly.engine(loaded, "run") as services,
            anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals,
        ):
            await Supervisor(services, loaded, loader, accept).run(signals)

    anyio.run(main)
    leave_now()
    return 0


def leave_now() -> None:
    """End the process even if an abandoned thread still waits for a name look-up, which nothing can interrupt."""
    import os
    import sys

    if any(thread.is_alive() and not thread.daemon for thread in threading.enumerate()[1:]):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
