"""Acquiring a token: what goes over the wire, what MSAL must not do, and what comes of an answer."""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from agent.errors import AcquisitionError, RejectedError
from agent.network import entra
from agent.network.granted import MAX_LIFETIME
from agent.network.transport import Call, Reply
from tests import emulator_helpers
from tests.certificate_helpers import make_chain, written
from tests.entra_helpers import CLIENT_ID, PAIR, SUCCESS, TOKEN, client, provider, unpadded, x5t_s256
from tests.network_helpers import Authority, answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.emulator_helpers import Handle

SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def entra_id() -> Iterator[Handle]:
    """The emulator over HTTPS, taking each assertion once."""
    with emulator_helpers.running(single_use=True) as handle:
        handle.register(CLIENT_ID, PAIR, secret="swordfish")
        yield handle


def test_every_call_reaches_the_wire(entra_id: Handle, tmp_path: Path) -> None:
    """Each acquisition is exactly one token request with an assertion of its own, after one discovery for all."""
    before = len(entra_id.requests)
    with client(entra_id.authority, entra_id.ca_file, tmp_path) as here:
        acquired = [here.acquire() for _ in range(4)]
    assert [entry.endpoint for entry in entra_id.requests[before:]] == ["discovery"] + ["token"] * 4
    assert len({each.token.secret for each in acquired}) == 4


def test_msal_keeps_nothing(authority: Authority, tmp_path: Path) -> None:
    """Even the same application asks again each time: neither of its caches answers (what MSAL lets us override)."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        wire = entra._Wire(here.profile, "", here.transport, Call(20), here.discovery, here.clock)
        application = entra._application(here.profile, here.credential, wire, here.clock)
        for count in (1, 2, 3):
            assert application.acquire_token_for_client(["api://x/.default"])["access_token"] == TOKEN
            assert len(there.posts) == count
        assert len(there.gets) == 1


def test_failures_are_not_replayed(entra_id: Handle, tmp_path: Path) -> None:
    """Neither a refusal nor a throttle is remembered: the next call asks again, and only the token endpoint."""
    with client(entra_id.authority, entra_id.ca_file, tmp_path) as here:
        here.acquire()
        before = len(entra_id.requests)
        entra_id.fault("error", code=700027)
        entra_id.fault("throttle", retry_after=300)
        entra_id.fault("throttle_text")
        for _ in range(3):
            with pytest.raises(AcquisitionError):
                here.acquire()
        here.acquire()
    assert [entry.endpoint for entry in entra_id.requests[before:]] == ["token"] * 4


def test_the_request_on_the_wire(authority: Authority, tmp_path: Path) -> None:
    """The form of RFC 6749 4.4.2 and RFC 7523 2.2, to where discovery says, with nothing of the environment."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        here.acquire()
    (discovery,), (request,), (form,) = there.gets, there.posts, there.forms
    assert discovery.target == "/contoso.onmicrosoft.com/v2.0/.well-known/openid-configuration"
    assert request.target == "/contoso.onmicrosoft.com/oauth2/v2.0/token"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"].startswith("token-agent/")
    assert "authorization" not in request.headers
    form.pop("client_assertion")
    assert form == {
        "client_id": CLIENT_ID,
        "client_info": "1",
        "grant_type": "client_credentials",
        "scope": "api://x/.default",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }


def test_the_assertion_on_the_wire(authority: Authority, tmp_path: Path) -> None:
    """PS256, ``x5t#S256`` unpadded, no SHA-1, no chain unless asked for; whole seconds, no ``nbf``, a new ``jti``."""
    before = datetime.now(UTC)
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        for _ in range(3):
            here.acquire()
    for header, claims in there.assertions:
        assert header == {"alg": "PS256", "typ": "JWT", "x5t#S256": x5t_s256(PAIR)}
        assert "=" not in header["x5t#S256"]
        assert claims.keys() == {"aud", "iss", "sub", "jti", "iat", "exp"}
        assert claims["aud"] == there.document["token_endpoint"]
        assert claims["iss"] == claims["sub"] == CLIENT_ID
        assert type(claims["iat"]) is int
        assert claims["exp"] == claims["iat"] + 600
        assert int(before.timestamp()) <= claims["iat"] <= datetime.now(UTC).timestamp()
    assert len({claims["jti"] for _, claims in there.assertions}) == 3


