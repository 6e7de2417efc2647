"""Draws the events of a scenario from its seed: what happens, when, to whom, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from tests.simulation.clocks import stamp

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
USUAL = {4 * 3600: 1, 8 * 3600: 2, 12 * 3600: 3, 24 * 3600: 8}
"""How long tokens live on most days, in seconds, and how often; each acquisition costs real signatures and files."""
LIFETIMES = (60, 300, 3600, 3600, *USUAL)
"""How long they may live for a while."""
RETRY_AFTER = (
    None, 0, 1, 5, 30, 59, 61, 300, 1800, 3599, 3600, 7200, 86400, 10**8, -5, "soon", "1.5", "", "٣", "1e9",
    "past", "+90", "+600", "+5400", "far",
)  # fmt: skip
"""Words for dates: `play` makes HTTP-dates of them."""
OUTAGES = ("drop", "hang", "status", "garbage", "html")
CODES = (700016, 7000222, 90002, 50196, 50034, 700027, 90033)


@dataclass(frozen=True)
class Event:
    """Something that happens at a time; ``lasting`` seconds later it is over, if it is something that ends."""

    at: float
    kind: str
    lasting: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        details = " ".join(f"{name}={value}" for name, value in self.details.items())
        lasting = f" for {self.lasting:.0f} s" if self.lasting else ""
        return f"{stamp(self.at)} {self.kind}{lasting} {details}".rstrip()


@dataclass(frozen=True)
class Scenario:
    """All that is decided before it begins."""

    seed: int
    days: float
    sites: tuple[int, ...]
    profiles: int
    rescan: int
    deaf: bool
    slow_disk: float
    events: tuple[Event, ...]

    def __str__(self) -> str:
        kinds = ", ".join(f"{lifetime} s" for lifetime in self.sites)
        return (
            f"seed {self.seed}: {self.days:g} days, {self.profiles} profiles, tokens of {kinds}, rescan {self.rescan} s"
            f"{', no inotify' if self.deaf else ''}, disk up to {self.slow_disk:g} s"
        )


def draw(seed: int, days: float) -> Scenario:
    """Return the scenario of a seed."""
    random = Random(seed)  # noqa: S311 - chance that can be replayed
    sites = tuple(random.choices(list(USUAL), list(USUAL.values()), k=random.choice((1, 1, 2))))
    events = [_event(random, at) for at in _times(random, days)]
    return Scenario(
        seed=seed,
        days=days,
        sites=sites,
        profiles=random.choices((1, 2, 3, 5), (5, 5, 2, 1))[0],
        rescan=random.choice((900, 3600, 3600, 3600, 3600)),
        deaf=random.random() < 0.08,
        slow_disk=random.choice((0.0, 0.0, 0.05, 1.0)),
        events=tuple(events),
    )


def _times(random: Random, days: float) -> list[float]:
    """Return times that come in bursts: trouble seldom comes alone."""
    at, times = 0.0, []
    while (at := at + random.expovariate(1 / random.choice((20.0, 10 * MINUTE, 3 * HOUR, 8 * HOUR)))) < days * DAY:
        times.append(round(at, 3))
    return times


def _event(random: Random, at: float) -> Event:
    name = random.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
    lasting, details = KINDS[name][1](random)
    return Event(at, name, round(lasting, 1), {**details, "who": random.randrange(60)})


def _span(random: Random, longest: float) -> float:
    """Return a duration: mostly minutes, sometimes an hour, and seldom longer than most tokens live.

    An agent that fails makes an attempt every half minute, so that a day of it costs as much as ten other days.
    """
    most = random.choices((2 * MINUTE, 12 * MINUTE, 1.5 * HOUR, 4 * HOUR, 12 * HOUR), (450, 380, 140, 28, 2))[0]
    return min(longest, random.uniform(0.1, 1.0) * most)


def _outage(random: Random) -> tuple[float, dict[str, Any]]:
    kind = random.choice(OUTAGES)
    details: dict[str, Any] = {"fault": kind}
    if kind in ("status", "html"):
        details["status"] = random.choice((500, 502, 503, 504)) if kind == "status" else random.choice((200, 302, 403))
        details["retry_after"] = random.choice((None, None, 10, 120, 7200))
    details["endpoint"] = random.choice((None, None, "token", "discovery"))
    return _span(random, DAY), details


def _hiccup(random: Random) -> tuple[float, dict[str, Any]]:
    return 0.0, {"fault": random.choice(OUTAGES), "count": random.randint(1, 5), "client": random.random() < 0.3}


def _throttle(random: Random) -> tuple[float, dict[str, Any]]:
    kind, wish = random.choice(("throttle", "throttle_text")), random.choice(RETRY_AFTER)
    return 0.0, {"fault": kind, "retry_after": wish, "count": random.randint(1, 4), "client": random.random() < 0.5}


def _refusal(random: Random) -> tuple[float, dict[str, Any]]:
    kind = random.choice(("error", "unregistered"))
    code = {"code": random.choice(CODES)} if kind == "error" else {}
    return 0.0, {"fault": kind, **code, "count": random.randint(1, 3), "client": True}


STALE: tuple[dict[str, float], ...] = (
    {"share": 0.3}, {"share": 0.8}, {"share": 1.1}, {"share": 3.0}, {"seconds": -200},
)  # fmt: skip
"""How long ago tokens were made: in shares of how long they live, or in seconds."""
STALE_ONCE: tuple[dict[str, float], ...] = (*STALE, {"share": 0.98}, {"seconds": -900}, {"seconds": -7200})
"""The same, where it is not for a while: who has a token for a moment asks again in a moment."""


def _stale(random: Random) -> tuple[float, dict[str, Any]]:
    if random.random() < 0.5:
        return _span(random, 4 * HOUR), {"fault": "stale", **random.choice(STALE)}
    once = {"count": random.randint(1, 4), "client": random.random() < 0.5}
    return 0.0, {"fault": "stale", **random.choice(STALE_ONCE), **once}


def _slow(random: Random) -> tuple[float, dict[str, Any]]:
    seconds = random.choice((0.3, 1.0, 3.9, 12.0, 45.0))
    return _span(random, 6 * HOUR), {"fault": "latency", "seconds": seconds}


def _wrong_clock(random: Random) -> tuple[float, dict[str, Any]]:
    return _span(random, 6 * HOUR), {
        "fault": "clock",
        "seconds": random.choice((-7200, -400, -100, 100, 400, 7200)),
    }


def _lifetime(random: Random) -> tuple[float, dict[str, Any]]:
    lifetime = random.choice(LIFETIMES)
    lasting = 15 * MINUTE if lifetime <= 300 else 4 * HOUR + _span(random, DAY)
    return lasting, {"lifetime": lifetime, "refresh_in": random.choice((None, None, lifetime // 3))}


def _rotation(random: Random) -> tuple[float, dict[str, Any]]:
    how = random.choice(("good", "good", "late", "late", "half", "mismatched", "expired", "gone"))
    return _span(random, DAY), {"how": how}


def _edit(random: Random) -> tuple[float, dict[str, Any]]:
    how = random.choice(("add", "remove", "change", "change", "syntax", "unknown key", "duplicate", "gone"))
    return _span(random, 5 * HOUR), {"how": how, "tell": random.random() < 0.4}


def _clock(random: Random) -> tuple[float, dict[str, Any]]:
    return _span(random, 5 * HOUR), {"step": random.choice((-3600, -900, -100, 100, 900, 3600))}


def _disk(random: Random) -> tuple[float, dict[str, Any]]:
    which = random.choice(("run", "run", "state", "both"))
    return _span(random, 12 * HOUR), {
        "which": which,
        "how": random.choice(("full", "read-only")),
        "between": random.random() < 0.3,
    }


def _tamper(random: Random) -> tuple[float, dict[str, Any]]:
    return 0.0, {"how": random.choice(("delete", "alter", "truncate", "chmod", "replace", "old"))}


def _death(random: Random) -> tuple[float, dict[str, Any]]:
    after = random.choice(("now", "now", "request", "request", "disk"))
    steps = random.choice((0, random.randrange(12), random.randrange(120)))
    down = random.choice((5.0, 5.0, 5.0, _span(random, 5 * HOUR)))
    meddled = random.choice(("", "", "", "", "old", "alter", "delete"))
    return down, {"after": after, "steps": steps, "leftover": random.random() < 0.4, "meddled": meddled}


KINDS: dict[str, tuple[int, Callable[[Random], tuple[float, dict[str, Any]]]]] = {
    "outage": (10, _outage),
    "hiccup": (8, _hiccup),
    "throttle": (8, _throttle),
    "refusal": (5, _refusal),
    "stale": (4, _stale),
    "drought": (1, lambda _: (900.0, {"rest": 400.0})),
    "foreign": (2, lambda random: (_span(random, HOUR), {})),
    "slow": (5, _slow),
    "provider clock": (2, _wrong_clock),
    "lifetime": (3, _lifetime),
    "rotation": (9, _rotation),
    "edit": (8, _edit),
    "clock": (5, _clock),
    "suspend": (4, lambda random: (0.0, {"seconds": round(_span(random, 12 * HOUR))})),
    "disk": (5, _disk),
    "tamper": (6, _tamper),
    "hook fails": (2, lambda random: (_span(random, HOUR), {})),
    "kill": (9, _death),
    "stop": (4, lambda random: (random.choice((5.0, 5.0, _span(random, HOUR))), {})),
    "refresh": (4, lambda random: (0.0, {"again": random.choice((0, 0, 3))})),
    "hangup": (2, lambda _: (0.0, {})),
}
"""How often each kind comes, and what is drawn for it."""
