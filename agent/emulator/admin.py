"""The interface that registers apps, orders faults and tells what was asked: JSON in, JSON out, still without a socket.

==========  =====================  =====================================================================
``GET``     ``/``                  what is registered, set and still to go wrong
``POST``    ``/apps``              add an app, or certificates, secrets, roles, trust to one
``DELETE``  ``/apps/CLIENT_ID``    remove an app
``POST``    ``/tenants``           add a tenant: ``{"name": "fabrikam.com"}``
``POST``    ``/faults``            append a fault, or a list of them, to the script
``GET``     ``/faults``            what is still to go wrong
``DELETE``  ``/faults``            end all faults
``GET``     ``/requests``          counters and the last 1000 requests
``DELETE``  ``/requests``          forget them
``POST``    ``/settings``          change ``token_lifetime`` and the like
``GET``     ``/settings``          what is set
==========  =====================  =====================================================================
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from agent.emulator import faults
from agent.emulator.registry import App, RegisteredCertificate, Secret, Trust
from agent.emulator.settings import changed
from agent.emulator.wire import json_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.emulator.provider import Provider
    from agent.emulator.wire import Answer, Request

_APP_KEYS = ("client_id", "certificates", "secrets", "roles", "federated", "tenants")


class Admin:
    """Changes a provider; every mistake is a `ValueError` that names the key."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._actions: dict[tuple[str, str], Callable[[Any], Any]] = {
            ("GET", ""): lambda _: self.overview(),
            ("POST", "apps"): self.add_app,
            ("POST", "tenants"): self.add_tenant,
            ("POST", "faults"): self.add_faults,
            ("GET", "faults"): lambda _: self.faults(),
            ("DELETE", "faults"): lambda _: self.clear_faults(),
            ("GET", "requests"): lambda _: self.provider.journal.document(),
            ("DELETE", "requests"): lambda _: self.provider.journal.clear(),
            ("POST", "settings"): self.change_settings,
            ("GET", "settings"): lambda _: self.provider.settings.document(),
        }

    def answer(self, request: Request) -> Answer:
        """Do what a request asks; 400 with the reason where it makes no sense."""
        segments = [unquote(part) for part in request.segments]
        if request.method == "DELETE" and len(segments) == 2 and segments[0] == "apps":  # noqa: PLR2004 - apps, id
            return self._removed(segments[1])
        action = self._actions.get((request.method, "/".join(segments)))
        if action is None:
            return json_answer(404, {"error": f"no {request.method} {request.path} here; see token-agent emulator -h"})
        # A web page can make a browser send forms and text here, but not JSON.
        if request.method == "POST" and not request.headers.get("content-type", "").startswith("application/json"):
            return json_answer(415, {"error": "send JSON, with Content-Type: application/json"})
        try:
            body = json.loads(request.body) if request.method == "POST" else None
            return json_answer(200, action(body) or {})
        except json.JSONDecodeError as error:
            return json_answer(400, {"error": f"not JSON: {error}"})
        except (ValueError, RecursionError) as error:
            return json_answer(400, {"error": str(error)})

    def _removed(self, client_id: str) -> Answer:
        if self.provider.registry.remove(client_id):
            return json_answer(200, {})
        return json_answer(404, {"error": f"no app {client_id}"})

    def overview(self) -> dict[str, Any]:
        """Return everything that is public about the provider's state."""
        registry = self.provider.registry
        return {
            "url": self.provider.url,
            "tenants": [{"name": each.name, "id": each.id} for each in registry.tenants],
            "apps": [_described(app) for app in registry.apps()],
            "resources": sorted(registry.resources),
            "settings": self.provider.settings.document(),
            **self.faults(),
        }

    def add_app(self, body: Any) -> dict[str, Any]:
        """Register an app, or add to one that is registered."""
        values = _object(body, "an app", _APP_KEYS)
        client_id = values.get("client_id")
        if not isinstance(client_id, str) or not client_id:
            raise ValueError("client_id is missing")
        tenants = set(_texts(values, "tenants"))
        names = {each.name for each in self.provider.registry.tenants}
        if unknown := tenants - names:
            raise ValueError(f"tenants: {min(unknown)!r} is not a tenant here; add it first")
        app = App(
            client_id,
            certificates=[certificate(each) for each in _texts(values, "certificates")],
            secrets=[_secret(each) for each in _list(values, "secrets")],
            trusts=[_trust(each) for each in _list(values, "federated")],
            roles=_texts(values, "roles"),
            tenants=tenants,
        )
        return _described(self.provider.registry.add(app))

    def add_tenant(self, body: Any) -> dict[str, Any]:
        """Add a tenant; apps without tenants of their own are known there at once."""
        name = _object(body, "a tenant", ("name",)).get("name")
        tenant = self.provider.registry.add_tenant(name if isinstance(name, str) else "")
        return {"name": tenant.name, "id": tenant.id}

    def add_faults(self, body: Any) -> dict[str, Any]:
        """Append one fault or several to the script; with a mistake in any of them, none is."""
        steps = body if isinstance(body, list) else [body]
        self.provider.script.add(*[faults.parse(_object(step, "a fault")) for step in steps])
        return self.faults()

    def faults(self) -> dict[str, Any]:
        """Return what is still to go wrong."""
        steps = [asdict(step) for step in self.provider.script.steps]
        return {"faults": [{key: value for key, value in step.items() if value is not None} for step in steps]}

    def clear_faults(self) -> None:
        """End all faults."""
        self.provider.script.clear()

    def change_settings(self, body: Any) -> dict[str, Any]:
        """Change some settings and return all."""
        self.provider.settings = changed(self.provider.settings, _object(body, "settings"))
        return self.provider.settings.document()


