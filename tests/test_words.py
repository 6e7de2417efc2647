"""Times in words."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import words


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(milliseconds=999), "0 s"),
        (timedelta(seconds=1), "1 s"),
        (timedelta(seconds=119), "119 s"),
        (timedelta(minutes=2), "2 min"),
        (timedelta(minutes=41, seconds=59), "41 min"),
        (timedelta(minutes=119, seconds=59), "119 min"),
        (timedelta(hours=2), "2 h"),
        (timedelta(hours=47, minutes=59), "47 h"),
        (timedelta(days=2), "2 days"),
        (timedelta(days=729, hours=23), "729 days"),
        (timedelta(seconds=-90), "90 s"),
        (timedelta(days=-3), "3 days"),
    ],
)
def test_a_span_is_said_in_its_largest_unit(span: timedelta, text: str) -> None:
    """The largest unit of which there are two at least, rounded down; never "1 days"."""
    assert words.duration(span) == text


def test_past_and_future_are_told_apart() -> None:
    """What is ahead is "in", what is past or now is "ago"."""
    assert words.relative(timedelta(minutes=5)) == "in 5 min"
    assert words.relative(timedelta(minutes=-5)) == "5 min ago"
    assert words.relative(timedelta(0)) == "0 s ago"


UNITS = {"s": 1, "min": 60, "h": 3600, "days": 86400}


@given(st.timedeltas(timedelta(0), timedelta(days=100_000)))
def test_words_never_promise_more_than_there_is(span: timedelta) -> None:
    """What is said is at most the span, and falls short of it by less than one unit."""
    number, unit = words.duration(span).split(" ")
    said, whole = int(number) * UNITS[unit], span.total_seconds()
    assert said <= whole < said + UNITS[unit]
    assert unit == "s" or int(number) >= 2
