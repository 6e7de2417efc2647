"""The formats of token files: what is written comes back, and real readers understand it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import formats
from agent.config.model import Profile, TokenFile
from agent.errors import OutputError
from agent.tokens import AccessToken

if TYPE_CHECKING:
    from pathlib import Path

EXPIRES_AT = datetime(2026, 3, 1, 13, 0, 0, 999999, tzinfo=UTC)
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2lnbmF0dXJl_-"
PROFILE = Profile.model_validate(
    {
        "name": "graph", "tenant": "contoso.onmicrosoft.com", "client_id": "ace7a10d-aaaa-4a01-8663-1440b6b78cb9",
        "scopes": ["https://graph.microsoft.com/.default", "api://x/.default"], "certificate": "/etc/x.pem",
    }
)  # fmt: skip
SECRETS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200)
EXPIRIES = st.integers(10**9, 10**10 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
SHELL_SECRETS = st.from_regex(r"[A-Za-z0-9._+/=@%,-][A-Za-z0-9._~+/@%,-]{0,100}", fullmatch=True)
LITERALS = st.text(st.characters(exclude_characters="{}\r\ufeff", exclude_categories=["Cs"]), max_size=12)
FIELDS = st.sampled_from([f"{{{name}}}" for name in formats.FIELDS] + ["{{", "}}"])
TEMPLATES = st.lists(LITERALS | FIELDS, max_size=6).flatmap(
    lambda parts: st.integers(0, len(parts)).map(lambda at: "".join([*parts[:at], "{access_token}", *parts[at:]]))
)


def token(secret: str = JWT, expires_at: datetime = EXPIRES_AT, token_type: str = "Bearer") -> AccessToken:
    return AccessToken(secret, token_type, expires_at - timedelta(hours=1), expires_at)


def file(kind: str = "raw", **keys: Any) -> TokenFile:
    return TokenFile.model_validate({"path": "/run/token-agent/graph.token", "format": kind, **keys})


def render(token_file: TokenFile, secret: str = JWT) -> bytes:
    return formats.render(token(secret), PROFILE, token_file)


# ---- there and back


@given(SECRETS, st.sampled_from(["raw", "json", "header"]), st.booleans())
def test_what_is_rendered_is_extracted(secret: str, kind: str, newline: bool) -> None:  # noqa: FBT001 - drawn
    """Any token of visible ASCII comes back out of the bare, the JSON and the header file."""
    token_file = file(kind, newline=newline)
    assert formats.extract(render(token_file, secret), PROFILE, token_file) == secret


@given(SHELL_SECRETS, st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True))
def test_variables_come_back(secret: str, variable: str) -> None:
    """Any token that is written as a variable comes back, whatever the variable is called."""
    token_file = file("env", variable=variable)
    assert formats.extract(render(token_file, secret), PROFILE, token_file) == secret


@given(TEMPLATES, SECRETS, st.booleans(), EXPIRIES)
def test_templates_come_back(template: str, secret: str, newline: bool, expires_at: datetime) -> None:  # noqa: FBT001 - drawn
    """Whatever a template holds, several tokens, braces, adjoining fields, line breaks, the token comes back."""
    assert formats.template_problem(template) is None
    token_file = file("template", template=template, newline=newline)
    content = formats.render(token(secret, expires_at), PROFILE, token_file)
    assert formats.extract(content, PROFILE, token_file) == secret


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "ignore")))
def test_nothing_unsafe_is_extracted(content: bytes) -> None:
    """Whatever is in a file, what is taken out of it is visible ASCII, or nothing."""
    for kind in ("raw", "json", "header", "env", "template"):
        token_file = file(kind, template="a{access_token}b{access_token}")
        secret = formats.extract(content, PROFILE, token_file)
        assert secret is None or re.fullmatch(r"[\x21-\x7e]+", secret)


@pytest.mark.parametrize("kind", ["json", "header", "env", "template"])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:0],
        lambda content: content[:-5],
        lambda content: content + b"x",
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.swapcase(),
        lambda content: content * 2,
    ],
    ids=["empty", "cut", "longer", "with a byte-order mark", "other case", "twice"],
)
def test_an_altered_file_holds_no_token(kind: str, change: Any) -> None:
    """A file that was cut, lengthened or otherwise changed is not taken for one that the agent wrote."""
    token_file = file(kind, template="user x\npassword {access_token}\nuntil {expires_at}\n")
    assert formats.extract(change(render(token_file)), PROFILE, token_file) is None


def test_other_fields_of_a_template_must_be_the_profiles(tmp_path: Path) -> None:
    """A file that names another client, tenant, profile or type is not this profile's."""
    template = "{profile} {tenant} {client_id} {token_type} {access_token} {expires_on}"
    token_file = file("template", template=template)
    content = render(token_file)
    assert formats.extract(content, PROFILE, token_file) == JWT
    assert formats.extract(content, PROFILE.model_copy(update={"name": "grape"}), token_file) is None
    assert formats.extract(content, PROFILE, token_file, "DPoPly") is None
    rendered = formats.render(token(token_type="DPoP"), PROFILE, token_file)
    assert formats.extract(rendered, PROFILE, token_file, "DPoP") == JWT


