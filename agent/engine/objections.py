"""What speaks against bringing a configuration into force that is valid by itself: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.config.model import Config
    from agent.engine.jobs import Job

LASTING = ("runtime_dir", "state_dir")
"""Settings of an agent for life: its lock, its socket and its records are there."""


def objections(config: Config, desired: Mapping[str, Job], before: Config, running: Mapping[str, Job]) -> list[Problem]:
    """Return why the running state stays as it is; nothing if the candidate can replace it.

    Args:
        config: the candidate.
        desired: its jobs, as they were loaded.
        before: the configuration in force.
        running: the jobs at work.
    """
    return [*_settings(config, before), *_credentials(config, desired, running)]


def _settings(config: Config, before: Config) -> Iterator[Problem]:
    for name in LASTING:
        if getattr(config.agent, name) != getattr(before.agent, name):
            message = f"cannot change from {getattr(before.agent, name)} while the agent runs"
            yield Problem(
                config.path, None, f"agent.{name}", message, "restart it, such as systemctl restart token-agent"
            )


def _credentials(config: Config, desired: Mapping[str, Job], running: Mapping[str, Job]) -> Iterator[Problem]:
    """Object to what a person has just written and cannot work; what broke under a running job is no objection."""
    for name, job in desired.items():
        known = running.get(name)
        if not job.usable and (known is None or known.profile != job.profile):
            unusable = job.unusable[0]
            key = "ca_file" if unusable.path == job.profile.ca_file else unusable.kind
            yield Problem(config.path, None, f'profile "{name}": {key}', unusable.message, unusable.hint)
