"""What a configuration means: short and long forms, defaults, paths, includes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.config.model import Certificate, Refresh
from agent.config.providers import Cloud
from tests.config_helpers import CLIENT_ID, HEAD, OTHER_ID, entry, load, load_one, write

if TYPE_CHECKING:
    from agent.config.model import TokenFile


def test_short_form(tmp_path: Path) -> None:
    """The short form needs six lines; its token lies in the runtime directory under the profile's name."""
    config = load(tmp_path, HEAD)
    (profile,) = config.profiles
    assert (profile.name, profile.client_id, profile.scopes) == (
        "graph",
        CLIENT_ID,
        ("https://graph.microsoft.com/.default",),
    )
    assert profile.certificate == (Certificate(path=tmp_path / "graph.pem"),)
    assert profile.authority_url == "https://login.microsoftonline.com/contoso.onmicrosoft.com"
    assert [file.path for file in profile.token_file] == [Path("/run/token-agent/graph.token")]
    assert profile.token_file[0].mode == 0o600
    assert config.sources == (tmp_path / "config.toml",)
    assert config.warnings == ()


LONG = f"""
[[profile]]
name = "billing"
tenant = "fabrikam.example"
cloud = "usgov"
client_id = "{OTHER_ID}"
scopes = "api://billing/.default"
ca_file = "/etc/ssl/corp.pem"
proxy = "http://proxy:3128"
timeout = "1m30s"
on_removal = "keep"
[profile.certificate]
path = "/etc/token-agent/billing.pfx"
key = "billing.key"
password_file = "${{CREDENTIALS_DIRECTORY}}/billing-password"
send_chain = true
[profile.refresh]
at = 0.4
jitter = 0
min_remaining = 90
[profile.expect]
audience = "api://billing"
roles = "Invoices.Read"
[[profile.token_file]]
path = "/srv/billing/auth/token"
mode = "0640"
owner = "billing"
readers = ["user:legacy", "group:web"]
[[profile.token_file]]
path = "b.env"
format = "env"
variable = "BILLING"
[profile.on_refresh]
reload_unit = ["billing.service"]
signal = {{ pid_file = "/run/billing.pid", signal = "sighup" }}
command = ["/usr/local/bin/after-refresh", "{{path}}"]
"""


def test_long_form(tmp_path: Path) -> None:
    """Every table of the long form arrives, with paths absolute and times as times."""
    config = load(tmp_path, LONG, {"CREDENTIALS_DIRECTORY": "/run/credentials/x", "RUNTIME_DIRECTORY": "/run/ta"})
    (profile,) = config.profiles
    assert profile.cloud is Cloud.USGOV
    assert profile.authority_url == "https://login.microsoftonline.us/fabrikam.example"
    assert profile.scopes == ("api://billing/.default",)
    assert profile.timeout == timedelta(seconds=90)
    (certificate,) = profile.certificate
    assert certificate == Certificate(
        path=Path("/etc/token-agent/billing.pfx"),
        key=tmp_path / "billing.key",
        password_file=Path("/run/credentials/x/billing-password"),
        send_chain=True,
    )
    assert profile.refresh == Refresh(at=0.4, jitter=0.0, min_remaining=timedelta(seconds=90))
    assert profile.expect.roles == ("Invoices.Read",)
    first, second = profile.token_file
    assert (first.path, first.mode, first.owner) == (Path("/srv/billing/auth/token"), 0o640, "billing")
    assert first.readers == ("user:legacy", "group:web")
    assert (second.path, second.format, second.variable) == (Path("/run/ta/b.env"), "env", "BILLING")
    assert profile.on_refresh is not None
    assert profile.on_refresh.signal is not None
    assert profile.on_refresh.signal.signal == "HUP"
    assert (profile.on_removal, profile.on_stop, profile.on_expiry) == ("keep", "keep", "keep")


