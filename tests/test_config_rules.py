"""Every rule of the configuration: what is refused, at which line and key, and with which fix."""
# ruff: noqa: E501 - a case is a line

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.config_helpers import CLIENT_ID, HEAD, entry, refused, the_problem, write

if TYPE_CHECKING:
    from pathlib import Path

TENANT = 'tenant = "contoso.onmicrosoft.com"'
CERTIFICATE = 'certificate = "graph.pem"'
SCOPES = 'scopes = ["https://graph.microsoft.com/.default"]'
FILE = "[profile.token_file]\n"


def check(directory: Path, text: str, line: int | None, key: str, *said: str) -> None:
    """Exactly one problem, with its line, its key, and words of its message or hint."""
    problem = the_problem(directory, text)
    assert (problem.line, problem.key) == (line, key), str(problem)
    for words in said:
        assert words in f"{problem.message} ({problem.hint})"


@pytest.mark.parametrize(
    ("before", "after", "line", "key", "said"),
    [
        # one credential
        (CERTIFICATE, "", 1, "", ["names no credential", "token-agent cert new"]),
        (CERTIFICATE, f'{CERTIFICATE}\nclient_secret_file = "s"', 7, ": client_secret_file", ["`certificate` is given", "exactly one"]),
        (CERTIFICATE, f'{CERTIFICATE}\nfederated.assertion_file = "s"', 7, ": federated", ["`certificate` is given"]),
        (CERTIFICATE, "federated = {}", 6, ": federated", ["exactly one of assertion_file and managed_identity"]),
        (CERTIFICATE, "certificate = { key = 'k' }", 6, ": certificate.path", ["is missing", "the file with the certificate"]),
        # one provider
        (TENANT, "", 1, "", ["names no tenant", "contoso.onmicrosoft.com"]),
        (TENANT, 'cloud = "usgov"', 1, "", ["names no tenant"]),
        (TENANT, f'{TENANT}\nauthority = "https://h.example/t"', 4, ": authority", ["`tenant` is given as well"]),
        (TENANT, 'authority = "https://h.example/t"\ncloud = "china"', 4, ": cloud", ["`authority` already says", "remove"]),
        (TENANT, 'tenant = "common"', 3, ": tenant", ["`common` is for people"]),
        (TENANT, 'tenant = "Organizations"', 3, ": tenant", ["`organizations` is for people"]),
        (TENANT, 'tenant = "consumers"', 3, ": tenant", ["an application names its tenant"]),
        (TENANT, 'tenant = "contoso"', 3, ": tenant", ["a GUID or a verified domain"]),
        (TENANT, 'tenant = "https://login.microsoftonline.com/x.y"', 3, ": tenant", ["a GUID or a verified domain"]),
        (TENANT, 'tenant = "contoso..com"', 3, ": tenant", ["a GUID or a verified domain"]),
        (TENANT, f'{TENANT}\ncloud = "germany"', 4, ": cloud", ['"public", "usgov" or "china"']),
        (TENANT, 'authority = "http://h.example/t"', 3, ": authority", ["only ever asked over https"]),
        (TENANT, 'authority = "https://h.example"', 3, ": authority", ["after the host comes the tenant"]),
        (TENANT, 'authority = "https://h.example/t/u"', 3, ": authority", ["after the host comes the tenant"]),
        (TENANT, 'authority = "https://h.example/common/v2.0"', 3, ": authority", ["`common` is for people"]),
        (TENANT, 'authority = "https://u:swordfish@h.example/t"', 3, ": authority", ["neither user, query nor fragment"]),
        (TENANT, 'authority = "https://h.example/t?x=1"', 3, ": authority", ["neither user, query nor fragment"]),
        (TENANT, 'authority = "https://h.example:x/t"', 3, ": authority", ["this is not a URL"]),
        (TENANT, 'authority = "login.microsoftonline.com/t"', 3, ": authority", ["not an https URL", '"https://login']),
        (TENANT, 'authority = "https:///t"', 3, ": authority", ["not an https URL"]),
        (TENANT, 'oidc_issuer = "https://k.example/r/.well-known/openid-configuration"', 3, ": oidc_issuer", ["the issuer itself"]),
        # the application and what it asks for
        (CLIENT_ID, "my-app", 4, ": client_id", ["is a GUID", "Application (client) ID"]),
        (CLIENT_ID, f"{{{CLIENT_ID}}}", 4, ": client_id", [f'write "{CLIENT_ID}"']),
        (f'client_id = "{CLIENT_ID}"', "", 1, ": client_id", ["is missing", "overview page"]),
        (SCOPES, "", 1, ": scopes", ["is missing", 'scopes = ["https://graph.microsoft.com/.default"]']),
        (SCOPES, "scopes = []", 5, ": scopes", ["may not be empty"]),
        (SCOPES, 'scopes = [""]', 5, ": scopes", ["may not be empty"]),
        (SCOPES, 'scopes = "a b"', 5, ": scopes", ["no blanks", "written as a list"]),
        (SCOPES, 'scopes = "User.Read"', 5, ": scopes", ['write "https://graph.microsoft.com/.default"']),
        (SCOPES, 'scopes = [\n"https://x.example/.default",\n"https://y.example/.default"]', 5, ": scopes", ["one [[profile]] for each resource"]),
        # names
        ('name = "graph"', 'name = "-x"', 2, "#: name", ["begins with a letter or digit"]),
        ('name = "graph"', 'name = "a/b"', 2, "#: name", ["letters, digits"]),
        ('name = "graph"', 'name = "a\\u0007"', 2, "#: name", ["letters, digits"]),
        ('name = "graph"', f'name = "{"x" * 129}"', 2, "#: name", ["at most 128 characters"]),
    ],
)  # fmt: skip
def test_identity(tmp_path: Path, before: str, after: str, line: int, key: str, said: list[str]) -> None:
    """Who asks whom, for what, and with which credential: each mistake is named with its fix."""
    label = "profile #1" if key.startswith("#") else 'profile "graph"'
    assert before in HEAD
    check(tmp_path, HEAD.replace(before, after), line, label + key.removeprefix("#"), *said)


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        ('proxy = "proxy:3128"', 7, "proxy", ['"http://proxy:3128"', "environment"]),
        ('proxy = "https://proxy:3128"', 7, "proxy", ["plain http"]),
        ('proxy = "http://proxy"', 7, "proxy", ["the host or its port"]),
        ('proxy = "http://proxy:0"', 7, "proxy", ["the host or its port"]),
        ('proxy = "http://proxy:3128/path"', 7, "proxy", ["the host or its port"]),
        ('timeout = "soon"', 7, "timeout", ['"90s", "10m", "1h30m"']),
        ('timeout = "-5s"', 7, "timeout", ["a duration is written"]),
        ("timeout = 0", 7, "timeout", ["more than nothing"]),
        ("timeout = true", 7, "timeout", ["a duration is written"]),
        ("timeout = nan", 7, "timeout", ["a duration is written"]),
        ('timeout = "99999999999d"', 7, "timeout", ["longer than thirty years"]),
        ('timeout = ""', 7, "timeout", ["a duration is written"]),
        ("ca_file = ''", 7, "ca_file", ["may not be empty"]),
        ("ca_file = '~/ca.pem'", 7, "ca_file", ["~ is not expanded"]),
        ("ca_file = '$HOME/ca.pem'", 7, "ca_file", ["no variable is expanded here"]),
        ("ca_file = '${HOME}/ca.pem'", 7, "ca_file", ["not known here", "${CREDENTIALS_DIRECTORY}"]),
        ("ca_file = '/x/${STATE_DIRECTORY}'", 7, "ca_file", ["no variable is expanded here"]),
        ("ca_file = '${CREDENTIALS_DIRECTORY}/ca'", 7, "ca_file", ["is not set", "LoadCredential="]),
        ("ca_file = '${STATE_DIRECTORY}ca'", 7, "ca_file", ["comes a slash"]),
        ('ca_file = "a\\u0000b"', 7, "ca_file", ["NUL"]),
        (f"ca_file = '/{'x/' * 2100}'", 7, "ca_file", ["at most 4095 bytes"]),
        ("on_stop = 'remove'", 7, "on_stop", ['must be "delete" or "keep"']),
        ("refresh.at = 0", 7, "refresh.at", ["more than 0"]),
        ("refresh.at = 1", 7, "refresh.at", ["less than 1"]),
        ("refresh.at = inf", 7, "refresh.at", ["must be a number"]),
        ("refresh.jitter = -0.1", 7, "refresh.jitter", ["at least 0"]),
        ("refresh = { at = 0.4, jitter = 0.4 }", 7, "refresh.jitter", ["smaller than `at`", "jitter = 0.08"]),
        ("refresh = { at = 0.05 }", 7, "refresh.jitter", ["it is 0.1 by default"]),
        ("[profile.refresh]\nat = 0.2\njitter = 0.3", 9, "refresh.jitter", ["smaller than `at`"]),
        ("expect.tenant_id = 'a.example'", 7, "expect.tenant_id", ["never a domain"]),
        ("on_refresh = {}", 7, "on_refresh", ["nothing to do"]),
        ("on_refresh.command = 'x y'", 7, "on_refresh.command", ["must be a list"]),
        ("on_refresh.command = []", 7, "on_refresh.command", ["may not be empty"]),
        ("on_refresh.command = ['x', 'y']", 7, "on_refresh.command #1", ["whole path"]),
        ("on_refresh.signal = 'HUP'", 7, "on_refresh.signal", ["must be a table"]),
        ("on_refresh.signal = { pid_file = 'p', signal = 'HOP' }", 7, "on_refresh.signal.signal", ['"HUP"']),
        ("on_refresh.reload_unit = '--now'", 7, "on_refresh.reload_unit", ["not the name of a unit"]),
    ],
)  # fmt: skip
def test_values(tmp_path: Path, text: str, line: int, key: str, said: list[str]) -> None:
    """Values of a profile that are of no use are refused, each where it stands."""
    check(tmp_path, HEAD + text, line, f'profile "graph": {key}', *said)


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        ("token_file = 5", 7, "token_file", ["a path in quotes, a table, or a list"]),
        ("token_file = []", 7, "token_file", ["may not be empty", "NAME.token"]),
        ("token_file = ['a', 5]", 7, "token_file #2", ["a path in quotes, a table"]),
        ("token_file = ['a', 'b/']", 7, "token_file #2.path", ["names a directory"]),
        ("token_file = ['a', {}]", 7, "token_file #2.path", ["is missing"]),
        ("token_file = '/'", 7, "token_file.path", ["names a directory"]),
        ("token_file = '/a/..'", 7, "token_file.path", ["names a directory"]),
        ("token_file = ''", 7, "token_file.path", ["names a directory"]),
        (f"token_file = '{'x' * 256}'", 7, "token_file.path", ["at most 255 bytes"]),
        (f"token_file = '{'ä' * 128}'", 7, "token_file.path", ["at most 255 bytes"]),
        ("[[profile.token_file]]\npath = 'a'\n[[profile.token_file]]\npath = 'b'\nmode = '0999'", 11, "token_file #2.mode", ["three octal digits"]),
        (f"{FILE}mode = 640", 8, "token_file.mode", ['write "0640" in quotes']),
        (f"{FILE}mode = 0.5", 8, "token_file.mode", ["three octal digits"]),
        (f"{FILE}mode = true", 8, "token_file.mode", ["three octal digits"]),
        (f"{FILE}mode = '0755'", 8, "token_file.mode", ["not executable"]),
        (f"{FILE}mode = '4600'", 8, "token_file.mode", ["three octal digits"]),
        (f"{FILE}mode = '0040'", 8, "token_file.mode", ["the owner has to read"]),
        (f"{FILE}mode = '0620'", 8, "token_file.mode", ["must be able to read it"]),
        (f"{FILE}mode = '0644'", 8, "token_file.mode", ["let everybody read the token", "allow_world_readable = true"]),
        (f"{FILE}mode = '0666'\nallow_world_readable = true", 8, "token_file.mode", ["never lets everybody write"]),
        (f"{FILE}readers = ['legacy']", 8, "token_file.readers", ['"user:NAME" or "group:NAME"']),
        (f"{FILE}readers = ['user:a', 'other:b']", 8, "token_file.readers #2", ['"user:NAME" or "group:NAME"']),
        (f"{FILE}readers = 'user:'", 8, "token_file.readers", ['"user:NAME"']),
        (f"{FILE}group = 'a:b'", 8, "token_file.group", ["no colon"]),
        (f"{FILE}format = 'yaml'", 8, "token_file.format", ['"raw", "json", "header", "env" or "template"']),
        (f"{FILE}format = 'template'", 8, "token_file.format", ["needs `template` or `template_file`"]),
        (f"{FILE}format = 'template'\ntemplate = 'x'", 9, "token_file.template", ["without {access_token}"]),
        (f"{FILE}format = 'template'\ntemplate = '{{token}}'", 9, "token_file.template", ["unknown field {token}"]),
        (f"{FILE}format = 'template'\ntemplate = '{{access_token}}'\ntemplate_file = 'x'", 10, "token_file.template_file", ["`template` is given as well"]),
        (f"{FILE}format = 'template'\ntemplate_file = 'x'", 9, "token_file.template_file", ["/x: there is no such file"]),
        (f"{FILE}template = '{{access_token}}'", 8, "token_file.template", ['for format = "template" only, not for "raw"']),
        (f"{FILE}variable = 'X'", 8, "token_file.variable", ['for format = "env" only']),
        (f"{FILE}format = 'env'\nvariable = '1X'", 9, "token_file.variable", ["does not begin with a digit"]),
        (f"{FILE}format = 'json'\nnewline = true", 9, "token_file.newline", ['the formats "raw" and "template"']),
    ],
)  # fmt: skip
def test_token_files(tmp_path: Path, text: str, line: int, key: str, said: list[str]) -> None:
    """What cannot be a token file is refused, each key where it stands."""
    check(tmp_path, HEAD + text, line, f'profile "graph": {key}', *said)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no token", "without {access_token}"), (b"\xff{access_token}", "not UTF-8"), (b"{access_token", "expected '}'")],
)
def test_template_files(tmp_path: Path, content: bytes, said: str) -> None:
    """What is wrong with a template file is told where it is named."""
    write(tmp_path, content, "t")
    text = f"{HEAD}{FILE}format = 'template'\ntemplate_file = 't'"
    check(tmp_path, text, 9, 'profile "graph": token_file.template_file', f"{tmp_path}/t: ", said)


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        ("rescan_interval = 0.5", 2, "rescan_interval", ["at least one second"]),
        ("max_in_flight = 0", 2, "max_in_flight", ["at least 1"]),
        ("max_in_flight = 5000", 2, "max_in_flight", ["at most 1024"]),
        ("log_level = 'loud'", 2, "log_level", ['"debug", "info", "warning" or "error"']),
        ("metrics_listen = '0.0.0.0:9464'", 2, "metrics_listen", ["from other machines", "metrics_allow_remote = true"]),
        ("metrics_listen = 'host.example:9464'", 2, "metrics_listen", ["from other machines"]),
        ("metrics_listen = '9464'", 2, "metrics_listen", ['"127.0.0.1:9464"']),
        ("metrics_listen = '127.0.0.1:99999'", 2, "metrics_listen", ['"127.0.0.1:9464"']),
        ("metrics_textfile = '/x/metrics'", 2, "metrics_textfile", [".prom"]),
        ("runtime_dir = '${RUNTIME_DIRECTORY}'", 2, "runtime_dir", ["is not set", "RuntimeDirectory="]),
        ("include = ''", 2, "include", ["may not be empty"]),
    ],
)  # fmt: skip
def test_agent(tmp_path: Path, text: str, line: int, key: str, said: list[str]) -> None:
    """Settings of the agent that are of no use are refused, each where it stands."""
    check(tmp_path, f"[agent]\n{text}\n{HEAD}", line, f"agent.{key}", *said)


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("metrics_listen = 'unix:/run/token-agent/control.sock'", "metrics_listen", "a file of the agent's own"),
        ("metrics_listen = 'unix:/run/x/../token-agent/lock'", "metrics_listen", "a file of the agent's own"),
        ("metrics_listen = 'unix:/run/token-agent/status.json'", "metrics_listen", "a file of the agent's own"),
        ("metrics_listen = 'unix:/var/lib/token-agent/state.json'", "metrics_listen", "a file of the agent's own"),
        ("metrics_listen = 'unix:/run/token-agent'", "metrics_listen", "the agent's runtime_dir"),
        ("metrics_listen = 'unix:config.toml'", "metrics_listen", "a file of the configuration"),
        ("metrics_listen = 'unix:graph.pem'", "metrics_listen", "the certificate of graph"),
        ("metrics_listen = 'unix:/x/a.prom'\nmetrics_textfile = '/x/a.prom'", "metrics_listen", "the metrics_textfile"),
        ("metrics_textfile = '/x.prom'\nruntime_dir = '/x.prom'", "metrics_textfile", "the agent's runtime_dir"),
    ],
)  # fmt: skip
def test_what_the_agent_makes_besides(tmp_path: Path, text: str, key: str, said: str) -> None:
    """The file and the socket of the metrics are nothing else's either; what a token file is, that one says."""
    (problem,) = refused(tmp_path, f"[agent]\n{text}\n{HEAD}")
    assert (problem.line, problem.key) == (2, f"agent.{key}")
    assert said in problem.message
    assert problem.hint == "each file has a path of its own"
    text = f"[agent]\nmetrics_listen = 'unix:/run/token-agent/graph.token'\n{HEAD}"
    (problem,) = refused(tmp_path, text)
    assert (problem.key, "the socket of metrics_listen" in problem.message) == ('profile "graph": token_file', True)


