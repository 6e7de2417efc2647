"""HTTPS for the provider and HTTP for its administration, on loopback, by the standard library alone.

Each connection has a thread, in which the TLS handshake happens as well, so that a client that says nothing keeps
nobody waiting. One lock makes the core as single-threaded as it was written; what waits (latency, hanging) waits
outside of it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
import threading
import time
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from agent.emulator.admin import Admin
from agent.emulator.provider import Provider
from agent.emulator.wire import Answer, Request, json_answer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

    from agent.emulator.issuing import SigningKey
    from agent.emulator.registry import Registry
    from agent.emulator.settings import Settings

MAX_BODY = 1 << 20
IDLE = 60.0
"""Seconds that a connection may be silent."""
HOSTS = {"127.0.0.1": socket.AF_INET, "localhost": socket.AF_INET, "::1": socket.AF_INET6}
"""Where an emulator may listen: it hands out tokens to whoever asks, and its administration has no password."""
_RESET = struct.pack("ii", 1, 0)


class _Handler(BaseHTTPRequestHandler):
    """Reads one request after the other and lets the server answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE
    server: _Server

    def handle_one_request(self) -> None:
        """Read a request, answer it; the base class would look for a method named after the verb."""
        self.raw_requestline = self.rfile.readline(65537)
        self.close_connection = True
        if not self.raw_requestline or not self.parse_request():
            return
        request = self._read()
        if isinstance(request, Answer):
            self.close_connection = True
            self._send(request)
            return
        answer = self.server.respond(request)
        if answer.delay and self._gone_within(answer.delay):
            self.close_connection = True
        elif answer.manner == "send":
            self._send(answer)
        else:
            self._leave_unanswered(answer)

    def _read(self) -> Request | Answer:
        """Return the request, or why it cannot be read."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers:
            return json_answer(411, {"error": "Length Required"})
        if not (length.isascii() and length.isdigit()):
            return json_answer(400, {"error": "Bad Request"})
        if int(length) > MAX_BODY:
            return json_answer(413, {"error": "Payload Too Large"})
        return Request(self.command, self.path, headers, self.rfile.read(int(length)))

    def _send(self, answer: Answer) -> None:
        """Write the answer as one piece, so that it is one packet."""
        lines = [f"HTTP/1.1 {answer.status} {_phrase(answer.status)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        lines += [f"Content-Length: {len(answer.body)}"] + ["Connection: close"] * self.close_connection
        body = b"" if self.command == "HEAD" else answer.body
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body)

    def _leave_unanswered(self, answer: Answer) -> None:
        """Hang until the client leaves, or cut the connection with a reset."""
        self.close_connection = True
        if answer.manner == "hang":
            self._gone_within(None)
            return
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _gone_within(self, seconds: float | None) -> bool:
        """Wait, and tell whether the client left (or the server ends) meanwhile."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing: the journal knows."""


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


class _Server(ThreadingHTTPServer):
    """A listening socket with a function behind it."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(self, host: str, port: int, respond: Callable[[Request], Answer], tls: ssl.SSLContext | None) -> None:
        self.address_family = HOSTS[host]
        self.respond = respond
        self._tls = tls
        self._open: set[socket.socket] = set()
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind, without the look-up of names that the base class does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    @property
    def netloc(self) -> str:
        """Host and port as a URL has them."""
        host, port = self.server_address[:2]
        return f"[{host!s}]:{port}" if self.address_family == socket.AF_INET6 else f"{host!s}:{port}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, in its own thread."""
        request.settimeout(IDLE)
        connection = self._tls.wrap_socket(request, server_side=True) if self._tls else request
        self._open.add(connection)
        try:
            super().finish_request(connection, client_address)
        finally:
            self._open.discard(connection)
            connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that leave; anything else is a bug and shows."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def hang_up(self) -> None:
        """Wake all threads that wait for their clients."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


class Emulator:
    """The provider and its administration, each on a port of its own; a context manager that serves meanwhile."""

    def __init__(  # noqa: PLR0913 - the options of the command
        self,
        tls: ssl.SSLContext,
        key: SigningKey,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        registry: Registry | None = None,
        settings: Settings | None = None,
        watch: Callable[[str], None] | None = None,
    ) -> None:
        """Listen, but serve nothing yet.

        Args:
            tls: of the provider.
            key: that signs its tokens.
            host: one of `HOSTS`.
            port: of the provider; 0: any that is free.
            registry: what is registered.
            settings: how it behaves.
            watch: called with a line about each request.

        Raises:
            OSError: the port is not free.
        """
        self._lock = threading.Lock()
        self._watch = watch
        self._https = _Server(host, port, self._provide, tls)
        self._http = _Server(host, 0, self._administer, None)
        self.url = f"https://{self._https.netloc}"
        self.admin_url = f"http://{self._http.netloc}"
        self.provider = Provider(self.url, key, registry, settings)
        self.admin = Admin(self.provider)

    def __enter__(self) -> Self:
        for server in (self._https, self._http):
            threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (self._https, self._http):
            server.shutdown()
            server.server_close()
            server.hang_up()

    def _provide(self, request: Request) -> Answer:
        began = time.perf_counter()
        with self._lock:
            answer = self.provider.answer(request, datetime.now(UTC))
            entry = self.provider.journal.last
        if self._watch:
            took = (time.perf_counter() - began) * 1000
            code = f"AADSTS{entry.code}" if entry.code else ""
            what = [entry.at, request.method, request.path, entry.client_id, entry.status or answer.manner, code]
            self._watch(f"{' '.join(str(part) for part in what if part)} {took:.1f} ms")
        return answer

    def _administer(self, request: Request) -> Answer:
        # A name that merely resolves to loopback is a web page's trick (DNS rebinding), not a client of ours.
        try:
            host = urlsplit(f"//{request.headers.get('host', '')}").hostname
        except ValueError:
            host = None
        if host not in HOSTS:
            return json_answer(403, {"error": "only by a loopback address"})
        with self._lock:
            return self.admin.answer(request)
