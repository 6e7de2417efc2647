"""Who answers in the agent's place, and texts that somebody pastes: commands say what they can, and end."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from agent import cli, control
from agent.commands import explain, show
from agent.engine.requests import Requests
from agent.errors import UnreachableError
from tests.fuzz.local import OUTCOME, REPLIES
from tests.fuzz.target import clean
from tests.process_helpers import PATIENCE, write_config
from tests.test_control import converse, served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOON = 15.0
STEERING = "\x1b[2J\x1b]0;owned\x07\r\u202e\x9b31m"


@contextlib.contextmanager
def impostor(directory: Path, reply: bytes | Callable[[socket.socket], None]) -> Iterator[None]:
    """Answer at an agent's socket with any bytes, or do with each connection what a function does."""
    directory.mkdir(exist_ok=True)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    if callable(reply):
                        reply(connection)
                        continue
                    connection.recv(1 << 16)
                    connection.sendall(reply)

    with control.listen(directory) as listener:
        listener.setblocking(True)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


LEVEL = 60_000
ANSWERS: dict[str, Any] = {
    "nothing": b"",
    "no JSON": b"\xff\xfe\x00garbage\n",
    "no object": b"[1, 2]\n",
    "not said": b'{"lines": []}\n',
    "truth of a number": b'{"ok": 1}\n',
    "deep": b'{"ok": true, "lines": ' + b"[" * LEVEL + b"]" * LEVEL + b"}\n",
    "lines is a number": {"ok": True, "lines": 5, "warnings": 7},
    "lines are numbers": {"ok": True, "lines": [5, None, {"a": 1}], "warnings": [[]]},
    "lines steer": {"ok": True, "lines": [STEERING], "warnings": [STEERING]},
    "refused for nothing": {"ok": False},
    "refused with a list": {"ok": False, "message": ["x"], "hint": {"y": 1}, "exit_code": "z"},
    "refused as a success": {"ok": False, "message": "x", "exit_code": 0},
    "refused as a bug": {"ok": False, "message": "x", "exit_code": 1},
    "refused beyond all codes": {"ok": False, "message": "x", "exit_code": 10**30},
    "refused as truth": {"ok": False, "message": "x", "exit_code": True},
    "refused, steering": {"ok": False, "message": STEERING, "hint": STEERING, "exit_code": 78},
    "problems are a number": {"ok": False, "problems": 5},
    "problems are lists": {"ok": False, "problems": [["x"], 5], "exit_code": 78},
    "unknown is a number": {"ok": False, "unknown": 5},
    "unknown without known": {"ok": False, "unknown": ["x"]},
    "unknown steers": {"ok": False, "unknown": [STEERING], "known": [STEERING, 5]},
    "profiles missing": {"ok": True},
    "profiles are a list": {"ok": True, "profiles": ["a"]},
    "profiles of nothing": {"ok": True, "profiles": {"a": {}}},
    "profile is a number": {"ok": True, "profiles": {"a": 5}},
    "error is a text": {"ok": True, "profiles": {"a": {**OUTCOME, "error": "x"}}},
    "error without a message": {"ok": True, "profiles": {"a": {**OUTCOME, "error": {"kind": "x"}}}},
    "error of numbers": {"ok": True, "profiles": {"a": {**OUTCOME, "error": {"kind": 1, "message": 2, "hint": 3,
    "code": 4}}}},
    "kind is a list": {"ok": True, "profiles": {"a": {**OUTCOME, "error": {**OUTCOME["error"], "kind": ["x"]}}}},
    "times are no times": {"ok": True, "profiles": {"a": {**OUTCOME, "error": None, "expires_at": "tomorrow"}}},
    "times are numbers": {"ok": True, "profiles": {"a": {**OUTCOME, "error": None, "expires_at": 5,
    "acquired_at": []}}},
    "name steers": {"ok": True, "profiles": {"a": OUTCOME, STEERING: OUTCOME}},
    "everything steers": {"ok": True, "profiles": {"a": {**OUTCOME, "error": dict.fromkeys(OUTCOME["error"],
    STEERING)}}},
    "another profile": {"ok": True, "profiles": {"b": OUTCOME}},
}  # fmt: skip
COMMANDS = (["reload"], ["plan"], ["refresh", "a"], ["refresh", "--all"], ["get", "a"], ["status"])


