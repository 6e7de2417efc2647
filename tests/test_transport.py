"""HTTPS to providers: connections kept and replaced, garbage refused, nothing followed, nothing leaked."""

from __future__ import annotations

import gc
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import TransientError
from agent.network import connection, transport
from agent.network.transport import Call, DroppedError, HttpsTransport, Reply
from tests.network_helpers import Authority, Peer, Server, answer, answering, open_files

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

SECRET = "eyJ-the-assertion"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    return authority.server()


@pytest.fixture
def https(authority: Authority) -> Iterator[HttpsTransport]:
    pool = HttpsTransport(authority.ca_file)
    yield pool
    pool.close()


def ask(pool: HttpsTransport, url: str, timeout: float = 20.0) -> Reply:
    """Send a token request."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return pool.request(Call(timeout), "POST", url, form, f"client_assertion={SECRET}".encode())


def refused(pool: HttpsTransport, url: str, timeout: float = 20.0) -> TransientError:
    """Return the error of a request that got no answer; it never shows what was sent, and has a hint."""
    with pytest.raises(TransientError) as caught:
        ask(pool, url, timeout)
    error = caught.value
    assert error.unreachable
    assert error.hint
    for shown in (str(error), error.hint, repr(error), str(error.__cause__)):
        assert SECRET not in shown
    assert error.message.isprintable()
    return error


def test_the_request_reaches_the_provider_whole(https: HttpsTransport, tls: ssl.SSLContext) -> None:
    """Method, target with query, headers and body arrive; the answer's header names are in lower case."""
    with Server(answering(answer(b'{"a": 1}', X_Ms_Request_Id="7")), tls) as server:
        reply = https.request(Call(20), "POST", f"{server.url}?x=1&y=%20", {"Accept": "application/json"}, b"a=b")
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("POST", "/token?x=1&y=%20", b"a=b")
    assert request.headers["host"] == server.origin
    assert request.headers["accept"] == "application/json"
    assert request.headers["content-length"] == "3"
    assert reply.status == 200
    assert reply.body == b'{"a": 1}'
    assert reply.headers["x-ms-request-id"] == "7"


def test_connections_are_kept(https: HttpsTransport, tls: ssl.SSLContext) -> None:
    """Ten requests one after the other need one connection."""
    with Server(answering(), tls) as server:
        for _ in range(10):
            assert ask(https, server.url).status == 200
        assert server.accepted == 1
        assert len(server.requests) == 10


def test_as_many_connections_as_requests_at_once(https: HttpsTransport, tls: ssl.SSLContext) -> None:
    """Requests at the same time do not wait for one another, nor mix; later ones use the same connections."""
    together = threading.Barrier(4, timeout=20)

    def script(peer: Peer) -> None:
        while request := peer.request():
            together.wait()
            peer.send(answer(request.target))

    with Server(script, tls) as server, ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            urls = [f"{server.url}/{number}" for number in range(4)]
            replies = threads.map(lambda url: ask(https, url), urls)
            assert [reply.body.decode() for reply in replies] == [f"/token/{number}" for number in range(4)]
        assert server.accepted == 4


def closing_after(*answers: bytes) -> Callable[[Peer], None]:
    """Return a script that closes each connection after its answers, and says so."""

    def script(peer: Peer) -> None:
        for each in answers:
            peer.request()
            peer.send(each)
        peer.sock.close()
        peer.server.reached.set()

    return script


def test_a_connection_that_ended_meanwhile_is_replaced(https: HttpsTransport, tls: ssl.SSLContext) -> None:
    """A provider may close kept connections at any time; the next request does not notice."""
    with Server(closing_after(answer()), tls) as server:
        for _ in range(3):
            server.reached.clear()
            assert ask(https, server.url).status == 200
            assert server.reached.wait(10)
        assert server.accepted == 3


def test_an_unasked_answer_is_never_taken_for_ours(https: HttpsTransport, tls: ssl.SSLContext) -> None:
    """A connection on which more came than was asked for is not used again: the token would be somebody else's."""
    stray = answer(b"stray") + answer(b"x" * 9000)  # more than one buffer, in one TLS record

    def script(peer: Peer) -> None:
        while request := peer.request():
            peer.send(answer(request.target) + stray)

    with Server(script, tls) as server:
        for number in range(3):
            assert ask(https, f"{server.url}/{number}").body.decode() == f"/token/{number}"
        assert server.accepted == 3


