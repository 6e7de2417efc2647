"""Discovery documents: where a provider's endpoints are, checked, and asked for once for all profiles."""

from __future__ import annotations

import math
import re
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.errors import RejectedError, TransientError
from agent.harmless import line, mask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.clock import Clock
    from agent.config.model import Profile

DISCOVERY_TTL = 24 * 3600.0
"""Seconds; as long as MSAL itself keeps a discovery document."""
JUST_NOW = 5.0
"""Seconds; when a person asks for many profiles at once, what was asked for one of them serves the others."""
_HOST = re.compile(r"[\w.:%-]{1,253}")
"""A name or an address, and nothing that a terminal or a log would mind."""
_URL = re.compile(r"[\x21-\x7e]{1,2000}")


class Discovery:
    """OpenID discovery documents, remembered once per URL for all profiles (OpenID Connect Discovery 1.0, 4)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._texts: dict[str, tuple[float, str]] = {}  # with the time of the answer
        self._lock = threading.Lock()

    def recall(self, url: str) -> str | None:
        """Return the document, if it is not too old."""
        with self._lock:
            since, text = self._texts.get(url, (-math.inf, ""))
        return text if self._clock.boot() < since + DISCOVERY_TTL else None

    def remember(self, url: str, text: str) -> None:
        """Keep a document that can be used."""
        with self._lock:
            self._texts[url] = (self._clock.boot(), text)

    def forget(self, issuer: str, age: float = 0.0) -> None:
        """Drop what is known of an authority, and was not learnt in the last ``age`` seconds: endpoints may move."""
        latest, issuer = self._clock.boot() - age, issuer.lower()
        with self._lock:
            old = [url for url, (since, _) in self._texts.items() if since <= latest and url.lower().startswith(issuer)]
            for url in old:
                del self._texts[url]


def usable(document: Mapping[str, Any], profile: Profile) -> dict[str, str]:
    """Return what MSAL needs of a document (OpenID Connect Discovery 1.0, 3 and 4.3).

    An issuer that differs would become the audience of our assertions, which might open somebody else's door.

    Raises:
        TransientError: it is no discovery document.
        RejectedError: it is another issuer's.
    """
    issuer, token_endpoint = document.get("issuer"), document.get("token_endpoint")
    if not isinstance(issuer, str) or not isinstance(token_endpoint, str) or not _is_https(token_endpoint):
        raise nonsense(profile, "the discovery document names no issuer or no token endpoint")
    if not profile.is_entra and issuer.rstrip("/") != profile.authority_url:
        raise RejectedError(
            f"{host(profile)} calls itself {line(mask(line(issuer)), 200)!r}, not {profile.oidc_issuer!r}",
            hint="if that is your provider, write its own name as `oidc_issuer`",
            code="issuer",
        )
    # An application sends nobody to the authorization endpoint; MSAL insists on one, and not every provider has it.
    return {"issuer": issuer, "token_endpoint": token_endpoint, "authorization_endpoint": token_endpoint}


def nonsense(profile: Profile, message: str) -> TransientError:
    """Return the error for an answer that is no answer."""
    hint = "is `authority` (or `oidc_issuer`) right, and no proxy answering in its place?"
    return TransientError(f"{host(profile)}: {message}", hint=hint, unreachable=True)


def host(profile: Profile) -> str:
    """Return the provider's host, and its port if it is not the usual one."""
    return urlsplit(profile.authority_url).netloc


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(_URL.fullmatch(url) and _HOST.fullmatch(parts.hostname or ""))
    except ValueError:
        return False
