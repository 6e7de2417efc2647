"""What ``check`` says of the sandbox that the service is in: what it hides from the agent, what it makes read-only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent import lock
from agent.commands import common
from agent.doctor import confinement, people
from agent.errors import CredentialError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.commands.becoming import Service
    from agent.commands.check_report import Report
    from agent.config.model import Config
    from agent.doctor.confinement import Obstacle


class Kept:
    """What the service's sandbox keeps from the agent; nothing where there is no service."""

    def __init__(self, obstacles: Iterable[Obstacle]) -> None:
        self._obstacles = tuple(obstacles)

    def tell(self, profile: str, report: Report) -> None:
        """Report on what is a profile's, or the agent's own if that is empty."""
        for each in self._obstacles:
            if each.profile == profile:
                error = (OutputError if each.writing else CredentialError)(each.path, each.message, hint=each.fix)
                report.error(error, f"{profile or '[agent]'}: {each.key}" if each.key else "")


def look(config: Config, seen_by: Service) -> Kept:
    """Return what is kept from the agent; to be called by root while still being root, or by the service's user."""
    person = seen_by.person
    if person is None and os.geteuid() != 0:
        person = people.user(str(os.geteuid()))
    confined = confinement.of_service(config, person, lock.holder(config.agent.runtime_dir))
    if confined is None:
        return Kept(())
    of_profiles = (each for profile in config.profiles for each in confined.of_profile(profile))
    return Kept((*confined.of_agent(config, common.DEFAULT_CONFIG), *of_profiles))
