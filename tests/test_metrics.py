"""Metrics and health as a monitor sees them: parsed by Prometheus' own library, fetched by curl from a real agent."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from agent.tally import RESULTS
from tests import virtual
from tests.certificate_helpers import make_certificate, pool_key
from tests.engine_helpers import World
from tests.process_helpers import PATIENCE, Scene, run, scene, start, wait_for_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MINUTE = 60.0
TEXTFILE = 'metrics_textfile = "agent.prom"'
NAMES = (
    "token_agent_build_info",
    "token_agent_token_expiry_timestamp_seconds",
    "token_agent_token_refresh_timestamp_seconds",
    "token_agent_profile_state",
    "token_agent_acquisitions_total",
    "token_agent_acquisition_duration_seconds_bucket",
    "token_agent_consecutive_failures",
    "token_agent_certificate_expiry_timestamp_seconds",
    "token_agent_config_last_reload_successful",
    "token_agent_config_last_reload_success_timestamp_seconds",
    "token_agent_reloads_total",
    "token_agent_token_writes_total",
    "token_agent_hook_runs_total",
    "token_agent_clock_skew_seconds",
    "token_agent_certificate_candidate_refused",
)


def samples(text: str, read: Callable[[str], Any] = parse) -> dict[str, float]:
    """Return what an exposition says, by name and labels as PromQL writes them."""
    found = {}
    for family in read(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name.removeprefix('token_agent_')}{{{labels}}}"] = float(sample.value)
    return found


def story(tmp_path: Path, act: Callable[[World, Callable[[], dict[str, float]]], Any], **keys: str) -> None:
    """Let an agent with a text file run in virtual time, and act on it; `seen` reads the file a little later."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure(agent=TEXTFILE, **keys)

        def seen() -> dict[str, float]:
            return samples((tmp_path / "agent.prom").read_text())

        await act(world, seen)

    virtual.run(main)


def test_everything_is_there_from_the_start(tmp_path: Path) -> None:
    """Each counter of a configured profile begins with 0; what is not known yet is absent, and not 0."""

    async def act(world: World, seen: Callable[[], dict[str, float]]) -> None:
        world.provider.fault("status", 50, status=503)
        async with world.running():
            await anyio.sleep(1)
            shown = seen()
            for event, results in RESULTS.items():
                assert {f"{event}_total{{profile=app,result={result}}}" for result in results} <= shown.keys()
            assert shown["hook_runs_total{profile=app,result=success}"] == 0
            assert shown["reloads_total{result=failure}"] == 0
            assert shown["profile_state{profile=app,state=pending}"] == 1
            assert "token_expiry_timestamp_seconds{profile=app}" not in shown
            assert "token_refresh_timestamp_seconds{profile=app}" not in shown

    story(tmp_path, act)


def test_attempts_are_counted_by_what_came_of_them(tmp_path: Path) -> None:
    """Success, a passing failure and a refusal each count once, and the state and failures in a row follow."""

    async def act(world: World, seen: Callable[[], dict[str, float]]) -> None:
        async with world.running() as supervisor:
            await anyio.sleep(10)
            assert seen()["acquisitions_total{profile=app,result=success}"] == 1
            assert seen()["token_writes_total{profile=app,result=success}"] == 1
            assert seen()["acquisition_duration_seconds_count{}"] == 1
            assert (
                seen()["token_expiry_timestamp_seconds{profile=app}"]
                == (virtual.START + timedelta(hours=1)).timestamp()
            )
            world.provider.fault("status", 1, status=503)
            await supervisor.refresh(["app"])
            await anyio.sleep(10)
            shown = seen()
            assert shown["acquisitions_total{profile=app,result=transient}"] == 1
            assert shown["acquisitions_total{profile=app,result=success}"] == 2
            world.unregister_all()
            await supervisor.refresh(["app"])
            await anyio.sleep(10)
            shown = seen()
            assert shown["acquisitions_total{profile=app,result=rejected}"] == 1
            assert shown["consecutive_failures{profile=app}"] == 1
            assert shown["profile_state{profile=app,state=degraded}"] == 1
            assert shown["profile_state{profile=app,state=fresh}"] == 0

    story(tmp_path, act)


