"""Assertion files and client secrets: read at every use, checked at every use, never held."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.credentials import store as credentials
from agent.credentials.store import AssertionFileCredential, SecretCredential
from agent.errors import CredentialError
from tests.certificate_helpers import NOW, profile, written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ISSUER = "https://oidc.example.com/cluster"
MINUTE = timedelta(minutes=1)


def jwt(**claims: Any) -> bytes:
    """Return a JWT of a workload, signed by nobody in particular."""
    known = {"iss": ISSUER, "sub": "system:serviceaccount:ns:app", "aud": "api://AzureADTokenExchange"}
    parts = ({"alg": "RS256"}, known | {"exp": int((NOW + MINUTE).timestamp())} | claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*encoded, b"c2lnbmF0dXJl"])


def assertion_credential(path: Path) -> AssertionFileCredential:
    credential = credentials.load(profile(federated={"assertion_file": str(path)}), NOW)
    assert isinstance(credential, AssertionFileCredential)
    return credential


def used(credential: AssertionFileCredential) -> str:
    return credential.assertion("client", "https://x/token", NOW, timedelta(minutes=10))


def secret_credential(path: Path) -> SecretCredential:
    credential = credentials.load(profile(client_secret_file=path), NOW)
    assert isinstance(credential, SecretCredential)
    return credential


def problem(action: Callable[[], object]) -> CredentialError:
    with pytest.raises(CredentialError) as caught:
        action()
    return caught.value


# ---- assertions


def test_assertion_is_read_at_every_use(tmp_path: Path) -> None:
    """A renewed assertion is used at once, without a reload, and surrounding blanks are taken off."""
    path = written(tmp_path / "token", jwt(jti="1"))
    credential = assertion_credential(path)
    assert used(credential) == jwt(jti="1").decode()
    written(path, b"  " + jwt(jti="2") + b"\r\n")
    assert used(credential) == jwt(jti="2").decode()


def test_assertion_that_comes_later(tmp_path: Path) -> None:
    """A file that is not there at start is no reason to give the profile up: it is used once it is there."""
    credential = assertion_credential(tmp_path / "token")
    assert problem(lambda: used(credential)).missing
    assert problem(lambda: credential.check(NOW)).missing
    written(tmp_path / "token", jwt())
    credential.check(NOW)
    assert used(credential)


def test_expired_assertion(tmp_path: Path) -> None:
    """An expired assertion is not sent; the error says since when and whose it is, and does not quote it."""
    path = written(tmp_path / "token", jwt(exp=int((NOW - 5 * MINUTE).timestamp())))
    error = problem(lambda: used(assertion_credential(path)))
    assert "expired on 2026-03-01 11:55:00 UTC, 5 min ago" in error.message
    for claim in (f"iss '{ISSUER}'", "sub 'system:serviceaccount:ns:app'", "aud 'api://AzureADTokenExchange'"):
        assert claim in error.hint
    assert "c2lnbmF0dXJl" not in f"{error.message} {error.hint}"


def test_assertion_that_expires_now(tmp_path: Path) -> None:
    """The second named by `exp` itself is too late (RFC 7519 4.1.4)."""
    path = written(tmp_path / "token", jwt(exp=int(NOW.timestamp())))
    assert "expired" in problem(lambda: used(assertion_credential(path))).message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"opaque", "three parts"),
        (b"a.b", "three parts"),
        (b"a.b.c", "three parts"),
        (b'{"token": "x"}', "three parts"),
        (jwt() + b" " + jwt(), "three parts"),
        (jwt(exp=None), "does not say when it expires"),
        (jwt(exp="tomorrow"), "does not say when it expires"),
        (jwt(exp=1e300), "does not say when it expires"),
        (jwt() + b" x", "three parts"),
        (b"e30." + base64.urlsafe_b64encode(b"[" * 90_000) + b".x", "three parts"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_assertion(content: bytes, words: str, tmp_path: Path) -> None:
    """Whatever is not a JWT with an end is refused here rather than by the provider."""
    assert words in problem(lambda: used(assertion_credential(written(tmp_path / "token", content)))).message


def test_claims_are_made_harmless(tmp_path: Path) -> None:
    """Claims come from outside: control characters and endless values do not reach terminal or log."""
    path = written(tmp_path / "token", jwt(iss="x\n\x1b[31m", sub="y" * 5000, exp=0))
    hint = problem(lambda: used(assertion_credential(path))).hint
    assert hint.isprintable()
    assert len(hint) < 1000


@given(st.binary(max_size=300))
@example(b"e30.e30.x")
@example(b"W10.W10.x")
@settings(deadline=None)
def test_any_content_is_an_assertion_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No content of the file leads to anything but an assertion or an error for the operator."""
    path = written(tmp_path_factory.getbasetemp() / "any-assertion", content)
    assert problem(lambda: used(assertion_credential(path))).path == path


