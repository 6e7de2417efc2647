"""Against a provider that nobody here wrote: npm's oidc-provider, which takes PS256 and each assertion once.

`npm ci --prefix tests/interop` brings it. Without Node or without it these tests skip, and say so; where
TOKEN_AGENT_REQUIRE_INTEROP or TOKEN_AGENT_SKIP_NOTHING is set they fail instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import jwt
import pytest

from agent.credentials import store as credentials
from agent.errors import RejectedError
from agent.network.transport import Call, HttpsTransport
from tests.certificate_helpers import Pair, certificate_profile, make_certificate, pool_key, written
from tests.entra_helpers import PAIR, client, unpadded
from tests.network_helpers import DAY, Authority
from tests.process_helpers import environment, run, start
from tests.reader_helpers import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.network.transport import Reply

FOLDER = Path(__file__).parent / "interop"
RESOURCE = "https://api.example.com"
APP, OTHER_APP = "billing-app", "other-app"
OTHER = make_certificate("other", pool_key(7), not_before=datetime.now(UTC) - DAY, not_after=datetime.now(UTC) + DAY)


@dataclass
class Provider:
    """The provider as it runs."""

    process: subprocess.Popen[str]
    issuer: str
    ca_file: Path

    def refusal(self) -> dict[str, str]:
        """Return what the provider itself says about the next request it refused."""
        assert self.process.stdout
        said: dict[str, str] = json.loads(self.process.stdout.readline())
        return said

    def register(self, client_id: str, pair: Pair) -> list[dict[str, str]]:
        """Add a key to those of an app; return what the provider has said of requests it refused before."""
        assert self.process.stdin
        print(json.dumps({"client": client_id, "jwk": jwk(pair)}), file=self.process.stdin, flush=True)
        refusals = []
        while (said := self.refusal()) != {"registered": client_id}:
            refusals.append(said)
        return refusals

    def get(self, path: str) -> Any:
        """Return a JSON document of the provider."""
        with contextlib.closing(HttpsTransport(self.ca_file)) as transport:
            return json.loads(transport.request(Call(20), "GET", f"{self.issuer}{path}", {}).body)

    def verified(self, token: str) -> dict[str, Any]:
        """Return the claims of a token, checked as the resource would: against the provider's keys."""
        keys = jwt.PyJWKSet.from_dict(self.get("/jwks"))
        key = keys[jwt.get_unverified_header(token)["kid"]]
        claims: dict[str, Any] = jwt.decode(token, key, ["RS256"], audience=RESOURCE, issuer=self.issuer)
        return claims


