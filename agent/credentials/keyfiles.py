"""What is in a file of certificates and keys: PEM, DER or PKCS#12, told by content, whatever the file is called.

Nothing is judged here: `keypair` decides whether what was found can be used. Nothing is read here either: bytes come
in, values come out, and every way in which bytes can be wrong becomes one `CredentialError`.
"""

from __future__ import annotations

import base64
import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key, load_pem_private_key, pkcs12

from agent.credentials import wrapping
from agent.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes

UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, InternalError, x509.InvalidVersion)
"""All that cryptography raises over damaged or strange content."""
PASSWORD_HINT = "name a file that holds the password: `password_file` (for `cert show`: --password-file)"  # noqa: S105
TRY_HINT = "wrong password? one newline at its end is taken off; spaces count"
COPY_HINT = "was it copied in full?"
CHAIN_HINT = "leave only the certificate and those that lead from it to a root"

# A body never runs over into the next block: a file of thousands of BEGIN lines takes linear time.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----((?:[^-]|-(?!----))*)-----END \1-----")
# PFX ::= SEQUENCE { version INTEGER (3), ... } (RFC 7292 4); its length in any form, BER's indefinite one included.
_PFX = re.compile(rb"\x30(?:[\x00-\x80]|\x81.|\x82..|\x83...|\x84....)\x02\x01\x03", re.DOTALL)
MOST_CERTIFICATES = 100
"""In one file: each may have to be compared with each."""
LONGEST_NAME = 300
"""Characters of a subject or issuer that are shown."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and what is asked of it; names are made harmless for terminals and logs.

    Attributes:
        parsed: cryptography's own object.
        der: its bytes.
        subject: as RFC 4514 writes it, the most specific part first.
        issuer: likewise.
        serial: the serial number.
        not_before: the first instant at which it is valid (UTC).
        not_after: the last one.
        public_key: None where it is of a kind unknown here.
    """

    parsed: x509.Certificate = field(repr=False)
    der: bytes = field(repr=False)
    subject: str
    issuer: str
    serial: int
    not_before: datetime
    not_after: datetime
    public_key: CertificatePublicKeyTypes | None = field(repr=False)

    @property
    def thumbprint(self) -> str:
        """SHA-1 in upper-case hex, as Entra's portal shows it."""
        return self.parsed.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - a name, not a protection

    @property
    def thumbprint_sha256(self) -> str:
        """SHA-256 in lower-case hex."""
        return self.parsed.fingerprint(hashes.SHA256()).hex()

    @property
    def x5t_s256(self) -> str:
        """SHA-256 as the ``x5t#S256`` header parameter: base64url without padding (RFC 7515 4.1.8)."""
        return base64.urlsafe_b64encode(self.parsed.fingerprint(hashes.SHA256())).decode().rstrip("=")

    @property
    def self_issued(self) -> bool:
        """Whether subject and issuer are the same (RFC 5280 3.2): a root, or a self-signed leaf."""
        return self.parsed.subject == self.parsed.issuer

    def valid_at(self, now: datetime) -> bool:
        """Return whether ``now`` lies within the validity period."""
        return self.not_before <= now <= self.not_after


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds.

    Attributes:
        path: the file, for messages.
        certificates: in the order of the file.
        key: the private key; the reason where there is one that cannot be opened; None if there is none.
        kinds: what was found, by the names of PEM.
    """

    path: Path
    certificates: tuple[Certificate, ...]
    key: PrivateKeyTypes | CredentialError | None = field(repr=False)
    kinds: tuple[str, ...]

    def private_key(self) -> PrivateKeyTypes:
        """Return the private key.

        Raises:
            CredentialError: there is none, or it cannot be opened.
        """
        if isinstance(self.key, CredentialError):
            raise self.key
        if self.key is None:
            hint = "a PEM with certificate and key, a PFX, or `key` naming the key's own file; a .cer never holds one"
            raise CredentialError(self.path, f"holds no private key{self._found()}", hint=hint)
        return self.key

    def some_certificates(self) -> tuple[Certificate, ...]:
        """Return the certificates, at least one.

        Raises:
            CredentialError: there is none.
        """
        if not self.certificates:
            hint = "a PEM with certificate and key, or a PFX"
            if "CERTIFICATE REQUEST" in self.kinds:
                hint = "a request (CSR) is not a certificate: the authority that signs it sends that back"
            raise CredentialError(self.path, f"holds no certificate{self._found()}", hint=hint)
        return self.certificates

    def _found(self) -> str:
        kinds = ", ".join(dict.fromkeys(self.kinds))
        return f", only: {kinds}" if kinds else ""


def parse(path: Path, content: bytes, password: bytes | None) -> Contents:
    """Return what a file holds.

    Args:
        path: for messages only.
        content: the whole file.
        password: for what is encrypted; ignored where nothing is. None: there is none.

    Raises:
        CredentialError: empty, damaged, of no known form, or a PKCS#12 file that the password does not open.
    """
    content = wrapping.plain(content)
    if not content.strip():
        raise CredentialError(path, "is empty")
    with warnings.catch_warnings():
        # cryptography warns of oddities that other tools let pass (serial number 0, BER); they are no concern here.
        warnings.simplefilter("ignore")
        if b"-----BEGIN " in content:
            return _pem(path, content, password)
        content = wrapping.binary(content)
        return _pkcs12(path, content, password) if _PFX.match(content) else _der(path, content, password)


def certificate_of(der: bytes) -> Certificate:
    """Return a certificate with all that is asked of it: cryptography parses late, and would fail late.

    Raises:
        UNREADABLE: it is damaged.
    """
    parsed = x509.load_der_x509_certificate(der)
    try:
        public_key = parsed.public_key()
    except UnsupportedAlgorithm:
        public_key = None
    return Certificate(
        parsed=parsed,
        der=der,
        subject=_harmless(parsed.subject.rfc4514_string()),
        issuer=_harmless(parsed.issuer.rfc4514_string()),
        serial=parsed.serial_number,
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        public_key=public_key,
    )


def _harmless(text: str) -> str:
    """Write control characters as escapes: they would move the cursor, or begin a new line of a log."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:LONGEST_NAME])
    return shown if len(text) <= LONGEST_NAME else f"{shown}…"


