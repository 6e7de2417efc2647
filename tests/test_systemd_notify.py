"""What the service manager is told, and when: sd_notify on real datagram sockets, from the running agent too."""

from __future__ import annotations

import os
import signal
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from agent import systemd
from agent.engine.herald import LATE, Herald
from agent.systemd import Manager
from tests import virtual
from tests.engine_helpers import World
from tests.notify_helpers import FakeManager
from tests.process_helpers import Scene, run, sabotage, scene, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from datetime import datetime
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider, an app, and room."""
    with scene(tmp_path) as made:
        yield made


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[FakeManager]:
    """A service manager."""
    made = FakeManager(tmp_path)
    yield made
    made.close()


# Messages


@pytest.mark.parametrize("abstract", [False, True])
def test_tell(tmp_path: Path, *, abstract: bool) -> None:
    """Assignments arrive as one message, whether the socket has a path or an abstract name."""
    listener = FakeManager(tmp_path, abstract=abstract)
    assert Manager(listener.address).tell(systemd.READY, systemd.status("3 of 4 fresh"))
    assert listener.message() == {"READY": "1", "STATUS": "3 of 4 fresh"}
    listener.close()


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative"])
def test_nobody_listens(address: str) -> None:
    """Without a manager, or with one that is no local socket, nothing is sent and nothing is wrong."""
    silent = Manager.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"} if address else {})
    assert not silent.listens
    assert silent.watchdog is None
    assert silent.tell(systemd.READY)


def test_manager_gone(tmp_path: Path) -> None:
    """A manager that is not there, or whose address is impossible, costs the message, and the caller knows."""
    assert not Manager(str(tmp_path / "missing")).tell(systemd.READY)
    assert not Manager("/" + "x" * 200).tell(systemd.READY)


def test_manager_stuck(manager: FakeManager) -> None:
    """A manager that reads nothing holds up nobody; what it did not take can be told again once it reads."""
    stuck = Manager(manager.address)
    began = time.monotonic()
    while stuck.tell(systemd.ALIVE):
        pass
    assert not stuck.tell(systemd.READY)
    assert time.monotonic() - began < 5
    assert manager.messages()
    assert stuck.tell(systemd.READY)


def test_status_is_one_line(manager: FakeManager) -> None:
    """No text can add an assignment, exceed what the manager reads, or be something else than UTF-8."""
    Manager(manager.address).tell(systemd.status("a\nREADY=1\r\x1b[31m\udcff " + "ä" * 3000))
    content = manager.socket.recv(1 << 16)
    assert content.count(b"\n") == 0
    assert len(content) < 4096
    assert content.decode().startswith("STATUS=a READY=1 [31m")
    assert content.decode().endswith("ä…")


def test_reloading() -> None:
    """A reload carries the monotonic time at which it began, in microseconds, as systemd 253 and later want it."""
    before = time.monotonic_ns() // 1000
    name, stamp = systemd.reloading()
    assert name == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "x"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "9" * 40}, None),
        ({}, None),
    ],
)
def test_watchdog_applies(environ: dict[str, str], seconds: int | None) -> None:
    """The watchdog is ours only if it has a time and means this process."""
    assert systemd.watchdog_of(environ) == (timedelta(seconds=seconds) if seconds else None)


# The engine, in virtual time


class Wedged(virtual.VirtualClock):
    """A clock that, once wedged, does not wake whoever goes to sleep for more than a minute."""

    wedged = False

    async def sleep_until(self, deadline: datetime) -> None:
        if self.wedged and deadline - self.now() > timedelta(minutes=1):
            await anyio.sleep_forever()
        await super().sleep_until(deadline)


@asynccontextmanager
async def heralded(world: World, listener: FakeManager) -> AsyncIterator[None]:
    """Run the agent, and tell a manager with a watchdog of a minute."""
    async with world.running() as supervisor, anyio.create_task_group() as tasks:
        await anyio.sleep(1)
        herald = Herald(world.services, Manager(listener.address, timedelta(seconds=60)))
        tasks.start_soon(herald.keep, lambda: supervisor._crew.keepers)
        yield
        tasks.cancel_scope.cancel()


async def said(listener: FakeManager, seconds: float) -> list[dict[str, str]]:
    """Let time pass, and return what was said; the kernel keeps ten messages, so they are read every minute."""
    messages = []
    while seconds > 0:
        await anyio.sleep(min(seconds, 60))
        seconds -= 60
        messages += listener.messages()
    return messages


async def pings(listener: FakeManager, seconds: float) -> int:
    """Let time pass, and return how often the watchdog was fed."""
    return sum("WATCHDOG" in message for message in await said(listener, seconds))


def test_watchdog_is_fed(tmp_path: Path, manager: FakeManager) -> None:
    """The watchdog is fed every half of its interval, for hours, also while the provider refuses everything."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        world.unregister_all()
        async with heralded(world, manager):
            for _ in range(120):
                assert 2 <= await pings(manager, 60) <= 4

    virtual.run(main)


