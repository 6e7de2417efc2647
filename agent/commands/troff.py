"""Manual pages as `man` wants them: headings, paragraphs, lists and examples in man(7)'s macros."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CODE = re.compile(r"`([^`]+)`")
_WORD = re.compile(r"[^\s|\[\],=()]+")
_SENTENCES = re.compile(r"(?<=[.!?]) (?=[A-Z])")
_SPECIAL = str.maketrans({"\\": r"\e", "-": r"\-", "~": r"\(ti", "^": r"\(ha"})
_LITERAL = str.maketrans({"'": r"\(aq", "`": r"\(ga", '"': r"\(dq"})
"""What a terminal would otherwise get as typographical quotes, and nobody could paste into a shell."""

_WRAPPER = textwrap.TextWrapper(79, break_long_words=False, break_on_hyphens=False)


def page(name: str, section: str, date: str, version: str, body: Iterable[str]) -> str:
    """Return a whole page, without hyphenation and justification, which tear names and spaces apart."""
    lines = [f'.TH {literal(name.upper())} {section} "{date}" "{literal(version)}"', ".nh", ".ad l"]
    for line in body:
        if line != ".PP" or not lines[-1].startswith((".SH", ".SS")):  # they begin a paragraph by themselves
            lines.append(line)
    return "\n".join(lines)


def heading(title: str) -> Iterator[str]:
    """Yield the heading of a section."""
    yield f'.SH "{title}"'


def subheading(title: str) -> Iterator[str]:
    """Yield the heading within a section."""
    yield f'.SS "{_line(title.translate(_SPECIAL))}"'


def paragraph(text: str) -> Iterator[str]:
    """Yield a paragraph."""
    yield ".PP"
    yield prose(text)


def item(tag: str, *texts: str) -> Iterator[str]:
    """Yield an entry of a list: its tag, as troff has it already, and paragraphs."""
    yield ".TP"
    yield tag
    for number, text in enumerate(texts):
        if number:
            yield ".sp"
        yield prose(text)


def example(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines that stay as they are."""
    yield ".PP"
    yield ".nf"
    yield from (_line(literal(line)) for line in lines)
    yield ".fi"


def prose(text: str) -> str:
    """Return text that is filled, each sentence on lines of its own; what stands in backticks is bold."""
    parts = _CODE.split(" ".join(text.split()))
    shown = "".join(bold(part) if number % 2 else part.translate(_SPECIAL) for number, part in enumerate(parts))
    lines = [line for each in _SENTENCES.split(shown) for line in _WRAPPER.wrap(each)]
    return "\n".join(map(_line, lines))


def literal(text: str) -> str:
    """Return text that can be copied as it is shown."""
    return text.translate(_SPECIAL | _LITERAL)


def bold(text: str) -> str:
    """Return text as it is typed."""
    return rf"\fB{literal(text)}\fR"


def usage(text: str) -> str:
    """Return how something is typed: what is typed as it stands in bold, what stands for something in italics."""
    return _WORD.sub(lambda match: _typed(match[0]), text)


def _typed(word: str) -> str:
    return rf"\fI{literal(word)}\fR" if word.strip(".").isupper() else bold(word)


def _line(text: str) -> str:
    r"""Return a line that troff does not take for a request; it would at a point or an apostrophe."""
    return rf"\&{text}" if text.startswith((".", "'")) else text
