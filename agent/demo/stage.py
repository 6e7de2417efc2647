"""What takes part in the demonstration: a directory, the emulator, the agent, and a program that reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from agent import status, tokens

if TYPE_CHECKING:
    from types import TracebackType

LIFETIME = 15
"""Seconds a token of the demonstration lives."""
READ_INTERVAL = 0.002
"""Seconds between two reads of the program."""
PROFILES = {"graph": "https://graph.microsoft.com", "billing": "api://billing", "reports": "api://reports"}
CLIENT_IDS = {name: f"{number:08d}-0000-4000-8000-000000000000" for number, name in enumerate(PROFILES, 1)}

_AGENT = """\
[agent]
runtime_dir = "run"
state_dir = "state"
log_format = "json"
rescan_interval = "1s"

[defaults]
authority = "{authority}"
ca_file = "{ca_file}"
refresh = {{ at = 0.4, jitter = 0.02 }}
"""
_PROFILE = """
[[profile]]
name = "{name}"
client_id = "{client_id}"
scopes = ["{resource}/.default"]
certificate = "{name}.pem"
"""


class StoryError(Exception):
    """What had to happen did not; the demonstration failed, and the text says at what."""


def configuration_of(name: str) -> str:
    """Return a profile as it stands in the configuration."""
    return _PROFILE.format(name=name, client_id=CLIENT_IDS[name], resource=PROFILES[name])


@dataclass
class Reader:
    """A program of yours: reads the token file over and over, and knows a bad token when it sees one."""

    path: Path
    reads: int = 0
    bad: int = 0
    seen: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Read until told to stop; the first appearance of the file is waited for."""
        while not self.path.exists() and not self._stop.wait(READ_INTERVAL):
            pass
        while not self._stop.wait(READ_INTERVAL):
            self.reads += 1
            try:
                secret = self.path.read_text()
                _, claims = tokens.decode(secret)
                good = claims["exp"] > time.time()
                self.seen.add(tokens.fingerprint(secret))
            except (OSError, ValueError, KeyError):
                good = False
            self.bad += not good

    def stop(self) -> None:
        """End the reading."""
        self._stop.set()


class Stage:
    """Everything that takes part; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        self._leave = ExitStack()
        self.events: list[dict[str, Any]] = []
        self.agent: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.directory = Path(self._leave.enter_context(TemporaryDirectory(prefix="token-agent-demo-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # impatience must not leave anything behind
        self._leave.close()

    # ---- the provider

    def start_provider(self) -> str:
        """Make certificates, start the emulator with the applications registered, and return its URL."""
        command = ["emulator", "--listen", "127.0.0.1:0", "--state", "provider", "--token-lifetime", f"{LIFETIME}s"]
        for name, resource in PROFILES.items():
            self.make_certificate(name, name)
            command += ["--app", f"{CLIENT_IDS[name]}={name}.cer", "--resource", resource]
        process = self._start(command, stdout=subprocess.PIPE)
        assert process.stdout is not None  # noqa: S101 - for the type checker: it was asked for
        line = process.stdout.readline()
        if not line:
            raise StoryError(f"the emulator ended with exit code {process.wait()}")
        ready = json.loads(line)
        self._authority = f"{ready['url']}/{ready['tenant']}"
        self._ca_file, self._admin = ready["ca_file"], ready["admin_url"]
        return str(ready["url"])

    def make_certificate(self, file: str, common_name: str) -> str:
        """Make a certificate and return its thumbprint."""
        from agent.credentials.making import new_certificate  # noqa: PLC0415 - cryptography, only when the curtain rises

        return new_certificate(self.directory, f"CN={common_name}", name=file).thumbprint

    def replace_certificate(self, name: str, file: str) -> None:
        """Put another certificate in the place of a profile's, as a deployment does."""
        (self.directory / f"{file}.pem").replace(self.directory / f"{name}.pem")

    def register(self, name: str, file: str) -> None:
        """Upload a further certificate for an application, as one does in the portal."""
        self._tell(
            "POST", "apps", {"client_id": CLIENT_IDS[name], "certificates": [str(self.directory / f"{file}.cer")]}
        )

    def break_down(self) -> None:
        """Let the provider answer every request with 503."""
        self._tell("POST", "faults", {"kind": "status", "status": 503, "count": None})

    def recover(self) -> None:
        """Let the provider work again."""
        self._tell("DELETE", "faults")

    def _tell(self, method: str, path: str, body: object = None) -> None:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self._admin}/{path}", data, method=method)  # noqa: S310 - our own loopback
        request.add_header("Content-Type", "application/json")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(request, timeout=10).close()

    # ---- the agent

    def write_configuration(self) -> None:
        """Write what the agent is to keep fresh."""
        text = _AGENT.format(authority=self._authority, ca_file=self._ca_file)
        text += "".join(configuration_of(name) for name in PROFILES)
        (self.directory / "config.toml").write_text(text)

    def start_agent(self) -> None:
        """Start the real agent."""
        self.agent = self._start(["run", "--config", "config.toml"], stderr=subprocess.PIPE)
        threading.Thread(target=self._listen, args=(self.agent,), daemon=True).start()

    def _listen(self, agent: subprocess.Popen[bytes]) -> None:
        """Collect the agent's log events; what is no event (a traceback) is kept as it is."""
        assert agent.stderr is not None  # noqa: S101 - for the type checker: it was asked for
        with suppress(ValueError):  # closed at the end
            for line in agent.stderr:
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.events.append({"event": "", "message": line.decode(errors="replace").rstrip()})

    @property
    def is_running(self) -> bool:
        """Whether the agent lives."""
        return self.agent is not None and self.agent.poll() is None

    def kill_agent(self) -> None:
        """End the agent as hard as possible."""
        if self.agent:
            self.agent.kill()
            self.agent.wait()

    def stop_agent(self) -> float:
        """Send SIGTERM as systemd does, and return the seconds it took to end."""
        began = time.monotonic()
        if self.agent:
            self.agent.send_signal(signal.SIGTERM)
            self.agent.wait(30)
        return time.monotonic() - began

    def start_reader(self, name: str) -> Reader:
        """Start the program that reads a profile's token file."""
        reader = Reader(self.directory / "run" / f"{name}.token")
        thread = threading.Thread(target=reader.run, daemon=True)
        thread.start()
        self._leave.callback(thread.join)
        self._leave.callback(reader.stop)
        return reader

    def status(self) -> dict[str, Any] | None:
        """Return what `status --json` would print, None as long as there is nothing."""
        try:
            agent, profiles = status.from_file(json.loads((self.directory / "run" / "status.json").read_bytes()))
        except (OSError, ValueError):
            return None
        return status.document(agent, profiles, datetime.now(UTC), running=self.is_running)

    def _start(self, arguments: list[str], **streams: int) -> subprocess.Popen[bytes]:
        """Start one of our own commands, which ends with the stage whatever happens.

        It has a session of its own: Ctrl-C is for the demonstration, which then ends everything in order.
        """
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_DIRECTORY") and k != "JOURNAL_STREAM"}
        command = [sys.executable, "-m", "agent", *arguments]
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=self.directory, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, **streams
        )  # type: ignore[call-overload]
        self._leave.callback(_end, process)
        return process  # type: ignore[no-any-return]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process of ours, gently first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
