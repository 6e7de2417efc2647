"""The machine's own clock under libfaketime: steps found while it runs, and the dates at which programs have failed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from tests import process_helpers, virtual
from tests.certificate_helpers import CLIENT_ID
from tests.engine_helpers import World

if TYPE_CHECKING:
    from collections.abc import Callable

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
needs_faketime = pytest.mark.skipif(not LIBRARIES, reason="faketime is not installed")

FOLLOW = """
import anyio
from datetime import timedelta
from agent.clock import SystemClock

async def main():
    clock = SystemClock(interval=0.05)

    async def follow():
        async for step in clock.steps():
            print(round(step.total_seconds()), flush=True)

    async def sleep():
        began, boot = clock.now(), clock.boot()
        print("asleep", flush=True)
        await clock.sleep_until(began + timedelta(hours=9))
        print("woken", clock.boot() - boot < 60, flush=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        tasks.start_soon(sleep)

anyio.run(main)
"""


@needs_faketime
def test_steps_are_found_in_the_boot_time_clock(tmp_path: Path) -> None:
    """A wall clock that is set forth and back is found by the other clock, to the second, and wakes who sleeps."""
    offset = tmp_path / "offset"
    offset.write_text("+0")
    environ = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", FOLLOW],
        env=process_helpers.environment(**environ),
        cwd=process_helpers.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    child = process_helpers.Running(process)
    try:
        child.wait_for_text("asleep")
        offset.write_text("+3600")
        child.wait_for_text("woken True")
        child.wait_for_text("3600")
        offset.write_text("-3600")
        child.wait_for_text("-7200")
    finally:
        process.kill()
        child.wait()
    assert sorted(child.stdout.split()) == sorted(["asleep", "woken", "True", "3600", "-7200"])


@needs_faketime
@pytest.mark.parametrize("start", ["2038-01-19T03:14:06Z", "2028-02-28T23:59:58Z"])
def test_whole_processes_at_dates_that_programs_fear(tmp_path: Path, start: str) -> None:
    """Beyond 31 bits of seconds, and into a leap day: certificate, provider, tokens and status are as ever."""
    began = datetime.fromisoformat(start)
    ahead = math.ceil((began - datetime.now(UTC)).total_seconds())
    environ = {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME": f"+{ahead}s"}
    run: Callable[..., subprocess.CompletedProcess[str]] = lambda *words: process_helpers.run(*words, environ=environ)  # noqa: E731
    assert run("cert", "new", "--out", tmp_path, "--subject", "CN=graph", "--days", 400).returncode == 0
    shown = run("cert", "show", tmp_path / "graph.pem")
    until = began + timedelta(days=400)
    assert f"Valid until  {until:%Y-%m-%d}" in shown.stdout or f"{until + timedelta(days=1):%Y-%m-%d}" in shown.stdout
    app = f"{CLIENT_ID}={tmp_path}/graph.cer"
    with process_helpers.start("emulator", "--state", tmp_path / "emulator", "--app", app, environ=environ) as emulator:
        emulator.wait_for_text("admin_url")
        told = json.loads(emulator.stdout.splitlines()[0])
        profile = {
            "name": "graph",
            "authority": f"{told['url']}/{told['tenant']}",
            "ca_file": told["ca_file"],
            "client_id": CLIENT_ID,
            "scopes": "https://graph.microsoft.com/.default",
            "certificate": tmp_path / "graph.pem",
        }
        config = process_helpers.write_config(tmp_path, profile)
        done = run("once", "--config", config)
        assert done.returncode == 0, done.stderr
    (entry,) = json.loads(run("status", "--json", "--config", config).stdout)["profiles"]
    assert entry["state"] == "fresh"
    assert 3500 < entry["runway_seconds"] <= 3600
    expires_at = datetime.fromisoformat(entry["expires_at"])
    assert began + timedelta(hours=1) <= expires_at < began + timedelta(hours=1, minutes=1)
    token = run("show", tmp_path / "run" / "graph.token").stdout
    assert f"{expires_at:%Y-%m-%d %H:}" in token
    assert "expires in 59 min" in token
    assert run("get", "graph", "--config", config).returncode == 0


@pytest.mark.parametrize("start", ["2038-01-19T03:13:00Z", "2028-02-28T23:59:00Z", "2028-02-29T23:31:00Z"])
def test_the_engine_goes_on_over_dates_that_programs_fear(tmp_path: Path, start: str) -> None:
    """Renewals keep their rhythm over the end of 31 bits and around a leap day, also after a restart."""
    began = datetime.fromisoformat(start)

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path, start=began)
        world.configure()
        async with world.running():
            await anyio.sleep(45 * 60)
        async with world.running():
            await anyio.sleep(20 * 60)
            shown = world.state()
        assert [round((at - began).total_seconds()) for at in world.requests()] == [0, 1800, 3600]
        assert (shown["state"], round(shown["runway_seconds"], -1)) == ("fresh", 3300)
        assert datetime.fromisoformat(shown["expires_at"]) == began + timedelta(hours=2)

    virtual.run(main)
