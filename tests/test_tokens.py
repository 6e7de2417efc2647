"""What a token is: hidden wherever it is shown, decoded for people, compared with what a profile expects."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import tokens
from agent.config.model import Expect
from agent.errors import RejectedError
from agent.tokens import AccessToken

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TENANT = "9188040d-6c67-4c5b-b112-36a304b66dad"
CLAIMS = {"aud": "api://billing", "tid": TENANT, "roles": ["Invoices.Read", "Invoices.Write"]}


def segment(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwt(claims: Any, header: Any = None) -> str:
    return f"{segment(header or {'alg': 'RS256'})}.{segment(claims)}.c2lnbmF0dXJl"


def token(secret: str) -> AccessToken:
    return AccessToken(secret, "Bearer", NOW, NOW + timedelta(hours=1))


def expect(**keys: Any) -> Expect:
    return Expect.model_validate(keys)


# ---- hidden


def test_a_token_is_hidden_in_every_text() -> None:
    """Neither repr nor str nor a format shows the secret."""
    secret = jwt(CLAIMS)
    for text in (repr(token(secret)), str(token(secret)), f"{token(secret)}", repr([token(secret)])):
        assert not any(part in text for part in secret.split("."))


def test_a_fingerprint_is_twelve_digits_of_the_hash() -> None:
    """The only form in which a token appears in a log is the start of its SHA-256."""
    assert token("secret").fingerprint == tokens.fingerprint("secret") == hashlib.sha256(b"secret").hexdigest()[:12]


def test_times_move_together() -> None:
    """A shifted token has the same secret, lifetime and wish; the original stays."""
    original = AccessToken("x", "Bearer", NOW, NOW + timedelta(hours=1), timedelta(minutes=30))
    moved = original.shifted(timedelta(days=-2))
    assert (moved.acquired_at, moved.expires_at) == (NOW - timedelta(days=2), NOW - timedelta(days=2, hours=-1))
    assert moved.lifetime == original.lifetime == timedelta(hours=1)
    assert (moved.secret, moved.refresh_in) == (original.secret, original.refresh_in)
    assert original.acquired_at == NOW


# ---- decoded


@given(
    st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())), st.dictionaries(st.text(), st.text())
)
def test_header_and_claims_are_decoded(claims: dict[str, Any], header: dict[str, Any]) -> None:
    """Header and claims come out as they were put in, without their padding."""
    assert tokens.decode(jwt(claims, header or {"a": "b"})) == (header or {"a": "b"}, claims)


@given(st.text(max_size=100) | st.lists(st.binary(max_size=40), max_size=4).map(lambda p: ".".join(map(segment, p))))
def test_any_text_is_decoded_or_refused(secret: str) -> None:
    """Whatever a provider sends for a token, there is a ValueError or a pair of objects."""
    try:
        header, claims = tokens.decode(secret)
    except ValueError:
        return
    assert isinstance(header, dict)
    assert isinstance(claims, dict)


@pytest.mark.parametrize(
    "secret",
    [
        "", "opaque", "a.b", "a.b.c.d", "..", jwt([1]), jwt("x"), jwt(CLAIMS, [1]), jwt(b"\xff"), jwt(b"{"),
        jwt(b"[" * 100_000), jwt(b"1" * 10_000), jwt(json.dumps(CLAIMS).encode("utf-16")), f"{segment({})}.ü.c",
        f"{segment({})}.a b.c",
    ],
)  # fmt: skip
def test_what_is_no_jwt_is_refused(secret: str) -> None:
    """Opaque tokens, other numbers of parts, other content than JSON objects in UTF-8: a ValueError each."""
    with pytest.raises(ValueError, match=r".*"):
        tokens.decode(secret)


# ---- expected


@pytest.mark.parametrize(
    ("claims", "keys"),
    [
        ({}, {}),
        (CLAIMS, {"audience": "api://billing"}),
        (CLAIMS | {"aud": ["api://other", "api://billing"]}, {"audience": "api://billing"}),
        (CLAIMS, {"tenant_id": TENANT}),
        (CLAIMS, {"tenant_id": TENANT.upper()}),
        (CLAIMS, {"roles": ["Invoices.Read"]}),
        (CLAIMS, {"audience": "api://billing", "tenant_id": TENANT, "roles": ["Invoices.Write", "Invoices.Read"]}),
    ],
)
def test_what_is_expected_passes(claims: dict[str, Any], keys: dict[str, Any]) -> None:
    """A token that says what the profile expects is accepted, however it lists it."""
    tokens.check(token(jwt(claims)), expect(**keys))


@pytest.mark.parametrize(
    ("claims", "keys", "said"),
    [
        (CLAIMS, {"audience": "api://other"}, ["aud", "'api://billing'", "'api://other'"]),
        (CLAIMS, {"audience": "API://billing"}, ["aud"]),
        ({}, {"audience": "api://billing"}, ["aud", "None"]),
        (CLAIMS, {"tenant_id": "00000000-0000-0000-0000-000000000000"}, ["tid", TENANT]),
        ({"tid": 5}, {"tenant_id": TENANT}, ["tid", "5"]),
        (CLAIMS, {"roles": ["Invoices.Delete", "Invoices.Read", "Admin"]}, ["Admin, Invoices.Delete"]),
        ({"roles": "Invoices.Read"}, {"roles": ["Invoices.Read"]}, ["Invoices.Read"]),
        ({"roles": [{"a": 1}, None, ["Invoices.Read"]]}, {"roles": ["Invoices.Read"]}, ["Invoices.Read"]),
        ({}, {"roles": ["Invoices.Read"]}, ["Invoices.Read"]),
    ],
)
def test_what_is_not_expected_is_refused(claims: dict[str, Any], keys: dict[str, Any], said: list[str]) -> None:
    """A token that says something else is refused; claim, expectation and finding are named, the token is not."""
    secret = jwt(claims)
    with pytest.raises(RejectedError) as caught:
        tokens.check(token(secret), expect(**keys))
    assert all(text in caught.value.message for text in said)
    assert caught.value.code == "expect"
    assert caught.value.hint
    assert secret not in f"{caught.value.message}{caught.value.hint}{caught.value!r}"


def test_an_opaque_token_passes_where_nothing_is_expected() -> None:
    """Tokens need not be JWTs, unless a profile wants to look into them."""
    tokens.check(token("opaque"), expect())
    with pytest.raises(RejectedError, match="opaque") as caught:
        tokens.check(token("opaque"), expect(audience="x"))
    assert "[profile.expect]" in caught.value.hint
