"""Every certificate that cannot work is refused before it is used, with a sentence that says why and what to do."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519

from tests.certificate_helpers import (
    DAY,
    NOW,
    Pair,
    load_certificate,
    make_certificate,
    openssl,
    pool_key,
    refused,
    written,
)

if TYPE_CHECKING:
    from pathlib import Path


# ---- the content of a file


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf", b"\xff\xfe"])
def test_empty(content: bytes, tmp_path: Path) -> None:
    """An empty file, or one of blanks, is called empty."""
    assert "is empty" in refused(written(tmp_path / "app.pem", content)).message


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 99, b"\x30\x82\x01\x00", b"\x7fELF", b"QUJD", "ключ".encode()])
def test_garbage(content: bytes, tmp_path: Path) -> None:
    """What is neither PEM nor DER nor PKCS#12 is said to be just that."""
    error = refused(written(tmp_path / "app.pem", content))
    assert "is neither PEM nor PKCS#12 nor DER" in error.message
    assert "right file" in error.hint


def test_cut_off(tmp_path: Path) -> None:
    """A PEM file that was copied in part is called damaged, not "without certificate"."""
    pair = make_certificate()
    error = refused(written(tmp_path / "app.pem", pair.cert_pem[:-40] + pair.key_pem))
    assert "BEGIN line has no matching END" in error.message


def test_damaged_certificate(tmp_path: Path) -> None:
    """Of several certificates the damaged one is named by its place."""
    pair = make_certificate()
    damaged = pair.cert_pem.replace(pair.cert_pem[100:140], b"A" * 40)
    assert "certificate 2 of the file is damaged" in refused(written(tmp_path / "a.pem", pair.pem + damaged)).message


def test_damaged_key(tmp_path: Path) -> None:
    """A key block that cannot be read is called damaged."""
    pair = make_certificate()
    damaged = pair.key_pem.replace(pair.key_pem[60:100], b"A" * 40)
    assert "private key is damaged" in refused(written(tmp_path / "app.pem", pair.cert_pem + damaged)).message


@pytest.mark.parametrize("form", ["PEM", "DER", "PFX"])
def test_no_key(form: str, tmp_path: Path) -> None:
    """A certificate alone, as exported for upload, says that the private key is not in it."""
    pair = make_certificate()
    path = written(tmp_path / "app.cer", pair.der if form == "DER" else pair.cert_pem)
    if form == "PFX":
        openssl("pkcs12", "-export", "-nokeys", "-in", "app.cer", "-passout", "pass:", "-out", "app.pfx", cwd=tmp_path)
        path = tmp_path / "app.pfx"
    error = refused(path)
    assert "holds no private key, only: CERTIFICATE" in error.message
    assert "`key`" in error.hint


@pytest.mark.parametrize("form", ["PEM", "DER"])
def test_no_certificate(form: str, tmp_path: Path) -> None:
    """A key alone says that the certificate is not in it."""
    pair = make_certificate()
    content = pair.key_pem if form == "PEM" else pair.key_der
    assert "holds no certificate, only: PRIVATE KEY" in refused(written(tmp_path / "a", content)).message


def test_request_is_no_certificate(tmp_path: Path) -> None:
    """A certificate request beside the key is called what it is."""
    path = written(tmp_path / "app.pem", make_certificate().key_pem)
    openssl("req", "-new", "-key", "app.pem", "-subj", "/CN=app", "-out", "app.csr", cwd=tmp_path)
    written(path, path.read_bytes() + (tmp_path / "app.csr").read_bytes())
    assert "CSR" in refused(path).hint


def test_two_keys(tmp_path: Path) -> None:
    """Two keys in one file leave open which is meant."""
    content = make_certificate().pem + make_certificate(key=pool_key(1)).key_pem
    assert "holds 2 private keys" in refused(written(tmp_path / "app.pem", content)).message


def test_openssh_key(tmp_path: Path) -> None:
    """A key in OpenSSH's form names the command that converts it."""
    block = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----\n"
    assert "ssh-keygen -p -m PKCS8" in refused(written(tmp_path / "a.pem", make_certificate().cert_pem + block)).hint


# ---- the pair


