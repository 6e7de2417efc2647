"""Make the set of running jobs equal to what is on disk, from the start of the agent to its stop.

A signal or a changed file only says "look again": everything is loaded and compared, and what differs is
restarted. Restarting a profile's job is the only reload mechanism there is; a restarted job goes on with its token,
so nothing is acquired that is not due.
"""

from __future__ import annotations

import contextlib
import math
import signal
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from agent.engine import publishing, reach, requests, telling, tidying, timekeeping
from agent.engine.changes import Changes, plan_changes
from agent.engine.complaints import Complaints
from agent.engine.crew import Crew
from agent.engine.expiry import Expiry
from agent.engine.foothold import Foothold
from agent.engine.guard import Guard
from agent.engine.herald import Herald
from agent.engine.jobs import keep_working
from agent.engine.leaving import Leaving
from agent.engine.monitoring import Monitoring
from agent.engine.objections import objections
from agent.errors import ConfigurationError
from agent.systemd import Manager
from agent.watching import watch
from agent.watching.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from agent.config.model import AgentSettings, Config
    from agent.engine.jobs import Job
    from agent.engine.loading import Loader
    from agent.engine.progress import Progress
    from agent.engine.services import Services


class Supervisor:
    """Runs the jobs of one agent.

    Args of the constructor: ``config`` was just loaded by ``loader``; ``accept`` is told of each configuration that
    comes into force later, such as for the level of the log; ``manager`` is what started this service.
    """

    def __init__(
        self,
        services: Services,
        config: Config,
        loader: Loader,
        accept: Callable[[Config], None] = lambda _config: None,
        manager: Manager | None = None,
    ) -> None:
        self._services, self._config, self._loader, self._accept = services, config, loader, accept
        self._seen: watch.Contents = {}
        self._reloading = anyio.Lock()
        self._leaving = Leaving(services, self._reloading)
        self._waits_for_files = False
        self._watcher: Watcher | None = None
        self._complaints, self._expiry = Complaints(services), Expiry(services)
        self._herald = Herald(services, manager or Manager())
        self._monitoring = Monitoring(services, lambda: self._config.agent, lambda: self._crew.keepers)
        answer = requests.Requests(self, services).answer
        self._foothold = Foothold(services, config.agent, answer, self._restored)
        self._crew: Crew
        self._guard: Guard

    async def run(self, signals: AsyncIterator[signal.Signals]) -> None:
        """Keep all profiles fresh until SIGTERM or SIGINT; SIGHUP looks again.

        Args:
            signals: of this process, as `anyio.open_signal_receiver` yields them.

        Raises:
            BusyError: another agent has taken the runtime directory after it was lost.
        """
        services = self._services
        async with anyio.create_task_group() as tasks:
            self._crew = Crew(services, tasks)
            self._guard = Guard(self._crew, services, self._reloading)
            tasks.start_soon(self._follow_clock)
            tasks.start_soon(reach.tell, services, self._guard.publish)
            tasks.start_soon(services.hooks.run)
            tasks.start_soon(self._leaving.run)
            await self._look()  # at once, so that a disk that does not answer is known
            await tidying.prepare(self._config, services)
            await self._take(self._config)
            tasks.start_soon(services.board.keep_saved, services.workers)  # from now on it knows all profiles
            await tasks.start(self._watch)
            tasks.start_soon(self._guard.keep, lambda: self._config.agent.rescan_interval)
            await tasks.start(
                self._foothold.keep, lambda: self._config.agent.rescan_interval, tasks.cancel_scope.cancel
            )
            tasks.start_soon(self._monitoring.run)
            services.log.info("agent.started", pid=services.board.agent.pid, profiles=len(self._crew.jobs))
            self._herald.ready()
            tasks.start_soon(self._herald.keep, lambda: self._crew.keepers)
            async for number in signals:
                if number != signal.SIGHUP:
                    services.log.info("agent.stopping", signal=number.name)
                    self._herald.stopping()
                    break
                await self._look_again(reason="SIGHUP", asked=True)
            await self._crew.replace(list(self._crew.jobs), [])
            tasks.cancel_scope.cancel()
        if self._foothold.displaced:
            raise self._foothold.displaced
        await self._leave()

    async def _restored(self) -> None:
        """Write again what lay in a directory that was made anew."""
        self._services.board.save_anew()
        self._guard.again()
        await self._guard.publish()

    async def _leave(self) -> None:
        """Leave the disk as the profiles want it; token files stay by default."""
        for profile in self._config.profiles:
            if profile.on_stop == "delete":
                await publishing.delete_all(profile, self._services)
        await self._services.board.save(self._services.workers)
        await self._monitoring.leave()

    async def _follow_clock(self) -> None:
        """Name each step of the wall clock; the keepers judge for themselves what it means to them."""
        async for step in self._services.clock.steps():
            timekeeping.stepped(step, self._services)

    async def _watch(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Compare contents whenever something may have changed; the comparison is the truth, events only hasten it."""
        with Watcher(self._services.clock, reach.watching(self._services)) as self._watcher:
            hint = await self._watcher.hint(self._places, timedelta(0))
            task_status.started()
            while True:
                if hint.kind == "degraded":
                    self._services.log.warning("watch.degraded", message=hint.message)
                if self._config.agent.watch:
                    await self._follow_disk()
                async with self._reloading:  # else these may be the jobs from before
                    self._complaints.look(self._crew.jobs)
                self._expiry.look(self._crew.keepers)
                hint = await self._watcher.hint(self._places, self._interval())

    def _interval(self) -> timedelta:
        """Return when to look again at the latest."""
        interval = self._config.agent.rescan_interval.total_seconds()
        return timedelta(seconds=max(0.0, min(interval, self._complaints.due_in())))

    def _places(self) -> list[Path]:
        return list(self._loader.places(self._config)) if self._config.agent.watch else []

    async def _follow_disk(self) -> None:
        """Reload if something differs from what is in force, once whoever changes it is done."""
        now = await self._look()
        if now != self._seen:
            if await watch.settled(self._look, self._services.clock, self._settle_step(now)) != self._seen:
                await self._look_again(reason="a file changed")
        elif self._waits_for_files:
            await self._look_again(reason="a file was missing")
        elif any(job.unusable for job in self._crew.jobs.values()):
            await self._try_again()

    def _settle_step(self, now: watch.Contents) -> timedelta:
        """Return for how long nothing may change: half a configuration can be a good one, half a certificate cannot."""
        changed = {path for path, _ in now.items() ^ self._seen.items()}
        known = changed <= self._seen.keys() - {*self._config.sources}
        return watch.SETTLE_STEP if known else watch.SETTLE_STEP_OF_CONFIGURATION

    async def _try_again(self) -> None:
        """Load again what cannot be used: time may mend it (not valid yet), or the mode of a folder."""
        async with self._reloading:
            changes = await self._reconcile(self._config, self._config.agent)
            if changes.start:
                telling.loaded(self._config, changes, self._services)

    async def _look(self) -> watch.Contents:
        return await reach.look(self._loader, self._config, self._seen, self._services)

    async def _look_again(self, *, reason: str, asked: bool = False) -> None:
        """Reload because something may have changed; log and status say if it was refused."""
        with contextlib.suppress(ConfigurationError):
            await self.reload(reason=reason, asked=asked)

    async def reload(self, *, reason: str, asked: bool = True) -> Changes:
        """Load everything anew and act on what differs.

        Args:
            reason: for the log.
            asked: whoever writes the configuration says that it is whole.

        Raises:
            ConfigurationError: it cannot be used, and nothing has changed.
        """
        async with self._reloading, self._guard.insisting(asked):
            with self._herald.reloading():
                return await self._reload(reason, asked=asked)

    async def _reload(self, reason: str, *, asked: bool) -> Changes:
        try:
            config = await self._candidate()
        except ConfigurationError as error:
            self._seen = {**await self._look(), **self._loader.read}
            if self._services.board.agent.config_error != error.message:  # said once as long as it stays the same
                self._services.log.error("config.rejected", reason=reason, message=error.message)
                self._services.board.tally.reloaded("failure")
            self._services.board.update_agent(config_error=error.message)
            raise
        changes = await self._take(config, asked=asked)
        self._services.board.tally.reloaded("success")
        return changes

    async def _candidate(self) -> Config:
        """Return the configuration on disk, if it can replace the one in force.

        Raises:
            ConfigurationError: it cannot, and why.
        """
        config = await reach.configuration(self._loader, self._config, self._services)
        desired = await self._desired(config)
        self._waits_for_files = False
        if problems := objections(config, desired, self._config, self._crew.jobs):
            self._waits_for_files = True  # which are not watched yet: the next scan looks again
            raise ConfigurationError(problems)
        return config

    async def plan(self) -> Changes:
        """Return what a reload would do now; nothing is changed, not even what is shown.

        Raises:
            ConfigurationError: the configuration on disk cannot be used.
        """
        async with self._reloading:
            config = await self._candidate()
            settings = config.agent, self._config.agent
            return plan_changes(await self._desired(config), self._crew.jobs, settings)

    async def refresh(self, names: Iterable[str]) -> dict[str, Progress]:
        """Acquire new tokens now and return how each profile stands after one attempt.

        Args:
            names: of running profiles; others are left out.
        """
        async with self._reloading:
            running = self._crew.jobs.keys() & set(names)
            keepers = [keeper for name in running if (keeper := await self._crew.restart(name))]
        for keeper in keepers:
            await keeper.stepped()
        return {keeper.job.profile.name: keeper.progress for keeper in keepers}

    async def _take(self, config: Config, *, asked: bool = True) -> Changes:
        """Bring a configuration into force."""
        before, self._config = self._config.agent, config
        self._accept(config)
        self._seen = self._loader.seen(config, await self._look())
        changes = await self._reconcile(config, before, at_once=asked)
        self._services.hooks.arrange(config.profiles)
        self._services.board.arrange([profile.name for profile in config.profiles])
        self._services.board.update_agent(loaded_at=self._services.clock.now(), config_error=None)
        telling.loaded(config, changes, self._services)
        return changes

    async def _reconcile(self, config: Config, before: AgentSettings, *, at_once: bool = False) -> Changes:
        """Make the running jobs those of a configuration, with what it names as it is on disk now."""
        desired = await self._desired(config)
        quiet = self._complaints.due_in()
        self._complaints.look(desired)
        if self._watcher and self._complaints.due_in() < quiet == math.inf:
            self._watcher.again()  # which looks in time whether the complaint lasts
        changes = plan_changes(desired, self._crew.jobs, (config.agent, before))
        await tidying.claim(config, self._services)
        await self._crew.replace(changes.stop, [desired[name] for name in changes.start])
        await self._leaving.changed(desired, changes.removed, at_once=at_once)
        self._guard.again()
        return changes

    async def _desired(self, config: Config) -> dict[str, Job]:
        """Load all jobs; a credential that cannot be used does not displace one that works."""
        now = self._services.clock.now()
        loaded = await reach.jobs(self._loader, config, now, self._services)
        running = self._crew.jobs
        refused = {identity for keeper in self._crew.keepers for identity in keeper.progress.refused}
        return {job.profile.name: keep_working(job, running, refused) for job in loaded}
