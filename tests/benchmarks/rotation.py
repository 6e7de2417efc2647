"""What following the disk costs: ``python -m tests.benchmarks.rotation [ROTATIONS [PROFILES]]`` (default 200 1000).

1. From the ``rename()`` of a new certificate to the ``rename()`` of the token file that was acquired with it, for the
   real agent as a process of its own beside the emulator. The settle time is part of it: for so long a file has to
   stay as it is before it is believed.
2. An idle agent that watches a directory for each of its profiles' certificates: CPU and wake-ups in 30 s, that is
   three comparisons of everything. A wake-up is a voluntary switch of context, as the kernel counts them.
3. Resident memory of `token-agent run` with few and with many profiles, by one certificate for all and by one each.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

from agent.watching.watch import SETTLE_STEP
from tests.benchmarks.__main__ import emulator
from tests.certificate_helpers import Pair, make_certificate, pool_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LOOK = 0.0002
"""Seconds between two looks at the token file."""
REST = 1.5
"""Seconds between two rotations: hints are rationed to one a second, and so are the requests of a profile."""
IDLE = 30.0
TICKS = os.sysconf("SC_CLK_TCK")


def certificates(number: int) -> list[Pair]:
    """Make certificates, all of the same two keys by turns."""
    begin = datetime.now(UTC) - timedelta(days=1)
    end = begin + timedelta(days=300)
    return [make_certificate(f"bench {n}", pool_key(n % 2), not_before=begin, not_after=end) for n in range(number)]


def register(ready: dict[str, str], client_id: str, pairs: Sequence[Pair]) -> None:
    """Tell the emulator of an app's certificates."""
    body = json.dumps({"client_id": client_id, "certificates": [pair.cert_pem.decode() for pair in pairs]}).encode()
    request = Request(f"{ready['admin_url']}/apps", body, {"Content-Type": "application/json"})  # noqa: S310 - ours
    with urlopen(request, timeout=60) as answer:  # noqa: S310
        answer.read()


