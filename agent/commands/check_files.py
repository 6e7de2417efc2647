"""What ``check`` says of a profile's token files: can the agent write there, with the owner and rights asked for?"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.commands.check_report import Report
    from agent.config.model import TokenFile
    from agent.output.access import Access
    from agent.output.sink import Reserved

HINT = "create it, or correct owner, group or readers"


def look(token_file: TokenFile, report: Report, to_be_made: Path | None, name: str, places: Reserved) -> None:
    """Report on a token file: everything that is in the way of writing it.

    Args:
        token_file: the file.
        report: to be told.
        to_be_made: a directory that is none of the file's business, as the agent makes its own when it starts.
        name: of the profile.
        places: that are something else's.
    """
    from agent.errors import OutputError
    from agent.output import sink

    path, access = token_file.path, sink.access_of(token_file)
    unknown = dict(_unknown(access))
    errors = [OutputError(path, message, hint=HINT) for message in dict.fromkeys(unknown.values())]
    try:
        # Without the names that do not exist, so that what is wrong with the directory is found as well.
        rest = _without(access, unknown)
        for warning in sink.probe(path, rest, places) if path.parent != to_be_made else ():
            report.warning(f"{name}: token_file: {warning}")
    except OutputError as error:
        errors.append(error)
    for each in errors:
        report.error(each, f"{name}: token_file")
    if not errors:
        report.good(f"token file {path} ({token_file.format}, {token_file.mode:04o})", path)


def _unknown(access: Access) -> Iterator[tuple[str, str]]:
    """Yield each user and group that does not exist, written as a reader, with what is to be said of it."""
    from agent.output.access import group_id, user_id

    owner, group = access.owner and f"user:{access.owner}", access.group and f"group:{access.group}"
    for reader in filter(None, (owner, group, *access.readers)):
        kind, _, name = reader.partition(":")
        try:
            (user_id if kind == "user" else group_id)(name)
        except LookupError as error:
            yield reader, str(error)


def _without(access: Access, unknown: dict[str, str]) -> Access:
    return dataclasses.replace(
        access,
        owner=None if f"user:{access.owner}" in unknown else access.owner,
        group=None if f"group:{access.group}" in unknown else access.group,
        readers=tuple(reader for reader in access.readers if reader not in unknown),
    )
