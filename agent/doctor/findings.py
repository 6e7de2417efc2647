"""What an examination finds: a fact, how bad it is, and its fix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Level = Literal["ok", "note", "warning", "problem"]
LOCAL, PASSING = 78, 75
"""Exit codes (sysexits.h): a person must act here; or network and clock, where trying again later can help."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        area: what was examined: agent, unit, configuration, status, credential, token file, reader, network, clock.
        subject: of which there can be several: a profile, a provider.
        heading: what it stands below when it is printed.
        passes: whether trying again later can help.
    """

    area: str
    subject: str
    heading: str
    level: Level
    message: str
    fix: str = ""
    passes: bool = False

    def plain(self) -> dict[str, str]:
        """Return what programs get."""
        names = ("area", "subject", "level", "message", "fix")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Topic:
    """An area and a subject, to say something about."""

    area: str
    subject: str
    heading: str

    @classmethod
    def of_profile(cls, area: str, name: str) -> Topic:
        """Return a topic of a profile."""
        return cls(area, name, f"profile {name}")

    def ok(self, message: str) -> Finding:
        """Something is as it should be."""
        return Finding(self.area, self.subject, self.heading, "ok", message)

    def note(self, message: str, fix: str = "") -> Finding:
        """Something is good to know."""
        return Finding(self.area, self.subject, self.heading, "note", message, fix)

    def warning(self, message: str, fix: str) -> Finding:
        """Something works but deserves a look."""
        return Finding(self.area, self.subject, self.heading, "warning", message, fix)

    def problem(self, message: str, fix: str, *, passes: bool = False) -> Finding:
        """Something is wrong."""
        return Finding(self.area, self.subject, self.heading, "problem", message, fix, passes)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 without problems, else the code that most needs a person."""
    return max((PASSING if each.passes else LOCAL for each in findings if each.level == "problem"), default=0)
