"""A token request before anything is judged: where it goes, who asks, and what finds it in the logs."""

from __future__ import annotations

import base64
import binascii
import uuid
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from agent.emulator.assertion import Assertion
from agent.emulator.refusals import Refusal, Trace
from agent.emulator.registry import is_guid

if TYPE_CHECKING:
    from datetime import datetime

    from agent.emulator.wire import Request

_ENDPOINTS = {
    "oauth2/v2.0/token": "token",
    "v2.0/.well-known/openid-configuration": "discovery",
    "discovery/v2.0/keys": "keys",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, understood as far as it goes before anything is judged."""

    request: Request
    tenant: str
    endpoint: str
    form: dict[str, str] = field(repr=False)
    trace: Trace

    @classmethod
    def read(cls, request: Request) -> Asked:
        """Sort out where a request goes and who asks."""
        segments = request.segments
        tenant, rest = (segments[0], "/".join(segments[1:])) if segments else ("", "")
        endpoint = _ENDPOINTS.get(rest, "other")
        if segments == ["common", "discovery", "instance"]:
            endpoint = "instance"
        form = _with_basic(request) if endpoint == "token" else {}
        wish = request.headers.get("client-request-id", "")
        correlation_id = wish if is_guid(wish) else str(uuid.uuid4())
        return cls(request, tenant, endpoint, form, Trace(str(uuid.uuid4()), correlation_id))

    @property
    def client_id(self) -> str | None:
        """Who claims to ask."""
        return self.form.get("client_id")

    @property
    def thumbprint(self) -> str | None:
        """Which certificate the assertion claims to be by, if any."""
        assertion = self.form.get("client_assertion")
        try:
            return Assertion.parse(assertion).thumbprint or None if assertion else None
        except Refusal:
            return None


def _with_basic(request: Request) -> dict[str, str]:
    """Return the form, with what an Authorization header says besides (RFC 6749 2.3.1)."""
    form = request.form()
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return form
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return form
    return {"client_id": unquote_plus(user), "client_secret": unquote_plus(password), **form}


def common_headers(asked: Asked, now: datetime) -> dict[str, str]:
    """Return the headers that all of Entra's answers have."""
    echoed = asked.request.headers.get("client-request-id")
    return {
        "Date": format_datetime(now, usegmt=True),
        "Cache-Control": "no-store, no-cache",
        "Pragma": "no-cache",
        "Expires": "-1",
        "X-Content-Type-Options": "nosniff",
        "x-ms-request-id": asked.trace.trace_id,
        **({"client-request-id": asked.trace.correlation_id} if echoed else {}),
    }
