"""`status` tells what is there: token files that are gone or altered, and a configuration that has changed since."""

from __future__ import annotations

import dataclasses
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agent.commands import reality
from agent.status import LastError, ProfileStatus, TokenFileStatus
from tests.process_helpers import Scene, run, scene, start, status, wait_for_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FORMATS = ["raw", "json", "header", "env"]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider and an app."""
    with scene(tmp_path) as made:
        yield made


def once(config: Path) -> None:
    assert run("once", "--config", config).returncode == 0


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def alter(path: Path) -> None:
    path.write_text("another.token.altogether")


def put_another_in_its_place(path: Path) -> None:
    (path.parent / "other").write_text("another.token.altogether")
    path.unlink()
    path.symlink_to(path.parent / "other")


def put_nothing_in_its_place(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nothing")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (delete, "missing"),
        (put_nothing_in_its_place, "missing"),
        (empty, "altered"),
        (alter, "altered"),
        (put_another_in_its_place, "altered"),
    ],
)
def test_the_token_file_is_harmed(stage: Scene, harm: Callable[[Path], None], said: str) -> None:
    """Where the token file is gone or altered the profile is degraded, its runway 0, and the exit code 78."""
    config = stage.config()
    once(config)
    assert status(config)["profiles"][0]["state"] == "fresh"
    harm(stage.directory / "run" / "graph.token")
    done, (profile,) = run("status", "--config", config), status(config)["profiles"]
    assert (profile["state"], profile["runway_seconds"], profile["last_error"]["kind"]) == ("degraded", 0, "output")
    assert f"{stage.directory}/run/graph.token: the token file" in profile["last_error"]["message"]
    assert said in profile["last_error"]["message"]
    assert done.returncode == 78
    assert "token-agent once" in done.stdout


@pytest.mark.parametrize("form", [*FORMATS, "template"])
def test_every_format_is_recognised(stage: Scene, form: str) -> None:
    """A file of any format that is as it was written is fresh; without its content it is not."""
    file: dict[str, Any] = {"path": "graph.token", "format": form}
    file |= {"variable": "TOKEN"} if form == "env" else {}
    file |= {"template": "password {access_token}", "newline": True} if form == "template" else {}
    file |= {"newline": True} if form == "raw" else {}
    config = stage.config(stage.profile(token_file=file))
    once(config)
    assert run("status", "--config", config).returncode == 0
    empty(stage.directory / "run" / "graph.token")
    assert run("status", "--config", config).returncode == 78


def test_a_symlink_while_the_agent_runs(stage: Scene) -> None:
    """What a reader finds is told beside a running agent as well: a link in the file's place is no fresh token."""
    config = stage.config(watch=False, rescan_interval="1h")
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written")
        path = stage.directory / "run" / "graph.token"
        other = stage.directory / "run" / "other"
        other.write_text("another.token.altogether")
        os.utime(other, (0, 0))
        wait_for_status(config, lambda document: document["profiles"][0]["state"] == "fresh")
        path.unlink()
        path.symlink_to(other)
        (profile,) = status(config)["profiles"]
        assert (profile["state"], profile["runway_seconds"]) == ("degraded", 0)
        assert agent.stop() == 0


def test_a_newer_token_that_not_all_files_have(tmp_path: Path) -> None:
    """A file as the agent wrote it, with a token that another file could not be given yet, is not called altered."""
    now, minute = datetime.now(UTC), timedelta(minutes=1)
    path = tmp_path / "graph.token"
    path.write_text("a.newer.token")
    half = ProfileStatus(
        "graph",
        acquired_at=now - 30 * minute,
        expires_at=now + 30 * minute,
        token_sha256="0123456789ab",
        last_error=LastError(now, "output", "/other: no space left on the file system"),
        token_files=(TokenFileStatus(str(path), "raw", now),),
    )
    altered = [(str(path), reality.ALTERED)]
    assert list(reality.differences(half, now, running=False)) == []
    assert list(reality.differences(dataclasses.replace(half, last_error=None), now, running=False)) == altered
    os.utime(path, ((now + 5 * minute).timestamp(),) * 2)
    assert list(reality.differences(half, now, running=False)) == altered


def test_the_configuration_names_the_profiles(stage: Scene) -> None:
    """Without an agent the profiles shown are those of the configuration: gone ones are not, new ones are pending."""
    once(stage.config(stage.profile("old"), stage.profile("kept")))
    config = stage.config(stage.profile("new"), stage.profile("kept"))
    shown = [(profile["name"], profile["state"]) for profile in status(config)["profiles"]]
    assert shown == [("new", "pending"), ("kept", "fresh")]
    assert run("status", "--config", config).returncode == 75


@pytest.mark.parametrize(
    "keys",
    [
        {"scopes": "https://vault.azure.net/.default"},
        {"client_id": "0b1c9b3e-5d1f-4f0e-9a57-2f6f3a1c7d10"},
        {"authority": None, "tenant": "fabrikam.com"},
    ],
    ids=str,
)
def test_a_token_of_something_else(stage: Scene, keys: dict[str, Any]) -> None:
    """A token of another scope, app or authority than the configuration asks for is not the profile's."""
    once(stage.config())
    (profile,) = status(stage.config(stage.profile(**keys)))["profiles"]
    assert (profile["state"], profile["runway_seconds"], profile["expires_at"]) == ("pending", 0, None)


def test_another_token_file(stage: Scene) -> None:
    """A token file that the configuration names since, and that is not there yet, is missing."""
    once(stage.config())
    (profile,) = status(stage.config(stage.profile(token_file=["graph.token", "second.token"])))["profiles"]
    assert profile["state"] == "degraded"
    assert profile["last_error"]["message"].startswith(f"{stage.directory}/run/second.token: ")


def test_a_broken_configuration(stage: Scene) -> None:
    """A configuration that is wrong is told on standard error, and the last known profiles are shown."""
    once(stage.config())
    config = stage.config(stage.profile(clientid="x"))
    done = run("status", "--config", config)
    assert "client_id" in done.stderr
    assert "client_id" not in done.stdout
    assert "graph    fresh" in done.stdout
