"""The line that `systemctl status` shows: how many are well, what is wrong with the others, how long it can wait."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agent.headline import headline
from agent.status import AgentStatus, CredentialStatus, LastError, ProfileStatus

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AGENT = AgentStatus("1", 1, NOW, "/etc/token-agent/config.toml")


def profile(name: str, minutes: float | None = 41, error: LastError | None = None) -> ProfileStatus:
    """Return a profile whose token serves for so many minutes."""
    expires_at = None if minutes is None else NOW + timedelta(minutes=minutes)
    return ProfileStatus(name, expires_at=expires_at, last_error=error)


def failure(message: str = "refused", code: str | None = None) -> LastError:
    return LastError(NOW, "rejected", message, code=code)


def line(*profiles: ProfileStatus, agent: AgentStatus = AGENT) -> str:
    return headline(agent, profiles, NOW)


def test_all_is_well() -> None:
    """When all is well, the line says how many there are and how long the first token still serves."""
    assert line(profile("a", 55), profile("b", 41.9), profile("c", 600)) == "3 of 3 fresh, runway 41 min"


def test_degraded() -> None:
    """A profile that fails is named with the provider's code and the time its readers have left."""
    shown = line(
        profile("a", 55), profile("b", 55), profile("c", 55), profile("billing", 41, failure(code="AADSTS700027"))
    )
    assert shown == "3 of 4 fresh, billing degraded: AADSTS700027, runway 41 min"


def test_degraded_by_time() -> None:
    """A token that is nearly over without any failure is named without a reason."""
    assert line(replace(profile("a", 2), degraded_at=NOW)) == "0 of 1 fresh, a degraded, runway 2 min"


def test_worst_first() -> None:
    """What hurts readers most comes first, three are named, and the rest is counted."""
    many = [profile(f"d{number}", 30, failure()) for number in range(3)]
    shown = line(*many, profile("p", None), profile("e", -1, failure("no route to host")), profile("ok"))
    assert (
        shown
        == "1 of 6 fresh, e expired: no route to host, p pending, d0 degraded: refused, runway 30 min, 2 more not fresh"
    )


def test_configuration_refused() -> None:
    """A configuration that was refused is in the line, by its first problem, whatever else there is to say."""
    agent = replace(AGENT, config_error="/etc/a.toml:3: clientid: unknown key\n/etc/a.toml:4: more")
    assert line(profile("a"), agent=agent) == (
        "1 of 1 fresh, configuration refused: /etc/a.toml:3: clientid: unknown key …, runway 41 min"
    )


def test_new_credential_not_in_use() -> None:
    """A certificate on disk that cannot be used yet is in the line while the old one still serves."""
    waiting = CredentialStatus("certificate", "/x.pem", candidate_error="AADSTS700027: not registered")
    some = [replace(profile(name), credential=waiting) for name in "abcd"]
    assert line(some[0]) == "1 of 1 fresh, new credential not in use: a, runway 41 min"
    assert "not in use: a b c and 1 more" in line(*some)


def test_long_reason() -> None:
    """A reason that would fill the screen is cut."""
    shown = line(profile("a", 5, failure("m" * 5000)))
    assert len(shown) < 200
    assert shown.endswith("…, runway 5 min")


def test_no_profile() -> None:
    """An agent without work says so."""
    assert line() == "no profile is configured"
