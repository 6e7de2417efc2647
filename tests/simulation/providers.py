"""The identity providers of a scenario, and the ledger of all that they were asked and issued."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, quote

from agent.emulator.provider import Provider
from agent.emulator.registry import Registry
from agent.emulator.settings import Settings
from tests.emulator_helpers import Handle, InProcessTransport, signing_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.network.call import Call
    from agent.network.transport import Reply
    from tests.simulation.clocks import Time

BACKOFF, REJECTED, LONGEST_WISH = 60.0, 300.0, 3600.0
"""The contract, section 5: back-off of at most 60 s, after the end of a Retry-After of at most an hour; steps of five
minutes after a rejection, a tenth more or less."""
LOOP_PAUSE = 300.0
"""Seconds that protection against loops is given where it says nothing itself."""
LEEWAY = 300.0
"""Seconds that a token may begin in the future."""
FOREIGN, REFUSED = "api://foreign", 403
"""What tokens are for that a profile with `expect` does not expect, and what they are as good as."""

PASSING = (90033, 50196, 90055)
"""Refusals that pass by themselves: trouble of the service, protection against loops, throttling."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks whom for what: a token belongs to exactly one."""

    site: int
    client_id: str
    scope: str

    def __str__(self) -> str:
        return f"{self.site}/{self.client_id[:8]}/{self.scope}"


@dataclass(frozen=True, slots=True)
class Issued:
    """A token: its number in the order of all, and when it was asked for (true time)."""

    number: int
    identity: Identity
    at: float
    lifetime: float
    refresh_in: float | None

    @property
    def ends(self) -> float:
        return self.at + self.lifetime


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that came to its end at ``at``, having begun at ``began``.

    ``status`` is None where no answer came; ``wish`` what Retry-After asked for; ``issued`` the token;
    ``mark`` names the certificate that was used, and is None for discovery. ``aborted`` says that the agent gave up,
    ``passing`` that a refusal is one of those that pass by themselves (a wrong clock, trouble of the service),
    ``useless`` that a token came that is over, or has not begun.
    """

    identity: Identity
    began: float
    at: float
    status: int | None
    sound: bool
    wish: float | None
    issued: Issued | None
    mark: str | None
    aborted: bool
    passing: bool
    useless: bool

    @property
    def outage(self) -> bool:
        """Whether it says that the provider as a whole does not work."""
        if self.status in (429, 408):
            return False
        return self.status is None or self.status >= 500 or not self.sound

    @property
    def rest(self) -> float:
        """For how long the agent may rest after it, by the contract."""
        wish = min(self.wish or 0.0, LONGEST_WISH)
        if self.passing:
            return max(LOOP_PAUSE, wish) + BACKOFF
        if self.sound and self.status is not None and 400 <= self.status < 500 and self.status not in (408, 429):
            return REJECTED * 1.1
        return wish + BACKOFF


class Listener(Protocol):
    """Who wants to know."""

    def asked(self, identity: Identity, *, token: bool) -> None:
        """Hear of a request that begins."""

    def answered(self, answer: Answered) -> None:
        """Hear of a request that came to its end."""


class Ledger:
    """All tokens by their text; ``useless`` are those that nobody may take, by text and fingerprint."""

    def __init__(self) -> None:
        self.issued: dict[str, Issued] = {}
        self.fingerprints: dict[str, Issued] = {}
        self.useless: set[str] = set()
        self.count = 0

    def add(self, text: str, identity: Identity, at: float, lifetime: float, refresh_in: float | None) -> Issued:
        self.count += 1
        token = self.issued[text] = Issued(self.count, identity, at, lifetime, refresh_in)
        self.fingerprints[hashlib.sha256(text.encode()).hexdigest()[:12]] = token
        return token

    def prune(self, before: float) -> None:
        """Forget what has long ended."""
        if len(self.issued) > 3000:
            self.issued = {text: token for text, token in self.issued.items() if token.ends > before}
            self.fingerprints = {text: token for text, token in self.fingerprints.items() if token.ends > before}


class Site:
    """One provider with one tenant; who is ``foreign`` to it gets tokens for something else than it asks for."""

    def __init__(self, number: int, time: Time, lifetime: timedelta) -> None:
        self.number = number
        settings = Settings(token_lifetime=lifetime)
        tenant = f"tenant{number}.example.com"
        provider = Provider(f"https://127.0.0.1:{4430 + number}", signing_key(), Registry((tenant,)), settings)
        self.handle = Handle(provider, tenant=tenant)
        self._time = time
        self.foreign: set[Identity] = set()

    @property
    def lifetime(self) -> float:
        """For how many seconds the next token lives."""
        return self.handle.provider.settings.token_lifetime.total_seconds()

    def strikes(self, identity: Identity, slow: float) -> bool:
        """Whether a fault stands in the way of an identity's next token; latency does from ``slow`` seconds on."""
        if identity in self.foreign:
            return True
        names = (self.handle.tenant.lower(),)
        for fault in self.handle.provider.script.steps:
            harmless = fault.kind == "pass" or (fault.kind == "latency" and (fault.seconds or 1.0) <= slow)
            concerned = any(fault.concerns(end, names, identity.client_id) for end in ("token", "discovery"))
            slight = fault.kind == "clock" and abs(fault.seconds or 3600) < 200
            serves = fault.kind == "stale" and -LEEWAY <= (fault.seconds or 0.0) < self.lifetime
            if concerned and not (harmless or slight or serves):
                return True
        return False


