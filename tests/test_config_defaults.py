"""What profiles inherit from [defaults], and what replaces it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from agent.config.model import Certificate, Refresh
from tests.config_helpers import CLIENT_ID, load_one, refused

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config.model import Profile


def merged(directory: Path, defaults: str, lines: str) -> Profile:
    keys = f'name = "p"\nclient_id = "{CLIENT_ID}"\nscopes = "https://x.example/.default"\n'
    return load_one(directory, f"[defaults]\n{defaults}\n[[profile]]\n{keys}{lines}")


def test_defaults_merge_key_by_key(tmp_path: Path) -> None:
    """A profile inherits what it does not say, within tables as well; what it says wins."""
    profile = merged(
        tmp_path,
        'tenant = "a.example"\ntimeout = "7s"\nrefresh = { at = 0.3, min_remaining = "1m" }\n'
        'certificate = { password_file = "pw", send_chain = true }',
        'timeout = "9s"\nrefresh = { at = 0.6 }\ncertificate = "p.pem"',
    )
    assert profile.tenant == "a.example"
    assert profile.timeout == timedelta(seconds=9)
    assert profile.refresh == Refresh(at=0.6, min_remaining=timedelta(minutes=1))
    assert profile.certificate == (
        Certificate(path=tmp_path / "p.pem", password_file=tmp_path / "pw", send_chain=True),
    )


@pytest.mark.parametrize(
    ("inherited", "lines", "kind"),
    [
        ('certificate = "c.pem"', 'client_secret_file = "s"', "client_secret_file"),
        ('certificate = "c.pem"', 'federated = { assertion_file = "a" }', "federated"),
        ('client_secret_file = "s"', 'certificate = "c.pem"', "certificate"),
        ('client_secret_file = "s"', "", "client_secret_file"),
    ],
)
def test_a_credential_replaces_the_inherited_one(tmp_path: Path, inherited: str, lines: str, kind: str) -> None:
    """A profile that names a credential does not inherit another kind."""
    profile = merged(tmp_path, f'tenant = "a.example"\n{inherited}', lines)
    given = [key for key in ("certificate", "federated", "client_secret_file") if getattr(profile, key)]
    assert given == [kind]


def test_another_assertion_replaces_the_inherited_one(tmp_path: Path) -> None:
    """Within `federated`, too, one way of saying it replaces the other."""
    profile = merged(
        tmp_path,
        'tenant = "a.example"\nfederated = { managed_identity = "system" }',
        'federated = { assertion_file = "a" }',
    )
    assert profile.federated is not None
    assert (profile.federated.assertion_file, profile.federated.managed_identity) == (tmp_path / "a", None)


@pytest.mark.parametrize(
    ("inherited", "lines", "url"),
    [
        ('tenant = "a.example"\ncloud = "china"', 'tenant = "b.example"', "https://login.partner.microsoftonline.cn/b.example"),
        ('tenant = "a.example"\ncloud = "china"', 'authority = "https://h.example/t"', "https://h.example/t"),
        ('authority = "https://h.example/t"', 'tenant = "b.example"', "https://login.microsoftonline.com/b.example"),
        ('authority = "https://h.example/t"', 'oidc_issuer = "https://k.example/r/x/"', "https://k.example/r/x"),
        ('oidc_issuer = "https://k.example/r"', 'authority = "https://h.example/t/"', "https://h.example/t"),
    ],
)  # fmt: skip
def test_an_authority_replaces_the_inherited_one(tmp_path: Path, inherited: str, lines: str, url: str) -> None:
    """A profile that names its provider in one way does not inherit another way."""
    assert merged(tmp_path, f'certificate = "c.pem"\n{inherited}', lines).authority_url == url


def test_a_problem_is_told_where_it_was_written(tmp_path: Path) -> None:
    """In a table that is half inherited, a wrong key is told where it stands: in [defaults] or in the profile."""
    text = f"""\
[defaults]
tenant = "a.example"
certificate = {{ password_file = "", send_chain = true }}
refresh = {{ jitter = 2 }}
[[profile]]
name = "p"
client_id = "{CLIENT_ID}"
scopes = "https://x.example/.default"
certificate = {{ path = 3 }}
[profile.refresh]
at = "x"
"""
    assert [(problem.line, problem.key) for problem in refused(tmp_path, text)] == [
        (3, "defaults.certificate.password_file"),
        (4, "defaults.refresh.jitter"),
        (9, 'profile "p": certificate.path'),
        (11, 'profile "p": refresh.at'),
    ]


def test_what_defaults_cannot_give_is_missing_in_the_profile(tmp_path: Path) -> None:
    """A key that may not stand in [defaults] is named there as unknown, and in the profile as missing."""
    text = (
        f'[defaults]\nclient_id = "{CLIENT_ID}"\ntenant = "a.example"\ncertificate = "c.pem"\n'
        '[[profile]]\nname = "p"\nscopes = "https://x.example/.default"\n'
    )
    found = {problem.key: problem.message for problem in refused(tmp_path, text)}
    assert found == {"defaults.client_id": "there is no such key", 'profile "p": client_id': "is missing"}


def test_a_wrong_short_form_is_told_in_the_profile(tmp_path: Path) -> None:
    """A profile's own certificate that is wrong is not blamed on the inherited one it replaces."""
    text = f"""\
[defaults]
tenant = "a.example"
certificate = {{ path = "right.pem", send_chain = true }}
[[profile]]
name = "p"
client_id = "{CLIENT_ID}"
scopes = "https://x.example/.default"
certificate = ""
"""
    assert [(problem.line, problem.key) for problem in refused(tmp_path, text)] == [
        (8, 'profile "p": certificate.path')
    ]
