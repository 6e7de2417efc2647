"""The emulator's strictness: what Entra refuses is refused, by Entra's code, in Entra's shape; the core alone."""

from __future__ import annotations

import base64
import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from agent.emulator.assertion import UsedIds
from agent.emulator.registry import App, RegisteredCertificate, Secret, Trust
from agent.emulator.wire import Request
from tests.certificate_helpers import CLIENT_ID, DAY, NOW, make_certificate, make_chain, pool_key
from tests.emulator_helpers import ASSERTION_TYPE, Handle, assertion, in_process, token_request

if TYPE_CHECKING:
    from agent.emulator.wire import Answer

PAIR = make_certificate()
STRANGER = make_certificate("stranger", pool_key(1))
SHA256 = RegisteredCertificate.of(PAIR.certificate).x5t_s256
MINUTE = timedelta(minutes=1)
EXPIRED = make_certificate("expired", pool_key(2), not_after=NOW - DAY)
NOT_YET = make_certificate("not yet", pool_key(3), not_before=NOW + DAY)


@pytest.fixture
def provider() -> Handle:
    """A provider that knows an app with three certificates, two of which are not valid now."""
    handle = in_process()
    for pair in (PAIR, EXPIRED, NOT_YET):
        handle.register(CLIENT_ID, pair)
    return handle


def endpoint(handle: Handle) -> str:
    return f"{handle.authority}/oauth2/v2.0/token"


def ask(handle: Handle, *, tenant: str | None = None, **form: str | None) -> Answer:
    return handle.provider.answer(token_request(handle, tenant=tenant, **form), NOW)


def signed(handle: Handle, **details: Any) -> str:
    return assertion(details.pop("pair", PAIR), details.pop("audience", endpoint(handle)), **details)


def refused(answer: Answer, code: int, status: int, error: str) -> dict[str, Any]:
    """Check that an answer is the refusal it should be, and return it."""
    body: dict[str, Any] = json.loads(answer.body)
    assert (body.get("error_codes"), answer.status, body.get("error")) == ([code], status, error), body
    return body


def granted(answer: Answer) -> dict[str, Any]:
    """Check that an answer is a token, and return its claims."""
    body = json.loads(answer.body)
    assert answer.status == 200, body
    claims: dict[str, Any] = jwt.decode(body["access_token"], options={"verify_signature": False})
    return claims


def test_the_shape_of_a_refusal_is_entras(provider: Handle) -> None:
    """Description, codes, times and ids are there, agree with one another and with the headers."""
    request = token_request(provider, client_id="unknown", client_secret="x")
    wish = "0b1d2f3a-0000-4000-8000-00000000abcd"
    request = Request(request.method, request.path, {**request.headers, "client-request-id": wish}, request.body)
    answer = provider.provider.answer(request, NOW)
    body = refused(answer, 700016, 400, "unauthorized_client")
    description = re.fullmatch(
        r"AADSTS700016: .+ Trace ID: (\S+) Correlation ID: (\S+) Timestamp: (.+)", body["error_description"]
    )
    assert description is not None
    assert description.groups() == (body["trace_id"], wish, "2026-03-01 12:00:00Z")
    assert body["timestamp"] == "2026-03-01 12:00:00Z"
    assert body["correlation_id"] == answer.headers["client-request-id"] == wish
    assert body["trace_id"] == answer.headers["x-ms-request-id"]
    assert body["error_uri"] == "https://login.microsoftonline.com/error?code=700016"
    assert "no-store" in answer.headers["Cache-Control"]
    assert answer.headers["Date"] == "Sun, 01 Mar 2026 12:00:00 GMT"
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("form", "code", "status", "error"),
    [
        ({"grant_type": None}, 900144, 400, "invalid_request"),
        ({"client_id": None}, 900144, 400, "invalid_request"),
        ({"scope": None}, 900144, 400, "invalid_request"),
        ({"scope": ""}, 900144, 400, "invalid_request"),
        ({"grant_type": "password"}, 70003, 400, "unsupported_grant_type"),
        ({"client_id": "00000000-dead-4000-8000-000000000000"}, 700016, 400, "unauthorized_client"),
        ({"scope": "api://x/Read"}, 1002012, 400, "invalid_scope"),
        ({"scope": "api://x"}, 1002012, 400, "invalid_scope"),
        ({"scope": "User.Read"}, 1002012, 400, "invalid_scope"),
        ({"scope": '"/.default'}, 70011, 400, "invalid_scope"),
        ({"scope": "/.default"}, 70011, 400, "invalid_scope"),
        ({"scope": ".default"}, 70011, 400, "invalid_scope"),
        ({"scope": "api://x/.default api://y/.default"}, 700022, 400, "invalid_scope"),
        ({"scope": "openid profile"}, 28002, 400, "invalid_scope"),
        ({"scope": "no-uri/.default"}, 500011, 400, "invalid_resource"),
        ({}, 7000218, 401, "invalid_client"),
        ({"client_secret": "wrong"}, 7000215, 401, "invalid_client"),
        ({"client_assertion": "not.a.jwt"}, 50027, 401, "invalid_client"),
        ({"client_assertion": "nonsense"}, 50027, 401, "invalid_client"),
        ({"client_assertion": "a.b.c", "client_assertion_type": "other"}, 900144, 400, "invalid_request"),
        ({"client_assertion": "a.b.c", "client_secret": "both"}, 7000218, 401, "invalid_client"),
    ],
)
def test_a_request_that_lacks_or_mistakes_something_is_refused(
    provider: Handle, form: dict[str, str | None], code: int, status: int, error: str
) -> None:
    """Each parameter that is missing or wrong has its own code."""
    refused(ask(provider, **form), code, status, error)


