"""A request and the time in, an answer out: the whole provider, without threads, clock or files.

The walk of a token request: which tenant, does a fault strike, which app, does it prove itself, may it have this
resource; then the token. Everything it knows is in its registry, script, settings and journal, which `admin` changes.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.emulator import issuing
from agent.emulator.asked import Asked, common_headers
from agent.emulator.assertion import ANY, UsedIds, Verifier
from agent.emulator.faults import Script
from agent.emulator.journal import Entry, Journal
from agent.emulator.refusals import Refusal, refuse
from agent.emulator.registry import Registry, is_tenant_name
from agent.emulator.settings import Settings
from agent.emulator.wire import Answer, json_answer, text_answer

if TYPE_CHECKING:
    from datetime import datetime

    from agent.emulator.faults import Fault
    from agent.emulator.registry import App, Tenant
    from agent.emulator.wire import Request

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SHARED = ("common", "organizations", "consumers")
"""Authorities of no tenant; an app alone cannot sign in there."""
SIGN_IN_SCOPES = ("openid", "profile", "email", "offline_access")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class Provider:
    """The identity provider.

    Args:
        url: where it is reached, without a slash at the end; issuer and endpoints follow from it.
        key: what signs its tokens.
        registry: what is registered.
        settings: how it behaves.
    """

    def __init__(
        self,
        url: str,
        key: issuing.SigningKey,
        registry: Registry | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.url = url
        self.key = key
        self.registry = registry or Registry()
        self.settings = settings or Settings()
        self.script = Script()
        self.journal = Journal()
        self._used = UsedIds()
        self._recent: dict[str, deque[datetime]] = {}

    def answer(self, request: Request, now: datetime) -> Answer:
        """Answer a request that came at ``now``."""
        asked = Asked.read(request)
        fault = self.script.take(asked.endpoint, self._names(asked.tenant), asked.client_id)
        now += self.settings.clock_offset
        if fault and fault.kind == "clock":
            now += timedelta(seconds=3600 if fault.seconds is None else fault.seconds)
        code = None
        answer = fault.answer() if fault else None
        if answer is None:
            try:
                answer = self._answer(asked, fault, now)
            except Refusal as refusal:
                code = refusal.code
                answer = self._refuse(asked, refusal, fault, now)
        self._record(asked, answer, code, fault, now)
        delay = (1.0 if fault.seconds is None else fault.seconds) if fault and fault.kind == "latency" else 0.0
        return replace(answer, headers=common_headers(asked, now) | dict(answer.headers), delay=delay)

    def _names(self, identifier: str) -> tuple[str, ...]:
        """Return everything that addresses the tenant, for faults that are limited to it."""
        tenant = self.registry.tenant(identifier)
        return (tenant.name.lower(), tenant.id) if tenant else (identifier.lower(),)

    def _refuse(self, asked: Asked, refusal: Refusal, fault: Fault | None, now: datetime) -> Answer:
        """Return the answer for a refusal; a fault may have ordered another status."""
        details = {"client_id": asked.client_id, "tenant": asked.tenant, **refusal.details}
        ordered = fault if fault and fault.kind in ("error", "status", "throttle") else None
        answer = refuse(
            refusal.code,
            details,
            asked.trace,
            now,
            status=ordered.status if ordered else None,
            error=ordered.error if ordered else None,
        )
        extra = {name.replace("_", "-"): value for name, value in ordered.retry_headers.items()} if ordered else {}
        return replace(answer, headers={**answer.headers, **extra})

    def _record(self, asked: Asked, answer: Answer, code: int | None, fault: Fault | None, now: datetime) -> None:
        status = answer.status if answer.manner == "send" else None
        self.journal.record(
            Entry(
                at=f"{now:%Y-%m-%dT%H:%M:%S.%fZ}",
                endpoint=asked.endpoint,
                tenant=asked.tenant or None,
                client_id=asked.client_id,
                scope=asked.form.get("scope"),
                status=status,
                code=code,
                fault=fault.kind if fault else None,
                thumbprint=asked.thumbprint,
                correlation_id=asked.trace.correlation_id,
            )
        )

    # ---- what is served

    def _answer(self, asked: Asked, fault: Fault | None, now: datetime) -> Answer:
        """Serve what was asked for.

        Raises:
            Refusal: Entra says no, or a fault says so.
        """
        if fault and fault.kind in ("error", "status", "throttle"):
            usual = {"error": 700027, "status": 90033, "throttle": 90055}[fault.kind]
            raise Refusal(fault.code or usual, reason="The key was not found.")
        match asked.endpoint:
            case "token":
                return self._token(asked, fault, now)
            case "discovery":
                return json_answer(200, issuing.discovery(self.url, self._document_tenant(asked)))
            case "keys":
                issuer = f"{self.url}/{self._document_tenant(asked)}/v2.0"
                return json_answer(200, self.key.jwks(issuer))
            case "instance":
                host = urlsplit(self.url).netloc
                return json_answer(200, issuing.instance_discovery(self.url, host, self.registry.tenants[0].id))
        return text_answer(404, "Not Found")

    def _document_tenant(self, asked: Asked) -> str:
        """Return what a document names as its tenant; the shared authorities leave it open."""
        return "{tenantid}" if asked.tenant in SHARED else self._tenant(asked).id

    def _tenant(self, asked: Asked) -> Tenant:
        tenant = self.registry.tenant(asked.tenant)
        if tenant is None:
            raise Refusal(90002 if is_tenant_name(asked.tenant) else 900023)
        return tenant

    def _token(self, asked: Asked, fault: Fault | None, now: datetime) -> Answer:
        """Issue a token, or refuse it for the first thing that is wrong."""
        if asked.request.method != "POST":
            raise Refusal(900561, method=asked.request.method)
        if asked.tenant in SHARED:
            raise Refusal(9001023)
        tenant = self._tenant(asked)
        app = self._app(asked, tenant, now)
        resource = self._resource(asked.form, tenant)
        how = self._authenticated(asked, app, tenant, fault, now)
        lifetime = self.settings.token_lifetime
        issuer = f"{self.url}/{tenant.id}/v2.0"
        made_at = now
        if fault and fault.kind == "stale":
            made_at -= timedelta(seconds=7200 if fault.seconds is None else fault.seconds)
        claims = issuing.access_claims(issuer, tenant, app, resource, how=how, now=made_at, lifetime=lifetime)
        seconds = int(lifetime.total_seconds())
        body: dict[str, Any] = {"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds}
        if self.settings.refresh_in is not None:
            body["refresh_in"] = int(self.settings.refresh_in.total_seconds())
        return json_answer(200, body | {"access_token": self.key.sign(claims)})

    def _app(self, asked: Asked, tenant: Tenant, now: datetime) -> App:
        """Find out who asks for what kind of grant."""
        for name in ("grant_type", "client_id", "scope"):
            if not asked.form.get(name):
                raise Refusal(900144, parameter=name)
        if asked.form["grant_type"] != "client_credentials":
            raise Refusal(70003, grant_type=asked.form["grant_type"])
        app = self.registry.app(asked.form["client_id"], tenant)
        if app is None:
            raise Refusal(700016)
        if self._is_looping(app, now):
            raise Refusal(50196)
        return app

    def _is_looping(self, app: App, now: datetime) -> bool:
        """Count an app's requests, where somebody wants them counted."""
        limit = self.settings.loop_limit
        if limit is None:
            return False
        recent = self._recent.setdefault(app.client_id.lower(), deque())
        recent.append(now)
        while recent[0] <= now - self.settings.loop_window or len(recent) > limit + 1:
            recent.popleft()
        return len(recent) > limit

    def _resource(self, form: dict[str, str], tenant: Tenant) -> str:
        """Return the one resource that the scope names."""
        scopes = form["scope"].split()
        wanted = [scope for scope in scopes if scope not in SIGN_IN_SCOPES]
        if not wanted:
            raise Refusal(28002, scope=form["scope"])
        for scope in wanted:
            if not _SCOPE.fullmatch(scope) or scope.removesuffix("/.default").strip("/") in ("", ".default"):
                raise Refusal(70011, scope=scope)
            if not scope.endswith("/.default"):
                raise Refusal(1002012, scope=scope)
        if len(set(wanted)) > 1:
            raise Refusal(700022, scope=form["scope"])
        resource = wanted[0].removesuffix("/.default")
        if not self.registry.has_resource(resource):
            raise Refusal(500011, resource=resource, tenant=tenant.name)
        return resource

    def _authenticated(self, asked: Asked, app: App, tenant: Tenant, fault: Fault | None, now: datetime) -> str:
        """Return how the client proved to be who it says it is."""
        assertion, secret = asked.form.get("client_assertion"), asked.form.get("client_secret")
        if assertion and not secret:
            if asked.form.get("client_assertion_type") != ASSERTION_TYPE:
                raise Refusal(900144, parameter="client_assertion_type")
            unregistered = (fault.thumbprint or ANY) if fault and fault.kind == "unregistered" else None
            used = self._used if self.settings.single_use else None
            return Verifier(app, self._audiences(tenant), used, now, unregistered).verify(assertion)
        if not secret or assertion:
            raise Refusal(7000218)
        _check_secret(app, secret, now)
        return "secret"

    def _audiences(self, tenant: Tenant) -> set[str]:
        """Return what an assertion may be meant for: the token endpoint or the issuer, by name or GUID."""
        bases = [f"{self.url}/{identifier}" for identifier in (tenant.name, tenant.id)]
        return {f"{base}/{end}" for base in bases for end in ("oauth2/v2.0/token", "v2.0")}


def _check_secret(app: App, secret: str, now: datetime) -> None:
    """Refuse a secret that is not the app's, or no longer."""
    found = next((each for each in app.secrets if each.matches(secret)), None)
    if found is None:
        raise Refusal(7000215)
    if found.expires_at and found.expires_at <= now:
        raise Refusal(7000222)
