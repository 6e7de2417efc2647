"""Which places no token file may take: a configuration compares paths as they are written, this where they lead."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import claims
from agent.output.reserved import Reserved

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from agent.config.model import Config


PORTION = 64
"""Paths that are looked at together."""


def reserved(config: Config) -> Reserved:
    """Look at where everything is that a configuration names, and return who has which place; blocks."""
    places = Reserved()
    for _, look in portions(config):
        places.add(look())
    return places


def portions(
    config: Config, stalled: Collection[Path] = ()
) -> Iterator[tuple[frozenset[Path], Callable[[], Reserved]]]:
    """Yield how to do that bit by bit, with the directories that each is about; the first of two has a place.

    Args:
        config: the configuration.
        stalled: directories that do not answer; what is in them is left out.
    """
    left = [named for named in _named(config) if named[0].parent not in stalled]
    for start in range(0, len(left), PORTION):
        some = left[start : start + PORTION]
        yield frozenset(path.parent for path, _, _ in some), partial(_look, some)


def _look(named: Iterable[tuple[Path, str, bool]]) -> Reserved:
    places = Reserved()
    for path, what, through_links in named:
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
