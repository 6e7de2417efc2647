"""Text that others wrote, made safe to show: nothing that steers a terminal, nothing that could be a secret."""

from __future__ import annotations

import base64
import json
import re
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WITHHELD = "[withheld]"
MAX_TEXT = 300
"""Characters of a provider's own words that are shown."""
LONGEST_READ = 6000
"""Characters of a provider's own words that are looked at."""
SHORTEST = 8
"""Characters; what is shorter may well be part of ordinary words, and no secret."""
TRACE = 12
"""Letters and digits in a row of a known secret that are no coincidence, whatever case they are in."""

_TAIL = re.compile(r"\s*(?:Trace ID|Correlation ID|Timestamp):|,?\s*(?:Please visit|Review the documentation)\b")
"""Where Entra's descriptions cease to help."""
_SENTENCE_END = re.compile(r"(?<=[.!?\]])\s+")
_JWT = re.compile(r"(?:eyJ|eyAi|ewog|ewk|ew0K)[\w-]{6,}(?:\.[\w-]+)*", re.ASCII)
_PARAMETER = re.compile(
    r"((?:client_secret|client_assertion|access_token|refresh_token|id_token|password)[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,]+",
    re.IGNORECASE,
)
_RUN = re.compile(r"[A-Za-z0-9+/_~=.%-]{20,}")
LONG, ENDLESS, LIVELY = 20, 30, 0.45
"""Characters from which a run may be a secret, or is one; how often neighbours differ in kind if it is random."""


def line(text: str, limit: int = LONGEST_READ) -> str:
    """Return a text as one line without control characters, bounded in length."""
    text = "".join(char if char.isprintable() else " " for char in text[: limit + 1])
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"


def excerpt(text: str) -> str:
    """Return the first sentences of a provider's error description, with everything masked that `mask` knows."""
    if len(text) > LONGEST_READ:  # not in the middle of a word, which might be the half of a secret
        text = text[:LONGEST_READ].rpartition(" ")[0] or text[:LONGEST_READ]
    text = " ".join(_TAIL.split(mask(line(text)), maxsplit=1)[0].split())
    result, *sentences = _SENTENCE_END.split(text)
    for sentence in sentences:
        if len(result) + len(sentence) >= MAX_TEXT:
            break
        result += f" {sentence}"
    result = line(result, MAX_TEXT)
    return f"{result}]" if "[Reason" in result and "]" not in result else result  # its end was in the tail


def mask(text: str) -> str:
    """Replace what could be a secret: tokens and assertions, values of secret parameters, long random runs."""
    text = _JWT.sub(WITHHELD, text)
    text = _PARAMETER.sub(rf"\1{WITHHELD}", text)
    return _RUN.sub(lambda match: WITHHELD if _is_secret(match[0]) else match[0], text)


def without(content: bytes, secrets: Iterable[str]) -> bytes:
    """Replace secrets that are known, as they are and as URLs and JSON write them; the shortest protect nothing."""
    for secret in secrets:
        forms = {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
        for form in sorted(forms if len(secret) >= SHORTEST else (), key=len, reverse=True):
            content = content.replace(form.encode(), WITHHELD.encode())
    return content


def without_traces(text: str, secret: str) -> str:
    """Withhold every line in which a part of a known secret stands, also in another dress; several in a row as one.

    That is: its characters in a row, forwards or backwards, with anything between them that is no letter and no digit;
    the same of its base64, wherever in the encoded text it begins, and of the digits of a dump (od, hexdump, xxd). So
    it does not matter where lines end, or how they are spaced.
    """
    at = [position for position, char in enumerate(text) if char.isascii() and char.isalnum()]
    shown = "".join(text[position] for position in at).lower()
    parts = set(_parts(shown))
    known = {part for form in _dresses(secret) for part in _parts(form) if part in parts}
    if not known:
        return text
    lines, number_of = text.split("\n"), list(accumulate(char == "\n" for char in text))
    for start, part in enumerate(_parts(shown)):
        if part in known:
            first, last = number_of[at[start]], number_of[at[start + TRACE - 1]]
            lines[first : last + 1] = [WITHHELD] * (last - first + 1)
    return "\n".join(
        line for line, before in zip(lines, ["", *lines], strict=False) if line != WITHHELD or before != line
    )


def _dresses(secret: str) -> Iterator[str]:
    """Yield what a secret looks like in other dress, of letters and digits only, all of them small."""
    content = secret.encode(errors="surrogateescape")
    forms = [secret, secret[::-1], content.hex(), "".join(map(str, content))]
    forms += [base64.b64encode(content[start:]).decode() for start in range(3)]
    for begin in (0, 1):  # where words of two bytes begin
        words = [int.from_bytes(content[start : start + 2], "little") for start in range(begin, len(content), 2)]
        forms += ["".join(f"{word:04x}" for word in words), "".join(f"{word:06o}" for word in words)]
    for form in forms:
        yield "".join(char for char in form if char.isascii() and char.isalnum()).lower()


def _parts(text: str) -> Iterator[str]:
    return (text[start : start + TRACE] for start in range(len(text) - TRACE + 1))


def _is_secret(run: str) -> bool:
    """Tell a secret from a URL, a name or a thumbprint; those of Entra ID hold a ``~``."""
    return "~" in run or any(_is_random(part) for part in re.split("[/.]", run))


def _is_random(part: str) -> bool:
    """Tell random characters from words: upper, lower and digits are all there, and take turns often.

    Thumbprints and GUIDs, which identify but open nothing, are in one case only.
    """
    kinds = ["0" if char.isdigit() else "a" if char.islower() else "A" if char.isupper() else "-" for char in part]
    if len(part) < LONG or not {"0", "a", "A"} <= set(kinds):
        return False
    return len(part) >= ENDLESS or sum(a != b for a, b in pairwise(kinds)) > LIVELY * len(part)