def certificate(source: str) -> RegisteredCertificate:
    """Return the certificate in a PEM text or in the file at a path.

    Raises:
        ValueError: there is none that Entra would take.
    """
    if "-----BEGIN" in source:
        return RegisteredCertificate.load(source.encode())
    try:
        return RegisteredCertificate.load(Path(source).read_bytes())
    except OSError as error:
        raise ValueError(f"{source}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _secret(value: Any) -> Secret:
    """Return a secret: a text, or an object with ``value`` and ``expires_at``."""
    if isinstance(value, str) and value:
        return Secret.of(value)
    if not isinstance(value, dict) or not isinstance(value.get("value"), str) or set(value) - {"value", "expires_at"}:
        raise ValueError('a secret is a text, or {"value": ..., "expires_at": ...}')
    try:
        expires_at = datetime.fromisoformat(value["expires_at"]) if "expires_at" in value else None
    except (TypeError, ValueError):
        raise ValueError("expires_at of a secret is a time such as 2027-01-31T12:00:00Z") from None
    return Secret.of(value["value"], expires_at.replace(tzinfo=expires_at.tzinfo or UTC) if expires_at else None)


def _trust(value: Any) -> Trust:
    """Return a federated credential; ``certificate`` is a PEM text or a path."""
    fields = ("issuer", "subject", "audience", "certificate")
    values = _object(value, "a federated credential", fields)
    wrong = [name for name in fields if name in values and not isinstance(values[name], str)]
    missing = [name for name in ("issuer", "subject", "certificate") if name not in values]
    if wrong or missing:
        raise ValueError(f"{(wrong + missing)[0]} of a federated credential must be a text")
    key = certificate(values["certificate"]).public_key
    audience = values.get("audience", "api://AzureADTokenExchange")
    return Trust(values["issuer"], values["subject"], key, audience)


def _described(app: App) -> dict[str, Any]:
    return {
        "client_id": app.client_id,
        "certificates": [each.thumbprint for each in app.certificates],
        "secrets": len(app.secrets),
        "roles": list(app.roles),
        "federated": [{"issuer": t.issuer, "subject": t.subject, "audience": t.audience} for t in app.trusts],
        "tenants": sorted(app.tenants),
    }


def _object(value: Any, what: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a JSON object")  # noqa: TRY004 - content, not a type
    if known and (unknown := set(value) - set(known)):
        raise ValueError(f"unknown key {min(unknown)!r} in {what}; known are {', '.join(known)}")
    return value


def _list(values: dict[str, Any], key: str) -> list[Any]:
    value = values.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list")  # noqa: TRY004 - content, not a type
    return value


def _texts(values: dict[str, Any], key: str) -> list[str]:
    texts = _list(values, key)
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"{key} must be a list of texts")
    return texts
