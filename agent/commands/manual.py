"""``token-agent manual``: the manual pages, made of the commands' own help and of the schema of the configuration."""

from __future__ import annotations

import inspect
import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from agent import __version__
from agent.commands import common, troff

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PAGES = {"1": "token-agent", "5": "token-agent.toml"}
DESCRIPTION = (
    (
        "Applications that can do no more than read a token from a file get one here that is always fresh. "
        "`token-agent` reads a list of profiles (an app, its certificate, a scope, the files), acquires app-only "
        "tokens (OAuth 2.0 client credentials) well ahead of expiry, and replaces each file as a whole. When a "
        "certificate or the configuration changes on disk, it follows by itself."
    ),
    (
        "It usually runs as a service: `systemctl start token-agent`. Everybody else looks at what it does with the "
        "other commands. Each of them has `--help`, `--version` and `--config`."
    ),
)
EXIT_STATUS = {
    "0": "done; everything asked for is fresh",
    "1": "unexpected failure: a bug",
    "2": "wrong use of the command line",
    "69": "the running agent could not be reached",
    "75": "not now: provider, network or clock; trying again later can help",
    "77": "refused by the provider: a person must act",
    "78": "configuration, certificate, key or output folder is wrong",
    "128+n": "`exec`: the child died of signal n",
}
ENVIRONMENT = {
    "TOKEN_AGENT_CONFIG": "The configuration, where `--config` names none.",
    "RUNTIME_DIRECTORY, STATE_DIRECTORY": "Set by systemd for the service: where the agent keeps its files, if the "
    "configuration does not say.",
    "CREDENTIALS_DIRECTORY": "Set by systemd: where paths of the configuration may begin.",
    "NO_COLOR": "No colours, if it is set.",
}
FILES = {
    str(common.DEFAULT_CONFIG): "The configuration, see token-agent.toml(5).",
    "/run/token-agent/NAME.token": "The token of a profile, unless the profile says otherwise.",
    "/run/token-agent/status.json": "How all profiles stand, for everybody to read.",
    "/var/lib/token-agent/state.json": "What must survive a restart; no secrets.",
}
SYNTAX = (
    (
        "TOML. An unknown key is an error, so that no slip goes unnoticed; `token-agent check` reports everything "
        "that is wrong at once, with file, line and the nearest valid key. A running agent follows changes by "
        "itself; what cannot be used changes nothing."
    ),
    (
        "A duration is `90s`, `10m`, `1h30m` or `2d` in quotes, or a number of seconds. Where a list is meant, a "
        "single value will do. Relative paths start from the directory of the file that names them, those of token "
        "files from `runtime_dir`. A path may begin with `${CREDENTIALS_DIRECTORY}`, `${RUNTIME_DIRECTORY}`, "
        "`${STATE_DIRECTORY}` or `${CONFIGURATION_DIRECTORY}`, as systemd sets them; nothing else is expanded."
    ),
    (
        "A profile needs `name`, `client_id`, `scopes`, exactly one credential (`certificate`, `federated` or "
        "`client_secret_file`), and exactly one provider (`tenant`, `authority` or `oidc_issuer`); everything "
        "else may be left out."
    ),
)
EXAMPLE = """\
[[profile]]
name = "graph"
tenant = "contoso.onmicrosoft.com"
client_id = "ace7a10d-aaaa-4a01-8663-1440b6b78cb9"
scopes = ["https://graph.microsoft.com/.default"]
certificate = "/etc/token-agent/graph.pem"
"""
_INTRODUCED = re.compile(r"^``[^`]+``: (.)")
"""How the schema begins to describe a table; here its name is the heading."""
_COLUMNS = re.compile(r"(\S.*\S)  +(\S.*)")


@click.command(
    epilog=common.examples(
        "token-agent manual | man -l -                  read it",
        "token-agent manual 5 | man -l -                that of the configuration",
        "token-agent manual 1 >man1/token-agent.1       install it, in a directory",
        "token-agent manual 5 >man5/token-agent.toml.5  of $MANPATH",
    )
)
@click.argument("section", type=click.Choice(list(PAGES)), default="1", metavar="[1|5]")
def command(section: str) -> None:
    """Print a manual page: 1 is token-agent(1), all commands; 5 is token-agent.toml(5), the configuration.

    In the format of man(7). The date of the page is $SOURCE_DATE_EPOCH if that is set, else today.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    date = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)
    body = of_commands() if section == "1" else of_configuration()
    click.echo(troff.page(PAGES[section], section, f"{date:%Y-%m-%d}", f"token-agent {__version__}", body))


def of_commands() -> Iterator[str]:
    """Yield token-agent(1)."""
    main = click.get_current_context().find_root()
    group = main.command
    assert isinstance(group, click.Group)  # noqa: S101 - it is the command line itself
    yield from _name("token-agent", "keep Microsoft Entra ID app-only tokens fresh in files")
    yield from troff.heading("SYNOPSIS")
    yield troff.usage("token-agent [OPTIONS] COMMAND [ARGUMENTS]")
    yield from troff.heading("DESCRIPTION")
    yield from _paragraphs(DESCRIPTION)
    yield from troff.heading("OPTIONS")
    yield from _options(group, main)
    yield from troff.heading("COMMANDS")
    for name in group.list_commands(main):
        yield from _command(group.get_command(main, name), f"token-agent {name}", main)
    for title, entries in (("EXIT STATUS", EXIT_STATUS), ("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)):
        yield from troff.heading(title)
        yield from _list(entries)
    yield from troff.heading("EXAMPLES")
    yield from _epilog(group, title="")
    yield from troff.heading("SEE ALSO")
    yield troff.prose("token-agent.toml(5), systemctl(1), journalctl(1), systemd.exec(5)")


def _name(name: str, text: str) -> Iterator[str]:
    yield from troff.heading("NAME")
    yield rf"{troff.literal(name)} \- {troff.prose(text)}"


def _paragraphs(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        yield from troff.paragraph(text)


def _list(entries: Mapping[str, str]) -> Iterator[str]:
    for tag, text in entries.items():
        yield from troff.item(troff.bold(tag), text)


def _command(command: click.Command | None, name: str, parent: click.Context) -> Iterator[str]:
    """Yield a command with its subcommands: how it is called, what it does, its options, its examples."""
    if command is None:
        return
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            yield from _command(command.get_command(context, each), f"{name} {each}", context)
        return
    yield from troff.subheading(" ".join([name, *command.collect_usage_pieces(context)]).replace(" [OPTIONS]", ""))
    yield from _paragraphs(inspect.cleandoc(command.help or "").split("\n\n"))
    yield from _options(command, context)
    yield from _epilog(command)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield the options of a command; those of all commands are told once, at the top."""
    common_to_all = {
        option for parameter in context.find_root().command.get_params(context) for option in parameter.opts
    }
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record and (context.parent is None or common_to_all.isdisjoint(parameter.opts)):
            yield from troff.item(troff.usage(record[0]), record[1])


