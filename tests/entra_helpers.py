"""A provider for tests of single acquisitions: whatever answer a test wants, over real HTTPS on loopback.

The emulator is for what Entra does; this is for what no provider should do.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import jwt

from agent.clock import SystemClock
from agent.credentials import store as credentials
from agent.network import entra
from agent.network.transport import Call, HttpsTransport
from tests.certificate_helpers import CLIENT_ID, DAY, Pair, make_certificate, written
from tests.certificate_helpers import profile as any_profile
from tests.network_helpers import Authority, Peer, Server, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.clock import Clock
    from agent.config.model import Profile
    from agent.credentials.store import Credential
    from agent.network.transport import Transport
    from tests.network_helpers import Request

PAIR: Pair = make_certificate(not_before=datetime.now(UTC) - DAY, not_after=datetime.now(UTC) + DAY)
TOKEN = "opaque-token"
SUCCESS: dict[str, Any] = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}


@dataclass
class Provider:
    """What a scripted provider says, to be changed while it runs.

    ``token`` and ``discovery`` are sent as JSON, or as they are if they are bytes: whole HTTP answers.
    """

    server: Server
    ca_file: Path
    token: Any = field(default_factory=lambda: dict(SUCCESS))
    discovery: Any = None
    path: str = "/contoso.onmicrosoft.com"

    @property
    def url(self) -> str:
        """The authority, or the issuer."""
        return f"https://{self.server.origin}{self.path}"

    @property
    def document(self) -> dict[str, Any]:
        """The discovery document as it should be."""
        base = f"https://{self.server.origin}{self.path.rstrip('/')}"
        return {
            "issuer": self.url,
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "authorization_endpoint": f"{base}/authorize",
        }

    @property
    def gets(self) -> list[Request]:
        return [request for request in self.server.requests if request.method == "GET"]

    @property
    def posts(self) -> list[Request]:
        return [request for request in self.server.requests if request.method == "POST"]

    @property
    def forms(self) -> list[dict[str, str]]:
        """The token requests."""
        return [dict(parse_qsl(request.body.decode(), strict_parsing=True)) for request in self.posts]

    @property
    def assertions(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Header and claims of the assertions that came; their signatures are right."""
        texts = [form["client_assertion"] for form in self.forms]
        checks = {"verify_aud": False, "verify_exp": False, "verify_iat": False}
        claims = [jwt.decode(text, PAIR.public_key, ["PS256"], options=checks) for text in texts]  # type: ignore[arg-type]
        return [(jwt.get_unverified_header(text), each) for text, each in zip(texts, claims, strict=True)]

    def script(self, peer: Peer) -> None:
        while request := peer.request():
            if request.method == "POST":
                content = self.token
            else:
                content = self.document if self.discovery is None else self.discovery
            peer.send(content if isinstance(content, bytes) else answer(json.dumps(content)))


@contextlib.contextmanager
def provider(authority: Authority, script: Callable[[Peer, Provider], None] | None = None) -> Iterator[Provider]:
    """Run a provider that says what the test wants; a script replaces its manners."""
    with Server(lambda peer: script(peer, here) if script else here.script(peer), authority.server()) as server:
        here = Provider(server, authority.ca_file)
        yield here


@dataclass
class Client:
    """An agent's side: what one profile needs to acquire."""

    profile: Profile
    credential: Credential
    transport: Transport
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        self.discovery = entra.Discovery(self.clock)

    def acquire(self, timeout: float = 20.0) -> entra.Acquired:
        return entra.acquire(self.profile, self.credential, self.transport, Call(timeout), self.discovery, self.clock)


@contextlib.contextmanager
def client(where: Provider | str, ca_file: Path | None, folder: Path, **keys: Any) -> Iterator[Client]:
    """Return a client with a certificate, or with what ``keys`` of a profile say."""
    authority = {} if "oidc_issuer" in keys else {"authority": where if isinstance(where, str) else where.url}
    if not {"federated", "client_secret_file", "certificate"} & keys.keys():
        keys["certificate"] = {"path": str(written(folder / "app.pem", PAIR.pem))}
    fields = {"tenant": None, "ca_file": ca_file, **authority}
    named = {key: keys.pop(key) for key in ("oidc_issuer", "scopes") if key in keys}
    profile = any_profile(**keys).model_copy(update=fields | named)
    with contextlib.closing(HttpsTransport(ca_file)) as transport:
        yield Client(profile, credentials.load(profile, datetime.now(UTC)), transport)


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def x5t_s256(pair: Pair) -> str:
    """The thumbprint as it stands in an assertion's header."""
    return unpadded(hashlib.sha256(pair.der).digest())


__all__ = ["CLIENT_ID", "PAIR", "SUCCESS", "TOKEN", "Client", "Provider", "client", "provider", "x5t_s256"]
