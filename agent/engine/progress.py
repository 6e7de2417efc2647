"""Where one profile stands between two steps: a frozen value, and how it passes from one to the next."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agent import schedule, state, status
from agent.engine.jobs import credential_status
from agent.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from agent.credentials.store import Credential
    from agent.engine.jobs import Job
    from agent.errors import AgentError
    from agent.rotation import Refusal
    from agent.tokens import AccessToken

TICK = 1.0
"""Seconds; what is due again after minutes may be early by this much."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one profile stands between two steps.

    Attributes:
        next_at: when to try next.
        token: the token on disk.
        expired: its end has come, and was dealt with.
        superseded: a file has another one, which may be newer: this one must not be written there.
        unpublished: a newer one that could not be written everywhere yet.
        failures: attempts in a row that failed.
        error: the last failure since the last success.
        trouble: what keeps the files from being what they were written as, if anything does.
        told_at: when the log was last told of a failure (seconds of boot time).
        exit_code: what that failure means to a caller of `once`.
        accepted: the credential that worked last.
        proven: its identity, also where an earlier run had it and it is gone; empty if none is known.
        refused: what providers said to others, by their identity.
        urgent: somebody asked for the next attempt, which does not wait for the end of a back-off.
        rest_until: when the profile may ask again, with whichever credential, if its provider told it to wait.
    """

    next_at: datetime
    token: AccessToken | None = None
    expired: bool = False
    superseded: bool = False
    unpublished: AccessToken | None = None
    failures: int = 0
    error: status.LastError | None = None
    trouble: status.LastError | None = None
    told_at: float = -math.inf
    exit_code: int = 0
    accepted: Credential | None = None
    proven: str = ""
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    urgent: bool = False
    rest_until: datetime | None = None

    @property
    def ends_at(self) -> datetime:
        """When the token on disk ends, as long as nobody has dealt with that."""
        return self.token.expires_at if self.token and not self.expired else schedule.NEVER

    def succeeded(self, next_at: datetime) -> Progress:
        """Return the same after an attempt that went well."""
        return replace(
            self, next_at=next_at, unpublished=None, failures=0, error=None, exit_code=0, urgent=False, rest_until=None
        )

    def failed(self, error: AgentError, now: datetime, next_at: datetime) -> Progress:
        """Return the same after an attempt that failed."""
        return replace(
            self,
            next_at=next_at,
            failures=self.failures + 1,
            error=noted(error, now),
            exit_code=error.exit_code,
            urgent=False,
            rest_until=next_at if is_told_to_wait(error) else None,
        )

    def is_news(self, error: AgentError, now: float) -> bool:
        """Whether the log has to be told of a failure (``now``: seconds of boot time).

        What is wrong with a local file is looked at again and again, since that costs nothing; it is said as often as
        what a provider refuses.
        """
        known = self.error is not None and self.failures and not self.urgent and self.error.message == error.message
        again = now - self.told_at >= schedule.REJECTED_INTERVAL.total_seconds() - TICK
        return error.kind != "configuration" or not known or again

    def rested(self, until: datetime) -> Progress:
        """Return the same, with nothing asked until then."""
        return replace(self, next_at=max(self.next_at, until), rest_until=until)

    def shifted(self, step: timedelta) -> Progress:
        """Return the same after the wall clock was set by ``step``."""
        return replace(
            self,
            next_at=self.next_at + step,
            token=self.token and self.token.shifted(step),
            unpublished=self.unpublished and self.unpublished.shifted(step),
            rest_until=self.rest_until and self.rest_until + step,
            refused={name: replace(each, retry_at=each.retry_at + step) for name, each in self.refused.items()},
        )


def inherit(job: Job, before: Job, progress: Progress, now: datetime, jitter: float) -> Progress:
    """Return where a changed profile begins: its token serves on if it is still the one to ask for.

    Args:
        job: as it is from now on.
        before: as it was.
        progress: how far that came.
        now: the time.
        jitter: the profile's share of its jitter.
    """
    if state.identity(job.profile) != state.identity(before.profile):
        return Progress(next_at=now, urgent=True)
    token = progress.token
    unproven = job.usable != before.usable and not all(each.lasting for each in job.usable)
    due = token is None or bool(progress.error or progress.unpublished or progress.superseded or unproven)
    next_at = now if due or token is None else schedule.refresh_at(token, job.profile.refresh, jitter)
    # What was loaded but not needed yet, since a token was there, is as good as proven: it goes before a stranger.
    lasting = (each for each in before.usable if each.lasting and progress.proven in ("", each.identity))
    accepted = progress.accepted or next(lasting, None)
    proven = accepted.identity if accepted else progress.proven
    progress = replace(progress, accepted=accepted, proven=proven, next_at=next_at, failures=0, refused={})
    return replace(progress, urgent=due, rest_until=None)


def shown(job: Job, progress: Progress) -> dict[str, Any]:
    """Return what the board tells of a profile that stands there."""
    token = progress.token
    return {
        "acquired_at": token.acquired_at if token else None,
        "expires_at": token.expires_at if token else None,
        "token_sha256": token.fingerprint if token else None,
        "degraded_at": schedule.degraded_at(token, job.profile.refresh) if token else None,
        "refresh_at": progress.next_at,
        "consecutive_failures": progress.failures,
        "last_error": progress.error if progress.expired else progress.trouble or progress.error,
        "credential": credential_status(job, progress.accepted, progress.refused, progress.proven),
    }


def noted(error: AgentError, now: datetime) -> status.LastError:
    """Return an error as it is shown and kept until the next success."""
    return status.LastError(
        at=now,
        kind=error.kind,
        message=error.message,
        hint=error.hint,
        code=getattr(error, "code", None),
        correlation_id=getattr(error, "correlation_id", None),
    )


def is_told_to_wait(error: AgentError) -> bool:
    """Whether the provider works, and wants to be left alone by this profile for a while."""
    return isinstance(error, TransientError) and not error.unreachable and error.retry_after is not None


def retry_at(now: datetime, failures: int, error: AgentError, random: float) -> datetime:
    """Return when a profile tries again; where the gate keeps the authority's back-off, that is everybody's."""
    if isinstance(error, TransientError) and error.unreachable and error.retry_after is not None:
        return now + error.retry_after
    return schedule.retry_at(now, failures, error, random)
