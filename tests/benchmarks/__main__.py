"""What a token costs: ``python -m tests.benchmarks [N ...]`` (default 10 100 1000).

For each N, from the start of the process to the last file, whole processes by the kernel's own accounting (wait4):
the floor, `token-agent once`, and MSAL as its documentation shows it (at most 100, times N/100: it is that slow).
All against the emulator on loopback, in turn, so that the ratios hold whatever else the machine does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.credentials.making import new_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROUNDS = 3
DOCUMENTED_AT_MOST = 100


@dataclass(frozen=True)
class Cost:
    """CPU and wall time in seconds, peak memory in MB."""

    cpu: float
    wall: float
    memory: float


def measure(command: Sequence[str], text: str = "") -> Cost:
    """Run a process and return what the kernel says it took."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    process.stdin.write(text.encode())
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)


@contextmanager
def emulator(directory: Path, client_ids: Sequence[str]) -> Iterator[dict[str, str]]:
    """Run the emulator with all clients registered for one certificate."""
    cer = new_certificate(directory, "CN=bench", name="bench").cer
    command = [sys.executable, "-m", "agent", "emulator", "--listen", "127.0.0.1:0", "--state", str(directory / "idp")]
    for client_id in client_ids:
        command += ["--app", f"{client_id}={cer}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def configuration(directory: Path, ready: dict[str, str], client_ids: Sequence[str]) -> Path:
    """Write the agent's configuration for all clients; each run has directories of its own."""
    text = [
        "[agent]\n", 'runtime_dir = "run"\n', 'state_dir = "state"\n', 'log_level = "error"\n', "[defaults]\n",
        f'authority = "{ready["url"]}/{ready["tenant"]}"\n', f'ca_file = "{ready["ca_file"]}"\n',
        'scopes = "api://bench/.default"\n', f'certificate = "{directory.parent}/bench.pem"\n',
    ]  # fmt: skip
    text += [f'[[profile]]\nname = "p{number}"\nclient_id = "{name}"\n' for number, name in enumerate(client_ids)]
    (directory / "config.toml").write_text("".join(text))
    return directory / "config.toml"


def one_round(directory: Path, ready: dict[str, str], client_ids: Sequence[str]) -> dict[str, Cost]:
    """Measure the three after one another."""
    arguments = [f"{ready['url']}/{ready['tenant']}", ready["ca_file"], str(directory / "bench.pem")]
    names = "\n".join(client_ids)
    few = client_ids[:DOCUMENTED_AT_MOST]
    costs = {}
    with tempfile.TemporaryDirectory(dir=directory) as out:
        costs["floor"] = measure(["-m", "tests.benchmarks.floor", *arguments, out], names)
    with tempfile.TemporaryDirectory(dir=directory) as out:
        config = configuration(Path(out), ready, client_ids)
        costs["token-agent once"] = measure(["-m", "agent", "once", "-c", str(config)])
        assert len(list(Path(out, "run").glob("*.token"))) == len(client_ids)
    with tempfile.TemporaryDirectory(dir=directory) as out:
        cost = measure(["-m", "tests.benchmarks.documented", *arguments, out], "\n".join(few))
        scale = len(client_ids) / len(few)
        costs["MSAL, documented"] = Cost(cost.cpu * scale, cost.wall * scale, cost.memory)
    return costs


def main() -> None:
    """Print the table."""
    sizes = [int(argument) for argument in sys.argv[1:]] or [10, 100, 1000]
    client_ids = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(max(sizes))]
    print("profiles  what                 CPU s  wall s  MB   CPU ms/token  times the floor (CPU, wall)")
    with tempfile.TemporaryDirectory() as name, emulator(Path(name), client_ids) as ready:
        for size in sizes:
            rounds = [one_round(Path(name), ready, client_ids[:size]) for _ in range(ROUNDS)]
            for what in rounds[0]:
                best = sorted((each[what] for each in rounds), key=lambda cost: cost.cpu)[ROUNDS // 2]
                cpu, wall = (
                    sorted(getattr(each[what], kind) / getattr(each["floor"], kind) for each in rounds)[ROUNDS // 2]
                    for kind in ("cpu", "wall")
                )
                print(
                    f"{size:8}  {what:18} {best.cpu:7.2f} {best.wall:7.2f} {best.memory:4.0f}  "
                    f"{best.cpu / size * 1000:11.2f}  {cpu:6.1f} {wall:6.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
