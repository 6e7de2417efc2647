"""The way to a provider, over real connections: every stage with its time, every failure with its fix."""

from __future__ import annotations

import base64
import re
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from agent.config.model import Profile
from agent.doctor import network
from agent.doctor.findings import exit_code
from tests import emulator_helpers
from tests.certificate_helpers import CLIENT_ID
from tests.doctor_helpers import said
from tests.network_helpers import Authority, Server, answer, answering, deaf_port, proxy_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.doctor.findings import Finding
    from tests.emulator_helpers import Handle


@pytest.fixture(scope="module")
def provider() -> Iterator[Handle]:
    with emulator_helpers.running() as running:
        yield running


@pytest.fixture(autouse=True)
def _recovered(provider: Handle) -> Iterator[None]:
    yield
    provider.recover()


def now() -> datetime:
    return datetime.now(UTC)


def profile(provider: Handle, name: str = "graph", **keys: Any) -> Profile:
    usual = {"authority": provider.authority, "ca_file": provider.ca_file, "timeout": "5s"}
    return Profile.model_validate({"name": name, "client_id": CLIENT_ID, **usual, **keys})


def visit(provider: Handle, **keys: Any) -> list[Finding]:
    return network.examine([profile(provider, **keys)], now)


def the_problem(found: list[Finding], code: int = 75) -> tuple[str, str]:
    """Return the only problem, without the time it took."""
    ((message, fix),) = said(found, "problem")
    assert exit_code(found) == code
    assert fix
    return re.sub(r" \(\d+ ms\)$", "", message), fix


def test_every_stage_is_told(provider: Handle) -> None:
    """Name, connection, certificate and answer are told with the time each took, then clock and document."""
    begin = len(provider.requests)
    found = visit(provider)
    origin = provider.url.removeprefix("https://")
    shown = [re.sub(r" \(\d+ ms\)$", " (T)", finding.message) for finding in found]
    assert shown == [
        "127.0.0.1 has the address 127.0.0.1 (T)",
        f"{origin} accepts connections (T)",
        f"{origin} shows a trusted certificate (T)",
        f"{origin} answers with HTTP status 200 (T)",
        "this machine's clock agrees with the provider's",
        f"the discovery document names {origin} for tokens",
    ]
    assert {finding.level for finding in found} == {"ok"}
    assert [entry.endpoint for entry in provider.requests[begin:]] == ["discovery"]


def test_one_visit_for_many_profiles(provider: Handle, tmp_path: Path) -> None:
    """Profiles with the same provider, trust root and proxy are one visit; another trust root is another."""
    (tmp_path / "other.pem").write_bytes(provider.ca_file.read_bytes())
    profiles = [profile(provider, f"p{number}") for number in range(5)]
    profiles.append(profile(provider, "other", ca_file=tmp_path / "other.pem"))
    begin = len(provider.requests)
    headings = list(dict.fromkeys(finding.heading for finding in network.examine(profiles, now)))
    assert len(provider.requests) - begin == 2
    assert [heading.partition(" (of ")[2] for heading in headings] == ["p0, p1, p2 and 2 more)", "other)"]


@pytest.mark.parametrize(
    ("seconds", "level"),
    [(0, "ok"), (30, "ok"), (120, "warning"), (-120, "warning"), (600, "problem"), (-600, "problem")],
)
def test_a_clock_that_is_off(provider: Handle, seconds: int, level: str) -> None:
    """More than a minute beside the provider's clock is a warning, more than five are a problem that passes."""
    provider.fault("clock", None, seconds=seconds)
    (finding,) = [each for each in visit(provider) if each.area == "clock"]
    assert finding.level == level
    if level != "ok":
        way = "behind" if seconds > 0 else "ahead of"
        assert re.match(rf"this machine's clock is \d+ (s|min) {way} the provider's", finding.message)
        assert "timedatectl set-ntp true" in finding.fix
    assert ("AADSTS700024" in finding.message) == (level == "problem")
    assert exit_code([finding]) == (75 if level == "problem" else 0)


def test_a_wrong_authority(provider: Handle, tmp_path: Path) -> None:
    """A certificate of somebody else's is a problem of the network, with `ca_file` as its fix."""
    message, fix = the_problem(visit(provider, ca_file=Authority(tmp_path).ca_file))
    assert "does not show a trusted certificate" in message
    assert "`ca_file`" in fix


