"""What the emulator gives: tokens to MSAL's own credentials and to the agent, verifiable by its published keys."""

from __future__ import annotations

import json
import ssl
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
import msal
import pytest
import requests

from agent import clock
from agent.credentials import store as credentials
from agent.emulator.wire import Request
from agent.errors import RejectedError
from agent.network import entra
from agent.network.transport import Call, HttpsTransport
from tests.certificate_helpers import CLIENT_ID, DAY, NOW, certificate_profile, make_certificate, pool_key, written
from tests.emulator_helpers import Handle, InProcessTransport, in_process, running, token_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.config.model import Profile

_NOW = datetime.now(UTC)
PAIR = make_certificate(not_before=_NOW - DAY, not_after=_NOW + DAY)
"""Valid now: these tests live in real time."""
PAIR_THEN = make_certificate()
"""Valid at the time of tests without a wire."""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Handle]:
    """A server that knows the app and its certificate."""
    with running(token_lifetime=timedelta(minutes=10)) as handle:
        handle.register(CLIENT_ID, PAIR, roles=("Invoices.Read", "Invoices.Write"))
        yield handle


def fetch(handle: Handle, url: str) -> Any:
    """Read a document over HTTPS, as strictly as Python 3.13 does by default."""
    context = ssl.create_default_context(cafile=str(handle.ca_file))
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(url, timeout=10) as answer:
        return json.load(answer)


def by_msal(handle: Handle, credential: dict[str, str], scope: str = "api://x/.default") -> dict[str, Any]:
    """Ask for a token as a program with MSAL does."""
    with requests.Session() as session:
        session.verify, session.trust_env = str(handle.ca_file), False
        app = msal.ConfidentialClientApplication(
            CLIENT_ID,
            authority=handle.authority,
            client_credential=credential,
            http_client=session,
            instance_discovery=False,
        )
        result: dict[str, Any] = app.acquire_token_for_client([scope])
    return result


def verified(handle: Handle, token: str, audience: str = "api://x") -> dict[str, Any]:
    """Verify a token as a resource does: discovery, then keys, then signature, issuer, audience and times."""
    document = fetch(handle, f"{handle.authority}/v2.0/.well-known/openid-configuration")
    keys = jwt.PyJWKSet.from_dict(fetch(handle, document["jwks_uri"]))
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = jwt.decode(token, key, ["RS256"], audience=audience, issuer=document["issuer"])
    return claims


@pytest.mark.parametrize("form", ["thumbprint", "thumbprint and chain", "certificate", "pfx", "pfx and chain"])
def test_msals_own_certificate_credentials_get_a_token(emulator: Handle, form: str, tmp_path: Path) -> None:
    """Each form that MSAL documents is accepted, and the token verifies by the published keys."""
    key = {"private_key": PAIR.key_pem.decode()}
    pfx = {"private_key_pfx_path": str(written(tmp_path / "app.pfx", PAIR.pfx()))}
    public = {"public_certificate": PAIR.cert_pem.decode()}
    credential = {
        "thumbprint": {**key, "thumbprint": PAIR.thumbprint},
        "thumbprint and chain": {**key, "thumbprint": PAIR.thumbprint, **public},
        "certificate": {**key, **public},
        "pfx": pfx,
        "pfx and chain": {**pfx, **public},
    }[form]
    result = by_msal(emulator, credential)
    assert "access_token" in result, result
    assert verified(emulator, result["access_token"])["appid"] == CLIENT_ID


def test_msal_learns_why_it_is_refused(emulator: Handle) -> None:
    """A refusal arrives in MSAL's result with all that Entra sends."""
    stranger = make_certificate("stranger", pool_key(1))
    credential = {"private_key": stranger.key_pem.decode(), "thumbprint": stranger.thumbprint}
    result = by_msal(emulator, credential)
    assert (result["error"], result["error_codes"]) == ("invalid_client", [700027])
    assert stranger.thumbprint in result["error_description"]


def test_a_token_says_what_entras_say(emulator: Handle) -> None:
    """Header and claims are those of Entra's app-only tokens; every token is another."""
    key = {"private_key": PAIR.key_pem.decode(), "thumbprint": PAIR.thumbprint}
    before = int(time.time())
    result, other = by_msal(emulator, key), by_msal(emulator, key)
    assert (result["token_type"], result["expires_in"], result["ext_expires_in"]) == ("Bearer", 600, 600)
    claims = verified(emulator, result["access_token"])
    tenant = emulator.provider.registry.tenants[0]
    assert claims["roles"] == ["Invoices.Read", "Invoices.Write"]
    assert (claims["appid"], claims["azp"], claims["tid"]) == (CLIENT_ID, CLIENT_ID, tenant.id)
    assert (claims["appidacr"], claims["azpacr"], claims["idtyp"], claims["ver"]) == ("2", "2", "app", "2.0")
    assert before <= claims["iat"] == claims["nbf"] == claims["exp"] - 600 <= time.time()
    assert claims["oid"] == claims["sub"]
    assert set(claims) >= {"aio", "idp", "rh", "uti", "xms_tcdt"}
    header = jwt.get_unverified_header(result["access_token"])
    assert (header["alg"], header["typ"], header["x5t"]) == ("RS256", "JWT", header["kid"])
    assert verified(emulator, other["access_token"])["uti"] != claims["uti"]
    assert result["access_token"] != other["access_token"]


