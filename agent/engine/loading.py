"""Everything that lies on disk, read afresh: the configuration, and the jobs it describes; and what was seen of it.

What was read is remembered by its digest at the moment of reading, so that no change between reading and comparing
is ever lost.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent import files
from agent.config.load import load_config
from agent.config.values import is_wild
from agent.credentials.store import CredentialStore
from agent.engine import jobs
from agent.errors import ConfigurationError, Problem
from agent.watching import watch, watchset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from agent.config.model import Config
    from agent.engine.jobs import Job


class Loader:
    """Reads one configuration and what it names; blocks, so call it in a thread.

    Args of the constructor: ``path`` of the main file; ``environ`` as systemd sets it.
    """

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._path, self._environ = path, environ
        self._credentials = CredentialStore()
        self.read: watch.Contents = {}
        self._expanded: set[Path] = set()
        self._included: set[Path] = set()

    def config(self) -> Config:
        """Load the configuration; ``read`` then holds what its files were, also where they are refused.

        Raises:
            ConfigurationError: with everything that is wrong.
        """
        read: watch.Contents = {}
        expanded: set[Path] = set()
        self.read, self._expanded = read, expanded

        def expand(directory: Path, pattern: str) -> list[Path]:
            try:
                paths = files.expand(directory, pattern)
            except OSError as error:
                read.update(_in_place_of(pattern, error))
                raise
            expanded.update(paths)
            return paths

        config = load_config(self._path, self._environ, partial(_read, read), expand)
        self._miss_none(config)
        return config

    def _miss_none(self, config: Config) -> None:
        """Remember the directories of `include`; one that was there does not go without being taken out.

        Raises:
            ConfigurationError: a directory is gone, and with it, for the moment or by mistake, all profiles in it.
        """
        named = {watchset.fixed_directory(pattern) for pattern in filter(is_wild, config.agent.include)}
        there = {directory for directory in named if directory.is_dir()}
        if gone := sorted((self._included & named) - there):
            hint = "put it back; if its profiles are to go, make it anew and empty, or take it out of `include`"
            raise ConfigurationError([Problem(config.path, None, "agent.include", f"{gone[0]} is gone", hint)])
        self._included |= there

    def jobs(self, config: Config, now: datetime) -> Iterator[tuple[frozenset[Path], Callable[[], Job]]]:
        """Yield for each profile from where and how to load what it needs, proven or found unusable at ``now``."""
        return jobs.loads(config.profiles, self._credentials, now)

    def looks(self, config: Config) -> Iterator[tuple[Path, Callable[[], watch.Contents]]]:
        """Yield how to look at all files that decide what the agent does, each time of one directory.

        Those that `include` finds now are among them.
        """
        for directory, paths in watch.portions(jobs.watched_files(config)):
            yield directory, partial(watch.contents, paths)
        for pattern in filter(is_wild, config.agent.include):  # the others are among the files that were read
            yield watchset.fixed_directory(pattern), partial(_matches, pattern)

    def look(self, config: Config) -> watch.Contents:
        """Return the contents of all these files."""
        return {path: content for _, look in self.looks(config) for path, content in look().items()}

    def seen(self, config: Config, now: watch.Contents) -> watch.Contents:
        """Return what the configuration just loaded was made of, given a look that came after it.

        An included file that appeared between the two is not part of it.
        """
        late = now.keys() - {*jobs.watched_files(config)} - self._expanded
        return {path: content for path, content in now.items() if path not in late} | self.read

    def places(self, config: Config) -> Iterator[Path]:
        """Yield where something may change: all these files, and the directories in which others may appear."""
        yield from jobs.watched_files(config)
        for pattern in config.agent.include:
            yield from watchset.pattern_directories(pattern)


def _read(read: watch.Contents, path: Path) -> bytes:
    try:
        content = files.read_bytes(path)
    except OSError as error:
        read[path] = watch.reason(error)
        raise
    read[path] = watch.digest_of(content)
    return content


def _matches(pattern: str) -> watch.Contents:
    try:
        return watch.contents(files.expand(Path("/"), pattern))
    except OSError as error:
        return _in_place_of(pattern, error)


def _in_place_of(pattern: str, error: OSError) -> watch.Contents:
    """Return what stands for the files of a pattern while nobody can tell which they are."""
    return {watchset.fixed_directory(pattern): watch.reason(error)}
