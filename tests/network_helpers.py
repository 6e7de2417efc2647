"""A network for tests: a certificate authority, and servers on loopback that do byte for byte what a script says.

A script is a function that is handed a `Peer` for each connection, in a thread of its own. That the connection ends
is no failure of a script; anything else that it raises fails the test.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DAY = timedelta(days=1)
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def general_names(names: tuple[str, ...]) -> x509.SubjectAlternativeName:
    """Return names and addresses as a certificate holds them."""
    return x509.SubjectAlternativeName(
        [x509.DNSName(n) if n[-1].isalpha() else x509.IPAddress(ip_address(n)) for n in names]
    )


class Authority:
    """A certificate authority; ``ca_file`` is its certificate.

    Args of the constructor: ``parent`` signs it if given; ``lax`` makes it as some TLS-inspecting proxies do: its
    constraints not marked as critical, no key identifiers.
    """

    def __init__(
        self, folder: Path, name: str = "Test CA", *, parent: Authority | None = None, lax: bool = False
    ) -> None:
        self.folder, self.name, self.lax = folder, name, lax
        self.key = ec.generate_private_key(ec.SECP256R1())
        signer, issuer = (parent.key, parent.name) if parent else (self.key, name)
        builder = self._builder(name, issuer, self.key, -DAY, DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=not lax
        )
        if not lax:
            kinds = (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
            )
            usage = x509.KeyUsage(
                **dict.fromkeys(kinds, False),
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            )
            builder = builder.add_extension(usage, critical=True)
        self.certificate = builder.sign(signer, hashes.SHA256())
        self.pem = self.certificate.public_bytes(Encoding.PEM)
        self.ca_file = folder / f"{name.replace(' ', '-')}.pem"
        self.ca_file.write_bytes(self.pem)

    def _builder(
        self, subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, begin: timedelta, end: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        subject_name, issuer_name = (
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (subject, issuer)
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject_name)
            .issuer_name(issuer_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin)
            .not_valid_after(now + end)
        )
        if self.lax:
            return builder
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)

    def server(
        self,
        names: tuple[str, ...] = LOOPBACK,
        *,
        begin: timedelta = -DAY,
        end: timedelta = DAY,
        chain: bytes = b"",
    ) -> ssl.SSLContext:
        """Return what a server with a certificate of this authority needs."""
        pem = self.server_pem(names, begin=begin, end=end) + chain
        path = self.folder / f"server-{os.urandom(4).hex()}.pem"
        path.write_bytes(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def server_pem(self, names: tuple[str, ...] = LOOPBACK, *, begin: timedelta = -DAY, end: timedelta = DAY) -> bytes:
        """Return a server's key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(names[0], self.name, key, begin, end)
        builder = builder.add_extension(general_names(names), critical=False)
        if not self.lax:
            identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
            builder = builder.add_extension(identifier, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate


@dataclass(frozen=True)
class Request:
    """An HTTP request as it came; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Peer:
    """A server's end of one connection."""

    sock: socket.socket
    server: Server
    number: int
    buffer: bytearray = field(default_factory=bytearray)

    def secure(self, context: ssl.SSLContext) -> None:
        """Do the TLS handshake."""
        self.sock = context.wrap_socket(self.sock, server_side=True)
        self.server.sockets.append(self.sock)

    def request(self) -> Request | None:
        """Read one request; None if the client has closed the connection."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        length = int(headers.get("content-length", 0))
        while len(self.buffer) < length:
            self.buffer += self.sock.recv(1 << 16) or b"".join(self._ended())
        body = bytes(self.buffer[:length])
        del self.buffer[:length]
        method, target, _ = first.split(" ")
        request = Request(method, target, headers, body)
        self.server.requests.append(request)
        return request

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self.buffer:
            received = self.sock.recv(1 << 16)
            if not received:
                return None
            self.buffer += received
        head, _, rest = bytes(self.buffer).partition(mark)
        self.buffer[:] = rest
        return head

    def _ended(self) -> Iterator[bytes]:
        raise ConnectionResetError("the client closed the connection within a request")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def hang(self) -> None:
        """Say that this point is reached, and do nothing more until the client, or the test, ends the connection."""
        self.server.reached.set()
        while self.sock.recv(1 << 16):
            pass

    def trickle(self, data: bytes) -> None:
        """Send slowly, for ever."""
        self.server.reached.set()
        while not self.server.closing.wait(0.01):
            self.send(data)

    def abort(self) -> None:
        """End the connection with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()


class Server:
    """Listens on loopback until the ``with`` block ends.

    Attributes: ``accepted`` connections so far; ``requests`` of all of them, in the order they came; ``reached`` is
    set by `Peer.hang`.
    """

    def __init__(
        self, script: Callable[[Peer], None], tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.script, self.tls, self.host = script, tls, host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, 0), family=family)
        self.port: int = self.listener.getsockname()[1]
        self.accepted = 0
        self.requests: list[Request] = []
        self.reached, self.closing = threading.Event(), threading.Event()
        self.sockets: list[socket.socket] = []
        self.threads: list[threading.Thread] = []

    @property
    def origin(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"https://{self.origin}/token"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.threads[0].join(10)  # nothing is accepted any more
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()
        for sock in self.sockets:
            sock.close()

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.accepted += 1
                self.sockets.append(sock)
                self._start(self._serve, Peer(sock, self, self.accepted))

    def _serve(self, peer: Peer) -> None:
        with contextlib.suppress(OSError):  # the connection ended: for the client to judge
            if self.tls:
                peer.secure(self.tls)
            self.script(peer)
        peer.sock.close()


def answer(body: bytes | str = b"{}", status: int = 200, **headers: str) -> bytes:
    """Return an HTTP answer; underscores in header names stand for hyphens."""
    content = body.encode() if isinstance(body, str) else body
    fields = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + content


def answering(*answers: bytes) -> Callable[[Peer], None]:
    """Return a script: each request is answered, the last answer serves for ever."""
    left = list(answers or [answer()])

    def script(peer: Peer) -> None:
        while peer.request():
            peer.send(left.pop(0) if len(left) > 1 else left[0])

    return script


def proxy_script(authorization: str | None = None, refusal: bytes = b"") -> Callable[[Peer], None]:
    """Return the script of a CONNECT proxy that wants to see some authorization, or that refuses."""

    def script(peer: Peer) -> None:
        request = peer.request()
        if request is None:
            return
        if refusal or (authorization and request.headers.get("proxy-authorization") != authorization):
            peer.send(refusal or b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        host, _, port = request.target.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10) as onward:
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            peer.server._start(_pump, onward, peer.sock)
            _pump(peer.sock, onward)

    return script


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on bytes until either end is closed."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for sock in (source, sink):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def deaf_port(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port where connecting neither succeeds nor fails: its queue is full, and nobody accepts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.bind((host, port))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            filler.setblocking(False)
            filler.connect_ex(address)
        yield address[1]


def open_files() -> int:
    """Return how many file descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))
