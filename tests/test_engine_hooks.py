"""When hooks run: in virtual time with real programs, and once with the whole agent in real time."""

from __future__ import annotations

import json
import os
import select
import stat
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from agent.status import parse_rfc3339
from tests import virtual
from tests.engine_helpers import World
from tests.process_helpers import run, scene, start, status, wait_for_status
from tests.test_canary import leaks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.process_helpers import Scene

MINUTE = 60.0
HOUR = 60 * MINUTE
START = virtual.START


def program(path: Path, text: str) -> Path:
    """Write a script that can be executed."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def noting(world: World, then: str = "", name: str = "hook") -> str:
    """Return a configuration's line for a program that notes what it finds, and then does something."""
    notes = world.directory / f"{name}.notes"
    text = f'echo "$TOKEN_AGENT_PROFILE $TOKEN_AGENT_EXPIRES_AT $(cat "$1")" >> {notes}; {then}'
    return f'command = ["{program(world.directory / name, text)}", "{{path}}"]'


def notes(directory: Path, name: str = "hook") -> list[list[str]]:
    """Return what was noted, run by run."""
    path = directory / f"{name}.notes"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def hook(*lines: str) -> str:
    """Return the table of a hook."""
    return "on_refresh = { " + ", ".join(lines) + " }"


def systemctl(directory: Path, then: str = "") -> None:
    """Put a systemctl where the engine finds it first, which notes how it is called."""
    program(directory / "bin" / "systemctl", f'echo "$@" >> {directory}/systemctl.notes; {then}')


def seconds(events: list[dict[str, Any]]) -> list[float]:
    """Return when events were, in seconds since the start, without fractions of the test's own making."""
    return [round((event["at"] - START).total_seconds(), 1) for event in events]


def test_after_each_new_token(tmp_path: Path) -> None:
    """Each new token is followed by one run, which finds it on disk; status and log tell of it."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(each=hook(noting(world)))
        async with world.running():
            await anyio.sleep(10)
            assert notes(tmp_path) == [["app", world.state()["expires_at"], world.token()]]
            await anyio.sleep(HOUR + MINUTE)
            ran = notes(tmp_path)
            assert len({token for *_, token in ran}) == len(ran) == len(world.requests()) == 3
            finished = world.log.named("hook.finished", "app")
            assert seconds(finished) == [1.0, 1801.0, 3601.0]
            assert (finished[0]["steps"], finished[0]["exit_code"]) == (["command"], 0)
            shown = world.state()["hook"]
            assert (shown["exit_code"], shown["error"]) == (0, None)
            assert parse_rfc3339(shown["ran_at"]) == START + timedelta(seconds=3601)
        assert not world.log.named("hook.failed")

    virtual.run(main)


def test_acquisitions_do_not_know_of_it(tmp_path: Path) -> None:
    """A hook that hangs or fails neither delays nor triggers an acquisition, and the stop does not wait for it."""

    async def main(loop: virtual.VirtualLoop) -> None:
        loop.hooks_take_their_time = True
        world = World(loop, tmp_path)
        os.mkfifo(tmp_path / "fifo")
        names = [f"p{number}" for number in range(12)]
        hanging, failing = noting(world, f"read x < {tmp_path}/fifo", "hanging"), noting(world, "exit 1", "failing")
        keys = {name: hook(hanging if number % 2 else failing) for number, name in enumerate(names)}
        world.configure(*names, "free", agent="max_in_flight = 2", **keys)
        async with world.running():
            await anyio.sleep(3 * HOUR + MINUTE)
        assert len(world.requests()) == 7 * len([*names, "free"])
        assert {round((at - START).total_seconds()) for at in world.requests()} == {n * 1800 for n in range(7)}
        assert len(notes(tmp_path, "hanging")) == 4  # all places are taken
        assert loop.elapsed < 3 * HOUR + MINUTE + 2

    virtual.run(main)


def test_changes_within_the_interval(tmp_path: Path) -> None:
    """Of several changes within min_interval one run tells, at its end, and it finds the newest token."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(each=hook(noting(world), 'min_interval = "30s"'))
        async with world.running() as supervisor:
            await anyio.sleep(5)
            for _ in range(4):
                await supervisor.refresh(["app"])
                await anyio.sleep(2)
            await anyio.sleep(MINUTE)
            assert len(world.requests()) == 5
            assert seconds(world.log.named("hook.finished")) == [1.0, 31.0]
            assert [token for *_, token in notes(tmp_path)][-1] == world.token()

    virtual.run(main)


