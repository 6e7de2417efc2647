"""What somebody can know who may not read the configuration, such as an application: the reader's side of it all.

Everybody may read ``status.json``. It names the token files of all profiles, and how long their tokens serve.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands import asking, reality
from agent.doctor import keys, people, readers, runtime
from agent.doctor.findings import Topic
from agent.doctor.walk import walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from agent.doctor.findings import Finding
    from agent.doctor.rights import Person
    from agent.doctor.runtime import Known
    from agent.doctor.walk import Walk
    from agent.status import ProfileStatus

_READER = "reader"


def examine(found: Known, unit: Mapping[str, str], config: Path) -> Iterator[Finding]:
    """Yield what is to be said of the agent as a whole; ``config`` may not be read."""
    yield from runtime.examine(found, unit, None, doubt=asking.doubt(config))
    for host, skew in found.agent.skews.items() if found.agent and found.pid is not None else ():
        yield runtime.clock(Topic("clock", host, "agent"), skew)


def examine_profiles(
    found: Known, profiles: Sequence[ProfileStatus], asked: Sequence[Person], now: datetime, *, named: bool
) -> Iterator[Finding]:
    """Yield what is to be said of profiles.

    Args:
        found: what the agent has left.
        profiles: to look at.
        asked: who is to read their token files; none for us.
        now: the time.
        named: whether these profiles were asked about. Of all profiles, nobody need read more than one of them.
    """
    answers = {each.name: list(_readers(found, each, asked or [people.myself()])) for each in profiles}
    some = any(finding.level == "ok" for each in answers.values() for finding in each)
    for profile in profiles:
        yield from runtime.examine_profile(found, profile.name, now)
        yield from keys.refused(profile.name, profile)
        for finding in answers[profile.name]:
            mild = finding.area == _READER and some and not (named or asked)
            yield replace(finding, level="note") if mild and finding.level == "problem" else finding


def unseen(config: Path) -> Finding:
    """Return what was not looked at."""
    text = "the configuration, keys, the rights that token files should have, the way to the provider"
    topic = Topic("configuration", "configuration", "not examined")
    return topic.note(f"{text}: you may not read {config}", "root sees more: run this as root")


def _readers(found: Known, profile: ProfileStatus, persons: Sequence[Person]) -> Iterator[Finding]:
    """Yield for each token file of a profile who can read it."""
    topic = Topic.of_profile(_READER, profile.name)
    for file in profile.token_files:
        try:
            way = walk(Path(file.path))
        except ValueError:
            continue  # a damaged status: this can be no path
        if way.missing:
            place = Topic.of_profile("token file", profile.name)
            yield place.problem(f"{file.path} is not there", reality.HINTS[found.pid is not None])
            continue
        for person in persons:
            yield _reader(topic, person, Path(file.path), way)


def _reader(topic: Topic, person: Person, path: Path, way: Walk) -> Finding:
    answer = readers.can_read(person, path, way)
    if answer.able and way.error == errno.EACCES:
        return readers.beyond(topic, path, way)
    if answer.able:
        return topic.ok(answer.text)
    at_the_end = answer.refused_at is not None and not answer.refused_at.is_directory
    return topic.problem(answer.text, readers.wish(person) if at_the_end else answer.fix)
