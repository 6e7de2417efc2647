"""Files that are no configuration: whatever the bytes are, one clear problem with its place and its fix."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent import files
from agent.config.load import load_config
from agent.errors import ConfigurationError, Problem
from tests.config_helpers import CLIENT_ID, HEAD, entry, refused, the_problem, write


def refused_path(path: Path) -> Problem:
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, {}, files.read_bytes, files.expand)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (path, None)
    return problem


def test_missing(tmp_path: Path) -> None:
    """A missing file says how to start, and how to name another."""
    problem = refused_path(tmp_path / "config.toml")
    assert problem.message == "there is no such file"
    assert "config.example.toml" in problem.hint
    assert "-c" in problem.hint


def test_not_a_regular_file(tmp_path: Path) -> None:
    """A directory, a pipe without a writer, and a link to nowhere are told apart, and nobody waits."""
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert refused_path(tmp_path / "directory").message == "it is a directory"
    assert refused_path(tmp_path / "pipe").message == "it is not a regular file"
    assert refused_path(tmp_path / "pipe").hint.startswith("put it into a file: it is read again and again")
    assert refused_path(tmp_path / "loop").message == "it is a symbolic link that leads nowhere"


def test_too_large(tmp_path: Path) -> None:
    """A file that cannot be a configuration is not read whole."""
    path = tmp_path / "config.toml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert refused_path(path).message == "it is larger than 1 MiB"


def test_unreadable() -> None:
    """A file without permission says so, and how to give it."""

    def read_bytes(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    with pytest.raises(ConfigurationError) as caught:
        load_config(Path("/etc/x.toml"), {}, read_bytes, files.expand)
    assert "/etc/x.toml: no permission to read it (" in str(caught.value)
    assert "chgrp token-agent" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (HEAD.encode("utf-16"), 1, "UTF-16"),
        (b"\xfe\xff\x00a", 1, "UTF-16"),
        (b"a = 1\nb = '\xe4'\n", 2, "byte 12 of the file is not UTF-8"),
        (b"\xef\xbb\xbf# caf\xe9", 1, "byte 9 of the file is not UTF-8"),
        (b"\x7fELF\x02\x01\x01\x00", 1, "not valid TOML"),
        (b"a = 1\n\x00", 2, "not valid TOML"),
        (b"a = 1\nb = yes\n", 2, "Invalid value, at column 5"),
        (b"a = 1\n\nb = ", 3, "at the end of the file"),
        (b"a = 'x\n", 1, "not valid TOML"),
        (b"a = 1\na = 2\n", 2, "Cannot overwrite a value"),
        (b"[agent]\n\n[agent]\n", 3, "twice"),
        (b"a = [\n1,\n", 2, "at the end of the file"),
        (b"a = " + b"[" * 50_000, None, "nested too deeply"),
        (b"a = " + b"{a=" * 50_000, None, "nested too deeply"),
        (b"a." * 500 + b"a = 1", None, "nested too deeply"),
        (b"a = " + b"1" * 5000, None, "too many digits"),
    ],
)
def test_content(tmp_path: Path, content: bytes, line: int | None, said: str) -> None:
    """Bytes that are no TOML are one problem, at the line where they cease to be."""
    problem = the_problem(tmp_path, content)
    assert (problem.line, problem.key) == (line, "")
    assert said in problem.message


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        ("profile = 3", 1, "profile", ["a list of tables", "[[profile]]"]),
        ("profile = [1]", 1, "profile", ["must be a table"]),
        ("[profile]\nname = 'x'", 1, "profile", ["[[profile]], with two brackets"]),
        (f"agent = 3\n{HEAD}", 1, "agent", ["must be a table", "[agent]"]),
        (f"[[agent]]\n{HEAD}", 1, "agent", ["must be a table"]),
        (f"defaults = []\n{HEAD}", 1, "defaults", ["must be a table", "[defaults]"]),
        (f"[agent]\nwatch = 'yes'\n{HEAD}", 2, "agent.watch", ["true or false, not text"]),
        (f"[agent]\nwatch = 1\n{HEAD}", 2, "agent.watch", ["true or false, not a number"]),
        (f"[agent]\nmax_in_flight = '16'\n{HEAD}", 2, "agent.max_in_flight", ["a whole number, not text"]),
        (
            f"[agent]\nmax_in_flight = 1.5\n{HEAD}",
            2,
            "agent.max_in_flight",
            ["a whole number, without a decimal point"],
        ),
        (f"[agent]\ninclude = [1]\n{HEAD}", 2, "agent.include", ["text in quotes, not a number"]),
        (f"[agent]\nruntime_dir = 1979-05-27\n{HEAD}", 2, "agent.runtime_dir", ["a path in quotes, not a date"]),
        (f"{HEAD}refresh.at = '0.5'", 7, 'profile "graph": refresh.at', ["a number, not text"]),
        (f"{HEAD}refresh.at = true", 7, 'profile "graph": refresh.at', ["a number, not true or false"]),
        (f"{HEAD}refresh = 3", 7, 'profile "graph": refresh', ["a table, not a number"]),
        (f"{HEAD}[[profile.refresh]]", 7, 'profile "graph": refresh', ["a table, not a list"]),
        (f"{HEAD}expect.roles = {{}}", 7, 'profile "graph": expect.roles', ["a list, not a table"]),
        (f"{HEAD}ca_file = ['x']", 7, 'profile "graph": ca_file', ["a path in quotes, not a list"]),
        (
            HEAD.replace('"graph.pem"', "7"),
            6,
            'profile "graph": certificate',
            ["a path in quotes, a table", "not a number"],
        ),
        (HEAD.replace(f'"{CLIENT_ID}"', "7"), 4, 'profile "graph": client_id', ["text in quotes, not a number"]),
        (HEAD.replace('["https', '[\n1, "https'), 6, 'profile "graph": scopes #1', ["text in quotes"]),
        (HEAD.replace('"graph"', "7"), 2, "profile #1: name", ["text in quotes"]),
    ],
)
def test_types(tmp_path: Path, text: str, line: int, key: str, said: list[str]) -> None:
    """A value of the wrong type is told what it should be, and nothing is silently converted."""
    problem = the_problem(tmp_path, text)
    assert (problem.line, problem.key) == (line, key), str(problem)
    for words in said:
        assert words in f"{problem.message} {problem.hint}"


@pytest.mark.parametrize(
    ("text", "line", "key", "hint"),
    [
        ("clientid = 'x'", 7, "clientid", "did you mean `client_id`?"),
        ("Client-ID = 'x'", 7, "Client-ID", "did you mean `client_id`?"),
        ("scope = 'x'", 7, "scope", "did you mean `scopes`?"),
        ("client_secret = 'swordfish'", 7, "client_secret", "did you mean `client_secret_file`?"),
        ("cert = 'x'", 7, "cert", "did you mean `certificate`?"),
        ("refresh.jiter = 0.1", 7, "refresh.jiter", "did you mean `jitter`?"),
        ("[profile.refresh]\nat = 0.4\ntoken_file = 'x'", 9, "refresh.token_file", "belongs in [[profile]], above"),
        ("min_remaining = '5m'", 7, "min_remaining", "`min_remaining` belongs in [profile.refresh]"),
        ("log_level = 'info'", 7, "log_level", "`log_level` belongs in [agent]"),
        ("zzz = 1", 7, "zzz", "known here: tenant, cloud, authority, oidc_issuer, scopes, certificate, and "),
        ("zzz = 1", 7, "zzz", " more: see `token-agent schema`"),
        ("expect.zzz = 1", 7, "expect.zzz", "known here: audience, tenant_id, roles"),
        ('"a b\\n" = 1', 7, '"a b\\n"', "known here"),
        ("[[profile.token_file]]\nmod = '0640'", 8, "token_file.mod", "did you mean `mode`?"),
        ("on_refresh.signal = { pid_file = 'x', sig = 'HUP' }", 7, "on_refresh.signal.sig", "did you mean `signal`?"),
    ],
)
def test_unknown_keys(tmp_path: Path, text: str, line: int, key: str, hint: str) -> None:
    """An unknown key is named with its line and the nearest valid key, or the table it belongs to."""
    problem = the_problem(tmp_path, HEAD + text)
    assert (problem.line, problem.key) == (line, f'profile "graph": {key}')
    assert problem.message == "there is no such key"
    assert hint in problem.hint
    assert "swordfish" not in str(problem)


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("[agnet]", "agnet", "did you mean `agent`?"),
        ("[[profiles]]", "profiles", "did you mean `profile`?"),
        ("tenant = 'a.example'", "tenant", "`tenant` belongs in [defaults] or [[profile]]"),
        ("[defaults]\nclient_id = 'x'", "defaults.client_id", "`client_id` belongs in [[profile]]"),
        ("[defaults]\nproxi = 'x'", "defaults.proxi", "did you mean `proxy`?"),
    ],
)
def test_unknown_keys_outside_of_profiles(tmp_path: Path, text: str, key: str, hint: str) -> None:
    """At the top of a file and in [defaults], too, an unknown key is told once, with what was meant."""
    problem = the_problem(tmp_path, f"{text}\n{HEAD}")
    assert (problem.line, problem.key) == (text.count("\n") + 1, key)
    assert hint in problem.hint


def test_a_wrong_default_is_told_once_where_it_stands(tmp_path: Path) -> None:
    """What a hundred profiles inherit is one problem, at its line in [defaults]."""
    text = "[defaults]\nproxy = 'x'\nrefresh.at = 7\nscopes = 'User.Read'\n"
    profiles = "".join(entry(f"p{number}") for number in range(100))
    profiles = "\n".join(line for line in profiles.splitlines() if not line.startswith("scopes"))
    problems = refused(tmp_path, f"{text}{profiles}")
    assert [(problem.line, problem.key) for problem in problems] == [
        (2, "defaults.proxy"),
        (3, "defaults.refresh.at"),
        (4, "defaults.scopes"),
    ]


def test_all_problems_at_once(tmp_path: Path) -> None:
    """One wrong value hides no other: everything wrong is told in one go, in the order of the file."""
    text = (
        HEAD.replace("contoso.onmicrosoft.com", "common").replace(CLIENT_ID, "app").replace("/.default", "")
        + 'client_secret_file = ""\nproxy = 1\ntimeout = 0\nunknown = 1\n[[profile.token_file]]\nmode = "0777"\n'
        + "[[profile.token_file]]\npath = 'x'\nformat = 'template'\n[profile.refresh]\nat = 2\njitter = 'x'\n"
    )
    problems = refused(tmp_path, text)
    assert [problem.line for problem in problems] == [3, 4, 5, 7, 8, 9, 10, 11, 12, 15, 17, 18]


def test_the_error_counts_and_quotes_them_all(tmp_path: Path) -> None:
    """The text of the error is one line for each problem, as the log and `status` show it."""
    path = write(tmp_path, f"{HEAD}timeout = 0\nproxy = ''")
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, {}, files.read_bytes, files.expand)
    first, second = caught.value.message.splitlines()
    assert first.startswith(f'{path}:7: profile "graph": timeout: must be')
    assert second == f'{path}:8: profile "graph": proxy: may not be empty'
