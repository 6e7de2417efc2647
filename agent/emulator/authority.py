"""The certificate authority and the signing key of an emulator, kept in a directory across restarts.

``ca.pem`` is what a client trusts; it can vouch for nothing but this machine's loopback, so that its key, which is
as safe as any file of a developer's, is of no use elsewhere. The server's own certificate is made at every start.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.emulator.issuing import SigningKey
from agent.errors import OutputError

CA_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=365)
RENEW_BEFORE = timedelta(days=400)
"""A CA that ends sooner than this is made anew, so that no server outlives its authority."""
_BACK = timedelta(minutes=5)
_ADDRESSES = ("127.0.0.1", "::1")
_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True)
class Authority:
    """An open directory: the file that clients trust, a server's TLS, and the key that signs tokens."""

    ca_file: Path
    tls: ssl.SSLContext
    signing_key: SigningKey


def open_directory(directory: Path, now: datetime | None = None) -> Authority:
    """Open a directory, making it and what is missing in it.

    Raises:
        OutputError: it cannot be made, read or written, or holds something else.
    """
    now = now or datetime.now(UTC)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        certificate, key = _authority(directory, now)
        signing_key = _signing_key(directory / "signing.pem")
        tls = _server_tls(directory, certificate, key, now)
    except OSError as error:
        place = Path(error.filename) if error.filename else directory
        raise OutputError(place, f"cannot be used: {error.strerror}", hint="choose another --state") from error
    return Authority((directory / "ca.pem").absolute(), tls, signing_key)


def _authority(directory: Path, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Load the authority, or make one where there is none or it is about to end."""
    ca_file, key_file = directory / "ca.pem", directory / "ca.key"
    if ca_file.exists() and key_file.exists():
        certificate, key = _load(ca_file, key_file)
        if certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE:
            return certificate, key
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _ca_certificate(key, now)
    _write(key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write(ca_file, certificate.public_bytes(Encoding.PEM), 0o644)
    return certificate, key


def _load(ca_file: Path, key_file: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(ca_file.read_bytes())
        key = load_pem_private_key(key_file.read_bytes(), None)
    except (ValueError, TypeError):
        raise _strange(ca_file) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise _strange(ca_file)
    return certificate, key


def _strange(path: Path) -> OutputError:
    return OutputError(path, "was not made by the emulator", hint="choose another --state, or remove the file")


def _signing_key(path: Path) -> SigningKey:
    """Load the key that signs tokens, or make one: tokens stay verifiable across a restart."""
    if not path.exists():
        key = SigningKey.new()
        _write(path, key.pem, 0o600)
        return key
    try:
        return SigningKey.from_pem(path.read_bytes())
    except ValueError:
        raise _strange(path) from None


def _ca_certificate(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = _name("token-agent emulator CA")
    loopback = [x509.IPAddress(ipaddress.ip_network(address)) for address in _ADDRESSES]
    constraints = x509.NameConstraints([x509.DNSName("localhost"), *loopback], None)
    return (
        _builder(name, name, key.public_key(), now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(constraints, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _server_tls(
    directory: Path, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, now: datetime
) -> ssl.SSLContext:
    """Make a server certificate and load it; the file that `ssl` wants is gone when this returns."""
    key = ec.generate_private_key(ec.SECP256R1())
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in _ADDRESSES]
    certificate = (
        _builder(_name("localhost"), ca.subject, key.public_key(), now, SERVER_LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".server-", suffix=".pem") as file:
        file.write(pem + certificate.public_bytes(Encoding.PEM))
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACK)
        .not_valid_after(now + lifetime)
    )


def _key_usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in allowed for use in _USES})


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file whole; a key is never in a file that others may read."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no Path
        file.write(content)
        os.fchmod(descriptor, mode)
    Path(temporary).replace(path)