class Way(InProcessTransport):
    """The way of one profile to its provider, which writes down what passes."""

    def __init__(
        self,
        site: Site,
        identity: Identity,
        time: Time,
        ledger: Ledger,
        listener: Listener,
        *,
        advance: Callable[[timedelta], None],
    ) -> None:
        super().__init__(site.handle, time, advance=advance)
        self._site, self._identity, self._time = site, identity, time
        self._ledger, self._listener = ledger, listener

    def request(
        self, call: Call, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        began, mark = self._time.true, _mark(body)
        self._listener.asked(self._identity, token=mark is not None)
        reply: Reply | None = None
        try:
            answer = super().request(call, method, url, headers, self._body(body))
            call.remaining()  # what comes after the caller has given up is heard by nobody
            reply = answer
        finally:
            self._listener.answered(self._answered(began, reply, mark, aborted=call.aborted))
        return answer

    def _body(self, body: bytes | None) -> bytes | None:
        """Return what the provider understands."""
        if body is None or self._identity not in self._site.foreign:
            return body
        return body.replace(quote(self._identity.scope, safe="").encode(), quote(FOREIGN, safe="").encode())

    def _answered(self, began: float, reply: Reply | None, mark: str | None, *, aborted: bool) -> Answered:
        status, parsed = (reply.status, _parsed(reply.body)) if reply else (None, None)
        wish = _wish(reply.headers, self._time.now()) if reply else None
        issued, text = None, parsed["access_token"] if parsed and status == 200 and "access_token" in parsed else ""
        serves = self._serves(reply, text) if reply and text else None
        foreign = serves is not None and claims_of(text)["aud"] == FOREIGN
        if parsed and not foreign and serves is not None:
            lifetime = min(float(parsed["expires_in"]), serves)
            issued = self._ledger.add(text, self._identity, began, lifetime, parsed.get("refresh_in"))
        elif text:
            self._ledger.useless |= {text, hashlib.sha256(text.encode()).hexdigest()[:12]}
        return Answered(
            self._identity,
            began,
            self._time.true,
            REFUSED if foreign else status,
            parsed is not None,
            wish,
            issued,
            mark,
            aborted,
            self._passes(reply, parsed),
            useless=bool(text) and issued is None and not foreign,
        )

    def _serves(self, reply: Reply, text: str) -> float | None:
        """Return the seconds that a token serves by its own times; None if it is over, or begins much later.

        They are the provider's times, and so is the answer's; only what the machine's clock calls over, too, is over.
        """
        claims = claims_of(text)
        told = email.utils.parsedate_to_datetime(reply.headers["date"]).timestamp()
        ours = self._time.now().timestamp() + self._time.wrong
        if min(claims["nbf"] - told, claims["nbf"] - ours) > LEEWAY:
            return None
        theirs, left = float(claims["exp"] - told), claims["exp"] - ours
        return theirs if theirs > 0 else left if left > 0 else None

    def _passes(self, reply: Reply | None, parsed: dict[str, Any] | None) -> bool:
        if reply is None or parsed is None or reply.status < 400:
            return False
        skew = 0.0
        if "date" in reply.headers:
            told = email.utils.parsedate_to_datetime(reply.headers["date"]).astimezone(UTC)
            skew = abs((self._time.now() - told).total_seconds() + self._time.wrong)
        codes = parsed.get("error_codes")
        code = codes[0] if isinstance(codes, list) and codes else 0
        return (code == 700024 and skew > 50) or code in PASSING


def claims_of(text: str) -> dict[str, Any]:
    """Return what a token says."""
    part = text.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def _mark(body: bytes | None) -> str | None:
    """Return what names the certificate in the assertion of a token request (x5t#S256)."""
    if not body:
        return None
    header = parse_qs(body.decode())["client_assertion"][0].partition(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["x5t#S256"])


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(body)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _wish(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return what Retry-After asks for, as RFC 9110 10.2.3 has it: whole seconds, or a date by the provider's clock."""
    text = headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return min(float(text), 1e9)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    told = email.utils.parsedate_to_datetime(headers["date"]) if "date" in headers else now
    seconds = (date.astimezone(UTC) - told.astimezone(UTC)).total_seconds()
    return seconds if math.isfinite(seconds) and seconds > 0 else None
