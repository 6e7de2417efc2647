"""`token-agent doctor` for somebody who may not read the configuration: what of the tokens concerns him, and why."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests import doctor_helpers, sink_helpers
from tests.machine_helpers import UNPRIVILEGED, USER
from tests.process_helpers import Running, Scene, run, scene, start, wait_for_status
from tests.sink_helpers import NOBODY, OTHER, Who, needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_root

Found = list[dict[str, str]]


@pytest.fixture
def stage() -> Iterator[Scene]:
    """A provider, an app, and room that every user can reach."""
    with sink_helpers.ground() as ground, scene(ground) as made:
        yield made


def closed(stage: Scene, *profiles: dict[str, Any]) -> Path:
    """Write a configuration into a directory that others may not enter."""
    folder = stage.directory / "etc"
    folder.mkdir(mode=0o700, exist_ok=True)
    return stage.config(*profiles).replace(folder / "config.toml")


def for_other(stage: Scene, name: str = "graph") -> dict[str, Any]:
    return stage.profile(name, token_file=[{"path": f"{name}.token", "readers": [f"user:{OTHER}"]}])


@pytest.fixture
def config(stage: Scene) -> Path:
    """Of one token, which one user may read."""
    return closed(stage, for_other(stage))


@pytest.fixture
def agent(config: Path) -> Iterator[Running]:
    """An agent that has written its token, and its status."""
    with start("run", "--config", config) as running:
        wait_for_status(config, lambda document: document["profiles"] and document["profiles"][0]["state"] == "fresh")
        yield running


def doctor(stage: Scene, uid: int, *arguments: str) -> tuple[int, Found]:
    """Return exit code and findings, as another user."""
    config, runtime_dir = stage.directory / "etc" / "config.toml", stage.directory / "run"
    code, found = sink_helpers.call(doctor_helpers.examine, config, runtime_dir, *arguments, who=Who(uid))
    assert "chgrp" not in str(found)
    return code, found


def of(found: Found, level: str, area: str) -> list[str]:
    return [each["message"] for each in found if each["level"] == level and each["area"] == area]


def test_who_can_read(stage: Scene, agent: Running) -> None:
    """A reader is told that all is well with the token: he can read it, how long it serves, and who keeps it fresh."""
    code, found = doctor(stage, OTHER)
    assert (code, [each for each in found if each["level"] in ("warning", "problem") and each["area"] != "clock"]) == (
        0,
        [],
    )
    assert of(found, "ok", "reader") == [f"user {OTHER} can read {stage.directory}/run/graph.token"]
    assert of(found, "ok", "status") == ["fresh, the token serves for 59 min"]
    assert of(found, "ok", "agent") == [f"an agent keeps {stage.directory}/run (pid {agent.pid})"]
    assert f"you may not read {stage.directory}/etc/config.toml" in found[-1]["message"]
    assert found[-1]["fix"] == "root sees more: run this as root"


def test_who_cannot_read(stage: Scene, agent: Running) -> None:
    """Who can read no token is told why not: the file, or the directory on the way, each with what lets him in."""
    path = stage.directory / "run" / "graph.token"
    code, found = doctor(stage, NOBODY)
    ((message, fix),) = [(each["message"], each["fix"]) for each in found if each["level"] == "problem"]
    assert (code, message) == (78, f"user nobody cannot read {path} (0640+ root:root)")
    assert fix.startswith('`readers = ["user:nobody"]`')
    assert doctor(stage, NOBODY, "--user", str(OTHER))[0] == 0
    path.parent.chmod(0o700)
    code, found = doctor(stage, NOBODY)
    assert code == 78
    assert of(found, "problem", "agent") == [f"{path.parent}/status.json cannot be read: Permission denied"]


def test_of_several_tokens_one_will_do(stage: Scene) -> None:
    """That somebody cannot read the tokens of others is no problem, unless these are asked about by name."""
    config = closed(stage, for_other(stage), stage.profile("billing"))
    with start("run", "--config", config):
        wait_for_status(config, lambda document: all(each["state"] == "fresh" for each in document["profiles"]))
        code, found = doctor(stage, OTHER)
        assert (code, len(of(found, "ok", "reader")), len(of(found, "note", "reader"))) == (0, 1, 1)
        code, found = doctor(stage, OTHER, "billing")
        assert code == 78
        assert {each["subject"] for each in found if each["area"] in ("reader", "status")} == {"billing"}


def test_an_agent_that_is_gone(stage: Scene, agent: Running) -> None:
    """That nobody renews the token any more, and that it was removed, are problems to a reader as well."""
    agent.stop(signal.SIGKILL)
    code, found = doctor(stage, OTHER)
    assert code == 78
    assert of(found, "problem", "status") == ["stopped, the token serves for 59 min"]
    assert "nothing renews tokens" in of(found, "problem", "agent")[0]
    (stage.directory / "run" / "graph.token").unlink()
    assert of(doctor(stage, OTHER)[1], "problem", "token file") == [f"{stage.directory}/run/graph.token is not there"]


def test_the_agents_own_user(stage: Scene) -> None:
    """To the very user that the agent runs as, a configuration that may not be read is what has to be mended."""
    for name in ("run", "state"):
        sink_helpers.directory(stage.directory / name, uid=USER)
    stage.certificate.chmod(0o644)
    stage.provider.ca_file.parent.chmod(0o755)
    config = stage.config()
    with start("run", "--config", config, command=UNPRIVILEGED) as agent:
        agent.wait_for("token.written")
        config.chmod(0o600)
        examine = doctor_helpers.examine
        code, found = sink_helpers.call(examine, config, stage.directory / "run", who=Who(USER))
        assert (code, found[0]["area"], found[0]["level"]) == (78, "configuration", "problem")
        assert "chgrp token-agent" in found[0]["fix"]


def test_status_of_a_stopped_agent(stage: Scene, config: Path) -> None:
    """`status` answers whoever may not enter the directory of the configuration, by what the last agent knew."""
    assert run("once", "--config", config).returncode == 0
    arguments = ("status", "--config", str(config))
    code, output = sink_helpers.call(doctor_helpers.call, stage.directory / "run", *arguments, who=Who(OTHER))
    assert (code, output.splitlines()[1].split()[:2]) == (0, ["graph", "fresh"])
