"""Deadline and abort: no exchange outlasts its time, and none outlasts whoever gave it up, whatever it waits for."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.errors import TransientError
from agent.network.transport import Call, DroppedError, HttpsTransport
from tests.network_helpers import Authority, Peer, Server, answer, answering, deaf_port

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

AT_ONCE = 0.5
"""Seconds; in truth a few milliseconds, but this machine may be busy."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    return authority.server()


def hang_after_request(peer: Peer) -> None:
    peer.request()
    peer.hang()


def hang_in(content: bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(content)
        peer.hang()

    return script


def hang_after_hello(peer: Peer) -> None:
    peer.sock.recv(1)
    peer.hang()


def trickle(begin: bytes, again: bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(begin)
        peer.trickle(again)

    return script


def never_reads(peer: Peer) -> None:
    peer.server.reached.set()
    peer.server.closing.wait(20)


HANGS: dict[str, tuple[Callable[[Peer], None], bool]] = {
    "TLS handshake": (hang_after_hello, False),
    "status line": (hang_after_request, True),
    "headers": (hang_in(b"HTTP/1.1 200 OK\r\nDate:"), True),
    "body": (hang_in(answer(b"x" * 10)[:-1]), True),
    "chunk": (hang_in(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), True),
    "trickled headers": (trickle(b"HTTP/1.1 200 OK\r\nX: ", b"x"), True),
    "trickled interim": (trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), True),
    "trickled body": (trickle(b"HTTP/1.1 200 OK\r\n\r\n", b"x"), True),
    "request": (never_reads, True),
}


@pytest.fixture(params=["connect", "CONNECT", *HANGS])
def stage(
    request: pytest.FixtureRequest, authority: Authority, tls: ssl.SSLContext
) -> Iterator[tuple[HttpsTransport, str, Callable[[], bool]]]:
    """For each stage at which a provider can hang: a transport, a URL that hangs, and whether it got that far."""
    with contextlib.ExitStack() as stack:
        if request.param == "connect":
            port = stack.enter_context(deaf_port())
            yield HttpsTransport(authority.ca_file), f"https://127.0.0.1:{port}/", lambda: connecting(port)
        elif request.param == "CONNECT":
            proxy = stack.enter_context(Server(Peer.hang))
            pool = HttpsTransport(authority.ca_file, f"http://{proxy.origin}")
            yield pool, "https://provider.test/", lambda: proxy.reached.wait(0.01)
        else:
            script, secure = HANGS[request.param]
            server = stack.enter_context(Server(script, tls if secure else None))
            yield HttpsTransport(authority.ca_file), server.url, lambda: server.reached.wait(0.01)


def connecting(port: int) -> bool:
    """Tell whether somebody of our own still tries to connect, beyond those that fill the queue (see /proc/net/tcp)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    syn_sent = [line for line in lines if line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "02"]
    return len(syn_sent) > 3


def exchange(pool: HttpsTransport, call: Call, url: str) -> TransientError:
    """Return the error of a large request."""
    with pytest.raises(TransientError) as caught:
        pool.request(call, "POST", url, {}, b"x" * (16 << 20))
    return caught.value


def test_the_deadline_holds(stage: tuple[HttpsTransport, str, Callable[[], bool]]) -> None:
    """Wherever the provider hangs or dawdles, the whole exchange ends at the deadline, as a time-out."""
    pool, url, _ = stage
    began = time.monotonic()
    error = exchange(pool, Call(0.2), url)
    assert 0.2 <= time.monotonic() - began < 0.2 + AT_ONCE
    assert "did not answer in time" in error.message
    assert error.unreachable
    assert not isinstance(error, DroppedError)


def test_an_abort_ends_the_exchange_at_once(stage: tuple[HttpsTransport, str, Callable[[], bool]]) -> None:
    """Wherever it waits, an exchange that its owner gives up ends at once, and so does its thread."""
    pool, url, reached = stage
    call, errors = Call(50), []
    thread = threading.Thread(target=lambda: errors.append(exchange(pool, call, url)))
    thread.start()
    while not reached():
        assert thread.is_alive()
    call.abort()
    thread.join(AT_ONCE)
    assert not thread.is_alive()
    assert "did not answer in time" in errors[0].message
    assert not isinstance(errors[0], DroppedError)


def test_an_abort_just_before_a_wait_is_not_lost() -> None:
    """A socket that is named after the abort is shut all the same: its thread does not wait."""
    call, (near, far) = Call(50), socket.socketpair()
    call.abort()
    with near, far:
        call.watch(near)
        assert near.recv(1) == b""
    with pytest.raises(TimeoutError):
        call.remaining()


def test_aborted_beforehand_nothing_begins(authority: Authority, tls: ssl.SSLContext) -> None:
    """A call that was given up before it began does not reach the provider."""
    pool, call = HttpsTransport(authority.ca_file), Call(50)
    call.abort()
    with Server(answering(), tls) as server:
        exchange(pool, call, server.url)
        assert server.accepted == 0


def test_aborting_on_a_kept_connection(authority: Authority, tls: ssl.SSLContext) -> None:
    """An abort in the midst of a second exchange is a time-out, not a connection that ended by itself."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(answer())
        peer.request()
        peer.hang()

    pool, call = HttpsTransport(authority.ca_file), Call(50)
    with Server(script, tls) as server, contextlib.closing(pool):
        pool.request(Call(20), "GET", server.url, {})

        def abort() -> None:
            server.reached.wait(20)
            call.abort()

        aborter = threading.Thread(target=abort)
        aborter.start()
        with pytest.raises(TransientError, match="did not answer in time") as caught:
            pool.request(call, "GET", server.url, {})
        aborter.join()
    assert not isinstance(caught.value, DroppedError)


def test_an_abort_afterwards_does_no_harm(authority: Authority, tls: ssl.SSLContext) -> None:
    """Once an exchange is over, aborting it leaves its connection to the next one."""
    pool, call = HttpsTransport(authority.ca_file), Call(50)
    with Server(answering(), tls) as server, contextlib.closing(pool):
        pool.request(call, "GET", server.url, {})
        call.abort()
        assert pool.request(Call(20), "GET", server.url, {}).status == 200
        assert server.accepted == 1


def test_a_new_deadline_for_each_exchange_on_a_connection(authority: Authority, tls: ssl.SSLContext) -> None:
    """The time-out of one call does not stick to the connection it leaves behind."""
    done = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(answer())
        peer.request()
        done.wait(0.3)
        peer.send(answer())

    pool = HttpsTransport(authority.ca_file)
    with Server(script, tls) as server, contextlib.closing(pool):
        pool.request(Call(0.25), "GET", server.url, {})
        assert pool.request(Call(20), "GET", server.url, {}).status == 200


def test_a_generous_deadline_is_not_inherited(authority: Authority, tls: ssl.SSLContext) -> None:
    """On a kept connection the new call's deadline holds from the first byte that is sent."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(answer())
        never_reads(peer)

    pool = HttpsTransport(authority.ca_file)
    with Server(script, tls) as server, contextlib.closing(pool):
        pool.request(Call(50), "GET", server.url, {})
        began = time.monotonic()
        exchange(pool, Call(0.2), server.url)
        assert 0.2 <= time.monotonic() - began < 0.2 + AT_ONCE


@pytest.fixture
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for DNS: ``localhost`` is 127.0.0.2 first, then 127.0.0.1."""

    def look_up(_: str, port: int, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.usefixtures("two_addresses")
def test_a_dead_address_leaves_time_for_the_others(authority: Authority, tls: ssl.SSLContext) -> None:
    """Of several addresses each gets its share of the time: the second one answers though the first is silent."""
    pool = HttpsTransport(authority.ca_file)
    with Server(answering(), tls) as server, deaf_port("127.0.0.2", server.port), contextlib.closing(pool):
        began = time.monotonic()
        assert pool.request(Call(0.6), "GET", f"https://localhost:{server.port}/", {}).status == 200
        assert 0.3 <= time.monotonic() - began < 0.6


@pytest.mark.usefixtures("two_addresses")
def test_a_closed_address_leaves_room_for_the_others(authority: Authority, tls: ssl.SSLContext) -> None:
    """An address where nobody listens costs nothing; the next one answers."""
    pool = HttpsTransport(authority.ca_file)
    with Server(answering(), tls) as server, contextlib.closing(pool):
        assert pool.request(Call(20), "GET", f"https://localhost:{server.port}/", {}).status == 200


@pytest.mark.usefixtures("two_addresses")
def test_all_addresses_share_one_deadline(authority: Authority) -> None:
    """With every address silent the deadline is still the deadline."""
    with deaf_port() as port, deaf_port("127.0.0.2", port):
        began = time.monotonic()
        exchange(HttpsTransport(authority.ca_file), Call(0.3), f"https://localhost:{port}/")
        assert 0.3 <= time.monotonic() - began < 0.3 + AT_ONCE


def test_a_pause_ends_with_the_call() -> None:
    """Pausing returns at once when the time does not suffice, or when the call is given up."""
    began = time.monotonic()
    assert not Call(1).pause(2)
    assert Call(20).pause(0.01)
    call = Call(20)
    threading.Timer(0.05, call.abort).start()
    assert not call.pause(10)
    assert time.monotonic() - began < 2
