"""Which places no token file may take: a configuration compares paths as they are written, this where they lead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import claims
from agent.output.reserved import Reserved

if TYPE_CHECKING:
    from agent.config.model import Config


def reserved(config: Config) -> Reserved:
    """Look at where everything is that a configuration names, and return who has which place; blocks."""
    places = Reserved()
    for own, what in claims.taken(config.agent, (), ()).items():
        places.take(Path(own), what, through_links=True)
    for source in config.sources:
        places.take(source, "a file of the configuration", through_links=True)
    for profile in config.profiles:
        for key, path in claims.files_read(profile):
            places.take(path, f"the {key} of {profile.name}", through_links=True)
    for profile in config.profiles:
        for file in profile.token_file:
            places.take(file.path, f"a token file of {profile.name}", through_links=file.follow_symlink)
    return places
