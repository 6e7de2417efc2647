"""What the commands share that talk to the running agent: where it is, how to ask it, how to say what went wrong."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from agent import control, files, lock, status
from agent.commands import common
from agent.errors import TransientError, UnreachableError
from agent.peek import peek_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agent.control import Answer

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
    """Return the runtime directory, also where the configuration may not be read.

    The services that read tokens have a $RUNTIME_DIRECTORY of their own, in which no agent is.
    """
    path = common.config_path(config, os.environ)
    rest = {name: value for name, value in os.environ.items() if name != "RUNTIME_DIRECTORY"}
    first, second = (peek_settings(path, environ, files.read_bytes).runtime_dir for environ in (os.environ, rest))
    return second if not _inhabited(first) and _inhabited(second) else first


def _inhabited(directory: Path) -> bool:
    """Tell whether an agent is or was there."""
    return os.path.lexists(directory / lock.NAME)


def doubt(config: Path | None) -> str:
    """Return why the agent may be elsewhere than in `directory`; empty if it cannot."""
    problem = peek_settings(common.config_path(config, os.environ), os.environ, files.read_bytes).problem
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
            message = f"no agent is running ({error.message}){doubt(config)}"
            raise UnreachableError(message, hint=error.hint or START) from None
        if control.is_late(error):
            raise TransientError(f"process {pid} is the agent here, but {error.message}", hint=LATE) from None
        hint = error.hint or "a `token-agent once` takes no requests; a running agent says in its log why it does not"
        raise UnreachableError(f"process {pid} is the agent here, but {error.message}", hint=hint) from None


START = "start it: systemctl start token-agent, or token-agent run"
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
