"""Hooks, one at a time, with real processes: bounded in time, alone in their environment, gone when they are over."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import jwt
import pytest

from agent import hookplan, hooks, pidfile
from agent.config.model import OnRefresh
from agent.hookplan import Outcome
from agent.tokens import AccessToken
from tests.certificate_helpers import profile as any_profile

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config.model import Profile

SECRET = "opaque-canary~0123456789"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOKEN = AccessToken(SECRET, "Bearer", NOW, NOW + timedelta(hours=1))
PATIENCE = 10.0


def shell(script: str, *arguments: str, timeout: float = PATIENCE) -> hooks.Execution:
    """Return a run of a shell script; the shell is the program here."""
    return hooks.Execution(["/bin/sh", "-c", script, "sh", *arguments], {"PATH": hooks.SEARCH_PATH}, timeout)


def profile(tmp_path: Path, **keys: object) -> Profile:
    """Return a profile with a hook and two token files."""
    files = ({"path": tmp_path / "first {profile}"}, {"path": tmp_path / "second"})
    base = any_profile(certificate={"path": "/nonexistent.pem"}, token_file=files)
    return base.model_copy(update={"on_refresh": OnRefresh.model_validate(keys)})


def program(path: Path, text: str) -> Path:
    """Write a script that can be executed."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def is_gone(pid: int) -> bool:
    """Whether a process ends soon, or has; a zombie that init has not fetched yet has."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE)[0])
    finally:
        os.close(descriptor)


def fifo(path: Path) -> Path:
    """Make a FIFO: reading it waits for a process that writes to it."""
    os.mkfifo(path)
    return path


# What a program gets


def test_arguments_are_no_shell(tmp_path: Path) -> None:
    """Arguments arrive as they are written, placeholders replaced once, and no shell looks at them."""
    script = program(tmp_path / "hook", 'printf "%s|" "$@"; exit 9')
    made = profile(tmp_path, command=[str(script), "{path}", "$(id);`id` *", "{profile}={path}", "{other}", "{{path}}"])
    assert made.on_refresh is not None
    argv = hookplan.arguments(made, made.on_refresh)
    first = f"{tmp_path}/first {{profile}}"
    outcome = hooks.Execution(argv, {}, PATIENCE).run()
    assert outcome.exit_code == 9
    assert outcome.output.decode() == f"{first}|$(id);`id` *|{made.name}={first}|{{other}}|{{{first}}}|"


def test_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is what the contract names, input is empty, no descriptor and no session is inherited."""
    monkeypatch.setenv("AGENTS_OWN", "secret")
    made = profile(tmp_path, command=["/x"])
    environ = hookplan.environment(made, TOKEN, hooks.SEARCH_PATH)
    assert set(environ) == {
        "PATH", "LANG", "HOME", "TOKEN_AGENT_PROFILE", "TOKEN_AGENT_TOKEN_FILE", "TOKEN_AGENT_EXPIRES_AT",
    }  # fmt: skip
    assert environ["TOKEN_AGENT_EXPIRES_AT"] == "2026-03-01T13:00:00Z"
    assert environ["TOKEN_AGENT_TOKEN_FILE"] == f"{tmp_path}/first {{profile}}"
    assert SECRET not in str(environ)
    code = (
        "import os, sys; print(sorted(os.environ), sys.stdin.read() == '', os.getsid(0) == os.getpid(), os.getcwd(),"
        "[n for n in os.listdir('/proc/self/fd') if int(n) > 2 and os.path.exists('/proc/self/fd/' + n)]); sys.exit(1)"
    )
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        outcome = hooks.Execution([sys.executable, "-I", "-c", code], environ, PATIENCE).run()
    assert outcome.output.decode() == f"{sorted(environ)} True True / []\n"


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("exit 0", 0, ""),
        ("exit 3", 3, "exit code 3"),
        ("kill -KILL $$", 137, "killed by signal 9"),
        ("exec >&- 2>&-; exit 4", 4, "exit code 4"),
    ],
)
def test_exit_code(script: str, code: int, reason: str) -> None:
    """The exit code is the program's own, or that of shells for one that was killed."""
    outcome = shell(script).run()
    assert (outcome.exit_code, outcome.reason) == (code, reason)


