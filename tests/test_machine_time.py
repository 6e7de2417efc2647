"""Time that is lost: a process that is stopped for a while, and a name server that never answers."""

from __future__ import annotations

import signal
import socket
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.machine_helpers import assert_last_good, fresh, needs_root
from tests.process_helpers import COMMAND, PATIENCE, Scene, scene, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME_SERVER = "127.0.0.77"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider of very short-lived tokens."""
    with scene(tmp_path, token_lifetime=timedelta(seconds=4)) as made:
        yield made


def test_a_stopped_process_catches_up(stage: Scene) -> None:
    """After SIGSTOP for longer than a token lives, one request per profile makes all fresh again."""
    config = stage.config(stage.profile(), stage.profile("second"))
    with start("run", "--config", config) as agent:
        fresh(config)
        agent.send(signal.SIGSTOP)
        _let_pass(5.0)
        before = stage.token_requests
        agent.send(signal.SIGCONT)
        began = time.monotonic()
        fresh(config)
        periods = 1 + (time.monotonic() - began) / 1.6  # the least time between two renewals of a profile
        assert stage.token_requests - before <= 2 * (periods + 1)
        assert_last_good(agent, stage.directory / "run" / "graph.token")
        assert agent.stop() == 0


def _let_pass(seconds: float) -> None:
    """Let real time pass, for nothing else will do here."""
    threading.Event().wait(seconds)


@needs_root
def test_a_name_server_that_never_answers(stage: Scene) -> None:
    """A provider whose name cannot be looked up is unreachable; others go on, and the agent can be stopped."""
    configuration = stage.directory / "resolv.conf"
    configuration.write_text(f"nameserver {NAME_SERVER}\noptions timeout:30 attempts:5\n")
    private = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
    command = (*private, 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(configuration), *COMMAND)
    lost = stage.profile("lost", authority="https://login.silent.test/tenant", timeout="2s")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((NAME_SERVER, 53))
        server.settimeout(PATIENCE)
        with start("run", "--config", stage.config(stage.profile(), lost), command=command) as agent:
            failed = agent.wait_for("acquisition.failed", profile="lost")
            assert (failed["kind"], bool(failed["hint"])) == ("transient", True)
            assert b"silent" in server.recv(512)
            for _ in range(3):
                agent.wait_for("token.written", profile="graph")
            began = time.monotonic()
            assert agent.stop() == 0
            assert time.monotonic() - began < 5
