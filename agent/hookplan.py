"""What a hook consists of, what came of it, and when it is tried again: pure.

A hook (`on_refresh`) has up to three steps, taken in this order: `reload_unit`, `signal`, `command`. None of them is
given the token, only where it lies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, cast

from agent import harmless, redaction, status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from agent.config.model import OnRefresh, Profile
    from agent.tokens import AccessToken

Kind = Literal["reload_unit", "signal", "command"]

KINDS: tuple[Kind, ...] = ("reload_unit", "signal", "command")
"""In the order in which they run."""
SETTLE = timedelta(seconds=1)
"""Several profiles that are renewed together, such as at the start, reload the unit they share once."""
TIMED_OUT = 124
"""The exit code of timeout(1)."""
FIRST_RETRY = timedelta(seconds=10)
LONGEST_RETRY = timedelta(minutes=5)
"""What made a hook fail is mended by a person, or by the service coming up; nobody tells us when."""

MAX_OUTPUT = 1000
"""Characters of a failed program's output that are logged."""
UNPRIVILEGED = (
    "leave it to systemd's own privileges: the pair token-agent-hook@.path and token-agent-hook@.service "
    '(README, "Hooks")'
)
"""What to do where a service without privileges is refused."""

OTHERS_PROCESS = "belongs to another user"
"""What is said of a process that may not be sent a signal."""

_REFUSALS = ("Access denied", "authentication", "ermission denied", "not permitted", OTHERS_PROCESS)
_PLACEHOLDER = re.compile(r"\{(path|profile)\}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one step.

    Attributes:
        exit_code: 0 where it is done; of a program its own, of what ended otherwise the one that shells use.
        reason: why it is not done.
        hint: at the fix.
        output: the end of what the program said.
        again: whether trying again can help, and does no harm.
    """

    exit_code: int
    reason: str = ""
    hint: str = ""
    output: bytes = b""
    again: bool = True


def kinds(hook: OnRefresh) -> tuple[Kind, ...]:
    """Return the steps that a hook has."""
    return tuple(kind for kind in KINDS if getattr(hook, kind))


def arguments(profile: Profile, hook: OnRefresh) -> list[str]:
    """Return the program and its arguments, the placeholders replaced; what replaces them is not looked at again."""
    program, *rest = hook.command
    values = {"path": token_path(profile), "profile": profile.name}
    return [program, *(_PLACEHOLDER.sub(lambda match: values[match[1]], argument) for argument in rest)]


def environment(profile: Profile, token: AccessToken, search_path: str) -> dict[str, str]:
    """Return all that a program finds in its environment; nothing of the agent's own is passed on."""
    return {
        "PATH": search_path,
        "LANG": "C.UTF-8",
        "HOME": "/",
        "TOKEN_AGENT_PROFILE": profile.name,
        "TOKEN_AGENT_TOKEN_FILE": token_path(profile),
        "TOKEN_AGENT_EXPIRES_AT": cast("str", status.rfc3339(token.expires_at)),
    }


def token_path(profile: Profile) -> str:
    """Return the token file that a hook is told of: the first."""
    return str(profile.token_file[0].path)


def reloaded(outcome: Outcome) -> Outcome:
    """Return what came of systemctl, in its own words: of units they tell, and of nothing secret.

    One that takes too long goes on in systemd without us: asking again would restart a slow service for ever.
    """
    if not outcome.exit_code:
        return outcome
    lines = outcome.output.decode(errors="replace").split("\n")
    telling = [line for line in lines if line.strip() and not line.startswith("See ")]  # where to read more
    said = harmless.line(telling[-1], harmless.MAX_TEXT) if telling else ""
    return replace(
        outcome,
        reason=f"{outcome.reason}: {said}" if said else outcome.reason,
        hint=UNPRIVILEGED if is_refusal(said) else outcome.hint,
        again=outcome.exit_code != TIMED_OUT,
    )


def is_refusal(text: str) -> bool:
    """Tell whether the reason of a failure is that the agent's user lacks the privilege."""
    return any(words in text for words in _REFUSALS)


def summary(ran_at: datetime, outcomes: Mapping[Kind, Outcome]) -> status.HookStatus:
    """Return what `status` shows of a run: the first failure's exit code, and every failure by name."""
    failed = {kind: outcome for kind, outcome in outcomes.items() if outcome.exit_code}
    exit_code = next((outcome.exit_code for outcome in failed.values()), 0)
    error = "; ".join(f"{kind}: {outcome.reason}" for kind, outcome in failed.items())
    return status.HookStatus(ran_at, exit_code, error or None)


def said(outcomes: Iterable[Outcome], token: AccessToken) -> str:
    """Return the end of what programs said, without the token in whatever dress, and what else looks like a secret."""
    output = b"\n".join(outcome.output for outcome in outcomes if outcome.output)
    text = harmless.without(output, [token.secret]).decode(errors="replace")
    text = harmless.mask(harmless.without_traces(text, token.secret))
    return redaction.redact(text).strip()[-MAX_OUTPUT:]


def settle(hook: OnRefresh) -> timedelta:
    """Return how long to wait for further changes before a hook runs."""
    return min(SETTLE, hook.min_interval)


def backoff(hook: OnRefresh, failures: int) -> timedelta:
    """Return how long to wait after so many failures in a row (1 or more): longer each time, never too close."""
    return max(hook.min_interval, min(LONGEST_RETRY, FIRST_RETRY * (1 << min(failures - 1, 5))))
