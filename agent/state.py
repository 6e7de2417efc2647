"""What must survive a restart: which token lies where and what it is good for, never the token itself.

The document is ``state.json`` in the state directory. With it a restart recognises its tokens on disk by their
hash and reuses them, and finds the token files of profiles that were removed while no agent ran.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from agent.status import parse_rfc3339
from agent.tokens import AccessToken

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from agent.config.model import Profile

VERSION = 1
LARGEST = 8 << 20
"""Bytes; some fifteen thousand profiles, and what its parsing takes still fits beside an agent."""
LONGEST_LIFE = timedelta(days=31)
"""Of a token, a little more than is ever believed of one: a damaged year must not pass for a token without end."""
_YEARS = range(1970, 9000)
"""Within them times can be reckoned with."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of one profile's published token.

    ``identity`` ties it to authority, client and scopes; ``token_sha256`` (hex) to the token on disk;
    ``on_removal`` is what the profile wanted for ``paths`` when it was last seen; ``followed`` are those of them
    that were written through a symbolic link; ``announced`` is the hash of the token for which the hook
    (``on_refresh``) has come to its end; ``proven`` is the credential that the provider took last, by its identity;
    ``config`` is the configuration that the profile was in.
    """

    identity: str
    token_sha256: str
    token_type: str
    acquired_at: datetime
    expires_at: datetime
    refresh_in: timedelta | None
    paths: tuple[str, ...]
    on_removal: str
    followed: tuple[str, ...] = ()
    announced: str = ""
    proven: str = ""
    config: str = ""

    def restore(self, secret: str) -> AccessToken | None:
        """Return the token, if this is the one that was recorded, and its times are those of a token."""
        if token_hash(secret) != self.token_sha256 or not self._is_likely:
            return None
        return AccessToken(secret, self.token_type, self.acquired_at, self.expires_at, self.refresh_in)

    @property
    def _is_likely(self) -> bool:
        """Whether a token can have these times; what is damaged has others."""
        years = (self.acquired_at.year in _YEARS, self.expires_at.year in _YEARS)
        spans = (self.expires_at - self.acquired_at, self.refresh_in or timedelta(0))
        return all(years) and all(timedelta(0) <= span <= LONGEST_LIFE for span in spans)


def token_hash(secret: str) -> str:
    """Return the SHA-256 of a token in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def identity(profile: Profile) -> str:
    """Return what makes a token belong to a profile: who asks whom for what."""
    parts = json.dumps([profile.authority_url, profile.client_id, sorted(profile.scopes)])
    return hashlib.sha256(parts.encode()).hexdigest()


def record_of(profile: Profile, token: AccessToken) -> Record:
    """Return what to remember of a token that was published for a profile."""
    paths, followed = _places(profile)
    return Record(
        identity=identity(profile),
        token_sha256=token_hash(token.secret),
        token_type=token.token_type,
        acquired_at=token.acquired_at,
        expires_at=token.expires_at,
        refresh_in=token.refresh_in,
        paths=paths,
        on_removal=profile.on_removal,
        followed=followed,
    )


def planned(profile: Profile, record: Record | None, now: datetime) -> Record | None:
    """Return what to remember of a profile before its files are written; None if its paths are known already.

    Of a profile that has no token yet this is a record that no token fits.
    """
    paths, followed = _places(profile)
    if record is None:
        return Record(identity(profile), "", "", now, now, None, paths, profile.on_removal, followed)
    if set(paths) <= set(record.paths):
        return None
    every = dict.fromkeys((*record.paths, *paths))
    return replace(record, paths=tuple(every), followed=tuple(dict.fromkeys((*record.followed, *followed))))


def _places(profile: Profile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the paths of a profile's token files, and those of them that are written through a symbolic link."""
    files = profile.token_file
    return tuple(str(file.path) for file in files), tuple(str(file.path) for file in files if file.follow_symlink)


def render(records: Mapping[str, Record]) -> bytes:
    """Return the document."""
    return json.dumps({"version": VERSION, "profiles": {n: _plain(r) for n, r in records.items()}}).encode()


def parse(content: bytes) -> dict[str, Record]:
    """Return the records of a document.

    Raises:
        ValueError: it is corrupt or of a version this program does not know; nothing of it can be used.
    """
    try:
        data = json.loads(content)
        if data["version"] != VERSION:
            raise ValueError(f"version {data['version']!r} is not known here")
        return {name: _record(entry) for name, entry in data["profiles"].items()}
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a state document: {error!r}") from error


def _plain(record: Record) -> dict[str, Any]:
    return {
        "identity": record.identity,
        "token_sha256": record.token_sha256,
        "token_type": record.token_type,
        "acquired_at": record.acquired_at.isoformat(),
        "expires_at": record.expires_at.isoformat(),
        "refresh_in": None if record.refresh_in is None else record.refresh_in.total_seconds(),
        "paths": list(record.paths),
        "on_removal": record.on_removal,
        "followed": list(record.followed),
        "announced": record.announced,
        "proven": record.proven,
        "config": record.config,
    }


def _record(entry: Mapping[str, Any]) -> Record:
    acquired_at, expires_at = parse_rfc3339(entry["acquired_at"]), parse_rfc3339(entry["expires_at"])
    if acquired_at is None or expires_at is None:
        raise ValueError("a record without times")
    refresh_in = entry["refresh_in"]
    return Record(
        identity=_text(entry["identity"]),
        token_sha256=_text(entry["token_sha256"]),
        token_type=_text(entry["token_type"]),
        acquired_at=acquired_at,
        expires_at=expires_at,
        refresh_in=None if refresh_in is None else timedelta(seconds=refresh_in),
        paths=_paths(entry["paths"]),
        on_removal=_text(entry["on_removal"]),
        followed=_paths(entry.get("followed", [])),
        announced=_text(entry.get("announced", "")),
        proven=_text(entry.get("proven", "")),
        config=_text(entry.get("config", "")),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text is expected, not {type(value).__name__}")
    return value


def _paths(values: Any) -> tuple[str, ...]:
    """Return paths of files that may be deleted one day, so that nothing else must pass for one."""
    if not isinstance(values, list):
        raise TypeError(f"a list is expected, not {type(values).__name__}")
    for path in map(_text, values):
        if not path.startswith("/") or "\0" in path:
            raise ValueError("a path that is not absolute")
        path.encode(errors="surrogateescape")  # what no path can hold is a ValueError, too
    return tuple(values)