def test_no_interval(tmp_path: Path) -> None:
    """With min_interval = 0 every change has its run, at once."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(each=hook(noting(world), "min_interval = 0"))
        async with world.running() as supervisor:
            await anyio.sleep(5)
            await supervisor.refresh(["app"])
            await anyio.sleep(1)
            assert seconds(world.log.named("hook.finished")) == [0.0, 5.0]

    virtual.run(main)


def test_a_shared_unit_is_reloaded_once(tmp_path: Path) -> None:
    """Profiles that are renewed together and name the same unit cause one reload of it, and each its own of others."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        systemctl(tmp_path)
        names = [f"p{number}" for number in range(20)]
        keys = {name: hook('reload_unit = ["web.service"]') for name in names}
        keys["p3"] = hook('reload_unit = ["web.service", "db.service"]')
        world.configure(*names, **keys)
        async with world.running() as supervisor:
            await anyio.sleep(MINUTE)
            calls = (tmp_path / "systemctl.notes").read_text().splitlines()
            assert {tuple(call.split()[:2]) for call in calls} == {("--no-ask-password", "reload-or-try-restart")}
            assert sorted(word for call in calls for word in call.split()[2:]) == ["db.service", "web.service"]
            assert len(world.log.named("hook.finished")) == 20
            assert all(world.state(name)["hook"]["exit_code"] == 0 for name in names)
            await supervisor.refresh(["p1"])
            await anyio.sleep(5)
            await supervisor.refresh(["p2"])  # four seconds after the reload for p1
            await anyio.sleep(MINUTE)
            again = (tmp_path / "systemctl.notes").read_text().splitlines()[len(calls) :]
            assert again == ["--no-ask-password reload-or-try-restart web.service"] * 2
            assert seconds(world.log.named("hook.finished", "p2"))[-1] == 71.0

    virtual.run(main)


def test_what_fails_is_tried_again_alone(tmp_path: Path) -> None:
    """Only the step that failed is repeated, ever more rarely, without an acquisition, until it works."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        systemctl(tmp_path)
        command = noting(world, f"test -e {tmp_path}/up || {{ echo not yet; exit 3; }}")
        world.configure(each=hook('reload_unit = "web.service"', command))
        async with world.running():
            await anyio.sleep(6 * MINUTE)
            failed = world.log.named("hook.failed")
            assert seconds(failed) == [1.0, 11.0, 31.0, 71.0, 151.0, 311.0]
            assert [event["steps"] for event in failed] == [["reload_unit", "command"], *[["command"]] * 5]
            assert (failed[0]["exit_code"], failed[0]["message"]) == (3, "command: exit code 3")
            assert (failed[0]["output"], failed[0]["failures"], failed[2]["failures"]) == ("not yet", 1, 3)
            assert parse_rfc3339(failed[0]["retry_at"]) == START + timedelta(seconds=11)
            assert world.state()["hook"]["error"] == "command: exit code 3"
            assert world.state()["state"] == "fresh"
            (tmp_path / "up").touch()
            await anyio.sleep(6 * MINUTE)
            assert seconds(world.log.named("hook.finished")) == [611.0]
            assert world.state()["hook"] == {"ran_at": world.state()["hook"]["ran_at"], "exit_code": 0, "error": None}
            assert len((tmp_path / "systemctl.notes").read_text().splitlines()) == len(world.requests()) == 1

    virtual.run(main)


def test_a_newer_token_begins_anew(tmp_path: Path) -> None:
    """While a hook waits for its next try, a new token lets all of it run soon, and the back-off begins anew."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        systemctl(tmp_path)
        world.configure(each=hook('reload_unit = "web.service"', noting(world, "exit 1")))
        async with world.running() as supervisor:
            await anyio.sleep(200)
            await supervisor.refresh(["app"])
            await anyio.sleep(15)
            assert seconds(world.log.named("hook.failed"))[-2:] == [201.0, 211.0]
            assert len((tmp_path / "systemctl.notes").read_text().splitlines()) == 2

    virtual.run(main)


