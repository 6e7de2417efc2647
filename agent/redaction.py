"""What looks like a secret in a text, and the text without it; for everything that leaves the agent as words."""

from __future__ import annotations

import re

WITHHELD = "[withheld]"
NAMES = ("client_secret", "client_assertion", "access_token", "refresh_token", "id_token", "password", "passwd")
"""Keys whose values are secrets, whatever they look like."""
_MARKS = re.compile(r"eyJ|eyAi|ew[ok0]|\.[\w-]{40}|(?i:PRIVATE|://|bearer|pop |authorization|client_|_token|passw)")
"""What any secret below contains; an ordinary value is done after one search."""
_SECRETS = (
    (re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL), WITHHELD),
    (re.compile(r"(?<=://)[^/\s\"'<>]*@"), f"{WITHHELD}@"),
    # A JWT (RFC 7515, 7516), also one that was cut off: a JSON object in base64url, or three parts with a signature.
    (re.compile(r"(?:eyJ|eyAi|ewog|ewk[JiK]|ew0K)[\w-]{5,}(?:\.[\w-]*)*"), WITHHELD),
    (re.compile(r"(?<![\w-])[\w-]{10,}+\.[\w-]*+\.[\w-]{43,}+(?:\.[\w-]*)*"), WITHHELD),
    (re.compile(r"(?i)(authorization\\?[\"']?\s*[:=]\s*\\?[\"']?\w+\s+)[^\s\"'\\,;]+"), rf"\1{WITHHELD}"),
    (re.compile(r"(?i)\b((?:bearer|pop)\s+)[\w~+/.=-]{20,}"), rf"\1{WITHHELD}"),
    # As a form, a URL, JSON, TOML or Python's repr; `client_secret: …` in a sentence about that key stays.
    (
        re.compile(
            rf"(?i)((?:{'|'.join(NAMES)})(?:\\?[\"']?\s*(?:=|%3D)\s*|\\?[\"']\s*:\s*)b?)"
            r"(?:\\?\"(?:[^\"\\\n]|\\[^\"\n])*+(?:\\?\"|$)|\\?'(?:[^'\\\n]|\\[^'\n])*+(?:\\?'|$)|[^\s\"'&,;}\\]++)++",
            re.MULTILINE,
        ),
        rf"\1{WITHHELD}",
    ),
)


def redact(text: str) -> str:
    """Return a text with everything masked that looks like a secret."""
    if not _MARKS.search(text):
        return text
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text
