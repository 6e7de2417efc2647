"""What the sandbox of the agent's own unit keeps it from, though every right on the way would let it: with the fix.

Root, who asks, is in no sandbox. Where the agent runs, what it has before its eyes counts more than what its unit says:
systemd does without a sandbox where it cannot make one, such as in some containers.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.claims import files_read
from agent.config.values import default_directories
from agent.doctor import surroundings
from agent.doctor.findings import Topic
from agent.doctor.sandbox import PROPERTIES, Sandbox
from agent.doctor.surroundings import UNIT
from agent.doctor.walk import walk
from agent.output import access

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.config.model import Config, Profile, TokenFile
    from agent.doctor.findings import Finding
    from agent.doctor.rights import Person

EXAMPLES = "/usr/share/doc/token-agent/systemd/examples"
"""Where a package puts the drop-ins to copy."""
_KEYS = {
    "key": "certificate.key",
    "password_file": "certificate.password_file",
    "assertion_file": "federated.assertion_file",
    "pid_file": "on_refresh.signal.pid_file",
    "template_file": "token_file.template_file",
}
"""Keys as a person would say them, where `files_read` has them shorter."""
_OF_CREDENTIALS = ("certificate", "certificate.key", "certificate.password_file", "client_secret_file", "ca_file")
_MOVE = "move it to /etc/token-agent"
_PASS = f"{_MOVE}, or have systemd pass it: LoadCredential=, as in credentials.conf of {EXAMPLES}"
_ELSEWHERE = {
    "federated.assertion_file": "have it written below /run",
    "on_refresh.signal.pid_file": "have it written below /run",
    "on_refresh.command": "move the program to /usr/local/bin",
}
_RESTART = "systemctl daemon-reload && systemctl restart token-agent"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something that the unit keeps the agent from.

    Attributes:
        profile: whose it is; empty for what is the agent's own.
        key: that names it, as a person would say it.
        path: as it is in the configuration.
        message: which line of the unit it is, without the path.
        fix: what helps.
        writing: whether it is a file that the agent writes.
    """

    profile: str
    key: str
    path: Path
    message: str
    fix: str
    writing: bool = False


@dataclass(frozen=True, slots=True)
class Confinement:
    """The sandbox that a service is in, as whom it is there, and its process if it runs."""

    sandbox: Sandbox
    person: Person
    pid: int | None

    def of_agent(self, config: Config, installed: Path) -> Iterator[Obstacle]:
        """Yield what is in the way of the agent as a whole.

        Args:
            config: all of it; what lies beside a configuration that is still to be installed will move with it.
            installed: where the service looks for its configuration.
        """
        for path in config.sources:
            if config.path == installed or not path.is_relative_to(config.path.parent):
                yield from self._reading(Obstacle("", "" if path == config.path else "include", path, "", _MOVE))
        settings = config.agent
        listen = settings.metrics_listen or ""
        for key, file in (
            ("runtime_dir", settings.runtime_dir / "lock"),
            ("state_dir", settings.state_dir / "state.json"),
            ("metrics_textfile", settings.metrics_textfile),
            ("metrics_listen", Path(listen.removeprefix("unix:")) if listen.startswith("unix:") else None),
        ):
            if file:
                path = file.parent if key.endswith("_dir") else file
                yield from self._writing(Obstacle("", key, path, "", "", writing=True), file.parent)

    def of_profile(self, profile: Profile) -> Iterator[Obstacle]:
        """Yield what is in the way of a profile."""
        for short, path in files_read(profile):
            key = _KEYS.get(short, short)
            fix = _PASS if key in _OF_CREDENTIALS else _ELSEWHERE.get(key, _MOVE)
            yield from self._reading(Obstacle(profile.name, key, path, "", fix))
        if profile.on_refresh and profile.on_refresh.command:
            yield from self._running(profile.name, Path(profile.on_refresh.command[0]))
        for token_file in profile.token_file:
            directory = _real(token_file.path).parent if token_file.follow_symlink else token_file.path.parent
            about = Obstacle(profile.name, "token_file", token_file.path, "", "", writing=True)
            yield from self._writing(about, directory)
            yield from self._giving(about, token_file)

    def _reading(self, about: Obstacle) -> Iterator[Obstacle]:
        for stop in _stops(about.path):
            line = self.sandbox.hides(stop)
            if line and not self._is_seen(stop):
                leads = "" if about.path.is_relative_to(stop) else f"it leads to {stop}, which "
                message = f"{leads}{line} of {UNIT} hides{' it' * (not leads)} from the agent"
                yield Obstacle(about.profile, about.key, about.path, message, about.fix)
                return

    def _running(self, profile: str, program: Path) -> Iterator[Obstacle]:
        about = Obstacle(profile, "on_refresh.command", program, "", _ELSEWHERE["on_refresh.command"])
        hidden = list(self._reading(about))
        yield from hidden
        line = self.sandbox.keeps_from_running(_real(program))
        if line and not hidden:
            yield Obstacle(profile, about.key, program, f"{line} of {UNIT} keeps the agent from running it", about.fix)

    def _writing(self, about: Obstacle, directory: Path) -> Iterator[Obstacle]:
        """Yield what keeps the agent from writing in a directory, or from making it."""
        hidden = list(self._reading(Obstacle("", "", directory, "", "")))
        real = _real(directory)
        line = self.sandbox.makes_read_only(real)
        if hidden:
            message = hidden[0].message.replace("hides it", f"hides {directory}", 1)
            fix = f"write below /run/token-agent; or below /srv, with write-paths.conf of {EXAMPLES}"
            yield Obstacle(about.profile, about.key, about.path, message, fix, writing=True)
        elif line and not self._is_writable(real):
            message = f"{line} of {UNIT} makes {real} read-only for the agent"
            yield Obstacle(about.profile, about.key, about.path, message, _opening(line, directory), writing=True)

    def _giving(self, about: Obstacle, token_file: TokenFile) -> Iterator[Obstacle]:
        """Yield that there are no others in the agent's world to give a token file to."""
        if not self.sandbox.users:
            return
        names = [f"{key} {name}" for key, name in _strangers(token_file, self.person)]
        if names:
            message = f"{self.sandbox.users} of {UNIT} hides all other users and groups from the agent: "
            fix = f"remove own-files-only.conf from /etc/systemd/system/{UNIT}.d, then {_RESTART}"
            yield Obstacle(about.profile, about.key, about.path, message + ", ".join(names), fix, writing=True)

    def _is_seen(self, path: Path) -> bool:
        """Tell whether the running agent has before its eyes what we have."""
        with contextlib.suppress(OSError):
            return self.pid is not None and os.path.samestat(self._view(path).stat(), path.stat())
        return False

    def _is_writable(self, directory: Path) -> bool:
        """Tell whether a directory lies on a mount that the running agent may write to."""
        with contextlib.suppress(OSError):
            return self.pid is not None and not os.statvfs(self._view(directory)).f_flag & os.ST_RDONLY
        return False

    def _view(self, path: Path) -> Path:
        return Path(f"/proc/{self.pid}/root{path}")


