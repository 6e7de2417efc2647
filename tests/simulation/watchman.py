"""Looks at everything after each step that touched something, and before time passes; calls out what is wrong."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from agent.clock import SLICE
from tests.simulation import cases
from tests.simulation.asking import NOTICED_WITHIN
from tests.simulation.hearing import Hearing
from tests.simulation.machine import BrokenError
from tests.simulation.showing import Showing, look_at, read
from tests.simulation.turns import INSTANT
from tests.simulation.twins import Twins

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.cases import Case
    from tests.simulation.clocks import Time
    from tests.simulation.providers import Issued, Ledger, Site

STATUS_EVERY = 600.0
"""Seconds in which what is shown is compared with what is so after something has happened."""
QUIET_EVERY = 2400.0
"""Seconds between two comparisons where nothing happens."""
QUIET = 15.0
"""Seconds after which status and records have been saved, also when the disk was full before."""
MODE = 0o600
REPAIRED_WITHIN = 13.0
"""Seconds: the watch or the rescan, and the longest pause in a fight over a file."""


class Watchman(Hearing):
    """Knows what is expected of each profile, by name; hears of requests, log events, and all that is touched."""

    def __init__(self, time: Time, ledger: Ledger, sites: list[Site], tell: Callable[[str], None]) -> None:
        super().__init__(time, ledger, sites, tell)
        self._seen: dict[str, tuple[int, ...] | None] = {}
        self._twins = Twins(ledger, self.broken)
        self._showing = Showing(time)
        self._changed_at = self._compare_at = self._looked_at = 0.0
        self._disk_fault_at = self._disturbed_at = float("-inf")
        self._faulty = False
        self._steps: list[tuple[float, float]] = []
        self._started_at = self._ended_at = 0.0
        self._doubted = 0
        self.settling_until = 0.0
        self.refused = False  # a configuration that cannot be used lies on disk: nothing else is loaded either

    # ---- what stands in the way

    def happened(self) -> None:
        """Something was done to the machine, or by the agent."""
        self._changed_at = self.time.true
        self._compare_at = min(self._compare_at, self._changed_at + STATUS_EVERY)

    def update(self) -> None:
        """See what stands in the way of each profile now."""
        now, machine = self.time.true, self.machine
        common = set()
        if not machine.running or machine.stopping:
            common.add("down")
        if machine.run_disk.fault:
            common.add("disk")
        faulty = bool(machine.run_disk.fault or machine.state_disk.fault)
        if faulty or self._faulty:
            self._disk_fault_at = now
        self._faulty = faulty
        if abs(self.time.wrong) > 200:
            common.add("clock")
        for case in self.cases.values():
            reasons = set(common)
            if self.sites[case.plan.identity.site].strikes(case.plan.identity, 4.0):
                reasons.add("provider")
            if not case.wallet.usable(loading=not self.refused):
                reasons.add("credential")
            case.block(reasons, now, self.rescan if machine.notices.deaf else 0.0)

    def disturbed(self, step: float = 0.0, slept: float = 0.0) -> None:
        """The clock was set, or the machine slept."""
        now = self._disturbed_at = self.time.true
        # Two steps within one slice may take back one another before they are noticed, and times of in between stay.
        unseen = any(before and now - at < SLICE for at, before in self._steps) and step
        until = now + NOTICED_WITHIN + cases.NOTICE["clock"]
        self._steps.append((now, step))
        for case in self.cases.values():
            case.vague = case.vague or bool(unseen)
            case.base = max(case.base, now + cases.NOTICE["clock"])
            if case.free_until >= now - slept:
                case.free_until = self._site_free_until[case.plan.identity.site] = until
        if now < self._started_at + 10:
            self._doubt()

    def ended(self) -> None:
        """The process came to its end."""
        self._ended_at = self.time.true
        unsaved = self._faulty or self._ended_at - max(self._disk_fault_at, self.settling_until) < QUIET
        for case in self.cases.values():  # nothing of it may be remembered
            case.vague = case.vague or unsaved or self._ended_at - case.written_at < QUIET

    def started(self) -> None:
        """A new process of the agent knows nothing of what the one before was told."""
        self._started_at = self.time.true
        self.hooked.forget()
        self.loaded.clear()
        self.happened()
        self._doubt()
        for number in range(len(self.sites)):
            self._failing[number] = self._most_failing[number] = 0
            self._site_not_before[number] = float("-inf")
        for case in self.cases.values():
            case.failed = True
            case.acquired, case.wished_at = None, float("-inf")
            case.not_before.clear()
            case.wallet.known = [case.wallet.pair] if case.wallet.sound else []
        self.update()

    def _doubt(self) -> None:
        """A clock that was set while no agent ran: nobody can tell by how much, while all times are in the past."""
        since = [step for at, step in self._steps[self._doubted :] if at > self._ended_at - 33]
        self._doubted = len(self._steps)
        for case in self.cases.values():
            case.unseen += sum(max(0.0, -step) for step in since)
            case.vague = case.vague or bool(since)
            aged = case.token is None or self.time.true - case.token.at > case.unseen
            case.slip = max(case.slip, case.unseen if aged else 0.0)  # else it comes from the future

    # ---- files

    def touched(self) -> bool:
        """Look at all token files that are not as they were; return whether one has changed that has a second."""
        deleted, first = self.machine.notices.deleted(), False
        for case in self.cases.values():
            look, before = look_at(case.path), self._seen.get(case.plan.name)
            if before != look or case.plan.name not in self._seen:
                self._seen[case.plan.name] = look
                self.happened()
                if look and before and look[0] == before[0] and look[1] != before[1] and case.touched is None:
                    self.broken(f"{case.plan.name}'s file was written in place")
                if look and before and case.touched is None and str(case.path) in deleted:
                    self.broken(f"{case.plan.name}'s file was away for a moment")
                self.look(case)
                first |= case.plan.twin and look is not None and case.touched is None
            if case.plan.twin and self._twins.look(case, self.time.true):
                self.happened()
        return first

    def look(self, case: Case, *, by_agent: bool = True) -> None:
        """Judge what a token file holds."""
        name, token = case.plan.name, None
        content = read(case.path)
        if content is not None:
            text = cases.text_of(content, case)
            token = self.ledger.issued.get(text or "")
            token = None if token is case.stranger else token
            case.digest = hashlib.sha256((text or "").encode()).hexdigest()
            known = {case.plan.identity, *case.former}
            if text in self.ledger.useless:
                self.broken(f"{name}'s file holds a token that is of no use")
            if token and token.identity not in known and case.touched is None:
                self.broken(f"{name}'s file holds a token of {token.identity}")
            if token and not cases.belongs(text or "", token.identity, self._tenant(token)):
                self.broken(f"{name}'s token has the claims of another one")
        if not by_agent:
            case.token = token
            return
        self._judge(case, content, token)
        if token:
            self.tell(f"{name} has {token.number}")

    def _judge(self, case: Case, content: str | None, token: Issued | None) -> None:
        name = case.plan.name
        if content is None or token is None:
            self._judge_none(case, content)
            return
        serves = case.best is None or case.best.ends > self.time.true  # else an older one may be better
        if token.number < case.newest and case.touched is None and serves:
            self.broken(f"{name}'s file holds token {token.number} after {case.newest}")
        right = (os.stat(case.path).st_mode & 0o7777) == MODE  # noqa: PTH116
        if case.touched is not None and token.number >= case.newest and right:
            case.touched = None
        if case.touched is not None:
            case.token = token
            return
        if not right:
            self.broken(f"{name}'s file can be read by others")
        if token is not case.best:
            case.contents = (case.contents[-1], content)
            case.slip, case.unseen, case.vague = 0.0, 0.0, False
        case.token = case.best = token
        case.newest, case.absent = token.number, self.machine.stopping and case.plan.on_stop == "delete"
        case.written_at = self.time.true
        if token.identity == case.plan.identity:
            case.former = set()

    def _judge_none(self, case: Case, content: str | None) -> None:
        """Judge a file that is not there, or holds no token of its own."""
        name, before = case.plan.name, case.token
        case.token = None
        if case.touched is not None:
            return
        if content is None:
            if not case.absent and not (before and self._over(case, before)):
                self.broken(f"{name}'s file is gone")
        elif not case.former:
            self.broken(f"{name}'s file holds no token of its own: {content[:20]!r}… {len(content)} characters")

    def _over(self, case: Case, token: Issued) -> bool:
        # By the clock that the agent had when it was started, which nobody can tell from a right one.
        early = sum(abs(step) for _, step in self._steps[-4:]) if case.vague else 0.0
        return case.plan.on_expiry == "delete" and self.time.true >= token.ends - early - 3

    def _tenant(self, token: Issued) -> str:
        tenant_id: str = self.sites[token.identity.site].handle.provider.registry.tenants[0].id
        return tenant_id

    def forget(self) -> None:
        """Keep nothing of the agent's any longer: its objects are to be counted."""
        self._showing = Showing(self.time)

    # ---- before time passes

    def before_jump(self, elapsed: float) -> None:
        """See that all will still be well when time has passed in which nothing happens."""
        then = elapsed + self.time.suspended
        if then < self._looked_at + INSTANT:
            return
        self._looked_at = then
        if self.machine.ready:
            self._showing.watch(self.machine)
        for case in self.cases.values():
            if wrong := self._wrong_with(case, then):
                raise BrokenError(f"{case.plan.name}{wrong}")
        if then >= self._compare_at:
            self.compare()

    def _wrong_with(self, case: Case, then: float) -> str:  # noqa: PLR0911 - one promise each
        """Return what is wrong with a profile at a time that is about to come, if anything is."""
        if case.outlived(then) and case.plan.name not in self.undeleted:
            return "'s file is still there, and its token is over"
        if case.blocked:
            return ""
        if case.touched is None and then > case.deadline():
            what = f"token {case.token.number}, due {then - case.due():.0f} s ago" if case.token else "no token"
            return f" still has {what}; nothing stood in the way for {then - case.base:.0f} s"
        if case.unpublished(then):
            return " acquired a token, and it is not on disk"
        if case.plan.twin and self._twins.disagree(case, then):
            return f"'s second file does not hold token {case.newest}"
        if case.touched is not None and self._unrepaired(case, then):
            return f"'s file was not put right for {then - case.touched:.0f} s"
        return ""

    def _unrepaired(self, case: Case, then: float) -> bool:
        touched = case.touched or 0.0
        by_scan = self.machine.notices.deaf or case.base > touched  # nothing tells that a disk can be written again
        bound = REPAIRED_WITHIN + (self.rescan if by_scan else 0.0)
        best = case.best  # nobody puts right what is still that of a former client
        serves = best is not None and best.identity == case.plan.identity and best.ends > then
        return serves and then > max(touched, case.base) + bound

    def compare(self, *, strictly: bool = False) -> None:
        """Compare what is shown with what is so, once all is quiet."""
        now = self.time.true
        since = max(self._changed_at, self._disk_fault_at, self._disturbed_at + 31, self.settling_until)
        if not self.machine.running or self.machine.stopping:
            return
        if now < since + QUIET and not strictly:
            self._compare_at = since + QUIET
            return
        self._compare_at = now + QUIET_EVERY
        unseen = REPAIRED_WITHIN + (self.rescan if self.machine.notices.deaf else 0.0)
        self._showing.compare(self.machine, self.cases, since=max(self._started_at, self._disturbed_at), unseen=unseen)
        if self.refused and not self.machine.services.board.agent.config_error:
            raise BrokenError("status does not say that the configuration on disk cannot be used")
        self.hooked.judge(self.cases, self.machine.directory, now)