def test_wedged_scheduler(tmp_path: Path, manager: FakeManager) -> None:
    """When a renewal does not come though it is due, the watchdog is no longer fed: a running loop is no proof."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.clock = clock = Wedged(loop)
        world.configure()
        async with heralded(world, manager):
            clock.wedged = True
            await world.supervisor.refresh(["app"])
            assert await pings(manager, 30 * 60 - 5) >= 60
            await pings(manager, LATE.total_seconds() + 40)
            assert await pings(manager, 3600) == 0

    virtual.run(main)


@pytest.mark.parametrize("step", [-7200, 7200])
def test_clock_step_is_no_wedge(tmp_path: Path, manager: FakeManager, step: int) -> None:
    """A step of the wall clock does not look like a wedge."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with heralded(world, manager):
            await anyio.sleep(60)
            manager.messages()
            world.clock.step(timedelta(seconds=step))
            for _ in range(10):
                assert await pings(manager, 60) >= 2

    virtual.run(main)


def test_line_follows_the_board(tmp_path: Path, manager: FakeManager) -> None:
    """The line is told at once when something changes, and every half minute as the runway shrinks; never in vain."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("app", "billing")
        async with heralded(world, manager):
            await anyio.sleep(0.001)
            assert manager.message()["STATUS"] == "2 of 2 fresh, runway 59 min"
            assert [m["STATUS"] for m in await said(manager, 615) if "STATUS" in m] == [
                f"2 of 2 fresh, runway {left} min" for left in range(58, 48, -1)
            ]
            world.unregister_all()
            await world.supervisor.refresh(["billing"])
            await anyio.sleep(0.3)
            line = manager.messages()[-1]["STATUS"]
            assert line == "1 of 2 fresh, billing degraded: AADSTS700027, runway 49 min"

    virtual.run(main)


def test_lost_message_is_told_again(tmp_path: Path, manager: FakeManager) -> None:
    """A READY that a stuck manager did not take reaches it later: a unit must not stay in `reloading`."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running(), anyio.create_task_group() as tasks:
            told = Manager(manager.address, timedelta(seconds=60))
            herald = Herald(world.services, told)
            herald.ready()
            while told.tell("X=1"):
                pass
            with herald.reloading():
                pass
            assert "READY" not in manager.messages()[-1]
            tasks.start_soon(herald.keep, list)
            await anyio.sleep(1)
            assert manager.message()["READY"] == "1"
            tasks.cancel_scope.cancel()

    virtual.run(main)


