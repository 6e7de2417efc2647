"""`show` tells what a token says, in words and as JSON, without ever printing what would let one use it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent import cli
from tests import process_helpers
from tests.process_helpers import write_config
from tests.terminal_helpers import on_terminal

if TYPE_CHECKING:
    from pathlib import Path

KEY = "k" * 32
HEADER = {"x5t": "aGVsbG8", "kid": "aGVsbG8"}


def claims(**more: Any) -> dict[str, Any]:
    """Return the claims of a token that was issued five minutes ago and lives for an hour; None takes one away."""
    now = int(time.time())
    usual = {
        "ver": "1.0",
        "uti": "abcDEF123",
        "exp": now + 3300 + 30,
        "iat": now - 300,
        "nbf": now - 300,
        "roles": ["Mail.Read", "User.Read.All"],
        "tid": "9c5a10d0-aaaa-4a01-8663-1440b6b78cb9",
        "appid": "ace7a10d-aaaa-4a01-8663-1440b6b78cb9",
        "iss": "https://sts.windows.net/9c5a10d0-aaaa-4a01-8663-1440b6b78cb9/",
        "aud": "https://graph.microsoft.com",
    }
    return {name: value for name, value in (usual | more).items() if value is not None}


def token(**more: Any) -> str:
    return jwt.encode(claims(**more), KEY, headers=HEADER)


class Show:
    """The command, and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object, code: int = 0) -> str:
        assert cli.run(["show", *map(str, arguments)]) == code, self._capsys.readouterr()
        self.out, self.err = self._capsys.readouterr()
        return self.out

    def values(self, *arguments: object) -> dict[str, str]:
        """Return the claims by their labels, in order."""
        lines = self(*arguments).partition("\nclaims\n")[2].splitlines()
        return {label: value for label, _, value in (line.strip().partition(" ") for line in lines)}


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    return Show(capsys)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


FORMS = {
    "raw": "{}",
    "raw with newline": "{}\n",
    "json": '{{"access_token": "{}", "token_type": "Bearer", "expires_on": 1}}\n',
    "header": "Authorization: Bearer {}\n",
    "env": "ACCESS_TOKEN={}\n",
    "template": "machine api login token password {}\n",
    "a log": "GET / HTTP/1.1\r\nfirst.second.third\r\nauthorization: bearer {}\r\n\r\n",
    "byte order mark": "\ufeff{}",
}


@pytest.mark.parametrize("form", FORMS)
def test_any_form(form: str, tmp_path: Path, show: Show) -> None:
    """The token is found in every format that the agent writes and in any text around it."""
    secret = token()
    out = show(written(tmp_path / "file", FORMS[form].format(secret)))
    assert "aud    https://graph.microsoft.com\n" in out
    assert "without verifying" in out
    for part in (secret.rpartition(".")[2], secret.split(".")[1]):
        assert part not in out


def test_times_in_words(tmp_path: Path, show: Show) -> None:
    """Issue and expiry are told relative to now."""
    assert "\nissued 5 min ago, expires in 55 min\n" in show(written(tmp_path / "t", token()))
    now = int(time.time())
    assert "EXPIRED 3 min ago\n" in show(written(tmp_path / "t", token(exp=now - 185)))
    assert "NOT YET VALID, valid in 3 h" in show(written(tmp_path / "t", token(nbf=now + 3 * 3600 + 30)))
    out = show(written(tmp_path / "t", token(exp=None, iat=None, nbf=None)))
    assert "does not say when it expires" in out


@pytest.mark.parametrize("value", [-1, 10**30, 1e400, float("nan"), "soon", [], True, 0])
def test_strange_times(value: Any, tmp_path: Path, show: Show) -> None:
    """An expiry that is no sensible time is shown as it is."""
    body = json.dumps(claims() | {"exp": value}).encode()
    secret = jwt.api_jws.encode(body, KEY)
    assert "exp" in show.values(written(tmp_path / "t", secret))


def test_order_of_claims(tmp_path: Path, show: Show) -> None:
    """What people look for comes first, the rest follows by name, times come last; every role has its own line."""
    values = show.values(written(tmp_path / "t", token()))
    assert list(values) == ["aud", "iss", "tid", "appid", "roles", "User.Read.All", "uti", "ver", "iat", "nbf", "exp"]
    assert values["roles"].strip() == "Mail.Read"


