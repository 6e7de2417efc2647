"""What happened since the start, counted: all that metrics tell beyond the status. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import timedelta

Event = Literal["acquisitions", "token_writes", "hook_runs"]
"""What happens to a profile."""
Reload: TypeAlias = Literal["success", "failure"]

RESULTS: Mapping[Event, tuple[str, ...]] = {
    "acquisitions": ("success", "transient", "rejected", "configuration"),
    "token_writes": ("success", "repaired", "failure"),
    "hook_runs": ("success", "failure"),
}
"""How each can end; those of acquisitions are the kinds of `errors`, less what comes after an acquisition."""
RELOADS: tuple[Reload, ...] = ("success", "failure")
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0)
"""Seconds, the upper bounds of the durations that are told apart: around a usual one, and around a time-out."""


class Tally:
    """Counts from the first moment on: whatever is configured is there, with zero where nothing happened.

    What happens to a profile that is not configured (any more) does not count, so none comes back from the dead.
    ``skews`` are this machine's clock minus the provider's, by host, as measured last; ``measured_at`` says by which
    wall clock (its distance from boot time).
    """

    def __init__(self) -> None:
        self.skews: dict[str, timedelta] = {}
        self.measured_at: dict[str, timedelta] = {}
        self.seconds = 0.0
        self._durations = [0] * (len(BOUNDS) + 1)
        self._profiles: tuple[str, ...] = ()
        self._hosts: frozenset[str] = frozenset()
        self._counts: Counter[tuple[Event, str, str]] = Counter()
        self._reloads: Counter[Reload] = Counter()

    def copy(self) -> Tally:
        """Return what another thread may look at."""
        other = Tally()
        other.skews, other.seconds, other._durations = dict(self.skews), self.seconds, list(self._durations)
        other._profiles, other._hosts = self._profiles, self._hosts
        other._counts, other._reloads = self._counts.copy(), self._reloads.copy()
        return other

    # ---- counting

    def arrange(self, profiles: Iterable[str], hosts: Iterable[str]) -> None:
        """Follow the configuration; what it no longer has is forgotten."""
        self._profiles, self._hosts = tuple(profiles), frozenset(hosts)
        known = set(self._profiles)
        self._counts = Counter({key: count for key, count in self._counts.items() if key[1] in known})
        self.skews = {host: skew for host, skew in self.skews.items() if host in self._hosts}

    def count(self, event: Event, profile: str, result: str) -> None:
        """Note that something happened to a profile."""
        if result not in RESULTS[event]:
            raise ValueError(f"{event} do not end as {result}")
        if profile in self._profiles:
            self._counts[event, profile, result] += 1

    def reloaded(self, result: Reload) -> None:
        """Note a reload."""
        self._reloads[result] += 1

    def exchanged(self, host: str, seconds: float, skew: timedelta | None) -> None:
        """Note an exchange with a provider, whatever came of it: how long it took, and what its clock said."""
        self._durations[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
        if skew is not None and host in self._hosts:
            self.skews[host] = skew

    # ---- looking

    def counts(self, event: Event) -> Iterator[tuple[str, str, int]]:
        """Yield profile, result and how often, for each that can be."""
        for profile in self._profiles:
            yield from ((profile, result, self._counts[event, profile, result]) for result in RESULTS[event])

    def reloads(self) -> Iterator[tuple[Reload, int]]:
        """Yield result and how often, for each."""
        yield from ((result, self._reloads[result]) for result in RELOADS)

    def durations(self) -> Iterator[tuple[float, int]]:
        """Yield each upper bound in seconds, the last one infinite, and how many exchanges took no longer."""
        total = 0
        for bound, count in zip((*BOUNDS, float("inf")), self._durations, strict=True):
            total += count
            yield bound, total
