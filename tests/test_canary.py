"""Canaries: real processes at debug level, with a secret in every place that holds one, and nothing of it comes out.

The provider here is hostile: whatever it was sent it sends back, in every place an answer has. Whatever the agent
says then (log, status, state, messages, process list) is searched for the secrets, whole, in part and encoded.
That the search finds something is itself tested: on planted text, and on an agent whose masks are taken off.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import jwt
import pytest

from agent.emulator.provider import Provider
from agent.emulator.wire import Answer, json_answer, text_answer
from tests import emulator_helpers, network_helpers
from tests.certificate_helpers import pool_key, written
from tests.process_helpers import current_certificate, run, sabotage, start, wait_for_status, write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from agent.emulator.wire import Request
    from tests.emulator_helpers import Handle

FRAGMENT = 20
"""Characters in a row that give a secret away."""
JWT = re.compile(r"eyJ[\w-]{5,}|[\w-]{16,}\.[\w-]{16,}\.[\w-]{16,}")
PASSWORDS = {
    "client secret": "wXz8Q~c4n4ry-Entra.Style_0987654321abcd",
    "client secret, plain": "canarycanarysecret",
    "client secret, other": "CanarySecret-2026!of&the=other+kind",
    "pfx password": "canary-pfx-passphrase",
    "pfx password, wrong": "canary-wrong-passphrase",
    "proxy password": "canary-proxy-Passw0rd",
}


# The search


def leaks(text: str, secrets: Mapping[str, str]) -> list[str]:
    """Return the names of the secrets that a text gives away, and what looks like a token though nobody knows it."""
    windows = {text[i : i + FRAGMENT] for i in range(len(text) - FRAGMENT + 1)}
    found = [name for name, secret in secrets.items() if any(_shows(form, text, windows) for form in _forms(secret))]
    return sorted(set(found)) + [f"looks like a token: {match[0]}" for match in JWT.finditer(text)]


def _forms(secret: str) -> set[str]:
    """Return a secret as it is, and as URLs, JSON, Python and HTTP's basic authentication write it."""
    pair = base64.b64encode(f"user:{secret}".encode()).decode().rstrip("=")
    return {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1], pair}


def _shows(form: str, text: str, windows: set[str]) -> bool:
    """Tell whether a text holds a form of a secret; of a long one any part is too much."""
    if len(form) <= 2 * FRAGMENT:
        return form in text
    return any(form[i : i + FRAGMENT] in windows for i in range(len(form) - FRAGMENT + 1))


