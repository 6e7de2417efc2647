"""The control socket: who may speak there, and that nothing anybody does there disturbs the agent or other callers."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from agent import control, reception, serving
from agent.errors import UnreachableError
from tests.process_helpers import PATIENCE, environment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

LONG = "d" * 50
NOBODY = 65534


async def echo(request: dict[str, Any]) -> control.Answer:
    return {"ok": True, "heard": request}


@contextmanager
def served(directory: Path, answer: Callable[[dict[str, Any]], Awaitable[control.Answer]] = echo) -> Iterator[Path]:
    """Serve a directory's control socket in another thread while the block runs; yield the socket's path."""
    ready = threading.Event()
    ending: list[Callable[[], None]] = []

    async def main() -> None:
        with control.listen(directory) as listener, anyio.CancelScope() as scope:
            token = anyio.lowlevel.current_token()
            ending.append(lambda: anyio.from_thread.run_sync(scope.cancel, token=token))
            ready.set()
            await reception.serve(listener, answer)

    thread = threading.Thread(target=anyio.run, args=(main,))
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield directory / control.NAME
    finally:
        ending[0]()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def descriptors() -> int:
    """Return how many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def connect(path: Path) -> socket.socket:
    """Connect, waiting for room in the backlog, which only a socket that blocks does."""
    connection = socket.socket(socket.AF_UNIX)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(PATIENCE), 0))
    connection.connect(str(path))
    connection.settimeout(PATIENCE)
    return connection


def converse(path: Path, message: bytes, *, end: bool = False) -> Any:
    """Send bytes and return the answer as JSON, None if there was none."""
    with connect(path) as connection:
        with suppress(OSError):  # refused already
            connection.sendall(message)
            if end:
                connection.shutdown(socket.SHUT_WR)
        heard = b""
        while not heard.endswith(b"\n") and (chunk := connection.recv(1 << 16)):
            heard += chunk
    return json.loads(heard) if heard else None


def test_question_and_answer(tmp_path: Path) -> None:
    """A request comes in as it was sent, and its answer goes out as it was given, whatever their size."""

    async def much(request: dict[str, Any]) -> control.Answer:
        return {"ok": True, "lines": ["x" * 1000] * 3000, "heard": request}

    request = {"op": "é\n", "names": ["n" * 100] * 600}
    with served(tmp_path, much):
        answer = control.ask(tmp_path, request, PATIENCE)
    assert answer["heard"] == request
    assert len(answer["lines"]) == 3000


def test_request_without_newline(tmp_path: Path) -> None:
    """A caller that ends its side instead of its line is answered as well."""
    with served(tmp_path) as path:
        assert converse(path, b'{"op": "x"}', end=True) == {"ok": True, "heard": {"op": "x"}}


@pytest.mark.parametrize("umask", [0, 0o027, 0o077, 0o177])
def test_mode(tmp_path: Path, umask: int) -> None:
    """The socket is 0600 from its first instant, whatever the umask; the umask itself is not touched."""
    before = os.umask(umask)
    try:
        control.listen(tmp_path).close()
        assert stat.S_IMODE((tmp_path / control.NAME).stat().st_mode) == 0o600
    finally:
        assert os.umask(before) == umask


def test_left_over(tmp_path: Path) -> None:
    """The socket of a dead agent is replaced, and until then callers are told that nobody is there."""
    control.listen(tmp_path).close()
    with pytest.raises(UnreachableError, match="nobody answers"):
        control.ask(tmp_path, {}, 1)
    with served(tmp_path):
        assert control.ask(tmp_path, {}, PATIENCE)["ok"]
    (tmp_path / control.NAME).unlink()
    with pytest.raises(UnreachableError, match="no such socket"):
        control.ask(tmp_path, {}, 1)


@pytest.mark.parametrize("length", [106, 107, 108, 109, 400])
def test_long_paths(tmp_path: Path, length: int) -> None:
    """A path that does not fit into a socket's address (107 bytes) works at both ends, to the byte."""
    directory = tmp_path
    while len(str(directory)) + len(LONG) + 2 < length - len(control.NAME):
        directory /= LONG
    directory /= "é" + "d" * (length - len(os.fsencode(directory)) - len(control.NAME) - 4)
    directory.mkdir(parents=True)
    assert len(os.fsencode(directory / control.NAME)) == length
    before = descriptors()
    with served(directory):
        assert control.ask(directory, {"a": 1}, PATIENCE) == {"ok": True, "heard": {"a": 1}}
    assert (directory / control.NAME).is_socket()
    assert descriptors() == before