def jwk(pair: Pair) -> dict[str, str]:
    """Return the public key as it is registered: without ``kid``, which our assertions do not name either."""
    numbers = pair.public_key.public_numbers()
    fields = {"n": numbers.n, "e": numbers.e}
    return {"kty": "RSA"} | {k: unpadded(v.to_bytes((v.bit_length() + 7) // 8, "big")) for k, v in fields.items()}


def require(present: object, what: str) -> None:
    """Skip visibly, or fail where nothing may be skipped."""
    if present:
        return
    if {"TOKEN_AGENT_REQUIRE_INTEROP", "TOKEN_AGENT_SKIP_NOTHING"} & os.environ.keys():
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


@contextlib.contextmanager
def running(authority: Authority, path: str, lifetime: int = 600) -> Iterator[Provider]:
    """Run the provider below a path, its tokens good for so many seconds; two apps are registered."""
    require(shutil.which("node"), "node")
    require((FOLDER / "node_modules" / "oidc-provider").is_dir(), "oidc-provider (npm ci --prefix tests/interop)")
    key, mark, certificate = authority.server_pem().decode().partition("-----BEGIN CERTIFICATE")
    settings = {"key": key, "certificate": mark + certificate, "path": path, "lifetime": lifetime}
    settings |= {"clients": {APP: jwk(PAIR), OTHER_APP: jwk(OTHER)}}
    with subprocess.Popen(
        ["node", "provider.mjs"],
        cwd=FOLDER,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        print(json.dumps(settings), file=process.stdin, flush=True)
        yield Provider(process, json.loads(process.stdout.readline())["issuer"], authority.ca_file)
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def provider(authority: Authority) -> Iterator[Provider]:
    with running(authority, "/realms/x") as provider:
        yield provider


def configuration(folder: Path, provider: Provider, client_id: str = APP, refresh: str = "{}") -> Path:
    """Write a configuration as an administrator would, with the certificate of the first app."""
    written(folder / "app.pem", PAIR.pem)
    return written(
        folder / "config.toml",
        f"""
[agent]
runtime_dir = "{folder}/run"
state_dir = "{folder}/state"
log_format = "json"

[[profile]]
name = "billing"
oidc_issuer = "{provider.issuer}"
client_id = "{client_id}"
scopes = ["read"]
certificate = "app.pem"
ca_file = "{provider.ca_file}"
token_file = "{folder}/token"
refresh = {refresh}

[profile.expect]
audience = "{RESOURCE}"
""".encode(),
    )


def test_the_command_gets_tokens_again_and_again(provider: Provider, tmp_path: Path) -> None:
    """`once` writes a token that the resource accepts; asked anew at once it gets another, with a new assertion."""
    config = configuration(tmp_path, provider)
    tokens = []
    for arguments in ((), ("--force",)):
        done = run("once", *arguments, "-c", config)
        assert done.returncode == 0, done.stderr
        tokens.append((tmp_path / "token").read_text())
        assert tokens[-1] not in done.stdout + done.stderr
        claims = provider.verified(tokens[-1])
        assert (claims["client_id"], claims["scope"]) == (APP, "read")
        assert claims["exp"] - claims["iat"] == 600
    assert tokens[0] != tokens[1]


def test_a_key_that_is_not_registered_is_rejected(provider: Provider, tmp_path: Path) -> None:
    """With the key of another app the provider says no: exit code 77, its OAuth error told, nothing written."""
    done = run("once", "-c", configuration(tmp_path, provider, OTHER_APP))
    assert done.returncode == 77, done.stderr
    assert "invalid_client" in done.stderr
    assert provider.refusal()["error"] == "invalid_client"
    assert not (tmp_path / "token").exists()


def by_hand(provider: Provider, assertion: str) -> Reply:
    """Send a token request with an assertion of the test's own."""
    form = {
        "grant_type": "client_credentials",
        "client_id": APP,
        "scope": "read",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion,
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    with contextlib.closing(HttpsTransport(provider.ca_file)) as transport:
        return transport.request(Call(20), "POST", f"{provider.issuer}/token", headers, urlencode(form).encode())


def test_each_assertion_is_taken_once(provider: Provider, tmp_path: Path) -> None:
    """The provider is as strict as we think: the same assertion again is refused, and so is another audience's."""
    profile = certificate_profile(written(tmp_path / "app.pem", PAIR.pem))
    credential = credentials.load(profile, datetime.now(UTC))
    assert isinstance(credential, credentials.CertificateCredential)
    now, minute = datetime.now(UTC), timedelta(minutes=1)
    assertion = credential.assertion(APP, provider.issuer, now, minute)
    assert by_hand(provider, assertion).status == 200
    assert by_hand(provider, assertion).status == 401
    assert provider.refusal()["detail"] == "client assertion tokens must only be used once"
    assert by_hand(provider, credential.assertion(APP, "https://elsewhere.example", now, minute)).status == 401
    assert "audience" in provider.refusal()["detail"]


def test_many_at_once(provider: Provider, tmp_path: Path) -> None:
    """Ten acquisitions at the same time, twice, all succeed: no two share an assertion."""
    keys = {"oidc_issuer": provider.issuer, "scopes": ("read", "write")}
    with client("", provider.ca_file, tmp_path, **keys) as here, ThreadPoolExecutor(10) as threads:
        here.profile = here.profile.model_copy(update={"client_id": APP})
        for _ in range(2):
            acquired = list(threads.map(lambda _: here.acquire(), range(10)))
            assert len({each.token.secret for each in acquired}) == 10
            assert provider.verified(acquired[0].token.secret)["scope"] == "read write"


def test_a_scope_that_is_not_granted_is_rejected(provider: Provider, tmp_path: Path) -> None:
    """What the app may not have is a rejection with the provider's own OAuth error."""
    keys = {"oidc_issuer": provider.issuer, "scopes": ("admin",)}
    with client("", provider.ca_file, tmp_path, **keys) as here:
        here.profile = here.profile.model_copy(update={"client_id": APP})
        with pytest.raises(RejectedError) as caught:
            here.acquire()
    assert caught.value.code == provider.refusal()["error"] == "invalid_scope"


def test_an_issuer_without_a_path(authority: Authority, tmp_path: Path) -> None:
    """A provider that is its host's root works alike."""
    with (
        running(authority, "") as provider,
        client("", provider.ca_file, tmp_path, oidc_issuer=provider.issuer) as here,
    ):
        here.profile = here.profile.model_copy(update={"client_id": APP, "scopes": ("read",)})
        assert provider.verified(here.acquire().token.secret)["client_id"] == APP


def test_side_by_side_the_registered_one_is_used(provider: Provider, tmp_path: Path) -> None:
    """Of two certificates, the newer of which the provider does not know, the older gets the token."""
    config = configuration(tmp_path, provider)
    written(tmp_path / "new.pem", OTHER.pem)
    config.write_text(config.read_text().replace('"app.pem"', '["new.pem", "app.pem"]'))
    done = run("once", "-c", config)
    assert done.returncode == 0, done.stderr
    assert provider.refusal()["error"] == "invalid_client"
    assert provider.verified((tmp_path / "token").read_text())["client_id"] == APP


def test_a_certificate_that_is_registered_late(authority: Authority, tmp_path: Path) -> None:
    """From one certificate to the next under the running agent, before the provider knows it: no reader notices."""
    new = make_certificate("new", pool_key(8), not_before=datetime.now(UTC) - DAY, not_after=datetime.now(UTC) + DAY)
    with running(authority, "", lifetime=4) as provider:
        config = configuration(tmp_path, provider, refresh="{ at = 0.25, jitter = 0 }")
        keys = jwt.PyJWKSet.from_dict(provider.get("/jwks"))

        def verified(token: str) -> float:
            key = keys[jwt.get_unverified_header(token)["kid"]]
            return float(jwt.decode(token, key, ["RS256"], audience=RESOURCE, issuer=provider.issuer)["exp"])

        token_file = tmp_path / "token"
        with start("run", "-c", config) as agent:
            agent.wait_for("token.written", profile="billing")
            with Reader(token_file, check=verified) as reader:
                written(tmp_path / "new.pem", new.pem).replace(tmp_path / "app.pem")
                rejected = agent.wait_for("certificate.rejected", thumbprint=new.thumbprint)
                assert "invalid_client" in rejected["message"]
                assert new.thumbprint in rejected["hint"]
                reader.wait_for(token_file, 4)  # the old one goes on
                credential = json.loads((tmp_path / "run" / "status.json").read_text())["profiles"][0]["credential"]
                assert credential["thumbprint"] == PAIR.thumbprint
                assert "invalid_client" in credential["candidate_error"]
                assert run("refresh", "billing", "-c", config).returncode == 0  # asked for too early
                assert {refusal["error"] for refusal in provider.register(APP, new)} == {"invalid_client"}
                assert run("refresh", "billing", "-c", config).returncode == 0
                agent.wait_for("certificate.promoted", thumbprint=new.thumbprint, replaces=PAIR.thumbprint)
                reader.wait_for(token_file, len(reader.contents[token_file]) + 2)
            assert agent.stop() == 0
    assert reader.failures == []
    events = agent.events()
    assert not [event for event in events if event["event"] == "acquisition.failed"]
    acquired = [event["thumbprint"] for event in events if event["event"] == "token.acquired"]
    assert acquired == sorted(acquired, key=[PAIR.thumbprint, new.thumbprint].index)
    assert {PAIR.thumbprint, new.thumbprint} == {*acquired}
