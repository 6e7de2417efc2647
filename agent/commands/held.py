"""The token that lies in a profile's token files, and until when it is good; read as any other program would."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from agent import files, formats, tokens
from agent.commands import common
from agent.errors import OutputError

if TYPE_CHECKING:
    from agent.commands.consumer import Knowledge
    from agent.config.model import Profile, TokenFile
    from agent.status import ProfileStatus, TokenFileStatus

LAG = 1.0
"""Seconds; how much later than a token file the agent writes what is known of it, at the very most."""
GLANCE = 0.02
"""Seconds between two looks in that time."""
NO_PROFILE = cast("Profile", None)
"""Where `formats` wants one and does not look at it: json is written, and templates are read, with a real one."""


@dataclass(frozen=True, slots=True)
class Held:
    """A token as it lies in a file; ``expires_at`` is None if nothing tells."""

    secret: str = field(repr=False)
    content: bytes = field(repr=False)
    file: TokenFile
    expires_at: datetime | None = None

    @property
    def left(self) -> timedelta:
        """How long it is good still."""
        return self.expires_at - datetime.now(UTC) if self.expires_at else timedelta(0)


class _Shape(NamedTuple):
    """As much of a `TokenFile` as can be known without the configuration, and as `formats` needs for most formats."""

    path: Path
    format: str
    newline: bool = True
    variable: str = "ACCESS_TOKEN"
    template: str | None = None


def shape(path: Path, format: str, variable: str = "ACCESS_TOKEN") -> TokenFile:  # noqa: A002 - the key is called so
    """Return what `formats` needs to know of a file that is no template."""
    return cast("TokenFile", _Shape(path, format, variable=variable))


def read(profile: ProfileStatus, config: Path | None, prefer: str | None = None) -> Held | None:
    """Return the token in the first of a profile's token files that has one, None if there is none.

    Args:
        profile: names its token files.
        config: where the configuration is, for files of the format template only.
        prefer: a format to look for first.

    Raises:
        OutputError: none of the files may be read.
        ConfigurationError: only a template is left, and it cannot be looked up.
    """
    refused: OutputError | None = None
    for file in sorted(profile.token_files, key=lambda file: (file.format == "template", file.format != prefer)):
        try:
            if held := _read(file, profile.name, config):
                return held
        except (FileNotFoundError, ValueError):  # the latter for what can be no path
            continue
        except OSError as error:
            hint = "run this as a user who may read the token file" if isinstance(error, PermissionError) else ""
            refused = refused or OutputError(Path(file.path), f"cannot be read: {error.strerror}", hint=hint)
    if refused:
        raise refused
    return None


def _read(file: TokenFileStatus, name: str, config: Path | None) -> Held | None:
    path = Path(file.path)
    content = files.read_bytes(path)
    if file.format == "template":
        return _from_template(path, content, name, config)
    # Only the format env has a name before a `=`; the others do not look at it.
    known = shape(path, file.format, content.partition(b"=")[0].decode(errors="replace"))
    secret = formats.extract(content, NO_PROFILE, known)
    return Held(secret, content, known) if secret else None


def _from_template(path: Path, content: bytes, name: str, config: Path | None) -> Held | None:
    for profile in common.read_config(config).profiles:
        for known in profile.token_file if profile.name == name else ():
            secret = formats.extract(content, profile, known) if known.path == path else None
            if secret:
                return Held(secret, content, known)
    return None


def current(knowledge: Knowledge, name: str, config: Path | None, prefer: str | None = None) -> Held | None:
    """Return the token on disk and until when it is good, as the agent says it; None if there is none.

    The agent writes first the file, then what is known of it: in between, what is known is of the token before. What
    lies in the files of a profile that has no token yet is of another app or scope, which it had before.
    """
    deadline = time.monotonic() + LAG
    while True:
        profile = knowledge.profiles().get(name)
        held = read(profile, config, prefer) if profile else None
        if profile is None or held is None:
            return None
        if tokens.fingerprint(held.secret) == profile.token_sha256:
            return Held(held.secret, held.content, held.file, profile.expires_at)
        if time.monotonic() >= deadline:
            if profile.token_sha256 is None:
                return None
            return Held(held.secret, held.content, held.file, _says(held))
        time.sleep(GLANCE)


def _says(held: Held) -> datetime | None:
    """Return when a token ends by what stands beside it, or by its own account."""
    try:
        if held.file.format == "json":
            return datetime.fromtimestamp(json.loads(held.content)["expires_on"], UTC)
        return datetime.fromtimestamp(tokens.decode(held.secret)[1]["exp"], UTC)
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None