@pytest.mark.parametrize("template", ["{access_token}{access_token}", "{tenant}{client_id}{access_token}"])
@pytest.mark.parametrize("kind", ["raw", "json", "header", "env", "template"])
def test_a_hostile_file_costs_no_time(kind: str, template: str) -> None:
    """Content made to keep a pattern busy (a megabyte of one letter, or of brackets) is dealt with at once."""
    token_file = file(kind, template=template)
    began = time.perf_counter()
    for content in (b"a" * 1_000_001, b"[" * 1_000_000, b"a:" * 500_000):
        formats.extract(content, PROFILE, token_file)
    assert time.perf_counter() - began < 5


# ---- what is in the file


def test_a_bare_token_has_no_newline() -> None:
    """The raw format is the token and nothing else; a newline comes only where it is asked for."""
    assert render(file()) == JWT.encode()
    assert render(file(newline=True)) == JWT.encode() + b"\n"


def test_json_has_exactly_the_keys_of_the_contract() -> None:
    """The JSON object has the documented keys and types, and no expires_in, which would go stale."""
    content = render(file("json"))
    assert content.endswith(b"}\n")
    assert json.loads(content) == {
        "access_token": JWT,
        "token_type": "Bearer",
        "expires_on": 1772370000,
        "expires_at": "2026-03-01T13:00:00Z",
        "scope": "https://graph.microsoft.com/.default api://x/.default",
        "tenant": "contoso.onmicrosoft.com",
        "client_id": "ace7a10d-aaaa-4a01-8663-1440b6b78cb9",
        "profile": "graph",
    }


@pytest.mark.parametrize(
    ("keys", "tenant"),
    [
        ({"authority": "https://login.microsoftonline.com/contoso.com"}, "contoso.com"),
        ({"oidc_issuer": "https://keycloak.example.com/realms/x"}, "x"),
    ],
)
def test_the_tenant_is_named_however_it_was_given(keys: dict[str, str], tenant: str) -> None:
    """Where the profile names an authority or issuer instead, its last part stands for the tenant."""
    profile = PROFILE.model_copy(update={"tenant": None, **keys})
    assert json.loads(formats.render(token(), profile, file("json")))["tenant"] == tenant


@pytest.mark.parametrize("kind", ["raw", "json", "header", "env", "template"])
@pytest.mark.parametrize("newline", [False, True])
def test_lines_end_with_a_line_feed_alone(kind: str, newline: bool) -> None:  # noqa: FBT001 - a parameter
    """No format writes a carriage return or a byte-order mark."""
    content = render(file(kind, newline=newline, template="machine x\n{access_token}"))
    assert b"\r" not in content
    assert not content.startswith(b"\xef\xbb\xbf")
    assert content.endswith(b"\n") == (newline or kind in ("json", "header", "env"))


