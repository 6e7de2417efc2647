"""What differs between the jobs that should run and those that do: pure, and the same for a reload and for `plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.config.model import AgentSettings, Model
    from agent.engine.jobs import Job

LATER = ("max_in_flight",)
"""Settings that are looked at when the agent starts, and not again."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What has to happen so that the running jobs become the desired ones; names, sorted.

    ``changed`` tells for each name which keys of the profile differ, or which files; ``settings`` which keys of the
    agent's own do; ``unusable`` what is on disk and will not be used, and why.
    """

    added: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]
    removed: tuple[str, ...]
    untouched: tuple[str, ...]
    settings: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()

    @property
    def start(self) -> tuple[str, ...]:
        """Profiles whose task begins."""
        return tuple(sorted((*self.added, *self.changed)))

    @property
    def stop(self) -> tuple[str, ...]:
        """Profiles whose task ends."""
        return tuple(sorted((*self.removed, *self.changed)))

    def lines(self) -> Iterator[str]:
        """Yield one line for each profile that is touched, one for the agent's settings, and one for the rest."""
        if self.settings:
            keys = (f"{key} (from the next start on)" if key in LATER else key for key in self.settings)
            yield f"changed    [agent]: {', '.join(keys)}"
        yield from (f"added      {name}" for name in self.added)
        yield from (f"changed    {name}: {', '.join(keys)}" for name, keys in sorted(self.changed.items()))
        yield from (f"removed    {name}" for name in self.removed)
        count = len(self.untouched)
        yield f"untouched  {count} profile{'s' * (count != 1)}"


def plan_changes(
    desired: Mapping[str, Job],
    running: Mapping[str, Job],
    settings: tuple[AgentSettings, AgentSettings] | None = None,
) -> Changes:
    """Return what differs: a job that is equal is left alone, with its token, timer and back-off.

    Args:
        desired: the jobs that should run.
        running: those that do.
        settings: the agent's own that are to come, and those in force.
    """
    both = sorted(desired.keys() & running.keys())
    changed = {name: _difference(desired[name], running[name]) for name in both if desired[name] != running[name]}
    return Changes(
        added=tuple(sorted(desired.keys() - running.keys())),
        changed=changed,
        removed=tuple(sorted(running.keys() - desired.keys())),
        untouched=tuple(name for name in both if name not in changed),
        settings=_differing(*settings) if settings else (),
        unusable=tuple(f"{name}: {job.unusable[0].error().message}" for name, job in desired.items() if job.unusable),
    )


def _differing(new: Model, old: Model) -> tuple[str, ...]:
    """Return the keys of a table in which two differ."""
    return tuple(name for name in type(new).model_fields if getattr(new, name) != getattr(old, name))


def _difference(new: Job, old: Job) -> tuple[str, ...]:
    keys = [*_differing(new.profile, old.profile)]
    if new.credentials != old.credentials:
        keys.append(f"{new.kind} on disk".replace("_", " "))
    if new.trust != old.trust and "ca_file" not in keys:
        keys.append("ca_file on disk")
    return tuple(keys)
