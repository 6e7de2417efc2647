"""``token-agent check``: everything that could be wrong, found before the service runs into it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from agent.commands import common

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from agent.commands.becoming import Service
    from agent.commands.check_report import Report
    from agent.config.model import Config, Profile
    from agent.credentials.store import Credential
    from agent.doctor.rights import Person
    from agent.engine.jobs import Job
    from agent.engine.services import Services
    from agent.errors import AgentError, CredentialError, Problem


@click.command(
    epilog=common.examples(
        "token-agent check               configuration, certificates, folders",
        "token-agent check --online      also ask the provider for each token",
        "token-agent check -c new.toml && mv new.toml /etc/token-agent/config.toml",
    )
)
@click.option("--online", is_flag=True, help="Also acquire a token for each profile; nothing is written.")
@common.config_option
def command(config: Path | None, *, online: bool) -> int:
    """Validate configuration, certificates, keys and output folders, and report all problems at once.

    Changes nothing. A profile that is wrong in the configuration does not keep the others from being looked at. Root
    sees what the service's user would, if the service ran before. Exit codes: 0 all is well; 78 a file or folder is
    wrong; with --online also 77 the provider refuses, 75 it cannot be reached now.
    """
    from agent import log
    from agent.commands import becoming, check_files, check_hook, check_report, check_sandbox, check_sources
    from agent.credentials.store import CredentialStore
    from agent.engine.jobs import load_job
    from agent.engine.reserving import reserved
    from agent.errors import ConfigurationError

    seen_by = becoming.service(config)
    loaded, problems = becoming.read_sound(config, seen_by.environ)
    unknown = _unknown_directories(loaded, problems, seen_by)
    log.configure("error", "console", os.environ)
    report, kept = check_report.Report(str(loaded.path)), check_sandbox.look(loaded, seen_by)
    if seen_by.person:
        becoming.become(seen_by)
        loaded, problems = _introduce(seen_by, seen_by.person, (loaded, problems), report)
    for problem in problems:
        report.error(ConfigurationError((problem,)))
    for warning in (*loaded.warnings, *check_sources.of_all(loaded)):
        report.warning(warning)
    for key, error in _directories(loaded, seen_by.promised | unknown):
        report.error(error, f"[agent] {key}")
    kept.tell("", report)
    store, now = CredentialStore(), datetime.now(UTC)
    jobs = [load_job(profile, store, now) for profile in loaded.profiles]
    results = _ask_all(loaded, jobs, now) if online else {}
    places, runtime_dir = reserved(loaded), loaded.agent.runtime_dir
    # Path.exists raises where one may not enter.
    to_be_made = None if os.path.exists(runtime_dir) and runtime_dir not in unknown else runtime_dir  # noqa: PTH110
    for job in jobs:
        click.echo(f"profile {job.profile.name}")
        kept.tell(job.profile.name, report)
        _check(job, now, report, seen_by.credentials)
        for token_file in job.profile.token_file:
            check_files.look(token_file, report, to_be_made, job.profile.name, places)
        check_hook.look(job.profile, loaded, report)
        report.answer(results.get(job.profile.name), job.profile.name)
    return report.finish(len(jobs))


def _unknown_directories(config: Config, problems: Sequence[Problem], seen_by: Service) -> frozenset[Path]:
    """Return those of the agent's directories that are the default ones only because others are said wrongly."""
    from agent import files
    from agent.peek import peek_settings

    if not problems:
        return frozenset()
    wrong = {problem.key for problem in problems}
    doubted = {config.agent.state_dir} if "agent.state_dir" in wrong else set()
    if peek_settings(config.path, seen_by.environ, files.read_bytes).problem:
        doubted.add(config.agent.runtime_dir)
    return frozenset(doubted)


def _introduce(
    seen_by: Service, person: Person, seen: tuple[Config, list[Problem]], report: Report
) -> tuple[Config, list[Problem]]:
    """Say as whom everything is checked, and return the configuration, and its problems, as that user sees it.

    Raises:
        ConfigurationError: there is something in it that this user may not read, or not find.
    """
    from agent.commands import becoming
    from agent.errors import ConfigurationError, Problem

    config = seen[0]
    report.good(f"checked as user {person.name}, who keeps {config.agent.runtime_dir}")
    if os.access(config.path, os.R_OK):
        return becoming.read_sound(config.path, seen_by.environ)
    message = f"user {person.name} may not read it"
    if config.path == common.DEFAULT_CONFIG:
        hint = f"chgrp {person.name} {config.path} && chmod 0640 {config.path}"
        report.error(ConfigurationError((Problem(config.path, None, "", message, hint),)))
    else:
        report.warning(f"{config.path}: {message} where it is now")
    return seen


