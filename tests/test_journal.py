"""The journal's native protocol: fields that journalctl can search, on a real socket that understands them."""

from __future__ import annotations

import logging
import os
import re
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import jwt
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from agent import journal, log
from tests.journal_helpers import FakeJournal, parse
from tests.process_helpers import run, sabotage, scene, start, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNDER_SYSTEMD = {"JOURNAL_STREAM": "1:2"}
"""Standard output is the journal's, or was before somebody redirected standard error."""


@pytest.fixture
def there(tmp_path: Path) -> Iterator[FakeJournal]:
    """A journal that is there."""
    made = FakeJournal(tmp_path / "socket")
    yield made
    made.socket.close()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Afterwards logging is as it was."""
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    logging.getLogger().removeHandler(log._BRIDGE)


def configure(path: Path, level: str = "debug") -> None:
    log.configure(level, "journal", UNDER_SYSTEMD, path)


# Events


def test_fields(there: FakeJournal) -> None:
    """An event arrives with message, priority and identifier, and each of its values in a field of its own."""
    configure(there.path)
    log.get_logger().warning(
        "acquisition.failed", profile="graph", code="AADSTS700027", failures=2, hint="", added=["a", "b"],
        deep={"x": None},
    )  # fmt: skip
    assert there.entry() == {
        "MESSAGE": 'acquisition.failed profile=graph code=AADSTS700027 failures=2 added=["a", "b"] deep={"x": null}',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "token-agent",
        "TOKEN_AGENT_EVENT": "acquisition.failed",
        "TOKEN_AGENT_PROFILE": "graph",
        "TOKEN_AGENT_CODE": "AADSTS700027",
        "TOKEN_AGENT_FAILURES": "2",
        "TOKEN_AGENT_ADDED": '["a", "b"]',
        "TOKEN_AGENT_DEEP": '{"x": null}',
    }


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")]
)
def test_priority(there: FakeJournal, level: str, priority: str) -> None:
    """Each level has its syslog priority, which is what `journalctl -p` selects by."""
    configure(there.path)
    getattr(log.get_logger(), level)("x.y")
    assert there.entry()["PRIORITY"] == priority


def test_libraries(there: FakeJournal) -> None:
    """What a library says is in the journal as well."""
    configure(there.path)
    logging.getLogger("msal").warning("odd %s", "answer")
    entry = there.entry()
    assert (entry["TOKEN_AGENT_EVENT"], entry["TOKEN_AGENT_LOGGER"]) == ("library.log", "msal")
    assert entry["TOKEN_AGENT_MESSAGE"] == "odd answer"


def test_several_lines(there: FakeJournal) -> None:
    """A value of several lines is whole in its field, and readable below the first line of the message."""
    configure(there.path)
    log.get_logger().error("config.rejected", reason="SIGHUP", message="a.toml:1: bad\na.toml:2: \x1b[31mworse")
    entry = there.entry()
    assert entry["TOKEN_AGENT_MESSAGE"] == "a.toml:1: bad\na.toml:2: \x1b[31mworse"
    assert entry["MESSAGE"].split("\n") == [
        "config.rejected reason=SIGHUP", "    a.toml:1: bad", "    a.toml:2: \\x1b[31mworse"
    ]  # fmt: skip


def test_traceback(there: FakeJournal) -> None:
    """A traceback is one event of several lines, not an event for each."""
    configure(there.path)
    try:
        int("x")
    except ValueError:
        log.get_logger().exception("agent.bug")
    entry = there.entry()
    assert entry["MESSAGE"].startswith("agent.bug\n    Traceback (most recent call last):\n")
    assert entry["PRIORITY"] == "3"
    assert there.is_empty()


def test_forged_fields(there: FakeJournal) -> None:
    """No value and no key can add a field or an event that is not ours."""
    configure(there.path)
    log.get_logger().info("x.y\nPRIORITY=0", profile="a\nMESSAGE=b\n\nMESSAGE=c", **{"k=\nUNIT=d": "e"})
    entry = there.entry()
    assert (entry["PRIORITY"], entry["TOKEN_AGENT_PROFILE"]) == ("6", "a\nMESSAGE=b\n\nMESSAGE=c")
    assert entry["TOKEN_AGENT_K__UNIT_D"] == "e"
    assert there.is_empty()


def test_secrets(there: FakeJournal) -> None:
    """Secrets are withheld in message and fields."""
    token = jwt.encode({"sub": "graph"}, "k" * 32)
    configure(there.path)
    log.get_logger().info("x.y", message=f"got {token}", password="s3cret")
    content = there.datagram().decode()
    assert token.split(".")[2] not in content
    assert "s3cret" not in content
    assert "[withheld]" in content


def test_long_event(there: FakeJournal) -> None:
    """An event that is too long for a datagram arrives whole, as a sealed file in memory."""
    configure(there.path)
    values = {f"value_{number}": f"{number}" * 29_000 for number in range(10)}
    log.get_logger().info("x.y", **values)
    entry = there.entry()
    assert [entry[f"TOKEN_AGENT_VALUE_{number}"] for number in range(10)] == list(values.values())
    log.get_logger().info("x.z")
    assert there.entry()["MESSAGE"] == "x.z"


@given(
    st.lists(st.tuples(st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True), st.text(st.characters(codec="utf-8"))))
)
def test_any_value(fields: list[tuple[str, str]]) -> None:
    """Whatever the values are, the journal reads them as they were."""
    assert parse(journal.encode(fields)) == fields


@given(st.text())
def test_any_name(key: str) -> None:
    """Whatever the key is, the field has a name that the journal accepts."""
    assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", journal.name_of(key))


def test_surrogates(there: FakeJournal) -> None:
    """A file name that is not UTF-8 costs no event."""
    configure(there.path)
    log.get_logger().info("x.y", path="/a\udcff")
    assert there.entry()["TOKEN_AGENT_PATH"] == "/a\\udcff"


# Without a journal


def test_no_journal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where the socket is missing, events are lines of text with their priority, until it is there."""
    configure(tmp_path / "socket")
    log.get_logger().error("x.y", profile="graph")
    assert capfd.readouterr().err == "<3>x.y profile=graph\n"
    there = FakeJournal(tmp_path / "socket")
    log.get_logger().error("x.z")
    assert there.entry()["MESSAGE"] == "x.z"
    there.socket.close()


