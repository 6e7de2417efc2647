"""Making a certificate: a self-signed pair that Entra ID takes, as the three files people need.

The files are written here and not by `sink`: that one replaces a token file whole, again and again; these must never
replace anything, since a private key that is overwritten is gone for good.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.credentials.keyfiles import Certificate, certificate_of
from agent.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable

SKEW = timedelta(minutes=5)
"""A certificate begins to be valid this much earlier, so that Entra's clock may be behind ours."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a file name of ours may look like, without its suffix."""
_ATTRIBUTE = re.compile(r"(^|(?<!\\)[,+])\s*([A-Za-z]+|\d+(?:\.\d+)+)\s*=\s*")
_BETWEEN = re.compile(r"(?<!\\)[,+]")
_FURTHER_NAMES = {"E": NameOID.EMAIL_ADDRESS, "EMAILADDRESS": NameOID.EMAIL_ADDRESS}
_SIGNS_ONLY = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class NewCertificate:
    """The files that were made: ``pem`` (key and certificate), ``pfx`` (the same), ``cer`` (public, for upload)."""

    pem: Path
    pfx: Path
    cer: Path
    certificate: Certificate

    @property
    def thumbprint(self) -> str:
        """SHA-1 in upper-case hex, as the portal shows it."""
        return self.certificate.thumbprint


def new_certificate(  # noqa: PLR0913 - the options of `cert new`
    directory: Path,
    subject: str,
    *,
    name: str | None = None,
    days: int = 365,
    bits: int = 2048,
    pfx_password: bytes | None = None,
    now: datetime | None = None,
) -> NewCertificate:
    """Make a key and a self-signed certificate in ``directory``, which is made (0700) if it is not there.

    Args:
        directory: where.
        subject: as `parse_subject` takes it.
        name: of the files, without suffix; default: the common name, made safe.
        days: how long it is valid.
        bits: length of the RSA key.
        pfx_password: of the PFX, UTF-8; None or empty: none.
        now: when it is made; default: now.

    Raises:
        ValueError: the subject cannot be used, or gives no file name.
        OutputError: one of the files exists already, or cannot be written; none of them is then left behind.
    """
    parsed_subject = parse_subject(subject)
    base = file_name(parsed_subject) if name is None else name
    if not NAME.fullmatch(base):
        raise ValueError("a name of files has letters, digits, and . _ - after the first, 100 at most")
    pem, pfx, cer = paths = [directory / f"{base}.{suffix}" for suffix in ("pem", "pfx", "cer")]
    _refuse_existing(paths)
    key, certificate = self_signed(parsed_subject, days, bits, now or datetime.now(UTC))
    content = (
        (cer, certificate.der, 0o644),
        (pfx, _pfx(base, key, certificate.parsed, pfx_password), 0o600),
        (pem, _private_pem(key) + certificate.parsed.public_bytes(Encoding.PEM), 0o600),
    )
    _create_all(directory, content)
    return NewCertificate(pem, pfx, cer, certificate)


def parse_subject(text: str) -> x509.Name:
    """Return the name in "CN=app,O=Contoso" (RFC 4514) or of a bare "app"; blanks and lower case are forgiven.

    Raises:
        ValueError: it is neither; the text says why.
    """
    text = text.strip()
    if not text.isprintable() or text.startswith("/"):
        raise ValueError("a subject is written CN=app or CN=app,O=Contoso, on one line")
    bare = not _ATTRIBUTE.match(text)
    tidied = _ATTRIBUTE.sub(lambda match: f"{match[1]}{match[2].upper()}=", text)
    try:
        if bare:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        return x509.Name.from_rfc4514_string(tidied, _FURTHER_NAMES)
    except ValueError as error:
        reason = str(error) or 'attributes are CN, O, OU, L, ST, C, DC, UID, E; a comma within a value is written "\\,"'
        raise ValueError(f"not a subject: {_attribute_at_fault(f'CN={text}' if bare else tidied)}{reason}") from error


def _attribute_at_fault(text: str) -> str:
    """Return the name of the first attribute that cannot be one, such as for its length; empty if that is not it."""
    for part in _BETWEEN.split(text):
        try:
            x509.Name.from_rfc4514_string(part, _FURTHER_NAMES)
        except ValueError as error:
            return f"{part.partition('=')[0].strip()}: " if str(error) else ""
    return ""


def file_name(subject: x509.Name) -> str:
    """Return the common name made safe as the name of a file.

    Raises:
        ValueError: nothing of it is left.
    """
    common_names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", str(common_names[0].value)).strip("-.") if common_names else ""
    if not NAME.fullmatch(safe := safe[:100]):
        raise ValueError("the subject gives no name for the files; --name does")
    return safe


def self_signed(subject: x509.Name, days: int, bits: int, now: datetime) -> tuple[rsa.RSAPrivateKey, Certificate]:
    """Return a new key and a certificate for it, for signing as a client and nothing else."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    now = now.replace(microsecond=0)
    parsed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNS_ONLY, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate_of(parsed.public_bytes(Encoding.DER))


def _private_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pfx(name: str, key: rsa.RSAPrivateKey, certificate: x509.Certificate, password: bytes | None) -> bytes:
    return pkcs12.serialize_key_and_certificates(name.encode(), key, certificate, None, _pfx_encryption(password))


def _pfx_encryption(password: bytes | None) -> KeySerializationEncryption:
    """Return an encryption that OpenSSL, .NET, every Windows and Key Vault can open.

    That is triple DES with SHA-1: Windows before 10 1709 and Server 2019, and Key Vault's import, call the password of
    an AES file wrong (learn.microsoft.com, "Cannot import AES256-SHA256-encrypted PFX certificate"; azure-docs 39861;
    packer-plugin-azure 571). Its keys are long enough; the file is as safe as its password and its mode.
    """
    if not password:
        return NoEncryption()
    builder = PrivateFormat.PKCS12.encryption_builder().hmac_hash(hashes.SHA1())  # noqa: S303 - see above
    return builder.key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC).build(password)


def _refuse_existing(paths: Iterable[Path]) -> None:
    """Look at all names before any is taken; a dangling link is a name, too."""
    for path in paths:
        if os.path.lexists(path):
            raise OutputError(path, "exists already and is never overwritten", hint="choose another --name or --out")


def _create_all(directory: Path, contents: Iterable[tuple[Path, bytes, int]]) -> None:
    """Create all files or none."""
    made: list[Path] = []
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, content, mode in contents:
            _create(path, content, mode, made)
    except OSError as error:
        for path in made:
            with suppress(OSError):
                path.unlink()
        place = Path(error.filename) if error.filename else made[-1]
        raise OutputError(place, f"cannot be written: {error.strerror}", hint="no file was left behind") from error


def _create(path: Path, content: bytes, mode: int, made: list[Path]) -> None:
    """Create a file that must not be there yet; a key is never in a file that others may read, not even briefly."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    made.append(path)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no Path
        file.write(content)
        file.flush()
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