def test_no_roles(tmp_path: Path, show: Show) -> None:
    """A token of Entra ID without roles is told to have none: the usual reason for a 403 afterwards."""
    assert "no application permission" in show.values(written(tmp_path / "t", token(roles=None)))["roles"]
    assert "roles" not in show.values(written(tmp_path / "t", token(roles=None, tid=None)))


def test_json(tmp_path: Path, show: Show) -> None:
    """With --json the output is header and claims, whole, and nothing else."""
    secret = token(nested={"a": [1, "\x1b[2J"]})
    document = json.loads(show(written(tmp_path / "t", secret), "--json"))
    assert document == {
        "header": jwt.get_unverified_header(secret),
        "claims": jwt.decode(secret, KEY, ["HS256"], options={"verify_aud": False}),
    }
    assert "\x1b" not in show.out


def test_terminals_are_safe(tmp_path: Path, show: Show) -> None:
    """Control characters and direction marks in names and values of claims do not reach the terminal."""
    secret = token(**{"app\x1b[31m": "x\x1b]0;title\x07\u202e\ny", "nested": {"k": "\x9b\u2028"}})
    out = show(written(tmp_path / "t", secret))
    assert all(line.isprintable() for line in out.split("\n"))
    assert "x ]0;title" in out


def test_fits_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal of 80 columns nothing is wider, and values stay below each other."""
    path = written(tmp_path / "t", token(long="word " * 60, longer="x" * 500, **{"n" * 100: "y" * 100}))
    lines = on_terminal("show", path)
    assert len(lines) > 20
    assert max(map(len, lines)) <= 80
    assert max(map(len, on_terminal("show", path, columns=50))) <= 62 + 12  # a name of its own length, at worst


def test_standard_input() -> None:
    """A token can be piped in, its signature stays out of the output."""
    secret = token()
    result = process_helpers.run("show", "-", stdin=secret)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("standard input\nissued 5 min ago")
    assert secret.rpartition(".")[2] not in result.stdout


@pytest.mark.parametrize(
    "content",
    [
        '{"access_token": "s3cr3t-opaque"}',
        "Authorization: Bearer s3cr3t-opaque\n",
        "ACCESS_TOKEN=s3cr3t-opaque\n",
        "s3cr3t-of-25-characters--",
    ],
)
def test_opaque(content: str, tmp_path: Path, show: Show) -> None:
    """An opaque token is said to be one, and not shown."""
    out = show(written(tmp_path / "t", content))
    assert "opaque token: " in out
    assert "s3cr3t-o" not in out
    assert json.loads(show(tmp_path / "t", "--json")) == {"header": None, "claims": None}


def test_encrypted(tmp_path: Path, show: Show) -> None:
    """A token of five parts is said to be encrypted."""
    assert "encrypted token (JWE)" in show(written(tmp_path / "t", "eyJhbGciOiJkaXIifQ.abc.def.ghi.jkl"))


@pytest.mark.parametrize(
    "content", ["", "\n", "hello", "two words", "a.b.c", '{"access_token": 1}', "[package]\nx = 1\n"]
)
def test_no_token(content: str, tmp_path: Path, show: Show) -> None:
    """A file without a token is an error that names the file."""
    path = written(tmp_path / "t", content)
    assert show(path, code=78) == ""
    assert f"{path}: holds no token" in show.err


def test_unreadable(tmp_path: Path, show: Show) -> None:
    """A missing file, a folder and a path that cannot be one are errors that name them."""
    for path, words in ((tmp_path / "none", "no such file"), (tmp_path, "directory"), (tmp_path / "\0", "usable path")):
        show(path, code=78)
        assert words in show.err


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a profile of each format; `graph` has two files."""
    common = {
        "tenant": "contoso.onmicrosoft.com",
        "client_id": "ace7a10d-aaaa-4a01-8663-1440b6b78cb9",
        "scopes": "https://graph.microsoft.com/.default",
        "certificate": "graph.pem",
    }
    first, second = {"path": "first", "format": "env", "variable": "X"}, {"path": "second"}
    netrc = {"path": "netrc", "format": "template", "template": "password <{access_token}> end"}
    (tmp_path / "run").mkdir()
    return write_config(
        tmp_path,
        {"name": "graph", **common, "token_file": [first, second]},
        {"name": "netrc", **common, "token_file": [netrc]},
    )