def test_the_chain_is_sent_when_asked_for(authority: Authority, tmp_path: Path) -> None:
    """With ``send_chain`` the assertion carries ``x5c``, leaf first, each certificate as plain base64."""
    chain = make_chain()
    pem = written(tmp_path / "chain.pem", chain.leaf.pem + chain.lower.cert_pem + chain.upper.cert_pem)
    key = {"certificate": {"path": str(pem), "send_chain": True}}
    with provider(authority) as there, client(there, authority.ca_file, tmp_path, **key) as here:
        here.acquire()
    header = jwt.get_unverified_header(there.forms[0]["client_assertion"])
    expected = [base64.b64encode(each.der).decode() for each in (chain.leaf, chain.lower, chain.upper)]
    assert header["x5c"][:3] == expected
    assert "x5t" not in header


@pytest.mark.parametrize("path", ["/realms/x", "/realms/x/", "", "/"])
def test_other_providers_get_their_own_name_as_audience(authority: Authority, tmp_path: Path, path: str) -> None:
    """For ``oidc_issuer`` the audience is the issuer letter by letter, an assertion lives a minute, and a root will do.

    Such a provider needs no authorization endpoint.
    """
    with provider(authority) as there:
        there.path = path
        there.discovery = {key: value for key, value in there.document.items() if key != "authorization_endpoint"}
        configured = there.url.rstrip("/")
        with client("", authority.ca_file, tmp_path, oidc_issuer=configured, scopes=("read", "write")) as here:
            here.acquire()
            here.acquire()
        issuer = there.url
    assert [get.target for get in there.gets] == [f"{path.rstrip('/')}/.well-known/openid-configuration"]
    for _, claims in there.assertions:
        assert claims["aud"] == issuer
        assert claims["exp"] == claims["iat"] + 60
    assert there.forms[0]["scope"] == "read write"


def test_a_secret_is_read_at_every_use(entra_id: Handle, tmp_path: Path) -> None:
    """A client secret works, and what the file holds now is what is sent."""
    path = written(tmp_path / "secret", b"swordfish\n")
    with client(entra_id.authority, entra_id.ca_file, tmp_path, client_secret_file=path) as here:
        here.acquire()
        written(path, b"wrong")
        with pytest.raises(AcquisitionError) as caught:
            here.acquire()
    assert caught.value.code == "AADSTS7000215"


def test_a_federated_assertion_is_read_at_every_use(authority: Authority, tmp_path: Path) -> None:
    """What the assertion file holds at the moment is sent as it is."""
    path = tmp_path / "assertion"
    texts = []
    with provider(authority) as there:
        for subject in ("first", "second"):
            claims = {"iss": "https://kubernetes.test", "sub": subject, "exp": int(datetime.now(UTC).timestamp()) + 60}
            texts.append(".".join((unpadded(b'{"alg":"RS256"}'), unpadded(json.dumps(claims).encode()), "c2ln")))
            written(path, texts[-1].encode() + b"\n")
            with client(there, authority.ca_file, tmp_path, federated={"assertion_file": str(path)}) as here:
                here.acquire()
    assert [form["client_assertion"] for form in there.forms] == texts


