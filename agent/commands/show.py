"""``token-agent show``: what a token says, without the token: header, claims and times; never the signature."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent import files, formats, tokens, words
from agent.commands import common, completing, layout
from agent.errors import ConfigurationError, OutputError
from agent.harmless import line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.config.model import Profile

FIRST = ("aud", "iss", "tid", "appid", "azp", "app_displayname", "idtyp", "oid", "sub", "roles", "scp")
"""Claims that people look for, in this order; the others follow by name, the times at the end."""
TIMES = {"iat": ("issued", "issued"), "nbf": ("NOT YET VALID, valid", "valid since"), "exp": ("expires", "EXPIRED")}
"""What a time in the future and one in the past are called."""
LONGEST_VALUE = 2000
"""Characters of one claim for people; --json has it whole."""
STANDARD_INPUT = Path("standard input")

_JWT = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]*")
_BEARER = re.compile(r"\bBearer +([\x21-\x7e]{8,})", re.IGNORECASE)
_VARIABLE = re.compile(r"^(?:export +)?[A-Za-z_]*TOKEN=[\"']?([A-Za-z0-9._~+/=:@%,-]{8,})[\"']?$", re.MULTILINE)
_WORD = re.compile(r"[\x21-\x7e]{20,}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a token comes from: a path, and the profile it belongs to, if it was found by that."""

    path: Path
    profile: Profile | None = None

    def __str__(self) -> str:
        of = f"profile {self.profile.name}: " if self.profile else ""
        return f"{of}{line(str(self.path))}"


@click.command(
    epilog=common.examples(
        "token-agent show graph            the token that is kept for a profile",
        "token-agent show ./graph.token    a file: with a slash it is no profile",
        "token-agent get graph | token-agent show -",
        "token-agent show graph --json | jq .claims.roles",
    )
)
@click.argument("what", metavar="NAME | FILE | -", shell_complete=completing.profiles_or_files)
@click.option("--json", "as_json", is_flag=True, help='Print {"header": ..., "claims": ...}.')
@common.config_option
def command(what: str, config: Path | None, *, as_json: bool) -> int:
    """Show what a token says: header, claims, roles, and how long it is valid.

    NAME is a profile, whose first token file is read; FILE is a token file of any format, or any file that holds
    a token. A profile wins over a file of the same name; ./NAME means the file. Nothing is verified, and the
    signature is not printed. Of an opaque token, which is legitimate, only its size and fingerprint are shown;
    with --json header and claims are null then.

    Exit codes: 0 a token was shown; 78 the file is missing, cannot be read, or holds no token; 2 a NAME that is no
    profile's and no file's.
    """
    source = find(what, config)
    secret = token_in(read(source), source)
    try:
        header, claims = decode(secret)
        lines = [as_document(header, claims)] if as_json else list(describe(source, secret, header, claims))
    except RecursionError:
        raise OutputError(source.path, "its claims are nested too deeply to be shown") from None
    for text in lines:
        click.echo(text)
    return 0


def find(what: str, config: Path | None) -> Source:
    """Return where the token is.

    Raises:
        ConfigurationError: what looks like a profile cannot be looked up.
        click.UsageError: there is no such profile, and no such file.
    """
    path = Path(what)
    if what == "-":
        return Source(STANDARD_INPUT)
    if "/" in what or what in (".", ".."):
        return Source(path)
    try:
        profiles = {profile.name: profile for profile in common.read_config(config).profiles}
    except ConfigurationError:
        if os.path.isfile(what):  # noqa: PTH113 - unlike Path's it does not fail for what can be no path
            return Source(path)
        raise
    if what in profiles:
        return Source(profiles[what].token_file[0].path, profiles[what])
    if os.path.exists(what):  # noqa: PTH110 - likewise
        return Source(path)
    known = ", ".join(profiles)
    raise click.UsageError(f"no profile and no file named {line(what, 200)}; the configuration has {known}")


def read(source: Source) -> bytes:
    """Return what is there.

    Raises:
        OutputError: it cannot be read.
    """
    if source.path is STANDARD_INPUT:
        return sys.stdin.buffer.read(files.LIMIT)
    try:
        return files.read_bytes(source.path)
    except FileNotFoundError:
        hint = f"no token yet: `token-agent status {source.profile.name}` says why" if source.profile else ""
        raise OutputError(source.path, "there is no such file", hint=hint) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable path"
        hint = "run this as the owner of the token file, or as root" if isinstance(error, PermissionError) else ""
        raise OutputError(source.path, f"cannot be read: {reason}", hint=hint) from None