def test_not_startable(tmp_path: Path) -> None:
    """A program that is not there or cannot be executed has the exit code of shells, and the reason."""
    (tmp_path / "text").write_text("x")
    for name, code, reason in (("none", 127, "No such file"), ("text", 126, "Permission"), ("a\0b", 126, "null byte")):
        outcome = hooks.Execution([f"{tmp_path}/{name}"], {}, PATIENCE).run()
        assert outcome.exit_code == code
        assert outcome.reason.startswith("cannot be started: ")
        assert reason in outcome.reason


def test_long_output() -> None:
    """However much a program says, it is not held up, and the end of it is what is kept."""
    outcome = shell("i=0; while [ $i -lt 3000 ]; do printf '%0100d' $i; i=$((i+1)); done; echo the end; exit 1").run()
    assert outcome.exit_code == 1
    assert outcome.output.endswith(b"2999the end\n")
    assert len(outcome.output) == 1 << 16


# How it ends


def test_time_limit_ends_the_whole_group(tmp_path: Path) -> None:
    """At the time limit all is killed, also a child of a child that ignores SIGTERM and outlives its parent."""
    grandchild = program(tmp_path / "grandchild", f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 9; done")
    child = program(tmp_path / "child", f"{grandchild} & wait")
    began = time.monotonic()
    outcome = shell(f"{child} & wait", timeout=1).run()
    assert (outcome.exit_code, outcome.reason) == (124, "took longer than 1 s and was killed")
    assert time.monotonic() - began < 1 + hooks.GRACE + 2
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_time_limit_is_gentle_first(tmp_path: Path) -> None:
    """A program that heeds SIGTERM can tidy up, and is not waited for any longer than it takes."""
    began = time.monotonic()
    outcome = shell(f"trap 'echo tidy > {tmp_path}/done; kill $!; exit 0' TERM; sleep 1000 & wait", timeout=0.5).run()
    assert outcome.exit_code == 124
    assert (tmp_path / "done").read_text() == "tidy\n"
    assert time.monotonic() - began < 0.5 + hooks.GRACE


@pytest.mark.parametrize("redirected", ["", ">/dev/null 2>&1"])
def test_what_is_left_behind_is_ended(tmp_path: Path, redirected: str) -> None:
    """A program that leaves something running has ended; what it left is killed and holds nobody up."""
    began = time.monotonic()
    outcome = shell(f"sleep 1000 {redirected} & echo $! > {tmp_path}/pid").run()
    assert outcome.exit_code == 0
    assert time.monotonic() - began < hooks.GRACE
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_abort(tmp_path: Path) -> None:
    """From another thread a run is ended at once with its whole group, whatever it does with signals."""
    ready = fifo(tmp_path / "fifo")
    child = program(tmp_path / "child", f"trap '' TERM; echo $$ > {ready}; sleep 1000")
    execution = shell(f"trap '' TERM; {child}; sleep 1000")
    thread = threading.Thread(target=execution.run)
    thread.start()
    pid = int(ready.read_text())
    began = time.monotonic()
    execution.abort()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert time.monotonic() - began < 0.5
    assert is_gone(pid)
    execution.abort()


def test_abort_before_it_began(tmp_path: Path) -> None:
    """A run that was aborted before it began never begins."""
    execution = shell(f"touch {tmp_path}/began")
    execution.abort()
    assert execution.run().exit_code
    assert not (tmp_path / "began").exists()


INIT = """
import ctypes, os, signal, sys
sys.path.insert(0, sys.argv[1])
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become our children, as those of init do
from agent import hooks
hooks.inherit_nothing()
leave_two_behind = ["/bin/sh", "-c", "sleep 1000 & (sleep 1000 &); exit 5"]
print(hooks.Execution(leave_two_behind, {"PATH": sys.argv[2]}, 10).run().exit_code)
try:
    print(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("no children")
"""


def test_no_zombies(pytestconfig: pytest.Config) -> None:
    """Where the agent is init, and whoever started it ignored SIGCHLD, orphans are reaped and exit codes are known."""
    argv = [sys.executable, "-c", INIT, str(pytestconfig.rootpath), hooks.SEARCH_PATH]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr) == ("5\nno children\n", "")


# Signals


