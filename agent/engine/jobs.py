"""From a profile to a job: its credential and trust root loaded from disk, as a value that can be compared."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent import files, status
from agent.credentials.reading import explained
from agent.errors import CredentialError
from agent.network.trust import context

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from datetime import datetime

    from agent.config.model import Config, Profile
    from agent.credentials.store import Credential, CredentialStore
    from agent.rotation import Refusal


CA_HINT = "`ca_file` is a PEM file with the certificates of authorities (-----BEGIN CERTIFICATE-----)"


@dataclass(frozen=True, slots=True)
class Unusable:
    """Stands where a credential should be that cannot be used; a value, so that jobs can be compared.

    The hint does not count: it may tell how long ago something was.
    """

    kind: str
    path: Path
    message: str
    hint: str = field(compare=False)

    def error(self) -> CredentialError:
        """Return the error to report at every attempt."""
        return CredentialError(self.path, self.message.removeprefix(f"{self.path}: "), hint=self.hint)


@dataclass(frozen=True, slots=True)
class Job:
    """A profile with its loaded credentials and trust root; two equal jobs are the same work.

    ``credentials`` are the newest first; ``trust`` is the SHA-256 of the ``ca_file``'s content, None for the system's
    trust.
    """

    profile: Profile
    credentials: tuple[Credential | Unusable, ...]
    trust: str | None = None

    @property
    def kind(self) -> str:
        """The kind of credential that the profile names."""
        return credential_source(self.profile)[0]

    @property
    def usable(self) -> tuple[Credential, ...]:
        """The credentials that can be used."""
        return tuple(each for each in self.credentials if not isinstance(each, Unusable))

    @property
    def unusable(self) -> tuple[Unusable, ...]:
        """Those that cannot, and why."""
        return tuple(each for each in self.credentials if isinstance(each, Unusable))


def load_job(profile: Profile, store: CredentialStore, now: datetime) -> Job:
    """Load what a profile needs from disk; what cannot be used becomes part of the job."""
    kind, _ = credential_source(profile)
    loaded = [_unusable(kind, each) if isinstance(each, CredentialError) else each for each in store.load(profile, now)]
    try:
        return Job(profile, tuple(loaded), _trust(profile))
    except CredentialError as error:  # nothing is of use without a trust root, but all that is wrong is told
        wrong = [each for each in loaded if isinstance(each, Unusable)]
        return Job(profile, (_unusable(kind, error), *wrong))


def loads(
    profiles: Iterable[Profile], store: CredentialStore, now: datetime
) -> Iterator[tuple[frozenset[Path], Callable[[], Job]]]:
    """Yield for each profile the directories that its job is loaded from, and how."""
    for profile in profiles:
        places = frozenset(path.parent for path in files_of(profile))
        yield places, functools.partial(load_job, profile, store, now)


def unreachable(profile: Profile, stalled: Collection[Path], message: str, hint: str) -> Job:
    """Return a profile of which nothing could be loaded, because one of its directories does not answer."""
    paths = list(files_of(profile))
    path = next((path for path in paths if path.parent in stalled), paths[0])
    return Job(profile, (Unusable(credential_source(profile)[0], path, f"{path}: {message}", hint),))


def _unusable(kind: str, error: CredentialError) -> Unusable:
    return Unusable(kind, error.path, error.message, error.hint)


def _trust(profile: Profile) -> str | None:
    if profile.ca_file is None:
        return None
    try:
        digest = hashlib.sha256(files.read_bytes(profile.ca_file, limit=16 << 20)).hexdigest()
        _prove_trust(profile.ca_file, digest)
    except OSError as error:
        raise trust_error(profile.ca_file, error) from error
    return digest


def trust_error(ca_file: Path | None, error: OSError) -> CredentialError:
    """Return what to tell of a trust root that cannot be used: whether it cannot be read, or holds nothing of use."""
    missing = isinstance(error, FileNotFoundError)
    path, reason = ca_file or Path(error.filename or "/etc/ssl/certs"), error.strerror or type(error).__name__
    hint = CA_HINT if ca_file else "install ca-certificates, or name a `ca_file`"
    if ca_file and isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
        reason, hint = explained(ca_file, error)
    return CredentialError(path, f"no usable trust root: {reason}", hint=hint, missing=missing)


@functools.lru_cache(maxsize=64)
def _prove_trust(ca_file: Path, digest: str) -> None:  # noqa: ARG001 - the key: the same bytes are proven once
    """Say if a CA file cannot be used, such as half of one: the trust root before it goes on being used."""
    context(ca_file)


def credential_source(profile: Profile) -> tuple[str, Path | None]:
    """Return the kind of a profile's credential and the file it comes from."""
    if profile.certificate:
        return "certificate", profile.certificate[0].path
    if profile.federated:
        return "federated", profile.federated.assertion_file
    return "client_secret", profile.client_secret_file


def watched_files(config: Config) -> Iterator[Path]:
    """Yield every file whose content decides what the agent does."""
    yield from config.sources
    for profile in config.profiles:
        yield from (path for path in files_of(profile) if not profile.federated or path == profile.ca_file)


def files_of(profile: Profile) -> Iterator[Path]:
    """Yield the files that a profile's job is loaded from; an assertion's is read at every use, whatever it holds."""
    for certificate in profile.certificate:
        yield from (each for each in (certificate.path, certificate.key, certificate.password_file) if each)
    assertion = profile.federated.assertion_file if profile.federated else None
    yield from (each for each in (profile.client_secret_file, assertion, profile.ca_file) if each)


def output_files(config: Config) -> Iterator[Path]:
    """Yield all files the agent writes."""
    yield from (file.path for profile in config.profiles for file in profile.token_file)
    yield config.agent.runtime_dir / "status.json"
    yield config.agent.state_dir / "state.json"
    if config.agent.metrics_textfile:
        yield config.agent.metrics_textfile


def credential_status(
    job: Job, accepted: Credential | None, refused: Mapping[str, Refusal], proven: str
) -> status.CredentialStatus:
    """Return what `status` shows of a profile's credentials: the one in use, and why a newer one is not.

    None is in use, where the one ``proven`` last is gone and what is on disk has not been taken.
    """
    kind, path = credential_source(job.profile)
    errors = [each.message for each in job.unusable]
    errors += [refused[each.identity].message for each in job.usable if each.identity in refused]
    candidate_error = "; ".join(errors) or None
    shown = accepted or next((each for each in job.usable if not each.lasting or proven in ("", each.identity)), None)
    if shown is None:
        return status.CredentialStatus(kind, str(path), candidate_error=candidate_error)
    return status.CredentialStatus(
        kind,
        str(shown.path),
        subject=shown.subject,
        thumbprint=shown.thumbprint,
        thumbprint_sha256=shown.thumbprint_sha256,
        not_after=shown.not_after,
        candidate_error=candidate_error,
    )


def keep_working(job: Job, running: Mapping[str, Job], refused: Collection[str]) -> Job:
    """Return the job with the credentials at work, where what is on disk cannot be used and nothing else changed.

    What was ``refused`` (identities) never was at work, and is not on disk any more.
    """
    before = running.get(job.profile.name)
    if before is None or job.usable or before.profile != job.profile:
        return job
    trust = job.trust if job.trust or not job.profile.ca_file else before.trust  # which may be what cannot be used
    kept = [each for each in before.usable if each.identity not in refused]
    return replace(job, credentials=(*job.unusable, *kept), trust=trust)