def _directories(config: Config, promised: Collection[Path]) -> Iterator[tuple[str, AgentError]]:
    """Yield what is wrong with the agent's own directories, each with its key; those systemd will make are not."""
    from agent.errors import OutputError
    from agent.output import sink

    for key, directory in (("runtime_dir", config.agent.runtime_dir), ("state_dir", config.agent.state_dir)):
        if directory in promised:
            continue
        try:
            sink.probe_directory(directory)
            _try_making(directory)
        except OutputError as error:
            yield key, error


def _try_making(directory: Path) -> None:
    """Make a directory, and remove it, where one is still to be made: in /proc and the like rights do not tell.

    Raises:
        OutputError: there can be none.
    """
    import tempfile

    from agent.errors import OutputError

    if directory.exists():
        return
    parent = next(each for each in directory.parents if each.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".token-agent-", dir=parent):
            pass
    except OSError as error:
        message = f"it does not exist, and cannot be made in {parent}: {error.strerror}"
        raise OutputError(directory, message, hint="name a directory of a real file system") from None


def _check(job: Job, now: datetime, report: Report, later: Path | None) -> None:
    """Report on the credentials of one profile."""
    name = job.profile.name
    for error in _credential_errors(job, now):
        if later and error.path.is_relative_to(later):
            report.warning(f"{name}: {error.path}: systemd puts it there when the service starts; not looked at")
        else:
            report.error(error, f"{name}: {_key(job.profile, error.path)}")
    for credential in _sound(job, now):
        report.good(_describe(credential, now), credential.path)
    for credential in job.usable:
        for warning in credential.warnings:
            report.warning(f"{name}: {warning}")
    for warning in _ending(job, now):
        report.warning(f"{name}: {warning}")


def _ending(job: Job, now: datetime) -> Iterator[str]:
    """Yield a warning if the certificate that lasts longest ends soon enough to be announced."""
    from agent import rotation, words

    ends = [(each.not_after, str(each.path)) for each in _sound(job, now) if each.not_after]
    end, path = max(ends, default=(None, ""))
    if end and rotation.threshold(end - now, job.profile.warn_before) is not None:
        when = words.relative(end - now)
        yield f"the certificate {path} expires {when}: put a renewed one in its place, and upload its .cer"


def _credential_errors(job: Job, now: datetime) -> Iterator[CredentialError]:
    """Yield what is wrong with trust root and credentials, also with those that are read at every use."""
    yield from (unusable.error() for unusable in job.unusable)
    yield from (error for each in job.usable if (error := _flaw(each, now)))


def _sound(job: Job, now: datetime) -> list[Credential]:
    """Return the credentials that could be used now."""
    return [each for each in job.usable if _flaw(each, now) is None]


def _flaw(credential: Credential, now: datetime) -> CredentialError | None:
    from agent.errors import CredentialError

    try:
        credential.check(now)
    except CredentialError as error:
        return error
    return None


def _key(profile: Profile, path: Path) -> str:
    """Return the key of a profile that names a file, as far as it is one of a credential."""
    keys: dict[Path | None, str] = {profile.client_secret_file: "client_secret_file", profile.ca_file: "ca_file"}
    for certificate in profile.certificate:
        keys |= {certificate.path: "certificate", certificate.key: "certificate.key"}
        keys |= {certificate.password_file: "certificate.password_file"}
    if profile.federated:
        keys[profile.federated.assertion_file] = "federated.assertion_file"
    return keys.get(path, "credential")


def _describe(credential: Credential, now: datetime) -> str:
    from agent import words

    text = f"{credential.kind.replace('_', ' ')} {credential.path}"
    if credential.thumbprint:
        text += f", thumbprint {credential.thumbprint}"
    return text + (f", expires {words.relative(credential.not_after - now)}" if credential.not_after else "")


def _ask_all(config: Config, jobs: list[Job], now: datetime) -> dict[str, str | AgentError]:
    """Acquire a token for every profile that has a credential; nothing is written."""
    import anyio

    from agent.commands import assembly
    from agent.engine.services import Transports

    results: dict[str, str | AgentError] = {}
    transports = Transports()

    async def main() -> None:
        services = assembly.services(config, "once", transports)
        async with anyio.create_task_group() as tasks:
            for job in jobs:
                if sound := _sound(job, now):
                    tasks.start_soon(_ask, job, sound[0], services, results)

    try:
        anyio.run(main)
    finally:
        transports.close()
    return results


async def _ask(job: Job, credential: Credential, services: Services, results: dict[str, str | AgentError]) -> None:
    """Acquire one token and keep what came of it, not the token."""
    from agent import words
    from agent.engine import acquisition
    from agent.errors import AgentError

    try:
        token = await acquisition.acquire(job, credential, services)
    except AgentError as error:
        results[job.profile.name] = error
    else:
        life = words.duration(token.lifetime)
        results[job.profile.name] = f"{job.profile.authority_url} answered with a token for {life}"
