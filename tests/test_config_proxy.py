"""The way out: what `proxy` means, what the environment says, and that a proxy's password stays hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.config.proxies import from_environment
from tests.config_helpers import HEAD, load, load_one, refused, the_problem

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://login.microsoftonline.com/contoso.onmicrosoft.com"
PASSWORD = "swordfish"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://proxy.example:3128/", "http://proxy.example:3128"),
        ("HTTP://10.0.0.1:80", "http://10.0.0.1:80"),
        ("http://[fd00::1]:3128", "http://[fd00::1]:3128"),
        ("http://user:p%40ss@proxy:3128", "http://user:p%40ss@proxy:3128"),
    ],
)
def test_proxy_urls(tmp_path: Path, written: str, meant: str) -> None:
    """A proxy is plain http with a host and a port, and may ask for user and password."""
    assert load_one(tmp_path, f'{HEAD}proxy = "{written}"').proxy == meant


@pytest.mark.parametrize(
    ("environ", "meant"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTP_PROXY": "http://other:1"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://upper:1", "https_proxy": "http://lower:2"}, "http://lower:2"),
        ({"HTTPS_PROXY": "proxy:3128"}, "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy"}, "http://proxy:80"),
        ({"HTTPS_PROXY": "http://u:p@proxy/"}, "http://u:p@proxy:80"),
        ({"HTTPS_PROXY": "http://[fd00::1]"}, "http://[fd00::1]:80"),
    ],
)
def test_the_environment(tmp_path: Path, environ: dict[str, str], meant: str | None) -> None:
    """The word "environment" is resolved when the configuration is loaded, as other tools read the environment."""
    assert load_one(tmp_path, f'{HEAD}proxy = "environment"', environ).proxy == meant


@pytest.mark.parametrize(
    ("exceptions", "direct"),
    [
        ("", False),
        ("*", True),
        ("login.microsoftonline.com", True),
        ("LOGIN.microsoftonline.COM", True),
        (".microsoftonline.com", True),
        ("*.microsoftonline.com", True),
        ("microsoftonline.com", True),
        ("softonline.com", False),
        ("a.example, login.microsoftonline.com:443", True),
        ("login.microsoftonline.com:8443", False),
        ("a.example b.example", False),
        (",,", False),
        ("::1", False),
    ],
)
def test_exceptions(exceptions: str, direct: bool) -> None:  # noqa: FBT001 - a case of the table
    """NO_PROXY excepts hosts and whole domains, in either spelling of the variable."""
    for name in ("NO_PROXY", "no_proxy"):
        found = from_environment(URL, {"HTTPS_PROXY": "http://proxy:3128", name: exceptions})
        assert (found is None) == direct


def test_exceptions_by_address() -> None:
    """Addresses, of either family, are excepted as they are written."""
    environ = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "::1,127.0.0.1:8443"}
    assert from_environment("https://[::1]:8443/demo", environ) is None
    assert from_environment("https://127.0.0.1:8443/demo", environ) is None
    assert from_environment("https://127.0.0.1/demo", environ) is not None


def test_a_wrong_environment_is_named(tmp_path: Path) -> None:
    """What the environment says wrongly is told at the key that asks it, with the variable and not its value."""
    problem = the_problem(
        tmp_path, f'{HEAD}proxy = "environment"', {"HTTPS_PROXY": f"socks5://u:{PASSWORD}@proxy:1080"}
    )
    assert (problem.line, problem.key) == (7, 'profile "graph": proxy')
    assert "$HTTPS_PROXY cannot be used" in problem.message
    assert PASSWORD not in str(problem)


@pytest.mark.parametrize("source", ["file", "environment"])
def test_a_password_never_shows(tmp_path: Path, source: str) -> None:
    """A proxy's password is there for the connection, and in no repr and no dump."""
    url = f"http://user:{PASSWORD}@proxy:3128"
    text = f'{HEAD}proxy = "{url if source == "file" else source}"'
    config = load(tmp_path, text, {"HTTPS_PROXY": url})
    (profile,) = config.profiles
    assert profile.proxy == url
    for shown in (repr(config), str(config), repr(profile), repr(profile.proxy), repr(config.model_dump())):
        assert PASSWORD not in shown
        assert "user" not in shown
    assert "http://proxy:3128" in config.model_dump_json()
    assert PASSWORD not in config.model_dump_json()


@pytest.mark.parametrize(
    "text",
    [
        f'proxy = "http://user:{PASSWORD}@proxy"',
        f'proxy = "user:{PASSWORD}@proxy:3128"',
        f'proxy = "https://user:{PASSWORD}@proxy:3128"',
        f'proxy = "http://user:{PASSWORD}/x@proxy:3128"',
        f'proxy = "http://user:{PASSWORD}#x@proxy:3128"',
        f'proxy = "http://user:{PASSWORD}@x@proxy:3128"',
        f'proxy = "http://user:{PASSWORD} @proxy:3128"',
        f'proxy = "http://user:{PASSWORD}@[proxy:3128"',
        f'proxy = ["http://user:{PASSWORD}@proxy:3128"]',
        f'proxy = "http://user:{PASSWORD}@proxy:3128',
        f'proxy = "http://user:{PASSWORD}\\q@proxy:3128"',
        f'client_secret = "{PASSWORD}"',
        f'timeout = "{PASSWORD}"',
        f'on_stop = "{PASSWORD}"',
        f'token_file = {{ path = "x", format = "{PASSWORD}" }}',
        f'token_file = {{ path = "x", format = "{PASSWORD}", template = "{PASSWORD}" }}',
        f'expect = {{ tenant_id = "{PASSWORD}" }}',
        f'authority = "https://u:{PASSWORD}@h.example/t"',
    ],
)
def test_no_error_repeats_a_value(tmp_path: Path, text: str) -> None:
    """A value that is wrong may be a secret in the wrong place: errors name the key and never the value."""
    for problem in refused(tmp_path, HEAD + text):
        assert PASSWORD not in str(problem)
        assert PASSWORD not in repr(problem)