def test_the_environment_redirects_nobody(entra_id: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions of the environment and instance discovery lead nowhere else, and cost no request."""
    monkeypatch.setenv("MSAL_FORCE_REGION", "westeurope")
    monkeypatch.setenv("REGION_NAME", "westeurope")
    before = len(entra_id.requests)
    with client(entra_id.authority, entra_id.ca_file, tmp_path) as here:
        here.acquire()
    assert [entry.endpoint for entry in entra_id.requests[before:]] == ["discovery", "token"]


class Fixed:
    """A clock that stands still."""

    def __init__(self, now: datetime) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def boot(self) -> float:
        return 0.0

    async def sleep_until(self, deadline: datetime) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=2), timedelta(minutes=-7)])
def test_the_skew_is_measured(authority: Authority, tmp_path: Path, ahead: timedelta) -> None:
    """The provider's ``Date`` tells how far this machine's clock is off; a token's life counts from our own clock."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        now = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
        here.clock = Fixed(now + ahead)  # type: ignore[assignment]
        there.token = answer(json.dumps(SUCCESS), Date="Sun, 01 Mar 2026 12:00:00 GMT")
        acquired = here.acquire()
        assert acquired.skew == ahead
        assert acquired.token.acquired_at == now + ahead
        assert acquired.token.lifetime == timedelta(hours=1)
        there.token = dict(SUCCESS)
        assert here.acquire().skew is None


def test_the_attempt_can_be_found_in_the_providers_logs(authority: Authority, tmp_path: Path) -> None:
    """The correlation id that was sent is told, on success and on failure, and so is the provider's request id."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = answer(json.dumps(SUCCESS), x_ms_request_id="trace-1")
        acquired = here.acquire()
        assert acquired.request_id == "trace-1"
        there.token = answer("Too Many Requests", status=429)
        with pytest.raises(AcquisitionError) as caught:
            here.acquire()
    sent = [post.headers["client-request-id"] for post in there.posts]
    assert [acquired.correlation_id, caught.value.correlation_id] == sent
    assert len(set(sent)) == 2


LIFETIMES: list[tuple[Any, int | None]] = [
    (3599, 3599),
    ("3599", 3599),
    (" 3599 ", 3599),
    (3599.9, 3599),
    (1, 1),
    (10**30, MAX_LIFETIME),
    (1e300, MAX_LIFETIME),
    (0, None),
    (-5, None),
    ("-5", None),
    ("soon", None),
    ("", None),
    (None, None),
    (True, None),
    ([3599], None),
    ({"seconds": 3599}, None),
    (float("inf"), None),
    (float("nan"), None),
]


@pytest.mark.parametrize(("sent", "seconds"), LIFETIMES)
def test_lifetimes_as_they_come(authority: Authority, tmp_path: Path, sent: Any, seconds: int | None) -> None:
    """``expires_in`` counts as a number or as a text; what makes no sense makes no token, if nothing else tells."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = SUCCESS | {"expires_in": sent}
        if seconds is not None:
            assert here.acquire().token.lifetime == seconds * SECOND
            return
        with pytest.raises(AcquisitionError, match="does not say how long the token lives"):
            here.acquire()


def test_a_token_may_tell_its_own_life(authority: Authority, tmp_path: Path) -> None:
    """Without ``expires_in`` a JWT's own times are used; claims that make no sense are not."""
    header, now = unpadded(b'{"alg":"none"}'), int(time.time())
    good = [(f'{{"iat": {now}, "exp": {now + 900}}}', 900), (f'{{"iat": {now}.5, "exp": {now + 900}.5}}', 900)]
    bad = [
        f'{{"iat": {now}}}',
        '{"iat": "x", "exp": "y"}',
        '{"iat": 1, "exp": Infinity}',
        '{"iat": 1, "exp": NaN}',
        "[",
    ]
    bad += ["[" * 20000]
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        for claims, seconds in good:
            there.token = {"access_token": f"{header}.{unpadded(claims.encode())}.sig"}
            acquired = here.acquire()
            assert (seconds - 3) * SECOND <= acquired.token.lifetime <= seconds * SECOND
            assert acquired.token.token_type == "Bearer"
        for claims in bad:
            there.token = {"access_token": f"{header}.{unpadded(claims.encode())}.sig"}
            with pytest.raises(AcquisitionError, match="does not say how long the token lives"):
                here.acquire()


@pytest.mark.parametrize(("sent", "seconds"), LIFETIMES)
def test_wishes_for_a_refresh_as_they_come(
    authority: Authority, tmp_path: Path, sent: Any, seconds: int | None
) -> None:
    """``refresh_in`` is a wish: what makes no sense is passed over, and the token is good all the same."""
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = SUCCESS | {"refresh_in": sent}
        expected = None if seconds is None else seconds * SECOND
        assert here.acquire().token.refresh_in == expected


def test_what_msal_has_no_use_for_does_no_harm(authority: Authority, tmp_path: Path) -> None:
    """Members that MSAL would stumble over, such as a broken ID token, do not keep a token from us."""
    strange = {"id_token": "x", "client_info": "y", "refresh_in": "z", "refresh_on": [], "scope": 5, "error_uri": ""}
    with provider(authority) as there, client(there, authority.ca_file, tmp_path) as here:
        there.token = strange | SUCCESS
        assert here.acquire().token.secret == TOKEN


class Answering:
    """A transport without a network: discovery, then a token and a refusal by turns."""

    def __init__(self, url: str) -> None:
        self.document = {"issuer": url, "token_endpoint": f"{url}/token"}
        self.asked = 0

    def request(self, _call: Call, method: str, *_: object) -> Reply:
        self.asked += 1
        if method == "GET":
            return Reply(200, {}, json.dumps(self.document).encode())
        if self.asked % 2:
            return Reply(401, {}, b'{"error": "invalid_client", "error_description": "AADSTS700027: no"}')
        return Reply(200, {}, json.dumps(SUCCESS).encode())


def test_a_thousand_attempts_leave_nothing_behind(tmp_path: Path) -> None:
    """Successes and refusals, a thousand of them, leave neither memory nor threads behind."""

    def attempts(count: int) -> None:
        for _ in range(count):
            with contextlib.suppress(RejectedError):
                here.acquire()
        gc.collect()

    with client("https://provider.test/contoso", None, tmp_path) as here:
        here.transport = transport = Answering("https://provider.test/contoso")
        attempts(200)  # caches fill
        blocks, threads = sys.getallocatedblocks(), threading.active_count()
        attempts(1000)
        assert sys.getallocatedblocks() - blocks < 1000
        assert threading.active_count() == threads
    assert transport.asked == 1201
