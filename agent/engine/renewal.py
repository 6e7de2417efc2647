"""Keep one profile fresh: acquire, check, publish, wait; for ever, whatever happens.

``once`` takes the same steps a single time. When is decided by `schedule`, with which credential by `rotation`;
everything done is done by an edge. An edge's error becomes part of the profile's progress, and one log event.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from agent import clock, rotation, schedule, state, tokens
from agent.engine import acquisition, publishing, telling
from agent.engine.progress import Progress, is_told_to_wait, noted, retry_at, shown
from agent.errors import AcquisitionError, AgentError, CredentialError, OutputError, RejectedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from agent.credentials.store import Credential
    from agent.engine.jobs import Job
    from agent.engine.services import Services
    from agent.tokens import AccessToken


def refresh_at(job: Job, token: AccessToken, services: Services) -> datetime:
    """Return when this token is to be renewed."""
    return schedule.refresh_at(token, job.profile.refresh, services.jitter(job.profile.name))


class Keeper:
    """Keeps one profile fresh. ``progress`` is where it stands; a successor may begin there (`progress.inherit`).

    ``sleeps_until`` is when it means to wake up; None while it is at work.
    """

    def __init__(self, job: Job, services: Services, progress: Progress | None = None) -> None:
        self.job = job
        self.progress = progress or Progress(next_at=services.clock.now())
        self._services, self._profile = services, job.profile
        self._offset = clock.offset(services.clock)
        self._writing = anyio.Lock()  # the files have one writer at a time: a step or a repair
        self._stepped = anyio.Event()
        self.sleeps_until: datetime | None = None

    async def run(self) -> None:
        """Keep the profile's token files fresh until cancelled."""
        try:
            await self._run()
        finally:
            self._rejudge()  # a successor goes on from here, by the clock as it is now
            self._stepped.set()  # whoever waits for a step of ours waits in vain

    async def _run(self) -> None:
        await self.resume()
        while True:
            self.show()
            self.sleeps_until = self._wake_at()
            await self._services.clock.sleep_until(self.sleeps_until)
            self.sleeps_until = None
            self._rejudge()
            now = self._services.clock.now()
            if self.progress.next_at <= now:
                await self.step()
            elif self._candidate_at() <= now:
                await self.prove()
            elif self.progress.ends_at <= now:
                await self.expire()

    async def resume(self) -> None:
        """Find out what is there: a token that belongs to this profile is used until it is due."""
        if self.progress.unpublished:
            return  # the next step writes it, and a file may have it already
        token, superseded = self.progress.token, self.progress.superseded
        if token is None:
            token, superseded, proven = await publishing.recall(self._profile, self._services)
            self.progress = replace(self.progress, proven=proven)
        now = self._services.clock.now()
        if token is None or superseded or token.expires_at <= now:  # a new one is due; an expired one is dealt with
            self.progress = replace(self.progress, token=token, superseded=superseded)
            return
        try:
            tokens.check(token, self._profile.expect)
            if self.progress.token is None and token.acquired_at < now + clock.STEP:  # else the clock was set back
                self.progress = replace(self.progress, next_at=refresh_at(self.job, token, self._services))
            await self._publish(token)  # repairs what changed meanwhile; costs nothing if nothing did
        except AcquisitionError:
            self.progress = replace(self.progress, next_at=now)  # not what the profile expects (any more)
        except OutputError as error:
            self.progress = replace(self.progress, token=token, unpublished=token)
            self._failed(error)

    @property
    def in_use(self) -> Credential | None:
        """The credential that worked last, or will be tried first."""
        return self.progress.accepted or next(iter(self.job.usable), None)

    async def step(self) -> None:
        """Make one attempt: a new token acquired, checked and on disk; or a failure, noted."""
        try:
            await self._attempt()
        finally:
            self._stepped.set()

    async def stepped(self) -> None:
        """Wait for the end of the first attempt, however long ago, or of the keeper."""
        await self._stepped.wait()

    async def _attempt(self) -> None:
        token, now = self.progress.unpublished, self._services.clock.now()
        try:
            if token is None or now >= refresh_at(self.job, token, self._services):
                token = await self._acquire(self._usable(now))
            await self._publish(token)
        except AgentError as error:
            # Also where there is no newer one now: some files may have it, and would get the old one back.
            serves = token is not None and token.expires_at > now
            self.progress = replace(self.progress, unpublished=token if serves else None)
            self._failed(error)
        else:
            self._succeeded(token)

    async def prove(self) -> None:
        """Try a new credential though no token is needed; accepted, it and its token take over."""
        now = self._services.clock.now()
        for candidate in rotation.due(self._candidates(), self.progress.refused, now):
            try:
                token = await self._ask(candidate)
            except AgentError as error:
                self._refuse(candidate, error)
                if self.progress.rest_until:
                    return
                continue
            self._accept(candidate)
            self.progress = replace(self.progress, unpublished=token, next_at=self._services.clock.now())
            await self.step()
            return

    @property
    def has_written(self) -> bool:
        """Whether there is a token that ought to be in the profile's files."""
        return self.progress.token is not None and not (self.progress.expired or self.progress.superseded)

    async def repair(self) -> Sequence[Path]:
        """Put the token files right, without an acquisition; return those that had to be.

        Raises:
            OutputError: the first of those that could not be.
        """
        async with self._writing:
            token, before = self.progress.unpublished or self.progress.token, self.progress.token
            if token is None or not self.has_written:
                return ()
            event = publishing.REPAIRED
            repaired = await publishing.publish(self._profile, token, self._services, event=event, before=before)
            if self.progress.unpublished is token:
                self.progress = replace(self.progress, token=token)
                self.show()
            return repaired

    async def examine(self) -> None:
        """Put on the board which of the files have a good token, though none is put right now."""
        async with self._writing:
            good = [each for each in (self.progress.token, self.progress.unpublished) if each]
            if good and self.has_written:
                await publishing.examine(self._profile, good, self._services)

    def troubled(self, error: OutputError | None) -> None:
        """Note what keeps the files from being what they were written as, or that nothing does."""
        if error or self.progress.trouble:
            trouble = noted(error, self._services.clock.now()) if error else None
            self.progress = replace(self.progress, trouble=trouble)
            self.show()

    async def expire(self) -> None:
        """Deal with a token that ended before a new one came."""
        self.progress = replace(self.progress, expired=True)
        self._services.log.error("token.expired", profile=self._profile.name)
        if self._profile.on_expiry == "delete":
            async with self._writing:
                await publishing.delete_all(self._profile, self._services, newer=self.progress.unpublished)

    def make_due(self) -> None:
        """Let the next step be now, and with what was refused before: somebody may just have registered it."""
        now = self._services.clock.now()
        self.progress = replace(self.progress, next_at=now, refused={}, urgent=True, rest_until=None)

    def show(self) -> None:
        """Put the progress on the board."""
        self._services.board.update(self._profile.name, **shown(self.job, self.progress))

    def _wake_at(self) -> datetime:
        """Return what comes first: the next attempt, a candidate's turn, or the end of the token."""
        return min(self.progress.next_at, self.progress.ends_at, self._candidate_at())

    def _candidate_at(self) -> datetime:
        if self.progress.failures and self.progress.accepted is None:
            return schedule.NEVER  # there is nothing else: each attempt tries them, and they are asked no more often
        due_at = rotation.due_at(self._candidates(), self.progress.refused)
        return max(due_at, self.progress.rest_until or due_at)

    def _candidates(self) -> Sequence[Credential]:
        return rotation.newer(self.job.usable, self.progress.proven)

    def _usable(self, now: datetime) -> Sequence[Credential]:
        """Return the credentials to try now; if nothing can be used, say why.

        Raises:
            CredentialError: there is none.
        """
        usable = rotation.order(self.job.usable, self.progress.accepted, self.progress.refused, now)
        if not usable:
            raise self.job.unusable[0].error()
        return usable

    async def _acquire(self, credentials: Sequence[Credential]) -> AccessToken:
        """Return a token acquired with the first credential that the provider takes."""
        for credential in credentials[:-1]:
            try:
                token = await self._ask(credential)
            except (RejectedError, CredentialError) as error:  # whatever it is: the next one may do better
                self._refuse(credential, error)
            else:
                self._accept(credential)
                return token
        token = await self._ask(credentials[-1])
        self._accept(credentials[-1])
        return token

    async def _ask(self, credential: Credential) -> AccessToken:
        try:
            return await acquisition.acquire(self.job, credential, self._services, urgent=self.progress.urgent)
        finally:
            self._rejudge()  # what was known before is put right before anything new is noted by the new time

    def _accept(self, credential: Credential) -> None:
        before = self.progress.accepted
        if before and before.identity != credential.identity:
            telling.promoted(self._profile.name, credential, before, self._services)
        refused = {name: refusal for name, refusal in self.progress.refused.items() if name != credential.identity}
        accepted, proven = (credential, credential.identity) if credential.lasting else (None, "")
        self.progress = replace(self.progress, accepted=accepted, proven=proven, refused=refused)

    def _refuse(self, credential: Credential, error: AgentError) -> None:
        """Note that a candidate cannot be used yet; the credential that worked last goes on."""
        name = f" (thumbprint {credential.thumbprint})" if credential.thumbprint else ""
        message = f"{credential.path}{name}: {error.message}" + (f" ({error.hint})" if error.hint else "")
        earlier, now = self.progress.refused.get(credential.identity), self._services.clock.now()
        refusal = rotation.refuse(earlier, message, now)
        self.progress = replace(self.progress, refused={**self.progress.refused, credential.identity: refusal})
        if is_told_to_wait(error):
            self.progress = self.progress.rested(retry_at(now, 1, error, self._services.random()))
        telling.refused(self._profile.name, credential, error, refusal, self._services)

    async def _publish(self, token: AccessToken) -> None:
        # Shielded: what is on disk must be what a successor is told, or it would put the old token back.
        with anyio.CancelScope(shield=True):
            await self._publish_whole(token)

    async def _publish_whole(self, token: AccessToken) -> None:
        async with self._writing:
            await publishing.publish(self._profile, token, self._services, before=self.progress.token)
            self._services.board.prove(self._profile.name, self.progress.proven)
            self.progress = replace(self.progress, token=token, expired=False, superseded=False, trouble=None)

    def _succeeded(self, token: AccessToken) -> None:
        self.progress = self.progress.succeeded(refresh_at(self.job, token, self._services))

    def _failed(self, error: AgentError) -> None:
        """Note a failure and decide when to try again."""
        now, boot = self._services.clock.now(), self._services.clock.boot()
        next_at = retry_at(now, self.progress.failures + 1, error, self._services.random())
        news = self.progress.is_news(error, boot)
        self.progress = replace(self.progress, told_at=boot if news else self.progress.told_at)
        self.progress = self.progress.failed(error, now, next_at)
        self.show()
        telling.failed(self._profile.name, error, self._services, next_at, news=news)

    def _rejudge(self) -> None:
        """After a step of the wall clock, put all instants where they belong by the new time."""
        step = clock.offset(self._services.clock) - self._offset
        if abs(step) < clock.STEP:
            return
        self._offset += step
        self.progress = self.progress.shifted(step)
        if self.progress.token:
            self._services.board.remember(self._profile.name, state.record_of(self._profile, self.progress.token))
