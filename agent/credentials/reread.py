"""Credentials that others renew in a file: read and checked at every use, never held in memory.

A file that appears late, or is empty for a moment, is therefore no reason to refuse a profile: it is used once it
can be. ``check`` tells beforehand.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from agent import tokens, words
from agent.credentials.reading import exposure, read, without_newline
from agent.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config.model import Federated

_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_WRITER_HINT = "does whatever writes this file still run?"
_SECRET_HINT = "the file holds the client secret's value and nothing else"  # noqa: S105 - a hint


class _Unidentified:
    """What a certificate tells of itself, and these do not; nor do they outlast a change of their file."""

    __slots__ = ()

    lasting: ClassVar = False

    subject: ClassVar[None] = None
    thumbprint: ClassVar[None] = None
    thumbprint_sha256: ClassVar[None] = None
    not_after: ClassVar[None] = None


@dataclass(frozen=True, slots=True)
class AssertionFileCredential(_Unidentified):
    """An assertion of another identity provider (workload identity federation).

    Two are equal if they name the same file: its content changes all the time, and is no other credential for that.
    """

    kind: ClassVar = "federated"

    path: Path
    digest: str = field(repr=False)
    warnings: tuple[str, ...] = field(compare=False)

    @property
    def identity(self) -> str:
        """What tells it from others: its place."""
        return self.digest

    def check(self, now: datetime) -> None:
        """Say what is wrong with the file now.

        Raises:
            CredentialError: it holds no assertion that can be used.
        """
        self._current(now)

    def assertion(self, client_id: str, audience: str, now: datetime, lifetime: timedelta) -> str:  # noqa: ARG002 - its sibling's signature
        """Return the assertion the file holds now; its issuer has decided on subject, audience and lifetime.

        Raises:
            CredentialError: it holds none that can be used.
        """
        return self._current(now)

    def _current(self, now: datetime) -> str:
        text = read(self.path).decode(errors="replace").strip()
        if not text:
            raise CredentialError(self.path, "is empty", hint=_WRITER_HINT)
        claims = _claims(text)
        if claims is None:
            message = "does not hold an assertion: a JWT, three parts with dots between"
            raise CredentialError(self.path, message, hint=_WRITER_HINT)
        expires_at = _instant(claims.get("exp"))
        if expires_at is None:
            raise CredentialError(self.path, "the assertion does not say when it expires (exp)", hint=_identity(claims))
        if expires_at <= now:
            ago = words.duration(now - expires_at)
            message = f"the assertion expired on {expires_at:%Y-%m-%d %H:%M:%S} UTC, {ago} ago"
            raise CredentialError(self.path, message, hint=f"{_WRITER_HINT} ({_identity(claims)})")
        return text


@dataclass(frozen=True, slots=True)
class SecretCredential(_Unidentified):
    """A client secret, the last resort. Two are equal if the file held the same when they were loaded."""

    kind: ClassVar = "client_secret"

    path: Path
    digest: str = field(repr=False)
    warnings: tuple[str, ...] = field(compare=False)

    @property
    def identity(self) -> str:
        """What tells it from others: its content."""
        return self.digest

    def check(self, now: datetime) -> None:  # noqa: ARG002 - its siblings' signature
        """Say what is wrong with the file now.

        Raises:
            CredentialError: it holds no secret.
        """
        self.secret()

    def secret(self) -> str:
        """Return the secret the file holds now.

        Raises:
            CredentialError: it cannot be read, is empty, or is not one line of text.
        """
        return _read_secret(self.path)


def assertion_file(source: Federated) -> AssertionFileCredential:
    """Return the credential of ``federated``.

    Raises:
        CredentialError: it asks for something that does not exist yet.
    """
    path = source.assertion_file
    if path is None:
        message = "managed identity is not supported yet"
        raise CredentialError(Path("federated.managed_identity"), message, hint="use a certificate or assertion_file")
    return AssertionFileCredential(path, hashlib.sha256(bytes(path)).hexdigest(), ())


def client_secret(path: Path) -> SecretCredential:
    """Return the credential of ``client_secret_file``, having looked at the file for what is worth a warning."""
    try:
        secret = _read_secret(path)
    except CredentialError:
        return SecretCredential(path, "", exposure(path))
    looks = f"{path} looks like the secret's id; its value is needed (Entra would answer AADSTS7000215)"
    warnings = (*exposure(path), looks) if _GUID.fullmatch(secret) else exposure(path)
    return SecretCredential(path, hashlib.sha256(secret.encode()).hexdigest(), warnings)


def _read_secret(path: Path) -> str:
    try:
        text = without_newline(read(path)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CredentialError(path, "is not text", hint=_SECRET_HINT) from None  # the cause would show the secret
    if not text.strip():
        raise CredentialError(path, "is empty", hint=_SECRET_HINT)
    if not text.isprintable():
        raise CredentialError(path, "is not one line of text", hint=_SECRET_HINT)
    return text


def _claims(text: str) -> Mapping[str, Any] | None:
    """Return the claims of a JWT, None for anything else."""
    if not _JWT.fullmatch(text):
        return None
    try:
        _, claims = tokens.decode(text)
    except (ValueError, RecursionError):
        return None
    return claims


def _instant(value: object) -> datetime | None:
    """Return a NumericDate (RFC 7519 2), None for anything else."""
    if not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _identity(claims: Mapping[str, Any]) -> str:
    """Say whose assertion it is: what has to match the federated credential in Entra."""
    return ", ".join(f"{name} {ascii(claims.get(name))[:200]}" for name in ("iss", "sub", "aud"))
