"""Labels and values below each other; folded on a terminal, whole lines in a pipe, where `grep` reads them."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def width() -> int | None:
    """Return the columns of the terminal that standard output is, None if it is none."""
    return max(40, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None


def rows(pairs: Sequence[tuple[str, str]], columns: int | None, indent: str = "  ") -> Iterator[str]:
    """Yield a line per pair, more where a value does not fit into the columns."""
    longest = max((len(label) for label, _ in pairs), default=0)
    for label, value in pairs:
        yield from fold(value, columns, f"{indent}{label:{longest}}  ")


def fold(text: str, columns: int | None, first: str = "", rest: str | None = None) -> Iterator[str]:
    """Yield a text in lines of at most so many columns; ``first`` begins the first, ``rest`` the others."""
    rest = " " * len(first) if rest is None else rest
    if columns is None or len(first) + len(text) <= columns:
        yield f"{first}{text}".rstrip()
        return
    yield from textwrap.wrap(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
    )