def test_a_refused_candidate_shows(tmp_path: Path) -> None:
    """A certificate that the provider does not know yet is 1, its end that of the one in use; taken over, it is 0."""

    async def act(world: World, seen: Callable[[], dict[str, float]]) -> None:
        new = make_certificate("new", pool_key(1), not_after=virtual.START + timedelta(days=400))
        async with world.running():
            await anyio.sleep(MINUTE)
            assert seen()["certificate_candidate_refused{profile=app}"] == 0
            before = seen()["certificate_expiry_timestamp_seconds{profile=app}"]
            world.write("app.pem", new.pem)
            await anyio.sleep(MINUTE)
            assert seen()["certificate_candidate_refused{profile=app}"] == 1
            assert seen()["certificate_expiry_timestamp_seconds{profile=app}"] == before
            world.register(new)
            await anyio.sleep(10 * MINUTE)
            assert seen()["certificate_candidate_refused{profile=app}"] == 0
            assert seen()["certificate_expiry_timestamp_seconds{profile=app}"] > before

    story(tmp_path, act)


def test_a_refused_configuration_shows(tmp_path: Path) -> None:
    """A configuration that cannot be used is 0 and one failure however long it stays; the next good one a success."""

    async def act(world: World, seen: Callable[[], dict[str, float]]) -> None:
        async with world.running():
            await anyio.sleep(MINUTE)
            assert seen()["config_last_reload_successful{}"] == 1
            loaded = seen()["config_last_reload_success_timestamp_seconds{}"]
            world.write("config.toml", "[agent\n")
            await anyio.sleep(5 * MINUTE)
            shown = seen()
            assert shown["config_last_reload_successful{}"] == 0
            assert shown["config_last_reload_success_timestamp_seconds{}"] == loaded
            assert shown["reloads_total{result=failure}"] == 1
            world.configure("other", agent=TEXTFILE)
            await anyio.sleep(MINUTE)
            shown = seen()
            assert shown["config_last_reload_successful{}"] == 1
            assert shown["reloads_total{result=success}"] == 1
            assert not [name for name in shown if "profile=app" in name]  # it is no longer configured

    story(tmp_path, act)


def test_writes_and_hooks_are_counted(tmp_path: Path) -> None:
    """A token file that had to be put right counts as repaired, a hook by how it ended."""
    hook = 'on_refresh = { command = ["/bin/false"] }'

    async def act(world: World, seen: Callable[[], dict[str, float]]) -> None:
        async with world.running():
            await anyio.sleep(5)
            (tmp_path / "run" / "app.token").unlink()
            await anyio.sleep(MINUTE)
            shown = seen()
            assert shown["token_writes_total{profile=app,result=repaired}"] == 1
            assert shown["hook_runs_total{profile=app,result=failure}"] >= 1
            assert shown["hook_runs_total{profile=app,result=success}"] == 0

    story(tmp_path, act, app=hook)


def test_the_skew_of_the_clock_shows(tmp_path: Path) -> None:
    """A clock that is ahead of the provider's is positive, by the provider's host."""

    async def act(world: World, seen: Callable[[], dict[str, float]]) -> None:
        world.provider.fault("clock", 50, seconds=-120)
        async with world.running():
            await anyio.sleep(10)
            (skew,) = [value for name, value in seen().items() if name.startswith("clock_skew_seconds{authority=")]
            assert 118 <= skew <= 122

    story(tmp_path, act)


def test_the_file_tells_life_and_the_stop(tmp_path: Path) -> None:
    """It is written anew each minute though nothing happens, and after a clean stop says that all are stopped."""

    async def act(world: World, seen: Callable[[], dict[str, float]]) -> None:
        path = tmp_path / "agent.prom"
        async with world.running():
            await anyio.sleep(5 * MINUTE)
            before = path.read_text()
            await anyio.sleep(MINUTE + 1)
            assert path.read_text() != before
            assert samples(path.read_text()) == samples(before)
        assert seen()["profile_state{profile=app,state=stopped}"] == 1
        assert seen()["profile_state{profile=app,state=fresh}"] == 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    story(tmp_path, act)


# A real agent


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path) as made:
        yield made