def test_journal_restarted(there: FakeJournal, capfd: pytest.CaptureFixture[str]) -> None:
    """A journal whose socket was replaced is found again; in between, events are on standard error."""
    configure(there.path)
    log.get_logger().info("x.one")
    there.close()
    log.get_logger().info("x.two")
    again = FakeJournal(there.path)
    log.get_logger().info("x.three")
    assert again.entry()["MESSAGE"] == "x.three"
    assert capfd.readouterr().err == "<6>x.two\n"
    again.close()
    there.path.touch()


def test_stuck_journal(there: FakeJournal) -> None:
    """A journal that takes nothing holds the agent up once, for less than a second, and is used again when it does."""
    configure(there.path)
    began = time.monotonic()
    for number in range(2000):
        log.get_logger().info("x.y", number=number)
    assert time.monotonic() - began < 5
    kept = 0
    while not there.is_empty():
        assert there.entry()["TOKEN_AGENT_NUMBER"] == str(kept)
        kept += 1
    assert 0 < kept < 2000
    log.get_logger().info("x.z")
    assert there.entry()["MESSAGE"] == "x.z"


def test_explicit_format_elsewhere(there: FakeJournal, capfd: pytest.CaptureFixture[str]) -> None:
    """Outside a unit, the format `journal` is text for whoever reads standard error."""
    log.configure("info", "journal", {}, there.path)
    log.get_logger().info("x.y")
    assert capfd.readouterr().err == "<6>x.y\n"
    assert there.is_empty()


def test_auto(there: FakeJournal, tmp_path: Path) -> None:
    """`auto` is the journal when standard error is the journal's stream, and only then."""
    code = f"""
    import os, pathlib
    from agent import log
    log.configure("info", "auto", os.environ, pathlib.Path({str(there.path)!r}))
    log.get_logger().info("x.y")
    """
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        for name in (f"{found.st_dev}:{found.st_ino}", "1:2"):
            environ = {"JOURNAL_STREAM": name}
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-c", textwrap.dedent(code)],
                os.environ | environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, stream.fileno(), 2)],
            )
            assert os.waitpid(pid, 0)[1] == 0
    assert there.entry()["MESSAGE"] == "x.y"
    assert there.is_empty()
    assert '"event": "x.y"' in (tmp_path / "stream").read_text()


# The program


def test_agent(tmp_path: Path, there: FakeJournal) -> None:
    """The running agent tells the journal of its profile; nothing is left on standard error."""
    code = f"import agent.journal, pathlib; agent.journal.SOCKET = pathlib.Path({str(there.path)!r})"
    with scene(tmp_path) as stage:
        config = stage.config(log_format="journal")
        with start("run", "--config", config, environ=sabotage(tmp_path, code) | UNDER_SYSTEMD) as agent:
            while (entry := there.entry())["TOKEN_AGENT_EVENT"] != "token.written":
                pass
            assert entry["TOKEN_AGENT_PROFILE"] == "graph"
            assert entry["TOKEN_AGENT_PATH"] == str(tmp_path / "run" / "graph.token")
            assert agent.stop() == 0
        assert agent.stderr == ""


def test_error_of_a_command(tmp_path: Path) -> None:
    """What ends a command is an error in the journal too: each line carries its priority there, and only there."""
    config = write_config(tmp_path, {"name": "graph"})
    assert run("check", "--config", config).stderr.startswith("token-agent: ")
    with (tmp_path / "stream").open("w+") as file:
        found = os.fstat(file.fileno())
        environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        with start("run", "--config", config, environ=environ, stderr=file.fileno()) as agent:
            assert agent.wait() == 78
        lines = (tmp_path / "stream").read_text().splitlines()
    assert lines
    assert all(line.startswith("<3>token-agent: ") for line in lines)
