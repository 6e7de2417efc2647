"""What the commands share that talk to the running agent: where it is, how to ask it, how to say what went wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent import control, files, lock, status
from agent.commands import common
from agent.config.claims import normal
from agent.config.values import default_directories
from agent.errors import ConfigurationError, Problem, TransientError, UnreachableError
from agent.peek import peek_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agent.control import Answer
    from agent.peek import Peek

EXIT_CODES = (2, 69, 75, 77, 78)
"""Of requests that are refused."""
ERROR_KEYS = ("kind", "message", "hint", "code")
_TIMES = ("acquired_at", "expires_at")
EXIT_BY_KIND = {"configuration": 78, "output": 78, "rejected": 77, "transient": 75}
PATIENCE = 300.0
"""Seconds for an answer about tokens: the agent acquires them, of several profiles one after the other if need be."""
SHORT_PATIENCE = 90.0
"""Seconds for an answer about the configuration, for which no provider is asked; systemd gives ExecReload= as many."""


def directory(config: Path | None) -> Path:
    """Return the runtime directory of a configuration's agent; see `settings`."""
    return settings(common.config_path(config, os.environ)).runtime_dir


def settings(path: Path) -> Peek:
    """Return the directories of a configuration's agent, also where the configuration may not be read.

    A file that was named, and does not tell, means no agent but the one that says it was started with it: another one's
    tokens would be printed or refreshed.

    Raises:
        ConfigurationError: why it does not tell.
    """
    found = guess(path)
    if _inhabited(found.runtime_dir) and (not found.problem or path == common.DEFAULT_CONFIG):
        return found
    if own := _started_with(path, running=not found.problem):
        return dataclasses.replace(found, runtime_dir=own)
    if found.problem and path != common.DEFAULT_CONFIG:
        _refuse(path)
    return found


def guess(path: Path) -> Peek:
    """Return the directories that a configuration names, or else the default ones.

    The services that read tokens have a $RUNTIME_DIRECTORY of their own, in which no agent is.
    """
    first, second = (peek_settings(path, environ, files.read_bytes) for environ in _environments())
    return second if not _inhabited(first.runtime_dir) and _inhabited(second.runtime_dir) else first


