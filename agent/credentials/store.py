"""What a profile proves its identity with: a certificate, another provider's assertion, or a client secret.

A certificate is loaded and proven once, and again when its files change; the old one lasts in memory meanwhile.
Assertions and secrets are read at every use (`file_credentials`).
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
from agent.credentials.keyfiles import parse
from agent.credentials.keypair import NEW_PAIR, KeyPair, prove
from agent.credentials.reading import exposure, read, read_password
from agent.credentials.reread import AssertionFileCredential, SecretCredential, assertion_file, client_secret
from agent.errors import CredentialError

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from agent.config.model import Certificate as CertificateFiles
    from agent.config.model import Profile
    from agent.credentials.keyfiles import Certificate

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
    lasting: ClassVar = True

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

    @property
    def identity(self) -> str:
        """What a provider knows it by: the leaf, in whatever file and form it comes."""
        return self.thumbprint_sha256

    def check(self, now: datetime) -> None:
        """Say what is wrong with the credential now.

        Raises:
            CredentialError: the certificate is not valid at ``now``.
        """
        # The message stays the same as time goes by, so that it is logged once; how long ago is for the hint.
        if now > self.not_after:
            message = f"the certificate {self.subject} expired on {self.not_after:%Y-%m-%d %H:%M:%S} UTC"
            ago = words.duration(now - self.not_after)
            hint = f"that was {ago} ago; {NEW_PAIR}; upload its .cer to the app registration"
            raise CredentialError(self.path, message, hint=hint)
        if now < self.not_before:
            message = f"the certificate {self.subject} is not valid before {self.not_before:%Y-%m-%d %H:%M:%S} UTC"
            ahead = words.duration(self.not_before - now)
            hint = f"that is in {ahead}; is this machine's clock right? It says {now:%Y-%m-%d %H:%M:%S} UTC"
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

    def load(self, profile: Profile, now: datetime) -> list[Credential | CredentialError]:
        """Return a profile's credentials, the newest certificate first; in place of one that cannot be used, why not.

        What is read at every use is not required to be there yet; ``Credential.check`` tells.
        """
        try:
            if profile.federated:
                return [assertion_file(profile.federated)]
            if profile.client_secret_file:
                return [client_secret(profile.client_secret_file)]
        except CredentialError as error:
            return [error]
        if not profile.certificate:
            return [CredentialError(Path(profile.name), "the profile names no credential")]
        certificates = [self._try_certificate(source, now) for source in profile.certificate]
        return [*sorted(certificates, key=_age)]

    def _try_certificate(self, source: CertificateFiles, now: datetime) -> CertificateCredential | CredentialError:
        try:
            return self._certificate(source, now)
        except CredentialError as error:
            return error

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


def load(profile: Profile, now: datetime, store: CredentialStore | None = None) -> Credential:
    """Return a profile's first credential; see `CredentialStore.load`, which remembers what it has proven.

    Raises:
        CredentialError: the certificate, its key or its password cannot be used, or is not valid at ``now``.
    """
    first = (store or CredentialStore()).load(profile, now)[0]
    if isinstance(first, CredentialError):
        raise first
    return first


def _age(credential: CertificateCredential | CredentialError) -> float:
    """Sort the newest first, and what cannot be used last."""
    return 0.0 if isinstance(credential, CredentialError) else -credential.not_before.timestamp()


def _prove(source: CertificateFiles, material: _Material) -> KeyPair:
    contents = parse(source.path, material.certificate, material.password)
    holder = (
        contents if material.key is None or source.key is None else parse(source.key, material.key, material.password)
    )
    certificates = contents.some_certificates()
    return prove(source.path, certificates, holder.path, holder.private_key())
