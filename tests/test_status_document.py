"""The status document: exactly the contract's keys, judged by time, and read again by whoever asks later."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import status
from agent.schedule import LONG_AGO, NEVER
from agent.status import AgentStatus, CredentialStatus, HookStatus, LastError, ProfileStatus, TokenFileStatus

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
AGENT = AgentStatus("1.0", 4711, NOW - timedelta(days=1), "/etc/token-agent/config.toml", NOW, "bad", "run")
FULL = ProfileStatus(
    "graph",
    acquired_at=NOW - timedelta(minutes=15),
    expires_at=NOW + timedelta(minutes=45, seconds=10, milliseconds=900),
    refresh_at=NOW + timedelta(minutes=15),
    degraded_at=NOW + timedelta(minutes=40),
    token_sha256="0123456789ab",
    consecutive_failures=2,
    last_error=LastError(NOW, "rejected", "refused", "upload it", "AADSTS700027", "a-b-c"),
    credential=CredentialStatus(
        "certificate", "/etc/x.pem", "CN=x", "AB", "CD", NOW + timedelta(days=9), "a newer one is refused"
    ),
    token_files=(TokenFileStatus("/run/token-agent/graph.token", "raw", NOW), TokenFileStatus("/x", "json", NOW)),
    hook=HookStatus(NOW, 1, "it failed"),
)
TIME = "2026-03-01T12:00:00Z"


def document(profile: ProfileStatus, *, now: datetime = NOW, running: bool = True, agent: AgentStatus = AGENT) -> Any:
    return status.document(agent, (profile,), now, running=running)


def test_the_document_is_the_contracts() -> None:
    """Every key of the contract is there with its type and unit, and no other."""
    assert document(FULL) == {
        "agent": {
            "version": "1.0",
            "pid": 4711,
            "started_at": "2026-02-28T12:00:00Z",
            "running": True,
            "config": {"path": "/etc/token-agent/config.toml", "loaded_at": TIME, "error": "bad"},
            "clock_skew_seconds": {},
        },
        "profiles": [
            {
                "name": "graph",
                "state": "degraded",
                "expires_at": "2026-03-01T12:45:10Z",
                "acquired_at": "2026-03-01T11:45:00Z",
                "refresh_at": "2026-03-01T12:15:00Z",
                "runway_seconds": 2710,
                "consecutive_failures": 2,
                "last_error": {
                    "at": TIME,
                    "kind": "rejected",
                    "code": "AADSTS700027",
                    "message": "refused",
                    "hint": "upload it",
                    "correlation_id": "a-b-c",
                },
                "credential": {
                    "kind": "certificate",
                    "path": "/etc/x.pem",
                    "subject": "CN=x",
                    "thumbprint": "AB",
                    "thumbprint_sha256": "CD",
                    "not_after": "2026-03-10T12:00:00Z",
                    "candidate_error": "a newer one is refused",
                },
                "token_files": [
                    {"path": "/run/token-agent/graph.token", "format": "raw", "written_at": TIME},
                    {"path": "/x", "format": "json", "written_at": TIME},
                ],
                "hook": {"ran_at": TIME, "exit_code": 1, "error": "it failed"},
            }
        ],
    }


def test_what_is_not_known_is_null() -> None:
    """A profile about which nothing is known yet has the same keys, with null, zero and empty."""
    entry = document(ProfileStatus("new"))["profiles"][0]
    assert entry.keys() == document(FULL)["profiles"][0].keys()
    assert entry == {
        "name": "new", "state": "pending", "expires_at": None, "acquired_at": None, "refresh_at": None,
        "runway_seconds": 0, "consecutive_failures": 0, "last_error": None, "credential": None, "token_files": [],
        "hook": {"ran_at": None, "exit_code": None, "error": None},
    }  # fmt: skip


FRESH = replace(FULL, last_error=None)


@pytest.mark.parametrize(
    ("profile", "after", "running", "mode", "state"),
    [
        (FRESH, timedelta(0), True, "run", "fresh"),
        (FRESH, timedelta(minutes=39, seconds=59), True, "run", "fresh"),
        (FRESH, timedelta(minutes=40), True, "run", "degraded"),
        (FULL, timedelta(0), True, "run", "degraded"),
        (FRESH, timedelta(minutes=46), True, "run", "expired"),
        (FRESH, timedelta(0), False, "run", "stopped"),
        (FRESH, timedelta(minutes=40), False, "run", "stopped"),
        (FRESH, timedelta(minutes=46), False, "run", "expired"),
        (FRESH, timedelta(0), False, "once", "fresh"),
        (FRESH, timedelta(minutes=40), False, "once", "degraded"),
        (FRESH, timedelta(minutes=46), False, "once", "expired"),
        (ProfileStatus("new"), timedelta(0), True, "run", "pending"),
        (ProfileStatus("new"), timedelta(0), False, "run", "pending"),
        (ProfileStatus("new", last_error=FULL.last_error), timedelta(0), True, "run", "pending"),
    ],
)
def test_a_state_is_a_matter_of_time(
    profile: ProfileStatus,
    after: timedelta,
    running: bool,  # noqa: FBT001 - a parameter
    mode: Any,
    state: str,
) -> None:
    """The five states follow from the times, from failures, and from whether anything keeps the profile fresh."""
    found = document(profile, now=NOW + after, running=running, agent=replace(AGENT, mode=mode))
    assert found["profiles"][0]["state"] == state
    assert found["agent"]["running"] is running


def test_runway_is_what_is_left() -> None:
    """Runway counts down to nothing with the token, in whole seconds that are really there."""
    seconds = [document(FULL, now=NOW + timedelta(minutes=m))["profiles"][0]["runway_seconds"] for m in (0, 45, 46)]
    assert seconds == [2710, 10, 0]


# ---- read again

INSTANTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)).map(  # noqa: DTZ001 - timezones
    lambda instant: instant.replace(microsecond=0)
)
TEXT = st.text(max_size=20)
PROFILES = st.builds(
    ProfileStatus,
    name=TEXT,
    acquired_at=st.none() | INSTANTS,
    expires_at=st.none() | INSTANTS,
    refresh_at=st.none() | INSTANTS,
    degraded_at=st.none() | INSTANTS,
    token_sha256=st.none() | TEXT,
    consecutive_failures=st.integers(0, 10**9),
    last_error=st.none()
    | st.builds(
        LastError,
        INSTANTS,
        st.sampled_from(["transient", "rejected", "configuration", "output"]),
        TEXT,
        TEXT,
        st.none() | TEXT,
        st.none() | TEXT,
    ),
    credential=st.none()
    | st.builds(CredentialStatus, TEXT, TEXT, *[st.none() | TEXT] * 3, st.none() | INSTANTS, st.none() | TEXT),
    token_files=st.lists(st.builds(TokenFileStatus, TEXT, TEXT, st.none() | INSTANTS), max_size=2).map(tuple),
    hook=st.builds(HookStatus, st.none() | INSTANTS, st.none() | st.integers(-64, 255), st.none() | TEXT),
)
AGENTS = st.builds(
    AgentStatus, TEXT, st.integers(0, 2**22), INSTANTS, TEXT, st.none() | INSTANTS, st.none() | TEXT,
    st.sampled_from(["run", "once"]),
)  # fmt: skip


@given(AGENTS, st.lists(PROFILES, max_size=3).map(tuple), INSTANTS, INSTANTS, st.booleans())
def test_a_later_reader_judges_as_the_agent_would(
    agent: AgentStatus,
    profiles: tuple[ProfileStatus, ...],
    now: datetime,
    later: datetime,
    running: bool,  # noqa: FBT001 - drawn
) -> None:
    """What the agent wrote is read again, to the second, and gives the same document at any later time."""
    written = json.loads(json.dumps(status.to_file(agent, profiles, now)))
    known_agent, known = status.from_file(written)
    assert (known_agent, known) == (agent, profiles)
    assert status.document(known_agent, known, later, running=running) == status.document(
        agent, profiles, later, running=running
    )


def test_the_file_is_the_document_and_three_keys() -> None:
    """The file on disk has all of the contract's keys, and those that a later reader needs."""
    written = status.to_file(AGENT, (FULL,), NOW)
    assert written["agent"].pop("mode") == "run"
    entry = written["profiles"][0]
    assert (entry.pop("degraded_at"), entry.pop("token_sha256")) == ("2026-03-01T12:40:00Z", "0123456789ab")
    assert written == document(FULL)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_no_value_in_the_file_is_fatal(value: Any) -> None:
    """Any JSON value in place of any value of the file is refused with a ValueError, or shown."""
    whole = status.to_file(AGENT, (FULL,), NOW)
    entry = whole["profiles"][0]
    documents = [{**whole, "profiles": [{**entry, key: value}]} for key in entry]
    documents += [{**whole, "agent": {**whole["agent"], key: value}} for key in whole["agent"]]
    documents += [{**whole, key: value} for key in whole] + [value]
    for key in ("last_error", "credential", "hook"):
        documents += [{**whole, "profiles": [{**entry, key: {**entry[key], name: value}}]} for name in entry[key]]
    for changed in documents:
        with contextlib.suppress(ValueError):
            agent, profiles = status.from_file(changed)
            shown = status.document(agent, profiles, NOW, running=False)
            json.dumps(shown)
            for record in ("last_error", "credential", "hook"):
                values = [each for found in shown["profiles"] for each in (found[record] or {}).values()]
                assert all(each is None or isinstance(each, str | int) for each in values)


