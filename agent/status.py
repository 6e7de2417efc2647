"""What is known about each profile, as values and as the JSON that `status --json` prints.

The running agent writes the same document to ``status.json``, with three keys more: per profile ``degraded_at``
and ``token_sha256``, and ``mode`` of the agent. With them a later reader judges for itself how fresh a token is by
now, and whether it is the token that lies in a file.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from agent import schedule
from agent.errors import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")
SKEWS = "clock_skew_seconds"

LARGEST = 16 << 20
"""Bytes of ``status.json``; some fifteen thousand profiles."""


@dataclass(frozen=True, slots=True)
class LastError:
    """The most recent failure, kept until the next success."""

    at: datetime
    kind: Kind
    message: str
    hint: str = ""
    code: str | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True)
class CredentialStatus:
    """The credential in use; ``candidate_error`` says why a newer one on disk is not."""

    kind: str
    path: str
    subject: str | None = None
    thumbprint: str | None = None
    thumbprint_sha256: str | None = None
    not_after: datetime | None = None
    candidate_error: str | None = None


@dataclass(frozen=True, slots=True)
class TokenFileStatus:
    """One token file, and when its present content was written; None while that is not the token."""

    path: str
    format: str
    written_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class HookStatus:
    """The last run of ``on_refresh``."""

    ran_at: datetime | None = None
    exit_code: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ProfileStatus:
    """Everything an operator may ask about one profile; ``lost``: a token file is gone or holds something else."""

    name: str
    acquired_at: datetime | None = None
    expires_at: datetime | None = None
    refresh_at: datetime | None = None
    degraded_at: datetime | None = None
    token_sha256: str | None = None
    consecutive_failures: int = 0
    last_error: LastError | None = None
    credential: CredentialStatus | None = None
    token_files: tuple[TokenFileStatus, ...] = ()
    hook: HookStatus = field(default_factory=HookStatus)
    lost: bool = False


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """The agent itself. ``mode`` is who wrote this last: the service, or a single `once`.

    ``skews`` are this machine's clock minus that of providers, by host, where it is off enough to be named.
    ``metrics_error`` says why metrics are not shown; the document is the contract's, and does not tell it.
    """

    version: str
    pid: int
    started_at: datetime
    config_path: str
    loaded_at: datetime | None = None
    config_error: str | None = None
    mode: Literal["run", "once"] = "run"
    metrics_error: str | None = None
    skews: Mapping[str, timedelta] = field(default_factory=dict)


def serves_until(profile: ProfileStatus) -> datetime | None:
    """Return until when readers find a valid token in every token file; None if one of them has none."""
    lost = profile.lost or any(file.written_at is None for file in profile.token_files)
    return None if lost else profile.expires_at


def runway(profile: ProfileStatus, now: datetime) -> timedelta:
    """Return how long the token on disk still serves if nothing works from now on."""
    return schedule.runway(now, serves_until(profile))


def state_of(profile: ProfileStatus, now: datetime, *, kept: bool) -> schedule.State:
    """Return the state; ``kept`` tells whether anything keeps the profile fresh."""
    failing = profile.last_error is not None or serves_until(profile) is None
    state = schedule.judge(now, profile.expires_at, profile.degraded_at, failing=failing)
    return state if kept or state in ("pending", "expired") else "stopped"


def document(
    agent: AgentStatus, profiles: tuple[ProfileStatus, ...], now: datetime, *, running: bool, idle: bool = False
) -> dict[str, Any]:
    """Return the contract's JSON document.

    After `once` nothing runs by design, so its tokens are judged by their times alone; after a service that is
    gone, or is there and ``idle``, a token that is still good is ``stopped``: nobody will renew it.
    """
    kept = not idle and (running or agent.mode == "once")
    return {
        "agent": {
            "version": agent.version,
            "pid": agent.pid,
            "started_at": rfc3339(agent.started_at),
            "running": running,
            "config": {
                "path": agent.config_path,
                "loaded_at": rfc3339(agent.loaded_at),
                "error": agent.config_error,
            },
            SKEWS: {host: round(skew.total_seconds()) for host, skew in agent.skews.items() if kept},
        },
        "profiles": [_profile(profile, now, kept=kept) for profile in profiles],
    }


def _profile(profile: ProfileStatus, now: datetime, *, kept: bool) -> dict[str, Any]:
    return {
        "name": profile.name,
        "state": state_of(profile, now, kept=kept),
        "expires_at": rfc3339(profile.expires_at),
        "acquired_at": rfc3339(profile.acquired_at),
        "refresh_at": rfc3339(profile.refresh_at),
        "runway_seconds": int(runway(profile, now).total_seconds()),
        "consecutive_failures": profile.consecutive_failures,
        "last_error": _plain(profile.last_error),
        "credential": _plain(profile.credential),
        "token_files": [_plain(file) for file in profile.token_files],
        "hook": _plain(profile.hook),
    }


def _plain(value: Any) -> dict[str, Any] | None:
    """Return a record of this module as JSON values."""
    if value is None:
        return None
    pairs = ((entry.name, getattr(value, entry.name)) for entry in dataclasses.fields(value))
    return {name: rfc3339(item) if isinstance(item, datetime) else item for name, item in pairs}


def to_file(agent: AgentStatus, profiles: tuple[ProfileStatus, ...], now: datetime) -> dict[str, Any]:
    """Return what the agent writes: the document, and what a later reader needs to judge it."""
    result = document(agent, profiles, now, running=True)
    result["agent"]["mode"] = agent.mode
    for entry, profile in zip(result["profiles"], profiles, strict=True):
        entry["degraded_at"] = rfc3339(profile.degraded_at)
        entry["token_sha256"] = profile.token_sha256
    return result


def parse(content: bytes) -> tuple[AgentStatus, tuple[ProfileStatus, ...]]:
    """Return what a file holds that the agent wrote.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return from_file(json.loads(content))
    except RecursionError as error:  # a great many brackets
        raise ValueError("not a status document") from error