def test_signal(tmp_path: Path) -> None:
    """The process named in the first line of a pid file gets the signal."""
    ready = fifo(tmp_path / "fifo")
    script = f"trap 'exit 7' USR1; sleep 1000 & echo > {ready}; wait"
    with subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True) as process:
        ready.read_text()
        (tmp_path / "pid").write_text(f"{process.pid}\n/var/lib/somewhere\n")
        assert pidfile.send_signal(tmp_path / "pid", "USR1") == Outcome(0)
        assert process.wait(PATIENCE) == 7
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    outcome = pidfile.send_signal(tmp_path / "pid", "USR1")
    assert (outcome.exit_code, outcome.reason) == (1, f"{tmp_path}/pid: there is no process {process.pid}")


@pytest.mark.parametrize("content", ["", "x", "0", "1", "-1", "+5", "1e3", "12 34", "9" * 30, "٣", "ourselves"])
def test_what_is_no_pid(tmp_path: Path, content: str) -> None:
    """Whatever is not the plain number of another process is refused, and named: nobody gets a signal."""
    (tmp_path / "pid").write_text(content.replace("ourselves", str(os.getpid())))
    outcome = pidfile.send_signal(tmp_path / "pid", "CONT")
    assert outcome.exit_code == 1
    assert outcome.reason.startswith(f"{tmp_path}/pid: ")


def test_no_pid_file(tmp_path: Path) -> None:
    """A pid file that is not there, or no file, is named."""
    assert "No such file" in pidfile.send_signal(tmp_path / "pid", "HUP").reason
    assert "directory" in pidfile.send_signal(tmp_path, "HUP").reason


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may signal everybody")
def test_pid_file_of_somebody_else(tmp_path: Path) -> None:
    """A user who may write a pid file cannot have root signal processes that are not theirs."""
    with subprocess.Popen(["/bin/sleep", "1000"], user=12345) as process:
        (tmp_path / "pid").write_text(str(process.pid))
        os.chown(tmp_path / "pid", 54321, 54321)
        assert "another user's" in pidfile.send_signal(tmp_path / "pid", "KILL").reason
        assert process.poll() is None
        os.chown(tmp_path / "pid", 12345, 12345)
        assert pidfile.send_signal(tmp_path / "pid", "KILL") == Outcome(0)
        assert process.wait(PATIENCE) == -signal.SIGKILL


# What is decided


def test_units_are_reloaded_by_one_command(tmp_path: Path) -> None:
    """All units of a profile go to systemctl together, which is found on the fixed path and asks for no password."""
    systemctl = program(tmp_path / "systemctl", "")
    argv = hooks.reload_command(["a.service", "b.service"], f"{tmp_path}:{hooks.SEARCH_PATH}")
    assert argv == [str(systemctl), "--no-ask-password", "reload-or-try-restart", "a.service", "b.service"]
    assert stat.S_IMODE(systemctl.stat().st_mode) == 0o755
    assert hooks.reload_command(["a.service"], "/nowhere")[0] == "/usr/bin/systemctl"


def test_systemctl_speaks_for_itself() -> None:
    """What it says last is in the error; a refusal names the way out; a job that takes long is not ordered again."""
    said = b"x\nFailed to reload x.service: Access denied\nSee system logs and 'systemctl status x' for details.\n"
    refused = hookplan.reloaded(Outcome(1, "exit code 1", output=said))
    assert refused.reason == "exit code 1: Failed to reload x.service: Access denied"
    assert ".path" in refused.hint
    assert refused.again
    assert not hookplan.reloaded(Outcome(124, "took longer than 30 s and was killed")).again
    assert hookplan.reloaded(Outcome(0)) == Outcome(0)


def test_status_names_every_failure() -> None:
    """The exit code is the first one that is not zero, and the error names each step that failed."""
    outcomes: dict[hookplan.Kind, Outcome] = {
        "reload_unit": Outcome(0), "signal": Outcome(1, "no"), "command": Outcome(3, "exit code 3"),
    }  # fmt: skip
    shown = hookplan.summary(NOW, outcomes)
    assert (shown.ran_at, shown.exit_code, shown.error) == (NOW, 1, "signal: no; command: exit code 3")
    good = hookplan.summary(NOW, {"command": Outcome(0)})
    assert (good.exit_code, good.error) == (0, None)