def test_a_template_keeps_its_own_text() -> None:
    """Doubled braces become braces, other text stays, also what is not ASCII; times are those of the token."""
    template = '{{"auth": "{access_token}", "until": {expires_on}}} → {expires_at} {token_type} {profile} {tenant}'
    expected = f'{{"auth": "{JWT}", "until": 1772370000}} → 2026-03-01T13:00:00Z Bearer graph contoso.onmicrosoft.com'
    assert render(file("template", template=template)).decode() == expected


# ---- what is refused


@pytest.mark.parametrize("secret", ["", "a b", "a\nb", "a\r\n", "a\x00b", "tökén", "a\tb", "\ud800", "a\x7f"])
@pytest.mark.parametrize("kind", ["raw", "json", "header", "env", "template"])
def test_an_unsafe_token_is_refused(secret: str, kind: str) -> None:
    """A token that could end its line, or is not visible ASCII, is written in no format, and not shown."""
    with pytest.raises(OutputError) as caught:
        render(file(kind, template="{access_token}"), secret)
    assert not secret or secret not in f"{caught.value.message}{caught.value.hint}{caught.value!r}"


@pytest.mark.parametrize("secret", ["a$b", "a`b", "a'b", 'a"b', "a\\b", "a;b", "a&b", "a#b", "~a", "a:~b", "a*", "(a"])
def test_what_a_shell_would_change_is_refused_for_variables(secret: str) -> None:
    """A token that means something else to a shell is refused in the env format; the hint names another."""
    with pytest.raises(OutputError) as caught:
        render(file("env"), secret)
    assert "json" in caught.value.hint
    assert json.loads(render(file("json"), secret))["access_token"] == secret


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{secret}", "unknown field {secret}"),
        ("{access_token} {expires_in}", "unknown field {expires_in}"),
        ("{}{access_token}", "unknown field {}"),
        ("{access_token.__class__}", "unknown field"),
        ("{access_token[0]}", "unknown field"),
        ("{access_token:>99}", "without a format"),
        ("{access_token!r}", "without a format"),
        ("{access_token:{profile}}", "without a format"),
        ("no token", "holds no token"),
        ("{{access_token}}", "holds no token"),
        ("{access_token", "braces"),
        ("{access_token}}", "braces"),
        ("\ufeff{access_token}", "byte-order mark"),
        ("a\r\n{access_token}", "Windows"),
    ],
)
def test_a_wrong_template_is_explained(template: str, said: str) -> None:
    """What is wrong with a template is said in words, before anything is rendered."""
    problem = formats.template_problem(template)
    assert problem is not None
    assert said in problem


def test_every_known_field_may_be_used() -> None:
    """All fields that the documentation names are accepted and filled."""
    template = " ".join(f"{{{name}}}" for name in formats.FIELDS)
    assert formats.template_problem(template) is None
    assert len(render(file("template", template=template)).split()) == len(formats.FIELDS)


# ---- real readers


@given(SHELL_SECRETS)
def test_a_shell_reads_the_variable(secret: str) -> None:
    """What `sh` has after `. FILE` is the token."""
    content = render(file("env", variable="TOKEN"), secret).decode()
    script = f'{content}printf %s "$TOKEN"'
    output = subprocess.run(["sh", "-c", script], check=True, capture_output=True, timeout=20).stdout
    assert output.decode() == secret


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_sends_the_header_file(tmp_path: Path) -> None:
    """`curl -H @FILE` and `curl --config FILE` send exactly the token."""
    (tmp_path / "header").write_bytes(render(file("header")))
    template = 'header = "Authorization: {token_type} {access_token}"\n'
    (tmp_path / "config").write_bytes(render(file("template", template=template)))
    seen: list[str | None] = []

    class Echo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Echo) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        for option in ("-H", f"@{tmp_path}/header"), ("--config", f"{tmp_path}/config"):
            url = f"http://127.0.0.1:{server.server_port}/"
            subprocess.run(["curl", "-qsSf", "--noproxy", "*", *option, url], check=True, timeout=20)
        server.shutdown()
        serving.join()
    assert seen == [f"Bearer {JWT}"] * 2
