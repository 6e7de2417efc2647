"""The chain that `send_chain` sends: leaf first whatever the file's order, each signed by the next, nothing else."""

from __future__ import annotations

import base64
import itertools
from datetime import timedelta
from typing import TYPE_CHECKING

import jwt
import pytest
from cryptography import x509

from tests.certificate_helpers import (
    CLIENT_ID,
    DAY,
    NOW,
    Chain,
    Pair,
    load_certificate,
    make_certificate,
    make_chain,
    openssl,
    pool_key,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MEMBERS = ("leaf", "lower", "upper", "root")


def sent(path: Path, *, send_chain: bool = True) -> list[x509.Certificate] | None:
    """Return the x5c of an assertion as a verifier reads it (RFC 7515 4.1.6: standard base64 of DER)."""
    credential = load_certificate(path, send_chain=send_chain)
    signed = credential.assertion(CLIENT_ID, "https://x/token", NOW, timedelta(minutes=10))
    entries = jwt.get_unverified_header(signed).get("x5c")
    if entries is None:
        return None
    return [x509.load_der_x509_certificate(base64.b64decode(entry, validate=True)) for entry in entries]


def pem(members: Sequence[Pair], key: Pair) -> bytes:
    return b"".join(each.cert_pem for each in members) + key.key_pem


@pytest.mark.parametrize("order", list(itertools.permutations(MEMBERS)), ids="-".join)
def test_order_of_the_file_does_not_matter(order: tuple[str, ...], tmp_path: Path) -> None:
    """In every order: leaf, then its issuer, then that one's; every link verifies; the root stays out."""
    chain = make_chain()
    path = written(tmp_path / "app.pem", pem([getattr(chain, name) for name in order], chain.leaf))
    certificates = sent(path)
    assert certificates == [chain.leaf.certificate, chain.lower.certificate, chain.upper.certificate]
    for certificate, issuer in itertools.pairwise([*certificates, chain.root.certificate]):
        certificate.verify_directly_issued_by(issuer)


def test_key_vault_vm_extension(tmp_path: Path) -> None:
    """The extension's PEM (leaf, intermediates, root, key last) is taken as it is, and the leaf is the credential."""
    chain = make_chain()
    path = written(tmp_path / "vault.cert", pem([chain.leaf, chain.lower, chain.upper, chain.root], chain.leaf))
    assert load_certificate(path).thumbprint == chain.leaf.thumbprint
    assert len(sent(path) or ()) == 3


@pytest.mark.parametrize("password", [None, b"pw"])
def test_chain_of_a_pfx(password: bytes | None, tmp_path: Path) -> None:
    """A PFX brings its chain along, in whatever order it stores it."""
    chain = make_chain()
    written(tmp_path / "password", password or b"")
    path = written(tmp_path / "app.pfx", chain.leaf.pfx(password, [chain.root, chain.upper, chain.lower]))
    credential = load_certificate(path, send_chain=True, password_file=tmp_path / "password")
    assert [each.subject for each in credential.chain] == ["CN=app", "CN=Test Issuing CA", "CN=Test Policy CA"]


def test_pfx_of_openssl_without_key_id(tmp_path: Path) -> None:
    """The leaf is found by its key also where the PFX's first certificate is an authority's."""
    chain = make_chain()
    written(tmp_path / "key.pem", chain.leaf.key_pem)
    written(tmp_path / "certs.pem", pem([chain.lower, chain.leaf], chain.leaf))
    export = ("pkcs12", "-export", "-in", "certs.pem", "-inkey", "key.pem", "-passout", "pass:", "-out", "app.pfx")
    openssl(*export, cwd=tmp_path)
    assert [each.subject for each in load_certificate(tmp_path / "app.pfx").chain] == ["CN=app", "CN=Test Issuing CA"]


def test_not_sent_unless_asked(tmp_path: Path) -> None:
    """Without `send_chain` there is no x5c, whatever the file holds."""
    chain = make_chain()
    assert sent(written(tmp_path / "app.pem", pem([chain.leaf, chain.lower], chain.leaf)), send_chain=False) is None


def test_self_signed_leaf_is_sent_itself(tmp_path: Path) -> None:
    """A self-signed certificate is leaf and root in one: it is what was registered, and it is sent."""
    pair = make_certificate()
    assert sent(written(tmp_path / "app.pem", pair.pem)) == [pair.certificate]


def test_unrelated_certificates_are_dropped(tmp_path: Path) -> None:
    """Certificates that did not sign anything of the chain are not sent."""
    chain, stranger = make_chain(), make_certificate("stranger", pool_key(4), ca=True)
    members = [stranger, chain.lower, make_certificate("client of stranger", pool_key(5), issuer=stranger), chain.leaf]
    assert sent(written(tmp_path / "app.pem", pem(members, chain.leaf))) == [
        chain.leaf.certificate,
        chain.lower.certificate,
    ]


def test_gap_ends_the_chain(tmp_path: Path) -> None:
    """What lies above a missing link cannot be told apart from a stranger, and is not sent."""
    chain = make_chain()
    assert sent(written(tmp_path / "app.pem", pem([chain.upper, chain.leaf], chain.leaf))) == [chain.leaf.certificate]


def test_authorities_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """After an authority changed its key there are two of its name: the one that signed is sent."""
    chain = make_chain()
    namesake = make_certificate("Test Issuing CA", pool_key(4), issuer=chain.upper, ca=True)
    for order in ([namesake, chain.lower], [chain.lower, namesake]):
        path = written(tmp_path / "app.pem", pem([*order, chain.leaf], chain.leaf))
        assert sent(path) == [chain.leaf.certificate, chain.lower.certificate]


def test_authorities_that_certify_each_other(tmp_path: Path) -> None:
    """A circle of cross-certificates ends: each certificate is sent once."""
    chain = make_chain()
    circle = Chain(
        chain.leaf,
        make_certificate("Test Issuing CA", pool_key(3), issuer=chain.upper, ca=True),
        make_certificate("Test Policy CA", pool_key(2), issuer=chain.lower, ca=True),
        chain.root,
    )
    path = written(tmp_path / "app.pem", pem([circle.leaf, circle.lower, circle.upper], chain.leaf))
    assert sent(path) == [circle.leaf.certificate, circle.lower.certificate, circle.upper.certificate]


@pytest.mark.parametrize("turned", [False, True])
def test_renewal_with_the_same_key(turned: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    """Of two certificates for the key the one that is valid now is used, and of two such the one valid longer."""
    expired = make_certificate("expired", not_before=NOW - 9 * DAY, not_after=NOW - DAY)
    valid = make_certificate("valid", not_after=NOW + 9 * DAY)
    later = make_certificate("later", not_before=NOW + 5 * DAY, not_after=NOW + 99 * DAY)
    members = [expired, valid, later][:: -1 if turned else 1]
    path = written(tmp_path / "app.pem", pem(members, valid))
    assert load_certificate(path, NOW).subject == "CN=valid"
    assert load_certificate(path, NOW + 6 * DAY).subject == "CN=later"
