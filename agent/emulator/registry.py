"""What a portal would hold: tenants, apps, their certificates, secrets and trust, and resources."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

DEFAULT_TENANT = "contoso.onmicrosoft.com"
GRAPH = "https://graph.microsoft.com"
WELL_KNOWN = frozenset({GRAPH, "00000003-0000-0000-c000-000000000000"})
"""Resources that every tenant has: Microsoft Graph, by URI and by application id."""
MIN_BITS = 2048
"""What Entra asks of an RSA key (AADSTS50032)."""
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_DOMAIN = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s]+")


def is_guid(text: str) -> bool:
    """Tell whether a text is a GUID."""
    return _GUID.fullmatch(text) is not None


def is_tenant_name(text: str) -> bool:
    """Tell whether a text can be a tenant at all: a GUID or a domain."""
    return is_guid(text) or _DOMAIN.fullmatch(text) is not None


def derived_guid(*parts: str) -> str:
    """Return a GUID that is always the same for the same parts."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(("token-agent emulator", *parts))))


def base64url(raw: bytes) -> str:
    """Encode without padding (RFC 7515 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant; its GUID follows from its name, and both address it."""

    name: str

    @property
    def id(self) -> str:
        """The GUID."""
        return self.name.lower() if is_guid(self.name) else derived_guid("tenant", self.name.lower())


@dataclass(frozen=True, slots=True)
class RegisteredCertificate:
    """The public half of a credential, as it is uploaded."""

    certificate: x509.Certificate = field(repr=False)
    public_key: rsa.RSAPublicKey = field(repr=False)
    thumbprint: str
    x5t: str
    x5t_s256: str

    @classmethod
    def load(cls, data: bytes) -> RegisteredCertificate:
        """Read DER or PEM; of a PEM the first certificate counts, and a private key is not looked at.

        Raises:
            ValueError: there is no certificate that Entra would take.
        """
        pem = b"-----BEGIN" in data
        try:
            certificate = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
        except ValueError:
            raise ValueError("holds no certificate in PEM or DER") from None
        return cls.of(certificate)

    @classmethod
    def of(cls, certificate: x509.Certificate) -> RegisteredCertificate:
        """Register a certificate.

        Raises:
            ValueError: its key is not RSA, or too short.
        """
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size < MIN_BITS:
            raise ValueError(f"Entra wants an RSA key of at least {MIN_BITS} bits")
        sha1 = certificate.fingerprint(hashes.SHA1())  # noqa: S303 - the thumbprint as the portal shows it
        return cls(
            certificate, key, sha1.hex().upper(), base64url(sha1), base64url(certificate.fingerprint(hashes.SHA256()))
        )


@dataclass(frozen=True, slots=True)
class Secret:
    """A client secret; only its digest is kept."""

    digest: bytes = field(repr=False)
    expires_at: datetime | None = None

    @classmethod
    def of(cls, value: str, expires_at: datetime | None = None) -> Secret:
        """Register a secret."""
        return cls(hashlib.sha256(value.encode()).digest(), expires_at)

    def matches(self, value: str) -> bool:
        """Tell whether it is this one."""
        return hmac.compare_digest(self.digest, hashlib.sha256(value.encode()).digest())


@dataclass(frozen=True, slots=True)
class Trust:
    """A federated identity credential: whose assertions stand in for the app's own."""

    issuer: str
    subject: str
    public_key: rsa.RSAPublicKey = field(repr=False)
    audience: str = "api://AzureADTokenExchange"

    @staticmethod
    def key(pem: bytes) -> rsa.RSAPublicKey:
        """Read the issuer's public key, or the certificate that holds it.

        Raises:
            ValueError: it is neither, or not RSA.
        """
        if b"CERTIFICATE" in pem or b"-----BEGIN" not in pem:
            return RegisteredCertificate.load(pem).public_key
        key = load_pem_public_key(pem)
        if not isinstance(key, rsa.RSAPublicKey):
            raise ValueError("a federated issuer signs with RSA")  # noqa: TRY004 - content, not a type
        return key


@dataclass
class App:
    """An app registration; ``tenants`` holds the names it is limited to, none means all."""

    client_id: str
    certificates: list[RegisteredCertificate] = field(default_factory=list)
    secrets: list[Secret] = field(default_factory=list)
    trusts: list[Trust] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    tenants: set[str] = field(default_factory=set)

    def certificate(self, *, x5t: str | None, x5t_s256: str | None) -> RegisteredCertificate | None:
        """Find a certificate by the thumbprints of an assertion; where both are given, both must fit."""
        for each in self.certificates:
            if x5t_s256 in (None, each.x5t_s256) and x5t in (None, each.x5t):
                return each
        return None


class Registry:
    """Everything that is registered. Client ids are compared without regard to case, as GUIDs are."""

    def __init__(self, tenants: Iterable[str] = (DEFAULT_TENANT,), resources: Iterable[str] = ()) -> None:
        """Args: resources that exist besides Microsoft Graph; with none given, any URI or GUID does."""
        self.tenants: list[Tenant] = []
        self.resources = {resource.rstrip("/") for resource in resources}
        self._apps: dict[str, App] = {}
        for name in tenants:
            self.add_tenant(name)

    def add_tenant(self, name: str) -> Tenant:
        """Add a tenant, if it is not there yet.

        Raises:
            ValueError: it is neither a GUID nor a domain.
        """
        if not is_tenant_name(name):
            raise ValueError(f"{name!r} is neither a GUID nor a domain such as {DEFAULT_TENANT}")
        tenant = self.tenant(name)
        if tenant is None:
            tenant = Tenant(name)
            self.tenants.append(tenant)
        return tenant

    def tenant(self, identifier: str) -> Tenant | None:
        """Find a tenant by name or GUID."""
        wanted = identifier.lower()
        return next((each for each in self.tenants if wanted in (each.name.lower(), each.id)), None)

    def app(self, client_id: str, tenant: Tenant) -> App | None:
        """Find an app that is known in a tenant."""
        app = self._apps.get(client_id.lower())
        return app if app and (not app.tenants or tenant.name in app.tenants) else None

    def apps(self) -> list[App]:
        """Return all apps."""
        return list(self._apps.values())

    def add(self, addition: App) -> App:
        """Add an app, or what is new to one that is there already."""
        app = self._apps.setdefault(addition.client_id.lower(), App(addition.client_id))
        app.certificates += [each for each in addition.certificates if each not in app.certificates]
        app.secrets += [each for each in addition.secrets if each not in app.secrets]
        app.trusts += [each for each in addition.trusts if each not in app.trusts]
        app.roles += [each for each in addition.roles if each not in app.roles]
        app.tenants |= addition.tenants
        return app

    def remove(self, client_id: str) -> bool:
        """Remove an app, and tell whether it was there."""
        return self._apps.pop(client_id.lower(), None) is not None

    def has_resource(self, resource: str) -> bool:
        """Tell whether a resource exists; a slash at its end is forgiven, as Entra does."""
        bare = resource.rstrip("/")
        if bare in WELL_KNOWN or bare in self.resources:
            return True
        return not self.resources and (is_guid(bare) or _URI.fullmatch(bare) is not None)
