"""Every shape in which certificates and keys come is loaded, and what is loaded signs as Entra asks for."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import jwt
import pytest
from cryptography import x509

from tests.certificate_helpers import (
    CLIENT_ID,
    NOW,
    Pair,
    load_certificate,
    make_certificate,
    openssl,
    pool_key,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.credentials.store import CertificateCredential

AUDIENCE = "https://login.microsoftonline.com/t/oauth2/v2.0/token"
MINUTES = timedelta(minutes=10)


def assert_signs(credential: CertificateCredential, pair: Pair, now: datetime = NOW) -> None:
    """The assertion verifies with the certificate's public key."""
    signed = credential.assertion(CLIENT_ID, AUDIENCE, now, MINUTES)
    claims = jwt.decode(
        signed, pair.public_key, ["PS256"], {"verify_exp": False, "verify_iat": False}, audience=AUDIENCE
    )
    assert claims["iss"] == claims["sub"] == CLIENT_ID
    assert credential.thumbprint == pair.thumbprint


SHAPES: dict[str, Callable[[Pair], bytes]] = {
    "key first": lambda pair: pair.key_pem + pair.cert_pem,
    "certificate first": lambda pair: pair.cert_pem + pair.key_pem,
    "PKCS#1": lambda pair: pair.pkcs1_pem + pair.cert_pem,
    "CRLF": lambda pair: pair.pem.replace(b"\n", b"\r\n"),
    "CR alone": lambda pair: pair.pem.replace(b"\n", b"\r"),
    "byte order mark": lambda pair: b"\xef\xbb\xbf" + pair.pem,
    "UTF-16 of PowerShell": lambda pair: pair.pem.decode().encode("utf-16"),
    "text around the blocks": lambda pair: (
        b"Bag Attributes\n    localKeyID: 01 - 02\n    friendlyName: k\xc3\xa4se --\nKey Attributes: <No Attributes>\n"
        + pair.key_pem
        + b"subject=CN = app\nissuer=CN = app\n"
        + pair.cert_pem
        + b"the end, without newline"
    ),
    "indented, as in YAML": lambda pair: b"".join(b"    " + line + b"\n" for line in pair.pem.splitlines()),
    "no newline at the end": lambda pair: pair.pem.rstrip(),
    "PFX": lambda pair: pair.pfx(),
    "PFX in base64, as `az keyvault secret show` prints it": lambda pair: base64.b64encode(pair.pfx()) + b"\n",
    "PFX with indefinite length (BER)": lambda pair: b"\x30\x80" + pair.pfx()[4:] + b"\x00\x00",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_is_loaded(shape: str, tmp_path: Path) -> None:
    """A file is understood by its content: every usual shape of certificate and key in one file works."""
    pair = make_certificate()
    path = tmp_path / "anything.bin"
    path.write_bytes(SHAPES[shape](pair))
    assert_signs(load_certificate(path), pair)


@pytest.mark.parametrize("form", ["PEM", "PKCS#1", "encrypted", "DER", "combined PEM", "PFX"])
def test_key_in_a_file_of_its_own(form: str, tmp_path: Path) -> None:
    """With `key` the key comes from there, in any form, and the certificate's file may be PEM or DER."""
    pair = make_certificate()
    key = {
        "PEM": pair.key_pem,
        "PKCS#1": pair.pkcs1_pem,
        "encrypted": pair.encrypted_key_pem(b"pw"),
        "DER": pair.key_der,
        "combined PEM": pair.pem,
        "PFX": pair.pfx(b"pw"),
    }[form]
    (tmp_path / "app.cer").write_bytes(pair.der)
    (tmp_path / "app.key").write_bytes(key)
    (tmp_path / "password").write_bytes(b"pw\n")
    credential = load_certificate(tmp_path / "app.cer", key=tmp_path / "app.key", password_file=tmp_path / "password")
    assert_signs(credential, pair)


def test_key_file_wins_over_a_key_in_the_certificate_file(tmp_path: Path) -> None:
    """With `key` whatever key the certificate's file holds is not even opened."""
    pair, stranger = make_certificate(), make_certificate("other", pool_key(1))
    (tmp_path / "app.pem").write_bytes(pair.cert_pem + stranger.encrypted_key_pem(b"unknown"))
    (tmp_path / "app.key").write_bytes(pair.key_pem)
    assert_signs(load_certificate(tmp_path / "app.pem", key=tmp_path / "app.key"), pair)


# ---- what OpenSSL itself makes


@pytest.fixture
def workshop(tmp_path: Path) -> tuple[Path, Pair]:
    """A directory with key.pem and cert.pem, the certificate made by `openssl req -x509`."""
    (tmp_path / "key.pem").write_bytes(make_certificate().key_pem)
    openssl("req", "-x509", "-key", "key.pem", "-subj", "/CN=app/O=Contoso", "-out", "cert.pem", cwd=tmp_path)
    return tmp_path, Pair(x509.load_pem_x509_certificate((tmp_path / "cert.pem").read_bytes()), pool_key())


ENCRYPTIONS = {
    "traditional AES-256": ("rsa", "-traditional", "-aes256"),
    "traditional 3DES": ("rsa", "-traditional", "-des3"),
    "PKCS#8 AES-256": ("pkcs8", "-topk8"),
    "PKCS#8 PBES1 3DES": ("pkcs8", "-topk8", "-v1", "PBE-SHA1-3DES"),
    "PKCS#8 scrypt": ("pkcs8", "-topk8", "-scrypt"),
}


@pytest.mark.parametrize("encryption", ENCRYPTIONS)
@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_encrypted_key_of_openssl(encryption: str, ending: bytes, workshop: tuple[Path, Pair]) -> None:
    """OpenSSL's encrypted keys open with the password, with or without a newline at the end of its file."""
    directory, pair = workshop
    tool, *options = ENCRYPTIONS[encryption]
    openssl(tool, "-in", "key.pem", *options, "-passout", "pass:p w", "-out", "encrypted.pem", cwd=directory)
    (directory / "all.pem").write_bytes((directory / "encrypted.pem").read_bytes() + pair.cert_pem)
    (directory / "password").write_bytes(b"p w" + ending)
    now = datetime.now(UTC) + timedelta(minutes=1)
    assert_signs(load_certificate(directory / "all.pem", now, password_file=directory / "password"), pair, now)


@pytest.mark.parametrize("separator", [b"\n    ", b"\r", b"\r\n"])
def test_encrypted_key_with_headers_survives_reformatting(separator: bytes, workshop: tuple[Path, Pair]) -> None:
    """The headers of a traditional encrypted key are found also where it was indented or its newlines changed."""
    directory, pair = workshop
    openssl("rsa", "-in", "key.pem", "-traditional", "-aes256", "-passout", "pass:pw", "-out", "e.pem", cwd=directory)
    content = pair.cert_pem + (directory / "e.pem").read_bytes()
    path, password = directory / "all.pem", written(directory / "password", b"pw")
    written(path, separator.join(content.splitlines()))
    now = datetime.now(UTC) + timedelta(minutes=1)
    assert_signs(load_certificate(path, now, password_file=password), pair, now)


@pytest.mark.parametrize("command", [("genrsa", "-traditional"), ("genrsa",), ("req", "-x509", "-newkey", "rsa:2048")])
def test_new_key_of_openssl(command: tuple[str, ...], workshop: tuple[Path, Pair]) -> None:
    """Keys and certificates are taken as OpenSSL's own commands make them, text output included."""
    directory, _ = workshop
    if command[0] == "genrsa":
        openssl(*command, "-out", "new.key", "2048", cwd=directory)
        openssl("req", "-x509", "-key", "new.key", "-subj", "/CN=new", "-text", "-out", "new.crt", cwd=directory)
    else:
        openssl(*command, "-nodes", "-keyout", "new.key", "-subj", "/CN=new", "-out", "new.crt", cwd=directory)
    now = datetime.now(UTC) + timedelta(minutes=1)
    credential = load_certificate(directory / "new.crt", now, key=directory / "new.key")
    assert credential.subject == "CN=new"
    assert credential.thumbprint in openssl("x509", "-in", "new.crt", "-noout", "-fingerprint", cwd=directory).replace(
        ":", ""
    )


WINDOWS = ("-name", "app", "-CSP", "Microsoft Enhanced RSA and AES Cryptographic Provider", "-LMK")
TRIPLE_DES = ("-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1")
PFX = {
    "OpenSSL's default": ((), "pw"),
    "OpenSSL's default, empty password": ((), ""),
    "OpenSSL's legacy: RC2-40 and 3DES": (("-legacy",), "pw"),
    "Key Vault's export: 3DES, no password": ((*TRIPLE_DES, *WINDOWS), ""),
    "Export-PfxCertificate: TripleDES_SHA1": ((*TRIPLE_DES, *WINDOWS), "pw"),
    "Export-PfxCertificate: AES256_SHA256": (("-keypbe", "AES-256-CBC", "-certpbe", "AES-256-CBC", *WINDOWS), "pw"),
    "unencrypted": (("-keypbe", "NONE", "-certpbe", "NONE"), ""),
    "without MAC": (("-nomac", "-keypbe", "NONE", "-certpbe", "NONE"), ""),
}


@pytest.mark.parametrize("kind", PFX)
def test_pfx_of_openssl(kind: str, workshop: tuple[Path, Pair]) -> None:
    """PFX files as OpenSSL, Windows and Key Vault shape them open; without password no password is needed."""
    directory, pair = workshop
    options, password = PFX[kind]
    export = ("pkcs12", "-export", "-in", "cert.pem", "-inkey", "key.pem", "-out", "app.pfx")
    openssl(*export, "-passout", f"pass:{password}", *options, cwd=directory)
    (directory / "password").write_text(password)
    now = datetime.now(UTC) + timedelta(minutes=1)
    with_password = load_certificate(directory / "app.pfx", now, password_file=directory / "password")
    assert_signs(with_password, pair, now)
    if not password:
        assert_signs(load_certificate(directory / "app.pfx", now), pair, now)


@pytest.mark.parametrize("shape", ["PEM", "PFX"])
def test_needless_password_is_ignored(shape: str, tmp_path: Path) -> None:
    """A password for what is not encrypted does no harm: the file may be encrypted again tomorrow."""
    pair = make_certificate()
    (tmp_path / "app").write_bytes(pair.pem if shape == "PEM" else pair.pfx())
    (tmp_path / "password").write_text("needless")
    assert_signs(load_certificate(tmp_path / "app", password_file=tmp_path / "password"), pair)
