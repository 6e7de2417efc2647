"""A token as the bytes of a token file, and back.

Five formats (README, "Token files"). What is written is safe for its reader: a token that could break out of its
line or its quotes is refused, never escaped in some way that a reader would have to know.
"""

from __future__ import annotations

import json
import re
import string
from typing import TYPE_CHECKING, Any

from agent.errors import OutputError
from agent.harmless import line
from agent.status import rfc3339

if TYPE_CHECKING:
    from agent.config.model import Profile, TokenFile
    from agent.tokens import AccessToken

FIELDS = ("access_token", "expires_on", "expires_at", "token_type", "profile", "tenant", "client_id")
"""What a template may name."""
_TIMES = {"expires_on": (10, r"\d{10}"), "expires_at": (20, r"[0-9TZ:-]{20}")}
"""Lengths (from 2001 to 2286) and patterns of the fields that change from token to token."""

_LINE_SAFE = re.compile(r"[\x21-\x7e]+")
"""Visible ASCII (RFC 6750 2.1 allows less): nothing that could end a line, a header or a field."""
_SHELL_SAFE = re.compile(r"(?:[A-Za-z0-9._+/=:@%,-]|(?<=[^=:])~)+")
"""Means itself in a shell (where ~ is special at the start and after a colon) and in systemd's EnvironmentFile=."""
LONGEST_TEMPLATE = 64 << 10
"""Characters."""
MOST_TOKENS = 8
"""Times that a template may hold the token: what is written must not be larger than what can be read again."""
LISTED = 6
"""Unknown fields that are named."""
BEARER = "Bearer"
_PREFIX = f"Authorization: {BEARER} "


def render(token: AccessToken, profile: Profile, token_file: TokenFile) -> bytes:
    """Return the content of a token file.

    Raises:
        OutputError: the token holds characters that this format cannot carry safely.
    """
    safe = _SHELL_SAFE if token_file.format == "env" else _LINE_SAFE
    if not safe.fullmatch(token.secret):
        raise OutputError(
            token_file.path,
            f"the token holds characters that format {token_file.format} cannot carry safely",
            hint='use format = "json"' if token_file.format == "env" else "",
        )
    return _text(token, profile, token_file).encode()


def _text(token: AccessToken, profile: Profile, token_file: TokenFile) -> str:
    end = "\n" if token_file.newline else ""
    match token_file.format:
        case "raw":
            return token.secret + end
        case "json":
            return json.dumps(_document(token, profile)) + "\n"
        case "header":
            return f"{_PREFIX}{token.secret}\n"
        case "env":
            return f"{token_file.variable}={token.secret}\n"
        case "template":
            return str(token_file.template).format_map(_document(token, profile)) + end


def _document(token: AccessToken, profile: Profile) -> dict[str, Any]:
    """Return the fields of a token; `expires_in` is missing on purpose: it would be wrong a second later."""
    return {
        "access_token": token.secret,
        "token_type": token.token_type,
        "expires_on": int(token.expires_at.timestamp()),
        "expires_at": rfc3339(token.expires_at),
        "scope": " ".join(profile.scopes),
        **_constants(profile),
    }


def _constants(profile: Profile) -> dict[str, str]:
    """Return the fields that are the same for each token of a profile."""
    return {
        "tenant": profile.tenant or profile.authority_url.rpartition("/")[2],
        "client_id": profile.client_id,
        "profile": profile.name,
    }


def extract(content: bytes, profile: Profile, token_file: TokenFile, token_type: str = BEARER) -> str | None:
    """Return the access token out of what `render` wrote, None for anything else."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    secret = _extract(text, profile, token_file, token_type)
    return secret if secret is not None and _LINE_SAFE.fullmatch(secret) else None


def _extract(text: str, profile: Profile, token_file: TokenFile, token_type: str) -> str | None:
    match token_file.format:
        case "raw":
            return text.removesuffix("\n") if token_file.newline else text
        case "json":
            return _from_json(text)
        case "header":
            return _between(text, _PREFIX, "\n")
        case "env":
            return _between(text, f"{token_file.variable}=", "\n")
        case "template":
            return _from_template(text, token_file, _constants(profile) | {"token_type": token_type})


def _from_json(text: str) -> str | None:
    try:
        secret = json.loads(text)["access_token"]
    except (ValueError, TypeError, KeyError, RecursionError):  # the last for a great many brackets
        return None
    return secret if isinstance(secret, str) else None


def _between(text: str, prefix: str, suffix: str) -> str | None:
    if not (text.startswith(prefix) and text.endswith(suffix)) or len(text) < len(prefix) + len(suffix):
        return None
    return text[len(prefix) : len(text) - len(suffix)]


def _from_template(text: str, token_file: TokenFile, constants: dict[str, str]) -> str | None:
    """Solve for the token: the length of all the rest is known, so that no text takes long to look at."""
    pieces: list[str | None] = []  # patterns, with None for the token
    fixed, times = 0, 0  # how many characters all but the tokens have, and how many tokens there are
    for literal, field, _, _ in string.Formatter().parse(str(token_file.template) + "\n" * token_file.newline):
        constant = literal + constants.get(field or "", "")
        length, pattern = _TIMES.get(field or "", (0, ""))
        pieces += [re.escape(constant), pattern]
        fixed += len(constant) + length
        if field == "access_token":
            times += 1
            pieces.append(None)
    length = (len(text) - fixed) // times if times else 0
    if length < 1:
        return None
    tokens = iter([rf"(?P<secret>[\x21-\x7e]{{{length}}})", *["(?P=secret)"] * times])
    match = re.fullmatch("".join(next(tokens) if piece is None else piece for piece in pieces), text)
    return match["secret"] if match else None


def template_problem(template: str) -> str | None:
    """Return what is wrong with a template, None if nothing is."""
    if template.startswith("\ufeff") or "\r" in template:
        return "it has a byte-order mark or Windows line ends, which readers take for content; save it as UTF-8 with LF"
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        return f"{error}; write {{{{ and }}}} for braces that stand for themselves"
    fields = [(field, spec, conversion) for _, field, spec, conversion in parts if field is not None]
    unknown = sorted({field for field, _, _ in fields if field not in FIELDS})
    if unknown:
        named = ", ".join(f"{{{line(name, 60)}}}" for name in unknown[:LISTED])
        return f"unknown field {named}; known: {', '.join(FIELDS)}"
    if any(spec or conversion for _, spec, conversion in fields):
        return "a field is written {name}, without a format"
    return _wrong_size(template, [field for field, _, _ in fields].count("access_token"))


def _wrong_size(template: str, tokens: int) -> str | None:
    """Return what is wrong with a template's length, and with how often it holds the token."""
    if not tokens:
        return "a template without {access_token} holds no token"
    if len(template) > LONGEST_TEMPLATE:
        return f"it is longer than {LONGEST_TEMPLATE} characters"
    return f"it holds the token {tokens} times; {MOST_TOKENS} at most" if tokens > MOST_TOKENS else None
