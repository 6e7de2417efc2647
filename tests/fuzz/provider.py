"""Targets: what a provider, or whatever answers in its place, sends."""

from __future__ import annotations

import json
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agent import formats, log, redaction, schedule, state, tokens
from agent.config.model import Expect, Refresh, TokenFile
from agent.credentials.store import SecretCredential
from agent.errors import AcquisitionError, CredentialError, OutputError
from agent.network import entra
from agent.network.call import Call
from agent.network.connection import Connection, Endpoint, Reply
from tests.fuzz.inputs import CLAIMS, jwt, some_profile
from tests.fuzz.target import CANARY, Target, clean, clean_error

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
PARTS = b"\x01"
"""Between what one input says of an answer: status, headers, discovery document, body."""


# ---- the wire


class _Plain:
    """A socket without TLS in the place of one with."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def http(content: bytes) -> None:
    """Bytes in the place of an HTTP answer: an answer of bounded size, or an OSError of ours."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.sendall(content[: 1 << 17])
        theirs.shutdown(socket.SHUT_WR)
        connection = Connection(cast("ssl.SSLSocket", _Plain(ours)), Endpoint("h.example", 443))
        try:
            reply = connection.exchange(Call(5.0), "GET", "/x", {}, None)
        except OSError as error:
            assert not isinstance(error, TimeoutError)  # noqa: PT017 - any other is right
            clean(str(error))
            return
        assert 200 <= reply.status <= 999
        assert all(name == name.lower() for name in reply.headers)
        assert len(reply.body) <= len(content)


HTTP_SEEDS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 No\r\nConnection: close\r\n\r\n{}",
    b"HTTP/1.0 200 OK\r\n\r\n{}",
    b"HTTP/1.1 204 No\r\nRetry-After: 3\r\n folded: x\r\n\r\n",
)
HTTP_WORDS = (
    b"\r\n", b"\r\n\r\n", b"HTTP/1.1 ", b"HTTP/9", b"Content-Length: ", b"Transfer-Encoding: chunked", b"-1",
    b"ffffffffffffffff\r\n",
    b"0\r\n\r\n", b"99999999999", b"Connection: keep-alive", b"Content-Encoding: gzip", b"100 Continue", b"\xff", b"\0",
)  # fmt: skip


# ---- what it means


class _Script:
    """A transport that says what one input says; it is what a hostile provider looks like from `entra`."""

    def __init__(self, status: int, headers: Mapping[str, str], document: bytes, body: bytes) -> None:
        self._status, self._headers, self._document, self._body = status, headers, document, body

    def request(
        self, _call: Call, method: str, _url: str, _headers: Mapping[str, str], _body: bytes | None = None
    ) -> Reply:
        if method == "GET":
            return Reply(200, {"content-type": "application/json"}, self._document)
        return Reply(self._status, self._headers, self._body)

    def close(self) -> None:
        pass


class Stopped:
    """A clock that stands still."""

    def now(self) -> datetime:
        return NOW

    def boot(self) -> float:
        return 0.0

    async def sleep_until(self, deadline: datetime) -> None:
        raise NotImplementedError

    def steps(self) -> AsyncIterator[timedelta]:
        raise NotImplementedError


class Secret(SecretCredential):
    """A client secret that is not read from a file."""

    def secret(self) -> str:
        return CANARY


SECRET = Secret(Path("/s"), "", ())


def answer(content: bytes) -> None:
    """Any status, headers, discovery document and body: a token that can be used, or an error that can be shown."""
    status, headers, document, body, *_ = [*content.split(PARTS, 3), b"", b"", b"", b""]
    names = dict(line.partition(b":")[::2] for line in headers.split(b"\n"))
    shown = {name.decode("latin-1").strip().lower(): value.decode("latin-1").strip() for name, value in names.items()}
    transport = _Script(
        int(status) if status.isdigit() and len(status) == 3 else 200, shown, document or DOCUMENT, body
    )
    for oidc in (False, True):
        profile = some_profile()
        if oidc:
            profile = profile.model_copy(update={"tenant": None, "oidc_issuer": "https://h.example/x"})
        try:
            acquired = entra.acquire(profile, SECRET, transport, Call(5.0), entra.Discovery(Stopped()), Stopped())
        except (AcquisitionError, CredentialError) as error:
            clean_error(error)
            logged({"message": error.message, "hint": error.hint})
            if isinstance(error, AcquisitionError):
                clean(f"{error.code} {error.correlation_id}")
                for failures in (1, 50):
                    schedule.retry_at(NOW, failures, error, 0.5)
            continue
        accepted(acquired)


