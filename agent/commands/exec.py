"""``token-agent exec``: runs a command once its token is valid, and starts it anew with each new token if asked to."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.commands import asking, common, completing, consumer, held
from agent.config.values import check_variable
from agent.errors import AgentError, OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from agent.status import ProfileStatus


PATH_VARIABLE = "TOKEN_FILE"
"""Tells CMD where the token is."""


def _variable(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value == PATH_VARIABLE:
        raise click.BadParameter(f"{value} holds the path of the token file; name another one for the token itself")
    try:
        return None if value is None else check_variable(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class WithCommand(click.Command):
    """A command whose own options end where CMD begins, as with `env` and `nice`; a ``--`` before it is as good."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take nothing behind the first word of CMD for an option of ours."""
        begin = self._command_in(args)
        return super().parse_args(ctx, args if begin is None else [*args[:begin], "--", *args[begin:]])

    def _command_in(self, args: Sequence[str]) -> int | None:
        """Return where the second word that is no option stands; None if there is none before a ``--``."""
        valued = {
            name for each in self.params if isinstance(each, click.Option) and not each.is_flag for name in each.opts
        }
        words, is_value = 0, False
        for place, arg in enumerate(args):
            if is_value:
                is_value = False
            elif arg == "--":
                return None
            elif arg.startswith("-") and arg != "-":
                is_value = arg in valued  # else it stands behind a `=`, or there is none
            elif (words := words + 1) == 2:  # noqa: PLR2004 - NAME and CMD
                return place
        return None


@click.command(
    cls=WithCommand,
    epilog=common.examples(
        "token-agent exec graph -- ./nightly-report.sh",
        "token-agent exec graph --env GRAPH_TOKEN -- terraform apply",
        "token-agent exec billing --env TOKEN --restart-on-refresh -- billing",
    ),
)
@click.argument("name", metavar="NAME", shell_complete=completing.profiles)
@click.option("--env", "variable", metavar="VAR", callback=_variable, help="Put the token itself into this variable.")
@click.option("--restart-on-refresh", is_flag=True, help="End CMD when the token changes, and start it anew.")
@consumer.timeout_option
@common.config_option
@click.argument(
    "argv",
    metavar="[--] CMD...",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    shell_complete=completing.files,
)
def command(
    name: str,
    argv: tuple[str, ...],
    config: Path | None,
    timeout: timedelta,
    variable: str | None,
    *,
    restart_on_refresh: bool,
) -> int:
    """Wait for a valid token, and run CMD with TOKEN_FILE set to the path of the profile's first token file.

    CMD has our terminal and standard input, and gets the signals that we get; its exit status is ours, 128+n if it
    died of signal n. With --restart-on-refresh it gets SIGTERM when the token has changed, after 10 s SIGKILL, and
    is started again once whatever it had started is ended too; when it ends by itself, so do we. A token is never on a
    command line; in an environment it can be read by root and by CMD's own user, and ages: prefer TOKEN_FILE. In a
    unit set KillMode=mixed, or systemd stops CMD itself as well, which then hears each signal twice, and
    SuccessExitStatus=143, or a stop that CMD dies of is taken for a failure.

    Exit codes: CMD's; 126 CMD cannot be executed; 127 it is not found; 2 there is no such profile; 75 no valid token
    in time; 69 the same, and no agent is running; 78 the token file or the configuration cannot be used.
    """
    from agent import child

    knowledge = consumer.Knowledge(asking.directory(config), config)
    with asking.blaming(config):
        (profile,) = consumer.wait(knowledge, [name], None, timeout)
    token = Token(profile, config)
    if variable or restart_on_refresh:
        token.read()

    def environ() -> dict[str, str]:
        token.read_again()
        return {**os.environ, PATH_VARIABLE: str(token.path)} | ({variable: token.secret} if variable else {})

    try:
        return child.supervise(argv, environ, token.is_new if restart_on_refresh else None)
    except OSError as error:
        code = child.NOT_FOUND if isinstance(error, FileNotFoundError) else child.NOT_EXECUTABLE
        raise asking.failed(f"{argv[0]}: {error.strerror}", code) from None


class Token:
    """The token that the command was started with, if that matters; ``path`` is the file it reads."""

    def __init__(self, profile: ProfileStatus, config: Path | None) -> None:
        self.path = Path(profile.token_files[0].path)
        self.secret = ""
        self._profile, self._config = profile, config
        self._version: tuple[int, ...] = ()

    def read(self) -> None:
        """Read the token.

        Raises:
            OutputError: there is none that can be read.
        """
        self._version = self._stat()
        found = held.read(self._profile, self._config)
        if found is None:
            raise OutputError(self.path, "holds no token")
        self.secret = found.secret

    def read_again(self) -> None:
        """Bring the token up to date; while its file is gone or unreadable, the last one stays."""
        if self.secret and self._stat() not in ((), self._version):
            with contextlib.suppress(AgentError):
                self.read()

    def is_new(self) -> bool:
        """Tell whether there is another token since the last look."""
        before = self.secret
        self.read_again()
        return self.secret != before

    def _stat(self) -> tuple[int, ...]:
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size
