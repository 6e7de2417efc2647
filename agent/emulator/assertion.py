"""Client assertions (RFC 7523), verified as Entra does, and where Entra is lax, as the standard has it.

An assertion that names a certificate in its header is the app's own: signature, times, audience, issuer and subject
must be right, and each is taken once. Any other is a federated issuer's and is held against the app's trust; those
are used many times by design, as a projected service account token is.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from agent import tokens
from agent.emulator.refusals import Refusal
from agent.emulator.registry import base64url

if TYPE_CHECKING:
    from collections.abc import Collection

    from cryptography.hazmat.primitives.asymmetric import rsa

    from agent.emulator.registry import App, RegisteredCertificate, Trust

SKEW = timedelta(minutes=5)
"""How far the clocks of client and provider may differ."""
REMEMBERED = 100_000
"""Assertions that are remembered at most, so that memory is bounded; the one that expires first is forgotten first."""
ANY = "*"
"""Stands for every certificate."""
_KEY_NOT_FOUND = "The key was not found."
_WRONG_SIGNATURE = "The provided signature value did not match the expected signature value."


@dataclass(frozen=True, slots=True)
class Assertion:
    """An assertion in its parts, not yet verified."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, text: str) -> Assertion:
        """Take a JWT apart.

        Raises:
            Refusal: it is none.
        """
        try:
            header, claims = tokens.decode(text)
            signed, _, signature = text.rpartition(".")
            raw = base64.b64decode(signature + "=" * (-len(signature) % 4), altchars=b"-_", validate=True)
        except (ValueError, RecursionError):
            raise Refusal(50027, reason="The token is not well formed.") from None
        if str(header.get("typ", "JWT")).upper() != "JWT" or "crit" in header:
            raise Refusal(50027, reason="The header is not that of a JWT.")
        return cls(header, claims, signed.encode(), raw)

    @property
    def x5t(self) -> str | None:
        """The SHA-1 thumbprint; MSAL pads it, which RFC 7515 does not."""
        return self._unpadded("x5t")

    @property
    def x5t_s256(self) -> str | None:
        """The SHA-256 thumbprint."""
        return self._unpadded("x5t#S256")

    @property
    def thumbprint(self) -> str:
        """The thumbprint as Entra shows it in its texts: upper-case hex."""
        try:
            return base64.urlsafe_b64decode(f"{self.x5t or self.x5t_s256 or ''}==").hex().upper()
        except ValueError:
            return ""

    def _unpadded(self, name: str) -> str | None:
        value = self.header.get(name)
        return value.rstrip("=") if isinstance(value, str) else None

    def is_signed_by(self, key: rsa.RSAPublicKey) -> bool:
        """Verify the signature by the algorithm that the header names."""
        if self.header.get("alg") == "PS256":
            scheme: padding.AsymmetricPadding = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        else:
            scheme = padding.PKCS1v15()
        try:
            key.verify(self.signature, self.signed, scheme, hashes.SHA256())
        except InvalidSignature:
            return False
        return True


