"""`explain` says what an error means, whether it passes and how to fix it, whatever form it is pasted in."""

from __future__ import annotations

import subprocess
from itertools import pairwise

import pytest

from agent import aadsts, cli
from tests import process_helpers
from tests.terminal_helpers import on_terminal

PASTED = """\
Oct 03 10:22:01 host billing[812]: msal error {'error': 'invalid_client', 'error_description': "AADSTS7000215: \
Invalid client secret provided. Ensure the secret being sent in the request is the client secret value.\\r\\n
Trace ID: c36d5a6e-a82a-49c5-9af1-a6e16de60a00 Correlation ID: b13d6979-8e3c-4ea1-8050-e69ca4550ab5", \
'error_codes': [7000215], 'error_uri': 'https://login.microsoftonline.com/error?code=7000215'}
"""


class Explain:
    """The command, and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        assert cli.run(["explain", *arguments]) == code
        self.out, self.err = self._capsys.readouterr()
        return self.out

    def titles(self, *arguments: str) -> list[str]:
        """Return the codes that are explained, in order."""
        lines = self(*arguments).splitlines()
        return [line for line, below in pairwise(lines) if below.startswith("  meaning  ")]


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str]) -> Explain:
    return Explain(capsys)


@pytest.mark.parametrize(
    "text",
    [
        "AADSTS700027",
        "aadsts700027:",
        "700027",
        " 700027. ",
        "AADSTS 700027",
        "https://login.microsoftonline.com/error?code=700027",
        '{"error": "invalid_client", "error_codes": [700027]}',
        "what is error 700027 about?",
        "AADSTS700027: Client assertion failed signature validation. Timestamp: 2026-11-25 02:00:09Z",
    ],
)
def test_a_code_in_any_form(text: str, explain: Explain) -> None:
    """A code is recognised bare, with its letters, in a link, in JSON and in a sentence."""
    assert explain.titles(text) == ["AADSTS700027"]
    assert "upload the .cer" in explain.out
    assert "Certificates & secrets" in explain.out
    assert "  class    permanent" in explain.out


@pytest.mark.parametrize("number", [n for n in aadsts.entries() if n.isdigit()])
def test_every_known_code(number: str, explain: Explain) -> None:
    """Every code of the catalogue is explained with meaning, class, fix and Microsoft's own page."""
    assert explain.titles(number) == [f"AADSTS{number}"]
    labels = [line.split()[0] for line in explain.out.splitlines() if line.startswith("  ")][:4]
    assert labels == ["meaning", "class", "fix", "more"]
    assert f"https://login.microsoftonline.com/error?code={number}\n" in explain.out
    assert "{" not in explain.out


@pytest.mark.parametrize("name", [n for n in aadsts.entries() if not n.isdigit()])
def test_every_oauth_error(name: str, explain: Explain) -> None:
    """An OAuth error alone is explained as well."""
    assert explain.titles(name) == [name]
    assert explain.titles(f"server said: {name.upper()} (status 400)") == [name]


def test_transient_or_permanent(explain: Explain) -> None:
    """The explanation says whether waiting helps, and that a code of users' sign-in is none of an app's."""
    assert "class    transient" in explain("AADSTS90033")
    assert "class    transient" in explain("AADSTS50196")
    assert "class    permanent" in explain("AADSTS7000222")
    assert "class    not for apps" in explain("AADSTS50076")


def test_several_codes(explain: Explain) -> None:
    """All codes of a text are explained, each once, in order; the OAuth error beside them adds nothing."""
    assert explain.titles("AADSTS70002: x AADSTS50012: y (AADSTS70002) invalid_client") == [
        "AADSTS70002",
        "AADSTS50012",
    ]
    assert explain.titles("700027", "7000215") == ["AADSTS700027", "AADSTS7000215"]


def test_standard_input() -> None:
    """A whole log can be piped in; trace ids, times and process ids in it are not taken for codes."""
    result = process_helpers.run("explain", "-", stdin=PASTED)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("AADSTS7000215\n")
    assert result.stdout.count("meaning") == 1


