"""`token-agent exec` from outside: as if the command had been started itself, but with a token."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.process_helpers import PATIENCE, Scene, environment, run, scene, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.process_helpers import Running


@contextmanager
def with_token(directory: Path) -> Iterator[Scene]:
    """A provider, an app, a token on disk, and no agent."""
    with scene(directory) as made:
        assert run("once", "--config", made.config()).returncode == 0
        yield made


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One for all tests that leave the token as it is."""
    with with_token(tmp_path_factory.mktemp("exec")) as made:
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Scene]:
    """One for a test alone."""
    with with_token(tmp_path) as made:
        yield made


def at(stage: Scene) -> dict[str, str]:
    return {"TOKEN_AGENT_CONFIG": str(stage.directory / "config.toml")}


def execute(stage: Scene, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run something with the token, to its end."""
    return run("exec", "graph", *arguments, environ=at(stage), **more)


def python(code: str) -> tuple[str, ...]:
    """Return a command that runs Python code."""
    return "--", sys.executable, "-c", textwrap.dedent(code)


REPORT = """
import collections, os, signal, sys

counts = collections.Counter()

def heard(number, frame):
    name = signal.Signals(number).name
    counts[name] += 1
    os.write(1, f"{name} {counts[name]}\\n".encode())
    if number == signal.SIGTERM:
        os._exit(9)

for name in ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "CONT", "TSTP"):
    signal.signal(signal.Signals["SIG" + name], heard)
os.write(1, b"ready\\n")
while True:
    signal.pause()
"""


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("kill -INT $$", 130),
        ("kill -SEGV $$", 139),
        ("kill -PIPE $$", 141),
    ],
)
@pytest.mark.parametrize("more", [[], ["--restart-on-refresh"]], ids=str)
def test_exit_status(stage: Scene, script: str, code: int, more: list[str]) -> None:
    """The command's exit status is ours, or 128 and the number of the signal that killed it; and nothing is added."""
    done = execute(stage, *more, "--", "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_not_startable(stage: Scene) -> None:
    """A command that is not found exits 127, one that cannot be executed 126, as with a shell; each is named."""
    plain = stage.directory / "plain"
    plain.write_text("data")
    plain.chmod(0o600)
    done = execute(stage, "--", "/nonexistent/command")
    assert (done.returncode, done.stderr) == (127, "token-agent: /nonexistent/command: No such file or directory\n")
    assert execute(stage, "--", "no-such-command-anywhere").returncode == 127
    done = execute(stage, "--", str(plain))
    assert (done.returncode, done.stderr) == (126, f"token-agent: {plain}: Permission denied\n")
    assert execute(stage, "--", str(stage.directory)).returncode == 126


def test_environment_and_streams(stage: Scene) -> None:
    """The command finds the path of the token file, the token if asked for, its arguments and its standard input."""
    show = 'cat; echo "$1|$TOKEN_FILE|$TOKEN|$HOME"'
    rest = os.environ.get("HOME", "/")
    path = stage.directory / "run" / "graph.token"
    done = execute(stage, "--", "sh", "-c", show, "sh", "--help -x", stdin="in\n")
    assert done.stdout == f"in\n--help -x|{path}||{rest}\n"
    done = execute(stage, "--env", "TOKEN", "--", "sh", "-c", show, "sh", "")
    assert done.stdout == f"|{path}|{stage.token()}|{rest}\n"
    assert execute(stage, "--", "sh", "-c", 'cat "$TOKEN_FILE"').stdout == stage.token()


def test_never_on_a_command_line(stage: Scene) -> None:
    """Neither our command line nor the child's holds the token."""
    code = "import os; [print(open(f'/proc/{pid}/cmdline').read()) for pid in (os.getpid(), os.getppid())]"
    done = execute(stage, "--env", "TOKEN", *python(code))
    assert "exec" in done.stdout
    assert stage.token() not in done.stdout


@pytest.mark.parametrize("between", [[], ["--"]], ids=str)
@pytest.mark.parametrize("own", [[], ["--env", "T"], ["--env=T", "--timeout", "9s"]], ids=str)
def test_whose_options(stage: Scene, own: list[str], between: list[str]) -> None:
    """What follows the first word of the command is the command's, with `--` and without; ours stand before it."""
    show = 'echo "$T|$0|$@"; exit 3'
    line = ["sh", "-c", show, "--", "-c", "x", "--env", "--help", "--"]
    done = execute(stage, *own, *between, *line)
    told = stage.token() if own else ""
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{told}|--|-c x --env --help --\n", "")
    config = str(stage.directory / "config.toml")
    for ours in (["exec", *own, "-c", config, "graph"], ["exec", *own, f"-c{config}", "graph"]):
        assert run(*ours, *between, *line).stdout == done.stdout
    assert run("exec", *own, "-c", config, "--", "graph", *line).stdout == done.stdout


def test_the_variable_of_the_path(stage: Scene) -> None:
    """The token does not take the place of its path: that is wrong use, and the command is not started."""
    done = execute(stage, "--env", "TOKEN_FILE", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (2, "")
    assert "TOKEN_FILE holds the path of the token file" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["--"], ["--env", "1x", "--", "true"], ["--env", "", "--", "true"], ["--env", "A B", "--", "true"]],
    ids=str,
)
def test_wrong_use(stage: Scene, arguments: list[str]) -> None:
    """No command, or a variable that no shell would take, is wrong use."""
    assert execute(stage, *arguments).returncode == 2


