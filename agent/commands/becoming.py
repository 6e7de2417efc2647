"""For root, who may do everything: look at the machine as the service sees it, as its user, with its groups and rights.

A service that ran before owns its runtime directory; whose that is, is who would be in trouble. Before its first start
the unit says it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent import files, lock
from agent.commands import asking, common
from agent.config.values import default_directories
from agent.doctor import evidence, people, surroundings
from agent.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config.model import Config
    from agent.doctor.rights import Person
    from agent.errors import Problem


@dataclass(frozen=True, slots=True)
class Service:
    """The agent's service as far as it is known.

    Attributes:
        person: whose service it is; None if it is root's or ours, or there is none.
        environ: in which its configuration is read: with the directories and proxies that systemd gave a running one.
        promised: directories that systemd makes for it at its start, and that are not there yet.
        credentials: what systemd gives it at its start lies there; None while it is there already.
    """

    environ: dict[str, str]
    person: Person | None = None
    promised: frozenset[Path] = frozenset()
    credentials: Path | None = None


def service(config: Path | None) -> Service:
    """Return whose service keeps the runtime directory of a configuration; nothing for anybody but root."""
    if os.geteuid() != 0:
        return Service(dict(os.environ))
    directory = asking.guess(common.config_path(config, os.environ)).runtime_dir
    pid = lock.holder(directory)
    unit = surroundings.unit()
    environ = surroundings.environment(pid, os.environ) if pid else surroundings.before_the_start(unit, os.environ)
    person = surroundings.agent_user(pid, unit)
    later = None if os.path.lexists(surroundings.CREDENTIALS) else Path(surroundings.CREDENTIALS)
    try:
        owner = directory.stat().st_uid
    except OSError:
        return _before_the_start(directory, Service(environ, person, credentials=later))
    if owner == 0:
        return Service(environ, credentials=later)
    if person is None or person.uid != owner:
        return Service(environ, people.user(str(owner)), credentials=later)
    return Service(environ, person, credentials=later)


def _before_the_start(directory: Path, of_unit: Service) -> Service:
    """Return what the unit says, if the runtime directory is the one that it will have."""
    ours = default_directories({})
    if of_unit.person is None or of_unit.person.uid == 0 or directory != ours[0]:
        return Service(of_unit.environ, credentials=of_unit.credentials)
    return replace(of_unit, promised=frozenset(path for path in ours if not os.path.lexists(path)))


def make_promised(seen_by: Service) -> None:
    """Make the directories that systemd would make at the start, as it would.

    Raises:
        OutputError: one cannot be made.
    """
    from agent.engine.foothold import RUNTIME_MODE, STATE_MODE
    from agent.output.directories import make_directory

    for path, mode in zip(default_directories({}), (RUNTIME_MODE, STATE_MODE), strict=True):
        if seen_by.person and path in seen_by.promised:
            make_directory(path, mode)
            os.chown(path, seen_by.person.uid, seen_by.person.gid)


def read_config(config: Path | None, environ: Mapping[str, str]) -> Config:
    """Load the configuration that applies, in the environment of a service.

    Raises:
        ConfigurationError: with everything that is wrong.
    """
    loaded, problems = read_sound(config, environ)
    if problems:
        raise ConfigurationError(problems)
    return loaded


def read_sound(config: Path | None, environ: Mapping[str, str]) -> tuple[Config, list[Problem]]:
    """Load what can be used of the configuration that applies, and all that is wrong with the rest.

    Raises:
        ConfigurationError: nothing can be used.
    """
    from agent.config.load import load_sound

    loaded, problems = load_sound(common.config_path(config, os.environ), environ, files.read_bytes, files.expand)
    if problems and not loaded.profiles:
        raise ConfigurationError(problems)
    return loaded, problems


def become(seen_by: Service) -> None:
    """Be the service's user for the rest of this process; to be called while it has no other threads."""
    if seen_by.person:
        evidence.become(seen_by.person)
