"""Answers of a provider that means harm, over real HTTPS: an error of ours each, soon, and in little memory."""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
import tracemalloc
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agent import tokens
from agent.config.model import Expect
from agent.errors import AcquisitionError, RejectedError, TransientError
from agent.network.connection import MAX_ANSWER
from agent.network.entra import LONGEST_ID
from agent.network.granted import LONGEST_TOKEN, MAX_LIFETIME
from tests.entra_helpers import SUCCESS, Client, client, provider
from tests.fuzz.target import CANARY, clean, clean_error
from tests.network_helpers import Authority, Peer, answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOON = 15.0
"""Seconds, on a busy machine; the deadline of an acquisition is longer."""
MEMORY = 40 << 20
"""Bytes at the most for one answer: its bound of 1 MiB, twenty times over in Python, and what reads it."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def failure(here: Client, timeout: float = 20.0) -> AcquisitionError:
    """Return what an acquisition fails with: shown on one line, soon, and in little memory."""
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(AcquisitionError) as caught:
            here.acquire(timeout)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < SOON
    clean_error(caught.value)
    clean(f"{caught.value.code} {caught.value.correlation_id}")
    return caught.value


# ---- HTTP

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = json.dumps(SUCCESS).encode()
WIRES: dict[str, bytes] = {
    "chunk of less than nothing": CHUNKED + b"-5\r\n{}\r\n",
    "chunk beyond all numbers": CHUNKED + b"-1" + b"f" * 60 + b"\r\n{}\r\n",
    "chunk as large as a disk": CHUNKED + b"ffffffffffff\r\n" + BODY,
    "chunk without a number": CHUNKED + b"zz\r\n{}\r\n",
    "chunks that end early": CHUNKED + b"5\r\n{",
    "chunk line without end": CHUNKED + b"0" * 100_000,
    "a gigabyte announced": HEAD + b"Content-Length: 1073741824\r\n\r\n" + BODY,
    "length of less than nothing": HEAD + b"Content-Length: -1\r\n\r\n[" + b"\r\n",
    "header without end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
    "interim answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
    "status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "no HTTP": b"\x00\xff" * 1000 + b"\r\n\r\n",
    "gzip": HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n" + gzip.compress(BODY),
    "gzip bomb": HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n" + gzip.compress(b"[" * (100 << 20)),
}


@pytest.mark.parametrize("name", WIRES)
def test_what_is_no_answer(authority: Authority, tmp_path: Path, name: str) -> None:
    """Bytes that are no HTTP, or no end of it, are trouble of the provider's; the size of a chunk once was a bug."""

    def script(peer: Peer, _: object) -> None:
        while request := peer.request():
            if request.method == "GET":
                peer.send(answer(json.dumps(there.document)))
            else:
                peer.send(WIRES[name])
                return

    with provider(authority, script) as there, client(there, authority.ca_file, tmp_path) as here:
        assert isinstance(failure(here), TransientError)


@pytest.mark.parametrize(
    "chunk",
    [b"x" * (1 << 16), b"X: y\r\n" * 1000, b"10000\r\n" + b"[" * 0x10000 + b"\r\n"],
    ids=["body", "headers", "chunks"],
)
def test_more_than_anybody_reads(authority: Authority, tmp_path: Path, chunk: bytes) -> None:
    """Who sends for ever is cut off after a megabyte."""
    sent: list[int] = []

    def script(peer: Peer, _: object) -> None:
        while request := peer.request():
            if request.method == "GET":
                peer.send(answer(json.dumps(there.document)))
                continue
            begin = {b"X": b"HTTP/1.1 200 OK\r\n", b"1": CHUNKED}.get(chunk[:1], HEAD + b"\r\n")
            peer.send(begin)
            while sum(sent) < 100 << 20:
                peer.send(chunk)
                sent.append(len(chunk))

    with provider(authority, script) as there, client(there, authority.ca_file, tmp_path) as here:
        error = failure(here)
    assert isinstance(error, TransientError)
    assert sum(sent) < 50 * MAX_ANSWER


def test_a_byte_at_a_time(authority: Authority, tmp_path: Path) -> None:
    """Who sends a byte now and then does not get more time than the acquisition has."""

    def script(peer: Peer, _: object) -> None:
        while request := peer.request():
            if request.method == "GET":
                peer.send(answer(json.dumps(there.document)))
            else:
                peer.send(HEAD + b"Content-Length: 1000000\r\n\r\n")
                peer.trickle(b" ")

    with provider(authority, script) as there, client(there, authority.ca_file, tmp_path) as here:
        assert "did not answer in time" in failure(here, 2.0).message


