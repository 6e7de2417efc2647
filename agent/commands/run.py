"""``token-agent run``: the agent itself, in the foreground, as systemd wants it."""

from __future__ import annotations

import contextlib
import errno
import signal
import threading
from typing import TYPE_CHECKING, cast

import click

from agent.commands import common

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.config.model import Config
    from agent.errors import AgentError
    from agent.systemd import Manager

PASSING = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN,
}  # fmt: skip
"""Troubles of the machine, not of the configuration; with 78 systemd would never try again (see the unit)."""


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
    at start, and with 75 when another agent already keeps the same runtime directory, or the machine has no space,
    no files or no memory left to begin with.
    """
    import os

    from agent import messages, systemd

    messages.STANDARD_ERROR.patience = messages.PATIENCE
    manager = systemd.Manager.of(os.environ)
    with telling_failure(manager):
        run(config, manager)
    leave_now()
    return 0


def run(config: Path | None, manager: Manager) -> None:
    """Load the configuration and run the agent until it is stopped.

    Args:
        config: of the command line.
        manager: what to keep informed.
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
            await Supervisor(services, loaded, loader, accept, manager).run(signals)

    anyio.run(main)


@contextlib.contextmanager
def telling_failure(manager: Manager) -> Iterator[None]:
    """Tell the manager why the agent cannot start, so that ``systemctl status`` shows it."""
    from agent import systemd
    from agent.errors import AgentError, ConfigurationError

    try:
        yield
    except AgentError as caught:
        error, cause = passing(caught), caught.__cause__
        number = cause.errno if isinstance(cause, OSError) else errno.EINVAL if error.exit_code == 78 else None  # noqa: PLR2004 - sysexits.h
        text = str(error.problems[0]) if isinstance(error, ConfigurationError) and error.problems else error.message
        manager.tell(*systemd.failure(text, error.exit_code, number))
        if error is caught:
            raise
        raise error from caught


def passing(error: AgentError) -> AgentError:
    """Return an error as it is to end the agent: what the machine lacks can come back, so systemd tries again.

    A file system that is read-only is so by configuration, unless the agent has written there before.
    """
    from agent.errors import ConfigurationError, OutputError, TransientError
    from agent.output import sink

    cause = error.__cause__
    if isinstance(error, ConfigurationError) and error.problems:
        path = error.problems[0].file
    elif isinstance(error, OutputError):
        path = error.path
    else:
        return error
    number = cause.errno if isinstance(cause, OSError) else None
    if number not in PASSING and not (number == errno.EROFS and path.exists()):
        return error
    told = sink.explained(path, cast("OSError", cause))
    return TransientError(told.message, hint=told.hint)


def leave_now() -> None:
    """End the process even if an abandoned thread still waits for a name look-up, which nothing can interrupt."""
    import os
    import sys

    if any(thread.is_alive() and not thread.daemon for thread in threading.enumerate()[1:]):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
