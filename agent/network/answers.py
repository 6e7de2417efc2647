"""What a provider has answered, read without being harmed by it."""

from __future__ import annotations

import json
from typing import Any

MOST_NESTED = 1000
"""Objects and lists in an answer; discovery documents have fifty. In memory they take twenty times their size."""


def json_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in an answer; None if it is something else, or nested beyond reason."""
    if body.count(b"[") + body.count(b"{") > MOST_NESTED:
        return None
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None
