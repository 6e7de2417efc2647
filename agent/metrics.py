"""What is known and what was counted, as Prometheus reads it: its text format, or OpenMetrics.

The only importer of prometheus_client, whose own registry of the whole process is not used. Everything is made
afresh from a snapshot each time, so nothing of a profile that is gone can stay behind.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import isinf
from typing import TYPE_CHECKING, get_args

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from agent import schedule, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from prometheus_client.metrics_core import Metric

    from agent.status import AgentStatus, ProfileStatus
    from agent.tally import Event, Tally

PREFIX = "token_agent_"
OPENMETRICS = "application/openmetrics-text"

_COUNTERS: dict[Event, str] = {
    "acquisitions": "Attempts to acquire a token. transient: network, provider or clock; rejected: the provider"
    " refuses, a person must act; configuration: the credential on disk cannot be used.",
    "token_writes": "Token files written. repaired: somebody else had deleted or altered one;"
    " failure: it could not be written, and holds what it held before.",
    "hook_runs": "Runs of on_refresh.",
}
_INSTANTS: dict[str, tuple[str, Callable[[ProfileStatus], datetime | None]]] = {
    "token_expiry_timestamp_seconds": (
        "When the token on disk expires (Unix time); absent while a file has none. Less time(), it is the runway.",
        status.serves_until,
    ),
    "token_refresh_timestamp_seconds": (
        "When the next attempt to renew the token is due (Unix time); absent while there is none.",
        lambda profile: profile.refresh_at if profile.expires_at else None,
    ),
    "certificate_expiry_timestamp_seconds": (
        "When the certificate in use expires (Unix time); absent where there is none.",
        lambda profile: profile.credential.not_after if profile.credential else None,
    ),
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that metrics are made of at one moment; ``kept`` as in `status.state_of`."""

    agent: AgentStatus
    profiles: tuple[ProfileStatus, ...]
    tally: Tally
    now: datetime
    kept: bool


def render(snapshot: Snapshot, *, openmetrics: bool = False) -> tuple[bytes, str]:
    """Return the exposition and its content type."""
    encode, content_type = choose_encoder(f"{OPENMETRICS}; version=1.0.0" if openmetrics else "")
    return encode(_Everything(snapshot)), content_type


class _Everything(Collector):
    """A snapshot as the encoders take it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        yield _build(self._snapshot.agent)
        yield from _reloads(self._snapshot)
        yield from _profiles(self._snapshot)
        yield from _counted(self._snapshot.tally)


def _build(agent: AgentStatus) -> Metric:
    labels = {"version": agent.version, "python": ".".join(map(str, sys.version_info[:3]))}
    return InfoMetricFamily(f"{PREFIX}build", "The version of token-agent, and of its Python.", labels)


def _reloads(snapshot: Snapshot) -> Iterator[Metric]:
    agent = snapshot.agent
    yield GaugeMetricFamily(
        f"{PREFIX}config_last_reload_successful",
        "1 if the configuration on disk is in force; 0 if it was refused and the one before serves on.",
        float(agent.config_error is None),
    )
    loaded = GaugeMetricFamily(
        f"{PREFIX}config_last_reload_success_timestamp_seconds",
        "When a configuration was last taken into force, at the start or by a reload (Unix time).",
        labels=(),
    )
    if agent.loaded_at:
        loaded.add_metric((), agent.loaded_at.timestamp())
    yield loaded
    reloads = CounterMetricFamily(
        f"{PREFIX}reloads",
        "Reloads of the configuration since the start. failure: refused; one that stays refused counts once.",
        labels=("result",),
    )
    for result, count in snapshot.tally.reloads():
        reloads.add_metric((result,), count)
    yield reloads


def _profiles(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield how each profile stands."""
    states = GaugeMetricFamily(
        f"{PREFIX}profile_state",
        "1 for the state that the profile is in, 0 for the others.",
        labels=("profile", "state"),
    )
    failures = _by_profile("consecutive_failures", "Attempts in a row that failed, 0 after a success.")
    refused = _by_profile(
        "certificate_candidate_refused",
        "1 if a certificate or other credential on disk is not used: unusable, or refused by the provider.",
    )
    for profile in snapshot.profiles:
        current = status.state_of(profile, snapshot.now, kept=snapshot.kept)
        for state in get_args(schedule.State):
            states.add_metric((profile.name, state), float(state == current))
        failures.add_metric((profile.name,), profile.consecutive_failures)
        refused.add_metric((profile.name,), float(bool(profile.credential and profile.credential.candidate_error)))
    yield from (states, failures, refused)
    for name, (text, instant) in _INSTANTS.items():
        family = _by_profile(name, text)
        for profile in snapshot.profiles:
            if at := instant(profile):
                family.add_metric((profile.name,), at.timestamp())
        yield family


def _by_profile(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}{name}", text, labels=("profile",))


def _counted(tally: Tally) -> Iterator[Metric]:
    """Yield what happened since the start."""
    for event, text in _COUNTERS.items():
        family = CounterMetricFamily(f"{PREFIX}{event}", text, labels=("profile", "result"))
        for profile, result, count in tally.counts(event):
            family.add_metric((profile, result), count)
        yield family
    durations = HistogramMetricFamily(
        f"{PREFIX}acquisition_duration_seconds",
        "How long exchanges with identity providers took, whatever came of them; waiting for a turn does not count.",
        labels=(),
    )
    buckets = [("+Inf" if isinf(bound) else str(bound), count) for bound, count in tally.durations()]
    durations.add_metric((), buckets, tally.seconds)
    yield durations
    skews = GaugeMetricFamily(
        f"{PREFIX}clock_skew_seconds",
        "This machine's clock minus the provider's, by its Date header, to a second or so; positive: ahead.",
        labels=("authority",),
    )
    for host, skew in sorted(tally.skews.items()):
        skews.add_metric((host,), skew.total_seconds())
    yield skews
