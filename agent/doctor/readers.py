"""Who can really read a token file: worked out from modes, ACLs and groups, and tried where that is possible."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.doctor import evidence, people, rights
from agent.doctor.findings import Topic
from agent.doctor.walk import Walk, walk
from agent.output import access

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from agent.config.model import Profile, TokenFile
    from agent.doctor.findings import Finding
    from agent.doctor.rights import Person, Step

MOST_MEMBERS = 50
"""Members of a group that are looked at one by one; larger groups come from directories of a whole company."""
_OUTSIDE = "look for a denial by SELinux or AppArmor (journalctl -k), or a network file system's own rules"


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether somebody can read a file.

    Attributes:
        able: as far as there is a file to read; where it is missing, whether they could get to it.
        text: what was found, in words.
        refused_at: the step at which modes and ACLs refuse; None if they do not.
        fix: what would help.
    """

    able: bool
    text: str
    refused_at: Step | None = None
    fix: str = ""


def can_read(person: Person, path: Path, way: Walk) -> Answer:
    """Return whether somebody can read a file; what the kernel says counts more than what was worked out."""
    refusal = rights.first_refusal(person, way.steps)
    tried = evidence.opening(person, path) if way.missing or _is_file(way) else None
    if way.missing and tried == errno.ENOENT:
        tried = None  # then the directories say all there is to say
    if refusal and tried != 0:
        step, verdict = refusal
        return Answer(False, rights.reason(person, step, verdict), step, rights.fix(person, step, verdict))
    if refusal:
        return Answer(True, f"{person} can read {path}, though by the modes and ACLs on the way they could not")
    if tried:
        text = f"{person} cannot open {path}, though modes and ACLs allow it: {os.strerror(tried)}"
        return Answer(False, text, fix=_OUTSIDE)
    return Answer(True, f"{person} can read {path}" if _is_file(way) else f"{person} can reach {path.parent}")


def _is_file(way: Walk) -> bool:
    return not way.error and not way.steps[-1].is_directory and way.real.is_file()


def examine(profile: Profile, token_file: TokenFile, asked: Sequence[Person] = ()) -> Iterator[Finding]:
    """Yield for everybody who is to read a token file, or for those who are asked about, whether they can."""
    topic = Topic.of_profile("reader", profile.name)
    way = walk(token_file.path)
    if way.error == errno.EACCES:
        yield beyond(topic, token_file.path, way)
        return
    if way.missing_directory:
        yield topic.note(f"{way.missing_directory} does not exist, so that nobody can reach {token_file.path}")
        return
    for person in asked:
        yield _finding(topic, person, token_file, way)
    if not asked:
        yield from _intended(topic, token_file, way)


def beyond(topic: Topic, path: Path, way: Walk) -> Finding:
    """Return that we ourselves cannot look further."""
    return topic.note(f"{path}: you may not look beyond {way.real.parent}", "run this as root")


def _intended(topic: Topic, token_file: TokenFile, way: Walk) -> Iterator[Finding]:
    """Yield for each user and group that the profile names."""
    users, groups = intended(token_file)
    for name in users:
        try:
            yield _finding(topic, people.user(name), token_file, way)
        except LookupError as error:
            yield topic.problem(str(error), "create it, or correct `owner` and `readers`")
    for name in groups:
        try:
            yield from _group(topic, name, token_file, way)
        except LookupError as error:
            yield topic.problem(str(error), "create it, or correct `group` and `readers`")
    if not users and not groups:
        fix = f'name them: `readers = ["user:NAME"]`, or ask: token-agent doctor {topic.subject} --user NAME'
        yield topic.note(f"{token_file.path} is for nobody but the agent's own user and root", fix)


def intended(token_file: TokenFile) -> tuple[list[str], list[str]]:
    """Return the users and groups that are to read a token file, each once."""
    readers = [reader.partition(":") for reader in token_file.readers]
    users = [name for kind, _, name in readers if kind == "user"]
    groups = [name for kind, _, name in readers if kind == "group"]
    first_users = [token_file.owner] if token_file.owner else []
    first_groups = [token_file.group] if token_file.group else []
    return list(dict.fromkeys(first_users + users)), list(dict.fromkeys(first_groups + groups))


def _finding(topic: Topic, person: Person, token_file: TokenFile, way: Walk) -> Finding:
    answer = can_read(person, token_file.path, way)
    if answer.able:
        return topic.ok(answer.text)
    return topic.problem(answer.text, _fix(topic.subject, person, token_file, answer))


def _group(topic: Topic, name: str, token_file: TokenFile, way: Walk) -> Iterator[Finding]:
    """Yield whether membership alone suffices, and which members are refused or have another way."""
    group, names = people.in_group(name), people.members(name)
    answer = can_read(group, token_file.path, way)
    answers = {each: can_read(people.user(each), token_file.path, way) for each in names[:MOST_MEMBERS]}
    if answer.able:
        yield topic.ok(f"{answer.text} ({_listed(names)})")
        for each, theirs in answers.items():
            if not theirs.able:
                yield topic.problem(theirs.text, _fix(topic.subject, people.user(each), token_file, theirs))
        return
    remedy = _fix(topic.subject, group, token_file, answer)
    if names and all(theirs.able for theirs in answers.values()):
        yield topic.warning(f"{answer.text}; its members can ({_listed(names)}), by other rights of theirs", remedy)
    else:
        yield topic.problem(answer.text, remedy)


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "it has no members in the user database"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""  # noqa: PLR2004 - enough to recognise it
    return f"members {', '.join(names[:5])}{more}"


def _fix(profile: str, person: Person, token_file: TokenFile, answer: Answer) -> str:
    """Return what helps; the token file itself is the agent's, which would undo what is done to it by hand."""
    step = answer.refused_at
    if step is None or step.is_directory:
        return answer.fix
    try:
        planned = as_configured(step, access.resolve(access.access_of(token_file)))
    except LookupError:
        planned = step
    if rights.judge(person, planned).granted:
        return f"the agent puts the file's rights right again: token-agent refresh {profile}"
    return wish(person)


def wish(person: Person) -> str:
    """Return the line that lets somebody read a token file."""
    return f'`readers = ["{person.kind}:{person.name}"]` in the profile\'s [[profile.token_file]]'


def as_configured(step: Step, grant: access.Grant) -> Step:
    """Return a token file as it would be if the agent wrote it now."""
    mode = grant.mode | 0o040 if grant.acl else grant.mode  # an ACL of readers has a mask with r
    return replace(
        step,
        mode=mode,
        uid=step.uid if grant.uid == -1 else grant.uid,
        gid=step.gid if grant.gid == -1 else grant.gid,
        acl=rights.entries(grant.acl),
    )