# ---- JSON

BOMBS = {
    "lists in lists": b"[" * 500_000,
    "objects in objects": b'{"a":' * 150_000,
    "closed": b"[" * 100_000 + b"]" * 100_000,
    "empty lists": b'{"x": [' + b"[]," * 300_000 + b"[]]}",
    "empty objects": b'{"x": [' + b"{}," * 300_000 + b"{}]}",
    "many keys": b"{" + b",".join(b'"%x":0' % number for number in range(90_000)) + b"}",
    "numbers": b'{"x": [' + b"1.5," * 240_000 + b"1]}",
    "a number without end": b'{"expires_in": ' + b"9" * 900_000 + b"}",
    "not a number": b'{"access_token": NaN, "expires_in": Infinity}',
    "UTF-16": json.dumps(SUCCESS).encode("utf-16"),
    "half a character": b'{"access_token": "\\ud800", "expires_in": 3600}',
    "not UTF-8": b'{"access_token": "\xff", "expires_in": 3600}',
}


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("name", BOMBS)
def test_what_costs_memory(authority: Authority, tmp_path: Path, name: str, status: int) -> None:
    """JSON that takes twenty times its size in memory, or has no bottom, is no answer; with any status."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = answer(BOMBS[name], status)
        if (name, status) == ("UTF-16", 200):
            assert here.acquire().token.secret == SUCCESS["access_token"]  # which `json` reads, and why not
            return
        failure(here)
        there.token = dict(SUCCESS)
        assert here.acquire().token.secret == SUCCESS["access_token"]


def test_the_last_of_two_keys_counts(authority: Authority, tmp_path: Path) -> None:
    """Of a key that comes twice the last one counts, with whatever is wrong with it."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = answer('{"access_token": "a", "access_token": 5, "expires_in": 3600}')
        assert isinstance(failure(here), TransientError)


def unsigned(claims: str) -> str:
    """Return a JWT with these claims, as text of JSON."""
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in ("{}", claims, "x"))


CLAIMS = (
    f'{{"exp": {"9" * 400}, "iat": 1.5}}', '{"exp": 1e999, "iat": 1}', '{"exp": 1e999, "iat": 1e999}',
    '{"exp": [1], "iat": 1}', '{"exp": "x", "iat": 0}', '{"exp": -5, "iat": -10}', '{"exp": true, "iat": false}',
    "[]", "5", "[" * 5000, '{"exp": ' + "9" * 5000 + "}", '{"exp": null, "iat": null}',
)  # fmt: skip


@pytest.mark.parametrize("claims", CLAIMS)
def test_lifetimes_that_claims_do_not_tell(authority: Authority, tmp_path: Path, claims: str) -> None:
    """Where `expires_in` is missing and the token's own times are nonsense, there is no token; one kind was a bug."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = {"access_token": unsigned(claims), "token_type": "Bearer"}
        assert "how long" in failure(here).message


LIVES: tuple[tuple[Any, int | None], ...] = (
    (3600, 3600), ("3600", 3600), (3600.9, 3600), (1e300, MAX_LIFETIME), (10**300, MAX_LIFETIME),
    ("9" * 4000, MAX_LIFETIME),
    (-1, None), (0, None), ("-5", None), ("", None), ("1e3", None), (True, None), (None, None), ([3600], None),
    ({"x": 1}, None), ("9" * 5000, None),
)  # fmt: skip


@pytest.mark.parametrize(("expires_in", "seconds"), LIVES, ids=lambda value: str(value)[:12])
def test_lifetimes(authority: Authority, tmp_path: Path, expires_in: Any, seconds: int | None) -> None:
    """Numbers of any kind are lifetimes, bounded, so that reckoning with them cannot fail; all else is none."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = {**SUCCESS, "expires_in": expires_in, "refresh_in": expires_in}
        if seconds is None:
            assert "how long" in failure(here).message
        else:
            assert here.acquire().token.lifetime == timedelta(seconds=seconds)


TOKENS: tuple[Any, ...] = (
    "",
    " ",
    "a b",
    "a\n",
    "a\x1b[31m",
    "\u0000",
    "é",
    5,
    True,
    None,
    ["a"],
    {"a": 1},
    "x" * (LONGEST_TOKEN + 1),
)