def token_files(directory: Path, text: str, environ: dict[str, str] | None = None) -> tuple[TokenFile, ...]:
    return load_one(directory, HEAD + text, environ).token_file


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ('token_file = "a"', ["/run/token-agent/a"]),
        ('token_file = "/srv/a"', ["/srv/a"]),
        ('token_file = "${STATE_DIRECTORY}/a"', ["/s/a"]),
        ('token_file = { path = "a" }', ["/run/token-agent/a"]),
        ('token_file = { mode = "0400" }', ["/run/token-agent/graph.token"]),
        ('token_file = ["a", "b/c"]', ["/run/token-agent/a", "/run/token-agent/b/c"]),
        ('token_file = ["a", { path = "//srv//b" }]', ["/run/token-agent/a", "/srv/b"]),
        ("[profile.token_file]\ngroup = 'web'", ["/run/token-agent/graph.token"]),
        ("[[profile.token_file]]\npath = '/a'\n[[profile.token_file]]\npath = '/b'", ["/a", "/b"]),
    ],
)  # fmt: skip
def test_token_file_in_every_form(tmp_path: Path, text: str, paths: list[str]) -> None:
    """A token file is a path, a table, or a list of these; relative ones lie in the runtime directory."""
    environ = {"STATE_DIRECTORY": "/s:/t"}
    assert [str(file.path) for file in token_files(tmp_path, text, environ)] == paths


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("", 0o600),
        ("group = 'web'", 0o640),
        ("group = 'web'\nmode = '0600'", 0o600),
        ("mode = '640'", 0o640),
        ("mode = '0o440'", 0o440),
        ("mode = 0o640", 0o640),
        ("mode = '0660'", 0o660),
        ("mode = '0644'\nallow_world_readable = true", 0o644),
    ],
)
def test_mode(tmp_path: Path, text: str, mode: int) -> None:
    """A mode is octal; without one it is 0600, with a group 0640."""
    assert token_files(tmp_path, f"[profile.token_file]\n{text}")[0].mode == mode


@pytest.mark.parametrize(
    ("text", "seconds"),
    [('"90s"', 90), ('"10m"', 600), ('"1h30m"', 5400), ('"1d"', 86400), ("45", 45), ("0.5", 0.5), ('"1.5s"', 1.5)],
)
def test_durations(tmp_path: Path, text: str, seconds: float) -> None:
    """A duration is written with units, or as a number of seconds."""
    assert load_one(tmp_path, f"{HEAD}timeout = {text}").timeout == timedelta(seconds=seconds)


def test_directories_of_the_agent(tmp_path: Path) -> None:
    """The agent's directories are its own word, else systemd's first, else the usual ones."""
    usual = load(tmp_path, HEAD).agent
    assert (usual.runtime_dir, usual.state_dir) == (Path("/run/token-agent"), Path("/var/lib/token-agent"))
    systemd = load(tmp_path, HEAD, {"RUNTIME_DIRECTORY": "/run/a:/run/b", "STATE_DIRECTORY": "/var/lib/a"}).agent
    assert (systemd.runtime_dir, systemd.state_dir) == (Path("/run/a"), Path("/var/lib/a"))
    own = load(tmp_path, f'[agent]\nruntime_dir = "run"\n{HEAD}', {"RUNTIME_DIRECTORY": "/run/a"})
    assert own.agent.runtime_dir == tmp_path / "run"
    assert own.profiles[0].token_file[0].path == tmp_path / "run/graph.token"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://login.microsoftonline.com/contoso.example", "https://login.microsoftonline.com/contoso.example"),
        ("https://LOGIN.microsoftonline.com/Contoso.example/", "https://login.microsoftonline.com/Contoso.example"),
        ("https://login.microsoftonline.com/contoso.example/v2.0/", "https://login.microsoftonline.com/contoso.example"),
        ("https://127.0.0.1:8443/demo", "https://127.0.0.1:8443/demo"),
        ("https://[::1]:8443/demo", "https://[::1]:8443/demo"),
    ],
)  # fmt: skip
def test_authority_as_other_tools_write_it(tmp_path: Path, written: str, meant: str) -> None:
    """A slash at the end and /v2.0 are taken off; any host will do."""
    profile = load_one(tmp_path, HEAD.replace('tenant = "contoso.onmicrosoft.com"', f'authority = "{written}"'))
    assert profile.authority_url == meant
    assert profile.is_entra


def test_other_providers_take_any_client_id_and_scope(tmp_path: Path) -> None:
    """Rules of Entra do not bind other providers; their issuer stays letter by letter."""
    profile = load_one(
        tmp_path,
        '[[profile]]\nname = "k"\noidc_issuer = "https://k.example/realms/x/"\n'
        'client_id = "my-app"\ncertificate = "c.pem"',
    )
    assert (profile.oidc_issuer, profile.client_id, profile.scopes) == ("https://k.example/realms/x/", "my-app", ())
    assert not profile.is_entra