def test_no_profile(tmp_path: Path) -> None:
    """A configuration that can never have a profile says so."""
    check(tmp_path, "", None, "", "there is no [[profile]]", "config.example.toml")


def test_names_are_unique(tmp_path: Path) -> None:
    """The second of two profiles with one name is told where the first is, and nothing else."""
    check(tmp_path, HEAD + entry("graph"), 8, 'profile "graph": name', "another profile has this name", "config.toml:2")


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("/srv/token", 'profile "first" writes'),
        ("/srv/../srv/./token", 'profile "first" writes'),
        ("/srv/token/deeper", "names a directory"),
        ("/etc/app.pem", "the certificate of first"),
        ("/etc/ca.pem", "the ca_file of second"),
        ("/run/token-agent/status.json", "the agent's own"),
        ("/run/token-agent/control.sock", "the agent's own"),
        ("/run/token-agent/x/../lock", "the agent's own"),
        ("/var/lib/token-agent/state.json", "the agent's own"),
        ("/run/token-agent", "the agent's runtime_dir"),
        ("/run", "a directory of"),
        ("/srv", "a directory of"),
    ],
)
def test_no_file_is_taken_twice(tmp_path: Path, own: str, said: str) -> None:
    """A token file that is another's, or that the agent reads or keeps, is refused where it is named."""
    text = entry("first", 'token_file = "/srv/token"').replace("graph.pem", "/etc/app.pem")
    text += entry("second", 'ca_file = "/etc/ca.pem"', f'token_file = "{own}"')
    problems = [str(problem) for problem in refused(tmp_path, text)]
    if said == "names a directory":
        assert ":7: " in problems[0]
        assert "a directory of a file" in problems[0]
    else:
        assert len(problems) == 1
        assert "config.toml:15: profile" in problems[0]
        assert said in problems[0]


def test_the_configuration_is_no_token_file(tmp_path: Path) -> None:
    """A token never overwrites the configuration it comes from."""
    check(tmp_path, f'{HEAD}token_file = "{tmp_path}/config.toml"', 7, 'profile "graph": token_file', "configuration")
