"""The operations that are killed at every point, and the start that follows."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from tests.crashpoints import checks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path


class Moment(NamedTuple):
    """What there is at one time."""

    tree: checks.Tree
    contents: checks.Contents

    @classmethod
    def of(cls, root: Path) -> Moment:
        """Look at a directory."""
        return cls(checks.tree(root), checks.contents(root))


class Scenario(ABC):
    """An operation on a directory; each method but `look` runs in a process of its own.

    Attributes:
        name: to choose it by.
        formats: of the token files there may be, by their paths in the directory.
        either: token files of which one at least is always there.
        exact: files that are always, to the byte, what they are before or what they are in the end.
    """

    name: ClassVar[str]
    formats: ClassVar[Mapping[str, str]] = {}
    either: ClassVar[tuple[tuple[str, str], ...]] = ()
    exact: ClassVar[tuple[str, ...]] = ()

    def __init__(self, root: Path) -> None:
        """Args: where it takes place."""
        self.root = root

    @abstractmethod
    def prepare(self) -> None:
        """Make what there is before."""

    @abstractmethod
    def act(self) -> None:
        """Do what is to be killed; what comes before `tracer.wait_to_be_traced` is not."""

    @abstractmethod
    def restart(self) -> None:
        """Start again, and check how it goes on; all files must then be as if nothing had happened."""

    def surrounded(self) -> AbstractContextManager[object]:
        """Return what has to be there all the while, such as a provider."""
        return contextlib.nullcontext()

    def look(self, before: Moment, after: Moment) -> None:
        """Check what readers find when it has been killed.

        Args:
            before: what there was when it began.
            after: what there is when nothing interferes.
        """
        checks.look_at(checks.tree(self.root), before.tree, after.tree)
        for name in self.exact:
            assert (self.root / name).read_bytes() in (before.contents[name], after.contents[name]), f"{name} is torn"
        checks.tokens(self.root, self.formats)
        checks.check_documents(self.root)
        for pair in self.either:
            assert any((self.root / name).exists() for name in pair), f"neither of {pair} is there"


def apply(path: Path) -> None:
    """Do what the operator has prepared under a name beside, unless he has already: one call, as whole as can be."""
    with contextlib.suppress(FileNotFoundError):
        path.with_name(f"{path.name}.next").replace(path)
