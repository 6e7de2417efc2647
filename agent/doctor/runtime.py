"""The agent at work: its process, its unit, its configuration, how fresh each profile is, and the machine's clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent import files, hookplan, lock, schedule, status, words
from agent.doctor import surroundings
from agent.doctor.findings import Topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from agent.doctor.findings import Finding
    from agent.errors import ConfigurationError
    from agent.status import AgentStatus, ProfileStatus

START = "start it: systemctl start token-agent, or token-agent run"
_AGENT = Topic("agent", "token-agent", "agent")
_UNIT = Topic("unit", surroundings.UNIT, "agent")
_CONFIGURATION = Topic("configuration", "configuration", "agent")
_CLOCK = Topic("clock", "NTP", "agent")


@dataclass(frozen=True, slots=True)
class Known:
    """What the agent left in its runtime directory; ``problem`` says why nothing is known.

    ``pid`` is the running agent's, None if none runs; 0 if it is in another container.
    """

    directory: Path
    pid: int | None
    agent: AgentStatus | None = None
    profiles: Mapping[str, ProfileStatus] = field(default_factory=dict)
    problem: str = ""

    @property
    def kept(self) -> bool:
        """Whether tokens may be judged by their times alone: an agent renews them, or `once` does by design."""
        return self.pid is not None or (self.agent is not None and self.agent.mode == "once")


def known(directory: Path) -> Known:
    """Return what can be known of the agent that keeps a runtime directory."""
    pid, path = lock.holder(directory), directory / "status.json"
    try:
        agent, profiles = status.parse(files.read_bytes(path, limit=status.LARGEST))
    except (FileNotFoundError, NotADirectoryError):
        return Known(directory, pid, problem=f"no agent has left a status in {directory}")
    except OSError as error:
        return Known(directory, pid, problem=f"{path} cannot be read: {error.strerror}")
    except ValueError:
        return Known(directory, pid, problem=f"{path} is not a status of this version's")
    return Known(directory, pid, agent, {profile.name: profile for profile in profiles})


def examine(found: Known, unit: Mapping[str, str], refused: ConfigurationError | None) -> Iterator[Finding]:
    """Yield what is to be said of the agent as a whole, and of the configuration if it cannot be loaded."""
    yield from _process(found)
    yield from _unit(unit, running=found.pid is not None)
    for problem in refused.problems if refused else ():
        place = str(problem).removesuffix(f" ({problem.hint})")
        yield _CONFIGURATION.problem(place, problem.hint or "config.example.toml shows how it is written")
    if found.agent and found.agent.config_error and not refused:
        text = "the running agent has refused the configuration that was on disk then"
        yield _CONFIGURATION.problem(text, "token-agent reload says why, or takes it if it is right by now")
    yield from _ntp()


def _process(found: Known) -> Iterator[Finding]:
    if found.pid is not None:
        yield _AGENT.ok(f"an agent keeps {found.directory}" + (f" (pid {found.pid})" if found.pid else ""))
        if found.problem:
            yield _AGENT.problem(found.problem, "see its log: journalctl -u token-agent")
    elif found.agent and found.agent.mode == "once":
        yield _AGENT.note(
            "no agent is running; `token-agent once` was run last", "without a timer nothing renews tokens"
        )
    else:
        yield _AGENT.problem(f"no agent keeps {found.directory}: nothing renews tokens", START)


def _unit(unit: Mapping[str, str], *, running: bool) -> Iterator[Finding]:
    """Yield what systemd says of the unit."""
    if not unit:
        yield _UNIT.note("there is no systemd here to ask, so the unit was not examined")
        return
    if unit.get("LoadState") != "loaded":
        text, fix = f"systemd knows no usable {surroundings.UNIT} ({unit.get('LoadState')})", "systemctl daemon-reload"
        yield _UNIT.note(text) if unit.get("LoadState") == "not-found" else _UNIT.problem(text, fix)
        return
    state = f"{unit.get('ActiveState')} ({unit.get('SubState')})"
    if unit.get("ActiveState") in ("active", "reloading"):
        yield _UNIT.ok(f"{surroundings.UNIT} is {state}")
    elif running and unit.get("ActiveState") == "inactive":
        yield _UNIT.note(f"{surroundings.UNIT} is {state}: the running agent is not the unit's")
    else:
        why = f", result {unit['Result']}" if unit.get("Result", "success") != "success" else ""
        status_code = f", exit status {code}" if (code := unit.get("ExecMainStatus", "0")) != "0" else ""
        yield _UNIT.problem(f"{surroundings.UNIT} is {state}{why}{status_code}", _unit_fix(unit))
    if (restarts := unit.get("NRestarts", "0")) != "0":
        yield _UNIT.warning(f"systemd has restarted it by itself (NRestarts={restarts})", "journalctl -u token-agent")


def _unit_fix(unit: Mapping[str, str]) -> str:
    if unit.get("ExecMainStatus") == "78":
        return "token-agent check says what is wrong; then systemctl restart token-agent"
    return "journalctl -u token-agent says why; systemctl start token-agent"


def _ntp() -> Iterator[Finding]:
    synchronised = surroundings.ask("timedatectl", "show", "--property=NTPSynchronized").get("NTPSynchronized")
    if synchronised == "yes":
        yield _CLOCK.ok("the clock is synchronised by NTP")
    elif synchronised == "no":
        yield _CLOCK.warning("the clock is not synchronised by NTP", "timedatectl set-ntp true, or run chrony")
    else:
        yield _CLOCK.note("timedatectl does not tell here whether the clock is synchronised")


def examine_profile(found: Known, name: str, now: datetime) -> Iterator[Finding]:
    """Yield how fresh a profile is, and whether who reads it was told."""
    topic = Topic.of_profile("status", name)
    profile = found.profiles.get(name)
    if profile is None:
        if not found.problem:
            yield topic.problem("the agent does not keep this profile (yet)", "token-agent reload")
        elif found.pid is None:
            yield topic.note(found.problem)
        return
    yield from _hook(profile)
    state = status.state_of(profile, now, kept=found.kept)
    left = words.duration(schedule.runway(now, profile.expires_at))
    if state == "fresh":
        yield topic.ok(f"fresh, the token serves for {left}")
        return
    error = profile.last_error
    text = f"{state}{f', the token serves for {left}' if state in ('degraded', 'stopped') else ''}"
    text += f": {error.message}" if error else ""
    if state == "degraded":
        yield topic.warning(text, error.hint if error and error.hint else "token-agent refresh " + name)
        return
    passes = error is not None and error.kind == "transient" and found.pid is not None
    yield topic.problem(text, error.hint if error and error.hint else _fix(found), passes=passes)


def _hook(profile: ProfileStatus) -> Iterator[Finding]:
    topic, error = Topic.of_profile("hook", profile.name), profile.hook.error
    if error:
        more = f"journalctl TOKEN_AGENT_EVENT=hook.failed TOKEN_AGENT_PROFILE={profile.name} tells more"
        fix = hookplan.UNPRIVILEGED if hookplan.is_refusal(error) else more
        yield topic.warning(f"on_refresh failed: {error}", fix)


def _fix(found: Known) -> str:
    return START if found.pid is None else "its log says what it waits for: journalctl -u token-agent"