def test_a_failing_step_does_not_stop_the_others(tmp_path: Path) -> None:
    """Unit, signal and command run in this order whatever came of the ones before; all failures are named."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        systemctl(tmp_path, "echo 'Failed to reload web.service: Access denied'; exit 4")
        signal = f'signal = {{ pid_file = "{tmp_path}/none.pid" }}'
        world.configure(each=hook(noting(world), signal, 'reload_unit = "web.service"'))
        async with world.running():
            await anyio.sleep(5)
            event = world.log.named("hook.failed")[0]
            assert event["steps"] == ["reload_unit", "signal", "command"]
            assert len(notes(tmp_path)) == 1
            shown = world.state()["hook"]
            assert shown["exit_code"] == 4
            assert "reload_unit: exit code 4: Failed to reload web.service: Access denied; signal: " in shown["error"]
            assert "command" not in shown["error"]
            assert "token-agent-hook@.path" in event["hint"]

    virtual.run(main)


def test_a_slow_unit_is_not_reloaded_for_ever(tmp_path: Path) -> None:
    """A reload that takes longer than the time limit goes on in systemd, and is not ordered again."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        systemctl(tmp_path, "sleep 1000")
        world.configure(each=hook('reload_unit = "web.service"', "timeout = 0.3"))
        async with world.running():
            await anyio.sleep(20 * MINUTE)
            assert world.state()["hook"]["exit_code"] == 124
            assert len((tmp_path / "systemctl.notes").read_text().splitlines()) == 1

    virtual.run(main)


def test_only_new_content_counts(tmp_path: Path) -> None:
    """Putting mode or owner right runs nothing; putting content right does."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(each=hook(noting(world)))
        async with world.running():
            await anyio.sleep(MINUTE)
            path = tmp_path / "run" / "app.token"
            path.chmod(0o644)
            await anyio.sleep(MINUTE)
            assert (len(world.log.named("output.repaired")), len(notes(tmp_path))) == (1, 1)
            path.write_text("altered")
            await anyio.sleep(MINUTE)
            assert (len(world.log.named("output.repaired")), len(notes(tmp_path))) == (2, 2)
            path.unlink()
            await anyio.sleep(MINUTE)
            assert (len(world.log.named("output.repaired")), len(notes(tmp_path))) == (3, 3)

    virtual.run(main)


def test_a_restart(tmp_path: Path) -> None:
    """A hook that was through is not run again for the same token; one that was not catches up, without a request."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(each=hook(noting(world, f"test -e {tmp_path}/up")))
        for expected, up in ((3, False), (4, False), (5, True), (5, True)):
            if up:
                (tmp_path / "up").touch()
            async with world.running():
                await anyio.sleep(35 if expected == 3 else 5)
            assert len(notes(tmp_path)) == expected
        assert len(world.requests()) == 1

    virtual.run(main)