@pytest.mark.parametrize(
    ("tenant", "code"),
    [
        ("fabrikam.com", 90002),
        ("11111111-1111-4111-8111-111111111111", 90002),
        ("no_tenant", 900023),
        ("contoso", 900023),
        ("common", 9001023),
        ("organizations", 9001023),
        ("consumers", 9001023),
    ],
)
def test_a_tenant_that_is_none_is_refused(provider: Handle, tenant: str, code: int) -> None:
    """Unknown tenants, impossible ones, and authorities that are no tenant are told apart."""
    refused(ask(provider, tenant=tenant, client_secret="x"), code, 400, "invalid_request")


def test_discovery_of_an_unknown_tenant_is_refused(provider: Handle) -> None:
    """The documents of a tenant that is not there are refused like its tokens."""
    for path in ("/fabrikam.com/v2.0/.well-known/openid-configuration", "/fabrikam.com/discovery/v2.0/keys"):
        refused(provider.provider.answer(Request("GET", path), NOW), 90002, 400, "invalid_request")


def test_the_token_endpoint_takes_posted_forms_only(provider: Handle) -> None:
    """GET is refused, and what is not a form has no parameters."""
    request = token_request(provider, client_secret="x")
    refused(provider.provider.answer(Request("GET", request.path), NOW), 900561, 405, "invalid_request")
    as_json = Request("POST", request.path, {"content-type": "application/json"}, request.body)
    refused(provider.provider.answer(as_json, NOW), 900144, 400, "invalid_request")


@pytest.mark.parametrize("padding", ["", "="], ids=["unpadded", "padded"])
@pytest.mark.parametrize("alg", ["PS256", "RS256"])
def test_a_right_assertion_is_accepted_once(provider: Handle, padding: str, alg: str) -> None:
    """Either algorithm and either writing of the thumbprint gives a token, and no second one."""
    text = signed(provider, alg=alg, header={"x5t#S256": SHA256 + padding})
    assert granted(ask(provider, client_assertion=text))["appid"] == CLIENT_ID
    body = refused(ask(provider, client_assertion=text), 50013, 401, "invalid_client")
    assert "replay" in body["error_description"].lower()


def test_an_assertion_is_refused_again_until_it_has_expired(provider: Handle) -> None:
    """A replay is refused to the last moment at which the assertion itself would be good."""
    text = signed(provider)
    request = token_request(provider, client_assertion=text)
    granted(provider.provider.answer(request, NOW))
    refused(provider.provider.answer(request, NOW + 14 * MINUTE), 50013, 401, "invalid_client")
    refused(provider.provider.answer(request, NOW + 16 * MINUTE), 700024, 401, "invalid_client")


def test_a_refused_assertion_does_not_use_up_its_id(provider: Handle) -> None:
    """What did not pass does not count as used."""
    text = signed(provider)
    provider.fault("unregistered")
    refused(ask(provider, client_assertion=text), 700027, 401, "invalid_client")
    granted(ask(provider, client_assertion=text))


def test_replay_can_be_allowed_as_entra_does(provider: Handle) -> None:
    """With single_use off, MSAL's habit of using an assertion for nine minutes works."""
    provider.settings(single_use=False)
    text = signed(provider)
    granted(ask(provider, client_assertion=text))
    granted(ask(provider, client_assertion=text))


