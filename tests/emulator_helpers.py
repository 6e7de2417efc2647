"""The emulator for tests: its real server in this process, or its core alone behind a fake transport.

``running()`` is for what must go over the wire; ``InProcessTransport`` is for virtual time, where nothing may wait.
"""

from __future__ import annotations

import functools
import tempfile
import threading
import uuid
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode, urlsplit

import jwt

from agent.emulator.admin import Admin
from agent.emulator.authority import open_directory
from agent.emulator.issuing import SigningKey
from agent.emulator.provider import Provider
from agent.emulator.registry import App, RegisteredCertificate, Registry, Secret
from agent.emulator.server import Emulator
from agent.emulator.settings import Settings
from agent.emulator.wire import Request
from agent.network.transport import Reply, unreachable
from tests.certificate_helpers import CLIENT_ID, NOW, Pair, pool_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from cryptography import x509

    from agent.emulator.journal import Entry
    from agent.network.transport import Call

TENANT = "contoso.onmicrosoft.com"
URL = "https://127.0.0.1:4430"
"""Where a provider without a server claims to be."""


class HasNow(Protocol):
    """As much of a clock as a provider needs."""

    def now(self) -> datetime:
        """Return the time."""


@functools.cache
def signing_key() -> SigningKey:
    """Return the key that signs the tokens of all providers in tests."""
    return SigningKey.new(pool_key(9))


@dataclass
class Handle:
    """What a test does with a provider, whether a server is around it or not.

    Attributes:
        provider: the core.
        ca_file: what its clients must trust; nonsense where there is no server.
    """

    provider: Provider
    ca_file: Path = Path("/nonexistent/ca.pem")
    tenant: str = TENANT

    @property
    def url(self) -> str:
        return self.provider.url

    @property
    def authority(self) -> str:
        """What a profile calls ``authority``."""
        return f"{self.url}/{self.tenant}"

    @property
    def admin(self) -> Admin:
        """The operations of the administration interface, without HTTP."""
        return Admin(self.provider)

    @property
    def requests(self) -> list[Entry]:
        """What was asked so far, oldest first."""
        return self.provider.journal.entries

    @property
    def token_requests(self) -> list[Entry]:
        """What was asked of the token endpoint so far."""
        return [entry for entry in self.requests if entry.endpoint == "token"]

    def register(
        self,
        client_id: str = CLIENT_ID,
        certificate: Pair | x509.Certificate | Path | None = None,
        *,
        secret: str | None = None,
        roles: tuple[str, ...] = (),
    ) -> None:
        """Add an app, or a further credential or role to one."""
        if isinstance(certificate, Pair):
            certificate = certificate.certificate
        if isinstance(certificate, Path):
            registered = [RegisteredCertificate.load(certificate.read_bytes())]
        else:
            registered = [RegisteredCertificate.of(certificate)] if certificate else []
        secrets = [Secret.of(secret)] if secret else []
        self.provider.registry.add(App(client_id, registered, secrets, roles=list(roles)))

    def unregister(self, client_id: str = CLIENT_ID) -> None:
        """Remove an app."""
        self.provider.registry.remove(client_id)

    def fault(self, kind: str, count: int | None = 1, **details: Any) -> None:
        """Append a fault to the script; ``count=None`` means until `recover`."""
        self.admin.add_faults({"kind": kind, "count": count, **details})

    def recover(self) -> None:
        """End all faults."""
        self.provider.script.clear()

    def settings(self, **values: Any) -> None:
        """Change settings, such as ``token_lifetime="12s"``."""
        self.admin.change_settings(values)


def in_process(
    token_lifetime: timedelta = timedelta(hours=1), tenants: tuple[str, ...] = (TENANT,), **settings: Any
) -> Handle:
    """Return a provider without a server."""
    chosen = replace(Settings(), token_lifetime=token_lifetime, **settings)
    return Handle(Provider(URL, signing_key(), Registry(tenants), chosen), tenant=tenants[0])