def test_a_reload_of_the_configuration(tmp_path: Path) -> None:
    """A hook that was changed begins anew at once, one that is gone is dropped, and no ghost of it is shown."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure("one", "two", each=hook(noting(world, "exit 1")))
        async with world.running() as supervisor:
            await anyio.sleep(200)
            before = len(notes(tmp_path))
            world.configure("one", each=hook(noting(world, "exit 0", "better")))
            await supervisor.reload(reason="test")
            await anyio.sleep(20 * MINUTE)
            assert len(notes(tmp_path)) == before
            assert len(notes(tmp_path, "better")) == 1
            assert list(world.services.board.profiles) == ["one"]
            assert len(world.requests()) == 2

    virtual.run(main)


def test_removed_while_it_runs(tmp_path: Path) -> None:
    """A hook whose profile is removed meanwhile comes to its end, and nothing of the profile is shown again."""

    async def main(loop: virtual.VirtualLoop) -> None:
        loop.hooks_take_their_time = True
        world = World(loop, tmp_path)
        for name in ("began", "go"):
            os.mkfifo(tmp_path / name)
        world.configure("one", "two", two=hook(noting(world, f"echo > {tmp_path}/began; read x < {tmp_path}/go")))
        async with world.running() as supervisor:
            await anyio.sleep(5)
            (tmp_path / "began").read_text()
            world.configure("one")
            await supervisor.reload(reason="test")
            (tmp_path / "go").write_text("go\n")
            loop.hooks_take_their_time = False
            await anyio.sleep(1)
            assert len(world.log.named("hook.finished", "two")) == 1
            assert list(world.services.board.profiles) == ["one"]

    virtual.run(main)


def test_once_in_virtual_time(tmp_path: Path) -> None:
    """`once` runs each hook a single time before it returns, shared units together, without waiting for anything."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        systemctl(tmp_path)
        keys = {
            "a": hook('reload_unit = "web.service"'),
            "b": hook('reload_unit = "web.service"', 'min_interval = "1h"'),
        }
        world.configure("a", "b", "c", **keys, c=hook(noting(world, "exit 1")))
        results = await world.once()
        assert [progress.exit_code for progress in results.values()] == [0, 0, 0]
        assert len((tmp_path / "systemctl.notes").read_text().splitlines()) == len(notes(tmp_path)) == 1
        assert world.state("c")["hook"]["exit_code"] == 1
        assert loop.elapsed < 1
        await world.once()
        assert len((tmp_path / "systemctl.notes").read_text().splitlines()) == 1
        assert len(notes(tmp_path)) == 2
        assert len(world.requests()) == 3

    virtual.run(main)


