"""What a shell offers while a command is typed (click's completion calls it): quick, and silent whatever is wrong."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.commands import common
from agent.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import click
    from click.shell_completion import CompletionItem


def profiles(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of profiles that are not on the line yet."""
    given = context.params.get(parameter.name or "")
    config = context.params.get("config") or context.find_root().params.get("config")
    try:
        path = common.config_path(config, os.environ)
    except ConfigurationError:
        return []
    names = dict.fromkeys(_names(path))
    return [name for name in names if name.startswith(incomplete) and not (isinstance(given, tuple) and name in given)]


def profiles_or_files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of profiles; where none fits, the shell itself offers files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in profiles(context, parameter, incomplete)] or files(
        context, parameter, incomplete
    )


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave it to the shell to offer files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _names(config: Path) -> Iterator[str]:
    """Yield what the configuration names, and what the agent keeps: not everybody may read the configuration."""
    from agent import files, status
    from agent.commands import asking
    from agent.peek import peek_names

    yield from peek_names(config, os.environ, files.read_bytes, files.expand)
    with suppress(OSError, ValueError):
        content = files.read_bytes(asking.guess(config).runtime_dir / "status.json", limit=status.LARGEST)
        yield from (profile.name for profile in status.parse(content)[1])
