"""A file system that stops answering, as NFS does when its server is gone: what is elsewhere goes on."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from agent import workers
from tests.machine_helpers import LIFETIME, Frozen, assert_last_good, freezable, fresh, needs_bindfs, said
from tests.process_helpers import Scene, run, scene, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_bindfs
STALLED = "its disk has not answered"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider of short-lived tokens."""
    with scene(tmp_path, token_lifetime=LIFETIME) as made:
        yield made


@pytest.fixture
def disk(stage: Scene) -> Iterator[Frozen]:
    """A file system that can be frozen."""
    with freezable(stage.directory / "disk") as made:
        yield made


def configured(stage: Scene, disk: Frozen, *, frozen: int = 1, **agent: Any) -> Path:
    """Write a configuration of a profile that is elsewhere, and of some with a token file on the disk."""
    others = [stage.profile(f"bad{n}", token_file=str(disk.path / f"{n}" / "bad.token")) for n in range(frozen)]
    for number in range(frozen):
        (disk.path / f"{number}").mkdir()
    return stage.config(stage.profile(), *others, rescan_interval="1s", **agent)


def test_frozen_token_files_stop_no_other_profile(stage: Scene, disk: Frozen) -> None:
    """More frozen directories than there are threads for disks: others go on, each is named once, and all recover."""
    count = workers.Workers.DISK_THREADS + 2
    config = configured(stage, disk, frozen=count)
    tokens = [disk.path / f"{number}" / "bad.token" for number in range(count)]
    with start("run", "--config", config) as agent:
        for number in range(count):
            agent.wait_for_text(f'{number}/bad.token", "token_sha256"')
        disk.freeze_when_watched(agent, *(token.parent for token in tokens))
        for number in range(count):
            agent.wait_for_text(f'"disk.stalled", "path": "{disk.path}/{number}"')
        for _ in range(3):
            agent.wait_for("token.written", profile="graph")
        assert_last_good(agent, stage.directory / "run" / "graph.token")
        assert len(said(agent, "disk.stalled", STALLED)) == count
        assert said(agent, "acquisition.failed", f"{tokens[0]}: {STALLED}")
        disk.thaw()
        for number in range(count):
            agent.wait_for_text(f'"disk.recovered", "path": "{disk.path}/{number}"')
        agent.wait_for("token.written", profile=f"bad{count - 1}")
        fresh(config)
        for token in tokens:
            assert_last_good(agent, token)
        assert agent.stop() == 0


def test_an_agent_with_a_frozen_disk_can_be_stopped(stage: Scene, disk: Frozen) -> None:
    """Though threads hang for ever, SIGTERM ends the agent."""
    with start("run", "--config", configured(stage, disk)) as agent:
        agent.wait_for("token.written", profile="bad0")
        disk.freeze_when_watched(agent, disk.path / "0")
        agent.wait_for("disk.stalled")
        began = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - began < 2 * workers.PATIENCE


def test_a_start_with_a_frozen_certificate(stage: Scene, disk: Frozen) -> None:
    """An agent starts although one certificate cannot be reached, says so, and takes it up when it can be."""
    shutil.copy(stage.certificate, disk.path)
    config = stage.config(
        stage.profile(), stage.profile("bad", certificate=disk.path / "graph.pem"), rescan_interval="1s"
    )
    disk.freeze()
    with start("run", "--config", config) as agent:
        assert STALLED in agent.wait_for("certificate.rejected", profile="bad")["message"]
        agent.wait_for("token.written", profile="graph")
        disk.thaw()
        agent.wait_for("token.written", profile="bad")
        fresh(config)
        assert agent.stop() == 0
    assert len(said(agent, "disk.stalled", STALLED)) == 1


def test_frozen_configuration_and_state(stage: Scene, disk: Frozen) -> None:
    """Neither stops a renewal; a reload is refused with the reason, and made by itself once the disk answers."""
    config = configured(stage, disk, frozen=0, state_dir=str(disk.path / "state"))
    config = stage.directory / "disk" / shutil.copy(config, disk.path)
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written")
        disk.freeze_when_watched(agent, disk.path)
        agent.wait_for("state.unsaved")
        asked = run("reload", "--config", stage.directory / "config.toml")
        assert asked.returncode == 78
        assert STALLED in asked.stderr
        agent.wait_for("token.written")
        assert len(said(agent, "state.unsaved", STALLED)) == 1
        disk.thaw()
        agent.wait_for("config.loaded")
        fresh(stage.directory / "config.toml")
        assert agent.stop() == 0
