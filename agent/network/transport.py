"""HTTPS to identity providers: one pool of kept-alive connections per trust root and proxy.

Built on `http.client` rather than on a session library: a token costs one signature plus one round trip, and
the round trip is the half that a library makes three times as dear (measured: `tests/benchmarks`). What a
provider's client needs beyond that is small: a deadline for the whole exchange and a way to abort it (`call`),
answers bounded in size (`connection`), no redirects, nothing taken from the environment (`trust`).

A kept connection can end in the very moment it is used again. That is nobody's failure, but the request may have been
read, and its assertion may serve once only (`jti`, RFC 7523 3): sent again as it is, a strict provider would take it
for a replay. So the transport never sends anything twice; it says `DroppedError`, and whoever made the request makes
a new one.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from agent.errors import TransientError
from agent.network import trust
from agent.network.call import Call
from agent.network.connection import Connection, Endpoint, GarbageError, Proxy, ProxyError, Reply, connect

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Call", "DroppedError", "HttpsTransport", "Reply", "Transport", "unreachable"]

MAX_IDLE = 20.0
"""Seconds; load balancers and NATs drop idle connections silently, and a dropped one costs a whole attempt."""

_WRONG_TIME, _WRONG_NAME = {9, 10}, {62, 64}
"""OpenSSL's X509_V_ERR_…: CERT_NOT_YET_VALID, CERT_HAS_EXPIRED; HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH."""
_WRONG_PLACE = "is `authority` (or `oidc_issuer`) right, and no proxy answering in its place?"


class DroppedError(TransientError):
    """A kept connection ended before a byte of the answer: worth another request at once, made afresh."""


