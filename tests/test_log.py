"""The log: one event a line in every format, secrets withheld, and no way for a log to end the agent."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from agent import log, redaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOKEN = jwt.encode({"sub": "graph", "roles": ["x"]}, "k" * 32, headers={"kid": "1"})
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7\n-----END PRIVATE KEY-----"
SECRET = "s3cret~V4lue.of-the_app"
FORMATS = ["console", "journal", "json"]


@pytest.fixture
def read(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What has reached standard error; afterwards logging is as it was."""
    yield lambda: capfd.readouterr().err
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    logging.getLogger().removeHandler(log._BRIDGE)
    for name in log.LIBRARIES:
        logging.getLogger(name).setLevel(logging.NOTSET)


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def in_process(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run code with a configured log in a process of its own."""
    lines = ["import logging, os, sys, warnings", "from agent import log", textwrap.dedent(code)]
    command = [sys.executable, "-c", "\n".join(lines), *arguments]
    return subprocess.run(
        command, text=True, check=False, timeout=30, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    )


ONE_EVENT = """
    log.configure("info", "auto", os.environ)
    log.get_logger().warning(
        "acquisition.failed", profile="graph", message="no connection to login.example", failures=2,
        hint="check network, firewall and `proxy`", retry_at="2026-03-01T12:00:08Z",
    )
"""


def on_terminal(environ: dict[str, str], columns: int = 80) -> list[str]:
    """Return the lines that ONE_EVENT prints on a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    done = in_process(ONE_EVENT, stderr=theirs, env=clean | environ)
    os.close(theirs)
    assert done.returncode == 0
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    return shown.splitlines()


# Events


def test_json_keys(read: Callable[[], str]) -> None:
    """A JSON line begins with timestamp (RFC 3339, UTC), level, event and profile, whatever order they came in."""
    log.configure("info", "json", {})
    log.get_logger().info("token.written", path="/run/x", profile="graph")
    line = read()
    assert re.fullmatch(
        r'\{"timestamp": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "level": "info", "event": "token\.written", '
        r'"profile": "graph", "path": "/run/x"\}\n',
        line,
    )
    told = datetime.fromisoformat(events(line)[0]["timestamp"])
    assert abs((datetime.now(UTC) - told).total_seconds()) < 60


@pytest.mark.parametrize("style", FORMATS)
def test_one_line_each(style: str, read: Callable[[], str]) -> None:
    """No value can begin a line of its own, or steer a terminal, in any format."""
    log.configure("info", style, {})
    hostile = "a\nb\r\nc\x1b[31m\x85\u2028\x9b2J\0d\te\x7f"
    log.get_logger().info("config.rejected", message=hostile, **{"k\nl": [hostile, {hostile: 1}]})
    shown = read()
    assert shown.endswith("\n")
    assert len(shown.splitlines()) == 1
    assert shown[:-1].isprintable()


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_level(level: str, shown: int, read: Callable[[], str]) -> None:
    """A level shows itself and what is graver."""
    log.configure(level, "json", {})
    logger = log.get_logger()
    for method in (logger.debug, logger.info, logger.warning, logger.error):
        method("x.y")
    assert len(events(read())) == shown


def test_configured_again(read: Callable[[], str]) -> None:
    """A logger that was handed out before follows a new level and a new format."""
    log.configure("error", "json", {})
    logger = log.get_logger()
    logger.info("x.y")
    log.configure("debug", "console", {})
    logger.debug("x.z")
    assert re.fullmatch(r"\d{4}\S+Z debug   x\.z\n", read())


def test_journal_priority(read: Callable[[], str]) -> None:
    """Each line for the journal carries its syslog priority and leaves the time to the journal."""
    log.configure("debug", "journal", {})
    logger = log.get_logger()
    for method in (logger.debug, logger.info, logger.warning, logger.error, logger.critical):
        method("x.y", profile="graph", pid=3, code=None)
    assert read().splitlines() == [f"<{number}>x.y profile=graph pid=3" for number in (7, 6, 4, 3, 2)]


def test_console_values(read: Callable[[], str]) -> None:
    """On the console words stand as they are, sentences in quotes, and what is unknown is left out."""
    log.configure("info", "console", {})
    log.get_logger().info(
        "x.y", path="/a/b-c.token", code=None, hint="", many=[], message='say "no" \\', ok=True, roles=["a"]
    )
    assert read()[21:] == 'info    x.y path=/a/b-c.token message="say \\"no\\" \\\\" ok=true roles=["a"]\n'


def test_awkward_values(read: Callable[[], str]) -> None:
    """What JSON cannot carry becomes text, and the line stays JSON."""
    cycle: list[Any] = [1]
    cycle.append(cycle)
    log.configure("info", "json", {})
    log.get_logger().info(
        "x.y", path=Path("/a"), at=datetime(2026, 3, 1, tzinfo=UTC), inf=float("inf"), nan=float("nan"), raw=b"\xff",
        surrogate="a\udcff", umlaut="ä", many={3}, nested={1: {"a": (1, 2.5, True, None)}}, cycle=cycle, big=1 << 200,
    )  # fmt: skip
    text = read()
    event = events(text)[0]
    assert (event["path"], event["at"], event["raw"]) == ("/a", "2026-03-01 00:00:00+00:00", "b'\\xff'")
    assert (event["inf"], event["nan"], event["surrogate"]) == ("inf", "nan", "a\udcff")
    assert (event["many"], event["nested"], event["big"]) == ([3], {"1": {"a": [1, 2.5, True, None]}}, 1 << 200)
    assert event["cycle"][1][1][0] == 1
    assert "ä" in text


def test_long_value(read: Callable[[], str]) -> None:
    """A value that nobody will read is cut, and says how long it was."""
    log.configure("info", "json", {})
    log.get_logger().info("x.y", message="m" * 1_000_000)
    message = events(read())[0]["message"]
    assert len(message) < 31_000
    assert message.endswith("… (1000000 characters)")


@pytest.mark.parametrize("style", FORMATS)
def test_traceback(style: str, read: Callable[[], str]) -> None:
    """A traceback names places and messages; values of variables and secrets in messages are not in it."""
    log.configure("info", style, {})
    hidden_local = "value-of-a-" + "variable"
    try:
        int(f"access_token={SECRET} {hidden_local[:5]}")
    except ValueError:
        log.get_logger().exception("agent.bug")
    shown = read()
    assert "ValueError: invalid literal for int()" in shown.replace("\\", "")
    assert "test_log.py" in shown
    assert SECRET not in shown
    assert "value-of-a-variable" not in shown


@pytest.mark.parametrize("style", FORMATS)
def test_secrets_withheld(style: str, read: Callable[[], str]) -> None:
    """Secrets vanish wherever in an event they stand: event name, value, nested, key, under a telling key."""
    log.configure("info", style, {})
    log.get_logger().info(
        f"x.{TOKEN}", message=f"got {TOKEN}", deep=[{"a": (PEM,)}], keys={TOKEN: 1}, access_token=SECRET,
        more={"password": SECRET, "client_secret": None}, error=ValueError(f"Bearer {TOKEN}"),
    )  # fmt: skip
    shown = read()
    for secret in (*TOKEN.split("."), "MIIEv", SECRET):
        assert secret not in shown
    assert shown.count(redaction.WITHHELD) == 7


# Libraries


@pytest.mark.parametrize(("level", "expected"), [("debug", ["first", "second", "third"]), ("info", ["second"])])
def test_library_levels(level: str, expected: list[str], read: Callable[[], str]) -> None:
    """What MSAL and urllib3 say below a warning is shown at debug level only."""
    log.configure(level, "json", {})
    logging.getLogger("msal.application").debug("first")
    logging.getLogger("urllib3.connectionpool").warning("second")
    logging.getLogger("urllib3").info("third")
    logging.getLogger("asyncio").info("never")
    shown = events(read())
    assert [event["message"] for event in shown] == expected
    assert {event["event"] for event in shown} == {"library.log"}


def test_library_event(read: Callable[[], str]) -> None:
    """A library's record has the shape of ours: level, logger, message, redacted, with its traceback and profile."""
    log.configure("info", "json", {})
    try:
        int(f"http://user:{SECRET}@proxy:3128")
    except ValueError:
        with structlog.contextvars.bound_contextvars(profile="graph"):
            logging.getLogger("msal.oauth2cli").exception("answer %s", TOKEN)
    event = events(read())[0]
    assert (event["level"], event["logger"], event["profile"]) == ("error", "msal.oauth2cli", "graph")
    assert event["message"] == "answer [withheld]"
    assert event["exception"].endswith("'http://[withheld]@proxy:3128'")


def test_library_misuse() -> None:
    """A record whose arguments do not fit, or whose level is odd, is an event nevertheless."""
    done = in_process("""
        log.configure("info", "json", {})
        logging.getLogger("msal").warning("%d of %s", "x")
        logging.getLogger("msal").log(35, "odd")
        logging.getLogger("msal").log(70, "graver than grave")
    """)
    shown = [(event["level"], event["message"]) for event in events(done.stderr)]
    assert shown == [("warning", "%d of %s"), ("warning", "odd"), ("critical", "graver than grave")]


def test_warnings_become_events() -> None:
    """Python's warnings are events too."""
    code = 'log.configure("info", "json", {}); warnings.warn("old thing")'
    done = in_process(code, env=os.environ | {"PYTHONWARNINGS": "default"})
    event = events(done.stderr)[0]
    assert (event["event"], event["logger"], event["level"]) == ("library.log", "py.warnings", "warning")
    assert "UserWarning: old thing" in event["message"]


# Where it goes


def test_auto_pipe() -> None:
    """With standard error in a pipe and no journal behind it, the format is JSON; standard output stays empty."""
    environ = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    done = in_process(ONE_EVENT, env=environ | {"JOURNAL_STREAM": "1:2"})
    assert events(done.stderr)[0]["event"] == "acquisition.failed"
    assert done.stdout == ""


def test_auto_journal(tmp_path: Path) -> None:
    """When JOURNAL_STREAM names standard error, the format is the journal's."""
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        in_process(ONE_EVENT, stderr=stream, env=os.environ | {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
    assert (tmp_path / "stream").read_text().startswith("<4>acquisition.failed profile=graph message=")


def test_auto_terminal() -> None:
    """On a terminal the format is the console's, coloured, and no line is longer than the terminal is wide."""
    lines = on_terminal({"TERM": "xterm"})
    assert "\x1b[33mwarning\x1b[0m acquisition.failed profile=graph" in lines[0]
    plain = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]
    assert plain[1:] == [
        '    message="no connection to login.example" failures=2',
        '    hint="check network, firewall and `proxy`" retry_at=2026-03-01T12:00:08Z',
    ]
    assert max(map(len, plain)) <= 80


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}])
def test_no_colour(environ: dict[str, str]) -> None:
    """NO_COLOR, or a terminal that knows no colours, means none."""
    assert not any("\x1b" in line for line in on_terminal(environ))


