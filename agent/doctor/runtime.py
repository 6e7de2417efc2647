"""The agent at work: its process, its unit, its configuration, how fresh each profile is, and the machine's clock."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent import control, diagnosis, hookplan, lock, status, words
from agent.commands import asking, reality
from agent.commands import known as telling
from agent.doctor import surroundings
from agent.doctor.findings import Topic
from agent.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime, timedelta

    from agent.config.model import Config
    from agent.doctor.findings import Finding
    from agent.errors import ConfigurationError
    from agent.status import AgentStatus, ProfileStatus

PATIENCE = 8.0
"""Seconds in which a working agent answers anything; it says no to what it does not know."""
NOT_LASTING = ("disabled", "enabled-runtime", "linked", "linked-runtime")
"""What systemctl is-enabled says of units that are not there after the next boot."""
EXAMPLES = tuple(Path(root, "share/doc/token-agent/config.example.toml") for root in ("/usr", sys.prefix))
"""Where an installation puts the example."""
AFTERWARDS = "first the configuration; then systemctl start token-agent"
_AGENT = Topic("agent", "token-agent", "agent")
_UNIT = Topic("unit", surroundings.UNIT, "agent")
_CONFIGURATION = Topic("configuration", "configuration", "agent")
_CLOCK = Topic("clock", "NTP", "agent")


@dataclass(frozen=True, slots=True)
class Known:
    """What the agent left in its runtime directory; ``problem`` says why nothing is known, ``hidden`` that we may not.

    ``pid`` is the running agent's, None if none runs; 0 if it is in another container.
    """

    directory: Path
    pid: int | None
    agent: AgentStatus | None = None
    profiles: Mapping[str, ProfileStatus] = field(default_factory=dict)
    problem: str = ""
    hidden: bool = False

    @property
    def kept(self) -> bool:
        """Whether tokens may be judged by their times alone: an agent renews them, or `once` does by design."""
        return self.pid is not None or (self.agent is not None and self.agent.mode == "once")


def known(directory: Path, now: datetime) -> Known:
    """Return what can be known of the agent that keeps a runtime directory."""
    pid, path = lock.holder(directory), directory / "status.json"
    try:
        found = telling.of(directory, now)
    except (FileNotFoundError, NotADirectoryError):
        return Known(directory, pid, problem=f"no agent has left a status in {directory}")
    except OSError as error:
        hidden = isinstance(error, PermissionError)
        return Known(directory, pid, problem=f"{path} cannot be read: {error.strerror}", hidden=hidden)
    except ValueError:
        return Known(directory, pid, problem=f"{path} is not a status of this version's")
    return Known(directory, found.pid, found.agent, {profile.name: profile for profile in found.profiles})


def as_configured(found: Known, loaded: Config | None) -> Known:
    """Return what is known of the profiles of a configuration; a running agent knows them itself."""
    if loaded is None or found.agent is None or found.pid is not None:
        return found
    profiles, _ = reality.configured(found.profiles.values(), loaded.path, loaded.agent.state_dir)
    return replace(found, profiles={profile.name: profile for profile in profiles})


def examine(
    found: Known, unit: Mapping[str, str], refused: ConfigurationError | None, doubt: str = ""
) -> Iterator[Finding]:
    """Yield what is to be said of the agent as a whole; before all else, why its configuration cannot be loaded.

    Args:
        found: what the agent has left.
        unit: what systemd says.
        refused: what is wrong with the configuration.
        doubt: why the agent may be elsewhere.
    """
    yield from _refusal(refused) if refused else ()
    yield from _process(found, AFTERWARDS if refused else asking.START, doubt)
    yield from _unit(unit, running=found.pid is not None, start=AFTERWARDS if refused else "")
    if found.agent and found.agent.config_error and not refused:
        text = "the running agent has refused the configuration that was on disk then"
        yield _CONFIGURATION.problem(text, "token-agent reload says why, or takes it if it is right by now")
    yield from _ntp()


def _refusal(refused: ConfigurationError) -> Iterator[Finding]:
    """Yield what is wrong with the configuration; of one that is not there, where to begin."""
    for problem in refused.problems:
        if isinstance(refused.__cause__, FileNotFoundError):
            example = next((each for each in EXAMPLES if each.exists()), None)
            fix = (
                f"cp {example} {shlex.quote(str(problem.file))}; edit it; token-agent check"
                if example
                else problem.hint
            )
            yield _CONFIGURATION.problem(f"there is no configuration: {problem.file} does not exist", fix)
            continue
        place = str(problem).removesuffix(f" ({problem.hint})")
        yield _CONFIGURATION.problem(place, problem.hint or "config.example.toml shows how it is written")


def _process(found: Known, start: str, doubt: str) -> Iterator[Finding]:
    if found.pid is not None:
        yield _at_work(found)
        if found.problem:
            yield _AGENT.problem(found.problem, "see its log: journalctl -u token-agent")
    elif found.agent and found.agent.mode == "once":
        yield _AGENT.note(
            "no agent is running; `token-agent once` was run last", "without a timer nothing renews tokens"
        )
    elif found.hidden:
        yield _AGENT.problem(found.problem, f"it is for everybody: chmod 0755 {shlex.quote(str(found.directory))}")
    else:
        yield _AGENT.problem(f"no agent keeps {found.directory}: nothing renews tokens{doubt}", start)


def _at_work(found: Known) -> Finding:
    """Return whether the agent that is there also does something."""
    who = f"an agent keeps {found.directory}" + (f" (pid {found.pid})" if found.pid else "")
    if found.pid and lock.is_stopped(found.pid):
        return _AGENT.problem(
            f"{who}, and was stopped by a signal: it does nothing", asking.GO_ON.format(pid=found.pid)
        )
    try:
        control.ask(found.directory, {"op": "hello"}, PATIENCE)
    except UnreachableError as error:
        if control.is_late(error):
            text = f"{who}, and does not answer at its control socket within {PATIENCE:g} s"
            return _AGENT.problem(text, "systemctl restart token-agent, unless its log shows that it works")
    return _AGENT.ok(who)  # who may not ask cannot tell; a `once` cannot be asked


def _unit(unit: Mapping[str, str], *, running: bool, start: str) -> Iterator[Finding]:
    """Yield what systemd says of the unit."""
    if not unit:
        yield _UNIT.note("there is no systemd here to ask, so the unit was not examined")
        return
    if unit.get("LoadState") != "loaded":
        yield _unusable(unit)
        return
    state = f"{unit.get('ActiveState')} ({unit.get('SubState')})"
    if unit.get("ActiveState") in ("active", "reloading"):
        yield _UNIT.ok(f"{surroundings.UNIT} is {state}")
    elif running and unit.get("ActiveState") == "inactive":
        yield _UNIT.note(f"{surroundings.UNIT} is {state}: the running agent is not the unit's")
        return
    else:
        why = f", result {unit['Result']}" if unit.get("Result", "success") != "success" else ""
        status_code = f", exit status {code}" if (code := unit.get("ExecMainStatus", "0")) != "0" else ""
        yield _UNIT.problem(f"{surroundings.UNIT} is {state}{why}{status_code}", start or _unit_fix(unit))
    if unit.get("UnitFileState") in NOT_LASTING:
        text = f"{surroundings.UNIT} is not enabled ({unit['UnitFileState']}): it is gone after the next boot"
        yield _UNIT.warning(text, "systemctl enable token-agent")
    if (restarts := unit.get("NRestarts", "0")) != "0":
        yield _UNIT.warning(f"systemd has restarted it by itself (NRestarts={restarts})", "journalctl -u token-agent")


def _unusable(unit: Mapping[str, str]) -> Finding:
    """Return why systemd cannot start the unit."""
    state = unit.get("LoadState")
    text = f"systemd knows no usable {surroundings.UNIT} ({state})"
    if state == "not-found":
        return _UNIT.note(text)
    if state == "masked":
        at_runtime = " --runtime" * (unit.get("UnitFileState") == "masked-runtime")
        return _UNIT.problem(text, f"systemctl unmask{at_runtime} token-agent")
    return _UNIT.problem(text, "systemctl daemon-reload; systemd-analyze verify token-agent.service says what is wrong")


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


def clock(topic: Topic, skew: timedelta) -> Finding:
    """Return how far this machine's clock is off from a provider's."""
    if abs(skew) <= diagnosis.NOTABLE_SKEW:
        return topic.ok("this machine's clock agrees with the provider's")
    text, fix = diagnosis.clock_is_off(skew), "set it right: timedatectl set-ntp true, or chronyc makestep"
    if abs(skew) > diagnosis.GREAT_SKEW:
        return topic.problem(f"{text}: assertions are refused (AADSTS700024)", fix, passes=True)
    return topic.warning(text, fix)


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
    differences = list(reality.differences(profile, now, running=found.pid is not None))
    for path, wrong in differences:
        if wrong == reality.ALTERED:  # one that is missing is told where its place is looked at
            yield topic.problem(f"{path}: {wrong}", reality.HINTS[found.pid is not None])
    serves = not differences and status.serves_until(profile) is not None
    yield from _freshness(topic, found, profile, now, serves=serves)


def _freshness(topic: Topic, found: Known, profile: ProfileStatus, now: datetime, *, serves: bool) -> Iterator[Finding]:
    """Yield the state of a profile; of a token that is not in its file, nothing good."""
    state = status.state_of(profile, now, kept=found.kept)
    left = f", the token serves for {words.duration(status.runway(profile, now))}" if serves else ""
    if state == "fresh":
        if serves:
            yield topic.ok(f"fresh{left}")
        return
    error = profile.last_error
    text = f"{state}{left if state in ('degraded', 'stopped') else ''}{f': {error.message}' if error else ''}"
    if state == "degraded":
        yield topic.warning(text, error.hint if error and error.hint else f"token-agent refresh {profile.name}")
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
    return asking.START if found.pid is None else "its log says what it waits for: journalctl -u token-agent"