def test_equal_meaning_is_equal(tmp_path: Path) -> None:
    """Writing a default or another spelling changes nothing, so that nothing is restarted for it."""
    plain = load(tmp_path, HEAD).profiles
    spelled = HEAD.replace('scopes = ["https', 'scopes = "https').replace('default"]', 'default"')
    wordy = load(
        tmp_path,
        f'[agent]\nlog_level = "debug"\n{spelled}timeout = 20\ncloud = "public"\ntoken_file = "graph.token"\n'
        "[profile.refresh]\nat = 0.5\n",
    ).profiles
    assert plain == wordy


def test_template_file_is_read_and_watched(tmp_path: Path) -> None:
    """The text of a template file is part of the profile, and the file one of the sources."""
    write(tmp_path, "machine x password {access_token}\n", "netrc.template")
    config = load(
        tmp_path, f'{HEAD}token_file = {{ path = "n", format = "template", template_file = "netrc.template" }}'
    )
    assert config.profiles[0].token_file[0].template == "machine x password {access_token}\n"
    assert config.sources == (tmp_path / "config.toml", tmp_path / "netrc.template")


@pytest.mark.parametrize("text", [b"\xef\xbb\xbf" + HEAD.encode(), HEAD.replace("\n", "\r\n").encode()])
def test_files_of_other_systems(tmp_path: Path, text: bytes) -> None:
    """A byte order mark and carriage returns, as Windows editors leave them, do no harm."""
    assert load(tmp_path, text).profiles == load(tmp_path, HEAD).profiles


def test_warnings_for_what_deserves_a_look(tmp_path: Path) -> None:
    """A client secret, and what this version only checks, are accepted with one warning for each kind."""
    text = entry("a", "on_refresh = { reload_unit = 'a.service' }")
    text += entry("b", "[profile.on_refresh]", "reload_unit = 'b.service'")
    text += entry("c").replace('certificate = "graph.pem"', 'client_secret_file = "s"')
    text += entry("d").replace('certificate = "graph.pem"', 'federated = { managed_identity = "system" }')
    warnings = load(tmp_path, f'[agent]\nmetrics_listen = "127.0.0.1:9464"\n{text}').warnings
    for word in ("client secret is the last resort", "managed_identity"):
        assert sum(word in warning for warning in warnings) == 1, word
    assert len(warnings) == 2


@pytest.mark.parametrize("listen", ["127.0.0.1:9464", "127.9.9.9:1", "[::1]:9464", "localhost:9464", "unix:m.sock"])
def test_metrics_listen_on_this_machine(tmp_path: Path, listen: str) -> None:
    """Loopback addresses and sockets need no permission; a socket's path is relative to the file."""
    settings = load(tmp_path, f'[agent]\nmetrics_listen = "{listen}"\n{HEAD}').agent
    assert settings.metrics_listen == listen.replace("unix:", f"unix:{tmp_path}/")


def test_metrics_listen_elsewhere_with_permission(tmp_path: Path) -> None:
    """An address for other machines is fine once it is allowed."""
    text = f'[agent]\nmetrics_listen = "0.0.0.0:9464"\nmetrics_allow_remote = true\n{HEAD}'
    assert load(tmp_path, text).agent.metrics_listen == "0.0.0.0:9464"


def test_a_thousand_profiles_are_loaded_at_once(tmp_path: Path) -> None:
    """A thousand profiles with defaults load, and each has a token file of its own."""
    text = '[defaults]\ntimeout = "5s"\n' + "".join(entry(f"p{number}") for number in range(1000))
    config = load(tmp_path, text)
    assert len({profile.token_file[0].path for profile in config.profiles}) == 1000


def test_certificates_side_by_side(tmp_path: Path) -> None:
    """`certificate` may be a list of paths and tables, for a rollover."""
    profile = load(
        tmp_path,
        HEAD.replace('certificate = "graph.pem"', 'certificate = ["old.pem", { path = "new.pfx", key = "k" }]'),
    ).profiles[0]
    assert [each.path.name for each in profile.certificate] == ["old.pem", "new.pfx"]
    assert profile.certificate[1].key == tmp_path / "k"