def test_reader_gone() -> None:
    """A pipe whose reader has left does not end the process, and costs it no exit code."""
    theirs, ours = os.pipe()
    os.close(theirs)
    done = in_process(ONE_EVENT + '    print("alive")', stderr=ours)
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, "alive\n")


def test_disk_full() -> None:
    """A full disk behind standard error does not end the process, and costs it no exit code."""
    with Path("/dev/full").open("w") as full:
        done = in_process(ONE_EVENT + '    print("alive")', stderr=full)
    assert (done.returncode, done.stdout) == (0, "alive\n")


def test_closed_before_start(tmp_path: Path) -> None:
    """Where standard error was closed before the start, events do not land in the file that took its number."""
    code = f"""
    import sys
    from agent import log
    log.configure("debug", "json", {{}})
    with open({str(tmp_path / "token")!r}, "w") as file:
        assert file.fileno() == 2
        log.get_logger().error("x.y")
        file.write("token")
    """
    command = 'exec "$0" -c "$1" 2>&-'
    done = subprocess.run(["/bin/sh", "-c", command, sys.executable, textwrap.dedent(code)], check=False, timeout=30)
    assert done.returncode == 0
    assert (tmp_path / "token").read_text() == "token"


# Redaction

SECRETS = {
    "jwt": TOKEN,
    "jwt without signature": TOKEN.rpartition(".")[0],
    "jwt cut off": TOKEN[:15],
    "jwt after a letter": f"\\n{TOKEN}",
    "jwt in a url": f"%22{TOKEN}%22",
    "jwe": "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..48V1_ALb6US04U3b.5eym8TW_c8SuK0ltJ3rpYIz.XFBoMYUZodetZdvTiFvSkQ",
    "signed, header unusual": f"{'Q' * 24}.{'R' * 30}.{'S' * 43}",
    "key": PEM,
    "key, escaped": PEM.replace("\n", "\\n"),
    "key, rsa": PEM.replace("PRIVATE", "RSA PRIVATE"),
    "key, encrypted": PEM.replace("PRIVATE", "ENCRYPTED PRIVATE"),
    "key, cut off": PEM[:70],
    "form": f"grant_type=x&client_secret={SECRET}&scope=y",
    "form, encoded": f"client_secret%3D{SECRET}&scope=y",
    "json": json.dumps({"client_secret": SECRET, "a": 1}),
    "json with spaces inside": json.dumps({"client_secret": f"first {SECRET}", "a": 1}),
    "json in json": json.dumps(json.dumps({"access_token": SECRET})),
    "json, cut off": json.dumps({"access_token": SECRET})[:-4],
    "repr": repr({"access_token": SECRET}),
    "repr of bytes": repr({"access_token": SECRET.encode()}),
    "toml": f'client_secret = "{SECRET}"',
    "assertion": f"client_assertion={SECRET}",
    "authorization": f"Authorization: Bearer {SECRET}",
    "authorization, lower": f"authorization: bearer {SECRET}",
    "proxy authorization": f"Proxy-Authorization: Basic {SECRET}",
    "headers": repr({"Authorization": f"Bearer {SECRET}"}),
    "bearer": f"sent Bearer {SECRET}",
    "proxy": f"http://user:{SECRET}@proxy.example:3128/",
    "proxy, at sign in it": f"http://user:p@{SECRET}@proxy.example:3128/",
    "password": f"password={SECRET}",
}
INNOCENT = [
    "",
    "AADSTS700027: Client assertion contains an invalid signature.",
    "/etc/token-agent/config.toml:3 client_secret: unknown key (did you mean client_secret_file?)",
    "client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    "1b671a64-40d5-491e-99b0-da01ff1f3341",
    "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token?x=a@b",
    "https://a-very-long-tenant-name.some-long-company-name.onmicrosoft-internal.example/",
    "/run/token-agent/graph.token",
    "BDDFFA6ED3D20A6DA1C8C6AF9A4B2E8C8D8E7F6A5B4C3D2E1F0A9B8C7D6E5F4A",
    "the key file needs a password; the password is wrong",
    "expected a bearer token; the Bearer scheme",
    "-----BEGIN CERTIFICATE-----",
    "no usable access_token in the answer",
]


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS.keys())
def test_redacted(text: str) -> None:
    """A secret is masked in every dress; masking twice is masking once."""
    masked = redaction.redact(f"before {text} after")
    assert redaction.WITHHELD in masked
    assert masked.startswith("before ")
    for secret in (SECRET, *TOKEN.split("."), "MIIEv", "S" * 43, "5eym8TW"):
        assert secret[:12] not in masked
    assert redaction.redact(masked) == masked


@pytest.mark.parametrize("text", INNOCENT)
def test_not_redacted(text: str) -> None:
    """What an operator needs to read is left alone."""
    assert redaction.redact(text) == text


@given(before=st.text(max_size=40), after=st.text(max_size=40), claims=st.dictionaries(st.text(max_size=8), st.text()))
def test_no_token_survives(before: str, after: str, claims: dict[str, str]) -> None:
    """Whatever stands around a token, no part of it is left."""
    token = jwt.encode(claims, "k" * 32)
    masked = redaction.redact(f"{before}{token}{after}")
    assert token.split(".")[2] not in masked
    assert token.split(".")[0] not in masked


PIECES = [*"a.=@ :\\\"'\n", "eyJhbGciOi", "://", "client_secret", "-----BEGIN PRIVATE KEY-----", "Bearer ", TOKEN]


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=60))
def test_redaction_settles(pieces: list[str]) -> None:
    """Masking twice is masking once, whatever the text."""
    masked = redaction.redact("".join(pieces))
    assert redaction.redact(masked) == masked
