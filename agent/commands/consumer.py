"""What the commands of a token's consumers share: is there a token, how long is it good, which one lies in the file.

They need ``status.json``, which everybody may read, and the token files; neither the configuration nor the agent.
"""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from agent import files, lock, status, words
from agent.commands import asking, common, reality
from agent.config.values import parse_duration
from agent.errors import ConfigurationError, OutputError, TransientError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agent.commands.common import F
    from agent.status import ProfileStatus

MIN_VALID = timedelta(minutes=5)
"""What is asked for by default; of tokens that live less than ten minutes, half of their life."""
RESOLUTION = timedelta(seconds=1)
"""Of the times that are known: a token of two seconds may look like one of three."""
INTERVAL = 0.2
"""Seconds between two looks."""


def duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> timedelta | None:
    """Take a duration as the configuration does; plain digits are seconds."""
    if value is None:
        return None
    try:
        return parse_duration(float(value) if value.isascii() and value.replace(".", "", 1).isdigit() else value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def min_valid_option(function: F) -> F:
    """Add ``--min-valid`` to a command; it arrives as ``min_valid: timedelta | None``."""
    text = "How long the token has to be good still (default: 5m; half the life of tokens that live less than 10m)."
    return click.option("--min-valid", callback=duration, metavar="DURATION", help=text)(function)


def timeout_option(function: F) -> F:
    """Add ``--timeout`` to a command."""
    text = "Wait for a valid token no longer than this."
    return click.option(
        "--timeout", callback=duration, metavar="DURATION", default="60s", show_default=True, help=text
    )(function)


def needed(profile: ProfileStatus, asked: timedelta | None) -> timedelta:
    """Return how long a profile's token has to be good; without a wish, never more than its lifetime allows."""
    if asked is not None:
        return asked
    if profile.expires_at is None or profile.acquired_at is None:
        return MIN_VALID
    lifetime = profile.expires_at - profile.acquired_at - RESOLUTION
    return min(MIN_VALID, max(lifetime, timedelta(0)) / 2)


class Knowledge:
    """What the agent of a runtime directory has left for everybody to know, read again when it changes.

    ``config`` is where its configuration is, as the command line says it.
    """

    def __init__(self, directory: Path, config: Path | None) -> None:
        self.directory, self.config = directory, config
        self.problem = ""
        self._path = directory / "status.json"
        self._version: tuple[int, ...] = ()
        self._writer: int | None = None
        self._profiles: dict[str, ProfileStatus] = {}

    def profiles(self) -> dict[str, ProfileStatus]:
        """Return what is known by now; if nothing is, ``problem`` says why.

        Raises:
            OutputError: it may not be read.
        """
        self.problem = ""
        try:
            found = self._path.stat()
            version = (found.st_ino, found.st_mtime_ns, found.st_size)
            if version != self._version:
                self._read()
                self._version = version
        except (FileNotFoundError, NotADirectoryError, ValueError):
            self._profiles, self._version = {}, ()
            self.problem = "no agent has run here yet"
        except OSError as error:
            hint = "whoever waits for tokens has to be able to enter runtime_dir; usually it is 0755"
            hint = hint if isinstance(error, PermissionError) else ""
            raise OutputError(self._path, error.strerror or "cannot be read", hint=hint) from None
        if self._is_outdated():
            self.problem = "the agent is starting"
        return {} if self.problem else self._profiles

    @functools.cached_property
    def configured(self) -> tuple[str, ...]:
        """The names of all profiles in the configuration; none if it cannot be read, or is wrong."""
        try:
            return tuple(profile.name for profile in common.read_config(self.config).profiles)
        except ConfigurationError:
            return ()

    def reject_unknown(self, names: Sequence[str]) -> None:
        """End the command for a name that no profile has: by the configuration, or else by a running agent.

        Raises:
            click.UsageError: which, and what they are called.
        """
        known = self.profiles()
        absent = [name for name in names if name not in known]
        if not absent:
            return
        if not self.configured and lock.holder(self.directory) is None:
            return  # who knows what an agent will be started with
        every = tuple(dict.fromkeys((*self.configured, *known)))
        if every and (strange := [name for name in absent if name not in every]):
            raise asking.unknown(strange, every)

    def _read(self) -> None:
        agent, profiles = status.parse(files.read_bytes(self._path, limit=status.LARGEST))
        self._writer, self._profiles = agent.pid, {profile.name: profile for profile in profiles}

    def _is_outdated(self) -> bool:
        """Whether an earlier agent wrote it."""
        pid = lock.holder(self.directory)
        return pid is not None and self._writer is not None and not lock.is_by(self.directory, pid, self._writer)


def lacking(profile: ProfileStatus, asked: timedelta | None, now: datetime) -> str:
    """Return what is missing for a profile's token files to serve; empty if they do."""
    if profile.expires_at is None or not profile.token_files:
        return "no token yet"
    left = profile.expires_at - now
    if left <= timedelta(0):
        return f"expired {words.relative(left)}"
    if left < needed(profile, asked):
        return f"good for {words.duration(left)} only, and {words.duration(needed(profile, asked))} are asked for"
    # Without any grace: of a token that is newer than what is known of it, more is known in a moment.
    for path, wrong in reality.differences(profile, now, running=False):
        return f"{path}: {wrong}"
    unwritten = [file.path for file in profile.token_files if file.written_at is None]
    return f"the token is not in {', '.join(unwritten)}" if unwritten else ""


def wait(
    knowledge: Knowledge, names: Sequence[str], asked: timedelta | None, timeout: timedelta
) -> list[ProfileStatus]:
    """Return the profiles named, or all that are known, once their token files serve.

    Raises:
        click.UsageError: there is no such profile.
        TransientError: they do not in time.
        UnreachableError: the same, and no agent is running.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    waiting = False
    while True:
        known = knowledge.profiles()
        knowledge.reject_unknown(names)
        lacks = _lacks(knowledge, known, names, asked)
        if not lacks:
            break
        if (rest := deadline - time.monotonic()) <= 0:
            raise _late(knowledge, known, lacks, timeout)
        if not waiting:
            first = next(iter(lacks.items()))
            asking.say(common.printable(f"waiting for {': '.join(filter(None, first))}"))
            waiting = True
        time.sleep(min(INTERVAL, rest))
    return [known[name] for name in (dict.fromkeys(names) or known)]


def _lacks(
    knowledge: Knowledge, known: Mapping[str, ProfileStatus], names: Sequence[str], asked: timedelta | None
) -> dict[str, str]:
    """Return what each profile lacks, by name, without those that lack nothing."""
    if not known:
        return dict.fromkeys(names or ("a profile",), knowledge.problem or "the agent keeps none yet")
    now = datetime.now(UTC)
    absent = f"no such profile yet; known: {', '.join(known)}"
    lacks = {name: lacking(known[name], asked, now) if name in known else absent for name in names or known}
    return {name: lack for name, lack in lacks.items() if lack}


def _late(
    knowledge: Knowledge, known: Mapping[str, ProfileStatus], lacks: Mapping[str, str], timeout: timedelta
) -> TransientError | UnreachableError:
    """Return the error that names every profile that lacks something, its state, and its last error with the fix."""
    lines = [f"no valid token within {timeout.total_seconds():g} s:"]
    now = datetime.now(UTC)
    for name, lack in lacks.items():
        profile = known.get(name)
        state = status.state_of(profile, now, kept=True) if profile else ""
        lines.append(f"  {name}: {lack if not state or lack.startswith(state) else f'{state}, {lack}'}")
        if profile and (error := profile.last_error):
            lines.append(f"    {error.message}")
            lines += [f"    hint: {error.hint}"] if error.hint else []
    message = "\n".join(map(common.printable, lines))
    if lock.holder(knowledge.directory) is None:
        return UnreachableError(f"{message}\n  no agent is running{asking.doubt(knowledge.config)}", hint=asking.START)
    return TransientError(message)
