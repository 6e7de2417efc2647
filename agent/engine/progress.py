"""Where one profile stands between two steps: a frozen value, and how it passes from one to the next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent import schedule, state, status
from agent.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from agent.credentials.store import Credential
    from agent.engine.jobs import Job
    from agent.errors import AgentError
    from agent.rotation import Refusal
    from agent.tokens import AccessToken


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one profile stands between two steps.

    Attributes:
        next_at: when to try next.
        token: the token on disk.
        expired: its end has come, and was dealt with.
        unpublished: a newer one that could not be written yet.
        failures: attempts in a row that failed.
        error: the last failure since the last success.
        exit_code: what that failure means to a caller of `once`.
        accepted: the credential that worked last.
        refused: what providers said to others, by their identity.
        urgent: somebody asked for the next attempt, which does not wait for the end of a back-off.
    """

    next_at: datetime
    token: AccessToken | None = None
    expired: bool = False
    unpublished: AccessToken | None = None
    failures: int = 0
    error: status.LastError | None = None
    exit_code: int = 0
    accepted: Credential | None = None
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    urgent: bool = False

    @property
    def ends_at(self) -> datetime:
        """When the token on disk ends, as long as nobody has dealt with that."""
        return self.token.expires_at if self.token and not self.expired else schedule.NEVER

    def shifted(self, step: timedelta) -> Progress:
        """Return the same after the wall clock was set by ``step``."""
        return replace(
            self,
            next_at=self.next_at + step,
            token=self.token and self.token.shifted(step),
            unpublished=self.unpublished and self.unpublished.shifted(step),
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
    due = token is None or bool(progress.error or progress.unpublished or unproven)
    next_at = now if due or token is None else schedule.refresh_at(token, job.profile.refresh, jitter)
    # What was loaded but not needed yet, since a token was there, is as good as proven: it goes before a stranger.
    accepted = progress.accepted or next((each for each in before.usable if each.lasting), None)
    return replace(progress, next_at=next_at, failures=0, refused={}, accepted=accepted, urgent=due)


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


def retry_at(now: datetime, failures: int, error: AgentError, random: float) -> datetime:
    """Return when a profile tries again; where the gate keeps the authority's back-off, that is everybody's."""
    if isinstance(error, TransientError) and error.unreachable and error.retry_after is not None:
        return now + error.retry_after
    return schedule.retry_at(now, failures, error, random)
