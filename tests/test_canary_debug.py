"""Canaries at debug level besides what a provider does: hooks and callers that quote, bugs, and the process itself."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent import control
from tests.certificate_helpers import CLIENT_ID, written
from tests.process_helpers import COMMAND, PATIENCE, ROOT, environment, run, sabotage, scene, start, wait_for_status
from tests.test_canary import PASSWORDS, answered, leaks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.process_helpers import Scene

SECRET = PASSWORDS["client secret"]
QUOTING = 'cat "$1"; cat "$TOKEN_AGENT_TOKEN_FILE" >&2; env; exit 3'
"""A hook that says whatever it was given, and the token, on both streams, and fails."""

DRESSING = 'base64 -w0 "$1"; echo; base64 "$1"; od -An -tx1 "$1"; exit 3'
"""Says the token as well, but so that nobody would know it: in one line, in lines of 76 characters, spaced."""


def dressed(secret: str) -> list[str]:
    """Return what base64 and a dump make of a token, wherever in a text it begins."""
    content = secret.encode()
    return [content.hex(), *(base64.b64encode(content[start:-3]).decode() for start in range(3))]


def secrets_of(scene: Scene, *names: str) -> dict[str, str]:
    """Return what must not be said: tokens as they lie in their files, the key, the client's secret."""
    key = {f"key line {number}": line for number, line in enumerate(scene.pair.key_pem.decode().splitlines()[1:-1])}
    return key | {"client secret": SECRET} | {f"token of {name}": scene.token(name) for name in names}


@pytest.mark.parametrize("style", ["json", "console"])
def test_hooks_callers_and_refusals(tmp_path: Path, style: str) -> None:
    """At debug level neither a hook that prints the token, nor callers that send it, nor refusals bring it to light."""
    with scene(tmp_path) as it:
        it.provider.register(CLIENT_ID, it.pair, secret=SECRET)
        hook, other = (
            {"command": ["/bin/sh", "-c", script, "sh", "{path}"], "min_interval": "0s"}
            for script in (QUOTING, DRESSING)
        )
        by_secret = {"certificate": None, "client_secret_file": written(tmp_path / "secret", SECRET.encode())}
        profiles = [
            it.profile("hooked", on_refresh=hook),
            it.profile("secret", on_refresh=other, **by_secret),
            it.profile("refused", client_id="00000000-0000-4000-8000-000000000000"),
            it.profile("unexpected", expect={"audience": "api://other"}),
            it.profile("env", token_file=[{"path": "env.token", "format": "template", "template": "{access_token}"}]),
        ]
        config = it.config(*profiles, log_level="debug", log_format=style)
        with start("run", "--config", config) as agent:
            document = wait_for_status(
                config, lambda found: answered(found) and bool(found["profiles"][1]["hook"]["error"])
            )
            known = secrets_of(it, "hooked", "secret", "env")
            said = [_ask(tmp_path / "run", text) for text in known.values()]
            for command in (("refresh", "--all"), ("reload",)):
                done = run(*command, "--config", config)
                said.append(done.stdout + done.stderr)
            after = wait_for_status(config, answered)
            assert agent.stop() == 0
        known |= secrets_of(it, "hooked", "secret", "env")
    said += [agent.stdout, agent.stderr, json.dumps([document, after]), (tmp_path / "run" / "status.json").read_text()]
    said.append((tmp_path / "state" / "state.json").read_text())
    text = "\n".join(said)
    assert "hook.failed" in agent.stderr
    assert "acquisition.failed" in agent.stderr
    assert leaks(text, known) == []
    in_one_line = re.sub(r"\\n|\s", "", text)
    tokens = {f"{name}, {n}": form for name, token in known.items() for n, form in enumerate(dressed(token))}
    assert leaks(in_one_line, tokens) == []


def _ask(directory: Path, text: str) -> str:
    """Send requests that quote a secret wherever there is room for one, and return the answers."""
    requests: tuple[Any, ...] = (
        {"op": text},
        {"op": "refresh", "names": text},
        {"op": "refresh", "names": "all", "min_valid_seconds": text},
    )
    with contextlib.suppress(OSError):
        return json.dumps([control.ask(directory, request, PATIENCE) for request in requests])
    return ""