def replace(path: Path, content: bytes) -> float:
    """Replace a file, and return when."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content)
    temporary.chmod(0o600)
    began = time.perf_counter()
    temporary.replace(path)
    return began


def configuration(directory: Path, ready: dict[str, str], profiles: dict[str, Path]) -> Path:
    """Write the configuration of profiles, each named by its client id, with their certificates."""
    text = [
        "[agent]\n", f'runtime_dir = "{directory}/run"\n', f'state_dir = "{directory}/state"\n',
        'log_level = "error"\n', "[defaults]\n", f'authority = "{ready["url"]}/{ready["tenant"]}"\n',
        f'ca_file = "{ready["ca_file"]}"\n', 'scopes = "api://bench/.default"\n',
    ]  # fmt: skip
    text += [
        f'[[profile]]\nname = "{name}"\nclient_id = "{name}"\ncertificate = "{path}"\n'
        for name, path in profiles.items()
    ]
    (directory / "config.toml").write_text("".join(text))
    return directory / "config.toml"


@contextmanager
def running(directory: Path, ready: dict[str, str], profiles: dict[str, Path]) -> Iterator[int]:
    """Run the agent until all its tokens are there; yield its process id."""
    config = configuration(directory, ready, profiles)
    process = subprocess.Popen([sys.executable, "-m", "agent", "run", "-c", str(config)])
    try:
        wait_for(lambda: len(list((directory / "run").glob("*.token"))) == len(profiles), 120)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def wait_for(condition: Callable[[], object], seconds: float) -> float:
    """Wait until a condition is true, and return when it was."""
    deadline = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > deadline:
            raise SystemExit(f"nothing happened for {seconds} s")
        time.sleep(LOOK)
    return time.perf_counter()


# ---- 1


def latencies(directory: Path, ready: dict[str, str], client_id: str, rotations: int) -> list[float]:
    """Rotate again and again, and return how long each took, in milliseconds."""
    pairs = certificates(rotations + 1)
    register(ready, client_id, pairs)
    path, token = directory / "app" / "app.pem", directory / "run" / f"{client_id}.token"
    path.parent.mkdir()
    replace(path, pairs[0].pem)
    found = []
    with running(directory, ready, {client_id: path}):
        for pair in pairs[1:]:
            time.sleep(REST + random.random() / 10)  # noqa: S311 - to meet the listener at any phase of its steps
            before = token.stat().st_ino
            began = replace(path, pair.pem)
            ended = wait_for(lambda before=before: token.stat().st_ino != before, 30)  # type: ignore[misc]
            found.append((ended - began) * 1000)
    return sorted(found)


# ---- 2, 3


class Use:
    """What a process uses while it is looked at: CPU in seconds, wake-ups; and its memory in MB."""

    def __init__(self, pid: int) -> None:
        self._process = Path(f"/proc/{pid}")
        self._began = self._cpu()
        self._switches = self._by_thread()
        self.wakeups = 0.0

    def watch(self, seconds: float) -> None:
        """Look twice a second, since a thread that ends takes its number along."""
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            time.sleep(0.5)
            now = self._by_thread()
            self.wakeups += sum(number - self._switches.get(name, 0) for name, number in now.items())
            self._switches = now

    @property
    def cpu(self) -> float:
        return self._cpu() - self._began

    @property
    def memory(self) -> float:
        return entry(self._process / "status", "VmRSS") / 1024

    def _cpu(self) -> float:
        fields = (self._process / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def _by_thread(self) -> dict[str, float]:
        found = {}
        for thread in (self._process / "task").iterdir():
            with suppress(OSError, StopIteration):  # it has just ended
                found[thread.name] = entry(thread / "status", "voluntary_ctxt_switches")
        return found


def entry(path: Path, name: str) -> float:
    """Return a number from a status file of the kernel."""
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
    return float(line.split()[1])


def laid_out(directory: Path, client_ids: Sequence[str], pairs: Sequence[Pair]) -> dict[str, Path]:
    """Write certificates, each into a directory of its own."""
    paths = {}
    for client_id, pair in zip(client_ids, pairs, strict=True):
        paths[client_id] = directory / "certificates" / client_id / "app.pem"
        paths[client_id].parent.mkdir(parents=True)
        replace(paths[client_id], pair.pem)
    return paths


def show_latencies(directory: Path, ready: dict[str, str], client_id: str, rotations: int) -> None:
    """Print how long rotations take."""
    found = latencies(directory, ready, client_id, rotations)
    cuts = statistics.quantiles(found, n=100, method="inclusive")
    settle = SETTLE_STEP.total_seconds() * 1000
    print(f"rename() of a certificate to its token file, {rotations} rotations, settle time {settle:.0f} ms included:")
    print(f"  p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms, least {found[0]:.0f} ms, most {found[-1]:.0f} ms")


def show_idling(directory: Path, ready: dict[str, str], client_ids: Sequence[str]) -> None:
    """Print what an idle agent costs."""
    pairs = certificates(len(client_ids))
    for client_id, pair in zip(client_ids, pairs, strict=True):
        register(ready, client_id, [pair])
    shared = directory / "bench.pem"  # which the emulator knows for every app from its start
    rows = [
        ("one for all", dict.fromkeys(client_ids[:10], shared)),
        ("one for all", dict.fromkeys(client_ids, shared)),
        ("a directory for each", laid_out(directory, client_ids, pairs)),
    ]
    print("profiles  certificates          RSS MB  CPU % of a core  wake-ups/s")
    for what, profiles in rows:
        with tempfile.TemporaryDirectory(dir=directory) as name, running(Path(name), ready, profiles) as pid:
            time.sleep(5)
            use = Use(pid)
            use.watch(IDLE)
            cpu, wakeups = use.cpu / IDLE * 100, use.wakeups / IDLE
            print(f"{len(profiles):8}  {what:20}  {use.memory:6.0f}  {cpu:15.2f}  {wakeups:10.0f}", flush=True)


def main(*arguments: str) -> None:
    """Print all three."""
    rotations, profiles = [*map(int, arguments), *(200, 1000)[len(arguments) :]]
    client_ids = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(profiles)]
    with tempfile.TemporaryDirectory() as name, emulator(Path(name), client_ids) as ready:
        if rotations:
            show_latencies(Path(name), ready, client_ids[0], rotations)
        show_idling(Path(name), ready, client_ids)


if __name__ == "__main__":
    main(*sys.argv[1:])