def test_an_error_of_an_unknown_kind_is_refused() -> None:
    """What `status` maps to exit codes is one of the four kinds, or the file is of another program."""
    written = status.to_file(AGENT, (FULL,), NOW)
    written["profiles"][0]["last_error"]["kind"] = "other"
    with pytest.raises(ValueError, match="kind"):
        status.from_file(written)


# ---- instants


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (NOW, TIME),
        (NOW.replace(microsecond=999_999), TIME),
        (NOW.astimezone(timezone(timedelta(hours=-9, minutes=-30))), TIME),
        (LONG_AGO, "0001-01-01T00:00:00Z"),
        (NEVER, "9999-12-31T23:59:59Z"),
        (None, None),
    ],
)
def test_instants_are_written_in_utc(instant: datetime | None, text: str | None) -> None:
    """Instants are RFC 3339 in UTC, to the second that has begun; the years have four digits; and they come back."""
    assert status.rfc3339(instant) == text
    assert status.parse_rfc3339(text) == (instant.replace(microsecond=0) if instant else None)


@pytest.mark.parametrize(
    "text", ["", "now", "2026-03-01T12:00:00", "2026-03-01", "0001-01-01T00:00:00+01:00", 1, [], {}]
)
def test_what_is_no_instant_is_refused(text: Any) -> None:
    """Without a zone, out of all time, or of another type: a ValueError."""
    with pytest.raises(ValueError, match=r".+"):
        status.parse_rfc3339(text)
