"""``token-agent demo``: the whole story on one machine, without any account."""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from agent.commands import common

ACTS = 14
"""Seconds that the acts need, about: most of them is waiting for tokens to come due."""


@click.command(
    epilog=common.examples(
        "token-agent demo",
        "token-agent demo --seconds 60        more renewals to watch",
        "token-agent demo --no-color | tee demo.txt",
    )
)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 3600),
    default=20.0,
    show_default=True,
    help=f"How long to show it; the acts need about {ACTS}, and are played whole.",
)
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR is honoured as well).")
def command(seconds: float, *, no_color: bool) -> int:
    """See the whole story on this machine: no account, no root, no network.

    The real agent keeps three profiles fresh against an emulated identity provider: tokens that live fifteen
    seconds, an outage just when they are due, certificates replaced under the running agent, a kill -9, and a program
    that reads all the while. Everything lives in a temporary directory and is gone afterwards.
    """
    from agent.demo.stage import Stage, StoryError
    from agent.demo.story import Story
    from agent.demo.view import View

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    if seconds < ACTS:
        click.echo(f"The acts need about {ACTS} s, and are played whole.")
    with Stage() as stage:
        try:
            Story(stage, View(stage, color=not no_color)).play(seconds)
        except StoryError as error:
            click.echo(f"token-agent: the demonstration failed: {error}", err=True)
            for event in stage.events[-5:]:
                click.echo(f"  {event}", err=True)
            return 1
        except KeyboardInterrupt as interrupt:
            click.echo("token-agent: ended early; nothing is left behind", err=True)
            return 128 + next(iter(interrupt.args), signal.SIGINT)
    sys.stdout.flush()
    return 0


def _interrupt(number: int, _frame: Any) -> None:
    """End as Ctrl-C does: the processes of the demonstration are in sessions of their own."""
    raise KeyboardInterrupt(number)
