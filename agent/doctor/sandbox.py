"""What the sandbox of a unit hides from its service, and what it makes read-only, as ``systemctl show`` tells. Pure.

Each line of a sandbox is a mount over a path and all below it (systemd.exec(5), "Sandboxing"), and the deepest decides.
What is inaccessible stays so, whatever is said of something below it; what an empty file system covers is seen again
where it is bound into it. Of several lines for the same path the first of `_EFFECTS` counts, as systemd has it.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Effect = Literal["inaccessible", "bound", "private", "read-only", "read-write", "own", "empty", "as it was"]
_EFFECTS: tuple[Effect, ...] = (
    "inaccessible", "bound", "private", "read-only", "read-write", "own", "empty", "as it was",
)  # fmt: skip

PROPERTIES = (
    "ProtectHome", "ProtectSystem", "PrivateTmp", "PrivateUsers", "PrivateUsersEx", "ReadWritePaths", "ReadOnlyPaths",
    "InaccessiblePaths", "BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "NoExecPaths", "ExecPaths",
    "RuntimeDirectory", "StateDirectory", "CacheDirectory", "LogsDirectory", "RootDirectory", "RootImage",
    "MountAPIVFS", "ProtectControlGroups", "ProtectKernelTunables", "ProtectProc", "ProcSubset",
)  # fmt: skip
"""What to ask for; PrivateUsersEx is known from systemd 257 on."""
HOMES = tuple(map(Path, ("/home", "/root", "/run/user")))
_SYSTEM = {
    "yes": ("/usr", "/boot", "/efi"),
    "full": ("/usr", "/boot", "/efi", "/etc"),
    "strict": ("/",),
}
_NOT_SYSTEM = ("/proc", "/sys", "/dev", *map(str, HOMES))
"""What ProtectSystem=strict leaves to other lines."""
_BRING_RUN = {
    "MountAPIVFS": "no",
    "ProtectControlGroups": "no",
    "ProtectKernelTunables": "no",
    "ProtectProc": "default",
    "ProcSubset": "all",
}
"""Each of these with another value brings a /run of its own kind: the machine's, and ProtectSystem=strict leaves it."""
_OWN = {
    "RuntimeDirectory": "/run",
    "StateDirectory": "/var/lib",
    "CacheDirectory": "/var/cache",
    "LogsDirectory": "/var/log",
}
_BIND = re.compile(r"(/.*?):(/.*?)(?::(?:no)?rbind\S*)?")


