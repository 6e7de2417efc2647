"""What the operator of the simulated machine wants: profiles, and the configuration file that says so."""

from __future__ import annotations

import functools
import hashlib
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.emulator.registry import RegisteredCertificate
from tests.certificate_helpers import Pair, make_certificate, pool_key
from tests.simulation.providers import Identity
from tests.virtual import START

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path
    from random import Random

    from tests.simulation.providers import Site

KEYS = 3
"""Different keys in all; as many as there are made for each process."""
HOOK_INTERVAL = 5.0
"""Seconds between two runs of a hook."""
FORMATS = ("raw", "json", "header", "env")


@dataclass(frozen=True)
class Plan:
    """One profile as the configuration has it."""

    name: str
    identity: Identity
    fmt: str = "raw"
    at: float = 0.5
    jitter: float = 0.1
    timeout: int = 20
    on_removal: str = "delete"
    on_stop: str = "keep"
    on_expiry: str = "keep"
    split: bool = False
    hook: bool = False
    expect: bool = False
    twin: bool = False

    @property
    def share(self) -> float:
        """At which share of its life a token is renewed."""
        return self.at - self.jitter * place(self.name)

    def text(self, site: Site, directory: Path) -> str:
        certificate = f'{{ path = "{self.name}.crt", key = "{self.name}.key" }}' if self.split else f'"{self.name}.pem"'
        hook = 'on_refresh = { command = ["PROGRAM", "{path}"], min_interval = "INTERVAL" }\n' if self.hook else ""
        hook = hook.replace("PROGRAM", f"{directory}/bin/after").replace("INTERVAL", f"{HOOK_INTERVAL:g}s")
        expect = f'expect = {{ audience = "{self.identity.scope}" }}\n' if self.expect else ""
        paths = [f"{self.name}.token", *([f"twins/{self.name}.token"] if self.twin else [])]
        token_files = ", ".join(f'{{ path = "{path}", format = "{self.fmt}" }}' for path in paths)
        return (
            f'[[profile]]\nname = "{self.name}"\nclient_id = "{self.identity.client_id}"\n'
            f'authority = "{site.handle.authority}"\nscopes = ["{self.identity.scope}/.default"]\n'
            f"certificate = {certificate}\ntoken_file = [{token_files}]\n"
            f'refresh = {{ at = {self.at}, jitter = {self.jitter} }}\ntimeout = "{self.timeout}s"\n'
            f'on_removal = "{self.on_removal}"\non_stop = "{self.on_stop}"\non_expiry = "{self.on_expiry}"\n'
            f"{hook}{expect}"
        )


def draw(random: Random, number: int, sites: int) -> Plan:
    """Return a profile of chance."""
    identity = Identity(random.randrange(sites), client_id(number), f"api://resource{number}")
    return Plan(
        f"p{number}",
        identity,
        fmt=random.choice(FORMATS),
        at=random.choice((0.5, 0.5, 0.4, 0.7)),
        jitter=random.choice((0.0, 0.1, 0.2)),
        timeout=random.choice((20, 20, 10, 30)),
        on_removal=random.choice(("delete", "keep")),
        on_stop=random.choice(("keep", "keep", "keep", "delete")),
        on_expiry=random.choice(("keep", "keep", "delete")),
        split=random.random() < 0.4,
        hook=random.random() < 0.2,
        expect=random.random() < 0.3,
        twin=random.random() < 0.35,
    )


def changed(random: Random, plan: Plan) -> Plan:
    """Return the profile with one key changed."""
    match random.randrange(5):
        case 0:
            return replace(plan, fmt=random.choice(FORMATS))
        case 1:
            return replace(plan, at=random.choice((0.3, 0.5, 0.6)))
        case 2:
            return replace(plan, timeout=random.choice((10, 15, 25)))
        case 3:
            scope = f"api://other{random.randrange(1000)}"
            return replace(plan, identity=replace(plan.identity, scope=scope))
    return replace(plan, on_removal="keep" if plan.on_removal == "delete" else "delete")


def client_id(number: int) -> str:
    """Return the app of a profile."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"app {number}"))


@functools.cache
def place(name: str) -> float:
    """Return a profile's share of its jitter, which is always the same on this machine."""
    return int.from_bytes(hashlib.sha256(f"machine/{name}".encode()).digest()[:6], "big") / (1 << 48)


@functools.cache
def mark(pair: Pair) -> str:
    """Return what assertions name a certificate by (x5t#S256)."""
    return RegisteredCertificate.of(pair.certificate).x5t_s256


@dataclass
class Wallet:
    """The certificates of one profile: on disk, registered, and in the memory of the running agent.

    ``known`` are those that the running agent has loaded and can fall back to; ``sound`` says whether the files on
    disk hold ``pair`` as a usable whole. ``last`` is the mark of the one that the provider took last; one of
    ``accepted`` is what the agent remembers as that.
    """

    pair: Pair
    sound: bool = True
    registered: set[str] = field(default_factory=set)
    known: list[Pair] = field(default_factory=list)
    last: str = ""
    accepted: set[str] = field(default_factory=set)

    @property
    def usable_on_disk(self) -> bool:
        return self.sound and mark(self.pair) in self.registered

    def usable(self, *, loading: bool) -> bool:
        """Whether the agent has a certificate that the provider takes, or one to load if it loads anything now."""
        return (loading and self.usable_on_disk) or any(mark(each) in self.registered for each in self.known)

    def unproven(self) -> bool:
        """Whether there is a certificate, on disk or loaded before, that the agent has not used yet."""
        return mark(self.pair) not in map(mark, self.known) or self.is_candidate(mark(self.pair))

    def lies_on_disk(self, used: str | None) -> bool:
        """Whether a certificate is that on disk, which is tried first."""
        return mark(self.pair) == used

    def falls_back_to(self, used: str | None) -> bool:
        """Whether a certificate is that which worked last, and others are only tried before it."""
        return self.last == used and not self.lies_on_disk(used)

    def is_candidate(self, used: str | None) -> bool:
        """Whether another one was taken last, which the agent may remember over a restart."""
        return bool(self.accepted - {used or ""})

    def proven(self, used: str | None) -> None:
        """The provider took a certificate: it is what the agent falls back to from now on."""
        pairs = [self.pair, *self.known]
        self.accepted.add(used or "")
        self.last = used or ""
        self.known = [each for each in pairs if mark(each) == used][:1] or self.known

    def saved(self) -> None:
        """What the agent remembers is up to date."""
        self.accepted &= {self.last}

    def others_than(self, used: str | None) -> bool:
        """Whether there is another credential that the provider takes."""
        pairs = [*self.known, *([self.pair] if self.sound else [])]
        return any(mark(each) in self.registered and mark(each) != used for each in pairs)


def new_pair(number: int, age: timedelta, *, ends: timedelta) -> Pair:
    """Return a certificate that begins a day before ``age`` and ends at ``ends``, counted from the scenario's start."""
    from datetime import timedelta as delta  # noqa: PLC0415 - a type above

    begins = START + age - delta(days=1)
    return make_certificate("app", pool_key(number % KEYS), not_before=begins, not_after=START + ends)