def _epilog(command: click.Command, title: str = "Examples:") -> Iterator[str]:
    """Yield what stands below the options in the help: blocks of lines, each with a sentence before it."""
    for block in (command.epilog or "").split("\b\n")[1:]:
        lines = block.rstrip().splitlines()
        first = next(number for number, line in enumerate(lines) if line.startswith(" "))
        sentence = " ".join(lines[:first])
        if shown := title if sentence == "Examples:" else sentence:
            yield from troff.paragraph(shown)
        yield from _rows([line[2:] for line in lines[first:]])


def _rows(lines: Sequence[str]) -> Iterator[str]:
    """Yield lines as they are; a table with explanations of several lines as a list."""
    rows: list[tuple[str, str]] = []
    for line in lines:
        columns = _COLUMNS.fullmatch(line)
        if line.startswith(" ") and rows:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {line.strip()}")
        else:
            rows.append((columns[1], columns[2]) if columns else (line, ""))
    if len(rows) == len(lines) or not all(text for _, text in rows):
        yield from troff.example(lines)
        return
    yield ".RS"
    for name, text in rows:
        yield from troff.item(troff.bold(" ".join(name.split())), text)
    yield ".RE"


def of_configuration() -> Iterator[str]:
    """Yield token-agent.toml(5)."""
    from agent.commands.schema import schema
    from agent.config.complaints import TABLES

    tables = schema()["$defs"]
    yield from _name("token-agent.toml", "the configuration of token-agent")
    yield from troff.heading("SYNOPSIS")
    yield rf"\fI{troff.literal(str(common.DEFAULT_CONFIG))}\fR"
    yield from troff.heading("DESCRIPTION")
    yield from _paragraphs(SYNTAX)
    yield from troff.heading("EXAMPLE")
    yield from troff.example(EXAMPLE.splitlines())
    for name, model in TABLES.items():
        table = tables[model.__name__]
        known = {} if name == "[defaults]" or not issubclass(model, TABLES["[defaults]"]) else tables["ProfileKeys"]
        yield from troff.heading(name if name.startswith("[") else f"[profile.{name}]")
        yield from troff.paragraph(_INTRODUCED.sub(lambda match: match[1].upper(), table["description"]))
        for key, value in table["properties"].items():
            if key not in known.get("properties", ()):
                yield from _key(key, value, tables)
        if known:
            yield from troff.paragraph("And every key of [defaults].")
    yield from troff.heading("SEE ALSO")
    yield troff.prose("token-agent(1), systemd.exec(5). `token-agent schema` prints a JSON Schema for editors.")


def _key(key: str, value: Mapping[str, Any], tables: Mapping[str, Any]) -> Iterator[str]:
    """Yield a key with its kind, its default, and what it means."""
    default = f"; default {_toml(value['default'])}" if "default" in value else ""
    tag = rf"{troff.bold(key)} ({troff.literal(_kind(value, tables) + default)})"
    yield from troff.item(tag, value.get("description", ""))


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


_KINDS = {"boolean": "true or false", "integer": "number", "number": "number", "string": "text"}


def _kind(value: Mapping[str, Any], tables: Mapping[str, Any]) -> str:
    """Return what a key takes, in a few words."""
    if "$ref" in value:
        target = tables[value["$ref"].rpartition("/")[2]]
        return _kind(target, tables) if "enum" in target else "table"
    if "enum" in value:
        return ", ".join(value["enum"])
    if "anyOf" in value:
        lists = [each for each in value["anyOf"] if each.get("type") == "array"]  # of one the value alone will do
        return " or ".join(dict.fromkeys(_kind(each, tables) for each in lists or value["anyOf"]))
    if value["type"] == "array":
        return f"list of {_kind(value['items'], tables)}"
    if isinstance(value["type"], list):
        return "duration" if "number" in value["type"] else "text"
    return _KINDS[value["type"]]