def token_in(content: bytes, source: Source) -> str:
    """Return the token in a file, by the format of its profile, else by its looks.

    Raises:
        OutputError: there is none.
    """
    profile = source.profile
    secret = formats.extract(content, profile, profile.token_file[0]) if profile else None
    secret = secret or search(content.decode("utf-8-sig", "replace"))
    if secret is None:
        hint = (
            "an empty file?"
            if not content.strip()
            else "a token file of the agent, or any text with a JWT, is expected"
        )
        raise OutputError(source.path, "holds no token", hint=hint)
    return secret


def search(text: str) -> str | None:
    """Return the token in a text of unknown format: a JWT anywhere, else what the formats call a token."""
    if secret := _from_json(text):
        return secret
    for match in _JWT.finditer(text):
        if decode(match[0]) != (None, None):
            return match[0]
    found = _BEARER.search(text) or _VARIABLE.search(text)
    if found:
        return found[1]
    word = text.strip()
    return word if _WORD.fullmatch(word) else None


def _from_json(text: str) -> str | None:
    """Return what the format `json` keeps, or a provider's answer."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # the latter for a great many brackets
        return None
    secret = document.get("access_token") if isinstance(document, dict) else None
    return secret if isinstance(secret, str) and secret else None


def decode(secret: str) -> tuple[dict[str, Any], dict[str, Any]] | tuple[None, None]:
    """Return header and claims of a JWT, None for both of an opaque token."""
    try:
        return tokens.decode(secret)
    except ValueError:
        return None, None


def as_document(header: Mapping[str, Any] | None, claims: Mapping[str, Any] | None) -> str:
    """Return the JSON for programs; control characters are escaped in it."""
    return json.dumps({"header": header, "claims": claims}, indent=2)


def describe(
    source: Source, secret: str, header: Mapping[str, Any] | None, claims: Mapping[str, Any] | None
) -> Iterator[str]:
    """Yield the lines for people."""
    columns, now = layout.width(), datetime.now(UTC)
    yield from layout.fold(str(source), columns)
    if header is None or claims is None:
        yield from layout.fold(_opaque(secret), columns)
        return
    yield from layout.fold(_summary(claims, now), columns)
    yield "Read without verifying the signature, which is not shown."
    yield ""
    yield "header"
    yield from layout.rows([(line(name, 60), _value(value)) for name, value in header.items()], columns)
    yield "claims"
    yield from layout.rows(list(_claims(claims, now)), columns)


def _opaque(secret: str) -> str:
    kind = "An encrypted token (JWE)" if secret.count(".") == 4 else "An opaque token"  # noqa: PLR2004 - RFC 7516 3.1
    size = f"{len(secret)} characters, SHA-256 {tokens.fingerprint(secret)}"
    return f"{kind}: {size}. Only its provider and the API it is for can look into it, so there are no claims to show."


def _summary(claims: Mapping[str, Any], now: datetime) -> str:
    """Return issue and expiry in words."""
    begins = _instant(claims.get("nbf"))
    early = begins is not None and begins > now
    parts = [_in_words(name, claims, now) for name in ("iat", *(["nbf"] if early else []), "exp")]
    return ", ".join(filter(None, parts)) or "The token does not say when it expires."


def _in_words(name: str, claims: Mapping[str, Any], now: datetime) -> str:
    instant = _instant(claims.get(name))
    if instant is None:
        return ""
    future, past = TIMES[name]
    return f"{future if instant > now else past} {words.relative(instant - now)}"


def _claims(claims: Mapping[str, Any], now: datetime) -> Iterator[tuple[str, str]]:
    """Yield the claims in the order in which people look for them."""
    rest = sorted(name for name in claims if name not in FIRST and name not in TIMES)
    if "roles" not in claims and "scp" not in claims and "tid" in claims:
        claims = {**claims, "roles": []}
    for name in (*FIRST, *rest):
        if name == "roles" and name in claims:
            yield from _roles(claims[name])
        elif name in claims:
            yield line(name, 60), _value(claims[name])
    for name in TIMES:
        if name in claims:
            instant = _instant(claims[name])
            spelt = f"  {instant:%Y-%m-%d %H:%M:%S} UTC, {_in_words(name, claims, now)}" if instant else ""
            yield name, f"{_value(claims[name])}{spelt}"


def _roles(value: Any) -> Iterator[tuple[str, str]]:
    """Yield one role a line; what none means is worth a word."""
    if not isinstance(value, list):
        yield "roles", _value(value)
    elif not value:
        yield "roles", "(none: the app has been granted no application permission on this resource)"
    else:
        for index, role in enumerate(value):
            yield ("" if index else "roles"), _value(role)


def _value(value: Any) -> str:
    """Return a claim as one line: text as it is, anything else as JSON."""
    return line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), LONGEST_VALUE)


def _instant(value: Any) -> datetime | None:
    """Return a NumericDate (RFC 7519 2)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