def test_sha1_thumbprints_go_with_rs256_only(provider: Handle) -> None:
    """MSAL's older form is accepted; the mixture of old thumbprint and new algorithm is not."""
    sha1 = base64.urlsafe_b64encode(bytes.fromhex(PAIR.thumbprint)).decode()
    granted(ask(provider, client_assertion=signed(provider, alg="RS256", header={"x5t": sha1})))
    mixed = signed(provider, alg="PS256", header={"x5t": sha1})
    refused(ask(provider, client_assertion=mixed), 50027, 401, "invalid_client")


def test_the_issuer_is_an_audience_too_and_so_is_either_name_of_the_tenant(provider: Handle) -> None:
    """Token endpoint and issuer, by the tenant's name or its GUID, are right; others are not."""
    tenant = provider.provider.registry.tenants[0]
    for name in (tenant.name, tenant.id):
        for end in ("oauth2/v2.0/token", "v2.0"):
            granted(ask(provider, client_assertion=signed(provider, audience=f"{provider.url}/{name}/{end}")))
    for wrong in (provider.url, f"{provider.authority}/", "https://login.microsoftonline.com/x/v2.0", ""):
        refused(ask(provider, client_assertion=signed(provider, audience=wrong)), 700023, 401, "invalid_client")


def test_an_unregistered_key_is_named_by_its_thumbprint(provider: Handle) -> None:
    """The refusal says which key was used and for which app, as Entra does."""
    sha1 = base64.urlsafe_b64encode(bytes.fromhex(STRANGER.thumbprint)).decode()
    text = signed(provider, pair=STRANGER, alg="RS256", header={"x5t": sha1})
    body = refused(ask(provider, client_assertion=text), 700027, 401, "invalid_client")
    assert "The key was not found." in body["error_description"]
    assert STRANGER.thumbprint in body["error_description"]
    assert CLIENT_ID in body["error_description"]


def test_the_sha256_of_a_certificate_is_no_sha1_thumbprint(provider: Handle) -> None:
    """A SHA-256 thumbprint in x5t, which MSAL sends without a word, finds no key."""
    text = signed(provider, alg="RS256", header={"x5t": SHA256})
    refused(ask(provider, client_assertion=text), 700027, 401, "invalid_client")


def test_a_signature_by_another_key_is_refused(provider: Handle) -> None:
    """The thumbprint of a registered certificate is no proof without its key."""
    text = signed(provider, key=pool_key(1))
    body = refused(ask(provider, client_assertion=text), 700027, 401, "invalid_client")
    assert "did not match the expected signature" in body["error_description"]


def test_a_changed_claim_breaks_the_signature(provider: Handle) -> None:
    """A signature is good for the very bytes that were signed."""
    head, _, signature = signed(provider).split(".")
    other = signed(provider).split(".")[1]
    text = f"{head}.{other}.{signature}"
    refused(ask(provider, client_assertion=text), 700027, 401, "invalid_client")


@pytest.mark.parametrize("alg", ["HS256", "PS384", "RS512", "none"])
def test_other_algorithms_are_refused(provider: Handle, alg: str) -> None:
    """Neither a weaker nor a stronger algorithm than Entra's is accepted, and least of all none."""
    key = {"HS256": "0" * 32, "none": ""}.get(alg)
    text = signed(provider, alg=alg, key=key)
    refused(ask(provider, client_assertion=text), 50027, 401, "invalid_client")


def test_a_chain_begins_with_the_certificate_itself(provider: Handle) -> None:
    """x5c is accepted leaf first, and refused in another order."""
    chain = make_chain()
    provider.register(CLIENT_ID, chain.leaf)
    leaf, issuer = (base64.b64encode(pair.der).decode() for pair in (chain.leaf, chain.lower))
    thumbprint = provider.provider.registry.apps()[0].certificates[-1].x5t_s256
    good = signed(provider, pair=chain.leaf, header={"x5t#S256": thumbprint, "x5c": [leaf, issuer]})
    granted(ask(provider, client_assertion=good))
    for x5c in ([issuer, leaf], [], "text", [1]):
        bad = signed(provider, pair=chain.leaf, header={"x5t#S256": thumbprint, "x5c": x5c})
        refused(ask(provider, client_assertion=bad), 700027, 401, "invalid_client")


