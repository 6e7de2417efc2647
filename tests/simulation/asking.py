"""Hears of all requests, and calls out when one comes too early, too often, or without a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.cases import EARLY, MIN_INTERVAL, Case
from tests.simulation.machine import BrokenError
from tests.simulation.providers import BACKOFF

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.clocks import Time
    from tests.simulation.machine import Machine
    from tests.simulation.providers import Answered, Identity, Ledger, Site

NOTICED_WITHIN = 15.0
"""Seconds in which a change is acted on, which may be against what the provider asked for."""


class Asking:
    """Knows what is expected of each profile, by name, and how each provider answered."""

    def __init__(self, time: Time, ledger: Ledger, sites: list[Site], tell: Callable[[str], None]) -> None:
        self.time, self.ledger, self.sites, self.tell = time, ledger, sites, tell
        self.cases: dict[str, Case] = {}
        self.machine: Machine
        self.rescan = 10.0
        self._discovered: dict[Identity, float] = {}
        self._failing = [0] * len(sites)
        self._most_failing = [0] * len(sites)  # by what is counted otherwise when several ask at once
        self._failed_at = [float("-inf")] * len(sites)
        self._site_not_before = [float("-inf")] * len(sites)
        self._site_free_until = [0.0] * len(sites)
        self._site_rest = [0.0] * len(sites)
        self._leaving: dict[Identity, float] = {}

    def update(self) -> None:
        """See what stands in the way of each profile now."""

    def broken(self, message: str) -> None:
        """Call out, at the next step of the loop: what is raised in the midst of the engine might be swallowed."""
        error = BrokenError(message)
        if not self.machine.loop:
            raise error
        self.machine.loop.failure = self.machine.loop.failure or error

    def may_ask(self, case: Case, spares: int = 1) -> None:
        """Something changed for a profile, or somebody asked: its rests are over, and it may ask so often."""
        case.spares, case.hurried, case.wished_at = case.spares + spares, False, float("-inf")
        case.not_before.clear()
        until = self.time.true + NOTICED_WITHIN + (self.rescan if self.machine.notices.deaf else 0.0)
        case.free_until = self._site_free_until[case.plan.identity.site] = until

    def added(self, case: Case) -> None:
        """There is a new profile, for which the back-off of its provider holds, too."""
        self.cases[case.plan.name] = case
        case.rest = self._site_rest[case.plan.identity.site]

    def leaves(self, identity: Identity, until: float) -> None:
        """Nobody wants tokens for an identity any more, and the agent has to know from a time on."""
        self._leaving[identity] = until

    # ---- requests

    def asked(self, identity: Identity, *, token: bool) -> None:
        """Hear of a request that begins."""
        now, site = self.time.true, identity.site
        self.tell(f"asked {identity}{'' if token else ' (discovery)'}")
        begins = not token or now > self._discovered.pop(identity, -1.0) + 0.01  # what has begun goes on
        if (
            begins
            and now >= self._site_free_until[site]
            and now > self._failed_at[site] + 0.01
            and now < (over := self._may_be_asked_from(site)) - EARLY
        ):
            self.broken(f"site {site} was asked {over - now:.2f} s before its back-off was over")
        concerned = self._of(identity)
        if not concerned and now > self._leaving.get(identity, 0.0):
            self.broken(f"asked for {identity}, which nobody wants")
        for case in concerned:
            if now >= case.free_until and now < case.not_before.get("", 0.0) - EARLY:
                self.broken(f"{case.plan.name} asked {case.not_before[''] - now:.1f} s before the throttle was over")
            if begins and now - case.asked < MIN_INTERVAL - EARLY:
                self.broken(f"{case.plan.name} asked twice within {now - case.asked:.3f} s")
            case.asked = now if begins else case.asked
            if not self._has_reason(case, now) and now < case.earliest() - 1.0:
                self.broken(f"{case.plan.name} asked {case.earliest() - now:.0f} s before its token was due")

    def _has_reason(self, case: Case, now: float) -> bool:
        """Whether a profile may ask though its token is not due."""
        spare = case.spares and (now < case.free_until or not case.hurried)
        return bool(spare) or case.failed or case.wallet.unproven()

    def _of(self, identity: Identity) -> list[Case]:
        return [case for case in self.cases.values() if case.plan.identity == identity]

    def answered(self, answer: Answered) -> None:
        """Hear of a request that came to its end."""
        number = answer.issued.number if answer.issued else ""
        self.tell(f"answered {answer.identity} {answer.status} {number}")
        if answer.mark is None and answer.status == 200 and answer.sound:
            self._discovered[answer.identity] = answer.at
            return  # the request for a token follows
        concerned = self._of(answer.identity)
        for case in concerned:
            not_before = case.not_before.get(answer.mark or "?", 0.0)
            # What worked last is always tried; and when a token falls due, there may be nothing else to ask with.
            may = case.wallet.falls_back_to(answer.mark) or 0 <= answer.began - case.due() < 1.0
            if answer.began >= case.free_until and answer.began < not_before - EARLY and not may:
                self.broken(f"{case.plan.name} used a refused certificate {not_before - answer.began:.1f} s too early")
        if answer.issued:
            for case in concerned:
                case.rest, case.failed = answer.at, False
                # Asked for twice in the midst of one another, there may be another request; but not much later.
                case.spares = case.spares - 1 if answer.at < case.free_until and case.spares > 1 else 0
                case.hurried = bool(case.spares)
                case.not_before.clear()
                case.wallet.proven(answer.mark)
        elif answer.outage:
            self._most_failing[answer.identity.site] += 1
            window = min(BACKOFF, 2.0 ** (self._most_failing[answer.identity.site] + 1))
            for case in self.cases.values():
                if case.plan.identity.site == answer.identity.site:
                    case.failed_at(answer, sooner=BACKOFF - window)
        else:
            for case in concerned:
                case.failed_at(answer)
        self._note_site(answer)
        self.update()

    def _note_site(self, answer: Answered) -> None:
        """Follow the back-off of a provider as a whole: full jitter between 1 s and 2, 4, 8 … 60 s."""
        site = answer.identity.site
        self._site_rest[site] = answer.at + answer.rest if answer.outage else 0.0
        if not answer.outage:
            self._failing[site] = self._most_failing[site] = 0
            self._site_not_before[site] = float("-inf")
            return
        if answer.aborted:  # its end says nothing of the provider, but what was before it counts no longer
            self._site_not_before[site] = float("-inf")
            return
        if answer.began <= self._failed_at[site]:
            return  # it was under way when another one failed
        self._failing[site] += 1
        self._failed_at[site] = answer.at
        wish = min(answer.wish or 0.0, 3600.0)
        self._site_not_before[site] = answer.at + max(MIN_INTERVAL, wish)

    def _may_be_asked_from(self, site: int) -> float:
        """Return when the back-off of a provider is over, with the jitter that was drawn at its last failure."""
        at = self._failed_at[site]
        jitter = min(self.machine.draws.get(round(at, 6), [0.0]))
        window = min(60.0, 2.0 ** min(self._failing[site], 6))
        return self._site_not_before[site] + (window - 1) * jitter if self._failing[site] else at
