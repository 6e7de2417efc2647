"""The command line: finds the command, and turns what comes out of it into a message and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

import click

from agent import __version__, streams
from agent.commands import common
from agent.errors import AgentError, ConfigurationError, ShortageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from click.shell_completion import CompletionItem

COMMANDS = {
    "run": "Keep every profile's token file fresh until stopped.",
    "once": "Acquire what is due, write it, and exit.",
    "check": "Validate configuration, certificates and output folders.",
    "plan": "Show what a reload would do now.",
    "reload": "Let the running agent reload now.",
    "refresh": "Let the running agent get a new token now.",
    "status": "Show how fresh each profile is.",
    "wait": "Return when token files are valid.",
    "get": "Print a fresh token.",
    "exec": "Run a command with a valid token.",
    "show": "Decode a token's header and claims.",
    "cert": "Make a certificate, or look at one.",
    "doctor": "Examine an installed system: who can read, what is in the way.",
    "explain": "Explain an AADSTS error: what it means and how to fix it.",
    "schema": "Print the JSON Schema of the configuration.",
    "manual": "Print a manual page: of the commands, or of the configuration.",
    "emulator": "Run a local, strict stand-in for Entra's token endpoint.",
    "demo": "See the whole story on this machine, without any account.",
}
"""Every command with its line of help: listing them imports none of them."""
_BUG = "unexpected failure, please report it"
_SHORTAGE = ShortageError(
    "there is not enough memory, or there are not enough threads",
    hint="raise LimitAS=, LimitDATA= or TasksMax= of the unit (ulimit -v, -d, -u), or see what else uses them up",
)


class LazyGroup(click.Group):
    """Imports a command's module only when the command is called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; every command has --version and --config, also where it needs none."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"agent.commands.{cmd_name}").command
        for each in (command, *(command.commands.values() if isinstance(command, click.Group) else ())):
            _complete(each)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was meant."""
        near = difflib.get_close_matches(args[0].lower(), COMMANDS, 1, 0.6)
        if near and args[0] not in COMMANDS and not ctx.resilient_parsing:
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the commands from their lines of help, and options as every command does."""
        from click.shell_completion import CompletionItem

        commands = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from their lines of help."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _complete(command: click.Command) -> None:
    """Add the options that every command has, unless it has them itself."""
    names = {option for parameter in command.params for option in parameter.opts}
    if "--config" not in names:
        command.params.append(click.Option(["-c", "--config"], type=click.Path(), expose_value=False, hidden=True))
    if "--version" not in names:
        command.params.append(_version_option())


def _version_option() -> click.Option:
    def show(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it
        if value:
            click.echo(f"token-agent {__version__}")
            ctx.exit()

    return click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=show, help="Show the version and exit."
    )


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog=common.examples(
        "token-agent demo                     see it work, no account needed",
        "token-agent check --online           is everything right?",
        "token-agent run                      what the service runs",
        "token-agent explain AADSTS700027     what does this error want from me?",
    ),
)
@common.config_option
@click.pass_context
def main(ctx: click.Context, config: object) -> None:
    """Keep Microsoft Entra ID app-only tokens fresh in files, for applications that can only read a file."""
    ctx.obj = config


main.params.append(_version_option())


def run(arguments: Sequence[str]) -> int:
    """Run a command and return the exit code (sysexits.h; see `agent.errors`)."""
    code = _call(arguments)
    unwritten = streams.let_go(sys.stdout)
    streams.let_go(sys.stderr)
    return complain(unwritten) if unwritten and not code else code


def _call(arguments: Sequence[str]) -> int:
    """Run a command; what it raises becomes a message and an exit code."""
    try:
        result = main.main(args=list(arguments), prog_name="token-agent", standalone_mode=False)
    except click.exceptions.Exit as error:
        result = error.exit_code
    except click.ClickException as error:
        _show(error)
        result = error.exit_code
    except AgentError as error:
        result = complain(error)
    except (KeyboardInterrupt, click.Abort):
        result = 128 + signal.SIGINT  # as shells do
    except SystemExit:
        result = 0  # what click makes of a reader of our output that has left (`| head`)
    except Exception as error:  # noqa: BLE001 - the one place where a bug is turned into exit code 1
        result = complain(_SHORTAGE) if _is_shortage(error) else _unexpected(error)
    return result if isinstance(result, int) else 0


def _show(error: click.ClickException) -> None:
    """Print an error of click's to standard error; it may quote whatever stood on the command line."""
    shown = io.StringIO()
    error.show(shown)
    with contextlib.suppress(OSError):
        click.echo("\n".join(map(common.printable, shown.getvalue().split("\n"))), nl=False, err=True)


def complain(error: AgentError) -> int:
    """Print an operator's error to standard error, and return its exit code."""
    if isinstance(error, ConfigurationError):
        lines = [f"token-agent: {problem}" for problem in error.problems]
        count = len(error.problems)
        lines.append(f"token-agent: the configuration has {count} problem{'s' * (count != 1)}")
    else:
        lines = [f"token-agent: {error.message}", *([f"  hint: {error.hint}"] if error.hint else [])]
    _say(lines)
    return error.exit_code


def _is_shortage(error: BaseException) -> bool:
    """Tell whether nothing is wrong but that this machine has no memory, or no thread, left."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_shortage, error.exceptions))
    return isinstance(error, MemoryError) or str(error) == "can't start new thread"


def _unexpected(error: Exception) -> int:
    """Tell of a bug: places and messages only, never values of variables. A service tells its log."""
    from agent import log, redaction

    text = redaction.redact("".join(traceback.format_exception(error)))
    if log.is_configured():
        log.get_logger().critical("agent.failed", message=_BUG, exception=text)
    else:
        _say([f"token-agent: {_BUG}", text])
    return 1


def _say(lines: Iterable[str]) -> None:
    """Print to standard error, to the journal as errors; what cannot be written does not change the outcome."""
    from agent import journal

    mark = "<3>" if journal.is_stream(os.environ) else ""
    shown = [f"{mark}{common.printable(line)}" for text in lines for line in text.splitlines()]
    with contextlib.suppress(OSError):
        click.echo("\n".join(shown), err=True)