class Transport(Protocol):
    """What acquiring needs of the network; the second of the two seams for tests."""

    def request(
        self, call: Call, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        """Return the provider's answer, whatever its status.

        Raises:
            TransientError: there was none; ``unreachable`` is set.
        """


class HttpsTransport:
    """A pool of connections sharing one trust root and one proxy; safe to use from several threads."""

    def __init__(self, ca_file: Path | None = None, proxy: str | None = None) -> None:
        """Read the trust root, the system's own by default.

        Args:
            ca_file: PEM with the authorities to trust instead.
            proxy: ``http://[user:password@]host:port``; tunnelled by CONNECT (RFC 9110 9.3.6).

        Raises:
            OSError: the trust root cannot be read, or holds no certificate.
        """
        self._tls = trust.context(ca_file)
        self._proxy = Proxy.parse(proxy) if proxy else None
        self._idle: dict[Endpoint, deque[tuple[float, Connection]]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def request(
        self, call: Call, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        """Send one request over a kept or a new connection; see `Transport.request`.

        Raises:
            DroppedError: it was a kept one, and it ended before a byte of the answer came.
        """
        origin, target = _split(url)
        connection = self._take(origin) or self._connect(origin, call)
        try:
            reply = connection.exchange(call, method, target, headers, body)
        except OSError as error:
            raise self._failure(connection, origin, call, error) from error
        finally:
            self._give_back(origin, connection)
        return reply

    def close(self) -> None:
        """Close all idle connections; those in use close when they are done."""
        with self._lock:
            self._closed = True
            idle = [connection for kept in self._idle.values() for _, connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def _connect(self, origin: Endpoint, call: Call) -> Connection:
        try:
            return connect(origin, call, self._tls, self._proxy)
        except (OSError, UnicodeError) as error:
            raise self._explained(origin, call, error) from error

    def _explained(self, origin: Endpoint, call: Call, error: Exception) -> TransientError:
        shown = TimeoutError() if call.aborted else error  # what an abort does to a socket can look like anything
        return unreachable(origin, shown, proxied=self._proxy is not None)

    def _failure(self, connection: Connection, origin: Endpoint, call: Call, error: OSError) -> TransientError:
        """Return the error for an exchange that failed; if the connection had just ended, so did its siblings."""
        explained = self._explained(origin, call, error)
        gone = isinstance(error, ConnectionError | ssl.SSLError) and not call.aborted
        if not gone or connection.heard or not connection.answers:
            return explained
        self._drop(origin)
        return DroppedError(explained.message, hint=explained.hint, unreachable=True)

    def _take(self, origin: Endpoint) -> Connection | None:
        """Return a kept connection that is still good, closing those that are not."""
        while True:
            with self._lock:
                kept = self._idle.get(origin)
                if not kept:
                    return None
                since, connection = kept.pop()
            if time.monotonic() - since < MAX_IDLE and connection.is_quiet():
                return connection
            connection.close()

    def _give_back(self, origin: Endpoint, connection: Connection) -> None:
        """Keep a connection for the next token, if it can serve again; close those that nobody took for long."""
        now, old = time.monotonic(), []
        with self._lock:
            kept = self._idle.setdefault(origin, deque())
            if connection.reusable and not self._closed:
                kept.append((now, connection))
            else:
                old.append(connection)
            while kept and now - kept[0][0] >= MAX_IDLE:
                old.append(kept.popleft()[1])
        for each in old:
            each.close()

    def _drop(self, origin: Endpoint) -> None:
        """Close the idle connections to a provider that has just ended one."""
        with self._lock:
            kept = self._idle.pop(origin, deque())
        for _, connection in kept:
            connection.close()


def _split(url: str) -> tuple[Endpoint, str]:
    """Return where a URL leads, and what to ask for there."""
    parts = urlsplit(url)
    try:
        return Endpoint.of(parts), parts.path + (f"?{parts.query}" if parts.query else "")
    except ValueError as error:
        raise unreachable(ascii(parts.hostname), UnicodeError()) from error


def unreachable(origin: object, error: Exception, *, proxied: bool = False) -> TransientError:
    """Return what to tell an operator when no answer came."""
    message, hint = _explain(str(origin), error, " through the proxy" if proxied else "")
    return TransientError(message, hint=hint, unreachable=True)


def _explain(origin: str, error: Exception, via: str) -> tuple[str, str]:
    if isinstance(error, ssl.SSLError):
        return _explain_tls(origin, error, via)
    if isinstance(error, ProxyError):
        return _explain_refusal(origin, error.status)
    if isinstance(error, GarbageError):
        return f"{origin}{via}: {error}", _WRONG_PLACE
    if isinstance(error, socket.gaierror | UnicodeError):
        reason = getattr(error, "strerror", None) or "no name of a host"
        return f"{'the proxy' if via else origin} cannot be looked up: {reason}", "check the name, and DNS here"
    if isinstance(error, TimeoutError):
        return f"{origin} did not answer in time{via}", "check the route, a firewall, or raise `timeout`"
    reason = getattr(error, "strerror", None) or "it was closed before an answer came"
    return f"no connection to {origin}{via}: {reason}", "check network, firewall and `proxy`"


def _explain_tls(origin: str, error: ssl.SSLError, via: str) -> tuple[str, str]:
    """Say what OpenSSL has against the connection; above all, why a certificate is not trusted."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        reason = (error.reason or type(error).__name__).replace("_", " ").lower()
        return f"no TLS connection to {origin}{via}: {reason}", _WRONG_PLACE
    message = f"{origin} does not show a trusted certificate: {error.verify_message}"
    if error.verify_code in _WRONG_TIME:
        return message, "is this machine's clock right? If so, whoever runs the provider must renew its certificate"
    if error.verify_code in _WRONG_NAME:
        return message, _WRONG_PLACE
    return message, "a TLS-inspecting proxy or a private authority in between? name its root in `ca_file`"


def _explain_refusal(origin: str, status: int) -> tuple[str, str]:
    """Say why a proxy did not let us through."""
    message = f"no connection to {origin}: the proxy refuses with HTTP status {status}"
    if status == 407:  # noqa: PLR2004 - HTTP's own number
        return message, 'the proxy asks who we are: `proxy = "http://user:password@host:port"`'
    return message, f"ask whoever runs the proxy to allow CONNECT to {origin}"
