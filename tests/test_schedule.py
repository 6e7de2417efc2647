"""The schedule, by its properties and by exact instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import schedule
from agent.config.model import Refresh
from agent.errors import CredentialError, OutputError, RejectedError, TransientError
from agent.tokens import AccessToken

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
lifetimes = st.integers(min_value=2, max_value=100 * 3600).map(lambda s: timedelta(seconds=s))
unit = st.floats(min_value=0, max_value=1, exclude_max=True)
policies = st.tuples(st.floats(0.05, 0.95), unit).map(lambda pair: Refresh(at=pair[0], jitter=pair[0] * pair[1] * 0.99))


def token(lifetime: timedelta, refresh_in: timedelta | None = None) -> AccessToken:
    return AccessToken("t", "Bearer", NOW, NOW + lifetime, refresh_in)


@given(lifetimes, policies, unit)
def test_refresh_never_late_and_jitter_only_earlier(lifetime: timedelta, policy: Refresh, jitter: float) -> None:
    """A token is renewed at the fraction of its lifetime or earlier, by no more than the jitter, inside its life."""
    due = schedule.refresh_at(token(lifetime), policy, jitter)
    latest = NOW + max(lifetime * policy.at, schedule.MIN_INTERVAL)
    earliest = NOW + lifetime * (policy.at - policy.jitter)
    assert earliest - timedelta(microseconds=2) <= due <= latest
    assert NOW < due < NOW + lifetime


@given(lifetimes, unit)
def test_at_least_half_of_the_life_is_left(lifetime: timedelta, jitter: float) -> None:
    """By default a new token replaces the old one while at least half of its life is left (promise 3)."""
    due = schedule.refresh_at(token(lifetime), Refresh(), jitter)
    assert NOW + lifetime - due >= lifetime / 2


def test_the_exact_instant() -> None:
    """An hour, half, no jitter: half an hour; with all the jitter of 0.1: six minutes earlier."""
    assert schedule.refresh_at(token(timedelta(hours=1)), Refresh(), 0.0) == NOW + timedelta(minutes=30)
    assert schedule.refresh_at(token(timedelta(hours=1)), Refresh(), 0.5) == NOW + timedelta(minutes=27)


@given(lifetimes, st.integers(1, 200 * 3600))
def test_refresh_in_wins_only_if_sooner(lifetime: timedelta, seconds: int) -> None:
    """The provider's refresh_in brings a refresh forward, never back."""
    wish = timedelta(seconds=seconds)
    without = schedule.refresh_at(token(lifetime), Refresh(), 0.0)
    assert schedule.refresh_at(token(lifetime, wish), Refresh(), 0.0) == max(
        min(without, NOW + wish), NOW + schedule.MIN_INTERVAL
    )


@given(st.integers(1, 1000), unit)
def test_back_off_grows_from_one_second_to_sixty(failures: int, jitter: float) -> None:
    """A transient failure is retried after 1 to 60 s, within a window that doubles."""
    delay = schedule.retry_at(NOW, failures, TransientError("x"), jitter) - NOW
    assert timedelta(seconds=1) <= delay <= timedelta(seconds=60)
    assert delay <= timedelta(seconds=2**failures if failures < 7 else 60)


def test_back_off_reaches_its_ends() -> None:
    """Full jitter really uses the whole window: both ends are reached."""
    assert schedule.retry_at(NOW, 9, TransientError("x"), 0.0) == NOW + timedelta(seconds=1)
    assert schedule.retry_at(NOW, 9, TransientError("x"), 0.999999) > NOW + timedelta(seconds=59.9)


@pytest.mark.parametrize(("wish", "kept"), [(30, 30), (3600, 3600), (86_400, 3600)])
def test_retry_after_is_honoured_up_to_an_hour(wish: int, kept: int) -> None:
    """Retry-After delays the next attempt, at most by an hour."""
    error = TransientError("x", retry_after=timedelta(seconds=wish))
    assert schedule.retry_at(NOW, 1, error, 0.0) == NOW + timedelta(seconds=kept)


@given(st.integers(1, 1000), st.integers(1, 7200), unit)
def test_those_sent_away_together_do_not_come_back_together(failures: int, seconds: int, jitter: float) -> None:
    """After a Retry-After the back-off goes on as without one: never before its end, and spread alike."""
    sent_away = TransientError("x", retry_after=timedelta(seconds=seconds))
    late = schedule.pause(failures, sent_away, jitter) - timedelta(seconds=min(seconds, 3600))
    assert late == schedule.pause(failures, TransientError("x"), jitter) - schedule.MIN_INTERVAL
    assert timedelta(0) <= late < timedelta(seconds=59.01)


def test_rejections_are_retried_every_five_minutes(tmp_path: Path) -> None:
    """What a person must fix is asked again after five minutes, a tenth more or less; files after seconds."""
    tries = [schedule.pause(7, RejectedError("x"), jitter) for jitter in (0.0, 0.5, 0.999999)]
    assert [round(each.total_seconds()) for each in tries] == [270, 300, 330]
    assert schedule.retry_at(NOW, 7, CredentialError(tmp_path, "x"), 0.9) == NOW + timedelta(seconds=10)
    assert schedule.retry_at(NOW, 1, OutputError(tmp_path, "x"), 0.0) == NOW + timedelta(seconds=1)


@given(lifetimes, policies)
def test_a_punctual_token_is_never_degraded(lifetime: timedelta, policy: Refresh) -> None:
    """However short the lifetime, a token that is renewed on schedule does not become degraded before."""
    the_token = token(lifetime)
    due = NOW + lifetime * policy.at
    assert schedule.judge(due, the_token.expires_at, schedule.degraded_at(the_token, policy), failing=False) == "fresh"


def test_min_remaining_degrades_a_long_token() -> None:
    """An hour's token is degraded five minutes before its end, and expired at its end."""
    the_token = token(timedelta(hours=1))
    limit = schedule.degraded_at(the_token, Refresh())
    assert limit == NOW + timedelta(minutes=55)
    states = [
        schedule.judge(NOW + timedelta(minutes=m), the_token.expires_at, limit, failing=False)
        for m in (54, 55, 59, 60, 61)
    ]
    assert states == ["fresh", "degraded", "degraded", "expired", "expired"]


def test_failing_is_degraded_and_nothing_is_pending() -> None:
    """A valid token of a profile that fails is degraded; without any token a profile is pending."""
    assert schedule.judge(NOW, NOW + timedelta(hours=1), None, failing=True) == "degraded"
    assert schedule.judge(NOW, None, None, failing=True) == "pending"


def test_runway() -> None:
    """The runway is what is left, never negative, nothing without a token."""
    assert schedule.runway(NOW, NOW + timedelta(seconds=5)) == timedelta(seconds=5)
    assert schedule.runway(NOW, NOW - timedelta(seconds=5)) == timedelta(0)
    assert schedule.runway(NOW, None) == timedelta(0)


@given(st.text(), st.text())
def test_spread_is_stable_and_in_range(one: str, other: str) -> None:
    """A machine keeps its place in the fleet; others have another."""
    assert 0 <= schedule.spread(one) < 1
    assert schedule.spread(one) == schedule.spread(one)
    assert (schedule.spread(one) == schedule.spread(other)) == (one == other)


def test_spread_is_even() -> None:
    """A thousand machines fill ten slots evenly enough to flatten a fleet's load."""
    slots = [0] * 10
    for number in range(1000):
        slots[int(schedule.spread(f"machine{number}/graph") * 10)] += 1
    assert min(slots) > 60
    assert max(slots) < 145
