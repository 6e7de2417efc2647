"""What is told of attempts and of configurations: log events, and what is counted of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent import status

if TYPE_CHECKING:
    from datetime import datetime

    from agent.config.model import Config
    from agent.credentials.store import Credential
    from agent.engine.changes import Changes
    from agent.engine.services import Services
    from agent.errors import AgentError
    from agent.rotation import Refusal


def failed(profile: str, error: AgentError, services: Services, next_at: datetime, *, news: bool) -> None:
    """Tell of an attempt that came to nothing, as the board has it; the log only if it is news."""
    if error.kind != "output":  # that comes after an acquisition
        services.board.tally.count("acquisitions", profile, error.kind)
    if not news:
        return
    known = services.board.profiles[profile]
    services.log.warning(
        "acquisition.failed",
        profile=profile,
        **{name: getattr(error, name, None) for name in ("kind", "code", "message", "hint", "correlation_id")},
        failures=known.consecutive_failures,
        retry_at=status.rfc3339(next_at),
        runway_seconds=int(status.runway(known, services.clock.now()).total_seconds()),
    )


def refused(profile: str, credential: Credential, error: AgentError, refusal: Refusal, services: Services) -> None:
    """Tell of a candidate that cannot be used yet."""
    services.board.tally.count("acquisitions", profile, error.kind)
    services.log.warning(
        "certificate.rejected",
        profile=profile,
        thumbprint=credential.thumbprint,
        path=str(credential.path),
        message=error.message,
        hint=error.hint,
        retry_at=status.rfc3339(refusal.retry_at),
    )


def promoted(profile: str, credential: Credential, before: Credential, services: Services) -> None:
    """Tell of a candidate that has taken over."""
    services.log.info(
        "certificate.promoted",
        profile=profile,
        thumbprint=credential.thumbprint,
        replaces=before.thumbprint,
        path=str(credential.path),
    )


def loaded(config: Config, changes: Changes, services: Services) -> None:
    """Tell of a configuration that came into force, and what in it deserves a look."""
    services.log.info(
        "config.loaded",
        path=str(config.path),
        profiles=len(config.profiles),
        added=list(changes.added),
        changed=sorted(changes.changed),
        removed=list(changes.removed),
        settings=list(changes.settings),
    )
    for warning in config.warnings:
        services.log.warning("config.warning", message=warning)
