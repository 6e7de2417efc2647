"""Second token files, in a directory of their own: a kill, a full disk or a reload may come between the two.

Nobody but the agent touches them, so that all rules hold all the time; and once all is quiet both hold the same token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.cases import text_of
from tests.simulation.showing import look_at, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.cases import Case
    from tests.simulation.providers import Ledger

WITHIN = 8.0
"""Seconds in which the second file follows the first."""


class Twins:
    """Looks at second files; ``broken`` is called with what is wrong."""

    def __init__(self, ledger: Ledger, broken: Callable[[str], None]) -> None:
        self._ledger, self._broken = ledger, broken
        self._seen: dict[str, tuple[int, ...] | None] = {}

    def look(self, case: Case, now: float) -> bool:
        """Judge a second file if it is not as it was, and return whether it was not."""
        name, path = case.plan.name, case.twin
        look, before = look_at(path), self._seen.get(name)
        if look == before:
            return False
        self._seen[name], case.twin_at, case.twin_number = look, now, 0
        if look is None:
            return True
        if before and look[0] == before[0] and look[1] != before[1]:
            self._broken(f"{name}'s second file was written in place")
        token = self._ledger.issued.get(text_of(read(path) or "", case) or "")
        if token is None or token.identity not in {case.plan.identity, *case.former}:
            self._broken(f"{name}'s second file holds no token of its own")
            return True
        serves = case.best is None or case.best.ends > now
        if token.number < case.twin_newest and serves:
            self._broken(f"{name}'s second file holds token {token.number} after {case.twin_newest}")
        case.twin_number = case.twin_newest = token.number
        return True

    def disagree(self, case: Case, then: float) -> bool:
        """Whether a second file ought to hold the token of the first by a time, and does not."""
        if case.token is None or not case.sure:
            return False
        since = max(case.base, case.written_at, case.twin_at)
        return case.twin_number != case.token.number and then > since + WITHIN
