"""What must hold when the agent has been killed: what readers find, and what nobody may read."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jwt

from agent import state
from agent.credentials.store import CredentialStore
from agent.engine.jobs import load_job
from agent.output import access
from agent.output.access import Look
from tests.certificate_helpers import pool_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from agent.config.model import Config, Profile

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp")
SOCKET = "control.sock"
"""What only a running agent has; a killed one leaves it, and its successor replaces it."""


class Entry(NamedTuple):
    """What is under a name: what kind of thing (as in ``st_mode``), and who may do what with it."""

    kind: int
    look: Look


Tree = dict[str, Entry]
"""A directory with all that is in it, by relative paths."""
Contents = dict[str, bytes]


def contents(root: Path) -> Contents:
    """Return what is in all files, by their relative paths."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def tree(root: Path) -> Tree:
    """Return what there is."""
    found = {}
    for path in sorted(root.rglob("*")):
        what = path.lstat()
        acl = None if stat.S_ISLNK(what.st_mode) else access.read_acl(str(path))
        look = Look(stat.S_IMODE(what.st_mode), what.st_uid, what.st_gid, acl)
        found[str(path.relative_to(root))] = Entry(stat.S_IFMT(what.st_mode), look)
    return found


def is_closed(look: Look, final: Look) -> bool:
    """Whether nobody but the writer and those who may read the final file can read it, whatever it holds yet.

    While the group bits are nothing, neither group nor ACL entries give any right: they are the ACL's mask.
    """
    if look.mode & 0o077 == 0:
        return look.uid in (os.geteuid(), final.uid)
    return (look.mode, look.gid, look.acl) == (final.mode, final.gid, final.acl)


def look_at(now: Tree, before: Tree, after: Tree) -> None:
    """Check what a killed agent has left: nothing is missing, nothing is open to more than it is meant for.

    Args:
        now: what there is.
        before: what there was when it began.
        after: what there is when nothing interferes.
    """
    missing = before.keys() & after.keys() - now.keys()
    assert not missing, f"gone: {sorted(missing)}"
    for name, entry in now.items():
        known = [each[name] for each in (before, after) if name in each]
        if stat.S_ISDIR(entry.kind):
            assert known, f"a directory of nobody: {name}"
            assert not entry.look.mode & ~known[-1].look.mode, f"{name} is open to others: {entry}"
        elif known:
            assert entry in known, f"{name}: {entry} instead of {known}"
        elif Path(name).name == SOCKET:
            assert entry.look.mode & 0o177 == 0, f"{name} is open to others: {entry}"
        else:
            _check_temporary(name, entry, before | after)


def _check_temporary(name: str, entry: Entry, known: Tree) -> None:
    match = _TEMPORARY.fullmatch(Path(name).name)
    assert match, f"a file of nobody: {name}"
    finals = [each.look for path, each in known.items() if Path(path).name == match[1]]
    assert finals, f"a temporary file of nobody: {name}"
    assert any(is_closed(entry.look, final) for final in finals), f"{name} is open to others: {entry}"


def token_in(content: str, format: str) -> str:  # noqa: A002 - the key is called so
    """Return the token in a token file, which must be whole: its signature is right, and nothing is beside it."""
    match format:
        case "json":
            token = json.loads(content)["access_token"]
        case "env":
            token = _between(content, "ACCESS_TOKEN=", "\n")
        case "header":
            token = _between(content, "Authorization: Bearer ", "\n")
        case _:
            token = content
    options = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
    jwt.decode(token, pool_key(9).public_key(), ["RS256"], options=options)  # type: ignore[arg-type]
    return str(token)


def _between(content: str, start: str, end: str) -> str:
    assert content.startswith(start), f"does not begin as it should: {content[:40]!r}"
    assert content.endswith(end), "does not end as it should"
    return content[len(start) : len(content) - len(end)]


def tokens(root: Path, formats: Mapping[str, str]) -> dict[str, str]:
    """Return the tokens in those token files that are there; each must be whole.

    Args:
        root: where they are.
        formats: of the token files, by their paths.
    """
    there = (name for name in formats if (root / name).exists())
    return {name: token_in((root / name).read_text(), formats[name]) for name in there}


def check_documents(root: Path) -> None:
    """Check status and state, wherever they are: whole, or not there yet."""
    kinds: dict[str, Callable[[bytes], object]] = {"status.json": json.loads, "state.json": state.parse}
    for name, parse in kinds.items():
        for path in root.rglob(name):
            parse(path.read_bytes())


def reusable(config: Config, root: Path, held: Mapping[str, str], now: datetime) -> set[str]:
    """Return the profiles whose token the next start has to go on with, by what the killed agent has remembered.

    Where a file has another token it may be a newer one, over which the remembered one must not be written. Where the
    certificate is another one than the provider took last, that is tried at once.

    Args:
        config: with which it starts.
        root: where everything is.
        held: the tokens in the token files.
        now: the time.
    """
    remembered = config.agent.state_dir / "state.json"
    records = state.parse(remembered.read_bytes()) if remembered.exists() else {}
    hashes = {root / name: state.token_hash(token) for name, token in held.items()}
    return {
        profile.name
        for profile in config.profiles
        if (record := records.get(profile.name))
        and record.identity == state.identity(profile)
        and {record.token_sha256} == {hashes[file.path] for file in profile.token_file if file.path in hashes}
        and record.proven in {"", *_identities(profile, now)}
    }


def _identities(profile: Profile, now: datetime) -> set[str]:
    """Return what the provider knows the credentials by that are on disk."""
    return {each.identity for each in load_job(profile, CredentialStore(), now).usable}


def renewed(config: Config, root: Path, held: Mapping[str, str], now: Mapping[str, str]) -> set[str]:
    """Return the profiles with a new token; all files of a profile must hold one and the same.

    Args:
        config: with which the agent has started again.
        root: where everything is.
        held: the tokens in the token files before.
        now: and after.
    """
    names = {
        profile.name: {str(file.path.relative_to(root)) for file in profile.token_file} for profile in config.profiles
    }
    tokens = {profile: {now[name] for name in files} for profile, files in names.items()}
    assert all(len(each) == 1 for each in tokens.values()), "two files of a profile hold different tokens"
    return {profile for profile, each in tokens.items() if not each & set(held.values())}