def test_assertion_credentials_are_equal_by_file(tmp_path: Path) -> None:
    """A renewed assertion is the same credential: nothing is restarted for it. Another file is another one."""
    path = written(tmp_path / "token", jwt())
    first = assertion_credential(path)
    written(path, jwt(jti="renewed"))
    assert assertion_credential(path) == first
    assert assertion_credential(tmp_path / "other") != first
    assert (first.kind, first.subject, first.thumbprint, first.not_after, first.warnings) == (
        "federated",
        None,
        None,
        None,
        (),
    )


def test_managed_identity_is_not_there_yet() -> None:
    """What the configuration should have refused is refused here in words."""
    error = problem(lambda: credentials.load(profile(federated={"managed_identity": "system"}), NOW))
    assert "not supported yet" in error.message


def test_profile_without_credential() -> None:
    """A profile that names no credential gets an error, not a traceback."""
    assert "names no credential" in problem(lambda: credentials.load(profile(), NOW)).message


# ---- secrets


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"s3cr~et", "s3cr~et"),
        (b"s3cr~et\n", "s3cr~et"),
        (b"s3cr~et\r\n", "s3cr~et"),
        (b" s3cr~et ", " s3cr~et "),
        (b"\xef\xbb\xbfs3cr~et", "s3cr~et"),
    ],
)
def test_secret(content: bytes, secret: str, tmp_path: Path) -> None:
    """The secret is what stands in the file, but for one newline (and a byte order mark)."""
    assert secret_credential(written(tmp_path / "secret", content)).secret() == secret


def test_secret_is_read_at_every_use(tmp_path: Path) -> None:
    """A new secret is used at once, and an old one is nowhere in the credential."""
    path = written(tmp_path / "secret", b"swordfish")
    credential = secret_credential(path)
    written(path, b"salmon")
    assert credential.secret() == "salmon"
    assert "swordfish" not in repr(credential)
    assert credential.digest not in repr(credential)
    path.unlink()
    assert problem(credential.secret).missing
    assert problem(lambda: credential.check(NOW)).missing


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"  \n", "is empty"),
        (b"swordfish\nsalmon\n", "is not one line"),
        (b"swordfish\n\n", "is not one line"),
        (b"swordfish\x00", "is not one line"),
        (b"swordfish\xff", "is not text"),
    ],
)
def test_what_is_no_secret(content: bytes, words: str, tmp_path: Path) -> None:
    """Empty files, several lines and binary content are refused without being quoted, not even as the cause."""
    error = problem(secret_credential(written(tmp_path / "secret", content)).secret)
    assert words in error.message
    assert "swordfish" not in f"{error.message} {error.hint} {error.__cause__}"


def test_secret_id_instead_of_value(tmp_path: Path) -> None:
    """A GUID is the secret's id, the usual mistake (AADSTS7000215): warned of, not refused."""
    credential = secret_credential(written(tmp_path / "secret", b"ace7a10d-aaaa-4a01-8663-1440b6b78cb9\n"))
    assert len(credential.warnings) == 1
    assert "AADSTS7000215" in credential.warnings[0]
    assert secret_credential(written(tmp_path / "secret", b"Abc8Q~value")).warnings == ()


def test_secret_open_to_all(tmp_path: Path) -> None:
    """A secret that everybody may read is warned of."""
    assert "mode 0644" in secret_credential(written(tmp_path / "secret", b"x", 0o644)).warnings[0]


def test_secret_credentials_are_equal_by_content(tmp_path: Path) -> None:
    """A new secret is a new credential, so that a reload tries it at once."""
    path = written(tmp_path / "secret", b"one")
    first = secret_credential(path)
    assert secret_credential(path) == first
    written(path, b"two")
    assert secret_credential(path) != first
