"""Targets: what an administrator, or whoever writes in his files, puts in front of the agent."""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt as pyjwt

from agent import formats, state
from agent.commands import cert, explain, layout, show
from agent.config.load import load_config
from agent.config.model import Config, TokenFile
from agent.credentials import keyfiles, keypair
from agent.errors import ConfigurationError, CredentialError, OutputError
from agent.peek import peek_settings
from agent.tokens import AccessToken
from tests.certificate_helpers import NOW, make_certificate, make_chain
from tests.certificate_helpers import profile as any_profile
from tests.fuzz.target import Target, clean, clean_error, command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config.model import Profile

MAIN, INCLUDED = Path("/etc/token-agent/config.toml"), Path("/etc/token-agent/conf.d/x.toml")
ENVIRON = {"RUNTIME_DIRECTORY": "/run/x", "CREDENTIALS_DIRECTORY": "/c", "https_proxy": "http://p:1", "NO_PROXY": ".n"}
BETWEEN = b"\n#----\n"
"""Parts one input that stands for several files."""


# ---- the configuration


def load(contents: Mapping[Path, bytes]) -> Config | list[str]:
    """Load from memory, and check whatever problems there are."""

    def read_bytes(path: Path) -> bytes:
        if path not in contents:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return contents[path]

    try:
        config = load_config(MAIN, ENVIRON, read_bytes, lambda _directory, _pattern: [INCLUDED])
    except ConfigurationError as error:
        for problem in error.problems:
            lines = contents[problem.file].decode(errors="replace").count("\n") + 1
            assert problem.line is None or 1 <= problem.line <= lines
            assert problem.message
            assert str(problem).isprintable()
        return [str(problem) for problem in error.problems]
    assert isinstance(config, Config)
    hash(config.profiles)
    return config


def configuration(content: bytes) -> None:
    """A configuration and a file that it includes."""
    main, _, included = content.partition(BETWEEN)
    load({MAIN: main, INCLUDED: included})
    peek_settings(MAIN, ENVIRON, lambda _: main)


EXAMPLE = (Path(__file__).parent.parent.parent / "config.example.toml").read_bytes()
PROFILE_TEXT = b"""[[profile]]
name = "a"
tenant = "contoso.example"
client_id = "ace7a10d-aaaa-4a01-8663-1440b6b78cb9"
scopes = "https://x.example/.default"
certificate = { path = "c.pem", key = "k", password_file = "${CREDENTIALS_DIRECTORY}/p", send_chain = true }
refresh = { at = 0.5, jitter = 0.1, min_remaining = "5m" }
on_refresh.command = ["/bin/x", "{path}"]
[[profile.token_file]]
path = "a"
format = "template"
template = "{access_token}"
mode = 0o640
readers = ["user:x"]
"""
CONFIGURATIONS = (
    PROFILE_TEXT,
    b'[agent]\ninclude = ["conf.d/*.toml"]\n' + PROFILE_TEXT + BETWEEN + PROFILE_TEXT.replace(b'"a"', b'"b"'),
    b'[defaults]\ntenant = "contoso.example"\ntimeout = 20\n' + PROFILE_TEXT,
    *(EXAMPLE[start : start + 3000] for start in range(0, len(EXAMPLE), 3000)),
)
TOML_WORDS = (
    b"[[profile]]", b"[agent]", b"[defaults]", b'"""', b"'''", b"\\u0000", b"\\U0010ffff", b" = ", b"{", b"}", b"[",
    b"]",
    b"0x" + b"f" * 20, b"1e999", b"nan", b"-inf", b"1979-05-27T07:32:00Z", b"${", b"\xef\xbb\xbf", b"\r\n", b"\0",
    b"a.a.a.a.",
    b"include = ", b"runtime_dir = ", b"oidc_issuer = ", b"proxy = ", b'"environment"', b"token_file = ", BETWEEN,
)  # fmt: skip


# ---- certificates and keys


def credentials(content: bytes) -> None:
    """A certificate's file, alone and with a key of its own, as the agent and as `cert show` take it."""
    for password in (None, b"pw"):
        try:
            contents = keyfiles.parse(Path("/f"), content, password)
        except CredentialError as error:
            clean_error(error)
            continue
        with command():
            for line in cert._description(contents, NOW):
                clean(line)
        _proven(contents.certificates, contents)
        _proven((keyfiles.certificate_of(make_certificate().der),), contents)


def _proven(certificates: tuple[keyfiles.Certificate, ...], contents: keyfiles.Contents) -> None:
    try:
        key = contents.private_key()
        if certificates:
            keypair.prove(Path("/f"), certificates, Path("/f"), key).chain(NOW)
    except CredentialError as error:
        clean_error(error)


def _credential_seeds() -> tuple[bytes, ...]:
    chain, pair = make_chain(), make_certificate()
    return (
        pair.pem, pair.pkcs1_pem + pair.cert_pem, pair.encrypted_key_pem(b"pw") + pair.cert_pem, pair.der, pair.key_der,
        pair.pfx(), pair.pfx(b"pw", [chain.lower]), chain.leaf.cert_pem + chain.lower.cert_pem + chain.upper.cert_pem,
    )  # fmt: skip