def _pem(path: Path, content: bytes, password: bytes | None) -> Contents:
    """Take the blocks of a PEM file (RFC 7468); text around them is commentary ("Bag Attributes" of OpenSSL)."""
    blocks = [(label.decode(), body) for label, body in _BLOCK.findall(content)]
    if len(blocks) < content.count(b"-----BEGIN "):
        raise CredentialError(path, "is damaged: a BEGIN line has no matching END line", hint=COPY_HINT)
    bodies = [body for label, body in blocks if label in ("CERTIFICATE", "X509 CERTIFICATE")]
    if len(bodies) > MOST_CERTIFICATES:
        raise CredentialError(path, f"holds {len(bodies)} certificates; {MOST_CERTIFICATES} at most", hint=CHAIN_HINT)
    certificates = tuple(_pem_certificate(path, body, place) for place, body in enumerate(bodies, 1))
    keys = [block for block in blocks if block[0].endswith("PRIVATE KEY")]
    if len(keys) > 1:
        raise CredentialError(path, f"holds {len(keys)} private keys", hint="leave only the one that is to be used")
    key = _pem_key(path, *keys[0], password) if keys else None
    return Contents(path, certificates, key, tuple(label for label, _ in blocks))


def _pem_certificate(path: Path, body: bytes, place: int) -> Certificate:
    try:
        return certificate_of(base64.b64decode(b"".join(body.split()), validate=True))
    except UNREADABLE as error:
        raise CredentialError(path, f"certificate {place} of the file is damaged", hint=COPY_HINT) from error


