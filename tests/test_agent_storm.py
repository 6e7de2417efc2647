"""A thousand configurations in some ten seconds while tokens rotate: nothing is torn, nothing piles up."""

from __future__ import annotations

import signal
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.process_helpers import Scene, sabotage, scene, start
from tests.reader_helpers import Reader, figures, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.process_helpers import Running

PAUSE = threading.Event()
REWRITES = 1000
SECONDS = 9.0
STEADY = ("one", "two", "three")
"""Profiles that are in every configuration, if not with the same keys."""
COUNT_TASKS = """
import asyncio, gc, os, signal, sys

def tell(number, frame):
    gc.collect()
    tasks = asyncio.all_tasks(asyncio.get_running_loop())
    with open(os.environ["TASKS"] + ".new", "w") as file:
        file.write(str(len(tasks)))
    os.rename(os.environ["TASKS"] + ".new", os.environ["TASKS"])

signal.signal(signal.SIGUSR1, tell)
"""
"""Runs in the agent before anything of its own: at SIGUSR1 it says how many tasks there are."""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider whose tokens live for two seconds."""
    with scene(tmp_path, token_lifetime=timedelta(seconds=2)) as made:
        yield made


def configure(stage: Scene, number: int) -> None:
    """Write a configuration that is unlike the one before it; each seventh cannot be used."""
    profiles: list[dict[str, Any]] = [stage.profile(name, refresh={"jitter": 0}) for name in STEADY]
    profiles[0]["timeout"] = f"{5 + number % 20}s"
    profiles[1]["token_file"] = [{"path": "two.token"}, {"path": f"two-{number % 5}.json", "format": "json"}]
    profiles += [stage.profile(f"guest{number % 3}")] * (number % 2)
    stage.config(*profiles, top="nonsense = [" if number % 7 == 3 else "", max_in_flight=4 + number % 3)


def storm(stage: Scene, agent: Running, rewrites: int, seconds: float) -> None:
    """Write so many configurations, spread over so many seconds if the machine is fast enough.

    The agent would wait until it is over, 2 s at most; so it is told by a signal to look at once, again and again.
    """
    began = time.monotonic()
    for number in range(rewrites):
        configure(stage, number)
        if number % 5 == 0:
            agent.send(signal.SIGHUP)
        ahead = began + seconds * number / rewrites - time.monotonic()
        if ahead > 0:
            PAUSE.wait(ahead)


def calm(stage: Scene, agent: Running, name: str) -> dict[str, int]:
    """Bring a last configuration into force, and return what the agent holds then."""
    last = [stage.profile(each, refresh={"jitter": 0}) for each in (*STEADY, name)]
    stage.config(*last)
    agent.wait_for("token.written", profile=name)
    tasks = stage.directory / "tasks"
    tasks.unlink(missing_ok=True)
    agent.send(signal.SIGUSR1)
    agent.wait_for("token.written", profile="one")
    agent.wait_for("token.written", profile="three")
    return figures(agent.pid) | {"tasks": int(tasks.read_text())}


def test_storm(stage: Scene) -> None:
    """No reader meets anything but a whole token or status; tasks, threads, descriptors, memory stay; the last wins."""
    run = stage.directory / "run"
    configure(stage, 0)
    environ = sabotage(stage.directory, COUNT_TASKS) | {"TASKS": str(stage.directory / "tasks")}
    with start("run", "--config", stage.directory / "config.toml", environ=environ) as agent:
        agent.wait_for_text("agent.started")
        for name in STEADY:  # each writes once a second
            agent.wait_for("token.written", profile=name)
        storm(stage, agent, 200, 2.0)  # whatever is made once is made by now
        before = calm(stage, agent, "first")
        files = [run / f"{name}.token" for name in STEADY]
        with Reader(*files, in_time=False) as tokens, Reader(run / "status.json", check=parsed) as documents:
            storm(stage, agent, REWRITES, SECONDS)
        after = calm(stage, agent, "last")
        assert agent.stop() == 0
    assert tokens.failures == []
    assert documents.failures == []
    assert min(map(len, tokens.contents.values())) >= 3
    events = [event["event"] for event in agent.events()]
    assert events.count("config.loaded") > 50
    assert events.count("config.rejected") > 5
    growth = {name: after[name] - number for name, number in before.items()}
    assert growth["tasks"] == 0
    assert growth["threads"] <= 2, growth
    assert growth["descriptors"] <= 4, growth  # connections that are kept
    assert growth["memory"] < 4000, growth
