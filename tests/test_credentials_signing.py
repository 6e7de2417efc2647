"""What a loaded certificate says of itself and signs, and when it is loaded anew."""

from __future__ import annotations

import base64
import gc
import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
import pytest
from msal.oauth2cli.assertion import JwtAssertionCreator

from agent.credentials import store as credentials
from agent.credentials.store import CertificateCredential, CredentialStore
from agent.errors import CredentialError
from tests.certificate_helpers import (
    CLIENT_ID,
    DAY,
    NOW,
    certificate_profile,
    load_certificate,
    make_certificate,
    openssl,
    pool_key,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable

AUDIENCE = "https://login.microsoftonline.com/t/oauth2/v2.0/token"
MINUTES = timedelta(minutes=10)


def test_facts_of_the_certificate(tmp_path: Path) -> None:
    """A credential says what `status` and the portal say of the certificate."""
    pair = make_certificate("my app", not_before=NOW - 2 * DAY, not_after=NOW + 30 * DAY)
    (tmp_path / "app.pem").write_bytes(pair.pem)
    credential = load_certificate(tmp_path / "app.pem")
    assert (credential.kind, credential.path, credential.subject) == ("certificate", tmp_path / "app.pem", "CN=my app")
    assert (credential.not_before, credential.not_after) == (NOW - 2 * DAY, NOW + 30 * DAY)
    expected = openssl("dgst", "-sha256", "-r", written(tmp_path / "der", pair.der), cwd=tmp_path).split()[0]
    assert credential.thumbprint_sha256 == expected


def test_assertion_is_what_entra_asks_for(tmp_path: Path) -> None:
    """PS256, unpadded x5t#S256, string audience, integer times, no nbf, no x5t, no kid, no x5c."""
    pair = make_certificate()
    credential = load_certificate(written(tmp_path / "app.pem", pair.pem))
    signed = credential.assertion(CLIENT_ID, AUDIENCE, NOW + timedelta(milliseconds=700), MINUTES)
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in signed.split(".")[:2])
    assert set(header) == {"alg", "typ", "x5t#S256"}
    assert (header["alg"], header["typ"]) == ("PS256", "JWT")
    assert base64.urlsafe_b64decode(header["x5t#S256"] + "=").hex() == credential.thumbprint_sha256
    assert "=" not in header["x5t#S256"]
    assert set(claims) == {"aud", "iss", "sub", "jti", "iat", "exp"}
    issued = int(NOW.timestamp())
    assert (claims["aud"], claims["iat"], claims["exp"]) == (AUDIENCE, issued, issued + 600)
    assert type(claims["iat"]) is type(claims["exp"]) is int


def test_each_assertion_is_new(tmp_path: Path) -> None:
    """Strict providers accept a jti once: two assertions of one instant differ in it."""
    credential = load_certificate(written(tmp_path / "app.pem", make_certificate().pem))
    signed = [credential.assertion(CLIENT_ID, AUDIENCE, NOW, MINUTES) for _ in range(3)]
    assert len({jwt.decode(each, options={"verify_signature": False})["jti"] for each in signed}) == 3


def test_key_id_on_request(tmp_path: Path) -> None:
    """A provider that finds the key by `kid` gets one; nobody else does."""
    credential = load_certificate(written(tmp_path / "app.pem", make_certificate().pem))
    assert jwt.get_unverified_header(credential.assertion(CLIENT_ID, AUDIENCE, NOW, MINUTES, "k1"))["kid"] == "k1"


