"""Faults: each does over the wire what it says, the script keeps its order, and it strikes nobody else."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest

from agent import tokens
from agent.emulator.wire import Request
from agent.errors import TransientError
from agent.network.transport import Call, HttpsTransport
from tests.certificate_helpers import CLIENT_ID, DAY, NOW, make_certificate, pool_key
from tests.emulator_helpers import Handle, InProcessTransport, assertion, in_process, running, token_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.network.transport import Reply

_NOW = datetime.now(UTC)
PAIR = make_certificate(not_before=_NOW - DAY, not_after=_NOW + DAY)


class Client:
    """A client with a secret, over a transport."""

    def __init__(self, handle: Handle, transport: HttpsTransport) -> None:
        self.handle, self._transport = handle, transport

    def token(self, timeout: float = 20, **form: str | None) -> Reply:
        """Ask for a token."""
        request = token_request(self.handle, **{"client_secret": "s", **form})
        url = f"{self.handle.url}{request.path}"
        return self._transport.request(Call(timeout), "POST", url, request.headers, request.body)

    def get(self, path: str) -> Reply:
        """Read a document."""
        return self._transport.request(Call(20), "GET", f"{self.handle.url}{path}", {})


@pytest.fixture(scope="module")
def server() -> Iterator[Handle]:
    """A server for this module."""
    with running() as handle:
        handle.register(CLIENT_ID, secret="s")
        handle.register("other", secret="s")
        yield handle


@pytest.fixture
def client(server: Handle) -> Iterator[Client]:
    """A client of the server, and no faults before and after."""
    transport = HttpsTransport(server.ca_file)
    yield Client(server, transport)
    server.recover()
    transport.close()


def test_an_outage_strikes_everything_until_it_is_over(client: Client) -> None:
    """A fault without a count breaks tokens and documents alike, with Entra's JSON, until it is cleared."""
    client.handle.fault("status", count=None, status=503, retry_after=7)
    for _ in range(3):
        reply = client.token()
        assert (reply.status, reply.headers["retry-after"]) == (503, "7")
        assert json.loads(reply.body)["error"] == "temporarily_unavailable"
    assert client.get(f"/{client.handle.tenant}/v2.0/.well-known/openid-configuration").status == 503
    client.handle.recover()
    assert client.token().status == 200


@pytest.mark.parametrize(
    ("status", "kind"), [(500, "application/json"), (504, "application/json"), (407, "text/plain")]
)
def test_any_status_can_be_ordered(client: Client, status: int, kind: str) -> None:
    """A 5xx comes in JSON as Entra's do, others in plain text as proxies' do."""
    client.handle.fault("status", status=status)
    reply = client.token()
    assert reply.status == status
    assert reply.headers["content-type"].startswith(kind)
    assert client.token().status == 200


def test_throttling_in_json(client: Client) -> None:
    """429 comes with Retry-After and Entra's error."""
    client.handle.fault("throttle", retry_after=5)
    reply = client.token()
    assert (reply.status, reply.headers["retry-after"]) == (429, "5")
    assert json.loads(reply.body)["error_codes"] == [90055]


def test_throttling_in_plain_text(client: Client) -> None:
    """Entra's own client credentials throttle is no JSON; Retry-After may be a date."""
    client.handle.fault("throttle_text", count=2)
    reply = client.token()
    assert (reply.status, reply.body, reply.headers["retry-after"]) == (429, b"Too Many Requests", "60")
    client.handle.recover()
    client.handle.fault("throttle_text", retry_after="Sun, 01 Mar 2026 12:00:00 GMT")
    assert client.token().headers["retry-after"] == "Sun, 01 Mar 2026 12:00:00 GMT"


def test_latency_delays_and_does_not_change_the_answer(client: Client) -> None:
    """The answer comes as late as ordered, and is a token; a client with less patience gets none."""
    client.handle.fault("latency", count=2, seconds=0.2)
    began = time.monotonic()
    assert client.token().status == 200
    assert time.monotonic() - began >= 0.2
    with pytest.raises(TransientError) as caught:
        client.token(timeout=0.05)
    assert caught.value.unreachable


def test_hanging_ends_with_the_clients_patience(client: Client) -> None:
    """No answer comes; another client is served meanwhile, and the same one afterwards."""
    client.handle.fault("hang")
    began = time.monotonic()
    with pytest.raises(TransientError) as caught:
        client.token(timeout=0.2)
    assert time.monotonic() - began >= 0.2
    assert "in time" in caught.value.message
    assert client.token().status == 200


def test_a_dropped_connection_is_no_answer(client: Client) -> None:
    """The connection is reset, on a new connection as on a kept one."""
    client.handle.fault("drop", count=2)
    for _ in range(2):
        with pytest.raises(TransientError):
            client.token()
    assert client.token().status == 200
    client.handle.fault("drop")
    with pytest.raises(TransientError):
        client.token()
    assert client.token().status == 200