@pytest.mark.parametrize("pair", [EXPIRED, NOT_YET], ids=["expired", "not yet valid"])
def test_a_certificate_outside_its_validity_is_refused(provider: Handle, pair: Any) -> None:
    """A registered certificate serves only while it is valid."""
    refused(ask(provider, client_assertion=signed(provider, pair=pair)), 1000502, 401, "invalid_client")


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": -6 * MINUTE, "iat": -16 * MINUTE},
        {"iat": 6 * MINUTE, "exp": 16 * MINUTE},
        {"nbf": 6 * MINUTE},
        {"iat": -timedelta(days=2), "exp": -timedelta(days=1)},
    ],
    ids=["expired", "issued in the future", "not yet valid", "long expired"],
)
def test_an_assertion_outside_its_time_is_refused(provider: Handle, claims: dict[str, timedelta]) -> None:
    """More than five minutes off is too much, on either side."""
    times = {name: int((NOW + away).timestamp()) for name, away in claims.items()}
    body = refused(ask(provider, client_assertion=signed(provider, **times)), 700024, 401, "invalid_client")
    assert "Current time: 2026-03-01T12:00:00" in body["error_description"]


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": -4 * MINUTE, "iat": -14 * MINUTE},
        {"iat": 4 * MINUTE, "exp": 14 * MINUTE},
        {"nbf": 4 * MINUTE},
    ],
)
def test_clocks_may_differ_by_five_minutes(provider: Handle, claims: dict[str, timedelta]) -> None:
    """Less than five minutes off is forgiven, on either side."""
    times = {name: int((NOW + away).timestamp()) for name, away in claims.items()}
    granted(ask(provider, client_assertion=signed(provider, **times)))


def test_times_may_have_fractions_as_msals_have(provider: Handle) -> None:
    """NumericDate may be a float (RFC 7519 2)."""
    granted(ask(provider, client_assertion=signed(provider, iat=NOW.timestamp() - 0.5, exp=NOW.timestamp() + 9.5)))


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"exp": None}, 50027),
        ({"jti": None}, 50027),
        ({"exp": 1e300}, 50027),
        ({"iss": None}, 700021),
        ({"iss": "someone"}, 700021),
        ({"sub": "someone"}, 50048),
        ({"sub": None}, 50048),
        ({"aud": None}, 700023),
    ],
)
def test_an_assertion_with_wrong_claims_is_refused(provider: Handle, claims: dict[str, Any], code: int) -> None:
    """Every claim that Entra asks for must be there and right."""
    refused(ask(provider, client_assertion=signed(provider, **claims)), code, 401, "invalid_client")


def test_a_secret_is_accepted_until_it_expires(provider: Handle) -> None:
    """A client secret works in the form and in a Basic header, and no longer than it lives."""
    ends = NOW + MINUTE
    provider.provider.registry.add(App(CLIENT_ID, secrets=[Secret.of("p:ssword", ends)]))
    assert granted(ask(provider, client_secret="p:ssword"))["appidacr"] == "1"
    request = token_request(provider, client_id=None)
    basic = base64.b64encode(f"{CLIENT_ID}:p%3Assword".encode()).decode()
    headers = {**request.headers, "authorization": f"Basic {basic}"}
    request = Request("POST", request.path, headers, request.body)
    granted(provider.provider.answer(request, NOW))
    refused(provider.provider.answer(request, ends), 7000222, 401, "invalid_client")


def federated(provider: Handle, **claims: Any) -> str:
    """Return an assertion as Kubernetes would project it."""
    usual = {"iss": "https://oidc.example/cluster", "sub": "system:serviceaccount:web:agent"}
    return assertion(
        STRANGER, "api://AzureADTokenExchange", alg="RS256", header={"kid": "1"}, **{**usual, "jti": None, **claims}
    )


@pytest.fixture
def trusting(provider: Handle) -> Handle:
    """The provider, with an app that trusts a cluster."""
    trust = Trust("https://oidc.example/cluster", "system:serviceaccount:web:agent", STRANGER.public_key)
    provider.provider.registry.add(App(CLIENT_ID, trusts=[trust]))
    return provider


