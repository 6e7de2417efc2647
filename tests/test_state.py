"""What survives a restart: it comes back as it was, never holds a token, and a damaged document is refused whole."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import state
from agent.config.model import Profile
from agent.state import Record
from agent.tokens import AccessToken

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SECRET = "eyJ0-the-token-itself"
KEYS: dict[str, Any] = {
    "name": "graph", "tenant": "contoso.com", "client_id": "ace7a10d-aaaa-4a01-8663-1440b6b78cb9",
    "scopes": ["https://graph.microsoft.com/.default"], "certificate": "/etc/x.pem",
    "token_file": ["/run/a", {"path": "/run/b", "follow_symlink": True}],
}  # fmt: skip
PROFILE = Profile.model_validate(KEYS)
TOKEN = AccessToken(SECRET, "Bearer", NOW, NOW + timedelta(hours=1), timedelta(minutes=30))

TEXT = st.text(max_size=30)
PATHS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).map("/{}".format), max_size=3
).map(tuple)
INSTANTS = st.datetimes(datetime(1971, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - timezones
RECORDS = st.builds(
    Record,
    identity=TEXT,
    token_sha256=TEXT,
    token_type=TEXT,
    acquired_at=INSTANTS,
    expires_at=INSTANTS,
    refresh_in=st.none() | st.timedeltas(timedelta(0), timedelta(days=30)),
    paths=PATHS,
    on_removal=st.sampled_from(["delete", "keep"]),
    followed=PATHS,
)


@given(st.dictionaries(TEXT, RECORDS, max_size=4))
def test_records_come_back_as_they_were(records: dict[str, Record]) -> None:
    """Whatever was remembered, to the microsecond and with any name, is read again; the same gives the same bytes."""
    content = state.render(records)
    assert state.parse(content) == records
    assert state.render(state.parse(content)) == content


def test_a_record_says_what_is_needed_and_no_more() -> None:
    """Hash, times, paths and what to do with them are remembered; the token itself is not."""
    record = state.record_of(PROFILE, TOKEN)
    assert record.paths == ("/run/a", "/run/b")
    assert record.followed == ("/run/b",)
    assert record.on_removal == "delete"
    assert SECRET.encode() not in state.render({"graph": record})


def test_a_token_is_restored_by_its_hash_alone() -> None:
    """The token that was recorded comes back with all its times; any other text is not taken for it."""
    record = state.parse(state.render({"graph": state.record_of(PROFILE, TOKEN)}))["graph"]
    assert record.restore(SECRET) == TOKEN
    for other in ("", SECRET[:-1], SECRET + "\n", SECRET.upper()):
        assert record.restore(other) is None


@pytest.mark.parametrize(
    "keys",
    [
        {"tenant": "fabrikam.com"},
        {"client_id": "ace7a10d-aaaa-4a01-8663-1440b6b78cb0"},
        {"scopes": ["https://vault.azure.net/.default"]},
        {"cloud": "usgov"},
    ],
)
def test_another_identity_is_another_token(keys: dict[str, Any]) -> None:
    """A token of another tenant, client, scope or cloud is not this profile's."""
    assert state.identity(Profile.model_validate(KEYS | keys)) != state.identity(PROFILE)


@pytest.mark.parametrize(
    "keys", [{"name": "other"}, {"certificate": "/etc/y.pem"}, {"token_file": "/run/c"}, {"refresh": {"at": 0.4}}]
)
def test_the_same_identity_keeps_its_token(keys: dict[str, Any]) -> None:
    """Name, certificate, files and schedule do not make another token; nor does the order of scopes."""
    assert state.identity(Profile.model_validate(KEYS | keys)) == state.identity(PROFILE)
    two = ["api://a", "api://b"]
    one, other = (PROFILE.model_copy(update={"scopes": scopes}) for scopes in (two, two[::-1]))
    assert state.identity(one) == state.identity(other)


def test_a_truncated_document_is_refused() -> None:
    """Cut at any byte, the document is refused with a ValueError, never half believed."""
    content = state.render({"graph": state.record_of(PROFILE, TOKEN)})
    for length in range(len(content)):
        with pytest.raises(ValueError, match=r".+"):
            state.parse(content[:length])


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_refused_or_understood(content: bytes) -> None:
    """Whatever is in the file, there is a ValueError or an answer."""
    with contextlib.suppress(ValueError):
        assert isinstance(state.parse(content), dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_no_value_in_a_record_is_fatal(value: Any) -> None:
    """Any JSON value in place of any value of the document is refused with a ValueError or understood."""
    whole = json.loads(state.render({"graph": state.record_of(PROFILE, TOKEN)}))
    record = whole["profiles"]["graph"]
    documents = [{**whole, "profiles": {"graph": {**record, key: value}}} for key in record]
    documents += [{**whole, key: value} for key in whole] + [value]
    for document in documents:
        try:
            parsed = state.parse(json.dumps(document).encode())
        except ValueError:
            continue
        for found in parsed.values():
            assert all(path.startswith("/") for path in (*found.paths, *found.followed))


@pytest.mark.parametrize(
    "change",
    [
        {"paths": "/run/a"},
        {"paths": ["run/a"]},
        {"paths": ["/run/a\0"]},
        {"paths": [1]},
        {"paths": {"/run/a": 1}},
        {"identity": None},
        {"acquired_at": "2026-03-01T12:00:00"},
        {"acquired_at": None},
        {"expires_at": "0001-01-01T00:00:00+14:00"},
        {"refresh_in": 1e300},
        {"refresh_in": float("nan")},
        {"refresh_in": "1800"},
    ],
)
def test_a_record_that_could_mislead_is_refused(change: dict[str, Any]) -> None:
    """Paths that are not absolute (they may be deleted), times without a zone and the like are refused."""
    document = json.loads(state.render({"graph": state.record_of(PROFILE, TOKEN)}))
    document["profiles"]["graph"] |= change
    with pytest.raises(ValueError, match=r".+"):
        state.parse(json.dumps(document).encode())


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b'{"version": 2, "profiles": {}}', b"[" * 100_000])
def test_what_is_no_document_of_this_version_is_refused(content: bytes) -> None:
    """Empty, of another kind, of another version, or nested without end: refused."""
    with pytest.raises(ValueError, match=r".+"):
        state.parse(content)


def test_no_wish_and_a_wish_for_at_once_are_different() -> None:
    """A refresh_in of nothing at all is not the same as none."""
    record = replace(state.record_of(PROFILE, TOKEN), refresh_in=timedelta(0))
    assert state.parse(state.render({"x": record}))["x"].refresh_in == timedelta(0)
    record = replace(record, refresh_in=None)
    assert state.parse(state.render({"x": record}))["x"].refresh_in is None


def test_what_is_planned() -> None:
    """Before the first token the paths are known, and no token fits; later only paths that are new are added."""
    planned = state.planned(PROFILE, None, TOKEN.acquired_at)
    assert planned
    assert (planned.paths, planned.on_removal) == (state.record_of(PROFILE, TOKEN).paths, PROFILE.on_removal)
    assert planned.restore(TOKEN.secret) is None
    record = state.record_of(PROFILE, TOKEN)
    assert state.planned(PROFILE, record, TOKEN.acquired_at) is None
    elsewhere = replace(record, paths=("/srv/old",))
    assert state.planned(PROFILE, elsewhere, TOKEN.acquired_at) == replace(record, paths=("/srv/old", *record.paths))
