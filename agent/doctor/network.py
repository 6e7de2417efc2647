"""The way to each provider, stage by stage as the agent takes it, and how far this machine's clock is off.

Names, proxy, TLS and limits are the agent's own (`agent.network`). What is asked for is the discovery document,
which everybody may have; no credential is ever sent.
"""

from __future__ import annotations

import contextlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from agent import __version__
from agent.config.proxies import parse_proxy
from agent.diagnosis import classify, parse_date, parse_retry_after
from agent.doctor import runtime
from agent.doctor.findings import Topic
from agent.errors import AcquisitionError, CredentialError, TransientError
from agent.network import trust
from agent.network.answers import json_object
from agent.network.call import Call
from agent.network.connection import Endpoint, Proxy, reach, secure
from agent.network.discovery import usable
from agent.network.transport import unreachable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from agent.config.model import Profile
    from agent.doctor.findings import Finding
    from agent.network.connection import Reply

T = TypeVar("T")
AT_ONCE = 8
"""Providers asked at the same time."""


@dataclass(frozen=True, slots=True)
class Way:
    """Profiles that reach one provider by the same trust root and proxy."""

    profiles: tuple[Profile, ...]

    @property
    def profile(self) -> Profile:
        """The one that stands for all of them."""
        return self.profiles[0]

    def __str__(self) -> str:
        via = f" through {parse_proxy(self.profile.proxy).shown}" if self.profile.proxy else ""
        trusting = f", trusting {self.profile.ca_file}" if self.profile.ca_file else ""
        return f"{self.profile.authority_url}{via}{trusting}"

    @property
    def heading(self) -> str:
        """The provider, and whose it is."""
        names = [profile.name for profile in self.profiles]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004 - enough to recognise it
        return f"provider {self} (of {', '.join(names[:3])}{more})"


def ways(profiles: Iterable[Profile]) -> list[Way]:
    """Return the distinct ways of some profiles, in their order."""
    found: dict[tuple[Any, ...], tuple[Profile, ...]] = {}
    for profile in profiles:
        key = (profile.authority_url, profile.ca_file, profile.proxy)
        found[key] = (*found.get(key, ()), profile)
    return [Way(each) for each in found.values()]