def test_no_token(tmp_path: Path) -> None:
    """Without a valid token in time the command is not started; the exit code is that of `wait`."""
    with scene(tmp_path) as stage:
        stage.config()
        done = execute(stage, "--timeout", "0.1", "--", "echo", "started")
        assert (done.returncode, done.stdout) == (69, "")
        stage.provider.fault("error", count=None, code=700027)
        with start("run", "--config", stage.directory / "config.toml") as agent:
            agent.wait_for("acquisition.failed")
            done = execute(stage, "--timeout", "0.1", "--", "echo", "started")
        assert (done.returncode, done.stdout) == (75, "")
        assert "AADSTS700027" in done.stderr


def test_waits(tmp_path: Path) -> None:
    """The command is started as soon as there is a token."""
    with scene(tmp_path) as stage:
        config = stage.config()
        with start("exec", "graph", "--env", "T", "--", "sh", "-c", "echo started $T", environ=at(stage)) as waiting:
            waiting.wait_for_text("waiting for graph")
            assert run("once", "--config", config).returncode == 0
            assert waiting.wait() == 0
            assert waiting.stdout == f"started {stage.token()}\n"


def test_signals(stage: Scene) -> None:
    """Each signal that we are sent arrives at the command, once; and it is the command that decides what it means."""
    names = ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT", "SIGTSTP", "SIGQUIT")
    with start("exec", "graph", *python(REPORT), environ=at(stage)) as running:
        running.wait_for_text("ready\n")
        expected = ["ready"]
        for count in (1, 2):
            for name in names:
                running.send(signal.Signals[name])
                running.wait_for_text(f"{name} {count}\n")
                expected.append(f"{name} {count}")
        assert running.stop() == 9
        assert running.stdout.splitlines() == [*expected, "SIGTERM 1"]


def test_ignored_signals(stage: Scene) -> None:
    """What was ignored stays ignored (nohup), what Python ignores is not; the signal mask is as it was."""
    show = ["sh", "-c", 'trap "" HUP USR1; exec "$@"', "sh", sys.executable, "-m", "agent", "exec", "graph"]
    done = subprocess.run(
        [*show, "--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"],
        env=environment(**at(stage)),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    blocked, ignored = (int(line.split()[1], 16) for line in done.stdout.splitlines())
    assert blocked == 0
    ignored &= (1 << 31) - 1  # posix_spawn of the C library also ignores its own two signals, 32 and 33
    assert ignored == 1 << (signal.SIGHUP - 1) | 1 << (signal.SIGUSR1 - 1)


def test_same_group(stage: Scene) -> None:
    """The command is our child, in our process group and session: a shell's job is one job."""
    code = """
    import os
    print(os.getppid(), *(of(0) == of(os.getppid()) for of in (os.getpgid, os.getsid)))
    """
    with start("exec", "graph", *python(code), environ=at(stage)) as running:
        assert running.wait() == 0
        assert running.stdout.split() == [str(running.pid), "True", "True"]


def test_grandchildren(stage: Scene) -> None:
    """What the command leaves running is its own business: we end with the command, and it goes on."""
    done = execute(stage, "--", "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!; exit 3")
    assert done.returncode == 3
    left = int(done.stdout)
    os.kill(left, 0)
    os.kill(left, signal.SIGKILL)


SHELL = """
import fcntl, os, signal, sys, termios

signal.signal(signal.SIGTTOU, signal.SIG_IGN)
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-m", "agent", *sys.argv[1:]])
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        break
    print("JOB STOPPED", flush=True)
    os.killpg(job, signal.SIGCONT)
    print("JOB CONTINUED", flush=True)
print("JOB ENDED", os.waitstatus_to_exitcode(status), flush=True)
"""
TYPED = """
import os, signal, sys

def say(text):
    os.write(1, f"{text}\\n".encode())

signal.signal(signal.SIGINT, lambda *_: say("SIGINT"))
say("ready")
for line in sys.stdin:
    say(f"read {line.strip()}")
    if line.strip() == "end":
        sys.exit(5)
"""


class Terminal:
    """A terminal with a shell of our own on it, which runs one job."""

    def __init__(self, stage: Scene, *arguments: str) -> None:
        self._ours, its = pty.openpty()
        command = [sys.executable, "-c", SHELL, *arguments]
        self._shell = subprocess.Popen(command, env=environment(**at(stage)), stdin=its, stdout=its, stderr=its)
        os.close(its)
        self._ahead = ""
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ours)  # whoever is left there is hung up
        self._shell.kill()
        self._shell.wait(PATIENCE)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def expect(self, text: str) -> None:
        """Read until a text has come."""
        while text not in self._ahead:
            ready, _, _ = select.select([self._ours], [], [], PATIENCE)
            assert ready, f"no {text!r} in {self._ahead!r}"
            self._ahead += os.read(self._ours, 4096).decode()
        self.seen += self._ahead.partition(text)[0] + text
        self._ahead = self._ahead.partition(text)[2]