def test_profile(config: Path, tmp_path: Path, show: Show) -> None:
    """By the name of a profile its first token file is shown, in whatever format it is."""
    written(tmp_path / "run" / "first", f"X={token(aud='first')}\n")
    written(tmp_path / "run" / "second", token(aud="second"))
    assert show.values("graph", "--config", config)["aud"].strip() == "first"
    assert show.out.startswith(f"profile graph: {tmp_path / 'run' / 'first'}\n")
    written(tmp_path / "run" / "first", "X=opaque\n")
    assert "opaque token: 6 characters" in show("graph", "--config", config)
    written(tmp_path / "run" / "netrc", "password <opaque> end")
    assert "opaque token: 6 characters" in show("netrc", "--config", config)


def test_profile_wins_over_a_file(config: Path, tmp_path: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile is meant where a file has the same name; with a slash it is the file."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "run" / "first", f"X={token(aud='profile')}\n")
    written(tmp_path / "graph", token(aud="file"))
    written(tmp_path / "other", token(aud="other"))
    assert show.values("graph", "--config", config)["aud"].strip() == "profile"
    assert show.values("./graph", "--config", config)["aud"].strip() == "file"
    assert show.values("other", "--config", config)["aud"].strip() == "other"


def test_profile_without_a_token_yet(config: Path, show: Show) -> None:
    """A profile whose file is not there yet says where to look for the reason."""
    show("graph", "--config", config, code=78)
    assert "token-agent status graph" in show.err


def test_no_such_profile(config: Path, show: Show) -> None:
    """A name that is neither profile nor file is wrong use; the profiles there are, are named."""
    show("grahp", "--config", config, code=2)
    assert "graph, netrc" in show.err


def test_broken_configuration(tmp_path: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a configuration that cannot be used, files can be shown and profiles cannot."""
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path, top="nonsense = true")
    written(tmp_path / "plain", token())
    assert "expires in" in show("plain", "--config", config)
    show("graph", "--config", config, code=78)
    assert "nonsense" in show.err


PARTS = st.binary(max_size=60) | st.sampled_from(
    [b"eyJ9.", b".", b"e30.e30.", b'{"access_token":', b"Bearer ", b"TOKEN="]
)


@given(content=st.lists(PARTS, max_size=6).map(b"".join))
@example(content=b"[" * 100_000)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(content: bytes, tmp_path: Path, show: Show) -> None:
    """Whatever a file holds, the command ends with a token shown or with an error that names the file."""
    path = written(tmp_path / "file", content)
    code = cli.run(["show", str(path)])
    assert code in (0, 78)
    show(path, "--json", code=code)
    assert code == 0 or str(path) in show.err


@given(
    body=st.recursive(
        st.none() | st.integers() | st.text() | st.floats(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_claims(body: Any, tmp_path: Path, show: Show) -> None:
    """Whatever claims a token holds, lines are printable and --json is JSON."""
    names = ("aud", "roles", "exp", "other", "tid")
    secret = jwt.api_jws.encode(json.dumps(dict.fromkeys(names, body)).encode(), KEY)
    path = written(tmp_path / "file", secret)
    assert all(line.isprintable() for line in show(path).split("\n"))
    json.loads(show(path, "--json"))


@pytest.mark.parametrize("pattern", [b"a", b"a.", b"aaaa.bb.", b"TOKEN", b"Bearer "])
@pytest.mark.timeout(20)
def test_a_large_file_is_no_burden(pattern: bytes, tmp_path: Path, show: Show) -> None:
    """A megabyte that is made to be hard is searched quickly."""
    cli.run(["show", str(written(tmp_path / "file", pattern * (1_000_000 // len(pattern))))])


@pytest.mark.parametrize("depth", [200, 900, 5000])
def test_nested_claims(depth: int, tmp_path: Path, show: Show) -> None:
    """Claims nested beyond reason are shown or refused, never a crash."""
    secret = jwt.api_jws.encode(b'{"a":' + b"[" * depth + b"]" * depth + b"}", KEY)
    path = written(tmp_path / "file", secret)
    assert cli.run(["show", str(path)]) in (0, 78)
    assert cli.run(["show", str(path), "--json"]) in (0, 78)