PEM_WORDS = (
    b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"-----BEGIN PRIVATE KEY-----\n", b"\x30\x82",
    b"\x30\x80",
    b"-----END PRIVATE KEY-----\n", b"-----BEGIN RSA PRIVATE KEY-----\n", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
    b"MII",
    b"\x02\x01\x03", b"\x02\x04\x7f\xff\xff\xff", b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0c", b"99991231235959Z",
)  # fmt: skip


# ---- tokens and templates

TOKEN = AccessToken("eyJhbGciOiJub25lIn0.e30.x", "Bearer", NOW, NOW + timedelta(hours=1), None)


@functools.cache
def some_profile() -> Profile:
    """A profile that can be rendered."""
    return any_profile(certificate="/c.pem")


def template(content: bytes) -> None:
    """A template: refused with a reason, or written and read again without ever looking into an attribute."""
    text = content.decode(errors="replace")
    problem = formats.template_problem(text)
    if problem is not None:
        clean(problem)
        return
    file = TokenFile.model_construct(path=Path("/t"), format="template", template=text, newline=False)
    try:
        rendered = formats.render(TOKEN, some_profile(), file)
    except OutputError as error:
        clean_error(error)
        return
    assert TOKEN.secret.encode() in rendered
    assert formats.extract(rendered, some_profile(), file) == TOKEN.secret


def read_back(content: bytes) -> None:
    """What somebody else has written into a token file: a token is found in it, or none."""
    template = "a {profile} {access_token}:{expires_on}{access_token}{{"
    for kind in ("raw", "json", "header", "env", "template"):
        for newline in (False, True):
            file = TokenFile.model_construct(
                path=Path("/t"), format=kind, template=template, newline=newline, variable="A"
            )
            secret = formats.extract(content, some_profile(), file)
            assert secret is None or (secret.isascii() and secret.isprintable() and " " not in secret)
            if secret is not None:
                state.token_hash(secret)


def shown(content: bytes) -> None:
    """A token, or anything else, given to `show`."""
    source = show.Source(Path("/x"))
    with command():
        secret = show.token_in(content, source)
        try:
            header, claims = show.decode(secret)
            json.loads(show.as_document(header, claims))
            lines = list(show.describe(source, secret, header, claims))
        except RecursionError:
            return  # the command says so
        for line in lines:
            assert line.isprintable(), ascii(line)


def explained(content: bytes) -> None:
    """A text given to `explain`."""
    text = content.decode(errors="replace")
    for columns in (None, 40):
        names = explain.find(text)
        for line in explain.explain(names, text, columns):
            assert line.isprintable(), ascii(line)
    list(layout.fold(text, 40))


def jwt(header: Any = None, claims: Any = None) -> bytes:
    """Return a token without a signature worth the name."""
    return pyjwt.encode(claims or {}, "k" * 32, headers=header).encode()


YEAR = 365 * 86400
CLAIMS: dict[str, Any] = {
    "aud": "https://graph.microsoft.com", "tid": "9c5a10d0-aaaa-4a01-8663-1440b6b78cb9", "roles": ["A", "B"],
    "ver": "1.0",
    "iat": int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()), "exp": int(datetime(2026, 1, 1,
    tzinfo=UTC).timestamp()) + YEAR,
}  # fmt: skip

TARGETS = {
    "configuration": Target(configuration, CONFIGURATIONS, TOML_WORDS),
    "credentials": Target(credentials, _credential_seeds(), PEM_WORDS, 8192),
    "template": Target(
        template,
        (b"{access_token}", b"machine x password {access_token}\n", b"{{{access_token}}} {expires_on} {tenant}"),
        (b"{", b"}", b"{{", b"}}", b"{access_token.__class__}", b"{access_token[0]}", b"!r", b":>99999999", b"{0}",
        b"{}"),
        600,
    ),
    "read_back": Target(
        read_back, (b"abc", b'{"access_token": "abc"}', b"Authorization: Bearer abc\n", b"A=abc\n",
        b"a app x:1234567890x{")
    ),
    "show": Target(
        shown,
        (jwt(None, CLAIMS), b"Authorization: Bearer opaque-token\n", b'{"access_token": "opaque-token-123"}',
        b"X_TOKEN=abcdefgh\n"),
        (b"eyJ", b".", b"Bearer ", b"TOKEN=", b'{"access_token": "', b"eyJhIjoxfQ", b"\x1b[31m", b"\xe2\x80\xae"),
    ),
    "explain": Target(
        explained,
        (b"AADSTS700027: x", b"error_codes: [70011]", b"HTTP 503", b"invalid_client",
        b"AADSTS70011 scope 'x' is not valid"),
        (b"AADSTS", b"700027", b"error?code=", b"error_codes", b"invalid_client", b"scope '", b"' is not valid",
        b"HTTP/1.1 "),
    ),
}  # fmt: skip
