"""From a token to the files its readers know, and to the records that recognise it after a restart."""

from __future__ import annotations

import contextlib
import errno
import stat
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agent import files, formats, state, status
from agent.engine import reach
from agent.errors import OutputError
from agent.output import sink
from agent.workers import StalledError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime

    from agent.config.model import Profile, TokenFile
    from agent.engine.services import Services
    from agent.tokens import AccessToken

T = TypeVar("T")

REPAIRED = "output.repaired"
"""The event of a file that was put right."""
_UNTOLD = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""What keeps us from looking into a file, and tells nothing of what others find there."""


@dataclass(frozen=True, slots=True)
class _Unwritten:
    """A file that was not written, why, and whether it has a good token all the same; None if that cannot be told."""

    error: OutputError
    holds: bool | None = None


async def publish(
    profile: Profile,
    token: AccessToken,
    services: Services,
    *,
    event: str = "token.written",
    before: AccessToken | None = None,
) -> tuple[Path, ...]:
    """Write a token to all files of the profile, then remember it; return those that had to be written.

    Args:
        profile: whose files they are.
        token: the token.
        services: the collaborators.
        event: how the log calls a file that had to be written.
        before: the token that the files had so far; one that cannot be written serves on with it.

    Raises:
        OutputError: the first of the files that could not be written; the others were, all the same.
    """
    outcomes = await _write_all(profile, token, before, services)
    _note(profile, outcomes, token, services, event)
    changed = any(isinstance(each, sink.Written) and each.changed and not each.same_content for each in outcomes)
    for outcome in outcomes:
        if isinstance(outcome, _Unwritten):
            if changed:
                services.hooks.published(profile, token, changed=True)  # of the others
            raise outcome.error
    record = services.board.own(profile.name)
    services.hooks.published(profile, token, changed=changed)
    await _remember(profile, state.record_of(profile, token), record, services)
    pairs = zip(profile.token_file, outcomes, strict=True)
    return tuple(file.path for file, outcome in pairs if isinstance(outcome, sink.Written) and outcome.changed)


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


async def examine(profile: Profile, tokens: Sequence[AccessToken], services: Services) -> None:
    """Put on the board which files have one of these tokens, though none is written now."""
    found = await _each(profile, partial(_holds, profile, tokens), lambda _file, _error: None, services)
    _show(profile, [_written_at(profile, file, tokens[0], services, holds=holds) for file, holds in found], services)


async def _write_all(
    profile: Profile, token: AccessToken, before: AccessToken | None, services: Services
) -> list[sink.Written | _Unwritten]:
    write = partial(_write, profile, token, before, services.board.reserved)
    found = await _each(profile, write, lambda file, error: _Unwritten(error.of(file.path)), services)
    return [outcome for _, outcome in found]


async def _each(
    profile: Profile,
    work: Callable[[TokenFile], T],
    stalled: Callable[[TokenFile, StalledError], T],
    services: Services,
) -> list[tuple[TokenFile, T]]:
    """Do something to all files, directory by directory: one that does not answer costs what is in it."""
    outcomes = dict[Path, T]()
    for directory, group in reach.by_directory((file.path, file) for file in profile.token_file).items():
        try:
            outcomes |= await services.workers.disk(partial(_each_of, group, work), at=directory)
        except StalledError as error:
            outcomes |= {file.path: stalled(file, error) for file in group}
    return [(file, outcomes[file.path]) for file in profile.token_file]


def _each_of(group: Sequence[TokenFile], work: Callable[[TokenFile], T]) -> dict[Path, T]:
    return {file.path: work(file) for file in group}


def _write(
    profile: Profile, token: AccessToken, before: AccessToken | None, reserved: sink.Reserved, token_file: TokenFile
) -> sink.Written | _Unwritten:
    """Write one file; a failure is returned, so that the other files are written nevertheless."""
    try:
        content = formats.render(token, profile, token_file)
        return sink.write(token_file.path, content, sink.access_of(token_file), reserved=reserved)
    except OutputError as error:
        return _Unwritten(error, _holds(profile, [token, *([before] if before else [])], token_file))


def _holds(profile: Profile, tokens: Sequence[AccessToken], token_file: TokenFile) -> bool | None:
    """Return whether a file of ours has one of these tokens for its readers; None if that cannot be told."""
    path, hidden = token_file.path, True
    try:
        if stat.S_ISLNK(path.lstat().st_mode) and not token_file.follow_symlink:
            return False  # whatever it leads to, nobody renews it
        hidden = token_file.owner is not None  # what we gave away we may be unable to read; what is ours, never
        content = files.read_bytes(path)
    except PermissionError:
        return None if hidden else False
    except OSError as error:
        return None if error.errno in _UNTOLD else False
    return any(formats.extract(content, profile, token_file, each.token_type) == each.secret for each in tokens)


def _note(
    profile: Profile,
    outcomes: Sequence[sink.Written | _Unwritten],
    token: AccessToken,
    services: Services,
    event: str,
) -> None:
    """Log what was written and put it on the board."""
    count, shown = partial(services.board.tally.count, "token_writes", profile.name), []
    for token_file, outcome in zip(profile.token_file, outcomes, strict=True):
        holds = outcome.holds if isinstance(outcome, _Unwritten) else True
        written_at = _written_at(profile, token_file, token, services, holds=holds)
        if isinstance(outcome, _Unwritten):
            count("failure")
        elif outcome.changed:
            written_at = services.clock.now()
            count("repaired" if event == REPAIRED else "success")
            extra = {"path": str(token_file.path), "token_sha256": token.fingerprint}
            extra |= {"warning": outcome.warning} if outcome.warning else {}
            services.log.info(event, profile=profile.name, **extra)
        shown.append(written_at)
    _show(profile, shown, services)


def _written_at(
    profile: Profile, token_file: TokenFile, token: AccessToken, services: Services, *, holds: bool | None
) -> datetime | None:
    """Return when a file got the content that it has; None if that is no good token."""
    known = services.board.profiles.get(profile.name)
    before = {file.path: file.written_at for file in known.token_files} if known else {}
    path = str(token_file.path)
    if holds is None:
        return before.get(path)
    first = services.clock.now() if path in before else token.acquired_at  # somebody else has put it right just now
    return (before.get(path) or first) if holds else None


def _show(profile: Profile, written_at: Sequence[datetime | None], services: Services) -> None:
    """Put the files on the board, if anything is new about them."""
    pairs = zip(profile.token_file, written_at, strict=True)
    shown = tuple(status.TokenFileStatus(str(file.path), file.format, at) for file, at in pairs)
    known = services.board.profiles.get(profile.name)
    if known is None or known.token_files != shown:
        services.board.update(profile.name, token_files=shown)


def name_files(profile: Profile, services: Services) -> None:
    """Put the files of a profile on the board before it has a token."""
    known = services.board.profiles.get(profile.name)
    if known is None or not known.token_files:
        _show(profile, [None] * len(profile.token_file), services)


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


async def delete_all(profile: Profile, services: Services, *, newer: AccessToken | None = None) -> None:
    """Delete the token files of a profile, but those that have a newer token already."""
    kept = set[Path]()
    if newer:
        found = await _each(profile, partial(_holds, profile, [newer]), lambda _file, _error: None, services)
        kept = {file.path for file, holds in found if holds}
    followed = [str(file.path) for file in profile.token_file if file.follow_symlink]
    over = [file.path for file in profile.token_file if file.path not in kept]
    await delete(over, profile.name, services, followed)


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
