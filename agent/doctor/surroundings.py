"""What systemd and the kernel say of the running agent: its unit, its environment, its user, the mounts."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent import files
from agent.config.values import default_directories
from agent.doctor import people
from agent.doctor.rights import CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.doctor.rights import Person

UNIT = "token-agent.service"
CREDENTIALS = f"/run/credentials/{UNIT}"
"""Where systemd puts what a service gets by ``LoadCredential=`` (systemd.exec(5))."""
_PROPERTIES = (
    "LoadState,ActiveState,SubState,NRestarts,Result,ExecMainStatus,User,Group,SupplementaryGroups,MainPID,"
    "AmbientCapabilities,CapabilityBoundingSet,UnitFileState"
)
_PATIENCE = 10.0
_OF_SYSTEMD = ("CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CONFIGURATION_DIRECTORY")
_OF_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")
_PROXY = re.compile(".*_proxy", re.IGNORECASE)


def ask(*command: str) -> dict[str, str]:
    """Return what a tool of systemd prints as KEY=VALUE; nothing where there is no tool or no systemd."""
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, no shell
            command,
            env={"PATH": os.pathsep.join(os.get_exec_path()), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if done.returncode:
        return {}
    lines = done.stdout.decode(errors="replace").splitlines()
    return {name: value for name, sign, value in (line.partition("=") for line in lines) if sign}


def unit() -> dict[str, str]:
    """Return the properties of the agent's unit; nothing without systemd."""
    return ask("systemctl", "show", UNIT, f"--property={_PROPERTIES}")


def environment(pid: int | None, own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment by which the configuration is to be read: the running agent's where we may see it.

    Its directories and proxy are those of its unit, and a shell has none of them, or others.
    """
    try:
        content = files.read_bytes(Path(f"/proc/{pid}/environ")) if pid else b""
    except OSError:
        content = b""
    if not content:
        return dict(own)
    pairs = (part.partition("=") for part in content.decode(errors="surrogateescape").split("\0"))
    theirs = {name: value for name, _, value in pairs if name in _OF_SYSTEMD or name in _OF_PROXIES}
    rest = {name: value for name, value in own.items() if name not in _OF_SYSTEMD and not _PROXY.fullmatch(name)}
    return rest | theirs


def before_the_start(properties: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with the directories that systemd will give the service, as far as it has none of them."""
    if properties.get("LoadState") != "loaded":
        return dict(own)
    runtime, state_dir = default_directories({})
    names = {"RUNTIME_DIRECTORY": str(runtime), "STATE_DIRECTORY": str(state_dir), "CREDENTIALS_DIRECTORY": CREDENTIALS}
    return names | dict(own)


def agent_user(pid: int | None, properties: Mapping[str, str]) -> Person | None:
    """Return who the agent is: as it runs now, else as its unit says; None where neither is known."""
    if pid and (running := people.process(pid)):
        return running
    if properties.get("LoadState") != "loaded":
        return None
    try:
        person = people.user(properties.get("User") or "root")
        further = [people.in_group(name).gid for name in properties.get("SupplementaryGroups", "").split()]
        primary = people.in_group(name).gid if (name := properties.get("Group", "")) else person.gid
    except LookupError:
        return None
    gids = person.gids | {primary, *further}
    return type(person)(person.name, person.uid, primary, gids, capabilities=_capabilities(properties, person.uid))


def _capabilities(properties: Mapping[str, str], uid: int) -> int | None:
    """Return what a unit gives its user: root all that it does not take away, others what it names."""
    names = properties.get("CapabilityBoundingSet" if uid == 0 else "AmbientCapabilities")
    if names is None:
        return None
    return sum(1 << CAPABILITIES[name] for name in set(names.split()) if name in CAPABILITIES)


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system."""

    point: Path
    kind: str


def mount_of(path: Path) -> Mount:
    """Return the mount that a path, free of links, lies on."""
    try:
        table = files.read_bytes(Path("/proc/self/mountinfo"), limit=16 << 20).decode(errors="surrogateescape")
    except OSError:
        return Mount(Path("/"), "unknown")
    best = Mount(Path("/"), "unknown")
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), before.split(" ")[4]))
        if path.is_relative_to(point) and len(point.parts) >= len(best.point.parts):
            best = Mount(point, after.split(" ")[0])  # of several on one point, the last covers the others
    return best


def differs_for(pid: int, path: Path) -> bool:
    """Tell whether a process has another file, or none, under a path that exists here: a mount of its own."""
    try:
        theirs = Path(f"/proc/{pid}/root{path}").stat()
    except FileNotFoundError:
        return Path(f"/proc/{pid}/root/").exists()
    except OSError:
        return False
    ours = path.stat()
    return (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino)