@pytest.mark.parametrize(
    "last",
    [
        answer(Connection="close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
    ],
    ids=["connection: close", "HTTP/1.0", "no length"],
)
def test_a_connection_the_provider_gives_up_is_not_kept(
    https: HttpsTransport, tls: ssl.SSLContext, last: bytes
) -> None:
    """An answer that ends the connection is read whole, and the next request opens another one."""
    with Server(closing_after(last), tls) as server:
        assert ask(https, server.url).body == b"{}"
        assert not any(https._idle.values())
        assert ask(https, server.url).body == b"{}"
        assert server.accepted == 2


def test_idle_connections_are_not_kept_for_long(
    https: HttpsTransport, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After MAX_IDLE a connection is closed rather than used: what is in between may have forgotten it."""
    with Server(answering(), tls) as server:
        ask(https, server.url)
        monkeypatch.setattr(transport, "MAX_IDLE", 0.0)
        ask(https, server.url)
        assert server.accepted == 2
        assert not any(https._idle.values())


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_a_kept_connection_that_ends_in_use_is_told_apart(
    https: HttpsTransport, tls: ssl.SSLContext, *, reset: bool
) -> None:
    """Ended before a byte of the answer, a kept connection is a `DroppedError`; nothing was sent twice, the next works.

    Its idle siblings are closed as well: they have most likely ended with it.
    """

    def script(peer: Peer) -> None:
        together.wait()
        peer.request()
        peer.send(answer())
        together.wait()
        if peer.request() and peer.server.accepted == 2:
            (peer.abort if reset else peer.sock.close)()

    with Server(script, tls) as server, ThreadPoolExecutor(2) as threads:
        together = threading.Barrier(2, timeout=20)
        list(threads.map(lambda _: ask(https, server.url), range(2)))
        error = refused(https, server.url)
        assert isinstance(error, DroppedError)
        assert len(server.requests) == 3
        assert not any(https._idle.values())
    with Server(answering(), tls) as server:
        assert ask(https, server.url).status == 200


def test_a_new_connection_that_ends_is_a_failure(https: HttpsTransport, tls: ssl.SSLContext) -> None:
    """Ended without an answer, a connection that was just made says something about the provider: no second try."""

    def script(peer: Peer) -> None:
        peer.request()

    with Server(script, tls) as server:
        error = refused(https, server.url)
    assert not isinstance(error, DroppedError)
    assert error.message == f"no connection to {server.origin}: it was closed before an answer came"
    assert server.accepted == 1


@pytest.mark.parametrize(
    ("rest", "message"),
    [(b"", "{}: the answer is not HTTP"), (b"no TLS any more", "no TLS connection to {}: wrong version number")],
    ids=["closed", "broken"],
)
def test_an_answer_that_breaks_off_is_a_failure(
    https: HttpsTransport, tls: ssl.SSLContext, rest: bytes, message: str
) -> None:
    """Half an answer on a kept connection was begun: it is no `DroppedError`, and never taken for a whole one."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(answer())
        peer.request()
        peer.send(answer(b"x" * 100)[:-50])
        socket.socket.sendall(peer.sock, rest)  # below TLS

    with Server(script, tls) as server:
        ask(https, server.url)
        error = refused(https, server.url)
    assert not isinstance(error, DroppedError)
    assert error.message == message.format(server.origin)


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + end


def test_chunked_answers_are_put_together(https: HttpsTransport, tls: ssl.SSLContext) -> None:
    """A chunked answer, trailer included, is one body, and the connection goes on."""
    first = chunked(b'{"a":', b" 1}", end=b"0\r\nX-Trailer: 1\r\n\r\n")
    with Server(answering(first, answer(b"2")), tls) as server:
        assert ask(https, server.url).body == b'{"a": 1}'
        assert ask(https, server.url).body == b"2"
        assert server.accepted == 1


def test_continue_is_passed_over(https: HttpsTransport, tls: ssl.SSLContext) -> None:
    """An interim answer 100 is not the answer."""
    with Server(answering(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"1")), tls) as server:
        assert ask(https, server.url).body == b"1"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(https: HttpsTransport, tls: ssl.SSLContext, status: int) -> None:
    """A redirect is an answer like any other: the credential goes nowhere else."""
    with Server(answering(answer(status=status, Location="/elsewhere")), tls) as server:
        assert ask(https, server.url).status == status
        assert len(server.requests) == 1


MEBIBYTE = 1 << 20
ENDLESS = {
    "length": answer(b"x" * (MEBIBYTE + 1)),
    "announced": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n" + b"x" * (2 * MEBIBYTE),
    "no length": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (2 * MEBIBYTE),
    "chunked": chunked(*[b"x" * 65536] * 20),
    "huge chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + b"x" * (2 * MEBIBYTE),
    "negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n" + b"x" * (2 * MEBIBYTE),
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 50000,
    "trailer": chunked(b"x", end=b"0\r\n" + b"X-Trailer: 1\r\n" * 100000),
}


@pytest.mark.parametrize("content", ENDLESS.values(), ids=ENDLESS.keys())
def test_answers_have_a_bound(https: HttpsTransport, tls: ssl.SSLContext, content: bytes) -> None:
    """More than a mebibyte is no answer of a provider, however it is wrapped up; it is refused while it comes."""
    with Server(answering(content), tls) as server:
        error = refused(https, server.url)
    assert error.message == f"{server.origin}: the answer is larger than {MEBIBYTE} bytes"


def test_a_large_answer_is_still_an_answer(https: HttpsTransport, tls: ssl.SSLContext) -> None:
    """Just below the bound an answer comes through whole."""
    with Server(answering(answer(b"x" * (MEBIBYTE - 1000))), tls) as server:
        assert len(ask(https, server.url).body) == MEBIBYTE - 1000


GARBAGE = {
    "text": b"220 smtp.example.com ready\r\n" * 3,
    "binary": bytes(range(256)) * 4,
    "version": b"HTTP/2 200 OK\r\n\r\n",
    "status": b"HTTP/1.1 abc OK\r\n\r\n",
    "status line": b"HTTP/1.1 200 " + b"x" * 70000,
    "header line": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000,
    "headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    "chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n12345\r\n",
    "chunk broken off": chunked(b"abc", end=b"ff\r\nabc"),
    "interim only": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "echo": SECRET.encode() + b"\r\n\r\n",
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_no_answer(https: HttpsTransport, tls: ssl.SSLContext, content: bytes) -> None:
    """What is not HTTP is the provider's trouble, told without quoting it."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(content)

    with Server(script, tls) as server:
        error = refused(https, server.url)
    assert error.message == f"{server.origin}: the answer is not HTTP"


def test_a_server_without_tls_is_named_as_such(https: HttpsTransport) -> None:
    """Plain HTTP where TLS should be says so, and nothing was sent in the clear."""
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        seen.append(peer.sock.recv(1 << 16))
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Server(script) as server:
        error = refused(https, server.url)
    assert error.message == f"no TLS connection to {server.origin}: wrong version number"
    assert SECRET.encode() not in seen[0]


def test_a_closed_port_is_named(https: HttpsTransport) -> None:
    """A refused connection names where to and why, never what was to be sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = refused(https, f"https://user:{SECRET}@127.0.0.1:{port}/{SECRET}?code={SECRET}")
    assert error.message == f"no connection to 127.0.0.1:{port}: Connection refused"


@pytest.mark.parametrize(
    "host", ["no-such-host.invalid", "a..b", f"{'x' * 64}.test", f"{'ä' * 64}.test", "", "h:99999"]
)
def test_a_name_that_nobody_knows_is_named(https: HttpsTransport, host: str) -> None:
    """A host that cannot be looked up, for whichever reason, is a failure of the network, not of the agent."""
    assert " cannot be looked up: " in refused(https, f"https://{host}/token").message


def test_an_ipv6_authority(https: HttpsTransport, tls: ssl.SSLContext) -> None:
    """An IPv6 address as host works, keeps its brackets, and is verified against the certificate."""
    with Server(answering(), tls, host="::1") as server:
        assert ask(https, server.url).status == 200
    assert server.requests[0].headers["host"] == f"[::1]:{server.port}"


def test_the_usual_port_is_implied() -> None:
    """Host header and messages leave out 443, and CONNECT names it."""
    endpoint = connection.Endpoint("login.microsoftonline.com", 443)
    assert str(endpoint) == "login.microsoftonline.com"
    assert endpoint.authority == "login.microsoftonline.com:443"
    assert str(connection.Endpoint("::1", 443)) == "[::1]"


def test_nothing_is_left_open(authority: Authority, tls: ssl.SSLContext) -> None:
    """After successes, failures of every kind and `close`, there are as many open files as before."""
    gc.collect()
    before = open_files()
    behaviours: dict[str, Any] = {
        "answers": answering(),
        "closes": closing_after(answer()),
        "drops": lambda peer: peer.abort(),
        "garbage": lambda peer: peer.send(b"garbage\r\n"),
        "endless": answering(ENDLESS["no length"]),
        "hangs": Peer.hang,
    }
    pool = HttpsTransport(authority.ca_file)
    for script in behaviours.values():
        with Server(script, tls) as server:
            for _ in range(2):
                try:
                    ask(pool, server.url, timeout=0.2)
                except TransientError:
                    continue
    stranger = HttpsTransport()
    with Server(answering(), tls) as server:
        refused(stranger, server.url)
    pool.close()
    stranger.close()
    gc.collect()
    assert open_files() == before


def test_a_closed_pool_keeps_nothing(authority: Authority, tls: ssl.SSLContext) -> None:
    """An exchange that outlives `close` gets its answer, and its connection is not kept."""
    pool = HttpsTransport(authority.ca_file)

    def script(peer: Peer) -> None:
        peer.request()
        pool.close()
        peer.send(answer())
        peer.hang()

    with Server(script, tls) as server:
        assert ask(pool, server.url).status == 200
        assert not any(pool._idle.values())
