"""What goes wrong on request: a script of faults, of which each request takes the first that concerns it."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, fields, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from agent.emulator.wire import Answer, text_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS = {
    "pass": "nothing goes wrong; lets requests through within a script",
    "latency": "the answer comes `seconds` later (default 1)",
    "hang": "no answer comes, and the connection stays open",
    "status": "an HTTP status and no token: `status` (default 503), `retry_after` if given",
    "throttle": "429 in JSON: `retry_after` (default 60; seconds or a date)",
    "throttle_text": "429 as the plain text that Entra sends: `retry_after` as above",
    "drop": "the connection is cut before an answer",
    "garbage": "200 with bytes that mean nothing",
    "html": "a page as proxies and captive portals show it: `status` (default 200)",
    "clock": "the provider's clock is ahead by `seconds` (default 3600; negative: behind)",
    "stale": "the token was made `seconds` ago (default 7200; negative: ahead), and nothing else says so",
    "unregistered": "the certificate is not registered (yet): of `thumbprint`, or any",
    "error": "Entra refuses with `code` (default 700027), and `status`, `error` if given",
}
"""Every kind of fault, with what it does and the further keys it knows."""
ENDPOINTS = ("token", "discovery", "keys", "instance")
TOKEN_ONLY = {"unregistered", "error", "stale"}
"""Faults that say something about a client or a token, and therefore never strike a document."""
SIGNED = {"clock", "stale"}
"""Faults whose seconds may be negative."""
PAGE = (
    "<!DOCTYPE html><html><head><title>Sign in to the network</title></head>"
    "<body><h1>Welcome</h1><p>Please accept the terms of use to continue.</p></body></html>"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One step of the script.

    Attributes:
        kind: one of `KINDS`.
        count: how many requests it strikes; None: all, until it is cleared.
        tenant: only requests of this tenant, by the name or GUID they use.
        client_id: only token requests of this app.
        endpoint: only requests to one of `ENDPOINTS`.
    """

    kind: str
    count: int | None = 1
    tenant: str | None = None
    client_id: str | None = None
    endpoint: str | None = None
    seconds: float | None = None
    status: int | None = None
    retry_after: int | str | None = None
    code: int | None = None
    error: str | None = None
    thumbprint: str | None = None

    def concerns(self, endpoint: str, tenants: tuple[str, ...], client_id: str | None) -> bool:
        """Tell whether a request is one that it strikes."""
        if endpoint != "token" and (self.client_id or self.kind in TOKEN_ONLY):
            return False
        return (
            self.endpoint in (None, endpoint)
            and (self.tenant is None or self.tenant.lower() in tenants)
            and (self.client_id is None or self.client_id.lower() == (client_id or "").lower())
        )

    @property
    def retry_headers(self) -> dict[str, str]:
        """Retry-After, as far as it was asked for or belongs to the kind."""
        value = self.retry_after
        if value is None and self.kind.startswith("throttle"):
            value = 60
        return {} if value is None else {"Retry_After": str(value)}

    def answer(self) -> Answer | None:
        """Return what is sent in place of an answer; None where the provider itself has to speak."""
        match self.kind:
            case "hang" | "drop":
                return Answer(manner="hang" if self.kind == "hang" else "drop")
            case "throttle_text":
                return text_answer(429, "Too Many Requests", **self.retry_headers)
            case "garbage":
                return Answer(200, {"Content-Type": "application/json"}, b"\xff\x00{" + secrets.token_bytes(64))
            case "html":
                return text_answer(self.status or 200, PAGE, "text/html", **self.retry_headers)
            case "status" if self.status and self.status < 500:  # noqa: PLR2004 - from there on Entra speaks JSON
                return text_answer(self.status, HTTPStatus(self.status).phrase, **self.retry_headers)
        return None


def parse(values: Mapping[str, Any]) -> Fault:
    """Return the fault that a JSON object asks for.

    Raises:
        ValueError: it names the key and what is wrong with it.
    """
    known = {each.name for each in fields(Fault)}
    if unknown := set(values) - known:
        raise ValueError(f"unknown key {min(unknown)!r} in a fault; known are {', '.join(sorted(known))}")
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; not {kind!r}")
    values = {**values, "code": _code(values.get("code"))}
    for name in ("tenant", "client_id", "error", "thumbprint"):
        _require(name, values.get(name), isinstance(values.get(name), str), "a text")
    for name, low, high in (("count", 1, 10**9), ("status", 100, 599), ("code", 1, 10**9)):
        value = values.get(name)
        _require(name, value, type(value) is int and low <= value <= high, f"a whole number from {low} to {high}")
    seconds = values.get("seconds")
    good = isinstance(seconds, int | float) and not isinstance(seconds, bool) and abs(seconds) < math.inf
    _require("seconds", seconds, good and (kind in SIGNED or float(seconds or 0) >= 0), "a number of seconds")
    _require("endpoint", values.get("endpoint"), values.get("endpoint") in ENDPOINTS, f"one of {', '.join(ENDPOINTS)}")
    retry_after = values.get("retry_after")
    _require("retry_after", retry_after, type(retry_after) in (int, str), "seconds or an HTTP date")
    return Fault(**values)


def _code(value: Any) -> Any:
    """Accept AADSTS700027 where 700027 is meant."""
    digits = value.upper().removeprefix("AADSTS") if isinstance(value, str) else ""
    return int(digits) if digits.isascii() and digits.isdigit() else value


def _require(name: str, value: Any, good: bool, what: str) -> None:  # noqa: FBT001 - the judgement itself
    if value is not None and not good:
        raise ValueError(f"{name} must be {what}, not {value!r}")


class Script:
    """Faults in sequence; without any, nothing goes wrong."""

    def __init__(self) -> None:
        self._steps: list[Fault] = []

    @property
    def steps(self) -> tuple[Fault, ...]:
        """What is still to come."""
        return tuple(self._steps)

    def add(self, *faults: Fault) -> None:
        """Append to the script; what has no count hides all that follows and strikes the same requests."""
        self._steps += faults

    def clear(self) -> None:
        """End all faults."""
        self._steps.clear()

    def take(self, endpoint: str, tenants: tuple[str, ...], client_id: str | None) -> Fault | None:
        """Return the first fault that concerns a request, and count it."""
        for index, fault in enumerate(self._steps):
            if fault.concerns(endpoint, tenants, client_id):
                if fault.count == 1:
                    del self._steps[index]
                elif fault.count is not None:
                    self._steps[index] = replace(fault, count=fault.count - 1)
                return fault
        return None
