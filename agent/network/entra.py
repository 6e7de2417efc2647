"""Credential and scope in, token out: one acquisition through MSAL, every failure folded into our errors.

MSAL does the OAuth 2.0 exchange (RFC 6749 4.4, with RFC 7523 assertions). What it would do beyond that, a
long-running agent must not have, so it is switched off by its public parameters:

- its token cache answers from memory and hides failed refreshes: `_NoTokenCache` makes every call reach the wire;
- its HTTP cache replays old errors: `_NoHttpCache` stores nothing;
- its signing parses the key for each signature and reuses one `jti`: `credentials` signs, afresh each time;
- its discovery of instances and regions makes extra requests: off;
- its check of an issuer lets other issuers of the same host pass: `discovery` compares letter by letter.

What comes from outside is checked in `_Wire`, before MSAL sees it, and MSAL sees only what it needs.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import msal

from agent import __version__
from agent.credentials.store import SecretCredential
from agent.diagnosis import classify, parse_date, parse_retry_after
from agent.errors import AcquisitionError, TransientError
from agent.harmless import line, without
from agent.network.answers import json_object
from agent.network.discovery import Discovery, host, nonsense, usable
from agent.network.granted import Exchange, granted
from agent.network.transport import DroppedError, unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.clock import Clock
    from agent.config.model import Profile
    from agent.credentials.store import Credential
    from agent.network.transport import Call, Transport
    from agent.tokens import AccessToken

__all__ = ["Acquired", "Discovery", "acquire", "timed_out"]

# MSAL looks for this optional package whenever an application is made; that it is absent is worth remembering, for the
# search costs as much as a third of a signature.
sys.modules.setdefault("msal_extensions", None)  # type: ignore[arg-type]

ENTRA_ASSERTION_LIFETIME = timedelta(minutes=10)
"""As MSAL's own; Entra accepts it (learn.microsoft.com, "Certificate credentials": 5 to 10 minutes)."""
OIDC_ASSERTION_LIFETIME = timedelta(seconds=60)
"""Keycloak refuses assertions that live much longer than a minute (keycloak#38576)."""
AGAIN_AFTER = 1.0
"""Seconds; a profile never asks twice within one, not even in the same attempt."""
LONGEST_ID = 128
"""Characters of a request's id."""


@dataclass(frozen=True, slots=True)
class Acquired:
    """A new token and what the exchange told besides.

    ``skew`` is this machine's clock minus the provider's ``Date`` (accurate to a second or so); ``request_id``
    and ``correlation_id`` find the request in Entra's logs.
    """

    token: AccessToken
    skew: timedelta | None
    request_id: str | None
    correlation_id: str | None


class _NoTokenCache(msal.TokenCache):  # type: ignore[misc]
    """Finds nothing, keeps nothing. It has no ``__len__``: MSAL replaces a falsy cache by its own."""

    def search(self, *_args: Any, **_kwargs: Any) -> Iterator[Any]:
        return iter(())

    def add(self, event: Any, now: Any = None) -> None:
        pass


class _NoHttpCache(dict[str, Any]):
    """A mapping that stores nothing, so that MSAL replays no answer."""

    def __setitem__(self, key: str, value: Any) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Answer:
    """A response as MSAL wants it; it is only ever shown successes."""

    text: str
    status_code: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class _Wire:
    """MSAL's ``http_client`` for one attempt: sees what MSAL does not pass on, and raises all failures itself."""

    def __init__(
        self, profile: Profile, subject: str, transport: Transport, call: Call, discovery: Discovery, clock: Clock
    ) -> None:
        self._profile, self._subject = profile, subject
        self._transport, self._call, self._discovery, self._clock = transport, call, discovery, clock
        self.issuer = ""
        self.sent_at = self.seen_at = clock.now()
        self.answer: Mapping[str, Any] = {}
        self.skew: timedelta | None = None
        self.request_id: str | None = None
        self.correlation_id: str | None = None
        self._secrets: tuple[str, ...] = ()

    def get(self, url: str, **_: Any) -> _Answer:
        """Answer discovery, from memory where possible."""
        url = url.replace("/./", "/")  # see `_application`
        text = self._discovery.recall(url)
        if text is None:
            document = usable(self._ask("GET", url, {}), self._profile)
            text = json.dumps(document)
            self._discovery.remember(url, text)
        self.issuer = json.loads(text)["issuer"]
        return _Answer(text)

    def post(self, url: str, headers: Mapping[str, str], data: Mapping[str, Any], **_: Any) -> _Answer:
        """Send the token request; what MSAL has no use for it does not get to see."""
        form = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        self.correlation_id = headers.get("client-request-id")
        self.sent_at = self._clock.now()
        self._secrets = tuple(str(data[name]) for name in ("client_secret", "client_assertion") if name in data)
        self.answer = self._ask("POST", url, form, urlencode(data).encode())
        return _Answer(json.dumps({"access_token": self.answer.get("access_token")}))

    def close(self) -> None:
        """The transport outlives the attempt."""

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> dict[str, Any]:
        """Return the JSON object of a success; raise anything else as what it means.

        Status and content come first: MSAL would log a proxy's page whole, and Entra's own throttle is plain text.
        """
        headers = {"Accept": "application/json", "User-Agent": f"token-agent/{__version__}", **headers}
        reply = self._transport.request(self._call, method, url, headers, body)
        self.seen_at = now = self._clock.now()
        date = parse_date(reply.headers.get("date"))
        self.skew = now - date if date else None
        request_id = without(reply.headers.get("x-ms-request-id", "").encode(), self._secrets).decode()
        self.request_id = line(request_id, LONGEST_ID) or None
        parsed = json_object(reply.body) if reply.status == 200 else None  # noqa: PLR2004 - HTTP's own number
        if parsed is not None and "error" not in parsed:
            return parsed
        raise classify(
            reply.status,
            json_object(without(reply.body, self._secrets)),  # some providers quote what they were sent
            retry_after=parse_retry_after(reply.headers.get("retry-after"), date or now),
            content_type=reply.headers.get("content-type"),
            subject=self._subject,
            skew=self.skew,
        )


