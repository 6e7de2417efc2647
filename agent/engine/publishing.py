"""From a token to the files its readers know, and to the records that recognise it after a restart."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent import files, formats, state, status
from agent.engine import reach
from agent.errors import OutputError
from agent.output import sink
from agent.workers import StalledError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from agent.config.model import Profile, TokenFile
    from agent.engine.services import Services
    from agent.tokens import AccessToken

REPAIRED = "output.repaired"
"""The event of a file that was put right."""


async def publish(profile: Profile, token: AccessToken, services: Services, *, event: str = "token.written") -> int:
    """Write a token to all files of the profile, then remember it; return how many had to be written.

    Args:
        profile: whose files they are.
        token: the token.
        services: the collaborators.
        event: how the log calls a file that had to be written.

    Raises:
        OutputError: the first of the files that could not be written; the others were, all the same.
    """
    outcomes = await _write_all(profile, token, services)
    _note(profile, outcomes, token, services, event)
    changed = any(isinstance(each, sink.Written) and each.changed and not each.same_content for each in outcomes)
    for outcome in outcomes:
        if isinstance(outcome, OutputError):
            if changed:
                services.hooks.published(profile, token, changed=True)  # of the others
            raise outcome
    before = services.board.records.get(profile.name)
    services.hooks.published(profile, token, changed=changed)
    await _remember(profile, state.record_of(profile, token), before, services)
    return sum(isinstance(outcome, sink.Written) and outcome.changed for outcome in outcomes)


async def _remember(profile: Profile, record: state.Record, before: state.Record | None, services: Services) -> None:
    """Keep what is known of a token whose files stand; now old paths of this profile may go.

    They are remembered until they are gone, so that the next start finishes what a crash interrupts.
    """
    board = services.board
    deletes = before is not None and before.on_removal == "delete"
    old = [path for path in before.paths if Path(path) not in board.claimed] if before and deletes else []
    if before and old:
        known = replace(record, paths=(*record.paths, *old), followed=(*record.followed, *before.followed))
        board.remember(profile.name, known)
        await delete(map(Path, old), profile.name, services, before.followed)
    board.remember(profile.name, record)


async def _write_all(profile: Profile, token: AccessToken, services: Services) -> list[sink.Written | OutputError]:
    """Write all files, directory by directory: one that does not answer costs what is in it."""
    reserved, outcomes = services.board.reserved, dict[Path, sink.Written | OutputError]()
    for directory, group in reach.by_directory((file.path, file) for file in profile.token_file).items():
        write = partial(_write_group, profile, group, token, reserved)
        try:
            outcomes |= await services.workers.disk(write, at=directory)
        except StalledError as error:
            outcomes |= {file.path: error.of(file.path) for file in group}
    return [outcomes[file.path] for file in profile.token_file]


def _write_group(
    profile: Profile, group: Sequence[TokenFile], token: AccessToken, reserved: sink.Reserved
) -> dict[Path, sink.Written | OutputError]:
    return {file.path: _write(profile, file, token, reserved) for file in group}


def _write(
    profile: Profile, token_file: TokenFile, token: AccessToken, reserved: sink.Reserved
) -> sink.Written | OutputError:
    """Write one file; a failure is returned, so that the other files are written nevertheless."""
    try:
        content = formats.render(token, profile, token_file)
        return sink.write(token_file.path, content, sink.access_of(token_file), reserved=reserved)
    except OutputError as error:
        return error


def _note(
    profile: Profile,
    outcomes: Sequence[sink.Written | OutputError],
    token: AccessToken,
    services: Services,
    event: str,
) -> None:
    """Log what was written and put it on the board."""
    known = services.board.profiles.get(profile.name)
    before = {file.path: file.written_at for file in known.token_files} if known else {}
    shown = []
    for token_file, outcome in zip(profile.token_file, outcomes, strict=True):
        path, written_at = str(token_file.path), before.get(str(token_file.path))
        if isinstance(outcome, OutputError):
            services.board.tally.count("token_writes", profile.name, "failure")
        else:
            written_at = services.clock.now() if outcome.changed else written_at or token.acquired_at
            if outcome.changed:
                services.board.tally.count("token_writes", profile.name, "repaired" if event == REPAIRED else "success")
                extra = {"warning": outcome.warning} if outcome.warning else {}
                services.log.info(event, profile=profile.name, path=path, token_sha256=token.fingerprint, **extra)
        shown.append(status.TokenFileStatus(path, token_file.format, written_at))
    services.board.update(profile.name, token_files=tuple(shown))


async def recall(profile: Profile, services: Services) -> tuple[AccessToken | None, bool, str]:
    """Return the token that an earlier run published for the same identity, if a file still has it.

    And whether another file has another token. It may be a newer one: an agent that ends between two files, or before
    it has saved what it knows, leaves it so. And the credential by which it came, empty if that is not known.
    """
    record = services.board.records.get(profile.name)
    if record is None or record.identity != state.identity(profile):
        return None, False, ""
    found: AccessToken | None = None
    others = False
    for file in profile.token_file:
        with contextlib.suppress(OSError):
            content = await services.workers.disk(partial(files.read_bytes, file.path), at=file.path.parent)
            secret = formats.extract(content, profile, file, record.token_type)
            token = record.restore(secret) if secret is not None else None
            found = found or token
            others = others or (secret is not None and token is None)
    return found, others, record.proven


async def delete_all(profile: Profile, services: Services) -> None:
    """Delete the token files of a profile."""
    followed = [str(file.path) for file in profile.token_file if file.follow_symlink]
    await delete([file.path for file in profile.token_file], profile.name, services, followed)


async def delete(paths: Iterable[Path], profile: str, services: Services, followed: Collection[str]) -> None:
    """Delete token files that must not serve any longer; one that cannot be deleted is said so.

    Args:
        paths: the files.
        profile: whose they were.
        services: the collaborators.
        followed: those of them that were written through a symbolic link.
    """
    for path in paths:
        remove = partial(sink.remove, path, follow_symlink=str(path) in followed, reserved=services.board.reserved)
        try:
            await services.workers.disk(remove, at=path.parent)
        except sink.ReservedError:
            continue  # it has another name now, such as /run/x after /var/run/x
        except (OutputError, StalledError) as caught:
            error = caught if isinstance(caught, OutputError) else caught.of(path)
            services.log.error("token.undeleted", profile=profile, message=error.message, hint=error.hint)
        else:
            services.log.info("token.deleted", profile=profile, path=str(path))