def test_standard_input_of_any_bytes() -> None:
    """A log with bytes that are no text is read all the same, whatever the locale."""
    result = subprocess.run(
        [*process_helpers.COMMAND, "explain", "-"],
        env=process_helpers.environment(PYTHONIOENCODING="utf-8:strict"),
        input=b"\xff\xfe AADSTS700027 \x80",
        capture_output=True,
        timeout=process_helpers.PATIENCE,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.startswith(b"AADSTS700027\n")


def test_words_without_quotes(explain: Explain) -> None:
    """A message may be pasted without quotes, as several arguments."""
    assert explain.titles("AADSTS700016:", "Application", "was", "not", "found") == ["AADSTS700016"]


def test_unknown_code(explain: Explain) -> None:
    """An unknown code is said to be unknown, with general advice marked as such and a link to Microsoft's page."""
    assert explain.titles("AADSTS7999999") == ["AADSTS7999999"]
    assert "not known here" in explain.out
    assert "general advice" in explain.out
    assert "https://login.microsoftonline.com/error?code=7999999" in explain.out


@pytest.mark.parametrize(
    "text", ["see https://login.microsoftonline.com/error?code=7999999", "'error_codes': [7999999]"]
)
def test_unknown_code_by_its_place(text: str, explain: Explain) -> None:
    """In a link and in Entra's JSON a number is a code, known or not."""
    assert explain.titles(text) == ["AADSTS7999999"]


def test_unknown_code_with_a_known_error(explain: Explain) -> None:
    """For an unknown code what comes with it is made use of: its OAuth error tells the class."""
    assert "by temporarily_unavailable: transient" in explain("temporarily_unavailable AADSTS7999999")


@pytest.mark.parametrize(
    ("text", "title", "kind"),
    [
        ("HTTP 429 Too Many Requests", "HTTP 429", "transient"),
        ("HTTP/1.1 503 Service Unavailable", "HTTP 503", "transient"),
        ("failed: http 407", "HTTP 407", "permanent"),
    ],
)
def test_a_status_alone(text: str, title: str, kind: str, explain: Explain) -> None:
    """A status of HTTP that speaks for itself is explained where no code is in the text."""
    assert explain.titles(text) == [title]
    assert f"class    {kind}" in explain.out
    assert explain.titles(f"{text} AADSTS700027") == ["AADSTS700027"]


@pytest.mark.parametrize("text", ["", "nothing to see", "at 10:22:01 port 50000x failed", "HTTP 404", "65001-23"])
def test_no_code(text: str, explain: Explain) -> None:
    """A text without any code is wrong use, and the message says what would be right."""
    assert explain(text, code=2) == ""
    assert "AADSTS" in explain.err
    assert "--list" in explain.err


def test_no_argument(explain: Explain) -> None:
    """Without anything to explain the command asks for it."""
    assert explain(code=2) == ""
    assert "AADSTS700027" in explain.err


@pytest.mark.parametrize("code", ["70011", "1002012", "invalid_scope"])
def test_scopes_in_plain_words(code: str, explain: Explain) -> None:
    """For a wrong scope right and wrong forms are shown, and where permissions are granted instead."""
    lines = explain(code).splitlines()
    right, wrong = ([line.split()[1] for line in lines if line.startswith(f"  {how}")] for how in ("right", "wrong"))
    assert "https://graph.microsoft.com/.default" in right
    assert all(scope.endswith("/.default") for scope in right)
    assert {"https://graph.microsoft.com/User.Read", "User.Read", "https://graph.microsoft.com"} <= set(wrong)
    assert "Application permissions" in explain.out
    assert "right" not in explain("700027")


@pytest.mark.parametrize(
    ("scope", "better"),
    [
        ("https://graph.microsoft.com/User.Read", "https://graph.microsoft.com/.default"),
        ("https://graph.microsoft.com", "https://graph.microsoft.com/.default"),
        ("https://graph.microsoft.com/", "https://graph.microsoft.com/.default"),
        ("User.Read.All", "https://graph.microsoft.com/.default"),
        (
            "api://6a8b4b39-c021-437c-b060-5a14a3fd65f3/full_access",
            "api://6a8b4b39-c021-437c-b060-5a14a3fd65f3/.default",
        ),
        ("6a8b4b39-c021-437c-b060-5a14a3fd65f3/x", "6a8b4b39-c021-437c-b060-5a14a3fd65f3/.default"),
    ],
)
def test_the_right_scope_is_suggested(scope: str, better: str, explain: Explain) -> None:
    """The scope that a message complains about is corrected."""
    for text in (
        f"AADSTS70011: The value for the input parameter 'scope' is not valid. The scope {scope} is not valid.",
        f"AADSTS1002012: The provided value for scope {scope} is not valid. Client credential flows must have ...",
    ):
        assert explain(text).endswith(f'Instead of {scope} write:\n  scopes = ["{better}"]\n')


def test_list(explain: Explain) -> None:
    """All codes can be listed, each in a line of its own with class and meaning."""
    lines = explain("--list").splitlines()
    assert [line.split()[0].removeprefix("AADSTS") for line in lines] == list(aadsts.entries())
    assert all(line.split()[1] in ("permanent", "transient", "user") for line in lines)


@pytest.mark.parametrize("arguments", [["--list"], ["AADSTS700027 7000215 AADSTS7999999"], ["70011"], ["--help"]])
def test_fits_on_a_terminal(arguments: list[str]) -> None:
    """On a terminal of 80 columns nothing is wider."""
    lines = on_terminal("explain", *arguments)
    assert len(lines) > 5
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("text", ["a" * 1_000_000, "0" * 1_000_000, "1234 " * 200_000 + "x", "a_" * 500_000])
@pytest.mark.timeout(20)
def test_a_long_text_is_no_burden(text: str) -> None:
    """A megabyte that is made to be hard is searched quickly and without a crash."""
    assert process_helpers.run("explain", "-", stdin=text).returncode in (0, 2)