@dataclass(frozen=True, slots=True)
class Rule:
    """What is so at a path and below it, and by which line of the unit."""

    path: Path
    line: str
    effect: Effect
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The sandbox of a unit; ``rules`` begin at /, ``users`` is the line that hides other users and groups."""

    rules: tuple[Rule, ...]
    executing: tuple[Rule, ...] = ()
    users: str = ""

    @classmethod
    def of(cls, properties: Mapping[str, str], real: Callable[[Path], Path]) -> Self | None:
        """Return the sandbox of a unit; None if its root is not the machine's, so that paths tell nothing.

        Args:
            properties: of `PROPERTIES`, those that systemd knows.
            real: follows symbolic links, as systemd does before it mounts anything.
        """
        if properties.get("RootDirectory") or properties.get("RootImage"):
            return None
        unlike = properties.get("PrivateUsersEx") in ("identity", "full")  # users are there, under their own numbers
        users = "" if unlike or properties.get("PrivateUsers", "no") == "no" else "PrivateUsers=yes"
        return cls(_one_each(_mounts(properties), real), _one_each(_executing(properties), real), users)

    def hides(self, path: Path) -> str:
        """Return the line by which the service does not find what is at a path, free of links; empty if none."""
        line = ""
        for rule in self._above(path):
            if rule.effect == "inaccessible":
                return rule.line
            if rule.effect in ("private", "empty"):
                line = rule.line
            elif rule.effect in ("bound", "own"):
                line = ""
        return line

    def makes_read_only(self, directory: Path) -> str:
        """Return the line by which the service cannot write in a directory, free of links; empty if none."""
        deepest = list(self._above(directory))[-1:]
        return deepest[0].line if deepest and deepest[0].read_only else ""

    def keeps_from_running(self, program: Path) -> str:
        """Return the line by which the service cannot execute a program, free of links; empty if none."""
        deepest = [rule for rule in self.executing if program.is_relative_to(rule.path)][-1:]
        return deepest[0].line if deepest and deepest[0].effect == "inaccessible" else ""

    def _above(self, path: Path) -> Iterator[Rule]:
        return (rule for rule in self.rules if path.is_relative_to(rule.path))


def _one_each(rules: Iterator[Rule], real: Callable[[Path], Path]) -> tuple[Rule, ...]:
    """Return one rule for each path, those of directories before those of what is in them."""
    by_path: dict[Path, list[Rule]] = defaultdict(list)
    for rule in rules:
        by_path[real(rule.path)].append(rule)
    found = []
    for path, same in by_path.items():
        first = min(same, key=lambda rule: _EFFECTS.index(rule.effect))
        limiting = next((rule for rule in (first, *same) if rule.read_only), first)
        line = limiting.line if first.effect in ("bound", "read-only", "read-write", "own") else first.line
        found.append(Rule(path, line, first.effect, limiting.read_only))
    return tuple(sorted(found, key=lambda rule: len(rule.path.parts)))


def _mounts(properties: Mapping[str, str]) -> Iterator[Rule]:
    yield from _of_system(properties.get("ProtectSystem", "no"))
    if any(properties.get(name, usual) != usual for name, usual in _BRING_RUN.items()):
        yield Rule(Path("/run"), "MountAPIVFS=yes", "as it was")
    yield from _of_homes(properties.get("ProtectHome", "no"))
    if properties.get("PrivateTmp", "no") != "no":
        for place in ("/tmp", "/var/tmp"):  # noqa: S108 - looked at, not written to
            yield Rule(Path(place), "PrivateTmp=yes", "private")
    yield from _of_lists(properties)
    for name, read_only in (("BindPaths", False), ("BindReadOnlyPaths", True)):
        yield from _of_binds(name, properties.get(name, ""), read_only=read_only)
    for place in _listed(properties.get("TemporaryFileSystem", "")):
        path, _, options = place.partition(":")
        yield Rule(Path(path), f"TemporaryFileSystem={place}", "empty", "ro" in options.split(","))
    for name, parent in _OWN.items():
        for own in _listed(properties.get(name, "")):
            yield Rule(Path(parent, own), f"{name}={own}", "own")


def _of_system(value: str) -> Iterator[Rule]:
    line = f"ProtectSystem={value}"
    for place in _SYSTEM.get(value, ()):
        yield Rule(Path(place), line, "read-only", read_only=True)
    for place in _NOT_SYSTEM if value == "strict" else ():
        yield Rule(Path(place), line, "as it was")


def _of_homes(value: str) -> Iterator[Rule]:
    effects: dict[str, Effect] = {"yes": "inaccessible", "read-only": "read-only", "tmpfs": "empty"}
    if value in effects:
        for home in HOMES:
            yield Rule(home, f"ProtectHome={value}", effects[value], read_only=True)


def _of_lists(properties: Mapping[str, str]) -> Iterator[Rule]:
    effects: dict[str, Effect] = {
        "InaccessiblePaths": "inaccessible",
        "ReadOnlyPaths": "read-only",
        "ReadWritePaths": "read-write",
    }
    for name, effect in effects.items():
        for place in _listed(properties.get(name, "")):
            yield Rule(Path(place), f"{name}={place}", effect, effect != "read-write")


def _of_binds(name: str, value: str, *, read_only: bool) -> Iterator[Rule]:
    """Yield what is bound where: ``[-]FROM:TO:rbind``, in which spaces are not quoted."""
    for entry in re.split(r" (?=-?/)", value):
        if found := _BIND.fullmatch(entry.removeprefix("-")):
            shown = found[1] if found[1] == found[2] else f"{found[1]}:{found[2]}"
            yield Rule(Path(found[2]), f"{name}={shown}", "bound", read_only)


def _executing(properties: Mapping[str, str]) -> Iterator[Rule]:
    effects: dict[str, Effect] = {"NoExecPaths": "inaccessible", "ExecPaths": "as it was"}
    for name, effect in effects.items():
        for place in _listed(properties.get(name, "")):
            yield Rule(Path(place), f"{name}={place}", effect)


def _listed(value: str) -> list[str]:
    """Return the paths of a list, without the marks before them: - for what may be missing, + for the root."""
    try:
        words = shlex.split(value)
    except ValueError:  # quotes that systemd does not write
        words = value.split()
    return [word.lstrip("-+") for word in words]
