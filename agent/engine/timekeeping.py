"""Whether this machine's clock is that of the providers: named while they still take our assertions, not after.

Each exchange measures it (the ``Date`` of the answer, from a peer that TLS has authenticated). What is off is said
once, again when it has changed, and when it is over; `status` shows it meanwhile. Nothing is corrected by it: readers
would go on judging tokens by a wrong clock, and so would TLS; a person has to set it right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent import clock, diagnosis

if TYPE_CHECKING:
    from datetime import timedelta

    from agent.engine.services import Services


def measured(host: str, skew: timedelta | None, services: Services) -> None:
    """Note this machine's clock minus a provider's, where the provider told the time."""
    board = services.board
    if skew is not None:
        board.tally.measured_at[host] = clock.offset(services.clock)
    if skew is None or not (news := diagnosis.skew_news(board.agent.skews.get(host), skew)):
        return
    others = {name: said for name, said in board.agent.skews.items() if name != host}
    seconds = round(skew.total_seconds())
    if news == "right":
        board.update_agent(skews=others)
        services.log.info("clock.agrees", authority=host, seconds=seconds)
        return
    board.update_agent(skews={**others, host: skew})
    services.log.warning(
        "clock.skewed", authority=host, seconds=seconds, message=diagnosis.clock_is_off(skew), hint=diagnosis.SET_CLOCK
    )


def stepped(step: timedelta, services: Services) -> None:
    """Name a step of the wall clock; what was measured before it moves along, and what was measured since does not."""
    services.log.warning("clock.stepped", seconds=round(step.total_seconds(), 1))
    tally = services.board.tally
    now, at = clock.offset(services.clock), tally.measured_at
    tally.skews = {host: skew + now - at.get(host, now - step) for host, skew in tally.skews.items()}
    for host, skew in tally.skews.items():
        measured(host, skew, services)


def forget(services: Services) -> None:
    """Drop what was said of providers that are no longer asked."""
    board = services.board
    kept = {host: skew for host, skew in board.agent.skews.items() if host in board.tally.skews}
    if kept != board.agent.skews:
        board.update_agent(skews=kept)