def _environments() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return our own environment, and the same without a runtime directory."""
    return os.environ, {name: value for name, value in os.environ.items() if name != "RUNTIME_DIRECTORY"}


def _inhabited(directory: Path) -> bool:
    """Tell whether an agent is or was there."""
    return os.path.lexists(directory / lock.NAME)


def _started_with(path: Path, *, running: bool) -> Path | None:
    """Return which of the default directories has an agent, running or not, that was started with a configuration."""
    for directory in dict.fromkeys(default_directories(environ)[0] for environ in _environments()):
        with contextlib.suppress(OSError, ValueError):
            agent, _ = status.parse(files.read_bytes(directory / "status.json", limit=status.LARGEST))
            if normal(Path(agent.config_path)) == normal(path) and not (running and lock.holder(directory) is None):
                return directory
    return None


def _refuse(path: Path) -> None:
    """Raise why a configuration does not tell where its agent is."""
    if files.is_hidden(path):
        reason = "no permission to read it, and without it nobody knows which agent is meant"
        hint = f"ask as a user who may read it, or leave out -c to ask the agent of {common.DEFAULT_CONFIG}"
        raise ConfigurationError([Problem(path, None, "", reason, hint)])
    common.read_config(path)


def refuse_unusable(config: Path | None) -> None:
    """Raise what is wrong with the configuration on disk, for that is why no agent is found, or can be started.

    What this user may not read decides nothing, nor does it that nothing was installed: the agent may be elsewhere.

    Raises:
        ConfigurationError: with everything that is wrong.
    """
    from agent.config.load import load_config
    from agent.doctor.surroundings import before_the_start

    path = common.config_path(config, os.environ)
    if path == common.DEFAULT_CONFIG and not os.path.lexists(path):
        return
    hidden: list[PermissionError] = []

    @contextlib.contextmanager
    def noting() -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            hidden.append(error)
            raise

    read, expand = noting()(files.read_bytes), noting()(files.expand)
    try:
        load_config(path, before_the_start({"LoadState": "loaded"}, os.environ), read, expand)
    except ConfigurationError:
        if not hidden:
            raise


@contextlib.contextmanager
def blaming(config: Path | None) -> Iterator[None]:
    """Where no agent is running, say what is wrong with the configuration instead, if anything is."""
    try:
        yield
    except UnreachableError:
        refuse_unusable(config)
        raise


def doubt(config: Path | None) -> str:
    """Return why the agent may be elsewhere than in `directory`; empty if it cannot."""
    problem = guess(common.config_path(config, os.environ)).problem
    return f"; {problem}, so the default runtime directory was looked at" if problem else ""


def ask(directory: Path, request: Mapping[str, Any], config: Path | None, *, patience: float = PATIENCE) -> Answer:
    """Ask the agent of a runtime directory.

    Args:
        directory: where it is.
        request: to be answered.
        config: which configuration said so.
        patience: seconds to wait for the answer.

    Raises:
        UnreachableError: there is none, or it takes no requests.
        ConfigurationError: there is none, and the configuration cannot be used.
        TransientError: it does not answer in time, or not before somebody lets it go on.
    """

    def look() -> None:
        if (pid := lock.holder(directory)) and lock.is_stopped(pid):
            raise TransientError(STOPPED.format(pid=pid), hint=GO_ON.format(pid=pid))

    look()
    try:
        return control.ask(directory, request, patience, look)
    except UnreachableError as error:
        pid = lock.holder(directory)
        if pid is None:
            refuse_unusable(config)
            message = f"no agent is running that keeps {directory} ({error.message}){doubt(config)}"
            hint = error.hint or (START if _inhabited(directory) else f"{START}; {MOVED}")
            raise UnreachableError(message, hint=hint) from None
        if control.is_late(error):
            raise TransientError(f"process {pid} is the agent here, but {error.message}", hint=LATE) from None
        hint = error.hint or "a `token-agent once` takes no requests; a running agent says in its log why it does not"
        raise UnreachableError(f"process {pid} is the agent here, but {error.message}", hint=hint) from None


START = "start it: systemctl start token-agent, or token-agent run"
MOVED = "one that runs keeps the runtime_dir that it was started with until it is restarted"
STOPPED = "process {pid} is the agent here, and was stopped by a signal: it does nothing"
GO_ON = "let it go on: kill -CONT {pid}; or systemctl restart token-agent"
LATE = "try again; if its log stays silent as well: systemctl restart token-agent"


def say(message: str, hint: str = "") -> None:
    """Print a message to standard error."""
    click.echo(f"token-agent: {message}", err=True)
    if hint:
        click.echo(f"  hint: {hint}", err=True)


def failed(message: str, exit_code: int, hint: str = "") -> click.exceptions.Exit:
    """Print what is wrong, and return what ends the command when it is raised."""
    say(common.printable(message), common.printable(hint))
    return click.exceptions.Exit(exit_code)


def accept(answer: Answer) -> Answer:
    """Return an answer, or end the command if it is a refusal."""
    if answer["ok"]:
        return answer
    if "unknown" in answer:
        raise unknown(_texts(answer["unknown"]), _texts(answer.get("known")))
    problems = _texts(answer.get("problems"))
    for problem in problems:
        say(common.printable(problem))
    code = answer.get("exit_code")
    exit_code = code if isinstance(code, int) and code in EXIT_CODES else 69
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        raise failed(f"refused: the configuration has {count}; what is running stays as it is", exit_code)
    message, hint = (text if isinstance(text := answer.get(key), str) else "" for key in ("message", "hint"))
    raise failed(message or "refused without a reason", exit_code, hint)


def outcomes(answer: Answer, *names: str) -> dict[str, Answer]:
    """Return how profiles stand by an answer to `refresh`, those named among them.

    Raises:
        UnreachableError: the answer tells something else.
    """
    profiles = answer.get("profiles")
    if not isinstance(profiles, dict) or set(names) - profiles.keys() or not all(map(_is_outcome, profiles.values())):
        hint = "is it of another version than this command? restart it"
        raise UnreachableError("the running agent answered something else than was asked for", hint=hint)
    return profiles


def _is_outcome(value: Any) -> bool:
    """Tell whether a value is what an agent tells of a profile: text or nothing under each of the names."""
    if not isinstance(value, dict) or not _are_texts(value, *_TIMES, "token_sha256", "state") or "error" not in value:
        return False
    error = value["error"]
    if error is not None and not (isinstance(error, dict) and _are_texts(error, *ERROR_KEYS) and error["message"]):
        return False
    try:
        return all(status.parse_rfc3339(value[key]) or True for key in _TIMES)
    except ValueError:
        return False


def _are_texts(value: dict[Any, Any], *keys: str) -> bool:
    return all(key in value and (value[key] is None or isinstance(value[key], str)) for key in keys)


def _texts(value: object) -> list[str]:
    """Return the texts in a list; what others sent may be anything."""
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def unknown(names: Sequence[str], known: Sequence[str]) -> click.UsageError:
    """Return the error of names that no profile has."""
    named, all_known = (common.printable(", ".join(each)) for each in (names, known))
    return click.UsageError(f"no profile named {named}; known: {all_known or 'none'}")


def show_lines(answer: Answer) -> None:
    """Print the lines of an answer, and what deserves a look."""
    for line in _texts(answer.get("lines")):
        click.echo(common.printable(line))
    for warning in _texts(answer.get("warnings")):
        say(f"not used: {common.printable(warning)}")