@pytest.mark.parametrize("send_chain", [False, True])
def test_header_is_msals_apart_from_padding(send_chain: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    """MSAL, which somebody else wrote, puts the same header, but with padding in x5t#S256."""
    pair = make_certificate()
    credential = load_certificate(written(tmp_path / "app.pem", pair.pem), send_chain=send_chain)
    ours = jwt.get_unverified_header(credential.assertion(CLIENT_ID, AUDIENCE, NOW, MINUTES))
    extra = {"x5c": [base64.b64encode(pair.der).decode()]} if send_chain else None
    creator = JwtAssertionCreator(pair.key, "PS256", headers=extra, sha256_thumbprint=credential.thumbprint_sha256)
    theirs = jwt.get_unverified_header(creator.create_normal_assertion(AUDIENCE, CLIENT_ID).decode())
    theirs["x5t#S256"] = theirs["x5t#S256"].rstrip("=")
    assert ours == theirs


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    """Neither repr nor str of a credential holds a key, and its digest stays inside."""
    credential = load_certificate(written(tmp_path / "app.pem", make_certificate().pem))
    shown = f"{credential!r} {credential}"
    assert "CN=app" in shown
    for hidden in ("PrivateKey", "key=", "pair", "chain=(", credential.digest):
        assert hidden not in shown


# ---- equality and the store


def test_equality_follows_content(tmp_path: Path) -> None:
    """Rewriting the same bytes or changing the mode changes nothing; another certificate does."""
    pair, path = make_certificate(), tmp_path / "app.pem"
    first = load_certificate(written(path, pair.pem))
    path.unlink()
    again = load_certificate(written(path, pair.pem, 0o644))
    assert again == first
    assert (len(first.warnings), len(again.warnings)) == (0, 1)
    assert load_certificate(path, send_chain=True) != first
    assert load_certificate(written(path, make_certificate().pem)) != first  # another serial number


def test_password_and_key_are_part_of_the_identity(tmp_path: Path) -> None:
    """A change of any of the files is a change of the credential."""
    pair = make_certificate()
    path, key = written(tmp_path / "app.pem", pair.cert_pem), written(tmp_path / "app.key", pair.key_pem)
    password = written(tmp_path / "password", b"one")
    first = load_certificate(path, key=key, password_file=password)
    written(password, b"two")
    second = load_certificate(path, key=key, password_file=password)
    written(key, pair.key_pem + b"\n")
    assert len({first.digest, second.digest, load_certificate(path, key=key, password_file=password).digest}) == 3


def test_store_proves_a_certificate_once(tmp_path: Path) -> None:
    """A thousand profiles with one certificate share its key, also under different paths."""
    pair, store = make_certificate(), CredentialStore()
    paths = [written(tmp_path / f"{number}.pem", pair.pem) for number in range(10)]
    loaded = [credentials.load(certificate_profile(paths[number % 10]), NOW, store) for number in range(1000)]
    pairs = {id(each.pair) for each in loaded if isinstance(each, CertificateCredential)}
    assert len(pairs) == 1


def test_store_forgets_what_nobody_uses(tmp_path: Path) -> None:
    """A key that no credential holds any more is not kept in memory."""
    store, path = CredentialStore(), written(tmp_path / "app.pem", make_certificate().pem)
    credential = credentials.load(certificate_profile(path), NOW, store)
    assert len(store._pairs) == 1
    del credential
    gc.collect()
    assert len(store._pairs) == 0


def test_store_notices_expiry_and_changes(tmp_path: Path) -> None:
    """What is remembered is the proof, not the verdict about time, and not a file that has changed."""
    store, path = CredentialStore(), written(tmp_path / "app.pem", make_certificate(not_after=NOW + DAY).pem)
    profile = certificate_profile(path)
    first = credentials.load(profile, NOW, store)
    with pytest.raises(CredentialError, match="expired"):
        credentials.load(profile, NOW + 2 * DAY, store)
    written(path, make_certificate("renewed", not_after=NOW + 9 * DAY).pem)
    assert credentials.load(profile, NOW + 2 * DAY, store).subject == "CN=renewed"
    assert first.subject == "CN=app"


class _Rotating(type(Path())):  # type: ignore[misc]
    """A path that another program rotates just when it is opened."""

    rotate: Callable[[], None]

    def __fspath__(self) -> str:
        self.rotate()
        return super().__fspath__()  # type: ignore[no-any-return]


def test_rotation_between_two_reads_is_no_error(tmp_path: Path) -> None:
    """If a read falls into a rotation of key and certificate, they are read once more instead of being refused."""
    old, new = make_certificate("old"), make_certificate("new", pool_key(1))
    path, key = written(tmp_path / "app.crt", new.cert_pem), written(tmp_path / "app.key", old.key_pem)
    profile = certificate_profile(path, key=key)
    trap, reads = _Rotating(path), []

    def rotate() -> None:
        reads.append(1)
        if len(reads) == 1:
            written(key, new.key_pem)  # the old key has just been read

    trap.rotate = rotate
    files = profile.certificate[0].model_copy(update={"path": trap})
    assert credentials.load(profile.model_copy(update={"certificate": (files,)}), NOW).subject == "CN=new"