def examine(profiles: Iterable[Profile], now: Callable[[], datetime]) -> list[Finding]:
    """Return what is to be said of all providers."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        visits = pool.map(lambda way: _Visit(way, now).findings(), ways(profiles))
        return [finding for findings in visits for finding in findings]


class _Visit:
    """One visit to a provider, which ends at the first thing that is wrong."""

    def __init__(self, way: Way, now: Callable[[], datetime]) -> None:
        self._way, self._now = way, now
        self._topic = Topic("network", str(way), way.heading)
        self._found: list[Finding] = []

    def findings(self) -> list[Finding]:
        """Go there and tell."""
        try:
            self._go()
        except (AcquisitionError, CredentialError) as error:
            fix = error.hint or "check `authority` and `proxy`"
            self._found.append(self._topic.problem(error.message, fix, passes=isinstance(error, TransientError)))
        return self._found

    def _go(self) -> None:
        """Take the stages of `agent.network.connection.connect`, one by one."""
        profile = self._way.profile
        tls = self._trust()
        if tls is None:
            return
        origin = Endpoint.of(urlsplit(profile.authority_url))
        call = Call(profile.timeout.total_seconds())
        sock = self._reach(origin, call)
        trusted = f"{origin} shows a trusted certificate"
        connection = self._stage(lambda: secure(sock, origin, call, tls), lambda _: trusted)
        with contextlib.closing(connection):
            reply = self._stage(
                lambda: connection.exchange(call, "GET", _target(profile), _HEADERS, None),
                lambda answer: f"{origin} answers with HTTP status {answer.status}",
            )
        self._clock(origin, reply)
        self._document(reply)

    def _reach(self, origin: Endpoint, call: Call) -> socket.socket:
        """Look up the name of provider or proxy, and connect."""
        proxy = Proxy.parse(url) if (url := self._way.profile.proxy) else None
        first = proxy.endpoint if proxy else origin
        self._stage(
            lambda: socket.getaddrinfo(first.host, first.port, type=socket.SOCK_STREAM),
            lambda found: f"{first.host} has the address {_listed([str(each[4][0]) for each in found])}",
        )
        reached = f"the proxy {first} lets through to {origin}" if proxy else f"{origin} accepts connections"
        return self._stage(lambda: reach(origin, call, proxy), lambda _: reached)

    def _trust(self) -> ssl.SSLContext | None:
        """Return the trust root; None if only we may not read it.

        Raises:
            CredentialError: it cannot be used.
        """
        ca_file = self._way.profile.ca_file
        try:
            return trust.context(ca_file)
        except PermissionError:
            text = f"{ca_file}: you may not read it, so the provider was not visited"
            self._found.append(self._topic.note(text, "run this as root"))
            return None
        except OSError as error:
            path = ca_file or error.filename
            hint = "name a PEM file of authorities" if ca_file else "install ca-certificates, or name a `ca_file`"
            raise CredentialError(path, f"no usable trust root: {error.strerror}", hint=hint) from error

    def _stage(self, work: Callable[[], T], say: Callable[[T], str]) -> T:
        """Do a stage, note what came of it and how long it took.

        Raises:
            TransientError: what went wrong, as the agent would say it.
        """
        profile, begin = self._way.profile, time.monotonic()
        try:
            result = work()
        except (OSError, UnicodeError) as error:
            origin = urlsplit(profile.authority_url).netloc
            explained = unreachable(origin, error, proxied=profile.proxy is not None)
            took = _took(begin)
            raise TransientError(f"{explained.message} ({took})", hint=explained.hint) from error
        self._found.append(self._topic.ok(f"{say(result)} ({_took(begin)})"))
        return result

    def _clock(self, origin: Endpoint, reply: Reply) -> None:
        """Note how far this machine's clock is off, as far as the provider tells (RFC 9110 6.6.1)."""
        date = parse_date(reply.headers.get("date"))
        if date is None:
            return
        age = reply.headers.get("age", "")
        skew = self._now() - date - timedelta(seconds=int(age[:9]) if age.isascii() and age.isdigit() else 0)
        self._found.append(runtime.clock(Topic("clock", str(origin), self._way.heading), skew))

    def _document(self, reply: Reply) -> None:
        """Note whether the answer is a discovery document that the agent can use.

        Raises:
            TransientError, RejectedError: it is not.
        """
        profile, parsed = self._way.profile, json_object(reply.body)
        if reply.status != 200 or parsed is None or "error" in parsed:  # noqa: PLR2004 - HTTP's own number
            raise classify(
                reply.status,
                parsed,
                retry_after=parse_retry_after(reply.headers.get("retry-after"), self._now()),
                content_type=reply.headers.get("content-type"),
                subject=f"credential of app {profile.client_id}",
                skew=None,
            )
        endpoint = usable(parsed, profile)["token_endpoint"]
        self._found.append(self._topic.ok(f"the discovery document names {urlsplit(endpoint).netloc} for tokens"))


_HEADERS = {"Accept": "application/json", "User-Agent": f"token-agent/{__version__}", "Connection": "close"}


def _target(profile: Profile) -> str:
    """Return where the discovery document is (OpenID Connect Discovery 1.0, 4)."""
    path = urlsplit(profile.authority_url).path.rstrip("/")
    return f"{path}{'/v2.0' if profile.is_entra else ''}/.well-known/openid-configuration"


def _listed(addresses: list[str]) -> str:
    return addresses[0] + (f" and {len(addresses) - 1} more" if addresses[1:] else "")


def _took(begin: float) -> str:
    return f"{(time.monotonic() - begin) * 1000:.0f} ms"
