"""A private key and its certificate, proven to belong together and to be good for signing."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.credentials.wrapping import MAX_BITS
from agent.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

    from agent.credentials.keyfiles import Certificate

MIN_BITS = 2048
"""Entra refuses shorter keys (AADSTS50032)."""
LONGEST_CHAIN = 10
"""Certificates; OpenSSL's own bound is not much higher, and real chains have three."""
NEW_PAIR = "token-agent cert new --out DIR --subject CN=NAME makes a pair that Entra takes"


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class KeyPair:
    """A proven key and the chains of its certificates: each leaf first, roots left out.

    There is more than one chain where a file holds a certificate and its renewal for the same key.
    """

    key: rsa.RSAPrivateKey = field(repr=False)
    chains: tuple[tuple[Certificate, ...], ...]

    def chain(self, now: datetime) -> tuple[Certificate, ...]:
        """Return the chain to use: one that is valid now, if any; of several the one that is valid longest."""
        return max(self.chains, key=lambda chain: (chain[0].valid_at(now), chain[0].not_after))


def prove(certificate_path: Path, certificates: Sequence[Certificate], key_path: Path, key: PrivateKeyTypes) -> KeyPair:
    """Return the pair, having signed with the key and verified with the certificate.

    Args:
        certificate_path: the file of the certificates, for messages.
        certificates: in any order; the leaf is the one that certifies the key.
        key_path: the file of the key, for messages; may be the same.
        key: as it was loaded, untested.

    Raises:
        CredentialError: not RSA, too short, not the certificate's key, or damaged.
    """
    rsa_key = _suitable(key_path, key)
    leaves = [
        each for each in certificates if _public_numbers(each.public_key) == _public_numbers(rsa_key.public_key())
    ]
    if not leaves:
        raise _mismatch(certificate_path, certificates[0], key_path, rsa_key)
    if not _signs(rsa_key, leaves[0]):
        message = "the private key is damaged: what it signs does not verify with the certificate"
        raise CredentialError(key_path, message, hint="restore the file, or make a new pair")
    return KeyPair(rsa_key, tuple(_chain(leaf, certificates) for leaf in leaves))


def certifies(certificate: Certificate, key: PrivateKeyTypes) -> bool:
    """Return whether the certificate is for this key, whatever its kind."""
    return certificate.public_key is not None and _encoded(certificate.public_key) == _encoded(key.public_key())


def describe_key(key: object) -> str:
    """Return the kind of a public or private key in words: "RSA 2048 bits", "EC secp256r1", "Ed25519"."""
    if isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey):
        return f"RSA {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        return f"EC {key.curve.name}"
    return type(key).__name__.removesuffix("PublicKey").removesuffix("PrivateKey")


def _suitable(path: Path, key: PrivateKeyTypes) -> rsa.RSAPrivateKey:
    if not isinstance(key, rsa.RSAPrivateKey):
        message = f"the private key is of the kind {describe_key(key)}; only RSA keys can be used with Entra ID"
        raise CredentialError(path, message, hint=NEW_PAIR)
    if key.key_size < MIN_BITS:
        message = f"the private key has {key.key_size} bits; Entra ID asks for at least {MIN_BITS}"
        raise CredentialError(path, message, hint=NEW_PAIR)
    if key.key_size > MAX_BITS:
        message = f"the private key has {key.key_size} bits; each signature would take minutes"
        raise CredentialError(path, message, hint=NEW_PAIR)
    return key


def _public_numbers(key: PublicKeyTypes | None) -> rsa.RSAPublicNumbers | None:
    return key.public_numbers() if isinstance(key, rsa.RSAPublicKey) else None


def _mismatch(
    certificate_path: Path, certificate: Certificate, key_path: Path, key: rsa.RSAPrivateKey
) -> CredentialError:
    """Name both sides; the fingerprints are those of `openssl pkey -pubout -outform DER | sha256sum`."""
    where = "" if key_path == certificate_path else f" in {key_path}"
    theirs = _fingerprint(certificate.public_key) if certificate.public_key else "of an unknown kind"
    message = (
        f"the private key{where} does not belong to the certificate {certificate.subject} "
        f"(thumbprint {certificate.thumbprint}): its public key is {_fingerprint(key.public_key())}, "
        f"the certificate's is {theirs}"
    )
    hint = "one of the two was replaced without the other; while a renewal is under way this mends itself"
    return CredentialError(certificate_path, message, hint=hint)


def _fingerprint(key: PublicKeyTypes) -> str:
    return f"sha256:{sha256(_encoded(key)).hexdigest()[:16]}"


def _encoded(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _signs(key: rsa.RSAPrivateKey, certificate: Certificate) -> bool:
    """Prove the key as it will be used (PS256: RFC 7518 3.5), since its loading proved nothing (`keyfiles`).

    OpenSSL mends a wrong CRT value silently by the slow way, so that the product of the primes is looked at as well.
    """
    numbers, public = key.private_numbers(), certificate.public_key
    if numbers.p * numbers.q != numbers.public_numbers.n or not isinstance(public, rsa.RSAPublicKey):
        return False
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    try:
        public.verify(key.sign(b"token-agent", pss, hashes.SHA256()), b"token-agent", pss, hashes.SHA256())
    except (InvalidSignature, ValueError, UnsupportedAlgorithm, InternalError):
        return False
    return True


def _chain(leaf: Certificate, certificates: Sequence[Certificate]) -> tuple[Certificate, ...]:
    """Return leaf and intermediates, each issued by the next (RFC 7515 4.1.6); what is unrelated stays out.

    A root stays out: whoever verifies must have it already, and believes it for that reason only (RFC 5280 6.1,
    RFC 8446 4.4.2). The signature tells the issuer, so that authorities of one name, old key and new, are told apart.
    """
    chain = [leaf]
    candidates = [each for each in certificates if each.der != leaf.der and not each.self_issued]
    while len(chain) < LONGEST_CHAIN and not chain[-1].self_issued:
        issuer = next((each for each in candidates if _issued(each, chain[-1])), None)
        if issuer is None:
            break
        chain.append(issuer)
        candidates.remove(issuer)  # each once: two authorities may have certified each other
    return tuple(chain)


def _issued(issuer: Certificate, certificate: Certificate) -> bool:
    try:
        certificate.parsed.verify_directly_issued_by(issuer.parsed)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        return False
    return True
