"""What a caller at the control socket may ask of the running agent: `reload`, `plan`, `refresh` and `status`.

A request is a JSON object with ``op``, an answer one with ``ok``. No token ever passes here: whoever wants one reads
the token file; what it is recognised by is its fingerprint.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc

from agent import control, status
from agent.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.control import Answer
    from agent.engine.services import Services
    from agent.engine.supervisor import Supervisor

TRIES = 3
"""How often an attempt is begun that a reload may interrupt."""
OPS = ("reload", "plan", "refresh", "status")
ERROR_KEYS = ("kind", "message", "hint", "code")


class Requests:
    """Turns requests into calls of the supervisor, and what comes of them into answers."""

    def __init__(self, supervisor: Supervisor, services: Services) -> None:
        self._supervisor, self._services = supervisor, services
        self._refreshing = anyio.Lock()
        self._order = itertools.count()
        self._attempts: dict[str, int] = {}  # where in the order of events the last one made here began

    async def answer(self, request: dict[str, Any]) -> Answer:
        """Return the answer to any JSON object."""
        op = request.get("op")
        answer = await self._answer(op, request)
        self._services.log.debug("control.answered", op=op if op in OPS else "unknown", ok=answer["ok"])
        return answer

    async def _answer(self, op: object, request: dict[str, Any]) -> Answer:
        try:
            match op:
                case "reload":
                    changes = await self._supervisor.reload(reason="asked for")
                    return {"ok": True, "lines": list(changes.lines()), "warnings": self._warnings()}
                case "plan":
                    planned = await self._supervisor.plan()
                    return {"ok": True, "lines": list(planned.lines()), "warnings": list(planned.unusable)}
                case "refresh":
                    return await self._refresh(request)
                case "status":
                    board, now = self._services.board, self._services.clock.now()
                    return {"ok": True, "status": status.to_file(board.agent, tuple(board.profiles.values()), now)}
        except ConfigurationError as error:
            answer = control.refusal(error.message, exit_code=error.exit_code)
            return {**answer, "problems": [str(problem) for problem in error.problems]}
        return control.refusal(
            "the running agent does not know this request", hint="is it older than this command? restart it"
        )

    def _warnings(self) -> list[str]:
        """Return which credentials on disk are not used, and why."""
        shown = self._services.board.profiles.values()
        return [
            f"{p.name}: {p.credential.candidate_error}" for p in shown if p.credential and p.credential.candidate_error
        ]

    async def _refresh(self, request: dict[str, Any]) -> Answer:
        """Acquire new tokens; with ``min_valid_seconds`` only where less than that is left."""
        known = list(self._services.board.profiles)
        names, seconds = request.get("names"), request.get("min_valid_seconds")
        if names == "all":
            names = known
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return control.refusal('"names" is a list of profiles, or "all"')
        if not isinstance(seconds, int | float | None):
            return control.refusal('"min_valid_seconds" is a number')
        if unknown := [name for name in dict.fromkeys(names) if name not in known]:
            return {**control.refusal("no such profile", exit_code=2), "unknown": unknown, "known": known}
        await self._attempt(names, seconds)
        return {"ok": True, "profiles": {name: self._outcome(name) for name in names}}

    async def _attempt(self, names: Sequence[str], seconds: float | None) -> None:
        """Let every profile make an attempt that begins from now on; several callers may share one."""
        asked = next(self._order)
        async with self._refreshing:
            # One that began after we asked is ours as well; it is over, for they are made one after the other.
            due = [name for name in names if self._attempts.get(name, -1) < asked and not self._serves(name, seconds)]
            began = next(self._order)
            for _ in range(TRIES):
                if not due:
                    break
                before = {name: self._mark(name) for name in due}
                made = await self._supervisor.refresh(due)
                self._attempts |= dict.fromkeys(made, began)
                due = [name for name in made if self._mark(name) == before[name]]

    def _mark(self, name: str) -> tuple[object, object]:
        """Return what an attempt changes; one that a reload interrupts changes nothing, and is made again."""
        known = self._services.board.profiles.get(name)
        return (known.acquired_at, known.last_error) if known else (None, None)

    def _serves(self, name: str, seconds: float | None) -> bool:
        """Whether the token at hand has so much life left."""
        known = self._services.board.profiles.get(name)
        ends_at = status.serves_until(known) if known else None
        if seconds is None or ends_at is None:
            return False
        shown = ends_at.replace(microsecond=0)  # as callers see it
        return (shown - self._services.clock.now()).total_seconds() >= seconds

    def _outcome(self, name: str) -> Answer:
        """Return how a profile stands."""
        known = self._services.board.profiles.get(name)
        if known is None:
            error = {"kind": "transient", "message": "the profile was removed meanwhile", "hint": "", "code": None}
            return {"state": "stopped", "acquired_at": None, "expires_at": None, "token_sha256": None, "error": error}
        shown = {key: getattr(known.last_error, key) for key in ERROR_KEYS} if known.last_error else None
        return {
            "state": status.state_of(known, self._services.clock.now(), kept=True),
            "acquired_at": status.rfc3339(known.acquired_at),
            "expires_at": status.rfc3339(status.serves_until(known)),
            "token_sha256": known.token_sha256,
            "error": shown,
        }
