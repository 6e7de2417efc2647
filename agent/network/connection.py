"""One connection to a provider: dialled, secured and used within a deadline, and abortable at every stage.

`http.client` writes requests and reads answers; what waits is done here, since it knows neither a deadline for the
whole nor a way to stop.
"""

from __future__ import annotations

import base64
import errno
import http.client
import io
import os
import select
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from urllib.parse import SplitResult

    from typing_extensions import Buffer

    from agent.network.call import Call

HTTPS_PORT = 443
MAX_ANSWER = 1 << 20
"""Bytes, headers included; token answers are a few kilobytes."""


class GarbageError(OSError):
    """What came is no answer; the text says why, and never quotes it."""


class ProxyError(OSError):
    """The way ends at the proxy; ``status`` is its answer to CONNECT."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Endpoint(NamedTuple):
    """Host and port; the host is ASCII, and an IPv6 address has no brackets."""

    host: str
    port: int

    @classmethod
    def of(cls, parts: SplitResult, default_port: int = HTTPS_PORT) -> Endpoint:
        """Return where a URL leads.

        Raises:
            ValueError: the host is no name that DNS could know (UnicodeError), or the port is none.
        """
        host = parts.hostname
        if not host:
            raise ValueError("the URL names no host")
        return cls(host if host.isascii() else host.encode("idna").decode(), parts.port or default_port)

    @property
    def authority(self) -> str:
        """Host and port as in CONNECT (RFC 9110 9.3.6)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """As in a URL and in the Host header: without the usual port."""
        return self.authority.removesuffix(f":{HTTPS_PORT}")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A forward proxy, and what to show it (RFC 7617)."""

    endpoint: Endpoint
    authorization: str | None = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Read ``http://[user:password@]host[:port]``.

        Raises:
            ValueError: host or port are not what they should be.
        """
        parts = urlsplit(url)
        if parts.username is None:
            return cls(Endpoint.of(parts, http.client.HTTP_PORT), None)
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(Endpoint.of(parts, http.client.HTTP_PORT), credentials)


