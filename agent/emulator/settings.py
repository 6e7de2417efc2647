"""How the provider behaves as a whole; to be changed while it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from agent.config.values import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

_DURATIONS = ("token_lifetime", "refresh_in", "loop_window", "clock_offset")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings and their defaults.

    Attributes:
        token_lifetime: of tokens that are issued from now on.
        refresh_in: sent with a token where it is set.
        single_use: whether an assertion is taken once only; Entra itself is lax, other providers are not.
        loop_limit: requests of one app within ``loop_window`` after which AADSTS50196 follows; None: no limit.
        loop_window: see there.
        clock_offset: how far the provider's clock is ahead of the machine's.
    """

    token_lifetime: timedelta = timedelta(hours=1)
    refresh_in: timedelta | None = None
    single_use: bool = True
    loop_limit: int | None = None
    loop_window: timedelta = timedelta(minutes=1)
    clock_offset: timedelta = timedelta()

    def document(self) -> dict[str, Any]:
        """Return everything as JSON has it; durations are seconds."""
        return {
            key: value.total_seconds() if isinstance(value, timedelta) else value for key, value in asdict(self).items()
        }


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return the settings with what a JSON object says instead.

    Raises:
        ValueError: it names the key and what is wrong with it.
    """
    known = {each.name for each in fields(Settings)}
    if unknown := set(values) - known:
        raise ValueError(f"unknown setting {min(unknown)!r}; known are {', '.join(sorted(known))}")
    parsed: dict[str, Any] = {
        key: _duration(key, value) if key in _DURATIONS else value for key, value in values.items()
    }
    result = replace(settings, **parsed)
    if result.token_lifetime < timedelta(seconds=1):
        raise ValueError("token_lifetime must be at least 1 s")
    if not isinstance(result.single_use, bool):
        raise ValueError("single_use must be true or false")  # noqa: TRY004 - content, not a type
    if result.loop_limit is not None and (type(result.loop_limit) is not int or result.loop_limit < 1):
        raise ValueError("loop_limit must be a whole number from 1 on, or null")
    return result


def _duration(key: str, value: Any) -> timedelta | None:
    """Return a duration; only a clock may be behind, and only `refresh_in` may be absent."""
    if value is None and key == "refresh_in":
        return None
    if key == "clock_offset" and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9:  # noqa: PLR2004
        return timedelta(seconds=value)
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
