"""Watches hooks: each sees the newest token, and none runs more often than it may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.cases import EARLY
from tests.simulation.machine import BrokenError
from tests.simulation.plans import HOOK_INTERVAL
from tests.simulation.showing import read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.simulation.cases import Case

SETTLED = 600.0
"""Seconds after hooks failed, or began to fail: what fails is tried again after five minutes at the latest."""


class Hooked:
    """What is known of hooks; ``broken`` is called with what is wrong. ``changed_at`` is when they last failed."""

    def __init__(self, broken: Callable[[str], None]) -> None:
        self._broken = broken
        self._ran: dict[str, float] = {}
        self.changed_at = 0.0

    def forget(self) -> None:
        """A new process of the agent does not know when hooks ran."""
        self._ran.clear()

    def ran(self, name: str, now: float) -> None:
        """Hear that a hook has run, which takes no time here."""
        since = now - self._ran.get(name, float("-inf"))
        if since < HOOK_INTERVAL - EARLY:
            self._broken(f"{name}'s hook ran twice within {since:.1f} s")
        self._ran[name] = now

    def judge(self, cases: Mapping[str, Case], directory: Path, now: float) -> None:
        """See that every hook has seen the newest token."""
        if now <= self.changed_at + SETTLED:
            return
        for name, case in cases.items():
            if case.plan.hook and case.sure and read(directory / f"told-{name}") != read(case.path):
                raise BrokenError(f"{name}'s hook was not told of the newest token")