NONSENSE = {
    "garbage": b"\x00\xff\xfe garbage\n",
    "not UTF-8": b'{"op": "\xff"}\n',
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "deep": b"[" * 60_000 + b"\n",
    "deeper objects": b'{"a":' * 12_000 + b"\n",
    "long number": b'{"op": ' + b"9" * 60_000 + b"}\n",
    "list": b'["op"]\n',
    "null": b"null\n",
    "blank": b"   \n",
    "half": b'{"op": "relo\n',
    "too long": b'{"op": "' + b"x" * control.MAX_REQUEST + b'"}\n',
    "endless": b"x" * (4 << 20),
}


@pytest.mark.parametrize("message", NONSENSE.values(), ids=NONSENSE)
def test_nonsense(tmp_path: Path, message: bytes) -> None:
    """What is no request is refused in words, and the next caller is served."""
    with served(tmp_path) as path:
        answer = converse(path, message, end=True)
        assert (answer["ok"], answer["exit_code"]) == (False, 69)
        assert "not a request" in answer["message"]
        assert control.ask(tmp_path, {}, PATIENCE)["ok"]


def test_silence(tmp_path: Path) -> None:
    """Callers that come and go without a word leave nothing behind."""
    with served(tmp_path) as path:
        before = descriptors()
        for _ in range(200):
            connect(path).close()
        assert converse(path, b"", end=True) is None
        assert converse(path, b"\n") is None
        assert control.ask(tmp_path, {}, PATIENCE)["ok"]
        assert descriptors() <= before + 1  # the last one may be on its way


def test_storm(tmp_path: Path) -> None:
    """Thousands of hostile connections, among them as many that hang as are served at once: a caller gets its turn."""

    async def big(request: dict[str, Any]) -> control.Answer:
        return {"ok": True, "lines": ["x" * 1000] * (20_000 if request.get("op") == "big" else 0)}

    with served(tmp_path, big) as path:
        before = descriptors()
        hanging = [connect(path) for _ in range(serving.SERVED - 2)]
        for number, connection in enumerate(hanging):
            connection.sendall((b"", b'{"op": "', b'{"op": "big"}\n')[number % 3])  # says nothing, half, never listens
        messages = list(NONSENSE.values())
        began = time.monotonic()
        for number in range(3000):
            with connect(path) as connection:
                connection.setblocking(False)
                with suppress(OSError):  # refused already
                    connection.send(messages[number % len(messages)])
        assert time.monotonic() - began < PATIENCE
        hanging += [connect(path) for _ in range(20)]
        assert control.ask(tmp_path, {}, 2 * serving.TIME_LIMIT + PATIENCE)["ok"]
        for connection in hanging:
            connection.close()
        assert control.ask(tmp_path, {}, PATIENCE)["ok"]
        assert descriptors() <= before + 1


def test_those_who_say_nothing_hold_up_nobody(tmp_path: Path) -> None:
    """Many more silent connections than are served at once do not make a caller wait until their time is up."""
    with served(tmp_path) as path:
        silent = [connect(path) for _ in range(5 * serving.SERVED)]
        silent[-1].sendall(b'{"op": ')  # half a request is none
        began = time.monotonic()
        for _ in range(5):
            assert control.ask(tmp_path, {}, PATIENCE)["ok"]
        assert time.monotonic() - began < serving.TIME_LIMIT / 2
        for connection in silent:
            connection.close()


def test_served_at_once(tmp_path: Path) -> None:
    """Only so many requests are at work at once; the others wait their turn and are all answered."""
    state = {"now": 0, "most": 0, "seen": 0}
    full, go = threading.Event(), threading.Event()

    async def slow(_request: dict[str, Any]) -> control.Answer:
        state["now"] += 1
        state["most"] = max(state["most"], state["now"])
        if state["now"] == serving.SERVED:
            full.set()
        await anyio.to_thread.run_sync(go.wait, limiter=anyio.CapacityLimiter(1))
        state["now"] -= 1
        return {"ok": True}

    answers: list[control.Answer] = []
    with served(tmp_path, slow):
        callers = [
            threading.Thread(target=lambda: answers.append(control.ask(tmp_path, {}, PATIENCE)))
            for _ in range(serving.SERVED + 40)
        ]
        for caller in callers:
            caller.start()
        assert full.wait(PATIENCE)
        go.set()
        for caller in callers:
            caller.join(PATIENCE)
    assert state["most"] == serving.SERVED
    assert answers == [{"ok": True}] * (serving.SERVED + 40)


