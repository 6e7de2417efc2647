"""Hears what the agent says of itself in its log, and calls out what it must not say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.asking import Asking
from tests.simulation.hooked import Hooked

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.cases import Case
    from tests.simulation.clocks import Time
    from tests.simulation.providers import Ledger, Site


class Hearing(Asking):
    """What the agent said: whose certificate it has ``loaded`` since its start, and whose files are ``undeleted``."""

    def __init__(self, time: Time, ledger: Ledger, sites: list[Site], tell: Callable[[str], None]) -> None:
        super().__init__(time, ledger, sites, tell)
        self.hooked = Hooked(self.broken)
        self.loaded: set[str] = set()
        self.undeleted: set[str] = set()

    def happened(self) -> None:
        """Something was done to the machine, or by the agent."""

    def logged(self, event: str, fields: dict[str, Any]) -> None:
        """Hear of what the agent says."""
        self.happened()
        if event == "agent.started":
            self._leftovers()
        elif event in ("hook.finished", "hook.failed"):
            self.hooked.ran(fields["profile"], self.time.true)
        elif event == "certificate.loaded":
            self.loaded.add(fields["profile"])
        elif event == "token.undeleted":
            self.undeleted.add(fields["profile"])
        elif event == "certificate.rejected" and (case := self.cases.get(fields["profile"])):
            case.put_off_at = self.time.true
        elif event == "token.acquired" and (case := self.cases.get(fields["profile"])):
            self._acquired(case, fields["token_sha256"])

    def _leftovers(self) -> None:
        """See that a start has swept away what a kill left."""
        run, state = self.machine.run_disk, self.machine.state_disk
        left = [] if run.fault or state.fault else [path.name for path in run.path.rglob(".*.tmp")]
        if left:
            self.broken(f"temporary files are left after a start: {left}")

    def _acquired(self, case: Case, fingerprint: str) -> None:
        issued = self.ledger.fingerprints.get(fingerprint)
        if fingerprint in self.ledger.useless:
            self.broken(f"{case.plan.name} acquired a token that is of no use")
        elif issued is None or issued.identity not in {case.plan.identity, *case.former}:
            self.broken(f"{case.plan.name} acquired a token that is not its own")
        elif issued.identity == case.plan.identity:
            case.acquired = (issued, self.time.true)