# The whole agent, in real time


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider, an app, and room."""
    with scene(tmp_path) as made:
        yield made


def test_once(stage: Scene) -> None:
    """A failing hook is said on standard error and shown by status; the exit code is that of the tokens."""
    failing = program(stage.directory / "failing", "exit 3")
    config = stage.config(stage.profile(on_refresh={"command": [failing]}))
    done = run("once", "--config", config)
    assert done.returncode == 0
    assert done.stdout.startswith("graph  fresh until ")
    assert "graph  on_refresh failed: command: exit code 3" in done.stderr
    assert status(config)["profiles"][0]["hook"]["exit_code"] == 3
    assert "graph: on_refresh failed: command: exit code 3\n" in run("status", "--config", config).stdout
    program(failing, "exit 0")
    done = run("once", "--config", config)
    assert (done.returncode, stage.token_requests) == (0, 1)
    assert "on_refresh" not in done.stderr


def test_a_hook_that_was_taken_out(stage: Scene) -> None:
    """With the hook its failure leaves the status."""
    failing = program(stage.directory / "failing", "exit 3")
    config = stage.config(stage.profile(on_refresh={"command": [failing]}))
    with start("run", "--config", config):
        wait_for_status(config, lambda document: document["profiles"][0]["hook"]["exit_code"] == 3)
        stage.config()
        assert run("reload", "--config", config).returncode == 0
        wait_for_status(config, lambda document: document["profiles"][0]["hook"]["error"] is None)


def test_the_stop_ends_a_running_hook(stage: Scene) -> None:
    """The agent stops in under two seconds while a hook runs that ignores signals; nothing of the hook is left."""
    ready = stage.directory / "fifo"
    os.mkfifo(ready)
    child = program(stage.directory / "child", f"trap '' TERM; echo $$ > {ready}; while :; do sleep 9; done")
    stubborn = program(stage.directory / "stubborn", f"trap '' TERM; {child} & wait; wait")
    config = stage.config(stage.profile(on_refresh={"command": [stubborn], "min_interval": 0}))
    with start("run", "--config", config) as agent:
        descriptor = os.pidfd_open(int(ready.read_text()))
        assert agent.stop(timeout=2) == 0
    assert select.select([descriptor], [], [], 2)[0]
    os.close(descriptor)


def test_nothing_is_given_away(stage: Scene) -> None:
    """A program that prints the token, in part and in other dress, and fails: no token is in log or status."""
    script = (
        'cat "$1"; echo; cut -c 1-300 "$1"; for n in 30 200; do cut -c $n- "$1"; done; cut -c 200-900 "$1"; env; exit 1'
    )
    leaking = program(stage.directory / "leaking", script)
    config = stage.config(stage.profile(on_refresh={"command": [leaking, "{path}"]}), log_level="debug")
    done = run("once", "--config", config)
    failed = next(event for event in map(json.loads, _json_lines(done.stderr)) if event["event"] == "hook.failed")
    assert "[withheld]" in failed["output"]
    assert "TOKEN_AGENT_PROFILE=graph" in failed["output"]
    said = done.stdout + done.stderr + (stage.directory / "run" / "status.json").read_text()
    assert leaks(said, {"token": stage.token()}) == []
    assert leaks(stage.token(), {"token": stage.token()}) != []


def _json_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("{")]


def test_check(stage: Scene) -> None:
    """`check` finds a program that cannot run, and says what will be refused or is not there yet."""
    (stage.directory / "run").mkdir()
    (stage.directory / "text").write_text("x")
    good = program(stage.directory / "good", "exit 0")
    for command, said in ((stage.directory / "none", "does not exist"), (stage.directory / "text", "not executable")):
        done = run("check", "--config", stage.config(stage.profile(on_refresh={"command": [command]})))
        assert done.returncode == 78
        assert f'profile "graph": on_refresh.command: {command}: it' in done.stderr
        assert said in done.stderr
    pid_file = stage.directory / "none" / "pid"
    config = stage.config(stage.profile(on_refresh={"command": [good], "signal": {"pid_file": pid_file}}))
    done = run("check", "--config", config)
    assert done.returncode == 0
    assert f"on_refresh: signal HUP by {pid_file}, command {good}" in done.stdout
    assert f"{pid_file.parent}: the directory does not exist" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be asked about another user's agent")
def test_check_for_a_user_without_privileges(stage: Scene) -> None:
    """Where the agent runs as a user, `check` says that systemd and the kernel will refuse, and names the way out."""
    (stage.directory / "run").mkdir()
    (stage.directory / "pid").write_text(f"{os.getppid()}\n")
    keys = {"reload_unit": ["web.service"], "signal": {"pid_file": stage.directory / "pid"}}
    config = stage.config(stage.profile(on_refresh=keys))
    assert "systemd will refuse" not in run("check", "--config", config).stderr
    os.chown(stage.directory / "run", 12345, 12345)
    for folder in (stage.directory, *stage.directory.parents):  # the pid file is looked for with that user's eyes
        if not (mode := folder.stat().st_mode) & 0o001:
            folder.chmod(stat.S_IMODE(mode) | 0o011)
    said = run("check", "--config", config).stderr
    assert "reload_unit: systemd will refuse: the agent runs as user 12345" in said
    assert "may not send it signals" in said
    assert said.count("token-agent-hook@.path") == 2
