"""Who may ask which provider now: the decisions of the gate, without its waiting. Pure.

While an authority works, its profiles go through freely. Until it has answered once, and again when it stops
answering, one profile probes and the others share what it finds; the back-off then belongs to the authority.

What hangs is held against the host that hangs, for a host has many authorities (Entra's tenants): `has_room`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from agent import schedule
from agent.errors import TransientError

Verdict = Literal["ask", "probe", "wait", "later"]
"""Go ahead; go ahead and tell the others; wait for the one who probes; come again when the next probe is due."""


LENT = 48
"""Places that are lent at most, while those who have them wait for what hangs; each is a thread."""


def kept_places(total: int) -> int:
    """Return how many of all places are kept for hosts that answer: a quarter, at least one if there are two."""
    return max(total // 4, min(1, total - 1))


def has_room(free: int, kept: int, under_way: int, *, answers: bool) -> bool:
    """Return whether a host may have one more request under way.

    One that answered at last leaves one place more than those kept, and may use even these while it has fewer under way
    than are free. Any other one, be it new, may use none of those kept, and of the rest while it has fewer under way
    than are free of them. So however many hosts hang that have not answered at last, those that have find places; and
    one host that hangs, whatever it did before and however many its tenants are, leaves a place to any other.

    Args:
        free: the places that nobody uses now.
        kept: of all places, as `kept_places` says.
        under_way: the requests that the host has not answered yet.
        answers: its last request was answered, be it by a refusal.
    """
    if answers:
        return free > min(kept + 1, under_way)
    return free - kept > under_way


@dataclass(slots=True)
class Standing:
    """How one provider as a whole stands with this agent; all times are seconds of boot time, which nobody can step.

    Attributes:
        working: its last answer was one, be it a refusal.
        failures: probes in a row that failed.
        error: the last failure, while it does not work.
        probe_at: when the next probe is due.
        probing: somebody is asking for all.
    """

    working: bool = False
    failures: int = 0
    error: TransientError | None = None
    probe_at: float = float("-inf")
    probing: bool = False

    def verdict(self, now: float, *, urgent: bool = False) -> Verdict:
        """Return what a profile that wants to ask has to do.

        Args:
            now: the time.
            urgent: somebody wants to know now: probe, if nobody does, though the next probe is not due yet.
        """
        if self.working:
            return "ask"
        if self.probing:
            return "wait"
        return "later" if self.until_probe(now) and not urgent else "probe"

    def answered(self) -> None:
        """Note that the provider works: the gate is open for everybody."""
        self.working, self.failures, self.error = True, 0, None

    def failed(self, now: float, error: TransientError, jitter: float) -> None:
        """Note that the provider does not work; of several failures at the same time the first one counts.

        From here on the authority's back-off is everybody's: the error tells when to come again.
        """
        if self.working or self.probing:
            self.failures += 1
            self.probe_at = now + schedule.pause(self.failures, error, jitter).total_seconds()
        self.working, self.error = False, error
        error.retry_after = self.until_probe(now)

    def shared(self, now: float) -> TransientError:
        """Return the failure that somebody else met, with the time until the next probe."""
        met = self.error or TransientError("the provider does not answer")
        return TransientError(
            met.message,
            hint=met.hint,
            code=met.code,
            correlation_id=met.correlation_id,
            retry_after=self.until_probe(now),
            unreachable=True,
        )

    def until_probe(self, now: float) -> timedelta:
        """Return how long it is until the next probe is due; zero if it is."""
        return timedelta(seconds=max(0.0, self.probe_at - now))