class UsedIds:
    """The ids of assertions that were taken, each kept until the assertion has expired."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._ids: set[tuple[str, str]] = set()
        self._by_end: list[tuple[float, tuple[str, str]]] = []

    def take(self, client_id: str, jti: str, until: datetime, now: datetime) -> bool:
        """Remember an id, and tell whether it is new."""
        while self._by_end and (self._by_end[0][0] < now.timestamp() or len(self._by_end) >= self._limit):
            self._ids.discard(heapq.heappop(self._by_end)[1])
        # A digest, since a client chooses how long its ids are.
        key = (client_id, hashlib.sha256(jti.encode(errors="replace")).hexdigest())
        if key in self._ids:
            return False
        self._ids.add(key)
        heapq.heappush(self._by_end, (until.timestamp(), key))
        return True


@dataclass(frozen=True, slots=True)
class Verifier:
    """What an assertion must agree with.

    Attributes:
        app: who claims to have made it.
        audiences: whom it may be meant for.
        used: the ids that were taken before; None where an assertion may be used again.
        now: the provider's time.
        unregistered: the thumbprint of a certificate that is treated as unknown, or `ANY`.
    """

    app: App
    audiences: Collection[str]
    used: UsedIds | None
    now: datetime
    unregistered: str | None = None

    def verify(self, text: str) -> str:
        """Verify an assertion and return how it was made: ``certificate`` or ``federated``.

        Raises:
            Refusal: anything is wrong with it.
        """
        assertion = Assertion.parse(text)
        if assertion.x5t is None and assertion.x5t_s256 is None:
            self._federated(assertion)
            return "federated"
        self._own(assertion)
        return "certificate"

    def _own(self, assertion: Assertion) -> None:
        """Verify an assertion of the app itself, in the order in which Entra finds fault."""
        certificate = self._certificate(assertion)
        self._check_signature(assertion, certificate)
        self._check_validity(certificate)
        claims = assertion.claims
        until = self._check_times(claims)
        if claims.get("aud") not in self.audiences:
            raise Refusal(700023)
        issuer, subject = claims.get("iss"), claims.get("sub")
        if not isinstance(issuer, str) or issuer.lower() != self.app.client_id.lower():
            raise Refusal(700021)
        if subject != issuer:
            raise Refusal(50048, subject=subject, issuer=issuer)
        jti = claims.get("jti")
        if not isinstance(jti, str) or not jti:
            raise Refusal(50027, reason="The token does not contain the claim 'jti'.")
        if self.used is not None and not self.used.take(self.app.client_id.lower(), jti, until + SKEW, self.now):
            raise Refusal(50013, reason="Replay: an assertion with this 'jti' was used before.")

    def _certificate(self, assertion: Assertion) -> RegisteredCertificate:
        """Find the certificate; SHA-1 thumbprints go with RS256 only, as MSAL's older form has it."""
        sha1_only = assertion.x5t_s256 is None
        if assertion.header.get("alg") not in (("RS256",) if sha1_only else ("PS256", "RS256")):
            raise Refusal(50027, reason="The signing algorithm is not supported.")
        found = self.app.certificate(x5t=assertion.x5t, x5t_s256=assertion.x5t_s256)
        if found is None or self._is_hidden(found):
            raise self._unknown(assertion, _KEY_NOT_FOUND)
        return found

    def _is_hidden(self, certificate: RegisteredCertificate) -> bool:
        """Tell whether a fault makes the certificate one that is not registered yet."""
        wanted = self.unregistered
        return wanted is not None and (wanted == ANY or wanted.replace(":", "").upper() == certificate.thumbprint)

    def _check_signature(self, assertion: Assertion, certificate: RegisteredCertificate) -> None:
        chain = assertion.header.get("x5c")
        leaf_first = chain is None or _first_thumbprint(chain) == certificate.x5t_s256
        if not leaf_first or not assertion.is_signed_by(certificate.public_key):
            raise self._unknown(assertion, _WRONG_SIGNATURE)

    def _unknown(self, assertion: Assertion, reason: str) -> Refusal:
        return Refusal(700027, reason=reason, thumbprint=assertion.thumbprint, client_id=self.app.client_id)

    def _check_validity(self, registered: RegisteredCertificate) -> None:
        """Refuse a certificate outside its own validity; no skew is allowed for it."""
        begins, ends = registered.certificate.not_valid_before_utc, registered.certificate.not_valid_after_utc
        if not begins <= self.now <= ends:
            raise Refusal(
                1000502, thumbprint=registered.thumbprint, valid_from=_short(begins), valid_until=_short(ends)
            )

    def _check_times(self, claims: dict[str, Any]) -> datetime:
        """Refuse an assertion that is expired, not yet valid, or issued in the future; return its end."""
        until, begins, issued = (_instant(claims, name) for name in ("exp", "nbf", "iat"))
        if until is None:
            raise Refusal(50027, reason="The token does not contain the claim 'exp'.")
        earliest = max(each for each in (begins, issued, datetime.min.replace(tzinfo=UTC)) if each)
        if not earliest - SKEW <= self.now < until + SKEW:
            # What has no nbf is valid from 1970 on in Entra's eyes (msal-dotnet 4951).
            start = begins or issued or datetime.fromtimestamp(0, UTC)
            raise Refusal(700024, now=_long(self.now), valid_from=_long(start), valid_until=_long(until))
        return until

    def _federated(self, assertion: Assertion) -> None:
        """Hold a foreign assertion against the app's trust: issuer, subject, audience, signature, times."""
        if not self.app.trusts:
            raise Refusal(70025, client_id=self.app.client_id)
        claims = assertion.claims
        issuer, subject, audience = (claims.get(name) for name in ("iss", "sub", "aud"))
        audiences = audience if isinstance(audience, list) else [audience]
        named = {"issuer": issuer, "subject": subject, "audience": audience}
        trusts = self._narrowed(list(self.app.trusts), "issuer", [issuer], 700211, named)
        trusts = self._narrowed(trusts, "subject", [subject], 700213, named)
        trusts = self._narrowed(trusts, "audience", audiences, 700212, named)
        if assertion.header.get("alg") != "RS256" or not any(assertion.is_signed_by(t.public_key) for t in trusts):
            raise Refusal(50013, reason=_WRONG_SIGNATURE)
        self._check_times(claims)

    def _narrowed(
        self, trusts: list[Trust], field: str, wanted: list[Any], code: int, named: dict[str, Any]
    ) -> list[Trust]:
        """Keep the trust that fits; every letter counts, as does a slash at the end."""
        kept = [trust for trust in trusts if getattr(trust, field) in wanted]
        if not kept:
            raise Refusal(code, **named)
        return kept


def _first_thumbprint(chain: Any) -> str | None:
    """Return the x5t#S256 of the first certificate in an x5c; MSAL breaks its lines."""
    try:
        return base64url(hashlib.sha256(base64.b64decode("".join(chain[0].split()))).digest())
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def _instant(claims: dict[str, Any], name: str) -> datetime | None:
    """Return a NumericDate (RFC 7519 2), whole or broken.

    Raises:
        Refusal: it is something else.
    """
    value = claims.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError  # noqa: TRY301 - one place says what follows
        return datetime.fromtimestamp(value, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise Refusal(50027, reason=f"The claim '{name}' is not a time.") from None


def _long(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%S.%f}0Z"


def _short(instant: datetime) -> str:
    return f"{instant:%m/%d/%Y %H:%M:%S}"
