"""No token: every way in which a provider, or what stands in its place, fails becomes one of our errors."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import AcquisitionError, CredentialError, RejectedError, TransientError
from agent.network import entra
from agent.network.transport import Call, DroppedError
from tests import emulator_helpers
from tests.certificate_helpers import written
from tests.entra_helpers import CLIENT_ID, PAIR, SUCCESS, TOKEN, client, provider
from tests.network_helpers import Authority, Peer, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.emulator_helpers import Handle
    from tests.entra_helpers import Client, Provider


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server() -> Iterator[Handle]:
    with emulator_helpers.running(single_use=True) as handle:
        handle.register(CLIENT_ID, PAIR)
        yield handle


@pytest.fixture
def entra_id(server: Handle) -> Iterator[Handle]:
    """The emulator over HTTPS, without faults of earlier tests."""
    server.recover()
    yield server
    server.recover()


def failure(here: Client, timeout: float = 20.0) -> AcquisitionError:
    """Return the error of an acquisition; it has a hint, is one line, and shows no token and no assertion."""
    with pytest.raises(AcquisitionError) as caught:
        here.acquire(timeout)
    error = caught.value
    assert error.hint
    for text in (error.message, error.hint, repr(error), str(error.__cause__)):
        assert text.isprintable()
        assert TOKEN not in text
        assert "eyJ" not in text
    return error


# ---- what the provider says


FAULTS: list[tuple[str, dict[str, Any], type[AcquisitionError], bool]] = [
    ("status", {"status": 500}, TransientError, True),
    ("status", {"status": 503}, TransientError, True),
    ("status", {"status": 504}, TransientError, True),
    ("throttle", {"retry_after": 7}, TransientError, False),
    ("throttle_text", {"retry_after": 7}, TransientError, False),
    ("html", {}, TransientError, True),
    ("html", {"status": 403}, TransientError, True),
    ("html", {"status": 407}, TransientError, True),
    ("garbage", {}, TransientError, True),
    ("drop", {}, TransientError, True),
    ("error", {"code": 700027}, RejectedError, False),
    ("error", {"code": 700016}, RejectedError, False),
    ("error", {"code": 50196}, TransientError, False),
]


CASES = [(endpoint, *fault) for endpoint in ("token", "discovery") for fault in FAULTS]
CASES = [case for case in CASES if case[:2] != ("discovery", "error")]  # refusals concern tokens only


@pytest.mark.parametrize(("endpoint", "kind", "details", "expected", "unreachable"), CASES)
def test_faults_are_told_apart(  # noqa: PLR0913 - a table
    entra_id: Handle,
    tmp_path: Path,
    endpoint: str,
    kind: str,
    details: dict[str, Any],
    expected: type[AcquisitionError],
    *,
    unreachable: bool,
) -> None:
    """Each fault of token endpoint and discovery is transient or rejected as it should be; the next call works."""
    count = 2 if (endpoint, kind) == ("token", "drop") else 1  # the first one strikes a kept connection: see below
    entra_id.fault(kind, count, endpoint=endpoint, **details)
    with client(entra_id.authority, entra_id.ca_file, tmp_path) as here:
        error = failure(here)
        assert type(error) is expected
        assert getattr(error, "unreachable", False) is unreachable
        if kind.startswith("throttle"):
            assert isinstance(error, TransientError)
            assert error.retry_after == timedelta(seconds=7)
        assert here.acquire().token.secret


def test_a_provider_that_hangs(entra_id: Handle, tmp_path: Path) -> None:
    """No answer within the time-out is transient, and the same text comes from whoever watches the clock."""
    entra_id.fault("hang")
    with client(entra_id.authority, entra_id.ca_file, tmp_path) as here:
        error = failure(here, timeout=0.3)
        assert isinstance(error, TransientError)
        assert error.unreachable
        assert error.message == entra.timed_out(here.profile).message
        assert here.acquire().token.secret


def test_a_refused_certificate_is_named(entra_id: Handle, tmp_path: Path) -> None:
    """A rejection names code and thumbprint, as a person has to look for them in the portal."""
    entra_id.fault("unregistered")
    with client(entra_id.authority, entra_id.ca_file, tmp_path) as here:
        error = failure(here)
    assert error.code == "AADSTS700027"
    assert PAIR.thumbprint in error.hint
    assert error.correlation_id
    assert error.correlation_id == entra_id.requests[-1].correlation_id


def test_a_wrong_tenant_is_rejected(entra_id: Handle, tmp_path: Path) -> None:
    """A tenant that does not exist is the provider's verdict with its code, not MSAL's advice."""
    with client(f"{entra_id.url}/fabrikam.onmicrosoft.com", entra_id.ca_file, tmp_path) as here:
        error = failure(here)
    assert isinstance(error, RejectedError)
    assert error.code == "AADSTS90002"
    assert "double check" not in f"{error.message}{error.hint}"


def test_nobody_listens(tmp_path: Path) -> None:
    """Without a provider the error names where it should be."""
    with client("https://127.0.0.1:1/contoso.test", None, tmp_path) as here:
        error = failure(here)
    assert error.message == "no connection to 127.0.0.1:1: Connection refused"


@pytest.mark.parametrize("status", [301, 302, 307])
def test_redirects_lead_nowhere(authority: Authority, tmp_path: Path, status: int) -> None:
    """A redirect of the token endpoint is transient; the credential is not sent where it points."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = answer("", status=status, Location=f"{there.url}/elsewhere")
        error = failure(here)
        assert isinstance(error, TransientError)
        assert error.unreachable
        assert len(there.posts) == 1


