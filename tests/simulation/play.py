"""Makes the events of a scenario happen, one after the other, and brings all to a good end."""

from __future__ import annotations

import functools
import heapq
import itertools
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from tests.simulation import ending, events
from tests.simulation.clocks import Time, stamp
from tests.simulation.files import Files
from tests.simulation.machine import TICK, Hooks, Machine
from tests.simulation.providers import Identity, Ledger, Site, Way
from tests.simulation.watchman import Watchman

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.config.model import Profile
    from tests.simulation.providers import Answered
    from tests.simulation.scenario import Scenario

RESTART_AFTER = 5.0
"""Seconds; RestartSec= of the unit."""
FAILED_AGAIN_AFTER = 120.0


@dataclass
class Trace:
    """What happened, line by line; ``tell`` is told each."""

    time: Time
    tell: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)

    def line(self, text: str) -> None:
        self.tell(f"{stamp(self.time.true)} {text}")


class Log:
    """The engine's logger: what may differ between two runs of a seed stays out of the trace."""

    _TOLD = ("kind", "code", "failures", "retry_at", "event", "added", "changed", "removed", "reason", "exit_code")

    def __init__(self, trace: Trace, watchman: Watchman) -> None:
        self._trace, self._watchman = trace, watchman

    def _record(self, level: str, event: str, fields: dict[str, Any]) -> None:
        told = " ".join(f"{name}={fields[name]}" for name in self._TOLD if fields.get(name) not in (None, []))
        self._trace.line(f"{level} {event} {fields.get('profile', '')} {told}".rstrip())
        self._trace.counts[event] += 1
        self._watchman.logged(event, fields)

    def debug(self, event: str, **fields: Any) -> None:
        self._record("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._record("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._record("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._record("error", event, fields)


class Play:
    """One scenario at work."""

    def __init__(self, scenario: Scenario, directory: Path, tell: Callable[[str], None], *, mounted: bool) -> None:
        self.scenario, self.time = scenario, Time()
        self.random = Random(f"play {scenario.seed}")  # noqa: S311 - chance that can be replayed
        self.trace = Trace(self.time, tell)
        self.counts = self.trace.counts
        self.ledger = Ledger()
        self.sites = [Site(number, self.time, timedelta(seconds=life)) for number, life in enumerate(scenario.sites)]
        self.watchman = Watchman(self.time, self.ledger, self.sites, self.trace.line)
        hooks = Hooks(
            self.watchman.before_jump,
            self._touched,
            Log(self.trace, self.watchman),
            self._way,
        )
        chance = Random(f"agent {scenario.seed}")  # noqa: S311
        self.machine = self.watchman.machine = Machine(directory, chance, self.time, mounted, hooks)
        self.machine.slow_disk, self.machine.notices.deaf = scenario.slow_disk, scenario.deaf
        self.watchman.rescan = float(scenario.rescan)
        self.files = Files(directory, self)
        self._queue: list[tuple[float, int, str, Callable[[], None]]] = []
        self._order = itertools.count()
        self._kill_after: tuple[str, int] | None = None
        self.down_for, self.leftover, self.meddled = RESTART_AFTER, False, ""
        self.after_a_first_file: Callable[[], None] | None = None
        self.stopped = False
        self.way_type: type[Way] = Way
        self.profiles = scenario.profiles

    def _pass_time(self, delta: timedelta) -> None:
        if delta and self.machine.loop:
            self.machine.loop.wait_in_thread(delta)

    def _way(self, profile: Profile) -> Way:
        site = next(each for each in self.sites if each.handle.authority == profile.authority_url)
        identity = Identity(site.number, profile.client_id, profile.scopes[0].removesuffix("/.default"))
        return self.way_type(site, identity, self.time, self.ledger, self, advance=self._pass_time)

    # ---- what the machine and the providers tell

    def asked(self, identity: Identity, *, token: bool) -> None:
        self.watchman.asked(identity, token=token)
        self._arm("request")

    def answered(self, answer: Answered) -> None:
        self.counts["acquisitions"] += answer.issued is not None
        self.watchman.answered(answer)

    def _touched(self) -> None:
        if self.watchman.touched() and self.after_a_first_file:
            fail, self.after_a_first_file = self.after_a_first_file, None
            self.trace.line("EVENT between the writing of two files")
            fail()
            self.watchman.update()
        self._arm("disk")

    def _arm(self, what: str) -> None:
        """Let the process be killed some steps from now, if that was what it waited for."""
        loop = self.machine.loop
        if loop and self._kill_after and self._kill_after[0] == what:
            loop.kill_at = loop.steps + 1 + self._kill_after[1]
            self._kill_after = None

    # ---- the course of events

    def run(self) -> None:
        """Play all of it, and then mend everything and see that all is well."""
        for number in range(self.scenario.profiles):
            self.files.add_profile(number)
        self.files.write_configuration()
        self.start()
        for event in self.scenario.events:
            self.at(event.at, str(event), functools.partial(events.happen, self, event))
        self.pass_until(self.scenario.days * 86400)
        ending.mend(self)

    def pass_until(self, true: float) -> None:
        """Let time pass, with all that happens in it."""
        while self._queue and self._queue[0][0] <= true:
            self._next()
        while self.time.true < true - TICK:
            self.at(true, "", lambda: None)
            self._next()

    def at(self, at: float, what: str, happen: Callable[[], None]) -> None:
        """Let something happen at a time."""
        heapq.heappush(self._queue, (at, next(self._order), what, happen))

    def later(self, seconds: float, what: str, happen: Callable[[], None]) -> None:
        """Let something happen in a while."""
        self.at(self.time.true + seconds, what, happen)
        loop = self.machine.loop
        if loop and loop.is_running():  # until something that was to come later
            loop.call_later(seconds, loop.stop)

    def _next(self) -> None:
        """Let the next thing happen, or less if the process ends before."""
        at = self._queue[0][0]
        was_running = self.machine.running
        self.machine.run_until(at)
        if was_running and not self.machine.running:
            self._died()
        elif self.time.true >= at - TICK:
            _, _, what, happen = heapq.heappop(self._queue)
            if what:
                self.trace.line(f"EVENT {what}")
            happen()
            self.watchman.happened()
        self.settle()
        self.ledger.prune(self.time.true - 3 * 86400)

    def settle(self) -> None:
        """See what the last thing has changed."""
        self.machine.notices.poll()
        self.watchman.touched()
        self.watchman.update()

    # ---- the process

    def _died(self) -> None:
        """The process was killed, or could not start: it is started again."""
        self.trace.line("process ended")
        self.counts["ends"] += 1
        self.watchman.ended()
        if self.leftover:
            self.files.leave_half_a_file()
        if self.meddled:
            self.files.meddle(self.meddled)
        self.leftover, self.meddled, self._kill_after = False, "", None
        # Who cannot start for a full disk exits with 78: an operator tries again now and then.
        self.later(FAILED_AGAIN_AFTER if self.machine.failed_to_start else self.down_for, "", self.start)

    def kill(self) -> None:
        """Kill the process now."""
        if self.machine.running:
            self.machine.kill()
            self._died()

    def kill_after(self, what: str, steps: int) -> None:
        """Kill the process some steps of its loop after the next request, or disk work."""
        self._kill_after = (what, steps)

    def start(self) -> None:
        """Start the agent, as systemd does."""
        if self.machine.running or self.stopped:
            return
        if self.files.broken:
            self.later(60.0, "", self.start)  # it would exit with 78; whoever mends the configuration starts it again
            return
        self.files.adopt()
        self.machine.start()
        self.watchman.started()
        self.counts["starts"] += 1
        self.down_for = RESTART_AFTER

    def stop(self, down: float) -> None:
        """Stop the agent as an operator does, and start it again after a while."""
        if not self.machine.ready:
            self.kill()  # a signal that nobody catches yet
        elif self.machine.running:
            self.files.before_stop()
            self.machine.stopping = True
            self.watchman.update()
            if self.machine.stop():
                self.files.after_stop()
            self.watchman.ended()
            self.counts["stops"] += 1
            self.later(down, "", self.start)

    def next_number(self) -> int:
        """Return the number of a further profile."""
        self.profiles += 1
        return self.profiles - 1

    def forget_events(self) -> None:
        """Let nothing happen any more of what was to come, but a restart."""
        self._queue = [each for each in self._queue if each[3] == self.start]
        heapq.heapify(self._queue)
        self._kill_after = self.after_a_first_file = None