def acquire(
    profile: Profile, credential: Credential, transport: Transport, call: Call, discovery: Discovery, clock: Clock
) -> Acquired:
    """Acquire a token now, over the wire; blocks the calling thread.

    When a kept connection has ended in the very moment it was used, the attempt is made once more: with an assertion
    of its own, since the provider may have seen the first one, and no sooner than any other attempt.

    Raises:
        TransientError, RejectedError: no token, and why.
        CredentialError: a file that is read at every use (assertion, secret) cannot be used.
    """
    try:
        return _attempt(profile, credential, transport, call, discovery, clock)
    except DroppedError:
        if not call.pause(AGAIN_AFTER):
            raise
    return _attempt(profile, credential, transport, call, discovery, clock)


def _attempt(
    profile: Profile, credential: Credential, transport: Transport, call: Call, discovery: Discovery, clock: Clock
) -> Acquired:
    wire = _Wire(profile, _subject(profile, credential), transport, call, discovery, clock)
    try:
        result = _application(profile, credential, wire, clock).acquire_token_for_client(list(profile.scopes))
        exchange = Exchange(wire.sent_at, wire.seen_at, wire.skew)
        token = granted(profile, result.get("access_token"), wire.answer, exchange)
    except (ValueError, KeyError, TypeError) as error:
        # MSAL's way of saying that a discovery document is not what it should be.
        discovery.forget(profile.authority_url)
        raise nonsense(profile, f"the discovery document cannot be used ({type(error).__name__})") from error
    except AcquisitionError as error:
        error.correlation_id = error.correlation_id or wire.correlation_id
        error.skew = wire.skew
        if not error.answered and not isinstance(error, DroppedError):
            discovery.forget(profile.authority_url)  # where we asked may be no token endpoint (any more)
        raise
    return Acquired(token, wire.skew, wire.request_id, wire.correlation_id)


def _application(profile: Profile, credential: Credential, wire: _Wire, clock: Clock) -> Any:
    """Build MSAL's application: 0.2 ms, so that each attempt has its own and nothing is carried over."""
    url = profile.authority_url
    named = url if urlsplit(url).path else f"{url}/."  # MSAL insists on a path; this one says nothing (RFC 3986 5.2.4)
    return msal.ConfidentialClientApplication(
        profile.client_id,
        client_credential=_client_credential(profile, credential, wire, clock),
        http_client=wire,
        token_cache=_NoTokenCache(),
        http_cache=_NoHttpCache(),
        instance_discovery=False,  # the authority was validated by the configuration
        azure_region=False,  # neither the environment nor the metadata service may redirect us
        **({"authority": url} if profile.is_entra else {"oidc_authority": named}),
    )


def _client_credential(profile: Profile, credential: Credential, wire: _Wire, clock: Clock) -> Any:
    """Return what MSAL calls a credential: a secret, or a callable that signs afresh for every request."""
    if isinstance(credential, SecretCredential):
        return credential.secret()

    def assertion(context: Mapping[str, str]) -> str:
        # Other providers want the issuer as audience (RFC 7523 3, OpenID Connect Core 9).
        audience = context["token_endpoint"] if profile.is_entra else wire.issuer
        lifetime = ENTRA_ASSERTION_LIFETIME if profile.is_entra else OIDC_ASSERTION_LIFETIME
        return credential.assertion(profile.client_id, audience, clock.now(), lifetime)

    return {"client_assertion": assertion}


def timed_out(profile: Profile) -> TransientError:
    """Return the error for an acquisition that took longer than the profile's ``timeout``."""
    return unreachable(host(profile), TimeoutError(), proxied=profile.proxy is not None)


def _subject(profile: Profile, credential: Credential) -> str:
    """Name what identifies us, for hints: the thumbprint is what a person looks for in the portal."""
    what = f"certificate {credential.thumbprint}" if credential.thumbprint else credential.kind.replace("_", " ")
    return f"{what} of app {profile.client_id}"
