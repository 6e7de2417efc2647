"""``token-agent explain``: what an error of the provider means, whether it passes, and how to fix it."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click

from agent.commands import common, layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from click.shell_completion import CompletionItem

    from agent.aadsts import Entry, Kind

ERROR_PAGE = "https://login.microsoftonline.com/error?code={}"
LONGEST_INPUT = 1 << 20
"""Bytes of standard input that are read."""
SUBJECT = "the certificate of the app"
STATUSES: dict[str, tuple[str, Kind, str]] = {
    "407": ("the proxy wants user and password", "C", "give them in `proxy` of the profile"),
    "408": ("the request reached the provider too slowly", "T", "check the network"),
    "429": ("too many requests", "L", "does a second agent, or a loop, ask for the same app?"),
    "5": (
        "trouble at the provider, or at a proxy",
        "T",
        "nothing here; if it stays, see the provider's own status page",
    ),
}
"""HTTP statuses that say something without an error code: meaning, class, fix; 5 stands for all of 500 to 599."""
SCOPE_PROBLEMS = frozenset({"70011", "1002012", "28002", "28003", "700022", "700023", "invalid_scope"})
SCOPES = """\
An app names the resource it wants a token for, and appends /.default:

  right  https://graph.microsoft.com/.default    Microsoft Graph
  right  https://vault.azure.net/.default        Key Vault
  right  api://CLIENT_ID_OF_THE_API/.default     an API of your own
  wrong  https://graph.microsoft.com/User.Read   a single permission, of a user
  wrong  User.Read                               the same, in short
  wrong  https://graph.microsoft.com             /.default is missing
  wrong  openid, profile, offline_access         for signed-in users only
  wrong  two resources in one list               make two profiles

What the app may do is not asked for in the scope. It is granted in the portal:
Entra admin center > App registrations > the app > API permissions >
Add a permission > Application permissions (not: Delegated permissions),
then "Grant admin consent". The token lists what was granted as `roles`.""".splitlines()

_PAGE = re.compile(r"error\?code=([0-9]{4,9})")
_LISTED = re.compile(r"error_codes[\"']?\s*[:=]\s*\[([0-9,\s]{4,200})\]")
_NUMBERS = re.compile(r"\s*(?:AADSTS)?[0-9]{4,9}(?:[\s:,.]+(?:AADSTS)?[0-9]{4,9})*[\s:,.]*", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w-])[0-9]{5,7}(?![\w-])")
_WORD = re.compile(r"(?<![a-z_])[a-z]+(?:_[a-z]+)+")
_STATUS = re.compile(r"\bHTTP(?:/[0-9.]+)?[\s:]{1,3}(407|408|429|5[0-9]{2})(?![0-9])", re.IGNORECASE)
_SCOPE = re.compile(r"\bscope '?([A-Za-z0-9][^\s'\"<>]{2,300}?)'? (?:is not|isn't) valid")


def _codes(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return for a shell the codes that can be explained, with what they mean."""
    from click.shell_completion import CompletionItem

    from agent import aadsts

    entries = {_title(name): entry.meaning for name, entry in aadsts.entries().items()}
    return [CompletionItem(code, help=text) for code, text in entries.items() if code.startswith(incomplete)]


@click.command(
    epilog=common.examples(
        "token-agent explain AADSTS700027",
        "token-agent explain 70011",
        "token-agent explain invalid_client",
        "token-agent explain 'AADSTS7000215: Invalid client secret provided. ...'",
        "journalctl -u token-agent -n 50 | token-agent explain -",
        "token-agent explain --list",
    )
)
@click.argument("text", nargs=-1, metavar="CODE | TEXT | -", shell_complete=_codes)
@click.option("--list", "list_all", is_flag=True, help="List all codes that are known, one a line.")
def command(text: tuple[str, ...], *, list_all: bool) -> int:
    """Explain an error of the provider: what it means, whether it passes by itself, and the fix.

    CODE is an AADSTS code with or without these letters, or an OAuth error such as invalid_client. TEXT is any text
    that holds some, such as a whole error message; - reads it from standard input. Nothing is sent anywhere.

    Exit codes: 0 something was explained, also where for an unknown code only general advice could be given, which
    is marked as such; 2 the text holds no code at all.
    """
    if list_all:
        for line in catalogue(layout.width()):
            click.echo(line)
        return 0
    if not text:
        raise click.UsageError("what is to be explained? Give a code such as AADSTS700027, a text, or -.")
    whole = sys.stdin.buffer.read(LONGEST_INPUT).decode(errors="replace") if text == ("-",) else " ".join(text)
    names = find(whole)
    if not names:
        raise click.UsageError(
            "this text holds no error code: neither AADSTS and a number, nor an OAuth error such as invalid_client. "
            "See --list for what is known."
        )
    for line in explain(names, whole, layout.width()):
        click.echo(line)
    return 0


