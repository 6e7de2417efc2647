"""Certificates for tests: real keys, made once per test process, and real `openssl` for what OpenSSL makes.

``pool_key(n)`` is the n-th key of the pool; tests that need different keys take different numbers.
"""

from __future__ import annotations

import functools
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from agent.config.model import Profile
from agent.credentials import store as credentials
from agent.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""The time of tests with certificates made here; what OpenSSL makes is valid from the real now on."""
DAY = timedelta(days=1)
CLIENT_ID = "ace7a10d-aaaa-4a01-8663-1440b6b78cb9"


@functools.cache
def pool_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return a key of the pool, made at its first use."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in every form tests write."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def cert_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """PKCS#8."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def pkcs1_pem(self) -> bytes:
        """The traditional form, "BEGIN RSA PRIVATE KEY"."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())

    @property
    def key_der(self) -> bytes:
        return self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    @property
    def public_key(self) -> rsa.RSAPublicKey:
        """The certificate's."""
        public = self.certificate.public_key()
        assert isinstance(public, rsa.RSAPublicKey)
        return public

    @property
    def pem(self) -> bytes:
        """What `cert new` writes: key, then certificate."""
        return self.key_pem + self.cert_pem

    @property
    def thumbprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - as the portal shows it

    def encrypted_key_pem(self, password: bytes) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))

    def pfx(self, password: bytes | None = None, others: Sequence[Pair] = ()) -> bytes:
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        chain = [other.certificate for other in others]
        return pkcs12.serialize_key_and_certificates(b"app", self.key, self.certificate, chain, encryption)  # type: ignore[arg-type]


def make_certificate(
    cn: str = "app",
    key: CertificateIssuerPrivateKeyTypes | None = None,
    *,
    issuer: Pair | None = None,
    not_before: datetime = NOW - 30 * DAY,
    not_after: datetime = NOW + 365 * DAY,
    ca: bool = False,
) -> Pair:
    """Return a certificate, self-signed unless there is an issuer; the key is the pool's first unless given."""
    key = key or pool_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    signer = issuer.key if issuer else key
    algorithm = hashes.SHA256() if hasattr(signer, "curve") or isinstance(signer, rsa.RSAPrivateKey) else None
    return Pair(builder.sign(signer, algorithm), key)


@dataclass(frozen=True)
class Chain:
    """A leaf signed by an intermediate, signed by another, signed by a root."""

    leaf: Pair
    lower: Pair
    upper: Pair
    root: Pair


@functools.cache
def make_chain() -> Chain:
    """Return a chain with four different keys."""
    root = make_certificate("Test Root", pool_key(1), ca=True)
    upper = make_certificate("Test Policy CA", pool_key(2), issuer=root, ca=True)
    lower = make_certificate("Test Issuing CA", pool_key(3), issuer=upper, ca=True)
    return Chain(make_certificate("app", pool_key(0), issuer=lower), lower, upper, root)


def profile(**credential: Any) -> Profile:
    """Return a profile with the given credential: ``certificate=``, ``federated=`` or ``client_secret_file=``."""
    return Profile.model_validate(
        {"name": "app", "tenant": "contoso.onmicrosoft.com", "client_id": CLIENT_ID, "scopes": "api://x/.default"}
        | {key: str(value) if hasattr(value, "__fspath__") else value for key, value in credential.items()}
    )


def certificate_profile(path: Path, **further: Any) -> Profile:
    """Return a profile with a certificate; further keys are those of ``[profile.certificate]``."""
    given = {key: str(value) if hasattr(value, "__fspath__") else value for key, value in further.items()}
    return profile(certificate={"path": str(path), **given})


def openssl(*arguments: str | Path, cwd: Path) -> str:
    """Run the real OpenSSL and return what it prints."""
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=50).stdout


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write a file with exactly this mode and return its path."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


def load_certificate(path: Path, now: datetime = NOW, **further: Any) -> credentials.CertificateCredential:
    """Load a certificate as the agent does; further keys are those of ``[profile.certificate]``."""
    credential = credentials.load(certificate_profile(path, **further), now)
    assert isinstance(credential, credentials.CertificateCredential)
    return credential


def refused(path: Path, **further: Any) -> CredentialError:
    """Return the error of loading; it always names the file first, on one line, and never quotes a secret."""
    with pytest.raises(CredentialError) as caught:
        credentials.load(certificate_profile(path, **further), NOW)
    error = caught.value
    assert error.message.startswith(f"{error.path}: ")
    assert error.message.isprintable()
    assert error.hint.isprintable()
    assert "swordfish" not in f"{error.message} {error.hint}"
    assert error.exit_code == 78
    return error