def test_backoff_grows_to_a_bound() -> None:
    """Retries become rarer up to five minutes, and never come closer than min_interval."""
    hook = OnRefresh.model_validate({"command": ["/x"]})
    assert [hookplan.backoff(hook, n).total_seconds() for n in (1, 2, 3, 5, 6, 7, 10**6)] == [
        10, 20, 40, 160, 300, 300, 300,
    ]  # fmt: skip
    patient = OnRefresh.model_validate({"command": ["/x"], "min_interval": "1h"})
    assert hookplan.backoff(patient, 1) == timedelta(hours=1)


def test_output_is_shown_without_secrets() -> None:
    """The end of a program's output is shown, the token withheld also where it does not look like one."""
    output = b"x" * 2000 + f" got {SECRET} and password=hunter2hunter2 \xff the end\n".encode("latin-1")
    text = hookplan.said([Outcome(1, output=output), Outcome(0)], TOKEN)
    assert len(text) == 1000
    assert text.endswith("the end")
    assert "[withheld]" in text
    assert SECRET not in text
    assert "hunter2" not in text


DRESSES = {
    "base64": 'base64 -w0 "$1"',
    "base64 in lines": 'base64 "$1"',
    "base64 of more": '{ printf "token:"; cat "$1"; } | base64 -w0',
    "base64 in an odd place": '{ printf "x:"; cat "$1"; } | base64 | sed "s/^/  > /"',
    "base64url": 'base64 -w0 "$1" | tr +/ -_',
    "base64 twice": 'base64 -w0 "$1" | base64',
    "compressed": 'gzip -c "$1" | base64',
    "a Secret": 'printf "kind: Secret\ndata:\n  token: "; base64 -w0 "$1"',
    "hexadecimal": 'od -An -tx1 "$1"',
    "hexadecimal, other lines": 'od -An -v -w7 -tx1 "$1" | tr a-f A-F',
    "words": 'od -v -tx2 "$1"',
    "octal": 'od -v "$1"',
    "decimal": 'od -An -v -tu1 "$1"',
    "characters": 'od -v -c "$1"',
    "backwards": 'rev "$1"',
    "spaced": 'sed "s/./& /g" "$1"',
    "folded": 'fold -w 9 "$1"',
    "capitals": 'tr a-z A-Z < "$1"',
}


@pytest.mark.parametrize("script", DRESSES.values(), ids=DRESSES.keys())
def test_output_is_shown_without_secrets_in_other_dress(tmp_path: Path, script: str) -> None:
    """However a program writes the token down, it is withheld, but for an end too short to be of use."""
    secret = jwt.encode({"sub": "canary", "roles": ["a.b.c", "Directory.Read.All"], "exp": 2**31}, "k" * 40)
    path = tmp_path / "token"
    path.write_text(secret)
    outcome = shell(f"echo begin; {script}; echo; echo end; exit 1", str(path)).run()
    shown, *lines = hookplan.said([outcome], replace(TOKEN, secret=secret)).split("\n")
    assert (shown, lines.pop()) == ("begin", "end")
    assert "[withheld]" in lines
    left = [re.sub(r"^[0-7]{7}", "", line) for line in lines if line not in ("[withheld]", "kind: Secret", "data:")]
    assert len("".join(left)) <= 20


def test_ordinary_output_stays_as_it_is() -> None:
    """Paths, units, digests, commits, identifiers and numbers are no secrets."""
    said = """nginx: [emerg] cannot load certificate "/etc/nginx/certificates/internal-gateway.example.pem": BIO_new()
Job for nginx-internal-gateway.service failed; see "systemctl status nginx-internal-gateway.service"
sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 of 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b
secret/app-token configured in 550e8400-e29b-41d4-a716-446655440000 at 2026-03-01T12:00:00.123456Z
10 20 30 40 50 60 70 80 90 100 110 120 /usr/lib/x86_64-linux-gnu/libsomething.so.6.0.30: undefined symbol
  File "/opt/app/lib/python3.11/site-packages/some_package/module.py", line 12, in ApplicationConfigurationLoader"""
    token = replace(TOKEN, secret=jwt.encode({"sub": "canary", "exp": 2**31}, "k" * 40))
    assert hookplan.said([Outcome(1, output=said.encode())], token) == said
