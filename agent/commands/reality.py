"""What `status` knows, held against what is there: the token files, and without an agent also the configuration."""

from __future__ import annotations

import dataclasses
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agent import files, formats, status, tokens
from agent.commands import common, held

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

    from agent.config.model import Profile
    from agent.state import Record
    from agent.status import ProfileStatus, TokenFileStatus

GRACE = timedelta(seconds=10)
"""A running agent writes its status a moment after a token, and puts an altered file right within this time."""
IMPRECISION = timedelta(minutes=1)
"""Clocks of file servers may be off by so much; beyond, a file that may not be read was changed afterwards."""
HINTS = {
    True: "the agent puts this right within 10 s; if it stays, its log says why",
    False: "`token-agent once`, or a running agent, writes it again",
}
"""What helps, by whether an agent is running."""
MISSING, ALTERED = "the token file is missing", "the token file was altered, and does not hold the token"


def compared(profile: ProfileStatus, now: datetime, *, running: bool) -> ProfileStatus:
    """Return a profile with what is wrong with its token files; a failure that is known already says more."""
    path, wrong = next(differences(profile, now, running=running), ("", ""))
    if not wrong:
        return profile
    error = status.LastError(now, "output", f"{path}: {wrong}", HINTS[running])
    return dataclasses.replace(profile, lost=True, last_error=profile.last_error or error)


def differences(profile: ProfileStatus, now: datetime, *, running: bool) -> Iterator[tuple[str, str]]:
    """Yield the token files that do not hold the token, as long as it is good, and whether they are there at all."""
    if profile.token_sha256 is None or profile.expires_at is None or profile.expires_at <= now:
        return
    for file in profile.token_files:
        try:
            found = Path(file.path).stat()
        except (FileNotFoundError, NotADirectoryError):
            yield file.path, MISSING
            continue
        except (OSError, ValueError):
            continue  # we may not look there, or it can be no path
        changed_at = datetime.fromtimestamp(found.st_mtime, UTC)
        if _is_altered(file, found, str(profile.token_sha256)) and not (
            (running and now - changed_at < GRACE) or _is_newer(profile, file, changed_at)
        ):
            yield file.path, ALTERED


def _is_newer(profile: ProfileStatus, file: TokenFileStatus, changed_at: datetime) -> bool:
    """Tell whether a file is as the agent wrote it, with a newer token that could not be written everywhere yet."""
    failing = profile.last_error is not None and profile.last_error.kind == "output"
    if not failing or file.written_at is None or profile.acquired_at is None:
        return False
    return profile.acquired_at < file.written_at and changed_at <= file.written_at + IMPRECISION


def _is_altered(file: TokenFileStatus, found: os.stat_result, token_sha256: str) -> bool:
    """Tell whether a file is not as it was written; one that cannot be looked into is judged by its times."""
    if not stat.S_ISREG(found.st_mode) or found.st_size == 0:
        return True
    try:
        content = files.read_bytes(Path(file.path))
    except OSError:
        content = b""
    if not content or file.format == "template":
        changed_at = datetime.fromtimestamp(found.st_mtime, UTC)
        return file.written_at is not None and changed_at > file.written_at + IMPRECISION
    # Only the format env has a name before a `=`; the others do not look at it.
    shape = held.shape(Path(file.path), file.format, content.partition(b"=")[0].decode(errors="replace"))
    secret = formats.extract(content, held.NO_PROFILE, shape)
    return secret is None or tokens.fingerprint(secret) != token_sha256


def configured(
    profiles: Iterable[ProfileStatus], config: Path, state_dir: Path
) -> tuple[tuple[ProfileStatus, ...], str | None]:
    """Return the profiles that a configuration names, as far as they are known, and what is wrong with it.

    A configuration that this user may not read, and one that is wrong, decide nothing.

    Args:
        profiles: what the last agent knew.
        config: the main file.
        state_dir: where that agent has its records.
    """
    from agent.errors import ConfigurationError

    before = tuple(profiles)
    if files.is_hidden(config):
        return before, None
    try:
        loaded = common.read_config(config)
    except ConfigurationError as error:
        return before, error.message
    known, records = {profile.name: profile for profile in before}, _records(state_dir)
    return tuple(_as_configured(profile, known, records) for profile in loaded.profiles), None


def _records(state_dir: Path) -> Mapping[str, Record]:
    """Return the records of the last agent, none where they may not be read: they are its own."""
    from agent import state

    try:
        return state.parse(files.read_bytes(state_dir / "state.json", limit=state.LARGEST))
    except (OSError, ValueError):
        return {}


def _as_configured(
    profile: Profile, known: Mapping[str, ProfileStatus], records: Mapping[str, Record]
) -> ProfileStatus:
    """Return what is known of a profile, nothing if that is of another application, scope or authority."""
    from agent import state

    record, before = records.get(profile.name), known.get(profile.name)
    if before is None or (record and record.identity != state.identity(profile)):
        return unknown(profile)
    written = {file.path: file.written_at for file in before.token_files}
    shown = (
        status.TokenFileStatus(str(file.path), file.format, written.get(str(file.path))) for file in profile.token_file
    )
    return dataclasses.replace(before, token_files=tuple(shown))


def unknown(profile: Profile) -> ProfileStatus:
    """Return a profile of which no more is known than what the configuration says."""
    shown = tuple(status.TokenFileStatus(str(file.path), file.format) for file in profile.token_file)
    return status.ProfileStatus(profile.name, token_files=shown)