def fetch(address: str, path: str, *options: str) -> tuple[int, str]:
    """Ask as curl does; return status and body."""
    where = ["--unix-socket", address.removeprefix("unix:")] if address.startswith("unix:") else []
    host = "localhost" if where else address
    command = ["curl", "-sS", "-m", "20", "-w", "\n%{http_code}", *where, *options, f"http://{host}{path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    body, _, code = done.stdout.rpartition("\n")
    return int(code), body


@pytest.mark.parametrize("way", ["127.0.0.1:0", "[::1]:0", "unix"])
def test_served(stage: Scene, way: str) -> None:
    """At TCP and at a socket: every metric of the contract in both formats, alive, ready, and no token in it."""
    if "::1" in way and not os.path.exists("/proc/net/if_inet6"):  # noqa: PTH110
        way = "127.0.0.1:0"
    listen = f"unix:{stage.directory}/run/metrics.sock" if way == "unix" else way
    config = stage.config(metrics_listen=listen)
    with start("run", "--config", config) as agent:
        address = agent.wait_for("metrics.listening")["address"]
        wait_for_status(config, lambda shown: bool(shown["profiles"]) and shown["profiles"][0]["state"] == "fresh")
        code, text = fetch(address, "/metrics")
        assert code == 200
        for name in NAMES:
            assert re.search(rf"^{name}[ {{]", text, re.MULTILINE), name
        assert samples(text)["acquisitions_total{profile=graph,result=success}"] == 1
        _, other = fetch(address, "/metrics", "-H", "Accept: application/openmetrics-text; version=1.0.0")
        assert other.rstrip().endswith("# EOF")
        assert samples(other, parse_openmetrics)["profile_state{profile=graph,state=fresh}"] == 1
        assert stage.token() not in text + other
        assert "eyJ" not in text + other
        assert fetch(address, "/livez") == (200, "alive\n")
        assert fetch(address, "/readyz?verbose")[0] == 200
        assert fetch(address, "/") == (404, "there are\n/metrics\n/livez\n/readyz\n")
        assert fetch(address, "/metrics", "-X", "DELETE")[0] == 405
        assert fetch(address, "/metrics", "--head")[0] == 200
        if way == "unix":
            assert stat.S_IMODE((stage.directory / "run" / "metrics.sock").stat().st_mode) == 0o660
        assert agent.stop() == 0
    if way == "unix":
        assert not (stage.directory / "run" / "metrics.sock").exists()


def test_not_ready_while_there_is_no_token(stage: Scene) -> None:
    """503 names each profile that has no valid token, and why, though others do; the agent is alive all the same."""
    foreign = stage.profile("foreign", client_id="11111111-1111-4111-8111-111111111111")
    config = stage.config(stage.profile(), foreign, metrics_listen="127.0.0.1:0")
    with start("run", "--config", config) as agent:
        address = agent.wait_for("metrics.listening")["address"]
        agent.wait_for_text("token.written")
        wait_for_status(config, lambda shown: any(each["last_error"] for each in shown["profiles"]))
        code, text = fetch(address, "/readyz")
        assert code == 503
        assert re.fullmatch(r"foreign: pending: AADSTS700016.*\n", text)
        assert fetch(address, "/livez")[0] == 200


def test_an_address_in_use_costs_no_token(stage: Scene) -> None:
    """The token is acquired and written, one error names the address and the way out, and another one is taken."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = stage.config(metrics_listen=f"127.0.0.1:{port}")
        with start("run", "--config", config) as agent:
            agent.wait_for_text("token.written")
            agent.wait_for_text(f"127.0.0.1:{port}")
            said = [event for event in agent.events() if f"127.0.0.1:{port}" in json.dumps(event)]
            assert [event["level"] for event in said] == ["error"]
            assert "ss -lp" in said[0]["hint"]
            stage.config(metrics_listen="127.0.0.1:0")
            assert run("reload", "--config", config).returncode == 0
            address = agent.wait_for("metrics.listening")["address"]
            assert fetch(address, "/livez")[0] == 200


def test_hostile_monitors_disturb_nobody(stage: Scene) -> None:
    """Silent, slow, endless and nonsensical connections, hundreds at once, are borne; a real monitor is answered."""
    with start("run", "--config", stage.config(metrics_listen="127.0.0.1:0")) as agent:
        address = agent.wait_for("metrics.listening")["address"]
        agent.wait_for_text("token.written")
        host, port = address.rsplit(":", 1)
        connections = [socket.create_connection((host, int(port)), timeout=PATIENCE) for _ in range(300)]
        for number, connection in enumerate(connections):
            garbage = (b"", b"GET /metr", b"\0" * 20000, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" * 9)[number % 5]
            try:
                connection.sendall(garbage)
            except OSError:
                continue  # it was turned away already
        assert fetch(address, "/livez")[0] == 200
        for connection in connections:
            connection.close()
        assert fetch(address, "/metrics")[0] == 200
        agent.send(signal.SIGTERM)
        assert agent.wait() == 0