def test_reload_before_ready_and_while_stopping(tmp_path: Path, manager: FakeManager) -> None:
    """A reload says nothing before the agent is ready, and cannot take back that it is stopping."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            herald = Herald(world.services, Manager(manager.address))
            with herald.reloading():
                assert not manager.messages()
            herald.ready()
            with herald.reloading():
                herald.stopping()
            states = [{*m} & {"READY", "RELOADING", "STOPPING"} for m in manager.messages()]
            assert states == [{"READY"}, {"RELOADING"}, {"STOPPING"}]

    virtual.run(main)


# The program


def test_life(stage: Scene, manager: FakeManager) -> None:
    """The agent is ready with its socket and watch in place, says how it is, and says that it stops."""
    config = stage.config()
    with start("run", "--config", config, environ=manager.environ()) as agent:
        said = manager.wait_for("READY")["STATUS"]
        assert (stage.directory / "run" / "control.sock").exists()
        if not said.startswith("1 of 1 fresh"):  # a machine in a hurry has the token before it is ready
            assert said == "0 of 1 fresh, graph pending"
            said = manager.wait_for("STATUS", "1 of 1 fresh")["STATUS"]
        assert "runway" in said
        assert agent.stop() == 0
        assert manager.wait_for("STOPPING")["STOPPING"] == "1"
    assert "READY" not in {name for message in manager.messages() for name in message}


def test_ready_without_provider(stage: Scene, manager: FakeManager) -> None:
    """A provider that hangs does not hold up the start: booting must not depend on it."""
    stage.provider.fault("hang", count=None)
    with start("run", "--config", stage.config(), environ=manager.environ()) as agent:
        assert manager.wait_for("READY", timeout=5)["STATUS"] == "0 of 1 fresh, graph pending"
        assert agent.stop(timeout=2) == 0


def test_reload(stage: Scene, manager: FakeManager) -> None:
    """A reload begins with RELOADING and its time and ends with READY, before whoever asked for it is answered."""
    config = stage.config()
    with start("run", "--config", config, environ=manager.environ()) as agent:
        manager.wait_for("STATUS", "1 of 1 fresh")
        began = time.monotonic_ns() // 1000
        assert run("reload", "--config", config).returncode == 0
        messages = manager.messages()
        assert [{*m} & {"READY", "RELOADING"} for m in messages] == [{"RELOADING"}, {"READY"}]
        assert began < int(messages[0]["MONOTONIC_USEC"]) < time.monotonic_ns() // 1000
        agent.send(signal.SIGHUP)
        manager.wait_for("RELOADING")
        manager.wait_for("READY")


def test_reload_refused(stage: Scene, manager: FakeManager) -> None:
    """A refused reload ends with READY as well, and the line says why, until the configuration is mended."""
    config = stage.config(watch=False)
    with start("run", "--config", config, environ=manager.environ()):
        manager.wait_for("STATUS", "1 of 1 fresh")
        stage.config(stage.profile(clientid="x"), watch=False)
        assert run("reload", "--config", config).returncode == 78
        _, ready = manager.messages()
        assert ready["READY"] == "1"
        assert ready["STATUS"].startswith(f"1 of 1 fresh, configuration refused: {config}:")
        assert "clientid" in ready["STATUS"]
        stage.config(watch=False)
        assert run("reload", "--config", config).returncode == 0
        assert "refused" not in manager.wait_for("READY")["STATUS"]


def test_provider_refuses(stage: Scene, manager: FakeManager) -> None:
    """What the provider says is in the line, by its code."""
    stage.provider.fault("error", code=700027, count=None)
    with start("run", "--config", stage.config(), environ=manager.environ()):
        manager.wait_for("STATUS", "0 of 1 fresh, graph pending: AADSTS700027")


def test_watchdog(stage: Scene, manager: FakeManager) -> None:
    """The running agent feeds its watchdog at least twice an interval."""
    with start("run", "--config", stage.config(), environ=manager.environ(watchdog_usec=2_000_000)):
        manager.wait_for("READY")
        for _ in range(4):
            manager.wait_for("WATCHDOG", timeout=1.5)


HANGS = """
import threading, agent.engine.renewal as renewal
renewal.refresh_at = lambda *_: threading.Event().wait()
"""


def test_hanging_loop(stage: Scene, manager: FakeManager) -> None:
    """An engine that hangs in the middle of its work feeds no watchdog, though its process is alive."""
    environ = sabotage(stage.directory, HANGS) | manager.environ(watchdog_usec=1_000_000)
    with start("run", "--config", stage.config(), environ=environ) as agent:
        agent.wait_for("token.written")
        manager.messages()
        assert not manager.has_message(timeout=2)
        assert agent.process.poll() is None


@pytest.mark.parametrize("broken", ["toml", "keys", "directory"])
def test_cannot_start(stage: Scene, manager: FakeManager, broken: str) -> None:
    """An agent that cannot start tells the first problem, an errno(3) and its exit code; it was never ready."""
    config = stage.config(stage.profile(clientid="x", scopes=None))
    problem, number = f"{config}:", "22"
    if broken == "toml":
        config.write_text("nonsense")
    elif broken == "directory":
        (stage.directory / "run").write_text("in the way")
        config, problem, number = stage.config(), str(stage.directory / "run"), ""
    with start("run", "--config", config, environ=manager.environ()) as agent:
        assert agent.wait() == 78
    (message,) = manager.messages()
    assert message["STATUS"].startswith(problem)
    assert message["EXIT_STATUS"] == "78"
    assert message["ERRNO"] == number or not number
    assert message.keys() == {"STATUS", "EXIT_STATUS", "ERRNO"}


def test_second_agent(stage: Scene, manager: FakeManager) -> None:
    """An agent that finds another one at work says so, and that it ends with 75."""
    config = stage.config()
    with start("run", "--config", config) as first:
        first.wait_for("agent.started")
        with start("run", "--config", config, environ=manager.environ()) as second:
            assert second.wait() == 75
        message = manager.message()
    assert f"pid {first.pid}" in message["STATUS"]
    assert message["EXIT_STATUS"] == "75"