class Connection:
    """A TLS connection to a provider; one exchange at a time."""

    def __init__(self, sock: ssl.SSLSocket, origin: Endpoint) -> None:
        self._sock, self._origin = sock, origin
        self.answers = 0
        """How many exchanges were completed."""
        self.heard = False
        """Whether anything was received in the latest exchange."""
        self.reusable = False
        """Whether the latest exchange came to its end, and the provider keeps the connection open."""

    def exchange(self, call: Call, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """Send a request and read the answer whole.

        Raises:
            OSError: there was none; after that the connection can only be closed.
        """
        stream = _Stream(self._sock, call)
        self.reusable = False
        call.watch(self._sock)
        try:
            return self._converse(stream, method, target, {"Host": str(self._origin), **headers}, body)
        except ConnectionError:  # among them http.client's RemoteDisconnected
            raise
        except (http.client.HTTPException, ValueError, OverflowError):  # the last for the size of a chunk
            raise GarbageError("the answer is not HTTP") from None  # the cause would quote it
        finally:
            self.heard = stream.received > 0
            call.watch(None)

    def _converse(
        self, stream: _Stream, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> Reply:
        speaker = http.client.HTTPConnection(*self._origin)
        speaker.sock = stream
        speaker.request(method, target, body, dict(headers))
        response = speaker.getresponse()
        content = response.read(MAX_ANSWER + 1)
        if response.status < http.HTTPStatus.OK or response.length:
            raise http.client.HTTPException("an interim answer, or one that breaks off")
        self.reusable = not response.will_close
        self.answers += 1
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def is_quiet(self) -> bool:
        """Tell whether an idle connection is still good: it is open, and there is nothing to read (a stray answer)."""
        if self._sock.pending():
            return False
        self._sock.settimeout(0)
        try:
            socket.socket.recv(self._sock, 1, socket.MSG_PEEK)  # below TLS, which refuses flags
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close it; harmless when it is closed."""
        self._sock.close()


def connect(origin: Endpoint, call: Call, tls: ssl.SSLContext, proxy: Proxy | None = None) -> Connection:
    """Open a connection, through the proxy if there is one (RFC 9110 9.3.6).

    Raises:
        OSError: it cannot be opened; ProxyError if it is the proxy that refuses.
    """
    return secure(reach(origin, call, proxy), origin, call, tls)


def reach(origin: Endpoint, call: Call, proxy: Proxy | None = None) -> socket.socket:
    """Open the way to a provider, still without TLS; the call watches it.

    Raises:
        OSError: as `connect`.
    """
    sock = _dial(proxy.endpoint if proxy else origin, call)
    try:
        if proxy:
            _tunnel(sock, origin, proxy.authorization, call)
    except BaseException:
        call.watch(None)
        sock.close()
        raise
    return sock


def secure(sock: socket.socket, origin: Endpoint, call: Call, tls: ssl.SSLContext) -> Connection:
    """Do the TLS handshake on what `reach` opened; the socket is closed if that fails.

    Raises:
        OSError: the certificate is not trusted, or what is there does not speak TLS.
    """
    try:
        sock = wrapped = tls.wrap_socket(sock, server_hostname=origin.host, do_handshake_on_connect=False)
        call.watch(wrapped)
        wrapped.settimeout(call.remaining())
        wrapped.do_handshake()
    except BaseException:
        call.watch(None)
        sock.close()
        raise
    call.watch(None)
    return Connection(wrapped, origin)


def _dial(endpoint: Endpoint, call: Call) -> socket.socket:
    """Connect to the first address that lets us; each gets its share of the time, so that a dead one leaves some."""
    addresses = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    failure = OSError(errno.EADDRNOTAVAIL, "no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        share = call.remaining() / (len(addresses) - number)
        try:
            return _dial_address(socket.socket(family, kind, protocol), address, share, call)
        except OSError as error:
            failure = error
    raise failure


def _dial_address(sock: socket.socket, address: object, seconds: float, call: Call) -> socket.socket:
    try:
        sock.setblocking(False)
        result = sock.connect_ex(address)  # type: ignore[arg-type]  # what getaddrinfo returned
        call.watch(sock)  # not sooner: shutting a socket that does not connect yet would go unnoticed
        _settle(sock, result, seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        call.watch(None)
        sock.close()
        raise
    return sock


def _settle(sock: socket.socket, result: int, seconds: float) -> None:
    """Wait for what became of `connect_ex`."""
    if result == errno.EINPROGRESS:
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        if not poll.poll(seconds * 1000):
            raise TimeoutError
        result = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if result:
        raise OSError(result, os.strerror(result))


def _tunnel(sock: socket.socket, origin: Endpoint, authorization: str | None, call: Call) -> None:
    """Ask a proxy for a way through; it sees where to, and nothing of what follows."""
    stream = _Stream(sock, call)
    shown = f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
    stream.sendall(f"CONNECT {origin.authority} HTTP/1.1\r\nHost: {origin.authority}\r\n{shown}\r\n".encode())
    response = http.client.HTTPResponse(stream, method="CONNECT")  # type: ignore[arg-type]
    try:
        response.begin()
    except (http.client.HTTPException, ValueError) as error:
        if isinstance(error, ConnectionError):
            raise
        raise GarbageError("the proxy's answer is not HTTP") from None
    if not http.HTTPStatus.OK <= response.status < http.HTTPStatus.MULTIPLE_CHOICES:
        raise ProxyError(response.status)


class _Stream(io.RawIOBase):
    """What `http.client` takes for a socket: every wait ends at the call's deadline, and the answer has a bound."""

    def __init__(self, sock: socket.socket, call: Call) -> None:
        self._sock, self._call = sock, call
        self.received = 0

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._sock.settimeout(self._call.remaining())
            rest = rest[self._sock.send(rest) :]

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        self._sock.settimeout(self._call.remaining())
        count = self._sock.recv_into(buffer)
        if not count and self._call.aborted:  # else an answer that ends with its connection would look whole
            raise TimeoutError
        self.received += count
        if self.received > MAX_ANSWER:
            raise GarbageError(f"the answer is larger than {MAX_ANSWER} bytes")
        return count

    def close(self) -> None:
        """`http.client` closes what it has read; the connection goes on."""