def test_no_descriptors_left(tmp_path: Path) -> None:
    """When descriptors are used up, callers wait, and are served as soon as there are some again."""
    code = """
import sys, anyio, resource, threading, os
from pathlib import Path
from agent import control, reception, serving

async def answer(request):
    return {"ok": True}

async def main():
    with control.listen(Path(sys.argv[1])) as listener, anyio.CancelScope() as scope:
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used - 1, 1024))
        async def stop():
            await anyio.to_thread.run_sync(sys.stdin.readline)
            resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
            await anyio.to_thread.run_sync(sys.stdin.readline)
            scope.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop)
            print("ready", flush=True)
            await reception.serve(listener, answer)

anyio.run(main)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(UnreachableError, match=r"no answer within 0\.5 s"):
            control.ask(tmp_path, {}, 0.5)
        process.stdin.write("more\n")
        process.stdin.flush()
        assert control.ask(tmp_path, {}, PATIENCE) == {"ok": True}
        process.stdin.write("end\n")
        process.stdin.flush()
        assert process.wait(PATIENCE) == 0


AS_NOBODY = """
import os, sys
from pathlib import Path
from agent import control
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    print(control.ask(Path(sys.argv[1]), {"op": "x"}, 10))
except control.UnreachableError as error:
    print("UNREACHABLE", error.exit_code, error.message, "|", error.hint)
"""


def as_nobody(directory: Path) -> str:
    """Ask as another user and return what came of it."""
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(directory)],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    ).stdout


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user may enter, as runtime_dir is."""
    with tempfile.TemporaryDirectory(prefix="token-agent-tests-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@needs_root
def test_others_cannot_connect(public: Path) -> None:
    """Another user does not even get a connection, and is told who may."""
    with served(public) as path:
        answer = as_nobody(public)
    assert answer.startswith(f"UNREACHABLE 69 {path}: not permitted")
    assert "root and the agent's own user" in answer


@needs_root
def test_others_are_refused(public: Path) -> None:
    """Should the mode ever be opened, another user's request is refused all the same, and not carried out."""
    heard: list[object] = []

    async def listen(request: dict[str, Any]) -> control.Answer:
        heard.append(request)
        return {"ok": True}

    with served(public, listen) as path:
        path.chmod(0o666)
        assert f"user {NOBODY} may not ask" in as_nobody(public)
        assert heard == []
        assert control.ask(public, {}, PATIENCE)["ok"]  # root may


def listening(directory: Path, backlog: int = 1) -> socket.socket:
    """Listen where an agent would, and do nothing."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / control.NAME))
    listener.listen(backlog)
    return listener


def test_no_answer(tmp_path: Path) -> None:
    """An agent that does not answer, because it is stopped or swamped, costs a caller its time limit and no more."""
    with listening(tmp_path, 0) as listener:
        began = time.monotonic()
        with pytest.raises(UnreachableError, match=r"no answer within 0\.3 s"):
            control.ask(tmp_path, {}, 0.3)
        waiting = []
        for _ in range(4):  # until the backlog is full
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(listener.getsockname())
            waiting.append(one)
        with pytest.raises(UnreachableError, match=r"no answer within 0\.3 s"):
            control.ask(tmp_path, {}, 0.3)
        assert 0.5 < time.monotonic() - began < 5
        for one in waiting:
            one.close()


@pytest.mark.parametrize(
    "said", [b"", b"\n", b"garbage\n", b"[]\n", b'{"ok": 1}\n', b'{"ok": true', b"[" * 100_000 + b"\n"]
)
def test_strange_answers(tmp_path: Path, said: bytes) -> None:
    """Whatever answers there, a caller gets one clear error that names the socket."""
    with listening(tmp_path) as listener:

        def misanswer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(said)

        thread = threading.Thread(target=misanswer)
        thread.start()
        with pytest.raises(UnreachableError) as caught:
            control.ask(tmp_path, {}, PATIENCE)
        thread.join(PATIENCE)
    assert str(tmp_path / control.NAME) in caught.value.message
    assert caught.value.exit_code == 69


def test_too_much_to_ask(tmp_path: Path) -> None:
    """A request that no agent would read is not sent."""
    with pytest.raises(UnreachableError, match="too long"):
        control.ask(tmp_path, {"names": ["x" * 100] * 1000}, 1)


def test_asking_is_light() -> None:
    """The asking end imports none of the libraries that work, not even the event loop."""
    code = "import sys, agent.control; print(*sorted(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert not {"anyio", "asyncio", "pydantic", "cryptography", "structlog"} & set(done.stdout.split())


def test_unusable_name(tmp_path: Path) -> None:
    """Where the socket cannot be made, there is an OSError and no descriptor left open."""
    (tmp_path / control.NAME).mkdir()
    before = descriptors()
    with pytest.raises(OSError, match=control.NAME):
        control.listen(tmp_path)
    assert descriptors() == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before
