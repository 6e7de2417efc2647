"""Times in words, for people: "41 min", "3 days"."""

from __future__ import annotations

from datetime import timedelta

_UNITS = (
    (timedelta(days=2), timedelta(days=1), "days"),
    (timedelta(hours=2), timedelta(hours=1), "h"),
    (timedelta(minutes=2), timedelta(minutes=1), "min"),
)


def duration(span: timedelta) -> str:
    """Return a span in its largest unit that is at least two of it, rounded down; negative spans by their size."""
    span = abs(span)
    for least, unit, name in _UNITS:
        if span >= least:
            return f"{span // unit} {name}"
    return f"{int(span.total_seconds())} s"


def relative(span: timedelta) -> str:
    """Return "in 5 min" for what is ahead and "5 min ago" for what is past."""
    return f"in {duration(span)}" if span > timedelta(0) else f"{duration(span)} ago"
