"""Everything that lies on disk, read afresh: the configuration, and the jobs it describes; and what was seen of it.

What was read is remembered by its digest at the moment of reading, so that no change between reading and comparing
is ever lost.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent import files
from agent.config.load import load_config
from agent.config.values import is_wild
from agent.credentials.store import CredentialStore
from agent.engine import jobs
from agent.watching import watch, watchset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
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

    def config(self) -> Config:
        """Load the configuration; ``read`` then holds what its files were, also where they are refused.

        Raises:
            ConfigurationError: with everything that is wrong.
        """
        self.read, self._expanded = {}, set()
        return load_config(self._path, self._environ, self._read, self._expand)

    def _read(self, path: Path) -> bytes:
        try:
            content = files.read_bytes(path)
        except OSError as error:
            self.read[path] = watch.reason(error)
            raise
        self.read[path] = watch.digest_of(content)
        return content

    def _expand(self, directory: Path, pattern: str) -> list[Path]:
        paths = files.expand(directory, pattern)
        self._expanded.update(paths)
        return paths

    def jobs(self, config: Config, now: datetime) -> list[Job]:
        """Return all profiles with what they need from disk, proven or found unusable at ``now``."""
        return [jobs.load_job(profile, self._credentials, now) for profile in config.profiles]

    def look(self, config: Config) -> watch.Contents:
        """Return the contents of all files that decide what the agent does, those that `include` finds now as well."""
        return watch.contents({*jobs.watched_files(config), *self._included(config)})

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

    def _included(self, config: Config) -> Iterator[Path]:
        for pattern in filter(is_wild, config.agent.include):  # the others are among the files that were read
            with suppress(OSError):
                yield from files.expand(Path("/"), pattern)