def find(text: str) -> list[str]:
    """Return what can be explained in a text, each once, in order: codes as digits; else OAuth errors; else statuses.

    A bare number counts as a code if it is known, or if it is all there is.
    """
    from agent import aadsts, diagnosis

    known = aadsts.entries()
    codes = [str(number) for number in diagnosis.find_codes(text)] + _PAGE.findall(text)
    codes += [part for listed in _LISTED.findall(text) for part in re.findall("[0-9]{4,9}", listed)]
    if _NUMBERS.fullmatch(text):
        codes = re.findall("[0-9]+", text)
    if not codes:
        codes = [number for number in _NUMBER.findall(text) if number in known]
    if not codes:
        codes = [word for word in _WORD.findall(text.lower()) if word in known]
    if not codes:
        codes = [f"HTTP {status}" for status in _STATUS.findall(text)]
    return list(dict.fromkeys(codes))


def explain(names: Sequence[str], text: str, columns: int | None) -> Iterator[str]:
    """Yield the lines about all codes of a text; what concerns scopes is said once, at the end."""
    from agent import aadsts

    known = aadsts.entries()
    errors = list(dict.fromkeys(word for word in _WORD.findall(text.lower()) if word in known))
    for index, name in enumerate(names):
        if index:
            yield ""
        if name in known:
            yield from _entry(known[name], columns)
        elif name.startswith("HTTP "):
            yield from _status(name, columns)
        else:
            yield from _unknown(name, errors, columns)
    if SCOPE_PROBLEMS.intersection(names):
        yield ""
        yield from SCOPES
        yield from _suggestions(text)


def _title(name: str) -> str:
    return f"AADSTS{name}" if name.isdigit() else name


def _entry(entry: Entry, columns: int | None) -> Iterator[str]:
    from agent.aadsts import KINDS

    yield _title(entry.name)
    pairs = [("meaning", entry.meaning), ("class", KINDS[entry.kind]), ("fix", entry.fix_for(SUBJECT))]
    if entry.name.isdigit():
        pairs.append(("more", ERROR_PAGE.format(entry.name)))
    yield from layout.rows(pairs, columns)


def _status(name: str, columns: int | None) -> Iterator[str]:
    from agent.aadsts import KINDS

    status = name.removeprefix("HTTP ")
    meaning, kind, fix = STATUSES.get(status) or STATUSES[status[0]]
    yield name
    yield from layout.rows([("meaning", meaning), ("class", KINDS[kind]), ("fix", fix)], columns)


def _unknown(name: str, errors: Sequence[str], columns: int | None) -> Iterator[str]:
    """Yield what can be said of a code that is not in the catalogue, by the OAuth errors that stand beside it."""
    from agent import aadsts

    yield _title(name)
    pairs = [("meaning", "not known here; what follows is general advice")]
    for entry in filter(None, map(aadsts.lookup_error, errors)):
        pairs += [("class", f"by {entry.name}: {aadsts.KINDS[entry.kind]}"), ("fix", entry.fix_for(SUBJECT))]
    if not errors:
        pairs.append(("class", "going by the HTTP status: 429 and 5xx pass, 400 and 401 need a person"))
        pairs.append(("fix", "read the provider's own words; compare the profile with the app registration"))
    pairs.append(("more", f"{ERROR_PAGE.format(name)} (Microsoft's explanation)"))
    pairs.append(("logs", "Entra admin center > Sign-in logs > Service principal sign-ins, by correlation id"))
    yield from layout.rows(pairs, columns)


def _suggestions(text: str) -> Iterator[str]:
    """Yield what each scope that the text complains about should be."""
    for scope in dict.fromkeys(_SCOPE.findall(text)):
        if better := suggest(scope):
            yield ""
            yield f"Instead of {scope} write:"
            yield f'  scopes = ["{better}"]'


def suggest(scope: str) -> str | None:
    """Return the scope of an app in place of a user's, None if there is nothing to better.

    A scope without a resource is one of Microsoft Graph's.
    """
    if not scope.isprintable() or scope.endswith("/.default"):
        return None
    if "/" not in scope:
        return "https://graph.microsoft.com/.default"
    resource = scope if scope.count("/") == 2 and "://" in scope else scope.rpartition("/")[0]  # noqa: PLR2004
    return f"{resource}/.default"


def catalogue(columns: int | None) -> Iterator[str]:
    """Yield every code with its class and meaning in one line."""
    from agent import aadsts

    groups = {"T": "transient", "L": "transient"}
    for name, entry in aadsts.entries().items():
        label = "user" if entry.kind == "U" else groups.get(entry.kind, "permanent")
        text = f"{_title(name):26} {label:9}  {entry.meaning}"
        yield text if columns is None or len(text) <= columns else f"{text[: columns - 1]}…"
