"""The files of a hunt, and what a reader may find in them: a pattern for each format, a signature for each token."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt

from tests.certificate_helpers import CLIENT_ID, pool_key
from tests.emulator_helpers import TENANT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROFILES = tuple(f"p{number:02}" for number in range(24))
"""Of the agent."""
HOT = "hot"
"""The profile of the writer."""
TEMPLATE = "machine {profile} login oauth2 password {access_token} # until {expires_at}"
_TOKEN = r"(?P<token>[\w-]+\.[\w-]+\.[\w-]+)"
_INSTANT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
PATTERNS = {
    "raw": _TOKEN,
    "json": (
        rf'\{{"access_token": "{_TOKEN}", "token_type": "Bearer", "expires_on": \d{{10}}, "expires_at": "{_INSTANT}", '
        rf'"scope": "api://PROFILE/\.default", "tenant": "{re.escape(TENANT)}", "client_id": "{CLIENT_ID}", '
        r'"profile": "PROFILE"\}\n'
    ),
    "header": rf"Authorization: Bearer {_TOKEN}\n",
    "env": rf"ACCESS_TOKEN={_TOKEN}\n",
    "template": rf"machine PROFILE login oauth2 password {_TOKEN} # until {_INSTANT}\n",
}
"""By format."""
SHOWN = 10
"""Bytes of a bad content that are shown: of a token no more than the start of its header."""


class BadReadError(Exception):
    """A reader found what must not be; ``content`` is what it was, None if there was nothing."""

    def __init__(self, reason: str, content: bytes | None = None) -> None:
        super().__init__(reason)
        self.content = content


@dataclass(frozen=True)
class File:
    """A token file; ``number`` is its place on the board."""

    number: int
    path: Path
    format: str
    profile: str

    def keys(self) -> dict[str, Any]:
        """Return the file as the configuration has it."""
        keys: dict[str, Any] = {"path": str(self.path), "format": self.format}
        return keys | ({"template": TEMPLATE, "newline": True} if self.format == "template" else {})

    def serial(self, content: bytes) -> int:
        """Return the number of the token in a content.

        Raises:
            BadReadError: it is not a whole file with a token that was issued for this profile.
        """
        if not content:
            raise BadReadError("empty")
        match = _pattern(self.format, self.profile).fullmatch(content.decode(errors="replace"))
        if match is None:
            raise BadReadError(f"no whole {self.format} file", content)
        try:
            claims = jwt.decode(match["token"], _public_key(), ["RS256"], options={"verify_aud": False})
        except jwt.InvalidTokenError as error:
            raise BadReadError(f"no token that was issued: {error}", content) from None
        if claims["aud"] != resource(self.profile):
            raise BadReadError(f"a token of another profile, for {claims['aud']}", content)
        return int(claims["serial"])


def files_of(profiles: Sequence[str], directory: Path, first: int) -> list[File]:
    """Return a file of each format for each profile, numbered from the first on."""
    pairs = [(profile, format) for profile in profiles for format in PATTERNS]  # noqa: A001 - the key is called so
    return [
        File(number, directory / f"{profile}.{format}", format, profile)
        for number, (profile, format) in enumerate(pairs, first)  # noqa: A001
    ]


def resource(profile: str) -> str:
    """Return for what a profile wants tokens: by this a token tells whose it is."""
    return f"api://{profile}"


def excerpt(content: bytes) -> str:
    """Return what can be shown of a content: its size, and how it begins."""
    begin = content[:SHOWN]
    text = re.sub(r"[^ -~]", ".", begin.decode("latin-1"))
    zeros = f" ({content.count(0)} zero)" if 0 in content else ""
    return f"{len(content)} bytes{zeros}: {begin.hex(' ')} |{text}|"


@functools.cache
def _pattern(format: str, profile: str) -> re.Pattern[str]:  # noqa: A002
    return re.compile(PATTERNS[format].replace("PROFILE", profile))


def _public_key() -> Any:
    return pool_key(9).public_key()
