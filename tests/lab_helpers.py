"""A real systemd for tests: PID 1 of a container, with this program installed in it, and a provider beside it.

The laboratory itself is a script that lies beside the checkout; where it, its tools or root's rights are missing,
what needs it is skipped. $SYSTEMD_LAB_SUITE chooses Debian's release, and with it systemd's. Nothing here sleeps:
`Lab.wait_until` asks again and again, and each question takes a process. Everything inside is gone when the laboratory
is taken down.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sysconfig
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.certificate_helpers import CLIENT_ID, Pair
from tests.process_helpers import ROOT, current_certificate, write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SCRIPT = ROOT.parent / "shared" / "systemd-lab" / "systemd-lab"
DIRECTORY = Path(os.environ.get("SYSTEMD_LAB_DIR", "/var/tmp/systemd-lab"))
SUITE = os.environ.get("SYSTEMD_LAB_SUITE", "bookworm")
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
"""Of the releases whose tree may not be built yet."""
PATIENCE = 20.0
"""Seconds; how long anything may take on a busy machine before a test calls it broken."""

_TREE = DIRECTORY / "trees" / SUITE
_AUTHORITY = "https://127.0.0.1:4430/contoso.onmicrosoft.com"
_PROGRAM = """#!/usr/bin/python3
import sys
sys.path[:0] = ["/opt/token-agent/src", "/opt/token-agent/site"]
from agent.__main__ import main
main()
"""
_EMULATOR = """[Service]
ExecStart=/usr/local/bin/token-agent emulator --listen 127.0.0.1:4430 --state /srv/emulator
StandardOutput=file:/run/emulator.json
"""
_ASK = """
import sys, urllib.request
method, url, body = sys.argv[1:]
request = urllib.request.Request(url, body.encode() or None, {"Content-Type": "application/json"}, method=method)
print(urllib.request.urlopen(request).read().decode())
"""


def python_inside() -> str:
    """Return the version of the Python in the laboratory, empty if it is not known."""
    try:
        return (_TREE / "usr" / "bin" / "python3").readlink().name.removeprefix("python")
    except OSError:
        return PYTHONS.get(SUITE, "")


def packages() -> Path | None:
    """Return the installed packages that the laboratory can borrow, None if there are none.

    They are for one version of Python: this process's own, those of an environment in the checkout (`.ci/setup`), or
    what `.ci/lab-packages` has put into the laboratory's tree.
    """
    version = python_inside()
    own = [Path(sysconfig.get_path("purelib"))] if version == sysconfig.get_python_version() else []
    beside = sorted(ROOT.glob(f".venv*/lib/python{version}/site-packages"))
    inside = _TREE / "opt" / "packages" / "lib" / f"python{version}" / "site-packages"
    return next((path for path in (*own, *beside, inside) if (path / "msal").is_dir()), None)


def missing() -> str:
    """Return what there is not, empty if a laboratory can be used."""
    if os.geteuid() != 0:
        return "a real systemd needs root"
    if not SCRIPT.exists():
        return f"no {SCRIPT.parent.name} beside the checkout"
    tools = [tool for tool in ("systemd-nspawn", "mmdebstrap", "nsenter") if not shutil.which(tool)]
    if tools:
        return f"not installed: {' '.join(tools)}"
    if packages() is None:
        return f"{SUITE} has Python {python_inside() or '?'}, for which no packages are here: .ci/lab-packages {SUITE}"
    return ""


needs_lab = pytest.mark.skipif(bool(missing()), reason=missing())


@dataclass
class Lab:
    """A running laboratory.

    Attributes:
        name: of it.
        root: its root directory, seen from here.
        pair: the certificate that the provider knows.
        units: what the test has added, to be stopped and removed after it.
    """

    name: str
    root: Path = Path("/nonexistent")
    pair: Pair = field(default_factory=current_certificate)
    units: list[str] = field(default_factory=list)

    # ---- commands and files

    def sh(
        self,
        *command: object,
        check: bool = True,
        timeout: float = PATIENCE * 2,
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, in the namespaces of PID 1."""
        more = [f"{name}={value}" for name, value in (environ or {}).items()]
        done = subprocess.run(
            [SCRIPT, "sh", self.name, "env", *more, *map(str, command)],
            text=True, capture_output=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def as_user(self, user: str, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a command inside as another user, with all groups that user has."""
        become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
        return self.sh(*become, *command, check=False)

    def path(self, inside: str) -> Path:
        """Return where a path of the laboratory is, seen from here."""
        return self.root / inside.lstrip("/")

    def write(self, inside: str, content: str | bytes, *, mode: int = 0o644, group: str = "") -> Path:
        """Write a file whole, over what was there."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.chmod(mode)
        if group:
            os.chown(temporary, 0, self.id_of(group))
        return temporary.replace(path)

    def id_of(self, name: str) -> int:
        """Return the number of a group inside."""
        return int(self.sh("getent", "group", name).stdout.split(":")[2])

    # ---- units

    def version(self) -> int:
        """Return the version of systemd."""
        return int(self.sh("systemctl", "--version").stdout.split()[1].partition(".")[0])

    def prop(self, name: str, unit: str = "token-agent") -> str:
        """Return a property of a unit."""
        return self.sh("systemctl", "show", unit, "-p", name, "--value").stdout.strip()

    def wait_until(self, condition: Callable[[], object], *, timeout: float = PATIENCE) -> None:
        """Ask until something is so; each question takes a process."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, self.sh("journalctl", "-n", "40", "--no-pager", check=False).stdout
            self.sh("true")

    def wait_for(self, name: str, value: str, *, timeout: float = PATIENCE) -> None:
        """Wait until a property of the agent's unit contains a text."""
        self.wait_until(lambda: value in self.prop(name), timeout=timeout)

    def drop_in(self, name: str, text: str, unit: str = "token-agent.service") -> None:
        """Add a drop-in to a unit."""
        self.write(f"/etc/systemd/system/{unit}.d/{name}.conf", text)
        self.sh("systemctl", "daemon-reload")

    def add(self, units: Mapping[str, str], *start: str) -> None:
        """Add units, by name, until the end of the test, and start some of them."""
        for name, text in units.items():
            self.write(f"/etc/systemd/system/{name}", text)
        self.sh("systemctl", "daemon-reload")
        self.units += dict.fromkeys((*units, *start))
        if start:
            self.sh("systemctl", "start", *start)

    def add_examples(self, pair: str, instance: str = "") -> None:
        """Add a path unit and its service that are shipped, and have the path watched."""
        units = {f"{pair}.{kind}": self.example(f"{pair}.{kind}") for kind in ("path", "service")}
        self.add(units, f"{pair}{instance}.path")

    def users(self, *names: str) -> None:
        """Have system users, each with a group of its own."""
        for name in names:
            self.sh("sh", "-c", f"getent passwd {name} >/dev/null || useradd -r -U {name}")

    def remove_units(self) -> None:
        """Stop and remove what was added, path units first: they would start their services again."""
        for name in sorted(self.units, key=lambda name: not name.endswith(".path")):
            if "@." not in name:
                self.sh("systemctl", "stop", name, check=False)
        for name in self.units:
            self.path(f"/etc/systemd/system/{name}").unlink(missing_ok=True)
        self.units.clear()

    def example(self, name: str) -> str:
        """Return one of the drop-ins and units that are shipped."""
        return (ROOT / "systemd" / "examples" / name).read_text()

    def start(self) -> None:
        """Start the agent and wait for its tokens."""
        self.sh("systemctl", "start", "token-agent")
        self.wait_for("StatusText", "runway")

    def reset(self) -> None:
        """Bring everything back to where it was before the first test."""
        self.remove_units()
        self.sh("systemctl", "stop", "token-agent")
        self.sh("systemctl", "reset-failed")
        for inside in ("/run/token-agent", "/var/lib/token-agent", "/etc/systemd/system/token-agent.service.d"):
            shutil.rmtree(self.path(inside), ignore_errors=True)
        self.sh("systemctl", "daemon-reload")
        self.provider("DELETE", "faults")
        self.provider("DELETE", "requests")
        self.certificate(self.pair)
        self.configure()

    # ---- the agent and its provider

    places: ClassVar = {"runtime_dir": "/run/token-agent", "state_dir": "/var/lib/token-agent"}
    """[agent] by name, as it is by default, for commands that know nothing of the unit's environment."""

    def configure(self, *profiles: Mapping[str, Any], **agent: Any) -> None:
        """Write the configuration, by default of one profile that works."""
        made = write_config(self.path("/root"), *(profiles or [self.profile()]), **self.settings(agent))
        self.write("/etc/token-agent/config.toml", made.read_text(), mode=0o640, group="token-agent")

    def settings(self, agent: Mapping[str, Any]) -> dict[str, Any]:
        """Return [agent]: everything where systemd wants it, the log too."""
        usual = {"runtime_dir": "${RUNTIME_DIRECTORY}", "state_dir": "${STATE_DIRECTORY}", "log_format": "auto"}
        return usual | dict(agent)

    def profile(self, name: str = "graph", **keys: Any) -> dict[str, Any]:
        """Return the keys of a profile that works; others instead or besides."""
        usual = {
            "name": name,
            "authority": _AUTHORITY,
            "ca_file": "/etc/token-agent/ca.pem",
            "client_id": CLIENT_ID,
            "scopes": "https://graph.microsoft.com/.default",
            "certificate": "/etc/token-agent/graph.pem",
        }
        return usual | keys

    def certificate(self, pair: Pair) -> None:
        """Put a certificate and its key where the agent looks for it."""
        self.write("/etc/token-agent/graph.pem", pair.pem, mode=0o640, group="token-agent")

    def register(self, pair: Pair) -> None:
        """Let the provider know a certificate."""
        name = f"/srv/{uuid.uuid4()}.cer"
        self.write(name, pair.der)
        self.provider("POST", "apps", {"client_id": CLIENT_ID, "certificates": [name]})

    def provider(self, method: str, what: str, body: Any = None) -> Any:
        """Ask the provider's administration."""
        url = json.loads(self.path("/run/emulator.json").read_text())["admin_url"]
        text = json.dumps(body) if body is not None else ""
        return json.loads(self.sh("python3", "-c", _ASK, method, f"{url.rstrip('/')}/{what}", text).stdout or "null")

    def token_requests(self) -> int:
        """Return how often a token was asked for since the beginning of the test."""
        entries = self.provider("GET", "requests")["requests"]
        return sum(entry["endpoint"] == "token" for entry in entries)

    def token(self, name: str = "graph") -> str:
        """Return what is in a token file."""
        return self.path(f"/run/token-agent/{name}.token").read_text()

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return events of the journal, oldest first."""
        lines = self.sh("journalctl", "--no-pager", "-o", "json", "--all", *matches).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def mark(self) -> str:
        """Return an option of journalctl for what comes from now on; a cursor would skip the first match on 252."""
        return f"--since=@{time.time():.6f}"


@contextmanager
def lab() -> Iterator[Lab]:
    """Have a laboratory with a provider, and an agent that is installed but not started, while the block runs."""
    made = Lab(f"agent-{os.getpid()}-{uuid.uuid4().hex[:6]}")
    _build()
    binds = [f"--bind-ro={packages()}:/opt/token-agent/site", f"--bind-ro={ROOT}:/opt/token-agent/src"]
    try:
        subprocess.run([SCRIPT, "up", made.name, *binds], check=True, capture_output=True, timeout=PATIENCE * 3)
        made.root = Path(_output("root", made.name))
        _install(made)
        yield made
    finally:
        subprocess.run([SCRIPT, "down", made.name], check=True, capture_output=True, timeout=PATIENCE * 3)


def _build() -> None:
    """Make the tree if there is none; one process at a time."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with (DIRECTORY / "build.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _output("build", timeout=600)


def _output(*arguments: str, timeout: float = PATIENCE) -> str:
    done = subprocess.run([SCRIPT, *arguments], text=True, capture_output=True, check=False, timeout=timeout)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout.strip()


def _install(made: Lab) -> None:
    """Install the program as a package would, and start a provider."""
    made.write("/usr/local/bin/token-agent", _PROGRAM, mode=0o755)
    made.write("/etc/systemd/system/token-agent.service", (ROOT / "systemd" / "token-agent.service").read_text())
    for kind in ("sysusers.d", "tmpfiles.d"):
        made.write(f"/usr/lib/{kind}/token-agent.conf", (ROOT / "systemd" / kind / "token-agent.conf").read_text())
    made.sh("systemd-sysusers", "token-agent.conf")
    made.sh("systemd-tmpfiles", "--create", "token-agent.conf")
    made.write("/etc/systemd/system/emulator.service", _EMULATOR)
    made.sh("systemctl", "daemon-reload")
    made.sh("systemctl", "start", "emulator")
    made.wait_until(lambda: made.path("/run/emulator.json").exists() and made.path("/run/emulator.json").stat().st_size)
    made.write("/etc/token-agent/ca.pem", made.path("/srv/emulator/ca.pem").read_bytes())
    made.register(made.pair)
