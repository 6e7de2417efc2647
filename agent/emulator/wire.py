"""A request and its answer, as values: what the server reads and writes, and what tests hand over without it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON = "application/json; charset=utf-8"
Manner = Literal["send", "drop", "hang"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks; ``path`` holds the query as well, header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)

    @property
    def segments(self) -> list[str]:
        """The path in its parts, without the query; none of what is no URL."""
        try:
            path = urlsplit(self.path).path
        except ValueError:
            return []
        return [part for part in path.split("/") if part]

    def form(self) -> dict[str, str]:
        """Return the fields of a form, of which no value is empty; of anything else: nothing."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            return {}
        try:
            return dict(parse_qsl(self.body.decode("ascii"), max_num_fields=100))
        except ValueError:
            return {}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets.

    Attributes:
        delay: seconds to wait before anything else.
        manner: ``send`` it; ``drop`` the connection instead; or ``hang`` until the client has had enough.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    delay: float = 0.0
    manner: Manner = "send"


def json_answer(status: int, value: Any, **headers: str) -> Answer:
    """Return an answer in JSON; underscores in names of headers are hyphens."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, {"Content-Type": JSON, **named}, json.dumps(value).encode())


def text_answer(status: int, text: str, content_type: str = "text/plain", **headers: str) -> Answer:
    """Return an answer in text; underscores in names of headers are hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"Content-Type": f"{content_type}; charset=utf-8", **named}, text.encode())
