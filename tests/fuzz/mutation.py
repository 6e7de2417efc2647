"""Inputs from inputs, without knowledge of their form: what is left where no engine looks at coverage."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fuzz.target import Target

_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null')
_SWAPS = (
    b"5",
    b"-1",
    b"1.5",
    b"1e400",
    b"true",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b'"x"',
    b"[1]",
    b'{"a": 1}',
    b'"\\u001b[31m"',
    b"9" * 30,
)


def mutants(target: Target, seed: int) -> Iterator[bytes]:
    """Yield the seeds, then for ever what becomes of them; the same for the same number."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    yield from target.seeds
    yield from (word for word in target.words)
    yield b""
    while True:
        content = chance.choice(target.seeds)
        for _ in range(chance.choice((1, 1, 2, 4, 8))):
            content = mutated(content, target, chance)
        yield content[: target.largest]


def mutated(content: bytes, target: Target, chance: random.Random) -> bytes:  # noqa: PLR0911 - one for each kind
    """Change one thing in an input."""
    start = chance.randrange(len(content) + 1)
    end = min(len(content), start + chance.choice((0, 1, 1, 4, 16, 64)))
    match chance.randrange(7):
        case 0:
            return content[:start] + bytes([chance.randrange(256)]) + content[start + 1 :]
        case 1:
            return content[:start] + content[end:]
        case 2:
            return content[:end] + content[start:end] * chance.choice((1, 3, 50)) + content[end:]
        case 3:
            return content[:start] + chance.choice(target.words or (b"",)) + content[end:]
        case 4:
            other = chance.choice(target.seeds)
            return content[:start] + other[chance.randrange(len(other) + 1) :]
        case 5:
            values = list(_VALUE.finditer(content))
            if not values:
                return content + chance.choice(target.words or (b"",))
            found = chance.choice(values)
            return content[: found.start()] + chance.choice(_SWAPS) + content[found.end() :]
        case _:
            flipped = bytearray(content or b"\0")
            flipped[start % len(flipped)] ^= 1 << chance.randrange(8)
            return bytes(flipped)
