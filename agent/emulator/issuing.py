"""What the provider issues: access tokens, the keys that verify them, and the documents that lead there.

The shape is one that serves both kinds of readers: issuer and version are those of discovery (v2.0), the audience is
the resource's URI and the client is named twice (``appid`` and ``azp``), as in v1.0 and v2.0 tokens.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from agent.emulator.registry import base64url, derived_guid

if TYPE_CHECKING:
    from agent.emulator.registry import App, Tenant

AUTHENTICATED_BY = {"none": "0", "secret": "1", "certificate": "2", "federated": "2"}
"""``appidacr`` and ``azpacr``: how the client proved itself (learn.microsoft.com, "Access token claims")."""
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The key that signs access tokens, and its certificate, by which it is named."""

    key: rsa.RSAPrivateKey = field(repr=False)
    certificate: bytes = field(repr=False)

    @classmethod
    def new(cls, key: rsa.RSAPrivateKey | None = None) -> SigningKey:
        """Make one, with a new key unless there is one; valid for as long as anybody may look at it."""
        key = key or rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "token-agent emulator signing key")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(_EPOCH)
            .not_valid_after(_EPOCH + timedelta(days=36500))
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate.public_bytes(Encoding.DER))

    @classmethod
    def from_pem(cls, pem: bytes) -> SigningKey:
        """Read the key that `pem` wrote.

        Raises:
            ValueError: it is not that.
        """
        try:
            key = load_pem_private_key(pem, None)
        except TypeError as error:
            raise ValueError(str(error)) from None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError("not an RSA key")  # noqa: TRY004 - content, not a type
        return cls.new(key)

    @property
    def pem(self) -> bytes:
        """The key alone; the certificate follows from it."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def key_id(self) -> str:
        """``kid`` and ``x5t``, which are the same with Entra."""
        return base64url(hashlib.sha1(self.certificate).digest())  # noqa: S324 - a name, as x5t has it

    def jwks(self, issuer: str) -> dict[str, Any]:
        """Return the public key as a set of one (RFC 7517)."""
        numbers = self.key.public_key().public_numbers()
        return {
            "keys": [
                {
                    "kty": "RSA",
                    "use": "sig",
                    "alg": "RS256",
                    "kid": self.key_id,
                    "x5t": self.key_id,
                    "n": base64url(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
                    "e": base64url(numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8, "big")),
                    "x5c": [base64.b64encode(self.certificate).decode()],
                    "issuer": issuer,
                }
            ]
        }

    def sign(self, claims: dict[str, Any]) -> str:
        """Return a JWT."""
        return jwt.encode(claims, self.key, "RS256", {"kid": self.key_id, "x5t": self.key_id})


def access_claims(  # noqa: PLR0913 - all that a token tells
    issuer: str, tenant: Tenant, app: App, resource: str, *, how: str, now: datetime, lifetime: timedelta
) -> dict[str, Any]:
    """Return the claims of an app-only access token; no two are alike."""
    principal = derived_guid("principal", tenant.id, app.client_id.lower())
    seconds = int(now.timestamp())
    claims = {
        "aud": resource,
        "iss": issuer,
        "iat": seconds,
        "nbf": seconds,
        "exp": seconds + int(lifetime.total_seconds()),
        "aio": base64url(secrets.token_bytes(24)),
        "appid": app.client_id,
        "appidacr": AUTHENTICATED_BY[how],
        "azp": app.client_id,
        "azpacr": AUTHENTICATED_BY[how],
        "idp": f"https://sts.windows.net/{tenant.id}/",
        "idtyp": "app",
        "oid": principal,
        "rh": f"1.{base64url(hashlib.sha256(principal.encode()).digest())}.",
        "sub": principal,
        "tid": tenant.id,
        "uti": base64url(uuid.uuid4().bytes),
        "ver": "2.0",
        "xms_tcdt": int(_EPOCH.timestamp()),
    }
    return claims | ({"roles": list(app.roles)} if app.roles else {})


def discovery(base: str, tenant_id: str) -> dict[str, Any]:
    """Return the OpenID discovery document of a tenant (OpenID Connect Discovery 1.0, 3), as far as it applies."""
    return {
        "token_endpoint": f"{base}/{tenant_id}/oauth2/v2.0/token",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "jwks_uri": f"{base}/{tenant_id}/discovery/v2.0/keys",
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": f"{base}/{tenant_id}/v2.0",
        "request_uri_parameter_supported": False,
        "authorization_endpoint": f"{base}/{tenant_id}/oauth2/v2.0/authorize",
        "tenant_region_scope": "EU",
        "cloud_instance_name": "microsoftonline.com",
        "cloud_graph_host_name": "graph.windows.net",
        "msgraph_host": "graph.microsoft.com",
        "rbac_url": "https://pas.windows.net",
    }


def instance_discovery(base: str, host: str, tenant_id: str) -> dict[str, Any]:
    """Return what /common/discovery/instance says: this host is its own cloud."""
    return {
        "tenant_discovery_endpoint": f"{base}/{tenant_id}/v2.0/.well-known/openid-configuration",
        "api-version": "1.1",
        "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
    }