def test_a_federated_assertion_is_accepted_again_and_again(trusting: Handle) -> None:
    """What a cluster projects is used until it is replaced; there is no single use."""
    text = federated(trusting)
    assert granted(ask(trusting, client_assertion=text))["azpacr"] == "2"
    granted(ask(trusting, client_assertion=text))


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": "https://oidc.example/cluster/"}, 700211),
        ({"sub": "system:serviceaccount:web:Agent"}, 700213),
        ({"aud": "api://other"}, 700212),
        ({"exp": int((NOW - 6 * MINUTE).timestamp())}, 700024),
        ({"key": pool_key(2)}, 50013),
        ({"alg": "PS256"}, 50013),
    ],
)
def test_a_federated_assertion_must_fit_to_the_letter(trusting: Handle, claims: dict[str, Any], code: int) -> None:
    """Issuer, subject, audience, signature and times are each refused by a code of their own."""
    usual = {"iss": "https://oidc.example/cluster", "sub": "system:serviceaccount:web:agent", "jti": None}
    text = assertion(STRANGER, "api://AzureADTokenExchange", header={"kid": "1"}, **{"alg": "RS256", **usual, **claims})
    refused(ask(trusting, client_assertion=text), code, 401, "invalid_client")


def test_a_foreign_assertion_without_trust_is_refused(provider: Handle) -> None:
    """An app that trusts nobody says so."""
    refused(ask(provider, client_assertion=federated(provider)), 70025, 401, "invalid_client")


def test_resources_can_be_limited() -> None:
    """With resources named, others are not found; Microsoft Graph always is."""
    handle = in_process()
    handle.provider.registry.resources = {"api://billing"}
    handle.register(CLIENT_ID, secret="s")
    for scope in ("api://billing/.default", "https://graph.microsoft.com/.default", "api://billing//.default"):
        granted(ask(handle, client_secret="s", scope=scope))
    body = refused(ask(handle, client_secret="s", scope="api://reports/.default"), 500011, 400, "invalid_resource")
    assert "api://reports was not found in the tenant named contoso.onmicrosoft.com" in body["error_description"]


def test_a_loop_is_ended_where_somebody_asks_for_it(provider: Handle) -> None:
    """More requests of one app within the window than allowed are refused, until it has passed; others are not."""
    provider.register(CLIENT_ID, secret="s")
    provider.register("other", secret="s")
    provider.settings(loop_limit=3, loop_window="1m")
    for _ in range(3):
        granted(ask(provider, client_secret="s"))
    refused(ask(provider, client_secret="s"), 50196, 400, "invalid_grant")
    granted(ask(provider, client_id="other", client_secret="s"))
    granted(provider.provider.answer(token_request(provider, client_secret="s"), NOW + 2 * MINUTE))


def test_an_app_can_be_limited_to_tenants() -> None:
    """An app that belongs to one tenant is not found in another."""
    handle = in_process(tenants=("contoso.com", "fabrikam.com"))
    handle.provider.registry.add(App(CLIENT_ID, secrets=[Secret.of("s")], tenants={"fabrikam.com"}))
    refused(ask(handle, client_secret="s"), 700016, 400, "unauthorized_client")
    granted(ask(handle, tenant="fabrikam.com", client_secret="s"))


def test_no_secret_or_assertion_is_remembered_or_repeated(provider: Handle) -> None:
    """Neither answers nor the journal nor any repr hold what a client proved itself with."""
    text = signed(provider)
    answers = [ask(provider, client_secret="swordfish-123"), ask(provider, client_assertion=text)]
    answers.append(ask(provider, client_assertion=text))
    request = token_request(provider, client_secret="swordfish-123")
    told = json.dumps(provider.provider.journal.document()) + repr(request) + repr(answers)
    told += repr(provider.provider.registry.apps()) + answers[0].body.decode() + answers[2].body.decode()
    assert "swordfish" not in told
    assert text.rpartition(".")[2] not in told
    assert json.loads(answers[1].body)["access_token"] not in told


def test_the_memory_of_used_assertions_is_bounded() -> None:
    """At most so many ids are remembered; the one that ends first is forgotten first."""
    used = UsedIds(limit=3)
    assert all(used.take("app", str(number), NOW + number * MINUTE, NOW) for number in range(1, 5))
    assert not used.take("app", "4", NOW + 4 * MINUTE, NOW)
    assert used.take("app", "1", NOW + MINUTE, NOW)
    assert len(used._ids) == len(used._by_end) == 3


def test_an_assertion_type_is_part_of_the_request(provider: Handle) -> None:
    """The helpers of these tests send the type that RFC 7523 asks for, and the emulator wants it."""
    text = signed(provider)
    refused(ask(provider, client_assertion=text, client_assertion_type=None), 900144, 400, "invalid_request")
    granted(ask(provider, client_assertion=text, client_assertion_type=ASSERTION_TYPE))