def from_file(data: Any) -> tuple[AgentStatus, tuple[ProfileStatus, ...]]:
    """Return what `to_file` was given.

    Raises:
        ValueError: it is not such a document.
    """
    try:
        agent = data["agent"]
        known = AgentStatus(
            version=_text(agent["version"]),
            pid=int(agent["pid"]),
            started_at=_required(agent["started_at"]),
            config_path=_text(agent["config"]["path"]),
            loaded_at=parse_rfc3339(agent["config"]["loaded_at"]),
            config_error=_text_or_none(agent["config"]["error"]),
            mode="once" if agent.get("mode") == "once" else "run",
            skews={_text(host): timedelta(seconds=_number(skew)) for host, skew in agent.get(SKEWS, {}).items()},
        )
        return known, tuple(_profile_from(entry) for entry in data["profiles"])
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError("not a status document") from error


def _profile_from(entry: Mapping[str, Any]) -> ProfileStatus:
    times = {name: parse_rfc3339(entry[name]) for name in ("acquired_at", "expires_at", "refresh_at", "degraded_at")}
    if entry["last_error"] and entry["last_error"]["kind"] not in get_args(Kind):
        raise ValueError("an error of an unknown kind")
    return ProfileStatus(
        name=_text(entry["name"]),
        token_sha256=_text_or_none(entry.get("token_sha256")),
        consecutive_failures=int(entry["consecutive_failures"]),
        last_error=_record(LastError, entry["last_error"]),
        credential=_record(CredentialStatus, entry["credential"]),
        token_files=tuple(file for file in (_record(TokenFileStatus, f) for f in entry["token_files"]) if file),
        hook=_record(HookStatus, entry["hook"]) or HookStatus(),
        acquired_at=times["acquired_at"],
        expires_at=times["expires_at"],
        refresh_at=times["refresh_at"],
        degraded_at=times["degraded_at"],
    )


def _record(kind: type[T], entry: Mapping[str, Any] | None) -> T | None:
    """Return the record that `_plain` made JSON of; instants are the fields `at`, `…_at` and `…_after`."""
    if entry is None:
        return None
    needed = {each.name for each in dataclasses.fields(kind) if each.default is dataclasses.MISSING}  # type: ignore[arg-type]  # all are dataclasses
    for name, value in entry.items():
        if value is not None or name in needed:
            _number(value) if name == "exit_code" else _text(value)
    return kind(**{n: parse_rfc3339(v) if n == "at" or n.endswith(("_at", "_after")) else v for n, v in entry.items()})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError("not a number")
    return value


def rfc3339(instant: datetime | None) -> str | None:
    """Return an instant as RFC 3339 in UTC, to the second."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z" if instant else None


def parse_rfc3339(text: Any) -> datetime | None:
    """Return the instant in UTC, or None for None.

    Raises:
        ValueError: it is neither.
    """
    if text is None:
        return None
    instant = datetime.fromisoformat(str(text))
    if instant.tzinfo is None:
        raise ValueError("an instant without a zone")
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("an instant before or after all time") from error


def _required(text: Any) -> datetime:
    instant = parse_rfc3339(text)
    if instant is None:
        raise ValueError("an instant is missing")
    return instant
