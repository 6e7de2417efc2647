"""Our own command as real processes: start it, read its events, stop it; the configurations and provider it meets.

Nothing here sleeps: `Running.wait_for` returns when the event is there, and what waits in vain fails with all that
the process said.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.emulator.journal import Entry, Journal
from tests import emulator_helpers
from tests.certificate_helpers import CLIENT_ID, Pair, make_certificate, pool_key, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.emulator_helpers import Handle

ROOT = Path(__file__).parent.parent
COMMAND = (sys.executable, "-m", "agent")
"""Of the tree these tests belong to: it is installed, or the working directory."""
PATIENCE = 20.0
"""Seconds; how long anything may take on a busy machine before a test calls it broken."""


def environment(**more: str) -> dict[str, str]:
    """Return a clean environment, so that nothing of the tester's own reaches the command."""
    home = os.environ.get("HOME", "/")
    return {"PATH": os.environ["PATH"], "HOME": home, "LANG": "C.UTF-8"} | more


def run(
    *arguments: object,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
    command: Sequence[str] = COMMAND,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, its streams in pipes."""
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=environment(**(environ or {})),
        cwd=cwd,
        input=stdin,
        text=True,
        capture_output=True,
        timeout=PATIENCE * 2,
        check=False,
    )


def sabotage(directory: Path, code: str) -> dict[str, str]:
    """Return the environment in which a command runs code of the test's before its own, such as to have a bug."""
    (directory / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": f"{directory}{os.pathsep}{ROOT}"}


@contextmanager
def start(
    *arguments: object,
    environ: Mapping[str, str] | None = None,
    stderr: int = subprocess.PIPE,
    command: Sequence[str] = COMMAND,
) -> Iterator[Running]:
    """Run the command beside the test; whatever happens, it has ended afterwards."""
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        env=environment(**(environ or {})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )
    running = Running(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        running.wait()


class Running:
    """A process of ours: its output as it comes, its events, its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self._output = {"stdout": b"", "stderr": b""}
        self._seen = 0
        self._news = threading.Condition()
        streams = (("stdout", process.stdout), ("stderr", process.stderr))
        self._readers = [threading.Thread(target=self._read, args=pair, daemon=True) for pair in streams if pair[1]]
        for reader in self._readers:
            reader.start()

    @property
    def stdout(self) -> str:
        """What it has written to standard output so far."""
        return self._output["stdout"].decode(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has written to standard error so far."""
        return self._output["stderr"].decode(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        """Return all events so far; needs ``log_format = "json"``."""
        lines = self._output["stderr"].split(b"\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith(b'{"timestamp"')]

    def wait_for(self, name: str, *, timeout: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """Return the next event of this name with these fields; each event is found once."""

        def find() -> Any:
            for number, event in enumerate(self.events()[self._seen :], self._seen + 1):
                if event["event"] == name and fields.items() <= event.items():
                    self._seen = number
                    return event
            return None

        event: dict[str, Any] = self._until(find, f"event {name} {fields or ''}", timeout)
        return event

    def wait_for_text(self, text: str, *, timeout: float = PATIENCE) -> None:
        """Wait until a text stands in either stream."""
        self._until(lambda: text in self.stdout + self.stderr, repr(text), timeout)

    def send(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, *, timeout: float = PATIENCE) -> int:
        """Send a signal that ends it, and return its exit code."""
        self.send(number)
        return self.wait(timeout=timeout)

    def wait(self, *, timeout: float = PATIENCE) -> int:
        """Wait for its end and return the exit code (minus the signal's number, if one killed it)."""
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        return code

    def _read(self, name: str, stream: Any) -> None:
        with stream:
            while data := os.read(stream.fileno(), 1 << 16):
                with self._news:
                    self._output[name] += data
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _until(self, find: Callable[[], Any], what: str, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                ended = not any(reader.is_alive() for reader in self._readers)  # before looking for the last time
                if found := find():
                    return found
                left = deadline - time.monotonic()
                if ended or left <= 0:
                    state = f"ended ({self.process.poll()})" if ended else "still running"
                    raise AssertionError(f"no {what}; {state}\nstdout:\n{self.stdout}\nstderr:\n{self.stderr}")
                self._news.wait(min(left, 0.2))  # that a reader ends is not announced


def write_config(
    directory: Path, *profiles: Mapping[str, Any], name: str = "config.toml", top: str = "", **agent: Any
) -> Path:
    """Write a configuration whose runtime and state directories are ``run`` and ``state`` beside it.

    Args:
        directory: where; everything of the agent stays in it.
        profiles: keys of a ``[[profile]]`` each; values as Python has them, tables as dicts.
        name: of the file.
        top: TOML text to put first, such as something broken.
        agent: keys of ``[agent]``.
    """
    settings = {"runtime_dir": str(directory / "run"), "state_dir": str(directory / "state"), "log_format": "json"}
    lines = [top, "[agent]", *_lines(settings | agent)]
    for profile in profiles:
        lines += ["", "[[profile]]", *_lines(profile)]
    path = directory / name
    temporary = path.with_name(f".{name}.new")
    temporary.write_text("\n".join(lines) + "\n")
    return temporary.replace(path)


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in table.items()]


def _toml(value: Any) -> str:
    """Return a value as TOML, tables inline; JSON's strings, numbers and truths are TOML's."""
    if isinstance(value, dict):
        return "{ " + ", ".join(_lines(value)) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value)


def current_certificate(cn: str = "graph", number: int = 0) -> Pair:
    """Return a certificate that is valid in real time; the number chooses its key from the pool."""
    now = datetime.now(UTC)
    return make_certificate(cn, pool_key(number), not_before=now - timedelta(days=1), not_after=now + timedelta(300))


class _Journal(Journal):
    """The provider's journal, which also wakes those who wait for a request."""

    def __init__(self) -> None:
        super().__init__()
        self.news = threading.Condition()

    def record(self, entry: Entry) -> None:
        with self.news:
            super().record(entry)
            self.news.notify_all()


@dataclass(frozen=True)
class Scene:
    """A provider that knows one app, the app's certificate on disk, and a place for everything of the agent."""

    directory: Path
    provider: Handle
    pair: Pair
    journal: _Journal

    @property
    def certificate(self) -> Path:
        """The file that holds key and certificate."""
        return self.directory / "graph.pem"

    def profile(self, name: str = "graph", **keys: Any) -> dict[str, Any]:
        """Return the keys of a profile that works; others instead or besides, None leaves one out."""
        usual = {
            "name": name,
            "authority": self.provider.authority,
            "ca_file": self.provider.ca_file,
            "client_id": CLIENT_ID,
            "scopes": "https://graph.microsoft.com/.default",
            "certificate": self.certificate,
        }
        return {key: value for key, value in (usual | keys).items() if value is not None}

    def config(self, *profiles: Mapping[str, Any], **agent: Any) -> Path:
        """Write the configuration, by default of one profile, and return its path."""
        return write_config(self.directory, *(profiles or [self.profile()]), **agent)

    def token(self, name: str = "graph") -> str:
        """Return what is in a profile's token file."""
        return (self.directory / "run" / f"{name}.token").read_text()

    @property
    def token_requests(self) -> int:
        """How often the provider was asked for a token."""
        return len(self.provider.token_requests)

    def wait_for_requests(self, count: int = 1, endpoint: str = "token") -> None:
        """Wait until the provider was asked so often, answered or not."""

        def asked() -> bool:
            return sum(entry.endpoint == endpoint for entry in self.journal.entries) >= count

        with self.journal.news:
            assert self.journal.news.wait_for(asked, PATIENCE), f"not asked {count} times for {endpoint}"


@contextmanager
def scene(directory: Path, **settings: Any) -> Iterator[Scene]:
    """Run a provider while the block runs; the settings are those of `emulator_helpers.running`."""
    pair = current_certificate()
    written(directory / "graph.pem", pair.pem)
    with emulator_helpers.running(**settings) as provider:
        provider.register(CLIENT_ID, pair)
        journal = provider.provider.journal = _Journal()
        yield Scene(directory, provider, pair, journal)


def status(config: Path, *names: str) -> dict[str, Any]:
    """Return the document of ``status --json``."""
    document: dict[str, Any] = json.loads(run("status", *names, "--json", "--config", config).stdout)
    return document


def wait_for_status(config: Path, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask for the status until it is as it should be; each question takes a process, so this needs no sleep."""
    deadline = time.monotonic() + PATIENCE
    while not condition(document := status(config)):
        if time.monotonic() > deadline:
            raise AssertionError(f"the status stays {json.dumps(document, indent=1)}")
    return document
