"""What is wrapped around keys and certificates: encodings of text, and the work that a password or a long key asks for.

A file may ask for hours of work before anything in it can be read, by the number of rounds that make a key of its
password, or by a key of a hundred thousand bits; the interpreter would stand still meanwhile, and every profile with
it. So both are looked at before the file is opened. What a PKCS#12 file hides within its encryption is not seen.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from agent.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_ROUNDS = 5_000_000
"""Of all keys that are derived from the password together; some seconds. Programs that write such files use 2048 to
600000 for each."""
MAX_BITS = 16384
"""OpenSSL verifies nothing with longer RSA keys; a signature takes half a second with this one, and 60 s with four
times as many."""

_LONGEST_KEY = 12_000
"""Bytes of a PKCS#8 key of ``MAX_BITS``, encrypted, with some to spare."""
# MI is how any longer SEQUENCE of DER begins in base64.
_BASE64 = re.compile(rb"\s*MI[A-Za-z0-9+/\s]+={0,2}\s*")
# PBES1, PBKDF2 (RFC 8018 A) and those of PKCS#12 (RFC 7292 C), each with parameters: a SEQUENCE of salt and rounds.
_ROUNDS = re.compile(
    rb"\x06(?:\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05.|\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01.)", re.DOTALL
)
# scrypt (RFC 7914 7.1): salt, cost, block size, parallelization.
_SCRYPT = re.compile(rb"\x06\x09\x2b\x06\x01\x04\x01\xda\x47\x04\x0b")
# keyBag and pkcs8ShroudedKeyBag (RFC 7292 4.2), with the tag around what they hold.
_BAG = re.compile(rb"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01[\x01\x02](?=\xa0)")


def plain(content: bytes) -> bytes:
    """Undo what PowerShell's redirection and Notepad do to text: UTF-16, and a byte order mark."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace").encode("ascii", errors="replace")
    return content.removeprefix(b"\xef\xbb\xbf")


def binary(content: bytes) -> bytes:
    """Decode bare base64: `az keyvault secret show` prints a PFX like that, and it ends up in files."""
    if not _BASE64.fullmatch(content):
        return content
    try:
        return base64.b64decode(content)
    except ValueError:
        return content


def excess(path: Path, der: bytes) -> CredentialError | None:
    """Return why a file is better not opened, None if it asks for no more work than others."""
    rounds = sum(_rounds(der))
    if rounds > MOST_ROUNDS:
        message = f"asks for {rounds} rounds to make a key of the password; {MOST_ROUNDS} at most are done here"
        return CredentialError(path, message, hint="openssl pkcs8 -topk8 -iter 600000, or pkcs12 -export -iter 600000")
    if any(_length(der, match.end()) > _LONGEST_KEY for match in _BAG.finditer(der)):
        return CredentialError(path, f"holds a private key of more than {MAX_BITS} bits")
    return None


def _rounds(der: bytes) -> Iterator[int]:
    """Yield how often each function that makes a key of a password is applied."""
    for match in _ROUNDS.finditer(der):
        yield next(iter(_numbers(der, match.end())), 0)
    for match in _SCRYPT.finditer(der):
        cost, block, parallel, *_ = [*_numbers(der, match.end()), 0, 0, 0]
        yield cost * block * parallel // 4  # each costs about as much as a quarter of a round
    yield from (int.from_bytes(der[-size:], "big") for size in range(1, 9) if _ends_with_rounds(der, size))


def _ends_with_rounds(der: bytes, size: int) -> bool:
    """Tell whether a salt and a number of so many bytes come last, as in the MAC of PKCS#12 (RFC 7292 4)."""
    rest = der[: -size - 2]
    salted = any(rest[-salt - 2 : -salt] == bytes((4, salt)) for salt in range(1, 128))
    return salted and der[-size - 2 : -size] == bytes((2, size))


def _numbers(der: bytes, place: int) -> Iterator[int]:
    """Yield the numbers that follow a salt in a SEQUENCE."""
    _, place, _ = _element(der, place)
    _, _, place = _element(der, place)
    for _ in range(3):
        tag, start, end = _element(der, place)
        if tag != 0x02:  # noqa: PLR2004 - INTEGER
            return
        yield int.from_bytes(der[start:end][:16], "big")
        place = end


def _length(der: bytes, place: int) -> int:
    _, start, end = _element(der, place)
    return end - start


def _element(der: bytes, place: int) -> tuple[int, int, int]:
    """Return tag, begin and end of an element of DER (X.690 8.1); beyond the end of all there are empty ones."""
    tag, first, *rest = [*der[place : place + 10], 0, 0]
    if first < 0x80:  # noqa: PLR2004 - the short form
        return tag, place + 2, place + 2 + first
    size = first & 0x7F
    start = place + 2 + size
    return tag, start, start + int.from_bytes(bytes(rest[: min(size, 8)]), "big")
