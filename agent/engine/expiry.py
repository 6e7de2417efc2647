"""Says that a certificate is about to expire: once at each of the profile's thresholds, and whether a new one waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent import rotation, status, words

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from agent.credentials.store import Credential
    from agent.engine.renewal import Keeper
    from agent.engine.services import Services


class Expiry:
    """Remembers which threshold each certificate in use has passed."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._passed: dict[tuple[str, str], timedelta] = {}

    def look(self, keepers: Iterable[Keeper]) -> None:
        """Warn of each certificate in use that has passed a further threshold."""
        now, passed = self._services.clock.now(), {}
        for keeper in keepers:
            credential = keeper.in_use
            if credential is None or credential.not_after is None:
                continue
            key = (keeper.job.profile.name, credential.identity)
            left = credential.not_after - now
            threshold = rotation.threshold(left, keeper.job.profile.warn_before)
            if threshold is None:
                continue
            passed[key] = threshold
            if self._passed.get(key) != threshold:
                self._warn(keeper, credential, left)
        self._passed = passed

    def _warn(self, keeper: Keeper, credential: Credential, left: timedelta) -> None:
        waiting = [each for each in keeper.job.credentials if each != credential and each.path is not None]
        expired = left.total_seconds() <= 0
        self._services.log.warning(
            "certificate.expiring",
            profile=keeper.job.profile.name,
            path=str(credential.path),
            thumbprint=credential.thumbprint,
            not_after=status.rfc3339(credential.not_after),
            message=f"the certificate {'expired' if expired else 'expires'} {words.relative(left)}"
            + ("; a renewed file is there but unused" if waiting else ""),
            hint="upload the new one to the app registration" if waiting else "put a renewed one in its place",
        )
