"""The administration interface over plain HTTP: what it changes, what it tells, and what it will not take."""

from __future__ import annotations

import http.client
import json
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agent.emulator.authority import open_directory
from agent.emulator.server import Emulator
from agent.emulator.wire import Request
from tests.certificate_helpers import CLIENT_ID, NOW, make_certificate, pool_key, written
from tests.emulator_helpers import Handle, assertion, in_process, signing_key, token_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAIR = make_certificate()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A server with nothing registered."""
    authority = open_directory(tmp_path_factory.mktemp("state"))
    with Emulator(authority.tls, signing_key()) as running:
        yield running


@pytest.fixture
def handle(emulator: Emulator) -> Iterator[Handle]:
    """The provider behind the server, emptied afterwards."""
    yield Handle(emulator.provider)
    for app in emulator.provider.registry.apps():
        emulator.provider.registry.remove(app.client_id)
    emulator.provider.script.clear()


def tell(
    emulator: Emulator, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    """Send a request to the administration and return status and JSON."""
    connection = http.client.HTTPConnection(emulator.admin_url.removeprefix("http://"), timeout=10)
    data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
    named = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    try:
        connection.request(method, path, data, named)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def code_of(handle: Handle, **form: str | None) -> int | None:
    handle.provider.answer(token_request(handle, **form), NOW)
    return handle.requests[-1].code


def test_an_app_is_added_by_path_and_by_text_and_removed(emulator: Emulator, handle: Handle, tmp_path: Path) -> None:
    """Certificates come as DER or PEM files or as PEM text, add up, and go with the app."""
    other, third = make_certificate("b", pool_key(1)), make_certificate("c", pool_key(2))
    der = written(tmp_path / "app.cer", PAIR.der)
    pem = written(tmp_path / "other.pem", other.cert_pem)
    body = {"client_id": CLIENT_ID, "certificates": [str(der), str(pem)], "roles": ["A"]}
    status, answer = tell(emulator, "POST", "/apps", body)
    assert (status, answer["certificates"]) == (200, [PAIR.thumbprint, other.thumbprint])
    addition = {"client_id": CLIENT_ID.upper(), "certificates": [third.cert_pem.decode()], "roles": ["A", "B"]}
    status, answer = tell(emulator, "POST", "/apps", addition)
    assert answer["certificates"] == [PAIR.thumbprint, other.thumbprint, third.thumbprint]
    assert answer["roles"] == ["A", "B"]
    for pair in (PAIR, other, third):
        text = assertion(pair, f"{handle.authority}/oauth2/v2.0/token")
        assert code_of(handle, client_assertion=text) is None
    assert tell(emulator, "DELETE", f"/apps/{CLIENT_ID}") == (200, {})
    assert code_of(handle, client_secret="x") == 700016
    assert tell(emulator, "DELETE", f"/apps/{CLIENT_ID}")[0] == 404


def test_secrets_and_trust_are_registered(emulator: Emulator, handle: Handle) -> None:
    """A secret may end, a federated issuer is trusted; neither secret is ever told again."""
    stranger = make_certificate("cluster", pool_key(3))
    trust = {"issuer": "https://i", "subject": "s", "audience": "a", "certificate": stranger.cert_pem.decode()}
    secrets = ["swordfish", {"value": "swordfish-2", "expires_at": "2026-03-01T11:00:00Z"}]
    body = {"client_id": CLIENT_ID, "secrets": secrets, "federated": [trust]}
    status, answer = tell(emulator, "POST", "/apps", body)
    assert (status, answer["secrets"]) == (200, 2)
    assert code_of(handle, client_secret="swordfish") is None
    assert code_of(handle, client_secret="swordfish-2") == 7000222
    text = assertion(stranger, "a", alg="RS256", header={}, iss="https://i", sub="s")
    assert code_of(handle, client_assertion=text) is None
    assert "swordfish" not in json.dumps(tell(emulator, "GET", "/")[1])


def test_tenants_are_added_and_apps_limited_to_them(emulator: Emulator, handle: Handle) -> None:
    """A further tenant knows all apps but those that belong to others."""
    status, answer = tell(emulator, "POST", "/tenants", {"name": "fabrikam.com"})
    assert (status, answer["name"]) == (200, "fabrikam.com")
    tell(emulator, "POST", "/apps", {"client_id": CLIENT_ID, "secrets": ["s"], "tenants": ["fabrikam.com"]})
    assert code_of(handle, client_secret="s") == 700016
    handle.provider.answer(token_request(handle, tenant=answer["id"], client_secret="s"), NOW)
    assert handle.requests[-1].code is None


def test_faults_are_ordered_listed_and_cleared(emulator: Emulator, handle: Handle) -> None:
    """One fault or a list; what is still to come can be read; clearing ends them."""
    handle.register(CLIENT_ID, secret="s")
    tell(emulator, "POST", "/faults", {"kind": "status", "count": None})
    tell(emulator, "POST", "/faults", [{"kind": "drop", "count": 2}, {"kind": "throttle", "retry_after": 3}])
    expected = [
        {"kind": "status"},
        {"kind": "drop", "count": 2},
        {"kind": "throttle", "count": 1, "retry_after": 3},
    ]
    assert tell(emulator, "GET", "/faults") == (200, {"faults": expected})
    assert code_of(handle, client_secret="s") == 90033
    assert tell(emulator, "DELETE", "/faults") == (200, {})
    assert code_of(handle, client_secret="s") is None


def test_requests_are_told_without_secrets(emulator: Emulator, handle: Handle) -> None:
    """Time, tenant, app, scope, status and code of the last thousand requests, and counters of all."""
    tell(emulator, "DELETE", "/requests")
    handle.register(CLIENT_ID, secret="swordfish")
    for _ in range(1001):
        handle.provider.answer(Request("GET", "/nothing"), NOW)
    code_of(handle, client_secret="swordfish")
    code_of(handle, client_secret="swordfish-wrong", scope="api://y/.default")
    status, answer = tell(emulator, "GET", "/requests")
    assert status == 200
    assert len(answer["requests"]) == 1000
    assert answer["counters"] == {
        "requests": 1003,
        "other": 1001,
        "token": 2,
        "tokens_issued": 1,
        "refused": 1,
        "faults": 0,
    }
    assert answer["codes"] == {"AADSTS7000215": 1}
    last = answer["requests"][-1]
    assert last["at"] == "2026-03-01T12:00:00.000000Z"
    assert (last["tenant"], last["client_id"], last["scope"]) == (handle.tenant, CLIENT_ID, "api://y/.default")
    assert (last["status"], last["code"], last["endpoint"]) == (401, 7000215, "token")
    assert "swordfish" not in json.dumps(answer)


def test_settings_change_at_once(emulator: Emulator, handle: Handle) -> None:
    """A new lifetime is that of the next token; what is set can be read."""
    handle.register(CLIENT_ID, secret="s")
    change = {"token_lifetime": "10s", "refresh_in": "5s", "clock_offset": -60}
    status, answer = tell(emulator, "POST", "/settings", change)
    assert (status, answer["token_lifetime"], answer["clock_offset"]) == (200, 10.0, -60.0)
    answered = handle.provider.answer(token_request(handle, client_secret="s"), NOW)
    body = json.loads(answered.body)
    assert (body["expires_in"], body["refresh_in"]) == (10, 5)
    assert answered.headers["Date"] == "Sun, 01 Mar 2026 11:59:00 GMT"
    tell(emulator, "POST", "/settings", {"token_lifetime": 3600, "refresh_in": None, "clock_offset": 0})
    assert tell(emulator, "GET", "/settings")[1]["token_lifetime"] == 3600.0
    assert "refresh_in" not in json.loads(handle.provider.answer(token_request(handle, client_secret="s"), NOW).body)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/apps", {}, "client_id"),
        ("/apps", {"client_id": ""}, "client_id"),
        ("/apps", [], "object"),
        ("/apps", {"client_id": "a", "certificate": "x"}, "unknown key 'certificate'"),
        ("/apps", {"client_id": "a", "certificates": "x"}, "certificates must be a list"),
        ("/apps", {"client_id": "a", "certificates": [1]}, "certificates"),
        ("/apps", {"client_id": "a", "certificates": ["/nonexistent.cer"]}, "/nonexistent.cer: No such file"),
        ("/apps", {"client_id": "a", "certificates": ["-----BEGIN CERTIFICATE-----"]}, "no certificate"),
        ("/apps", {"client_id": "a", "secrets": [{"value": "x", "expires_at": "soon"}]}, "expires_at"),
        ("/apps", {"client_id": "a", "secrets": [{"secret": "x"}]}, "a secret is"),
        ("/apps", {"client_id": "a", "federated": [{"issuer": "x"}]}, "subject of a federated credential"),
        ("/apps", {"client_id": "a", "tenants": ["nowhere.com"]}, "nowhere.com"),
        ("/tenants", {"name": "x"}, "neither a GUID nor a domain"),
        ("/tenants", {}, "neither a GUID nor a domain"),
        ("/faults", {"kind": "fire"}, "kind must be one of"),
        ("/faults", {}, "kind must be one of"),
        ("/faults", "drop", "object"),
        ("/faults", {"kind": "drop", "times": 1}, "unknown key 'times'"),
        ("/faults", {"kind": "drop", "count": 0}, "count must be a whole number"),
        ("/faults", {"kind": "drop", "count": True}, "count must be a whole number"),
        ("/faults", {"kind": "status", "status": 700}, "status must be"),
        ("/faults", {"kind": "error", "code": "abc"}, "code must be"),
        ("/faults", {"kind": "latency", "seconds": -1}, "seconds must be"),
        ("/faults", {"kind": "latency", "seconds": "1s"}, "seconds must be"),
        ("/faults", {"kind": "drop", "endpoint": "x"}, "endpoint must be"),
        ("/faults", {"kind": "throttle", "retry_after": 1.5}, "retry_after must be"),
        ("/faults", [{"kind": "drop"}, {"kind": "fire"}], "kind must be one of"),
        ("/settings", {"lifetime": 1}, "unknown setting 'lifetime'"),
        ("/settings", {"token_lifetime": "soon"}, "token_lifetime: a duration"),
        ("/settings", {"token_lifetime": 0}, "token_lifetime must be at least"),
        ("/settings", {"token_lifetime": None}, "token_lifetime: a duration"),
        ("/settings", {"single_use": 1}, "single_use"),
        ("/settings", {"loop_limit": 0}, "loop_limit"),
    ],
)
def test_a_mistake_is_named_and_changes_nothing(
    emulator: Emulator, handle: Handle, path: str, body: Any, said: str
) -> None:
    """400 names what is wrong; apps, faults and settings stay as they were."""
    before = tell(emulator, "GET", "/")
    status, answer = tell(emulator, "POST", path, body)
    assert status == 400
    assert said in answer["error"]
    assert tell(emulator, "GET", "/") == before


def test_what_is_no_json_or_no_place_is_refused(emulator: Emulator) -> None:
    """Broken JSON, deep JSON, other types and unknown paths have their own statuses."""
    assert tell(emulator, "POST", "/faults", raw=b"{")[0] == 400
    assert tell(emulator, "POST", "/faults", raw=b"\xff")[0] == 400
    assert tell(emulator, "POST", "/faults", raw=b"[" * 100_000)[0] == 400
    assert tell(emulator, "POST", "/faults", {"kind": "drop"}, Content_Type="text/plain")[0] == 415
    assert tell(emulator, "GET", "/nothing")[0] == 404
    assert tell(emulator, "PUT", "/apps", {})[0] == 404


def test_a_web_page_cannot_reach_it_by_a_name(emulator: Emulator) -> None:
    """A host name that merely resolves to loopback is refused (DNS rebinding)."""
    assert tell(emulator, "GET", "/", Host="evil.example:80")[0] == 403
    assert tell(emulator, "GET", "/", Host="localhost:80")[0] == 200
    assert tell(emulator, "GET", "/", Host="[::1]:80")[0] == 200


def test_requests_that_cannot_be_read_are_answered(emulator: Emulator) -> None:
    """Too large, of unknown length, of nonsense length: each is answered and the connection closed."""
    context = ssl._create_unverified_context()  # noqa: S323 - whom we talk to is not the question here
    for headers, status in (
        ({"Content-Length": str(2 << 20)}, 413),
        ({"Transfer-Encoding": "chunked"}, 411),
        ({"Content-Length": "-1"}, 400),
    ):
        connection = http.client.HTTPSConnection(emulator.url.removeprefix("https://"), timeout=10, context=context)
        connection.putrequest("POST", "/x/oauth2/v2.0/token")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (status, "close")
        answer.read()
        connection.close()


def test_in_process_settings_are_those_of_the_interface() -> None:
    """A handle's short cuts do what the interface does."""
    handle = in_process(token_lifetime=timedelta(seconds=12))
    handle.register(CLIENT_ID, secret="s", roles=("A",))
    handle.settings(token_lifetime="13s")
    handle.fault("pass", count=2)
    overview = handle.admin.overview()
    assert overview["settings"]["token_lifetime"] == 13.0
    assert overview["faults"] == [{"kind": "pass", "count": 2}]
    assert overview["apps"][0]["roles"] == ["A"]