@pytest.mark.parametrize("dress", ["plain", "json", "url", "basic", "half"])
def test_the_search_finds(dress: str) -> None:
    """A planted secret is found, however it is dressed, and text without one is not suspected."""
    for name, secret in {**PASSWORDS, "token": "A1b2-" * 40}.items():
        shown = {
            "plain": secret,
            "json": json.dumps({"x": secret}),
            "url": quote_plus(secret),
            "basic": base64.b64encode(f"user:{secret}".encode()).decode(),
            "half": secret[: len(secret) // 2] if len(secret) > 3 * FRAGMENT else secret,
        }[dress]
        assert leaks(f"before {shown} after", {name: secret}) == [name]
        assert leaks("before and after; graph.token; token_sha256=0123456789ab", {name: secret}) == []
    token = jwt.encode({}, "k" * 32)
    assert leaks(f"x={token}", {}) != []
    assert leaks(token[:12], {}) != []


# The hostile provider


def client_secret_of(form: Mapping[str, str]) -> str:
    """Return what the client proved itself with."""
    return form.get("client_secret") or form["client_assertion"]


@dataclass(frozen=True)
class Heard:
    """A token request: all that a provider could send back."""

    sent: str
    secret: str
    honest: Answer

    @property
    def everything(self) -> str:
        return f"{self.secret} {self.sent} client_secret={self.secret}, Bearer {self.secret}"


def oauth_error(heard: Heard, text: str, status: int = 401, **more: Any) -> Answer:
    """Return an error as Entra writes it."""
    description = f"AADSTS7000215: Invalid client secret provided: {text} Trace ID: 1 Correlation ID: 2"
    return json_answer(status, {"error": "invalid_client", "error_description": description, **more})


def in_headers(heard: Heard) -> Answer:
    """Return an error with the secret in everything but its description."""
    names = ("x-ms-request-id", "client-request-id", "Retry-After", "WWW-Authenticate", "Location", "Date", "Server")
    headers = dict.fromkeys(names, heard.secret) | {"Content-Type": f"application/json; x={heard.secret}"}
    body = {"error": "invalid_client", "error_description": "No.", "correlation_id": heard.secret}
    return Answer(401, headers, json.dumps(body).encode())


MODES: dict[str, Callable[[Heard], Answer]] = {
    "honest": lambda heard: heard.honest,
    "marked": lambda heard: replace(heard.honest, headers={**heard.honest.headers, "x-ms-request-id": heard.secret}),
    "description": lambda heard: oauth_error(heard, heard.secret),
    "everything": lambda heard: oauth_error(heard, heard.everything),
    "json within": lambda heard: oauth_error(heard, json.dumps({"client_assertion": heard.secret, "q": heard.sent})),
    "outage": lambda heard: oauth_error(heard, heard.secret, 503),
    "throttle": lambda heard: oauth_error(heard, heard.everything, 429),
    "error": lambda heard: json_answer(400, {"error": heard.secret}),
    "azure": lambda heard: json_answer(400, {"error": {"code": heard.secret, "message": heard.everything}}),
    "codes": lambda heard: oauth_error(heard, "no.", error_codes=[heard.secret], error_uri=heard.secret),
    "headers": in_headers,
    "page": lambda heard: text_answer(403, f"<html>{heard.everything}</html>", "text/html"),
    "type": lambda heard: Answer(403, {"Content-Type": heard.secret}, heard.secret.encode()),
    "redirect": lambda heard: Answer(302, {"Location": f"https://x.example/?{heard.sent}"}),
    "text": lambda heard: text_answer(500, heard.everything),
    "garbage": lambda heard: json_answer(200, {"access_token": 17, "expires_in": heard.secret, "x": heard.sent}),
    "odd token": lambda heard: json_answer(200, {"access_token": f"{heard.secret}\n", "expires_in": 3600}),
    "no lifetime": lambda heard: json_answer(200, {"access_token": "opaque~canary-token-0123456789", "x": heard.sent}),
    "odd body": lambda heard: Answer(200, {"Content-Type": "application/json"}, f"\xff{heard.sent}".encode("latin-1")),
}


class Hostile(Provider):
    """A provider that answers each app in the mode the app is for, and remembers what it was sent."""

    modes: dict[str, str]
    heard: list[str]

    def answer(self, request: Request, now: datetime) -> Answer:
        honest = super().answer(request, now)
        form = request.form()
        if "client_id" not in form:
            return honest
        heard = Heard(request.body.decode(), client_secret_of(form), honest)
        self.heard.append(heard.secret)
        if honest.status == 200:
            self.heard.append(json.loads(honest.body)["access_token"])
        return MODES[self.modes[form["client_id"]]](heard)


def refusing_proxy(peer: network_helpers.Peer) -> None:
    """Refuse every tunnel and quote the client's password, as sent and decoded."""
    request = peer.request()
    if request is not None:
        sent = request.headers.get("proxy-authorization", "")
        decoded = base64.b64decode(sent.partition(" ")[2]).decode()
        body = f"no {sent} {decoded}"
        peer.send(f"HTTP/1.1 407 {decoded} {sent}\r\nX: {sent}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())


# The scene


@dataclass
class Canaries:
    """A configuration full of secrets; ``secrets`` grows with what the provider hears and issues."""

    directory: Path
    provider: Hostile
    profiles: list[dict[str, Any]] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)

    @property
    def secrets(self) -> dict[str, str]:
        return self.known | {f"sent or issued {number}": text for number, text in enumerate(self.provider.heard)}

    def files(self) -> str:
        """Return all that the agent keeps on disk, but for the tokens."""
        kept = [path for name in ("run", "state") for path in (self.directory / name).rglob("*") if path.is_file()]
        assert {path.name for path in kept} >= {"status.json", "state.json", "agent.prom"}
        return "\n".join(f"{path}\n{path.read_text()}" for path in kept if path.suffix != ".token")


@pytest.fixture
def canaries(tmp_path: Path) -> Iterator[Canaries]:
    """One profile for each way a provider can misbehave and each kind of credential, and some that cannot work."""
    pair = current_certificate(number=0)
    tenants = tuple(f"tenant-{number}.example" for number in range(4 * len(MODES)))
    with (
        emulator_helpers.running(tenants=tenants) as handle,
        network_helpers.Server(refusing_proxy) as proxy,
    ):
        provider = handle.provider
        provider.__class__ = Hostile
        assert isinstance(provider, Hostile)
        provider.modes, provider.heard = {}, []
        made = Canaries(tmp_path, provider)
        made.known |= PASSWORDS
        made.known |= {f"key line {n}": line for n, line in enumerate(pair.key_pem.decode().splitlines()[1:-1])}
        assertion = jwt.encode({"sub": "canary", "exp": 2**31}, pool_key(7), "RS256", {"kid": "canary"})
        made.known["federated assertion"] = assertion
        written(tmp_path / "app.pem", pair.pem)
        written(tmp_path / "assertion", assertion.encode())
        credentials = {"certificate": {"certificate": str(tmp_path / "app.pem")}}
        credentials["federated"] = {"federated": {"assertion_file": str(tmp_path / "assertion")}}  # type: ignore[dict-item]
        for name in ("client secret", "client secret, plain", "client secret, other"):
            path = written(tmp_path / f"{name}.secret", PASSWORDS[name].encode())
            credentials[name] = {"client_secret_file": str(path)}
        _add_profiles(made, handle, credentials, pair)
        _add_broken(made, handle, pair, f"127.0.0.1:{proxy.port}")
        yield made


def _add_profiles(made: Canaries, handle: Handle, credentials: Mapping[str, dict[str, Any]], pair: Any) -> None:
    """Add a profile for each mode and each credential, but one kind of client secret will do for most."""
    for number, mode in enumerate(MODES):
        for offset, (kind, keys) in enumerate(credentials.items()):
            if offset > 3 and mode not in ("description", "everything", "error"):
                continue
            client_id = f"00000000-0000-4000-8000-{number:08}{offset:04}"
            handle.register(client_id, pair, secret=PASSWORDS.get(kind))
            made.provider.modes[client_id] = mode
            tenant = f"tenant-{(4 * number + offset) % (4 * len(MODES))}.example"
            made.profiles.append(
                {
                    "name": f"{mode}-{kind}".replace(" ", "-").replace(",", ""),
                    "authority": f"{handle.url}/{tenant}",
                    "ca_file": str(handle.ca_file),
                    "client_id": client_id,
                    "scopes": "https://graph.microsoft.com/.default",
                    **keys,
                }
            )


def _add_broken(made: Canaries, handle: Handle, pair: Any, proxy: str) -> None:
    """Add profiles whose credential or proxy cannot be used."""
    directory, usual = made.directory, made.profiles[0]
    pfx = written(directory / "app.pfx", pair.pfx(PASSWORDS["pfx password"].encode()))
    right = written(directory / "right.password", PASSWORDS["pfx password"].encode())
    wrong = written(directory / "wrong.password", PASSWORDS["pfx password, wrong"].encode())
    cut = written(directory / "cut.pem", pair.key_pem[:700] + pair.cert_pem)
    by_proxy = f"http://user:{PASSWORDS['proxy password']}@{proxy}"
    dead_proxy = f"http://user:{PASSWORDS['proxy password']}@127.0.0.1:9"
    made.profiles += [
        usual | {"name": "pfx", "certificate": {"path": str(pfx), "password_file": str(right)}},
        usual | {"name": "pfx-wrong", "certificate": {"path": str(pfx), "password_file": str(wrong)}},
        usual | {"name": "pem-cut", "certificate": str(cut)},
        usual
        | {"name": "key-as-password", "certificate": {"path": str(pfx), "password_file": str(directory / "app.pem")}},
        usual | {"name": "secret-is-a-key", "certificate": None, "client_secret_file": str(directory / "app.pem")},
        usual | {"name": "proxy", "proxy": by_proxy},
        usual | {"name": "proxy-dead", "proxy": dead_proxy},
    ]
    made.profiles[:] = [{k: v for k, v in profile.items() if v is not None} for profile in made.profiles]


def answered(document: dict[str, Any]) -> bool:
    """Whether every profile has been tried."""
    return document["agent"]["running"] and all(
        entry["acquired_at"] or entry["last_error"] for entry in document["profiles"]
    )


UNMASKED = """
import agent.harmless, agent.redaction
agent.redaction.redact = agent.harmless.mask = lambda text: text
agent.harmless.without = lambda content, secrets: content
"""


def run_agent(canaries: Canaries, style: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Run an agent until every profile was tried, and return all that it said, by place."""
    config = write_config(
        canaries.directory, *canaries.profiles, log_level="debug", log_format=style, metrics_textfile="state/agent.prom"
    )
    with start("run", "--config", config, environ=environ) as agent:
        document = wait_for_status(config, answered)
        command_line = Path(f"/proc/{agent.pid}/cmdline").read_bytes().decode()
        surroundings = ""
        with contextlib.suppress(PermissionError):  # it is for root alone
            surroundings = Path(f"/proc/{agent.pid}/environ").read_bytes().decode()
        assert agent.stop() == 0
    table = run("status", "--config", config)
    return {
        "log": agent.stderr,
        "standard output": agent.stdout,
        "process list": command_line + surroundings,
        "status --json": json.dumps(document, ensure_ascii=False),
        "status": table.stdout + table.stderr,
        "files": canaries.files(),
    }


@pytest.mark.parametrize("style", ["json", "console"])
def test_run(canaries: Canaries, style: str) -> None:
    """An agent at debug level, met by everything a provider can do, gives nothing away in any place it speaks."""
    said = run_agent(canaries, style)
    assert len(said["log"].splitlines()) > 4 * len(MODES)
    assert len(canaries.provider.heard) > 4 * len(MODES)
    tokens = list((canaries.directory / "run").glob("honest-*.token"))
    assert len(tokens) == 3
    assert any(leaks(token.read_text(), canaries.secrets) for token in tokens)
    secrets = canaries.secrets
    assert {place: found for place, text in said.items() if (found := leaks(text, secrets))} == {}


def test_this_test_can_fail(canaries: Canaries) -> None:
    """With the masks taken off, the same search finds secrets in the log, in the status and in its file."""
    said = run_agent(canaries, "json", sabotage(canaries.directory, UNMASKED))
    found = {place for place, text in said.items() if leaks(text, canaries.secrets)}
    assert found >= {"log", "status --json", "status", "files"}


def test_commands(canaries: Canaries) -> None:
    """`once` and `check --online` meet the same provider and give nothing away either."""
    config = write_config(canaries.directory, *canaries.profiles, log_level="debug")
    for call in (["once"], ["once", "--force"], ["check"], ["check", "--online"], ["status"]):
        done = run(*call, "--config", config)
        assert done.returncode == 78
        assert done.stderr if call != ["status"] else done.stdout
        assert leaks(done.stdout + done.stderr, canaries.secrets) == []


BUG = """
import agent.network.transport
real = agent.network.transport.HttpsTransport.request
def broken(self, call, method, url, headers, body=None):
    if method == "GET":
        return real(self, call, method, url, headers, body)
    raise RuntimeError(f"cannot send {body!r} to {url} with {headers}")
agent.network.transport.HttpsTransport.request = broken
"""


@pytest.mark.parametrize("style", ["json", "console", "journal"])
def test_bug(canaries: Canaries, style: str) -> None:
    """A bug whose message quotes the request ends in a traceback without secrets."""
    config = write_config(canaries.directory, *canaries.profiles, log_level="debug", log_format=style)
    done = run("once", "--config", config, environ=sabotage(canaries.directory, BUG))
    assert done.returncode == 1
    assert "RuntimeError: cannot send" in done.stderr
    assert leaks(done.stdout + done.stderr, canaries.secrets) == []


BROKEN_CONFIGURATIONS = {
    "proxy scheme": {"proxy": f"htp://user:{PASSWORDS['proxy password']}@proxy:1"},
    "proxy port": {"proxy": f"http://user:{PASSWORDS['proxy password']}@proxy:port"},
    "proxy slash": {"proxy": f"http://user:/{PASSWORDS['proxy password']}@proxy:1"},
    "proxy kind": {"proxy": [f"http://user:{PASSWORDS['proxy password']}@proxy:1"]},
    "proxy host": {"proxy": f"http://user:{PASSWORDS['proxy password']}"},
    "secret inline": {"client_secret": PASSWORDS["client secret"]},
    "secret, plain": {"client_secret": PASSWORDS["client secret, plain"]},
    "password inline": {"certificate": {"path": "/x.pem", "password": PASSWORDS["pfx password"]}},
    "authority": {"authority": f"https://user:{PASSWORDS['proxy password']}@login.example/x"},
}


@pytest.mark.parametrize("keys", BROKEN_CONFIGURATIONS.values(), ids=BROKEN_CONFIGURATIONS.keys())
def test_configuration_problems(tmp_path: Path, keys: dict[str, Any]) -> None:
    """A secret that stands in the configuration, or in the wrong key, is not quoted by what complains about it."""
    profile = {"name": "x", "tenant": "a.example", "client_id": "c", "scopes": "api://x/.default", **keys}
    config = write_config(tmp_path, profile)
    for call in ("run", "check", "status"):
        done = run(call, "--config", config)
        assert done.returncode == 78
        assert leaks(done.stdout + done.stderr, PASSWORDS) == []


def test_syntax_error(tmp_path: Path) -> None:
    """A line of TOML that cannot be read is named by its number, without quoting what may be a secret."""
    line = f"proxy = http://user:{PASSWORDS['proxy password']}@proxy:1"
    config = write_config(tmp_path, top=line)
    done = run("run", "--config", config)
    assert done.returncode == 78
    assert f"{config}:1" in done.stderr
    assert leaks(done.stdout + done.stderr, PASSWORDS) == []
