"""Says which credentials on disk cannot be used: a warning at first, an error once it has lasted.

While files are being replaced one may be half there, or a certificate may not match its key yet; the credential
before serves on, and a moment later all is well. Only what stays like that is for a person to mend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.engine.jobs import Job, Unusable
    from agent.engine.services import Services


@dataclass(slots=True)
class _Complaint:
    """Since when a profile has a credential that cannot be used (seconds of boot time), and what the log says of it."""

    since: float
    serious: bool = False
    said: str = ""

    def news(self, unusable: Unusable, *, serious: bool) -> bool:
        """Return whether there is something to say; a warning is given once, whatever becomes of the file meanwhile."""
        new = not self.said or (serious and (not self.serious or unusable.message != self.said))
        if new:
            self.serious, self.said = serious, unusable.message
        return new


class Complaints:
    """Remembers what was said of each profile until all its credentials can be used."""

    LASTING = 120.0
    """Seconds; tools that write key and certificate one after the other take some seconds at most."""
    TICK = 0.01
    """Seconds; whoever was to come again in time may be early by this much."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: dict[str, _Complaint] = {}

    def look(self, jobs: Mapping[str, Job]) -> None:
        """Say what is news of all jobs; where nothing can be used at all, it is an error at once."""
        now = self._services.clock.boot()
        broken = {name: job for name, job in jobs.items() if job.unusable}
        self._known = {name: self._known.get(name) or _Complaint(now) for name in broken}
        for name, job in broken.items():
            known, unusable = self._known[name], job.unusable[0]
            serious = not job.usable or now - known.since >= self.LASTING - self.TICK
            if known.news(unusable, serious=serious):
                log = self._services.log.error if serious else self._services.log.warning
                log(
                    "certificate.rejected",
                    profile=name,
                    path=str(unusable.path),
                    message=unusable.message,
                    hint=unusable.hint,
                )

    def due_in(self) -> float:
        """Return the seconds until a warning has lasted so long that it is an error."""
        now = self._services.clock.boot()
        waiting = [known.since for known in self._known.values() if not known.serious]
        return min(waiting, default=math.inf) + self.LASTING - now