def test_discovery_is_entras(emulator: Handle) -> None:
    """Name and GUID lead to the same endpoints, which hold the GUID; instance discovery names the tenant's document."""
    tenant = emulator.provider.registry.tenants[0]
    by_name, by_id = (
        fetch(emulator, f"{emulator.url}/{name}/v2.0/.well-known/openid-configuration")
        for name in (tenant.name, tenant.id)
    )
    assert by_name == by_id
    assert by_name["token_endpoint"] == f"{emulator.url}/{tenant.id}/oauth2/v2.0/token"
    assert by_name["issuer"] == f"{emulator.url}/{tenant.id}/v2.0"
    common = fetch(emulator, f"{emulator.url}/common/v2.0/.well-known/openid-configuration")
    assert common["issuer"] == f"{emulator.url}/{{tenantid}}/v2.0"
    query = f"api-version=1.1&authorization_endpoint={emulator.authority}/oauth2/v2.0/authorize"
    instance = fetch(emulator, f"{emulator.url}/common/discovery/instance?{query}")
    assert fetch(emulator, instance["tenant_discovery_endpoint"]) == by_name
    assert instance["metadata"][0]["aliases"] == [emulator.url.removeprefix("https://")]


def profile_of(handle: Handle, path: Path) -> Profile:
    """Return a profile of the app with its certificate in a file."""
    written(path, PAIR.pem)
    update = {"authority": handle.authority, "ca_file": handle.ca_file, "tenant": None}
    return certificate_profile(path).model_copy(update=update)


def test_the_agent_gets_a_token_over_the_wire(emulator: Handle, tmp_path: Path) -> None:
    """The agent's own acquisition works, again and again, since it signs afresh each time."""
    profile = profile_of(emulator, tmp_path / "app.pem")
    credential = credentials.load(profile, datetime.now(UTC))
    transport, now = HttpsTransport(emulator.ca_file), clock.SystemClock()
    discovery = entra.Discovery(now)
    try:
        for _ in range(3):
            acquired = entra.acquire(profile, credential, transport, Call(20), discovery, now)
            assert verified(emulator, acquired.token.secret)["aud"] == "api://x"
    finally:
        transport.close()
    assert acquired.token.lifetime == timedelta(minutes=10)
    assert emulator.token_requests[-1].thumbprint is not None


def test_the_agent_gets_a_token_without_a_wire(tmp_path: Path) -> None:
    """The same acquisition works in process, at any time; an unknown certificate is refused there as well."""

    class Fixed:
        def now(self) -> datetime:
            return NOW

        def boot(self) -> float:
            return 0.0

    handle = in_process()
    handle.register(CLIENT_ID, PAIR_THEN)
    handle.settings(refresh_in="30m")
    profile = certificate_profile(written(tmp_path / "app.pem", PAIR_THEN.pem))
    profile = profile.model_copy(update={"authority": handle.authority, "tenant": None})
    credential, fixed = credentials.load(profile, NOW), Fixed()
    transport, discovery = InProcessTransport(handle, fixed), entra.Discovery(fixed)  # type: ignore[arg-type]
    acquired = entra.acquire(profile, credential, transport, Call(20), discovery, fixed)  # type: ignore[arg-type]
    assert (acquired.token.acquired_at, acquired.token.lifetime) == (NOW, timedelta(hours=1))
    assert acquired.token.refresh_in == timedelta(minutes=30)
    handle.unregister()
    handle.register(CLIENT_ID, PAIR)
    with pytest.raises(RejectedError) as caught:
        entra.acquire(profile, credential, transport, Call(20), discovery, fixed)  # type: ignore[arg-type]
    assert caught.value.code == "AADSTS700027"


def test_a_secret_gets_a_token_that_tells_so(emulator: Handle) -> None:
    """A token by secret is marked as such, and an app without roles has no claim for them."""
    emulator.register("secretive", secret="swordfish")
    request = token_request(emulator, client_id="secretive", client_secret="swordfish")
    body = json.loads(emulator.provider.answer(request, datetime.now(UTC)).body)
    claims = verified(emulator, body["access_token"])
    assert (claims["azpacr"], "roles" in claims) == ("1", False)


def test_tenants_and_principals_are_the_same_in_every_run() -> None:
    """GUIDs follow from names, so that what was noted yesterday is right today."""
    claims = []
    for _ in range(2):
        handle = in_process()
        handle.register("app", secret="s")
        body = json.loads(handle.provider.answer(token_request(handle, client_id="app", client_secret="s"), NOW).body)
        claims.append(jwt.decode(body["access_token"], options={"verify_signature": False}))
    assert [claims[0][name] for name in ("tid", "oid", "iss")] == [claims[1][name] for name in ("tid", "oid", "iss")]


def test_a_thousand_tokens_take_a_few_seconds(emulator: Handle) -> None:
    """Eight clients at once get a thousand tokens by secret within ten seconds, over kept connections."""
    emulator.register("busy", secret="s")
    request = token_request(emulator, client_id="busy", client_secret="s")
    url = f"{emulator.url}{request.path}"

    def ask_many(_: int) -> set[int]:
        transport = HttpsTransport(emulator.ca_file)
        try:
            return {transport.request(Call(20), "POST", url, request.headers, request.body).status for _ in range(125)}
        finally:
            transport.close()

    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        assert set.union(*pool.map(ask_many, range(8))) == {200}
    assert time.monotonic() - began < 10


def test_paths_that_are_none_are_not_found(emulator: Handle) -> None:
    """What Entra does not have is 404, not a traceback."""
    for path in ("/", "/x", f"/{emulator.tenant}/oauth2/v2.0/authorize", "//", "/a/b/c/d?e=f"):
        assert emulator.provider.answer(Request("GET", path), NOW).status == 404
