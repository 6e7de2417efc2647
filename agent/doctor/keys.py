"""A profile's credential: usable, valid for long enough, closed to others, and open to the agent's user."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from agent import rotation, words
from agent.credentials.reading import exposure
from agent.credentials.store import CredentialStore
from agent.doctor import evidence, readers
from agent.doctor.findings import Topic
from agent.doctor.walk import walk
from agent.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from agent.config.model import Profile
    from agent.credentials.store import Credential
    from agent.doctor.findings import Finding
    from agent.doctor.rights import Person


def examine(profile: Profile, agent: Person | None, now: datetime) -> Iterator[Finding]:
    """Yield what is to be said of a profile's credential; the agent's user is None where it is not known."""
    topic = Topic.of_profile("credential", profile.name)
    paths = files_of(profile)
    hidden = [path for path in paths if _is_hidden(path)]
    if hidden:
        yield topic.note(f"{hidden[0]}: you may not read it, so it was not examined", "run this as root")
        return
    loaded = CredentialStore().load(profile, now)
    for each in loaded:
        yield from _refusal(topic, each) if isinstance(each, CredentialError) else _usable(topic, each, now)
    yield from _ending(topic, profile, [each for each in loaded if not isinstance(each, CredentialError)], now)
    for path in paths:
        for text in exposure(path):
            yield topic.warning(text.removesuffix(f": chmod o= {path}"), f"chmod o= {path}")
    if agent is not None and evidence.available():
        for path in [*paths, *([profile.ca_file] if profile.ca_file else [])]:
            yield from _readable(topic, path, agent)


def files_of(profile: Profile) -> list[Path]:
    """Return the files that make up a profile's credential, the certificates first."""
    parts = [(each.path, each.key, each.password_file) for each in profile.certificate]
    federated = profile.federated.assertion_file if profile.federated else None
    paths = [path for part in parts for path in part] + [federated, profile.client_secret_file]
    return list(dict.fromkeys(path for path in paths if path))


def _is_hidden(path: Path) -> bool:
    """Whether it is our own lack of rights that keeps us from reading a file."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.EACCES
    return not os.access(path, os.R_OK)


def _refusal(topic: Topic, error: CredentialError) -> Iterator[Finding]:
    yield topic.problem(error.message, error.hint or "token-agent cert show FILE tells what is in a certificate")


def _usable(topic: Topic, credential: Credential, now: datetime) -> Iterator[Finding]:
    try:
        credential.check(now)
    except CredentialError as error:
        yield from _refusal(topic, error)
        return
    what = credential.kind.replace("_", " ")
    until = f", expires {words.relative(credential.not_after - now)}" if credential.not_after else ""
    yield topic.ok(f"{what} {credential.path} can be used{until}")


def _ending(topic: Topic, profile: Profile, usable: list[Credential], now: datetime) -> Iterator[Finding]:
    """Yield a warning if the certificate that lasts longest ends soon."""
    lasting = [(each.not_after, str(each.path)) for each in usable if each.not_after is not None]
    if not lasting:
        return
    end, path = max(lasting)
    if rotation.threshold(end - now, profile.warn_before) is None:
        return
    text = f"the certificate {path} expires {words.relative(end - now)}"
    yield topic.warning(text, "put a renewed one in its place, and upload its .cer to the app registration")


def _readable(topic: Topic, path: Path, agent: Person) -> Iterator[Finding]:
    way = walk(path)
    if way.error:
        return  # loading has named it
    answer = readers.can_read(agent, path, way)
    if answer.able:
        yield topic.ok(f"the agent's {answer.text}")
    else:
        yield topic.problem(f"the agent's {answer.text}", f"{answer.fix}; or LoadCredential= in the unit")