@pytest.mark.parametrize("more", [[], ["--restart-on-refresh"]], ids=str)
def test_terminal(stage: Scene, more: list[str]) -> None:
    """On a terminal the command reads what is typed, gets Ctrl-C once, and Ctrl-Z stops the whole job."""
    with Terminal(stage, "exec", "graph", *more, *python(TYPED)) as terminal:
        terminal.expect("ready")
        for _ in range(3):
            terminal.type("\x03")
            terminal.expect("SIGINT")
            terminal.type("hello\n")
            terminal.expect("read hello")
            terminal.type("\x1a")
            terminal.expect("JOB STOPPED")
            terminal.expect("JOB CONTINUED")
        terminal.type("end\n")
        terminal.expect("JOB ENDED 5")
        assert terminal.seen.count("SIGINT") == 3


def test_dies_of_a_key(stage: Scene) -> None:
    """A command that Ctrl-C kills makes us exit 130, as if it had been killed alone."""
    with Terminal(stage, "exec", "graph", "--", "sh", "-c", "echo ready; exec sleep 60") as terminal:
        terminal.expect("ready")
        terminal.type("\x03")
        terminal.expect("JOB ENDED 130")


@pytest.fixture
def agent(own: Scene) -> Iterator[Running]:
    """A running agent with its token."""
    with start("run", "--config", own.directory / "config.toml") as running:
        running.wait_for("agent.started")
        yield running


WORKER = (
    "--",
    "sh",
    "-c",
    'trap "echo ended; exit 0" TERM; echo "got $T|$(cat "$TOKEN_FILE")|"; while :; do sleep 0.02; done',
)


def refresh(own: Scene) -> str:
    """Let the agent get a new token, and return it."""
    assert run("refresh", "graph", environ=at(own)).returncode == 0
    return own.token()


def test_restart(own: Scene, agent: Running) -> None:
    """With each new token the command is ended and started anew with it; a touch of the file alone does nothing."""
    with start("exec", "graph", "--env", "T", "--restart-on-refresh", *WORKER, environ=at(own)) as running:
        expected = []
        for number in range(3):
            token = refresh(own) if number else own.token()
            running.wait_for_text(f"got {token}|{token}|")
            (own.directory / "run" / "graph.token").touch()
            expected += [f"got {token}|{token}|", "ended"]
        assert running.stop() == 0
        assert running.stdout.splitlines() == expected


def test_newest_token(own: Scene, agent: Running) -> None:
    """A command that takes its time to end is started anew once, with the token of that moment."""
    slow = WORKER[-1].replace("exit 0", f"while [ ! -e {own.directory}/go ]; do sleep 0.02; done; exit 0")
    with start("exec", "graph", "--env", "T", "--restart-on-refresh", *WORKER[:-1], slow, environ=at(own)) as running:
        running.wait_for_text(f"got {own.token()}")
        refresh(own)
        running.wait_for_text("ended")
        newest = refresh(own)
        (own.directory / "go").touch()
        running.wait_for_text(f"got {newest}|{newest}|")
        assert running.stop() == 0
        assert running.stdout.count("got ") == 2


