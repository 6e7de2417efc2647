"""Proxies: the way through, the password they ask for, and what they refuse."""

from __future__ import annotations

import base64
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from agent.errors import TransientError
from agent.network.connection import Proxy
from agent.network.transport import Call, HttpsTransport
from tests.network_helpers import Authority, Peer, Server, answering, proxy_script

if TYPE_CHECKING:
    import ssl

PASSWORD = "p@ss/wörd"
BASIC = "Basic " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
WITH_PASSWORD = "alice:p%40ss%2Fw%C3%B6rd@"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    return authority.server()


def ask(authority: Authority, proxy: str, url: str, times: int = 1) -> None:
    with contextlib.closing(HttpsTransport(authority.ca_file, proxy)) as pool:
        for _ in range(times):
            assert pool.request(Call(20), "POST", url, {}, b"assertion").status == 200


def refused(authority: Authority, proxy: str, url: str = "https://provider.test/token") -> TransientError:
    """Return the error of a request through a proxy, which shows neither password nor header."""
    with pytest.raises(TransientError) as caught:
        ask(authority, proxy, url)
    error = caught.value
    assert error.unreachable
    for text in (error.message, error.hint, repr(error), str(error.__cause__)):
        assert not any(secret in text for secret in (PASSWORD, WITH_PASSWORD, BASIC, "alice"))
    return error


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_tunnel_is_kept(authority: Authority, tls: ssl.SSLContext, host: str) -> None:
    """Requests go through one tunnel, made once; the proxy sees where to, and nothing else."""
    with Server(answering(), tls, host=host) as server, Server(proxy_script()) as proxy:
        ask(authority, f"http://{proxy.origin}", server.url, times=3)
    assert [request.target for request in proxy.requests] == [server.origin]
    assert proxy.requests[0].method == "CONNECT"
    assert proxy.requests[0].headers == {"host": server.origin}
    assert (server.accepted, len(server.requests)) == (1, 3)
    assert "proxy-authorization" not in server.requests[0].headers


def test_the_password_is_shown_to_the_proxy_only(authority: Authority, tls: ssl.SSLContext) -> None:
    """User and password of the URL, unquoted, open the proxy, and never reach the provider."""
    with Server(answering(), tls) as server, Server(proxy_script(BASIC)) as proxy:
        ask(authority, f"http://{WITH_PASSWORD}{proxy.origin}", server.url)
    assert proxy.requests[0].headers["proxy-authorization"] == BASIC
    assert "proxy-authorization" not in server.requests[0].headers
    assert BASIC not in repr(Proxy.parse(f"http://{WITH_PASSWORD}proxy"))


@pytest.mark.parametrize("user", ["", "bob:wrong@"])
def test_a_proxy_that_asks_who_we_are_is_named(authority: Authority, user: str) -> None:
    """HTTP status 407 says that the proxy wants user and password, and where they go."""
    with Server(proxy_script(BASIC)) as proxy:
        error = refused(authority, f"http://{user}{proxy.origin}")
    assert error.message == "no connection to provider.test: the proxy refuses with HTTP status 407"
    assert 'proxy = "http://user:password@host:port"' in error.hint


def test_a_proxy_that_forbids_is_named(authority: Authority) -> None:
    """Any other refusal names its status, but not the page that came with it."""
    refusal = b"HTTP/1.1 403 alice is not allowed\r\nContent-Length: 5\r\n\r\nalice"
    with Server(proxy_script(refusal=refusal)) as proxy:
        error = refused(authority, f"http://{WITH_PASSWORD}{proxy.origin}")
    assert error.message == "no connection to provider.test: the proxy refuses with HTTP status 403"
    assert error.hint == "ask whoever runs the proxy to allow CONNECT to provider.test"


def test_a_proxy_that_is_down_is_named(authority: Authority) -> None:
    """A proxy where nothing listens, that hangs up, or whose name nobody knows, is told from the provider."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = refused(authority, f"http://{WITH_PASSWORD}127.0.0.1:{port}")
    assert error.message == "no connection to provider.test through the proxy: Connection refused"
    with Server(lambda peer: peer.sock.close()) as proxy:
        error = refused(authority, f"http://{proxy.origin}")
    assert error.message.startswith("no connection to provider.test through the proxy: ")
    error = refused(authority, "http://no-such-proxy.invalid:3128")
    assert error.message.startswith("the proxy cannot be looked up: ")


def test_a_proxy_that_is_none_is_named(authority: Authority) -> None:
    """Something that does not speak HTTP is no proxy."""

    def script(peer: Peer) -> None:
        peer.send(b"220 smtp.example.com ready\r\n")
        peer.hang()

    with Server(script) as proxy:
        error = refused(authority, f"http://{proxy.origin}")
    assert error.message == "provider.test through the proxy: the proxy's answer is not HTTP"


def test_a_tunnel_that_leads_elsewhere_is_refused(authority: Authority, tls: ssl.SSLContext) -> None:
    """What is at the end of the tunnel must be the provider: the proxy cannot put itself in its place."""
    with Server(answering(), tls, host="127.0.0.2") as server, Server(proxy_script()) as proxy:
        error = refused(authority, f"http://{proxy.origin}", server.url)
    assert "does not show a trusted certificate" in error.message
    assert not server.requests


def test_the_usual_port_of_a_proxy() -> None:
    """A proxy without a port is asked on port 80, as for any http URL."""
    assert Proxy.parse("http://proxy").endpoint == ("proxy", 80)
    assert Proxy.parse("http://[::1]:3128").endpoint == ("::1", 3128)
