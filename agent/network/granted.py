"""What a provider has granted: a token that a reader can use now, and until when; or why it is none.

A provider says twice how long a token lives: in the answer (`expires_in`) and, where it can be read, in the token
itself (`exp`, `nbf`, `iat`; RFC 7519 4.1), which is what an API goes by. The earlier end counts. The claims are written
by the provider's clock, so they are read by it (the answer's ``Date``); but a token is only refused as ended, or not
begun, if this machine's clock says so too, for one of the two may be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard

from agent.errors import RejectedError, TransientError
from agent.network.discovery import host, nonsense
from agent.tokens import AccessToken, decode
from agent.words import duration

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from agent.config.model import Profile

MAX_LIFETIME = 30 * 86400
"""Seconds; a token that is said to live longer is renewed as if it lived this long: nobody who may call today may call
for ever, and arithmetic with dates has an end. Entra's longest live 28 hours."""
LEEWAY = 300
"""Seconds that a token may begin in the future: what APIs allow (Microsoft.IdentityModel's ``ClockSkew``)."""
CENTURY = 100 * 365 * 86400
"""Seconds; nothing is said to be longer ago, or longer to wait for."""
LONGEST_TOKEN, LONGEST_KIND = 64 << 10, 64
"""Characters of a token (no server takes such headers) and of its type."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """When a request left, when its answer came, and this machine's clock minus the provider's, if that was told."""

    sent_at: datetime
    seen_at: datetime
    skew: timedelta | None

    def until(self, instant: float) -> tuple[float, float]:
        """Return the seconds from the answer to an instant that the provider named, by its own clock and by ours."""
        ours = instant - self.seen_at.timestamp()
        return ours + (self.skew.total_seconds() if self.skew is not None else 0), ours


def granted(profile: Profile, secret: object, answer: Mapping[str, Any], exchange: Exchange) -> AccessToken:
    """Return the token of a success.

    Raises:
        TransientError: it is nothing that could stand in a header, is over, has not begun, or nobody says how long it
            lives.
        RejectedError: it is of a type that cannot be used by bearing it alone.
    """
    kind = answer.get("token_type", "Bearer")
    if not _is_word(secret, LONGEST_TOKEN) or not _is_word(kind, LONGEST_KIND):
        raise nonsense(profile, "the answer holds no usable access_token")
    if kind.lower() != "bearer":  # the case does not matter (RFC 6749 5.1)
        raise RejectedError(
            f"{host(profile)}: the token is of the type {kind!r}, which whoever only reads a file cannot use",
            hint="have the provider issue bearer tokens to this app, without proof of possession (DPoP, mTLS)",
            code="token_type",
        )
    claims = _instants(secret)
    rest = _rest(profile, claims, exchange)
    said = _seconds(answer.get("expires_in")) or _seconds(_claimed(claims)) or _seconds(rest)
    if said is None:
        raise nonsense(profile, "the answer does not say how long the token lives")
    ends_at = exchange.sent_at + said
    if rest is not None:
        ends_at = min(ends_at, exchange.seen_at + timedelta(seconds=min(rest, MAX_LIFETIME)))
    return AccessToken(
        secret=secret,
        token_type=kind,
        acquired_at=min(exchange.sent_at, exchange.seen_at),  # the clock may have been set back in between
        expires_at=ends_at,
        refresh_in=_seconds(answer.get("refresh_in")),
    )


def _rest(profile: Profile, claims: Mapping[str, float], exchange: Exchange) -> float | None:
    """Return the seconds that a token lives on by its own claims; None if it has none that say so."""
    if "nbf" in claims and (wait := min(exchange.until(claims["nbf"]))) > LEEWAY:
        raise _useless(profile, f"is not valid for another {duration(_span(wait))} (nbf)")
    if "exp" not in claims:
        return None
    theirs, ours = exchange.until(claims["exp"])
    if max(theirs, ours) <= 0:
        raise _useless(profile, f"ended {duration(_span(-max(theirs, ours)))} ago (exp)")
    return theirs if theirs > 0 else ours


def _useless(profile: Profile, what: str) -> TransientError:
    return TransientError(
        f"{host(profile)}: the token it has just issued {what}",
        hint="is the provider's clock right, and does nothing in between answer from a cache?",
    )


def _span(seconds: float) -> timedelta:
    return timedelta(seconds=min(seconds, CENTURY))


def _instants(secret: str) -> dict[str, float]:
    """Return those of the times in a token that are numbers (RFC 7519 2, NumericDate); an opaque token has none."""
    try:
        _, claims = decode(secret)
    except (ValueError, RecursionError):
        return {}
    return {name: claims[name] for name in ("exp", "nbf", "iat") if _is_instant(claims.get(name))}


def _is_instant(value: object) -> bool:
    """Tell whether a claim is an instant within reach of a calendar; NaN is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _claimed(claims: Mapping[str, float]) -> float | None:
    """Return exp - iat: `expires_in` is only recommended (RFC 6749 5.1)."""
    return claims["exp"] - claims["iat"] if claims.keys() >= {"exp", "iat"} else None


def _is_word(value: object, longest: int) -> TypeGuard[str]:
    """Tell whether a value can stand in a header: visible ASCII, in one piece, and not endless."""
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        return False
    return value.isascii() and value.isprintable() and " " not in value


def _seconds(value: Any) -> timedelta | None:
    """Return a positive number of seconds, also when it was sent as a string (older endpoints do)."""
    try:
        seconds = 0 if isinstance(value, bool) else int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return timedelta(seconds=min(seconds, MAX_LIFETIME)) if seconds > 0 else None
