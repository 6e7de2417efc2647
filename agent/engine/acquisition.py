"""One acquisition, from the queue at the provider's gate to a token that is what the profile expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent import status, tokens
from agent.engine import reach, timekeeping
from agent.errors import AcquisitionError
from agent.network import entra
from agent.network.discovery import JUST_NOW, host
from agent.network.transport import Call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.config.model import Profile
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
    if credential.lasting:
        credential.check(services.clock.now())
    else:
        await reach.prove_readable(credential, services.clock.now(), services)
    timeout = profile.timeout.total_seconds()

    def begin() -> tuple[Callable[[], entra.Acquired], Callable[[], None]]:
        call = Call(timeout)

        def ask() -> entra.Acquired:
            if urgent:  # somebody has changed something, here or at the provider
                services.discovery.forget(profile.authority_url, JUST_NOW)
            transport = services.transport(profile, job.trust)  # may have to read a trust root
            return entra.acquire(profile, credential, transport, call, services.discovery, services.clock)

        return ask, call.abort

    began = services.clock.boot()
    authority, way = (profile.authority_url, job.trust, profile.proxy), (host(profile), profile.proxy)
    async with services.gate.admit(authority, profile.name, way=way, urgent=urgent) as place:
        asked = services.clock.boot()
        exchange = services.workers.network(begin, timeout, place.hold)
        acquired = await _outcome(profile, exchange, services.discovery)
        services.board.tally.exchanged(host(profile), services.clock.boot() - asked, acquired.skew)
        timekeeping.measured(host(profile), acquired.skew, services)
        if isinstance(acquired, AcquisitionError):
            raise acquired
    tokens.check(acquired.token, profile.expect)
    _log(job, credential, acquired, services.clock.boot() - began, services)
    return acquired.token


async def _outcome(
    profile: Profile, exchange: Awaitable[entra.Acquired], discovery: entra.Discovery
) -> entra.Acquired | AcquisitionError:
    """Return what comes of an exchange; only one that is cut off, or was never begun, comes to nothing."""
    try:
        return await exchange
    except TimeoutError:
        discovery.forget(profile.authority_url)  # its thread may still wait, such as for a name that is no more
        return entra.timed_out(profile)
    except AcquisitionError as error:
        return error


def _log(job: Job, credential: Credential, acquired: entra.Acquired, seconds: float, services: Services) -> None:
    token = acquired.token
    services.board.tally.count("acquisitions", job.profile.name, "success")
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