def of_service(config: Config, person: Person | None, pid: int | None) -> Confinement | None:
    """Return how the agent's service is confined; None if there is none, or the configuration is not the service's.

    Args:
        config: is the service's if the service's user owns its runtime directory, or it is where systemd will make it.
        person: the service's user, as far as it is known.
        pid: of the agent that runs, None if none does, 0 if it is in another container; it may not be the unit's.
    """
    if person is None or not _is_theirs(config.agent.runtime_dir, person):
        return None
    names = ("LoadState", "MainPID", "User", "Group", "SupplementaryGroups", *PROPERTIES)
    properties = surroundings.ask("systemctl", "show", UNIT, f"--property={','.join(names)}")
    user = surroundings.agent_user(None, properties)
    if user is None or user.uid != person.uid or (pid is not None and properties.get("MainPID") != str(pid or None)):
        return None
    sandbox = Sandbox.of(properties, _real)
    return Confinement(sandbox, user, pid) if sandbox else None


def findings(obstacles: Iterable[Obstacle]) -> Iterator[Finding]:
    """Yield obstacles as problems."""
    for each in obstacles:
        topic = Topic.of_profile("unit", each.profile) if each.profile else Topic("unit", UNIT, "agent")
        yield topic.problem(f"{each.key}{': ' * bool(each.key)}{each.path}: {each.message}", each.fix)


def refutes(kept: Iterable[Path], finding: Finding) -> bool:
    """Tell whether a file only seems to be well to us who are in no sandbox."""
    return (finding.area, finding.level) == ("credential", "ok") and any(str(path) in finding.message for path in kept)


def _is_theirs(runtime_dir: Path, person: Person) -> bool:
    try:
        return runtime_dir.stat().st_uid == person.uid
    except OSError:
        return runtime_dir == default_directories({})[0]


def _stops(path: Path) -> Iterable[Path]:
    """Return every link on the way to a file, and where it ends: each has to be there for the agent."""
    return (*walk(path).links, _real(path))


def _real(path: Path) -> Path:
    """Return a path without the links in it, also where it is not there (yet)."""
    return Path(os.path.realpath(path))


def _opening(line: str, directory: Path) -> str:
    """Return what lets the agent write in a directory."""
    _, _, covered = line.partition("ReadOnlyPaths=")
    below = bool(covered) and directory != Path(covered) and directory.is_relative_to(covered)
    if not (line.startswith("Protect") or below):
        return f"take it out of that line, then {_RESTART}; or write below /run/token-agent"
    shown = shlex.quote(str(directory))
    return f"ReadWritePaths={shown} in a drop-in, as in write-paths.conf of {EXAMPLES}, then {_RESTART}"


def _strangers(token_file: TokenFile, person: Person) -> Iterator[tuple[str, str]]:
    """Yield those who are to have a token file and are neither root nor the agent itself, each with the key."""
    wanted = [(key, kind, name) for key, kind, name in _wanted(token_file) if name]
    for key, kind, name in wanted:
        try:
            number = access.user_id(name) if kind == "user" else access.group_id(name)
        except LookupError:
            continue  # whoever looks up all names says so
        if number not in (0, person.uid if kind == "user" else person.gid):
            yield key, f"{kind}:{name}" if key == "readers" else name


def _wanted(token_file: TokenFile) -> Iterator[tuple[str, str, str | None]]:
    yield "owner", "user", token_file.owner
    yield "group", "group", token_file.group
    for reader in token_file.readers:
        kind, _, name = reader.partition(":")
        yield "readers", kind, name