@pytest.mark.parametrize("separate", [False, True])
def test_key_of_another_certificate(separate: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    """A key that is not the certificate's names the thumbprint, both public keys, and the files."""
    pair, stranger = make_certificate(), make_certificate("other", pool_key(1))
    path = written(tmp_path / "app.pem", pair.cert_pem + (b"" if separate else stranger.key_pem))
    further = {"key": written(tmp_path / "app.key", stranger.key_pem)} if separate else {}
    error = refused(path, **further)
    assert "does not belong to the certificate CN=app" in error.message
    assert pair.thumbprint in error.message
    assert error.message.count("sha256:") == 2
    assert (str(tmp_path / "app.key") in error.message) == separate
    own = openssl("x509", "-in", "app.pem", "-noout", "-pubkey", "-out", "pub.pem", cwd=tmp_path) or "pub.pem"
    openssl("pkey", "-pubin", "-in", own, "-outform", "DER", "-out", "pub.der", cwd=tmp_path)
    assert openssl("dgst", "-sha256", "-r", "pub.der", cwd=tmp_path)[:16] in error.message


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "EC secp256r1"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
    ],
)
def test_other_kinds_of_key(key: Any, name: str, tmp_path: Path) -> None:
    """Keys that are not RSA are refused by name, with the command that makes one that works."""
    error = refused(written(tmp_path / "app.pem", make_certificate(key=key).pem))
    assert f"{name}; only RSA keys" in error.message
    assert "token-agent cert new" in error.hint


def test_dsa_key(tmp_path: Path) -> None:
    """A DSA key is refused like the other kinds."""
    key = Pair(make_certificate().certificate, dsa.generate_private_key(1024))  # noqa: S505 - to be refused
    assert "DSA; only RSA keys" in refused(written(tmp_path / "app.pem", key.pem)).message


@pytest.mark.parametrize("bits", [1024, 2047])
def test_short_key(bits: int, tmp_path: Path) -> None:
    """Entra asks for 2048 bits: one less is refused here rather than there."""
    error = refused(written(tmp_path / "app.pem", make_certificate(key=pool_key(bits=bits)).pem))
    assert f"has {bits} bits" in error.message
    assert "2048" in error.message


@pytest.mark.parametrize("parts", [("p",), ("q",), ("d", "dmp1"), ("d", "dmp1", "dmq1", "iqmp")])
def test_damaged_arithmetic(parts: tuple[str, ...], tmp_path: Path) -> None:
    """A key whose numbers do not fit together is refused, although it was loaded without the slow tests."""
    pair = make_certificate()
    numbers, der = pool_key().private_numbers(), base64.b64decode(b"".join(pair.pkcs1_pem.splitlines()[1:-1]))
    for number in (getattr(numbers, part) for part in parts):
        size = (number.bit_length() + 7) // 8
        der = der.replace(number.to_bytes(size, "big"), (number ^ 4).to_bytes(size, "big"))
    body = b"-----BEGIN RSA PRIVATE KEY-----\n" + base64.encodebytes(der) + b"-----END RSA PRIVATE KEY-----\n"
    assert "the private key is damaged" in refused(written(tmp_path / "app.pem", pair.cert_pem + body)).message


# ---- time


def test_expired(tmp_path: Path) -> None:
    """An expired certificate says since when, and its last second still counts as valid."""
    path = written(tmp_path / "app.pem", make_certificate(not_after=NOW - 3 * DAY).pem)
    error = refused(path)
    assert error.message.endswith("expired on 2026-02-26 12:00:00 UTC")
    assert "3 days ago" in error.hint
    assert "token-agent cert new" in error.hint
    assert load_certificate(path, NOW - 3 * DAY).subject == "CN=app"


def test_not_yet_valid(tmp_path: Path) -> None:
    """A certificate of the future says from when, and asks whether the clock is right."""
    path = written(tmp_path / "app.pem", make_certificate(not_before=NOW + 2 * DAY).pem)
    error = refused(path)
    assert error.message.endswith("is not valid before 2026-03-03 12:00:00 UTC")
    assert "in 2 days" in error.hint
    assert "clock" in error.hint
    assert "2026-03-01 12:00:00 UTC" in error.hint


# ---- passwords


@pytest.mark.parametrize("form", ["PEM", "PFX"])
def test_passwords(form: str, tmp_path: Path) -> None:
    """No password, a wrong one and an empty one are told apart, and none is ever quoted."""
    pair = make_certificate()
    content = pair.cert_pem + pair.encrypted_key_pem(b"swordfish") if form == "PEM" else pair.pfx(b"swordfish")
    path, password = written(tmp_path / "app", content), tmp_path / "password"
    error = refused(path)
    assert ("no password is given" if form == "PEM" else "needs a password") in error.message
    assert "`password_file`" in error.hint
    for wrong in (b"swordfish2", b"swordfish \n", b"swordfish\n\n", b"\xff\xfe\xfd"):
        error = refused(path, password_file=written(password, wrong))
        assert ("does not open the private key" if form == "PEM" else "not opened by the password") in error.message
        assert "wrong password?" in error.hint
    error = refused(path, password_file=written(password, b""))
    assert ("the password is empty" if form == "PEM" else "not opened by the password") in error.message


def test_damaged_pfx(tmp_path: Path) -> None:
    """A PFX that was cut off may look like a wrong password; the sentence leaves that open."""
    assert "or it is damaged" in refused(written(tmp_path / "app.pfx", make_certificate().pfx()[:-100])).message
