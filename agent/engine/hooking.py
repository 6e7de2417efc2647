"""When hooks run: after a new token is on disk, beside everything else; nothing waits for them but the end of `once`.

Each profile's hook runs at most once in its `min_interval`, however often its token changed meanwhile. A unit that
several profiles name is reloaded once for all whose tokens lay on disk when that began. What fails is tried again by
itself, until it works or a newer token begins anew; that a hook is through is remembered over a restart.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from agent import clock, hookplan, hooks, pidfile, status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from structlog.typing import FilteringBoundLogger

    from agent.clock import Clock
    from agent.config.model import OnRefresh, Profile
    from agent.engine.board import Board
    from agent.hookplan import Kind, Outcome
    from agent.tokens import AccessToken
    from agent.workers import Workers

LONG_AGO = float("-inf")


@dataclass(frozen=True, slots=True)
class _Due:
    """A hook that has to run: ``number`` in the order of all writes and reloads, ``not_before`` in boot time."""

    profile: Profile
    hook: OnRefresh
    token: AccessToken
    number: int
    not_before: float
    kinds: tuple[Kind, ...]
    failures: int = 0


class Hooks:
    """Runs the hooks of all profiles; touched by the event loop only.

    Args of the constructor: ``search_path`` is where programs are looked for, as in PATH.
    """

    def __init__(
        self,
        clock: Clock,
        workers: Workers,
        board: Board,
        logger: FilteringBoundLogger,
        search_path: str = hooks.SEARCH_PATH,
    ) -> None:
        self._clock, self._workers, self._board, self._log = clock, workers, board, logger
        self._search_path = search_path
        self._due: dict[str, _Due] = {}
        self._running: set[str] = set()
        self._began: dict[str, float] = {}
        self._reloading: set[str] = set()
        self._reload_tried: dict[str, float] = {}
        self._reloaded: dict[str, int] = {}
        self._order = itertools.count()
        self._last = False
        self._changed = anyio.Event()

    # ---- what the rest of the engine tells

    def published(self, profile: Profile, token: AccessToken, *, changed: bool) -> None:
        """Take note that a token is on disk.

        Args:
            profile: whose it is.
            token: the token.
            changed: whether a file has another content than before; if not, the hook runs only if it never came
                to its end for this token, such as because the agent was stopped.
        """
        hook, name = profile.on_refresh, profile.name
        if hook is None or (not changed and (name in self._due or self._board.is_announced(name, token))):
            return
        not_before = self._clock.boot() + hookplan.settle(hook).total_seconds()
        if (waiting := self._due.get(name)) and not waiting.failures:  # a stream of changes does not put it off
            not_before = min(not_before, waiting.not_before)
        self._due[name] = _Due(profile, hook, token, next(self._order), not_before, hookplan.kinds(hook))
        self._changed.set()

    def arrange(self, profiles: Iterable[Profile]) -> None:
        """Follow the configuration: hooks that left it are dropped, those that changed begin anew."""
        wanted = {profile.name: profile for profile in profiles}
        for name, due in list(self._due.items()):
            profile = wanted.get(name)
            if profile is None or profile.on_refresh is None:
                del self._due[name]
            elif (profile.on_refresh, profile.token_file) != (due.hook, due.profile.token_file):
                del self._due[name]
                self.published(profile, due.token, changed=True)
        for name, profile in wanted.items():
            known = self._board.profiles.get(name)
            if profile.on_refresh is None and known and known.hook != status.HookStatus():
                self._board.update(name, hook=status.HookStatus())
        self._began = {name: at for name, at in self._began.items() if name in wanted}
        self._changed.set()

    async def run(self) -> None:
        """Run hooks as they fall due, until cancelled; those at work are killed then."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._changed = anyio.Event()
                wait = self._start_due(tasks)
                with anyio.move_on_after(min(wait, clock.SLICE) if self._due else None):
                    await self._changed.wait()

    async def finish(self) -> None:
        """Run all that is due once, without waiting for its time; what fails is not tried again."""
        self._last = True
        async with anyio.create_task_group() as tasks:
            while self._due:
                self._changed = anyio.Event()
                self._start_due(tasks)
                await self._changed.wait()

    # ---- when

    def _start_due(self, tasks: anyio.abc.TaskGroup) -> float:
        """Start what is due, and return the seconds until the next."""
        wait = float("inf")
        for name, due in self._due.items():
            units = self._units(due)
            if name in self._running or self._reloading.intersection(units):
                continue  # its end wakes us
            delay = self._delay(due, units)
            if delay > 0:
                wait = min(wait, delay)
                continue
            now = self._clock.boot()
            self._running.add(name)
            self._began[name] = now
            self._reloading.update(units)
            self._reload_tried |= dict.fromkeys(units, now)
            tasks.start_soon(self._run, due, units, name=f"hook of {name}")
        return wait

    def _units(self, due: _Due) -> tuple[str, ...]:
        """Return the units to reload: not those that somebody's hook has reloaded since this token was written."""
        units = due.hook.reload_unit if "reload_unit" in due.kinds else ()
        return tuple(unit for unit in units if self._reloaded.get(unit, -1) < due.number)

    def _delay(self, due: _Due, units: Iterable[str]) -> float:
        """Return how many seconds have to pass first."""
        if self._last:
            return 0.0
        last = [self._began.get(due.profile.name, LONG_AGO), *(self._reload_tried.get(u, LONG_AGO) for u in units)]
        earliest = max(due.not_before, max(last) + due.hook.min_interval.total_seconds())
        return earliest - self._clock.boot()

    # ---- one run

    async def _run(self, due: _Due, units: tuple[str, ...]) -> None:
        ran_at, began, outcomes = self._clock.now(), self._clock.boot(), {}
        try:
            for kind in due.kinds:
                outcomes[kind] = await self._step(kind, due, units)
        finally:
            self._running.discard(due.profile.name)
            self._changed.set()
        self._conclude(due, outcomes, ran_at, self._clock.boot() - began)

    async def _step(self, kind: Kind, due: _Due, units: tuple[str, ...]) -> Outcome:
        if kind == "reload_unit":
            return await self._reload(due, units)
        if kind == "signal" and (wanted := due.hook.signal):
            send = partial(pidfile.send_signal, wanted.pid_file, wanted.signal)
            return await self._workers.hook(lambda: (send, lambda: None))
        return await self._execute(hookplan.arguments(due.profile, due.hook), due)

    async def _reload(self, due: _Due, units: tuple[str, ...]) -> Outcome:
        """Reload units, and note it for all profiles that name them."""
        if not units:
            return hookplan.Outcome(0)
        number = next(self._order)
        try:
            outcome = await self._execute(hooks.reload_command(units, self._search_path), due)
        finally:
            self._reloading.difference_update(units)
            self._changed.set()
        if not outcome.exit_code:
            self._reloaded |= dict.fromkeys(units, number)
        return hookplan.reloaded(outcome)

    async def _execute(self, argv: list[str], due: _Due) -> Outcome:
        environ = hookplan.environment(due.profile, due.token, self._search_path)
        execution = hooks.Execution(argv, environ, due.hook.timeout.total_seconds())
        return await self._workers.hook(lambda: (execution.run, execution.abort))

    def _conclude(self, due: _Due, outcomes: Mapping[Kind, Outcome], ran_at: datetime, seconds: float) -> None:
        """Say what came of it, and decide whether it is tried again."""
        name, failed = due.profile.name, {kind: each for kind, each in outcomes.items() if each.exit_code}
        again = tuple(kind for kind, outcome in failed.items() if outcome.again)
        due_again = None
        if self._due.get(name) is due:  # neither a newer token nor another configuration has taken its place
            del self._due[name]
            if not again:
                self._board.announce(name, due.token)
            elif not self._last:
                failures = due.failures + 1
                wait = hookplan.backoff(due.hook, failures)
                due_again = self._clock.now() + wait
                not_before = self._clock.boot() + wait.total_seconds()
                self._due[name] = replace(due, kinds=again, failures=failures, not_before=not_before)
        shown = hookplan.summary(ran_at, outcomes)
        if name in self._board.profiles:
            self._board.update(name, hook=shown)
        self._tell(due, failed, shown, seconds, due_again)

    def _tell(
        self,
        due: _Due,
        failed: Mapping[Kind, Outcome],
        shown: status.HookStatus,
        seconds: float,
        due_again: datetime | None,
    ) -> None:
        """Log the run as one event."""
        self._board.tally.count("hook_runs", due.profile.name, "failure" if failed else "success")
        fields = {"profile": due.profile.name, "steps": list(due.kinds), "exit_code": shown.exit_code}
        if not failed:
            self._log.info("hook.finished", **fields, seconds=round(seconds, 3))
            return
        self._log.warning(
            "hook.failed",
            **fields,
            seconds=round(seconds, 3),
            message=shown.error,
            hint="; ".join(dict.fromkeys(outcome.hint for outcome in failed.values() if outcome.hint)),
            output=hookplan.said(failed.values(), due.token),
            failures=due.failures + 1,
            retry_at=status.rfc3339(due_again),
        )
