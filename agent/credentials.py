"""What a profile proves its identity with: a certificate, another provider's assertion, or a client secret.

A certificate is loaded and proven once, and again when its files change. Assertions and secrets are read at every
use (`file_credentials`).
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from weakref import WeakValueDictionary

import jwt

from agent import words
from agent.credential_files import exposure, read, read_password
from agent.errors import CredentialError
from agent.file_credentials import AssertionFileCredential, SecretCredential, assertion_file, client_secret
from agent.keyfiles import parse
from agent.keypair import NEW_PAIR, KeyPair, prove

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from agent.keyfiles import Certificate
    from agent.model import Certificate as CertificateFiles
    from agent.model import Profile

__all__ = [
    "AssertionFileCredential",
    "CertificateCredential",
    "Credential",
    "CredentialStore",
    "SecretCredential",
    "load",
]


@dataclass(frozen=True, slots=True)
class CertificateCredential:
    """A proven certificate and key. Two are equal if the same files hold the same bytes, and lead to the same leaf.

    Attributes:
        path: the certificate's file.
        subject: of the leaf.
        thumbprint: SHA-1, upper-case hex, as the portal shows it.
        thumbprint_sha256: lower-case hex.
        not_before: when the leaf begins to be valid (UTC).
        not_after: when it ceases.
        send_chain: whether assertions carry ``x5c``.
        digest: SHA-256 over all bytes that were read.
        warnings: what works but deserves a look.
    """

    kind: ClassVar = "certificate"

    path: Path
    subject: str
    thumbprint: str
    thumbprint_sha256: str
    not_before: datetime
    not_after: datetime
    send_chain: bool
    digest: str = field(repr=False)
    warnings: tuple[str, ...] = field(compare=False)
    pair: KeyPair = field(repr=False, compare=False)
    chain: tuple[Certificate, ...] = field(repr=False, compare=False)

    def check(self, now: datetime) -> None:
        """Say what is wrong with the credential now.

        Raises:
            CredentialError: the certificate is not valid at ``now``.
        """
        if now > self.not_after:
            ago = words.duration(now - self.not_after)
            message = f"the certificate {self.subject} expired on {self.not_after:%Y-%m-%d %H:%M:%S} UTC, {ago} ago"
            raise CredentialError(self.path, message, hint=f"{NEW_PAIR}; upload its .cer to the app registration")
        if now < self.not_before:
            ahead = words.duration(self.not_before - now)
            begins = f"{self.not_before:%Y-%m-%d %H:%M:%S} UTC, in {ahead}"
            message = f"the certificate {self.subject} is not valid before {begins}"
            hint = f"is this machine's clock right? It says {now:%Y-%m-%d %H:%M:%S} UTC"
            raise CredentialError(self.path, message, hint=hint)

    def assertion(
        self, client_id: str, audience: str, now: datetime, lifetime: timedelta, key_id: str | None = None
    ) -> str:
        """Return a client assertion (RFC 7523 3), signed afresh, each with a ``jti`` of its own.

        PS256 and ``x5t#S256`` as learn.microsoft.com, "Certificate credentials", asks for; no ``nbf``, so that a
        clock that is a little ahead does no harm.

        Args:
            client_id: issuer and subject.
            audience: the token endpoint, or the issuer of other providers.
            now: the time of issue.
            lifetime: until it expires.
            key_id: ``kid``, for providers that find the key by it; Entra does not.
        """
        issued = int(now.timestamp())
        expires = issued + int(lifetime.total_seconds())
        claims = {"aud": audience, "iss": client_id, "sub": client_id, "jti": str(uuid.uuid4())}
        header: dict[str, Any] = {"x5t#S256": self.chain[0].x5t_s256}
        if key_id is not None:
            header["kid"] = key_id
        if self.send_chain:
            header["x5c"] = [base64.b64encode(each.der).decode() for each in self.chain]
        return jwt.encode(claims | {"iat": issued, "exp": expires}, self.pair.key, "PS256", header)


Credential = CertificateCredential | AssertionFileCredential | SecretCredential


class CredentialStore:
    """Loads credentials, and proves the same bytes once: a thousand profiles with one certificate share its pair.

    A pair is kept as long as a credential holds it; nobody has to clear up.
    """

    def __init__(self) -> None:
        self._pairs: WeakValueDictionary[str, KeyPair] = WeakValueDictionary()

    def load(self, profile: Profile, now: datetime) -> Credential:
        """Return a profile's credential.

        What is read at every use is not required to be there yet; ``Credential.check`` tells.

        Raises:
            CredentialError: the certificate, its key or its password cannot be used, or is not valid at ``now``.
        """
        if profile.certificate:
            return self._certificate(profile.certificate, now)
        if profile.federated:
            return assertion_file(profile.federated)
        if profile.client_secret_file:
            return client_secret(profile.client_secret_file)
        raise CredentialError(Path(profile.name), "the profile names no credential")

    def _certificate(self, source: CertificateFiles, now: datetime) -> CertificateCredential:
        material = _Material.read(source)
        try:
            pair = self._pair(source, material)
        except CredentialError:
            # In the midst of a rotation one file may be old and the other new. Only what stays like that is an error.
            if (again := _Material.read(source)) == material:
                raise
            pair, material = self._pair(source, again), again
        chain = pair.chain(now)
        credential = CertificateCredential(
            path=source.path,
            subject=chain[0].subject,
            thumbprint=chain[0].thumbprint,
            thumbprint_sha256=chain[0].thumbprint_sha256,
            not_before=chain[0].not_before,
            not_after=chain[0].not_after,
            send_chain=source.send_chain,
            digest=material.digest,
            warnings=exposure(source.key or source.path, source.password_file),
            pair=pair,
            chain=chain,
        )
        credential.check(now)
        return credential

    def _pair(self, source: CertificateFiles, material: _Material) -> KeyPair:
        pair = self._pairs.get(material.digest)
        if pair is None:
            pair = self._pairs[material.digest] = _prove(source, material)
        return pair


class _Material(NamedTuple):
    """The bytes of a certificate's files."""

    certificate: bytes
    key: bytes | None
    password: bytes | None

    @classmethod
    def read(cls, source: CertificateFiles) -> _Material:
        """Read them one right after the other, so that they fit together if they can."""
        key = read(source.key) if source.key else None
        return cls(read(source.path), key, read_password(source.password_file))

    @property
    def digest(self) -> str:
        """SHA-256 over all of them, in an encoding that lets nothing flow from one into the other."""
        return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()


def load(profile: Profile, now: datetime) -> Credential:
    """Return a profile's credential; see `CredentialStore.load`, which remembers what it has proven."""
    return CredentialStore().load(profile, now)


def _prove(source: CertificateFiles, material: _Material) -> KeyPair:
    contents = parse(source.path, material.certificate, material.password)
    holder = (
        contents if material.key is None or source.key is None else parse(source.key, material.key, material.password)
    )
    certificates = contents.some_certificates()
    return prove(source.path, certificates, holder.path, holder.private_key())