def test_no_restart(own: Scene, agent: Running) -> None:
    """Without --restart-on-refresh a new token does not concern the command."""
    with start("exec", "graph", "--env", "T", *WORKER, environ=at(own)) as running:
        first = own.token()
        running.wait_for_text(f"got {first}")
        refresh(own)
        assert running.stop() == 0
        assert running.stdout.splitlines() == [f"got {first}|{first}|", "ended"]


def test_own_end(own: Scene, agent: Running) -> None:
    """A command that ends by itself is not started again, token or not."""
    done = execute(own, "--restart-on-refresh", "--", "sh", "-c", "exit 4")
    assert done.returncode == 4


def test_file_goes(own: Scene) -> None:
    """A token file that goes away, or holds no token, is no new token."""
    path = own.directory / "run" / "graph.token"
    with start("exec", "graph", "--env", "T", "--restart-on-refresh", *WORKER, environ=at(own)) as running:
        token = own.token()
        running.wait_for_text("got ")
        path.unlink()
        path.with_name("new").write_text("not a token")
        path.with_name("new").replace(path)
        path.write_text(f"{token}new")
        running.wait_for_text(f"got {token}new|")
        running.stop()
        assert running.stdout.count("got ") == 2


SUPERVISE = """
import os, sys, threading
from agent import child

changed = iter([True, False, False])
told = threading.Event()

def outdated():
    return next(changed, False)

runs = iter(["1", "2", "3"])
print("EXIT", child.supervise(sys.argv[1:], lambda: {**os.environ, "RUN": next(runs)}, outdated, 0.3), flush=True)
"""


def test_stubborn(tmp_path: Path) -> None:
    """A command that does not end at SIGTERM is killed after the grace, and the new one started."""
    script = 'echo "run $RUN"; [ "$RUN" = 2 ] && exit 6; trap "" TERM; while :; do sleep 0.02; done'
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISE, "sh", "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stdout.splitlines() == ["run 1", "run 2", "EXIT 6"]


def test_stop_during_restart(tmp_path: Path) -> None:
    """A command that we are asked to end while it is being replaced is not started again."""
    script = 'trap "echo term; sleep 0.2" TERM; echo "run $RUN"; while [ ! -e end ]; do sleep 0.02; done; exit 8'
    code = SUPERVISE.replace("0.3", "30")
    with subprocess.Popen(
        [sys.executable, "-c", code, "sh", "-c", script],
        env=environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "run 1\n"
        assert process.stdout.readline() == "term\n"  # it is being replaced
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "term\n"
        (tmp_path / "end").touch()
        assert process.stdout.readline() == "EXIT 8\n"


@pytest.mark.parametrize("trap", ["exit 0", ""], ids=["gentle", "stubborn"])
def test_what_a_replaced_command_left_is_ended(tmp_path: Path, trap: str) -> None:
    """All that a command started ends before it is started anew, told or killed; what it leaves at its end stays."""
    # The helper and its helper; the command itself goes on, or ends by itself the second time, once both are there.
    script = f"""
        exec >/dev/null
        (trap "{trap}" TERM; (trap "{trap}" TERM; touch $RUN-deep; while :; do sleep 0.02; done) &
         touch $RUN-up; while :; do sleep 0.02; done) &
        while [ ! -e $RUN-deep -o ! -e $RUN-up ]; do sleep 0.02; done
        [ "$RUN" = 2 ] && exit 6
        touch ready; wait"""
    code = SUPERVISE.replace("return next(changed, False)", "return os.path.exists('ready') and next(changed, False)")
    done = subprocess.run(
        [sys.executable, "-c", code, "sh", "-c", script],
        env=environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stdout.splitlines() == ["EXIT 6"]
    alive = [path for path in Path("/proc").glob("[1-9]*") if _works_in(path, tmp_path)]
    try:
        runs = {_environ(path).partition(b"RUN=")[2][:1] for path in alive}
        assert runs - {b""} == {b"2"}  # in the midst of execve(2) it has none
    finally:
        for path in alive:
            with suppress(ProcessLookupError):
                os.kill(int(path.name), signal.SIGKILL)


def _environ(process: Path) -> bytes:
    """Return the environment of a process, nothing of one that has just ended."""
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def _works_in(process: Path, directory: Path) -> bool:
    """Tell whether a process is one of a test's, by its working directory."""
    try:
        return (process / "cwd").readlink() == directory
    except OSError:
        return False
