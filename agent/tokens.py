"""What a token is: the secret itself (never shown), its times, its claims, and what a profile expects of it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agent.errors import RejectedError
from agent.harmless import line, mask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from agent.config.model import Expect

LONGEST_SHOWN = 200
"""Characters of a claim that are shown in an error."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token and what is known of it.

    Attributes:
        secret: the token as the provider sent it; hidden in ``repr``.
        token_type: as in RFC 6749 7.1, ``Bearer`` in practice.
        acquired_at: the instant *before* the request left, so that every error of the anchor is on the safe side.
        expires_at: ``acquired_at`` plus the provider's ``expires_in``.
        refresh_in: the provider's wish for a refresh, counted from ``acquired_at``; None if it has none.
    """

    secret: str = field(repr=False)
    token_type: str
    acquired_at: datetime
    expires_at: datetime
    refresh_in: timedelta | None = None

    @property
    def lifetime(self) -> timedelta:
        """The observed lifetime, which is what the schedule counts in."""
        return self.expires_at - self.acquired_at

    def shifted(self, step: timedelta) -> AccessToken:
        """Return the token with its times as a wall clock shows them that was set by ``step``."""
        return replace(self, acquired_at=self.acquired_at + step, expires_at=self.expires_at + step)

    @property
    def fingerprint(self) -> str:
        """The only form in which a token may appear in a log: 12 hex digits of its SHA-256."""
        return fingerprint(self.secret)


def fingerprint(secret: str) -> str:
    """Return the first 12 hex digits of the SHA-256 of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()[:12]


def decode_segment(segment: str) -> Any:
    """Return the JSON value of one base64url segment of a JWT (RFC 7515 2).

    Raises:
        ValueError: the segment is not base64url, not UTF-8, or not JSON.
    """
    try:
        raw = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
        return json.loads(raw.decode())
    except (binascii.Error, RecursionError) as error:  # the latter for a great many brackets
        raise ValueError(str(error)) from error


def decode(secret: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a JWT, unverified: for people and for expectations, never for trust.

    Raises:
        ValueError: it is no JWT (opaque tokens are legitimate; RFC 6749 1.4).
    """
    parts = secret.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature (RFC 7515 3.1)
        raise ValueError("not a JWT: it does not have three parts")
    header, claims = decode_segment(parts[0]), decode_segment(parts[1])
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise ValueError("not a JWT: header or claims are not JSON objects")  # noqa: TRY004 - content, not a type
    return header, claims


def check(token: AccessToken, expect: Expect) -> None:
    """Refuse a token that is not what the profile expects, before anybody can read it.

    Raises:
        RejectedError: names the claim, what was expected and what the token says.
    """
    if not (expect.audience or expect.tenant_id or expect.roles):
        return
    try:
        _, claims = decode(token.secret)
    except ValueError:
        raise RejectedError(
            "the token is opaque, so that `expect` cannot be checked",
            hint="remove [profile.expect], or ask for a resource whose tokens are JWTs",
            code="expect",
        ) from None
    _expect_claim(claims, "aud", expect.audience, "the scope asks for another resource than `expect.audience`")
    tenant_id = expect.tenant_id.lower() if expect.tenant_id else None  # Entra writes GUIDs in small letters
    _expect_claim(claims, "tid", tenant_id, "the authority is another tenant than `expect.tenant_id`")
    roles = claims.get("roles")
    missing = sorted(role for role in set(expect.roles) if not isinstance(roles, list) or role not in roles)
    if missing:
        raise RejectedError(
            f"the token lacks the app role(s) {', '.join(missing)}",
            hint="assign the app role to the application and grant admin consent; then `refresh`",
            code="expect",
        )


def _expect_claim(claims: Mapping[str, Any], claim: str, wanted: str | None, hint: str) -> None:
    """Compare one claim; `aud` may be a list (RFC 7519 4.1.3)."""
    found = claims.get(claim)
    if wanted is None or found == wanted or (isinstance(found, list) and wanted in found):
        return
    raise RejectedError(f"the token's {claim} is {_shown(found)}, not {wanted!r}", hint=hint, code="expect")


def _shown(value: Any) -> str:
    """Return what a provider has put into a token as it may be shown: in one line, and never a secret it was sent."""
    try:
        return line(mask(line(repr(value))), LONGEST_SHOWN)
    except RecursionError:
        return "nested too deeply to be shown"
