"""Which places no token file may take: a configuration compares paths as they are written, this where they lead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import claims
from agent.output.reserved import Reserved

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from agent.config.model import Config


def reserved(config: Config, stalled: Collection[Path] = ()) -> Reserved:
    """Look at where everything is that a configuration names, and return who has which place; blocks.

    Args:
        config: the configuration.
        stalled: directories that do not answer; what is in them is left out.
    """
    places = Reserved()
    for path, what, through_links in _named(config):
        if path.parent not in stalled:
            places.take(path, what, through_links=through_links)
    return places


def _named(config: Config) -> Iterator[tuple[Path, str, bool]]:
    """Yield each path, what is there, and whether what it leads to is taken as well."""
    for own, what in claims.taken(config.agent, (), ()).items():
        yield Path(own), what, True
    for source in config.sources:
        yield source, "a file of the configuration", True
    for profile in config.profiles:
        for key, path in claims.files_read(profile):
            yield path, f"the {key} of {profile.name}", True
    for profile in config.profiles:
        for file in profile.token_file:
            yield file.path, f"a token file of {profile.name}", file.follow_symlink