BUGS = {
    "while asking": """
import agent.network.transport
def broken(self, call, method, url, headers, body=None):
    local = repr(body); also = [local, headers]
    raise RuntimeError("the bug")
agent.network.transport.HttpsTransport.request = broken
""",
    "while writing": """
import agent.output.sink
def broken(path, content, *arguments, **more):
    local = content.decode(); also = {"token": local}
    raise RuntimeError("the bug")
agent.output.sink.write = broken
""",
    "while reading a key": """
import agent.credentials.keyfiles
def broken(path, content, password):
    local = content.decode(); also = [local, password]
    raise RuntimeError("the bug")
agent.credentials.keyfiles.parse = broken
import agent.credentials.store
agent.credentials.store.parse = broken
""",
}


@pytest.mark.parametrize("command", ["run", "once"])
@pytest.mark.parametrize("bug", BUGS)
def test_a_traceback_has_no_values(tmp_path: Path, bug: str, command: str) -> None:
    """A bug amidst keys, requests and tokens is told with its places and its message, and no value of any variable."""
    with scene(tmp_path) as it:
        config = it.config(log_level="debug")
        environ = sabotage(tmp_path, BUGS[bug]) | {"PYTHONFAULTHANDLER": "1"}
        with start(command, "--config", config, environ=environ) as agent:
            assert agent.wait() == 1
        tokens = {
            f"sent {n}": str(entry) for n, entry in enumerate(it.provider.token_requests) if len(str(entry)) > 10_000
        }
    assert "RuntimeError: the bug" in agent.stderr
    assert leaks(agent.stdout + agent.stderr, secrets_of(it) | tokens) == []


def test_nobody_looks_into_the_agent(tmp_path: Path) -> None:
    """A running agent's memory and environment are root's alone, and no core dump tells of them; all commands work."""
    with scene(tmp_path) as it:
        hook = {"command": ["/bin/sh", "-c", "grep -c . /proc/self/environ"]}
        config = it.config(it.profile(on_refresh=hook))

        def settled(found: dict[str, Any]) -> bool:
            profile = found["profiles"][0]
            return bool(profile["state"] == "fresh" and profile["hook"]["exit_code"] == 0)

        for path in (tmp_path, it.certificate):
            os.chown(path, NOBODY if POWERLESS else -1, -1)
        with beside([*COMMAND, "run", "--config", str(config)], tmp_path) as agent:
            wait_for_status(config, settled)
            for command in ("reload", "status", "doctor"):
                done = run(command, "--config", config)
                assert done.returncode in ((0,) if command != "doctor" else (0, 75, 78)), done.stderr
            assert not is_open_to_its_user(agent.pid)
            line = Path(f"/proc/{agent.pid}/cmdline").read_text()
            assert leaks(line, secrets_of(it, "graph")) == []
            agent.send_signal(signal.SIGQUIT)
            assert agent.wait(PATIENCE) == -signal.SIGQUIT
    assert not list(tmp_path.glob("core*"))
    with beside([sys.executable, "-c", "input(print('ready', flush=True))"], tmp_path) as other:
        assert other.stdout
        assert other.stdout.readline() == b"ready\n"
        assert is_open_to_its_user(other.pid)


NOBODY = 65534
USER = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
READER = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
POWERLESS = [*USER, *READER] if os.geteuid() == 0 else []  # a reader, since the interpreter may be root's own
"""How a test that runs as root runs something as a user, whose processes /proc shows as that user's."""


@contextlib.contextmanager
def beside(command: list[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command that may leave a core dump in a directory."""
    limits = ["prlimit", "--core=1048576", "--"]
    place = environment(PYTHONPATH=str(ROOT))
    process = subprocess.Popen(
        [*limits, *POWERLESS, *command], env=place, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def is_open_to_its_user(pid: int) -> bool:
    """Whether what /proc tells of a process's memory belongs to its user, and not to root (proc(5))."""
    return Path(f"/proc/{pid}/environ").stat().st_uid == (NOBODY if POWERLESS else os.geteuid())
