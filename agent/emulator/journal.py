"""What was asked and answered: counters, and the last requests. Never a secret, an assertion or a token."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

KEPT = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """One request and what became of it.

    Attributes:
        at: when, by the provider's own clock (RFC 3339, UTC).
        endpoint: ``token``, ``discovery``, ``keys``, ``instance`` or ``other``.
        status: of the answer; None where none was sent.
        code: the AADSTS number of a refusal.
        fault: the kind of the fault that struck.
        thumbprint: of the certificate that the assertion names.
        correlation_id: as the client chose it.
    """

    at: str
    endpoint: str
    tenant: str | None
    client_id: str | None
    scope: str | None
    status: int | None
    code: int | None
    fault: str | None
    thumbprint: str | None
    correlation_id: str


class Journal:
    """Counts for ever, and remembers the last requests."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._counters: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()

    def record(self, entry: Entry) -> None:
        """Count and remember a request."""
        self._entries.append(entry)
        self._counters["requests"] += 1
        self._counters[entry.endpoint] += 1
        self._counters["tokens_issued"] += entry.endpoint == "token" and entry.status == 200 and not _struck(entry)  # noqa: PLR2004
        self._counters["refused"] += entry.code is not None
        self._counters["faults"] += entry.fault not in (None, "pass")
        if entry.code is not None:
            self._codes[f"AADSTS{entry.code}"] += 1

    @property
    def entries(self) -> list[Entry]:
        """The last requests, oldest first."""
        return list(self._entries)

    @property
    def last(self) -> Entry:
        """The last request; there has been one."""
        return self._entries[-1]

    def document(self) -> dict[str, Any]:
        """Return everything, as JSON has it."""
        return {
            "counters": dict(self._counters),
            "codes": dict(self._codes),
            "requests": [asdict(entry) for entry in self._entries],
        }

    def clear(self) -> None:
        """Begin anew."""
        self._entries.clear()
        self._counters.clear()
        self._codes.clear()


def _struck(entry: Entry) -> bool:
    """Tell whether a fault took the place of a token although the status says success."""
    return entry.fault in ("garbage", "html")
