"""A profile's credential: usable, valid for long enough, closed to others, and open to the agent's user."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from agent import diagnosis, files, rotation, words
from agent.credentials.keyfiles import parse
from agent.credentials.reading import exposure
from agent.credentials.store import CredentialStore
from agent.doctor import evidence, readers, surroundings
from agent.doctor.findings import Topic
from agent.doctor.walk import walk
from agent.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from agent.config.model import Profile
    from agent.credentials.store import Credential
    from agent.doctor.findings import Finding
    from agent.doctor.rights import Person
    from agent.status import ProfileStatus


def examine(
    profile: Profile, known: ProfileStatus | None, agent: Person | None, now: datetime, kept: Collection[Path] = ()
) -> Iterator[Finding]:
    """Yield what is to be said of a profile's credential.

    Args:
        profile: whose it is.
        known: what the agent has left, if it has; the provider may have refused what looks right.
        agent: its user, None where that is not known.
        now: the time.
        kept: files that the unit's sandbox keeps from it, whatever rights it has.
    """
    topic = Topic.of_profile("credential", profile.name)
    paths = files_of(profile)
    unseen = next(filter(None, map(_unseen, paths)), None)
    if unseen:
        yield topic.note(f"{unseen[0]}, so it was not examined", unseen[1])
        yield from refused(profile.name, known)
        return
    found = list(_files(topic, profile, known, now))
    yield from found
    yield from refused(profile.name, known, found)
    for path in filter(_is_secret, paths):
        for text in exposure(path):
            yield topic.warning(text.removesuffix(f": chmod o= {path}"), f"chmod o= {path}")
    if agent is not None and evidence.available():
        each = (_readable(topic, path, agent) for path in (*paths, profile.ca_file) if path and path not in kept)
        yield from dict.fromkeys(itertools.chain.from_iterable(each))  # two files can lie behind one closed directory


def _unseen(path: Path) -> tuple[str, str] | None:
    """Return why a file cannot be looked at now though it may be right, and what helps."""
    if files.is_hidden(path):
        return f"{path}: you may not read it", "run this as root"
    if path.is_relative_to(surroundings.CREDENTIALS) and not Path(surroundings.CREDENTIALS).exists():
        return f"{path}: systemd puts it there when the service starts", "systemctl start token-agent"
    return None


def refused(name: str, known: ProfileStatus | None, told: Sequence[Finding] = ()) -> Iterator[Finding]:
    """Yield why the agent does not use a newer credential, unless that is why it has no token: then it says so itself.

    Args:
        name: of the profile.
        known: what the agent has left, if it has.
        told: what was found in the files.
    """
    text = known.credential.candidate_error if known and known.credential else None
    if known is None or not text or (known.last_error and text in known.last_error.message):
        return
    for each in told:
        text = text.replace(each.message, "").strip("; ") if each.level == "problem" else text
    if text:
        what, fix = _parted(text)
        topic = Topic.of_profile("credential", name)
        yield topic.warning(f"not used: {what}", fix or "put one in its place that can be used: it is tried at once")


def _parted(text: str) -> tuple[str, str]:
    """Part what a provider said from the hint, which the agent puts in brackets behind it."""
    if not diagnosis.find_codes(text) or not text.endswith(")"):
        return text, ""
    depth = 0
    for at in range(len(text) - 1, 0, -1):
        depth += (text[at] == ")") - (text[at] == "(")
        if depth == 0:
            return text[:at].rstrip(), text[at + 1 : -1]
    return text, ""


def _files(topic: Topic, profile: Profile, known: ProfileStatus | None, now: datetime) -> Iterator[Finding]:
    """Yield whether what is in the files can be used."""
    loaded = CredentialStore().load(profile, now)
    doubtful = bool(known and known.credential and known.credential.candidate_error)
    for each in loaded:
        if isinstance(each, CredentialError):
            yield from _refusal(topic, each)
        else:
            yield from _usable(topic, each, now, "is valid by itself" if doubtful else "can be used")
    yield from _ending(topic, profile, [each for each in loaded if not isinstance(each, CredentialError)], now)


def _is_secret(path: Path) -> bool:
    """Tell whether a file holds more than certificates, which are no secret."""
    try:
        contents = parse(path, files.read_bytes(path), None)
    except (OSError, CredentialError):
        return True
    return not contents.certificates or contents.key is not None


def files_of(profile: Profile) -> list[Path]:
    """Return the files that make up a profile's credential, the certificates first."""
    parts = [(each.path, each.key, each.password_file) for each in profile.certificate]
    federated = profile.federated.assertion_file if profile.federated else None
    paths = [path for part in parts for path in part] + [federated, profile.client_secret_file]
    return list(dict.fromkeys(path for path in paths if path))


def _refusal(topic: Topic, error: CredentialError) -> Iterator[Finding]:
    yield topic.problem(error.message, error.hint or "token-agent cert show FILE tells what is in a certificate")


def _usable(topic: Topic, credential: Credential, now: datetime, how: str) -> Iterator[Finding]:
    try:
        credential.check(now)
    except CredentialError as error:
        yield from _refusal(topic, error)
        return
    what = credential.kind.replace("_", " ")
    until = f", expires {words.relative(credential.not_after - now)}" if credential.not_after else ""
    yield topic.ok(f"{what} {credential.path} {how}{until}")


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