def test_garbage_and_pages_are_successes_of_the_wrong_kind(client: Client) -> None:
    """Both come with status 200; neither counts as a token that was issued."""
    before = client.handle.provider.journal.document()["counters"].get("tokens_issued", 0)
    client.handle.fault("garbage")
    client.handle.fault("html")
    client.handle.fault("html", status=407)
    garbage, page, proxy = client.token(), client.token(), client.token()
    assert (garbage.status, garbage.headers["content-type"]) == (200, "application/json")
    with pytest.raises(ValueError, match=r"decode|Expecting"):
        json.loads(garbage.body)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.body.startswith(b"<!DOCTYPE html>")
    assert proxy.status == 407
    assert client.handle.provider.journal.document()["counters"].get("tokens_issued", 0) == before


def test_a_wrong_clock_shows_in_the_date_and_in_what_is_judged(client: Client) -> None:
    """The Date header and the judgement of an assertion's time are shifted together."""
    client.handle.register(CLIENT_ID, PAIR)
    client.handle.fault("clock", count=2, seconds=-7200)
    away = parsedate_to_datetime(client.token().headers["date"]) - datetime.now(UTC)
    assert abs(away + timedelta(hours=2)) < timedelta(seconds=30)
    text = assertion(PAIR, f"{client.handle.authority}/oauth2/v2.0/token", datetime.now(UTC))
    reply = client.token(client_secret=None, client_assertion=text)
    assert json.loads(reply.body)["error_codes"] == [700024]
    now = parsedate_to_datetime(client.token().headers["date"]) - datetime.now(UTC)
    assert abs(now) < timedelta(seconds=30)


@pytest.mark.parametrize(("seconds", "age"), [(None, 7200), (600, 600), (-900, -900)])
def test_a_token_can_be_stale(seconds: int | None, age: int) -> None:
    """Only the token's own times are old, or ahead; the answer says what it always says."""
    handle = in_process()
    handle.register(CLIENT_ID, secret="s")
    handle.fault("stale", seconds=seconds)
    stale, fresh = (handle.provider.answer(token_request(handle, client_secret="s"), NOW) for _ in range(2))
    assert json.loads(stale.body)["expires_in"] == json.loads(fresh.body)["expires_in"]
    assert stale.headers["Date"] == fresh.headers["Date"]
    (_, old), (_, new) = (tokens.decode(json.loads(answer.body)["access_token"]) for answer in (stale, fresh))
    assert [new[name] - old[name] for name in ("iat", "nbf", "exp")] == [age] * 3


def test_a_certificate_can_be_not_registered_yet() -> None:
    """The fault refuses one certificate so many times, and leaves the app's other certificate alone."""
    handle = in_process()
    old, new = make_certificate(), make_certificate("new", pool_key(1))
    handle.register(CLIENT_ID, old)
    handle.register(CLIENT_ID, new)
    handle.fault("unregistered", count=3, thumbprint=new.thumbprint)
    codes = [ask(handle, pair)[0] for pair in (new, old, new, new)]
    assert codes == [700027, None, 700027, None]
    handle.recover()
    handle.fault("unregistered")
    assert [ask(handle, old)[0] for _ in range(2)] == [700027, None]


def ask(handle: Handle, pair: Any = None, **form: str | None) -> tuple[int | None, int]:
    """Ask in process and return the code of the refusal, if any, and the status."""
    if pair is not None:
        form["client_assertion"] = assertion(pair, f"{handle.authority}/oauth2/v2.0/token")
    answer = handle.provider.answer(token_request(handle, **form), NOW)
    entry = handle.requests[-1]
    return entry.code, answer.status


def test_any_code_of_entras_can_be_ordered() -> None:
    """A code brings its own status, error and text; both can be ordered otherwise; unknown codes work."""
    handle = in_process()
    handle.register(CLIENT_ID, secret="s")
    orders: list[tuple[dict[str, Any], int, str]] = [
        ({"code": 7000215}, 401, "invalid_client"),
        ({"code": "AADSTS500011"}, 400, "invalid_resource"),
        ({"code": 53003, "status": 403, "error": "access_denied"}, 403, "access_denied"),
        ({"code": 50033, "status": 503, "error": "temporarily_unavailable"}, 503, "temporarily_unavailable"),
        ({}, 401, "invalid_client"),
    ]
    for order, status, error in orders:
        handle.fault("error", **order)
        answer = handle.provider.answer(token_request(handle, client_secret="s"), NOW)
        body = json.loads(answer.body)
        assert (answer.status, body["error"]) == (status, error)
        number = str(order.get("code", 700027)).removeprefix("AADSTS")
        assert body["error_description"].startswith(f"AADSTS{number}: ")
    assert ask(handle, client_secret="s") == (None, 200)


def test_a_script_is_played_in_sequence() -> None:
    """Each step strikes as often as it says, then comes the next; a step may let requests through."""
    handle = in_process()
    handle.register(CLIENT_ID, secret="s")
    handle.admin.add_faults(
        [
            {"kind": "status", "status": 500, "count": 2},
            {"kind": "pass"},
            {"kind": "throttle"},
            {"kind": "error", "code": 700016},
        ]
    )
    assert [ask(handle, client_secret="s")[1] for _ in range(7)] == [500, 500, 200, 429, 400, 200, 200]
    assert handle.admin.faults() == {"faults": []}