def accepted(acquired: entra.Acquired) -> None:
    """Do with a token what the engine does: it can be judged, written, remembered and logged."""
    token = acquired.token
    assert timedelta(0) < token.lifetime <= timedelta(days=3651)
    assert token.secret.isascii()
    assert token.secret.isprintable()
    for policy in (Refresh(), Refresh(at=0.999)):
        assert token.acquired_at < schedule.refresh_at(token, policy, 0.9)
        schedule.degraded_at(token, policy)
    shifted = token.shifted(timedelta(days=400))
    assert shifted.lifetime == token.lifetime
    for expect in (Expect(), Expect(audience="x"), Expect(tenant_id="t", roles=("A", "Z"))):
        try:
            tokens.check(token, expect)
        except AcquisitionError as error:
            clean_error(error)
    for kind in ("raw", "json", "header", "env"):
        file = TokenFile.model_construct(path=Path("/t"), format=kind, newline=False, variable="A")
        try:
            rendered = formats.render(token, some_profile(), file)
        except OutputError as error:
            clean_error(error)
            continue
        assert formats.extract(rendered, some_profile(), file, token.token_type) == token.secret
    record = state.record_of(some_profile(), token)
    assert state.parse(state.render({"a": record}))["a"].restore(token.secret) == token
    logged({"correlation_id": acquired.correlation_id, "request_id": acquired.request_id})


def logged(event: dict[str, Any]) -> None:
    """Whatever goes to the log is one line in each of its forms, and JSON where it should be."""
    for renderer in (log._json, log._journal, log._Console(coloured=False, wrapped=False)):
        told = log._withhold(None, "", {"event": "x", **event})
        line = renderer(None, "info", {"timestamp": "2026-01-01T12:00:00Z", "level": "info", **told})
        assert not STEERING.search(line), ascii(line)
        assert CANARY not in line
        assert renderer is not log._json or json.loads(line)["event"] == "x"


def words(content: bytes) -> None:
    """A text on its way to the log: masked and escaped in no time, whatever it is."""
    text = content.decode(errors="replace")
    redaction.redact(text)
    logged({"message": text[:6000]})


DOCUMENT = json.dumps({"issuer": "https://h.example/x", "token_endpoint": "https://h.example/t"}).encode()


def _input(
    body: Any, status: int = 200, headers: bytes = b"content-type: application/json", document: Any = None
) -> bytes:
    texts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (document or DOCUMENT, body)]
    return PARTS.join([str(status).encode(), headers, *texts])


GOOD: dict[str, Any] = {"access_token": "opaque-token", "token_type": "Bearer", "expires_in": 3599, "refresh_in": 1800}
ANSWERS = (
    _input(GOOD),
    _input({**GOOD, "access_token": jwt(None, CLAIMS).decode(), "expires_in": None}),
    _input({"error": "invalid_client", "error_description": f"AADSTS7000215: bad {CANARY}. Trace ID: x",
    "error_codes": [7000215]}, 401),
    _input({"error": {"code": "x", "message": CANARY}}, 400, b"retry-after: 7\ndate: Thu, 01 Jan 2026 12:00:00 GMT"),
    _input(b"<html>", 503,
    b"content-type: text/html\nretry-after: Thu, 01 Jan 2026 12:00:00 GMT\nx-ms-request-id: abc"),
    _input(GOOD, 200, b"x-ms-request-id: a-b-c", {"issuer": "https://evil.example",
    "token_endpoint": "https://h.example/t"}),
)  # fmt: skip
ANSWER_WORDS = (
    b'"access_token": ', b'"expires_in": ', b'"token_type": ', b'"error": ', b'"error_description": "',
    b'"error_codes": [', b"1e999",
    b"-1", b"NaN", b"Infinity", b"true", b"null", b'"9"', b"[[[[[[[[", b'{"a":', b"\\ud800", b"\\u001b[31m", b"\\n",
    b"9" * 400, PARTS,
    b"AADSTS", b"correlation_id", b'"issuer": "', b'"token_endpoint": "https://', b"date: ", b"retry-after: ",
    CANARY.encode(),
    b"302", b"407", b"429", b"503", b"Bearer ", b"Fri, 31 Dec 9999 23:59:59 GMT",
)  # fmt: skip

TARGETS = {
    "http": Target(http, HTTP_SEEDS, HTTP_WORDS),
    "answer": Target(answer, ANSWERS, ANSWER_WORDS),
    "words": Target(
        words,
        (b"client_secret=abc&x", b"-----BEGIN PRIVATE KEY-----\nx",
        b"Authorization: Bearer abcdefghijklmnopqrstuvwxyz", b"https://u:p@h"),
        (b"eyJ", b"-----BEGIN ", b"PRIVATE KEY", b"://", b"@", b"bearer ", b"client_assertion", b"=", b"\\", b'"',
        b"'", b"%3D", b"." + b"a" * 43),
        20_000,
    ),
}  # fmt: skip
