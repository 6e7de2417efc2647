"""``token-agent check``: everything that could be wrong, found before the service runs into it."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from agent.commands import common

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.config.model import Config, TokenFile
    from agent.credentials.store import Credential
    from agent.engine.jobs import Job
    from agent.engine.services import Services
    from agent.errors import AgentError


@click.command(
    epilog=common.examples(
        "token-agent check                        configuration, certificates, folders",
        "token-agent check --online               also ask the provider for each token",
        "token-agent check --config ./new.toml && mv new.toml /etc/token-agent/config.toml",
    )
)
@click.option("--online", is_flag=True, help="Also acquire a token for each profile; nothing is written.")
@common.config_option
def command(config: Path | None, *, online: bool) -> int:
    """Validate configuration, certificates, keys and output folders, and report all problems at once.

    Changes nothing. Exit codes: 0 all is well; 78 a file or folder is wrong; with --online also 77 the provider
    refuses, 75 it cannot be reached now.
    """
    from agent import log
    from agent.credentials.store import CredentialStore
    from agent.engine.jobs import load_job

    loaded = common.read_config(config)
    log.configure("error", "console", os.environ)
    report = Report(str(loaded.path))
    for warning in loaded.warnings:
        report.warning(warning)
    for error in _directories(loaded):
        report.error(error)
    store, now = CredentialStore(), datetime.now(UTC)
    jobs = [load_job(profile, store, now) for profile in loaded.profiles]
    results = _ask_all(loaded, jobs) if online else {}
    for job in jobs:
        _check(job, now, report, loaded.agent.runtime_dir)
        report.answer(results.get(job.profile.name))
    return report.finish(len(jobs))


class Report:
    """What was found, printed as it is found: results to standard output, what is wrong to standard error."""

    def __init__(self, subject: str) -> None:
        self.codes: set[int] = set()
        self.warnings = 0
        click.echo(f"configuration {subject}")

    def good(self, text: str) -> None:
        """Print something that is as it should be."""
        click.echo(f"  ok       {text}")

    def warning(self, text: str) -> None:
        """Print something that works but deserves a look."""
        self.warnings += 1
        click.echo(f"  warning  {text}", err=True)

    def error(self, error: AgentError) -> None:
        """Print something that is wrong, and how to mend it."""
        self.codes.add(error.exit_code)
        sys.stdout.flush()  # keep the two streams in step where they end in one place
        click.echo(f"  ERROR    {error.message}", err=True)
        if error.hint:
            click.echo(f"           hint: {error.hint}", err=True)

    def answer(self, online: str | AgentError | None) -> None:
        """Print what the provider said, if it was asked."""
        if isinstance(online, str):
            self.good(online)
        elif online is not None:
            self.error(online)

    def finish(self, profiles: int) -> int:
        """Print the sum and return the exit code."""
        count = f"{profiles} profile{'s' * (profiles != 1)}"
        warned = f", {self.warnings} warning{'s' * (self.warnings != 1)}" if self.warnings else ""
        if not self.codes:
            click.echo(f"{count}: all is well{warned}")
        return max(self.codes, default=0)


def _directories(config: Config) -> Iterator[AgentError]:
    """Yield what is wrong with the agent's own directories."""
    from agent.errors import OutputError
    from agent.output import sink

    for directory in (config.agent.runtime_dir, config.agent.state_dir):
        try:
            sink.probe_directory(directory)
        except OutputError as error:
            yield error


def _check(job: Job, now: datetime, report: Report, runtime_dir: Path) -> None:
    """Report on one profile."""
    click.echo(f"profile {job.profile.name}")
    for unusable in job.unusable:
        report.error(unusable.error())
    for credential in job.usable:
        report.good(_describe(credential, now))
        for warning in credential.warnings:
            report.warning(warning)
    for token_file in job.profile.token_file:
        _check_token_file(token_file, report, runtime_dir)


def _describe(credential: Credential, now: datetime) -> str:
    from agent import words

    text = f"{credential.kind.replace('_', ' ')} {credential.path}"
    if credential.thumbprint:
        text += f", thumbprint {credential.thumbprint}"
    return text + (f", expires {words.relative(credential.not_after - now)}" if credential.not_after else "")


def _check_token_file(token_file: TokenFile, report: Report, runtime_dir: Path) -> None:
    """Try whether the agent can write there, with the owner and rights that are asked for."""
    from agent.errors import OutputError

    # The agent makes its own directory when it starts; that it is not there before is no problem of the file's.
    missing = token_file.path.parent == runtime_dir and not runtime_dir.exists()
    try:
        for warning in _try_access(token_file) if missing else _try_writing(token_file):
            report.warning(warning)
    except OutputError as error:
        report.error(error)
    else:
        report.good(f"token file {token_file.path} ({token_file.format}, {token_file.mode:04o})")


def _try_writing(token_file: TokenFile) -> tuple[str, ...]:
    from agent.output import sink

    return sink.probe(token_file.path, sink.access_of(token_file))


def _try_access(token_file: TokenFile) -> tuple[str, ...]:
    """Look up owner, group and readers, which is all that can be tried without a folder."""
    from agent.errors import OutputError
    from agent.output import access

    try:
        access.resolve(access.access_of(token_file))
    except LookupError as error:
        raise OutputError(token_file.path, str(error), hint="create it, or correct owner, group or readers") from None
    return ()


def _ask_all(config: Config, jobs: list[Job]) -> dict[str, str | AgentError]:
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
                if job.usable:
                    tasks.start_soon(_ask, job, services, results)

    try:
        anyio.run(main)
    finally:
        transports.close()
    return results


async def _ask(job: Job, services: Services, results: dict[str, str | AgentError]) -> None:
    """Acquire one token and keep what came of it, not the token."""
    from agent import words
    from agent.engine import acquisition
    from agent.errors import AgentError

    try:
        token = await acquisition.acquire(job, job.usable[0], services)
    except AgentError as error:
        results[job.profile.name] = error
    else:
        life = words.duration(token.lifetime)
        results[job.profile.name] = f"{job.profile.authority_url} answered with a token for {life}"