@pytest.mark.parametrize(
    ("narrowed", "struck"),
    [
        ({"client_id": CLIENT_ID.upper()}, [True, False, False, False]),
        ({"tenant": "fabrikam.com"}, [False, False, True, False]),
        ({"endpoint": "discovery"}, [False, False, False, True]),
        ({"endpoint": "token"}, [True, True, True, False]),
        ({"client_id": CLIENT_ID, "tenant": "fabrikam.com"}, [False, False, False, False]),
        ({}, [True, True, True, True]),
    ],
)
def test_a_fault_strikes_whom_it_names(narrowed: dict[str, str], struck: list[bool]) -> None:
    """Tenant, app and endpoint narrow a fault; the others go on as ever."""
    handle = in_process(tenants=("contoso.com", "fabrikam.com"))
    for client_id in (CLIENT_ID, "other"):
        handle.register(client_id, secret="s")
    handle.fault("status", count=None, **narrowed)
    requests = [
        token_request(handle, client_secret="s"),
        token_request(handle, client_id="other", client_secret="s"),
        token_request(handle, tenant="fabrikam.com", client_id="other", client_secret="s"),
    ]
    statuses = [handle.provider.answer(request, NOW).status for request in requests]
    path = "/contoso.com/v2.0/.well-known/openid-configuration"
    statuses.append(handle.provider.answer(Request("GET", path), NOW).status)
    assert [status == 503 for status in statuses] == struck


@pytest.mark.parametrize(
    "order", [{"kind": "error"}, {"kind": "unregistered"}, {"kind": "drop", "client_id": CLIENT_ID}]
)
def test_what_concerns_a_client_is_not_spent_on_a_document(order: dict[str, Any]) -> None:
    """A refusal, and a fault of one app, wait for a token request; discovery passes by."""
    handle = in_process()
    handle.admin.add_faults(order)
    path = f"/{handle.tenant}/v2.0/.well-known/openid-configuration"
    answer = handle.provider.answer(Request("GET", path), NOW)
    assert (answer.status, answer.manner) == (200, "send")
    assert len(handle.provider.script.steps) == 1


def test_the_end_of_a_server_is_the_end_of_waiting() -> None:
    """Clients that hang are let go when the server ends, so that a test is not kept by them."""
    with running() as handle:
        handle.fault("hang")
        context = ssl.create_default_context(cafile=str(handle.ca_file))
        waiting = http.client.HTTPSConnection(handle.url.removeprefix("https://"), context=context, timeout=10)
        waiting.request("GET", "/")
        while not handle.requests:
            assert waiting.sock is not None  # the request may still be on its way
    with pytest.raises((http.client.HTTPException, OSError)) as caught:
        waiting.getresponse()
    assert not isinstance(caught.value, TimeoutError)
    waiting.close()


def test_a_tenant_is_struck_by_its_guid_as_well() -> None:
    """A fault for a tenant's name strikes requests that use its GUID, as they do after discovery."""
    handle = in_process()
    handle.register(CLIENT_ID, secret="s")
    handle.fault("status", tenant=handle.tenant)
    request = token_request(handle, tenant=handle.provider.registry.tenants[0].id, client_secret="s")
    assert handle.provider.answer(request, NOW).status == 503


class Ticking:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.elapsed = timedelta()

    def now(self) -> datetime:
        return NOW + self.elapsed

    def advance(self, by: timedelta) -> None:
        self.elapsed += by


@pytest.mark.parametrize(
    ("order", "passes"),
    [
        (lambda handle: handle.fault("drop"), 0),
        (lambda handle: handle.fault("hang"), 20),
        (lambda handle: handle.fault("latency", seconds=30), 20),
    ],
    ids=["drop", "hang", "latency"],
)
def test_without_a_wire_no_answer_is_unreachable(order: Callable[[Handle], None], passes: int) -> None:
    """The fake transport fails as the real one does, and waiting passes on its clock only."""
    handle, clock = in_process(), Ticking()
    handle.register(CLIENT_ID, secret="s")
    transport = InProcessTransport(handle, clock, advance=clock.advance)
    order(handle)
    request = token_request(handle, client_secret="s")
    url = f"{handle.url}{request.path}"
    with pytest.raises(TransientError) as caught:
        transport.request(Call(20), "POST", url, request.headers, request.body)
    assert caught.value.unreachable
    assert clock.elapsed == timedelta(seconds=passes)
    handle.fault("latency", seconds=2)
    reply = transport.request(Call(20), "POST", url, request.headers, request.body)
    assert (reply.status, clock.elapsed) == (200, timedelta(seconds=passes + 2))
    assert list(transport.sent) == [url, url]


def test_without_a_wire_there_is_one_provider_only() -> None:
    """Another host is not reached, so that a wrong authority shows."""
    handle = in_process()
    with pytest.raises(TransientError) as caught:
        InProcessTransport(handle, Ticking()).request(Call(20), "GET", "https://elsewhere.example/x", {})
    assert caught.value.unreachable
    assert not handle.requests