def _pem_key(path: Path, label: str, body: bytes, password: bytes | None) -> PrivateKeyTypes | CredentialError:
    if label == "OPENSSH PRIVATE KEY":
        hint = f"ssh-keygen -p -m PKCS8 -f {path} converts it in place"
        return CredentialError(path, "holds a private key in OpenSSH's own format", hint=hint)
    lines = b"\n".join(line.strip() for line in body.strip().splitlines())  # CRLF, and the indentation of YAML
    whole = f"-----BEGIN {label}-----\n".encode() + lines + f"\n-----END {label}-----\n".encode()
    damaged = CredentialError(path, "the private key is damaged, or of a kind unknown here", hint=COPY_HINT)
    if excess := wrapping.excess(path, _decoded(body)):
        return excess
    return _open_key(path, load_pem_private_key, whole, password) or damaged


def _decoded(body: bytes) -> bytes:
    """Return the bytes of a PEM block, empty where it is damaged, or has headers as only old ways to encrypt have."""
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except ValueError:
        return b""


def _open_key(
    path: Path, load: Callable[..., PrivateKeyTypes], data: bytes, password: bytes | None
) -> PrivateKeyTypes | CredentialError | None:
    """Return a key, the reason why the password does not open it, or None for what is no key that can be read."""
    try:
        # Tests of the primes take 50 ms and hold the interpreter's lock, so that the whole agent stands still for each
        # key. An administrator's own file needs no defence against crafted primes; `keypair.prove` takes 1 ms.
        return load(data, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        pass  # how cryptography says that the key is encrypted
    except UNREADABLE:
        return None
    if not password:
        lacking = "no password is given" if password is None else "the password is empty"
        return CredentialError(path, f"the private key is encrypted, and {lacking}", hint=PASSWORD_HINT)
    try:
        return load(data, password, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        hint = "openssl pkcs8 -topk8 -v2 aes-256-cbc encrypts it in today's way"
        return CredentialError(path, "the private key is encrypted in a way that is not supported here", hint=hint)
    except UNREADABLE:
        return CredentialError(path, "the password does not open the private key", hint=TRY_HINT)


def _pkcs12(path: Path, content: bytes, password: bytes | None) -> Contents:
    """Open a PFX (RFC 7292). Azure Key Vault's have no password; one that is given all the same is ignored."""
    if excess := wrapping.excess(path, content):
        raise excess
    found = _open_pkcs12(content, password) or _open_pkcs12(content, None)
    if found is None:
        lacking = "needs a password" if password is None else "is not opened by the password"
        hint = PASSWORD_HINT if password is None else TRY_HINT
        raise CredentialError(path, f"is a PKCS#12 file that {lacking} (or it is damaged)", hint=hint)
    entries = (found.cert, *found.additional_certs[:MOST_CERTIFICATES])
    try:
        ders = [entry.certificate.public_bytes(Encoding.DER) for entry in entries if entry]
        certificates = tuple(certificate_of(der) for der in ders)
    except UNREADABLE as error:
        raise CredentialError(path, "holds a damaged certificate", hint=COPY_HINT) from error
    return Contents(path, certificates, found.key, ("CERTIFICATE",) * len(ders))


def _open_pkcs12(content: bytes, password: bytes | None) -> pkcs12.PKCS12KeyAndCertificates | None:
    try:
        # This tests the primes (50 ms), and cannot be told not to: `CredentialStore` opens each file once.
        return pkcs12.load_pkcs12(content, password)
    except UNREADABLE:
        return None


def _der(path: Path, content: bytes, password: bytes | None) -> Contents:
    """Take a single certificate, or a single key, in DER."""
    try:
        return Contents(path, (certificate_of(content),), None, ("CERTIFICATE",))
    except UNREADABLE:
        key = wrapping.excess(path, content) or _open_key(path, load_der_private_key, content, password)
    if key is None:
        message = "is neither PEM nor PKCS#12 nor DER: no certificate and no key is in it"
        raise CredentialError(path, message, hint="is this the right file?")
    return Contents(path, (), key, ("PRIVATE KEY",))
