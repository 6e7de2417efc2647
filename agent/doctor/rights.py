"""Whether the kernel lets somebody enter a directory or read a file, and what would make it (acl(5)). Pure.

The kernel's order: the owner's bits decide for the owner; then an ACL's entry for the user; then those of all their
groups together, of which one has to give everything that is asked for; then the others'. The mask limits all but the
owner and the others. One exception is the kernel's own: with an empty mask it does not look at the ACL at all. Before
all of that come the capabilities to read everything, which root has, and a service can be given (capabilities(7)).
"""

from __future__ import annotations

import shlex
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

READ, ENTER = 4, 1
"""What is asked for: the r of a file, the x of a directory."""
_USER, _GROUP_OBJ, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
CAPABILITIES = {"cap_chown": 0, "cap_dac_override": 1, "cap_dac_read_search": 2, "cap_fowner": 3}
"""Those that concern files, by their names in units, as bits of a mask (linux/capability.h)."""
_READING = 1 << CAPABILITIES["cap_dac_override"] | 1 << CAPABILITIES["cap_dac_read_search"]
_HEAD, _ENTRY = 4, "<HHI"
"""linux/posix_acl_xattr.h: four bytes of version, then tag, permissions and id of each entry."""
_LETTERS = {READ: "r", ENTER: "x"}
_VERBS = {READ: "read", ENTER: "enter"}


class Entry(NamedTuple):
    """An entry of an ACL."""

    tag: int
    bits: int
    number: int


@dataclass(frozen=True, slots=True)
class Person:
    """A user with their groups; or somebody of whom only one group is known, who is nobody in particular.

    ``capabilities`` are a mask; None: as usual, all of them for root and none for others.
    """

    name: str
    uid: int
    gid: int
    gids: frozenset[int]
    kind: Literal["user", "group"] = "user"
    capabilities: int | None = None

    @property
    def reads_all(self) -> bool:
        """Whether modes and ACLs keep nothing from them."""
        return self.uid == 0 if self.capabilities is None else bool(self.capabilities & _READING)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Step:
    """A directory on the way to a file, or the file itself; ``owner`` and ``group`` are names for people."""

    path: Path
    is_directory: bool
    mode: int
    uid: int
    gid: int
    acl: tuple[Entry, ...]
    owner: str
    group: str

    @property
    def asked(self) -> int:
        """The right without which it ends here."""
        return ENTER if self.is_directory else READ

    def __str__(self) -> str:
        return f"{self.path} ({self.mode:04o}{'+' * bool(self.acl)} {self.owner}:{self.group})"


class Verdict(NamedTuple):
    """Whether it is granted, by which class of the mode or ACL, and whether only the mask takes it away."""

    granted: bool
    by: Literal["capability", "owner", "user", "group", "other"]
    masked: bool = False


def entries(acl: bytes | None) -> tuple[Entry, ...]:
    """Return the entries of an ACL as the kernel stores it, none of no ACL."""
    return tuple(Entry(*each) for each in struct.iter_unpack(_ENTRY, acl[_HEAD:])) if acl else ()


def judge(person: Person, step: Step) -> Verdict:
    """Return what the kernel will say to somebody who wants to enter or read a step."""
    wanted = step.asked
    if person.reads_all:
        return Verdict(True, "capability")
    if person.uid == step.uid:
        return Verdict(_has(step.mode >> 6, wanted), "owner")
    acl = step.acl if step.mode & 0o070 else ()
    mask = next((entry.bits for entry in acl if entry.tag == _MASK), 7)
    named = [entry.bits for entry in acl if entry.tag == _USER and entry.number == person.uid]
    if named:
        return _behind_mask(named, wanted, mask, "user")
    grouped = [entry.bits for entry in acl if entry.tag == _GROUP and entry.number in person.gids]
    if step.gid in person.gids:
        grouped.append(_group_bits(step, acl))
    if grouped:
        return _behind_mask(grouped, wanted, mask, "group")
    return Verdict(_has(step.mode, wanted), "other")


def _behind_mask(bits: Sequence[int], wanted: int, mask: int, by: Literal["user", "group"]) -> Verdict:
    given = any(_has(each, wanted) for each in bits)
    return Verdict(given and _has(mask, wanted), by, masked=given and not _has(mask, wanted))


def _group_bits(step: Step, acl: Sequence[Entry]) -> int:
    """Return the owning group's rights; with an ACL, stat shows the mask in their place."""
    return next((entry.bits for entry in acl if entry.tag == _GROUP_OBJ), step.mode >> 3 & 7)


def _has(bits: int, wanted: int) -> bool:
    return bits & wanted == wanted


def first_refusal(person: Person, steps: Sequence[Step]) -> tuple[Step, Verdict] | None:
    """Return the first step at which somebody is refused, None if they get to the end."""
    verdicts = ((step, judge(person, step)) for step in steps)
    return next(((step, verdict) for step, verdict in verdicts if not verdict.granted), None)


def reason(person: Person, step: Step, verdict: Verdict) -> str:
    """Say in words what is refused."""
    why = "; its ACL would allow it, but the ACL's mask takes it away" if verdict.masked else ""
    return f"{person} cannot {_VERBS[step.asked]} {step}{why}"


def fix(person: Person, step: Step, verdict: Verdict) -> str:
    """Return the least that would grant it, as commands."""
    letter, path = _LETTERS[step.asked], shlex.quote(str(step.path))
    if verdict.masked:
        mask = next(entry.bits for entry in step.acl if entry.tag == _MASK) | step.asked
        return f"setfacl -m m::{shown_bits(mask)} {path}"
    if verdict.by == "owner":
        return f"chmod u+{letter} {path}"
    command = f"setfacl -m {person.kind[0]}:{person.name}:{letter} {path}"
    return f"add {person.name} to group {step.group}, or {command}" if _group_helps(person, step, verdict) else command


def _group_helps(person: Person, step: Step, verdict: Verdict) -> bool:
    """Whether membership in the owning group would do; in root's, nobody should be for this."""
    if person.kind != "user" or step.gid == 0 or verdict.by == "user":
        return False
    return judge(Person("", person.uid, step.gid, person.gids | {step.gid}), step).granted


def shown_bits(bits: int) -> str:
    """Return permissions as ``r-x``."""
    return "".join(letter if bits & bit else "-" for letter, bit in zip("rwx", (4, 2, 1), strict=True))