@contextmanager
def running(
    token_lifetime: timedelta = timedelta(hours=1), tenants: tuple[str, ...] = (TENANT,), **settings: Any
) -> Iterator[Handle]:
    """Run the real server, HTTPS on loopback, while the block runs."""
    chosen = replace(Settings(), token_lifetime=token_lifetime, **settings)
    with tempfile.TemporaryDirectory(prefix="token-agent-tests-") as name:
        directory = Path(name)
        (directory / "signing.pem").write_bytes(signing_key().pem)  # spares the making of one
        authority = open_directory(directory)
        with Emulator(authority.tls, authority.signing_key, registry=Registry(tenants), settings=chosen) as emulator:
            yield Handle(emulator.provider, authority.ca_file, tenants[0])


ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def assertion(
    pair: Pair,
    audience: str,
    now: datetime = NOW,
    *,
    alg: str = "PS256",
    header: Mapping[str, Any] | None = None,
    key: Any = None,
    **claims: Any,
) -> str:
    """Return a client assertion as the agent makes it, but for what is said otherwise; None leaves a claim out."""
    seconds = int(now.timestamp())
    usual: dict[str, Any] = {"aud": audience, "iss": CLIENT_ID, "sub": CLIENT_ID, "jti": str(uuid.uuid4())}
    usual |= {"iat": seconds, "exp": seconds + 600}
    chosen = {name: value for name, value in (usual | claims).items() if value is not None}
    named = {"x5t#S256": RegisteredCertificate.of(pair.certificate).x5t_s256} if header is None else dict(header)
    signer: Any = pair.key if key is None else key
    return jwt.encode(chosen, signer, alg, named)


def token_request(handle: Handle, *, tenant: str | None = None, **form: str | None) -> Request:
    """Return a token request; what is None is left out of the form."""
    usual: dict[str, str | None] = {
        "grant_type": "client_credentials",
        "client_id": CLIENT_ID,
        "scope": "api://x/.default",
        "client_assertion_type": ASSERTION_TYPE if form.get("client_assertion") else None,
    }
    body = urlencode({name: value for name, value in (usual | form).items() if value is not None}).encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return Request("POST", f"/{tenant or handle.tenant}/oauth2/v2.0/token", headers, body)


class InProcessTransport:
    """A `Transport` without a network: a provider answers at the clock's time.

    ``sent`` are the URLs that were asked, oldest first, the last 10,000. A latency, and the wait for an answer that
    never comes, pass through ``advance`` where there is one, and take no time at all otherwise.
    """

    def __init__(
        self,
        provider: Provider | Handle,
        clock: HasNow,
        *,
        advance: Callable[[timedelta], None] | None = None,
        timeout: timedelta = timedelta(seconds=20),
    ) -> None:
        """Args: the timeout is how long a client waits for an answer; a latency beyond it is one that never comes."""
        self._provider = provider.provider if isinstance(provider, Handle) else provider
        self._clock, self._advance, self._timeout = clock, advance, timeout
        self._lock = threading.Lock()  # the engine's worker threads ask at the same time; the core has no threads
        self.sent: deque[str] = deque(maxlen=10_000)

    def request(
        self, call: Call, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        """Ask the provider; see `agent.network.transport.Transport.request`."""
        call.remaining()
        self.sent.append(url)
        parts = urlsplit(url)
        if f"{parts.scheme}://{parts.netloc}" != self._provider.url:
            raise unreachable(parts.netloc, ConnectionRefusedError(111, "Connection refused"))
        lowered = {name.lower(): value for name, value in headers.items()}
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        with self._lock:
            answer = self._provider.answer(Request(method, path, lowered, body or b""), self._clock.now())
        if answer.manner == "drop":
            raise unreachable(parts.netloc, ConnectionResetError(104, "Connection reset by peer"))
        late = answer.manner == "hang" or answer.delay > self._timeout.total_seconds()
        if self._advance:
            self._advance(self._timeout if late else timedelta(seconds=answer.delay))
        if late:
            raise unreachable(parts.netloc, TimeoutError("timed out"))
        return Reply(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.body)

    def close(self) -> None:
        """Nothing is open."""