@pytest.mark.parametrize("secret", TOKENS, ids=lambda value: ascii(value)[:12])
def test_tokens_that_nobody_could_send(authority: Authority, tmp_path: Path, secret: Any) -> None:
    """What fits into no header is no token, nor is what no server would read for its length; the longest still is."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = {**SUCCESS, "access_token": secret}
        assert "no usable access_token" in failure(here).message
        there.token = {**SUCCESS, "token_type": secret if secret is not None else "x" * 65}
        assert "no usable access_token" in failure(here).message
        there.token = {**SUCCESS, "access_token": "x" * LONGEST_TOKEN}
        assert len(here.acquire().token.secret) == LONGEST_TOKEN


# ---- what is shown

STEERING = "\x1b[2J\x1b]0;owned\x07\r\nINFO: all is well\u202e\x9b31m"
SHOWN: dict[str, Callable[[str], bytes]] = {
    "description": lambda text: answer(json.dumps({"error": "invalid_client", "error_description": text}), 401),
    "error": lambda text: answer(json.dumps({"error": text}), 400),
    "message": lambda text: answer(json.dumps({"error": {"code": text, "message": text}}), 400),
    "correlation": lambda text: answer(json.dumps({"error": "x", "correlation_id": text}), 400),
    "content type": lambda text: answer("<html>", 403, Content_Type=re.sub(r"[\r\n]|[^\x00-\xff]", "", text)),
    "token type": lambda text: answer(json.dumps({**SUCCESS, "token_type": text})),
}


@pytest.mark.parametrize(
    "text",
    [STEERING, STEERING * 10_000, "x" * 500_000, f"{CANARY} " * 1000],
    ids=["steers", "long", "longer", "secret"],
)
@pytest.mark.parametrize("name", SHOWN)
def test_what_a_provider_says_is_harmless(authority: Authority, tmp_path: Path, name: str, text: str) -> None:
    """Escapes, new lines, endless texts and secrets in any place of an error come to nothing."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = SHOWN[name](text)
        error = failure(here)
        assert len(error.message) < 1000


def test_a_request_id_is_short(authority: Authority, tmp_path: Path) -> None:
    """What goes to the log with each token has a bound, and is one line."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = answer(json.dumps(SUCCESS), x_ms_request_id="a" * 60_000)
        assert len(here.acquire().request_id or "") <= LONGEST_ID


HOSTS = ("a\x1b[31mb", "a b", "a\u202eb", "x" * 300, CANARY, "a;b", "a<b>")


@pytest.mark.parametrize("host", HOSTS, ids=ascii)
def test_endpoints_that_are_no_hosts(authority: Authority, tmp_path: Path, host: str) -> None:
    """The host of an endpoint, which errors name, is a host's name, or the document cannot be used."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.discovery = there.document | {"token_endpoint": f"https://{host}/token"}
        assert "names no issuer or no token endpoint" in failure(here).message


@pytest.mark.parametrize(
    "issuer",
    [CANARY, STEERING, "x" * 100_000, f"https://h.example/{CANARY}"],
    ids=["secret", "steers", "long", "within"],
)
def test_issuers_that_are_secrets(authority: Authority, tmp_path: Path, issuer: str) -> None:
    """A provider that was sent a secret, and calls itself by it the next time, does not bring it into our log."""
    with provider(authority) as there:
        there.path = "/realms/x"
        there.discovery = there.document | {"issuer": issuer}
        with client("", authority.ca_file, tmp_path, oidc_issuer=there.url) as here:
            error = failure(here)
    assert isinstance(error, RejectedError)
    assert len(error.message) < 1000


@pytest.mark.parametrize(
    "claim", [json.dumps(CANARY), json.dumps(STEERING), json.dumps(["x" * 500_000]), "[" * 900 + "]" * 900, "1e999"]
)
def test_claims_that_are_secrets(authority: Authority, tmp_path: Path, claim: str) -> None:
    """What a token says in the place of what was expected is shown on one line, in part, and without secrets."""
    text = unsigned(f'{{"aud": {claim}, "tid": {claim}, "roles": {claim}}}')
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = {**SUCCESS, "access_token": text[:LONGEST_TOKEN]}
        token = here.acquire().token
    for expect in (Expect(audience="x"), Expect(tenant_id="x"), Expect(roles=("x",))):
        with pytest.raises(RejectedError) as caught:
            tokens.check(token, expect)
        clean_error(caught.value)
        assert len(caught.value.message) < 500