@pytest.mark.parametrize("name", ANSWERS)
def test_what_is_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Whatever is answered in an agent's place, each command that asks ends with a message and a code of its own."""
    reply = ANSWERS[name]
    content = reply if isinstance(reply, bytes) else json.dumps(reply).encode() + b"\n"
    config = write_config(tmp_path)
    with impostor(tmp_path / "run", content):
        for command in COMMANDS:
            code = cli.run([*command, "--config", str(config)])
            out, err = capsys.readouterr()
            clean(out)
            clean(err)
            assert code in (0, 2, 69, 75, 77, 78), (command, err)
            assert (
                code
                or name in ("lines is a number", "lines are numbers", "lines steer")
                or command == ["plan"]
                or "ok" in reply
            )


def test_good_answers_are_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an agent does answer is understood: success, failure and refusal have their codes."""
    codes = {0: ("reload", 0), 1: ("refresh", 77), 2: ("reload", 78), 3: ("refresh", 2)}
    config = write_config(tmp_path)
    for number, (op, code) in codes.items():
        with impostor(tmp_path / "run", json.dumps(REPLIES[number]).encode() + b"\n"):
            assert cli.run([op, *(["a"] if op == "refresh" else []), "--config", str(config)]) == code, (
                capsys.readouterr()
            )


@pytest.mark.parametrize("chunk", [b"[" * (1 << 16), b" " * (1 << 16)])
def test_an_answer_without_end(tmp_path: Path, chunk: bytes) -> None:
    """Who answers for ever is cut off, by size or by time."""

    def endless(connection: socket.socket) -> None:
        while True:
            connection.sendall(chunk)

    def slow(connection: socket.socket) -> None:
        while True:
            connection.sendall(b" ")
            if connection.recv(1 << 16) == b"":
                return

    began = time.monotonic()
    for manner in (endless, slow):
        with impostor(tmp_path, manner), pytest.raises(UnreachableError):
            control.ask(tmp_path, {"op": "reload"}, 2.0)
    assert time.monotonic() - began < SOON


def test_depths_of_a_request(tmp_path: Path) -> None:
    """A request nested to just where the parser gives up, under any of its keys, leaves the agent serving."""

    class Nothing:
        class board:  # noqa: N801 - as the engine calls it
            profiles: ClassVar[dict[str, object]] = {}

        class log:  # noqa: N801
            debug = staticmethod(lambda *_args, **_more: None)

    requests = Requests(Nothing(), Nothing())  # type: ignore[arg-type]  # no request below reaches either
    with served(tmp_path, requests.answer) as path:
        for key in ("op", "names", "min_valid_seconds"):
            for depth in (10, 200, *range(900, 1000, 7), 2000, 20_000):
                rest = "" if key == "op" else '"op": "refresh", '
                converse(path, f'{{{rest}"{key}": {"[" * depth}{"]" * depth}}}\n'.encode())
        assert converse(path, b'{"op": "x"}\n')["exit_code"] == 69


# ---- texts


def test_a_megabyte_of_codes() -> None:
    """Tens of thousands of unknown codes are explained in seconds, not in half an hour."""
    text = " ".join(f"AADSTS{9_000_000 + number}" for number in range(70_000))
    began = time.monotonic()
    lines = sum(1 for _ in explain.explain(explain.find(text), text, None))
    assert lines > 70_000
    assert time.monotonic() - began < SOON


RUNS = ("a" * 1_000_000, "a." * 400_000, "aaaa." * 200_000, "Bearer " * 140_000, "export " * 140_000,
"TOKEN=" * 160_000, "_" * 1_000_000,
        "error_codes" * 90_000, "error_codes" + " " * 900_000, "scope '" * 140_000, "HTTP " * 200_000,
        "12345 " * 160_000, "eyJhIjoxfQ." * 90_000)  # fmt: skip


@pytest.mark.parametrize("text", RUNS, ids=lambda text: text[:12])
def test_a_megabyte_of_the_same(text: str) -> None:
    """No text makes `show` or `explain` search for long."""
    began = time.monotonic()
    show.search(text)
    sum(1 for _ in explain.explain(explain.find(text), text, None))
    assert time.monotonic() - began < SOON