def test_a_trust_root_that_cannot_be_used(provider: Handle, tmp_path: Path) -> None:
    """A CA file that is missing or empty is a problem of this machine's, and nobody is asked."""
    (tmp_path / "empty.pem").touch()
    for name in ("missing.pem", "empty.pem"):
        begin = len(provider.requests)
        message, fix = the_problem(visit(provider, ca_file=tmp_path / name), 78)
        assert message.startswith(f"{tmp_path / name}: no usable trust root: ")
        assert "PEM" in fix
        assert len(provider.requests) == begin


def test_nothing_listens(provider: Handle) -> None:
    """A refused connection is named as such."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = f"127.0.0.1:{listener.getsockname()[1]}"
    message, fix = the_problem(visit(provider, authority=f"https://{origin}/{provider.tenant}"))
    assert message == f"no connection to {origin}: Connection refused"
    assert "firewall" in fix


def test_a_name_that_nobody_knows(provider: Handle) -> None:
    """A name that cannot be looked up ends the visit at its first stage."""
    found = visit(provider, authority="https://no-such-provider.invalid/tenant")
    message, fix = the_problem(found)
    assert message.startswith("no-such-provider.invalid cannot be looked up: ")
    assert "DNS" in fix
    assert len(found) == 1


def test_nothing_comes_back(provider: Handle) -> None:
    """Neither a port without an answer nor a provider that hangs keeps the doctor longer than the timeout."""
    with deaf_port() as port:
        message, _ = the_problem(visit(provider, authority=f"https://127.0.0.1:{port}/x", timeout="0.3s"))
    assert message == f"127.0.0.1:{port} did not answer in time"
    provider.fault("hang", None)
    found = visit(provider, timeout="0.5s")
    message, fix = the_problem(found)
    assert message.endswith("did not answer in time")
    assert "`timeout`" in fix
    assert len(said(found, "ok")) == 3


@pytest.mark.parametrize(("kind", "said_of_it"), [("html", "text/html"), ("drop", "closed"), ("status", "AADSTS90033")])
def test_an_answer_that_is_none(provider: Handle, kind: str, said_of_it: str) -> None:
    """Pages of proxies, dropped connections and failures of the provider are told from an answer."""
    provider.fault(kind, None)
    message, _ = the_problem(visit(provider))
    assert said_of_it in message or "reset" in message


def test_a_document_that_is_none(provider: Handle, tmp_path: Path) -> None:
    """JSON that names no token endpoint is no discovery document."""
    authority = Authority(tmp_path)
    with Server(answering(answer("{}")), authority.server()) as server:
        asked = visit(provider, authority=f"https://{server.origin}/tenant", ca_file=authority.ca_file)
    message, fix = the_problem(asked)
    assert "names no issuer or no token endpoint" in message
    assert "`authority`" in fix


def test_a_tenant_that_does_not_exist(provider: Handle) -> None:
    """A provider that does not know the tenant is a matter for a person: 78, not 75."""
    message, _ = the_problem(visit(provider, authority=f"{provider.url}/nowhere.example.com"), 78)
    assert "AADSTS90002" in message


def test_through_a_proxy(provider: Handle) -> None:
    """Through a proxy its own address is looked up and reached; user and password show nowhere."""
    origin = provider.url.removeprefix("https://")
    basic = "Basic " + base64.b64encode(b"alice:geheim").decode()
    with Server(proxy_script(basic)) as proxy:
        good = visit(provider, proxy=f"http://alice:geheim@{proxy.origin}")
        bad = visit(provider, proxy=f"http://alice:falsch@{proxy.origin}")
    assert {finding.level for finding in good} == {"ok"}
    assert good[1].message.startswith(f"the proxy {proxy.origin} lets through to {origin}")
    assert f"through http://{proxy.origin}" in good[0].heading
    message, fix = the_problem(bad)
    assert "the proxy refuses with HTTP status 407" in message
    assert "`proxy = " in fix
    assert not any(secret in repr(good + bad) for secret in ("alice", "geheim", "falsch"))
