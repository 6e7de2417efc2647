"""One acquisition, from the queue at the provider's gate to a token that is what the profile expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent import status, tokens
from agent.network import entra
from agent.network.transport import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.credentials.store import Credential
    from agent.engine.jobs import Job
    from agent.engine.services import Services
    from agent.tokens import AccessToken


async def acquire(job: Job, credential: Credential, services: Services, *, urgent: bool = False) -> AccessToken:
    """Acquire a token that is what the profile expects; if urgent, without waiting for the end of a back-off.

    Raises:
        TransientError, RejectedError, CredentialError: there is none.
    """
    profile = job.profile
    if credential.lasting:  # the others are read, and so checked, at their use
        credential.check(services.clock.now())
    timeout = profile.timeout.total_seconds()

    def begin() -> tuple[Callable[[], entra.Acquired], Callable[[], None]]:
        call = Call(timeout)

        def ask() -> entra.Acquired:
            transport = services.transport(profile, job.trust)  # may have to read a trust root
            return entra.acquire(profile, credential, transport, call, services.discovery, services.clock)

        return ask, call.abort

    began = services.clock.boot()
    async with services.gate.admit((profile.authority_url, job.trust, profile.proxy), profile.name, urgent=urgent):
        try:
            acquired = await services.workers.network(begin, timeout)
        except TimeoutError:
            raise entra.timed_out(profile) from None
    tokens.check(acquired.token, profile.expect)
    _log(job, credential, acquired, services.clock.boot() - began, services)
    return acquired.token


def _log(job: Job, credential: Credential, acquired: entra.Acquired, seconds: float, services: Services) -> None:
    token = acquired.token
    services.log.info(
        "token.acquired",
        profile=job.profile.name,
        token_sha256=token.fingerprint,
        expires_at=status.rfc3339(token.expires_at),
        lifetime_seconds=int(token.lifetime.total_seconds()),
        thumbprint=credential.thumbprint,
        correlation_id=acquired.correlation_id,
        request_id=acquired.request_id,
        seconds=round(seconds, 3),
    )