# ---- answers that are none


UNUSABLE: dict[str, Any] = {
    "no token": {"token_type": "Bearer", "expires_in": 3600},
    "null": SUCCESS | {"access_token": None},
    "empty": SUCCESS | {"access_token": ""},
    "number": SUCCESS | {"access_token": 5},
    "list": SUCCESS | {"access_token": [TOKEN]},
    "blank": SUCCESS | {"access_token": f"{TOKEN} {TOKEN}"},
    "newline": SUCCESS | {"access_token": f"{TOKEN}\nX-Header: 1"},
    "NUL": SUCCESS | {"access_token": f"{TOKEN}\0"},
    "accent": SUCCESS | {"access_token": f"{TOKEN}é"},
    "surrogate": SUCCESS | {"access_token": f"{TOKEN}\ud800"},
    "type of two words": SUCCESS | {"token_type": "Bearer\r\nX-Header: 1"},
    "type null": SUCCESS | {"token_type": None},
    "type number": SUCCESS | {"token_type": 5},
}


@pytest.mark.parametrize("sent", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_unusable_tokens_are_refused(authority: Authority, tmp_path: Path, sent: Any) -> None:
    """A token that could not stand in a header is none, whatever else the answer says."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = sent
        error = failure(here)
        assert isinstance(error, TransientError)
        assert error.unreachable
        assert error.message == f"{there.server.origin}: the answer holds no usable access_token"


BODIES: dict[str, bytes] = {
    "empty": b"",
    "text": TOKEN.encode(),
    "list": b"[]",
    "string": json.dumps(TOKEN).encode(),
    "broken off": b'{"access_token": "' + TOKEN.encode(),
    "two": b'{"access_token": "x"}{"access_token": "y"}',
    "not UTF-8": b'{"access_token": "\xff\xfe"}',
    "deep": b"[" * 100000,
    "deeper": b'{"a":' * 100000,
    "digits": b'{"expires_in": ' + b"9" * 10000 + b"}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("status", [200, 400, 503])
def test_what_is_no_json_object_is_no_answer(authority: Authority, tmp_path: Path, body: bytes, status: int) -> None:
    """Whatever its status, an answer without a JSON object says that something is wrong with the provider."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = answer(body, status=status)
        error = failure(here)
        assert isinstance(error, TransientError)
        assert error.unreachable


def test_a_refusal_with_status_200_is_a_refusal(authority: Authority, tmp_path: Path) -> None:
    """Some gateways answer everything with 200; an ``error`` is one all the same."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = {"error": "invalid_client", "error_description": f"no {TOKEN}"} | {"expires_in": 5}
        with pytest.raises(RejectedError) as caught:
            here.acquire()
    assert caught.value.code == "invalid_client"


# ---- discovery


def without(document: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != key}


DOCUMENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "empty": lambda _: {},
    "list": lambda _: [],
    "page": lambda _: answer("<html>", Content_Type="text/html"),
    "no endpoint": lambda good: without(good, "token_endpoint"),
    "no issuer": lambda good: without(good, "issuer"),
    "endpoint null": lambda good: good | {"token_endpoint": None},
    "endpoint list": lambda good: good | {"token_endpoint": [good["token_endpoint"]]},
    "endpoint plain": lambda good: good | {"token_endpoint": "http://127.0.0.1/token"},
    "endpoint relative": lambda good: good | {"token_endpoint": "/token"},
    "endpoint without path": lambda good: good | {"token_endpoint": "https://127.0.0.1"},
    "endpoint without host": lambda good: good | {"token_endpoint": "https:///token"},
    "endpoint with wrong port": lambda good: good | {"token_endpoint": "https://127.0.0.1:99999/token"},
    "endpoint broken": lambda good: good | {"token_endpoint": "https://[::1/token"},
    "endpoint with blank": lambda good: good | {"token_endpoint": good["token_endpoint"] + " x"},
    "endpoint with accent": lambda good: good | {"token_endpoint": good["token_endpoint"] + "é"},
    "issuer number": lambda good: good | {"issuer": 5},
    "issuer null": lambda good: good | {"issuer": None},
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_a_bad_document_is_not_remembered(
    authority: Authority, tmp_path: Path, document: Callable[[dict[str, Any]], Any]
) -> None:
    """A discovery document that cannot be used is transient; once it is mended the next call works."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.discovery = document(there.document)
        error = failure(here)
        assert isinstance(error, TransientError)
        assert error.unreachable
        there.discovery = None
        assert here.acquire().token.secret == TOKEN


@pytest.mark.parametrize(
    "issuer", ["{host}/realms/other", "https://other.test/realms/x", "https://login.microsoftonline.com/x"]
)
def test_another_issuer_is_rejected(authority: Authority, tmp_path: Path, issuer: str) -> None:
    """A provider that calls itself otherwise than configured gets no assertion; both names are told."""
    with provider(authority) as there:
        there.path = "/realms/x"
        there.discovery = there.document | {"issuer": issuer.format(host=f"https://{there.server.origin}")}
        with client("", authority.ca_file, tmp_path, oidc_issuer=there.url) as here:
            error = failure(here)
    assert isinstance(error, RejectedError)
    assert there.discovery["issuer"] in error.message
    assert there.url in error.message
    assert "`oidc_issuer`" in error.hint
    assert not there.posts


REFUSALS = [
    (401, '{"error": "invalid_client"}'),
    (400, '{"error": "unauthorized_client", "error_description": "AADSTS700016: unknown."}'),
    (400, '{"error": "invalid_scope"}'),
    (403, '{"error": "access_denied"}'),
    (200, '{"error": "invalid_grant"}'),
    (429, "slow down"),
]


@pytest.mark.parametrize(("status", "text"), REFUSALS)
def test_a_refusal_says_that_the_endpoint_is_there(
    authority: Authority, tmp_path: Path, status: int, text: str
) -> None:
    """After an answer to this client, about its credential, scope or haste, discovery is not asked again."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        here.acquire()
        there.token = answer(text, status=status)
        failure(here)
        failure(here)
        assert len(there.gets) == 1


GONE = [
    (404, "<html>"),
    (404, '{"error": "not_found", "error_description": "no such endpoint"}'),
    (404, '{"error": "invalid_client"}'),
    (410, '{"message": "moved"}'),
    (400, '{"error": "not_found"}'),
    (400, '{"error": "invalid_request"}'),
    (401, "{}"),
    (403, '{"message": "Missing Authentication Token"}'),
    (405, '{"error": "method_not_allowed"}'),
    (200, "{}"),
    (503, '{"error": "temporarily_unavailable"}'),
]


@pytest.mark.parametrize(("status", "text"), GONE)
def test_discovery_is_asked_again_when_the_endpoint_may_be_gone(
    authority: Authority, tmp_path: Path, status: int, text: str
) -> None:
    """After whatever is not plainly a token endpoint's answer to this client, it may have moved."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        here.acquire()
        there.token = answer(text, status=status)
        failure(here)
        there.token = dict(SUCCESS)
        here.acquire()
        assert len(there.gets) == 2


def test_discovery_is_asked_again_after_a_day(authority: Authority, tmp_path: Path) -> None:
    """What is remembered has an end, by the clock that runs through a suspend."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        boot = [1000.0]
        here.discovery._clock = type("Clock", (), {"boot": lambda _: boot[0]})()
        for expected in (1, 1, 2):
            here.acquire()
            assert len(there.gets) == expected
            boot[0] += 13 * 3600


def test_what_is_remembered_belongs_to_one_authority(authority: Authority, tmp_path: Path) -> None:
    """Two tenants of one host have a document each, and forgetting one leaves the other."""
    with provider(authority) as there:
        with client(there, authority.ca_file, tmp_path) as here:
            here.acquire()
            there.path = "/fabrikam.test"
            here.profile = here.profile.model_copy(update={"authority": there.url})
            here.acquire()
            there.token = answer("", status=503)
            failure(here)
            there.token, there.path = dict(SUCCESS), "/contoso.onmicrosoft.com"
            here.profile = here.profile.model_copy(update={"authority": there.url})
            here.acquire()
        assert [get.target.split("/")[1] for get in there.gets] == ["contoso.onmicrosoft.com", "fabrikam.test"]


# ---- connections that end


def dropping(times: int) -> Callable[[Peer, Provider], None]:
    """Return a script that answers properly, but ends so many kept connections without an answer to a token request."""
    left = [times]

    def script(peer: Peer, there: Provider) -> None:
        answered = 0
        while request := peer.request():
            if request.method == "POST" and answered and left[0]:
                left[0] -= 1
                return
            peer.send(answer(json.dumps(there.document if request.method == "GET" else there.token)))
            answered += 1

    return script


def test_a_kept_connection_that_ends_costs_a_second(authority: Authority, tmp_path: Path) -> None:
    """The request is made once more, a second later, with an assertion of its own; discovery is not asked again."""
    with provider(authority, dropping(1)) as there, client(there, authority.ca_file, tmp_path) as here:
        began = time.monotonic()
        assert here.acquire().token.secret == TOKEN
        assert time.monotonic() - began >= entra.AGAIN_AFTER
        assert len(there.gets) == 1
        assert len(there.posts) == 2
        assert len({claims["jti"] for _, claims in there.assertions}) == 2


def test_without_time_for_another_try_the_drop_is_told(authority: Authority, tmp_path: Path) -> None:
    """Where the time-out leaves no second, the failure is told at once."""
    with provider(authority, dropping(1)) as there, client(there, authority.ca_file, tmp_path) as here:
        began = time.monotonic()
        error = failure(here, timeout=0.9)
        assert isinstance(error, DroppedError)
        assert time.monotonic() - began < 0.9
        assert len(there.posts) == 1


def test_a_provider_that_ends_new_connections_is_asked_once(authority: Authority, tmp_path: Path) -> None:
    """Only a kept connection may end without meaning anything: no loop of tries hides in one attempt."""

    def script(peer: Peer, there: Provider) -> None:
        request = peer.request()
        if request and request.method == "GET":
            peer.send(answer(json.dumps(there.document), Connection="close"))

    with provider(authority, script) as there, client(there, authority.ca_file, tmp_path) as here:
        error = failure(here)
    assert isinstance(error, TransientError)
    assert error.unreachable
    assert len(there.posts) == 1


def test_given_up_in_the_pause_nothing_more_is_sent(authority: Authority, tmp_path: Path) -> None:
    """An attempt that is aborted while it waits for its second try ends without one."""
    call = Call(20)

    def script(peer: Peer, there: Provider) -> None:
        while request := peer.request():
            if request.method == "POST":
                peer.abort()
                call.abort()
                return
            peer.send(answer(json.dumps(there.document)))

    with provider(authority, script) as there, client(there, authority.ca_file, tmp_path) as here:
        began = time.monotonic()
        with pytest.raises(TransientError):
            entra.acquire(here.profile, here.credential, here.transport, call, here.discovery, here.clock)
        assert time.monotonic() - began < entra.AGAIN_AFTER
        assert len(there.posts) == 1


# ---- our own side


def test_missing_files_are_named(authority: Authority, tmp_path: Path) -> None:
    """An assertion or secret that is not there is a matter of that file, not of the provider; nothing is sent."""
    missing, empty = tmp_path / "missing", written(tmp_path / "empty", b"")
    cases: list[tuple[dict[str, Any], Path]]
    cases = [({"federated": {"assertion_file": str(path)}}, path) for path in (missing, empty)]
    cases += [({"client_secret_file": path}, path) for path in (missing, empty)]
    with provider(authority) as there:
        for keys, path in cases:
            with client(there, authority.ca_file, tmp_path, **keys) as here, pytest.raises(CredentialError) as caught:
                here.acquire()
            assert caught.value.path == path
        assert not there.posts
