"""Discovery documents: where a provider's endpoints are, checked, and asked for once for all profiles."""

from __future__ import annotations

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
_HOST = re.compile(r"[\w.:%-]{1,253}")
"""A name or an address, and nothing that a terminal or a log would mind."""
_URL = re.compile(r"[\x21-\x7e]{1,2000}")


class Discovery:
    """OpenID discovery documents, remembered once per URL for all profiles (OpenID Connect Discovery 1.0, 4)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._texts: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def recall(self, url: str) -> str | None:
        """Return the document, if it is not too old."""
        with self._lock:
            until, text = self._texts.get(url, (0.0, ""))
        return text if self._clock.boot() < until else None

    def remember(self, url: str, text: str) -> None:
        """Keep a document that can be used."""
        with self._lock:
            self._texts[url] = (self._clock.boot() + DISCOVERY_TTL, text)

    def forget(self, issuer: str) -> None:
        """Drop what is known of an authority: its endpoints may have moved."""
        with self._lock:
            kept = {url: text for url, text in self._texts.items() if not url.lower().startswith(issuer.lower())}
            self._texts = kept


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
