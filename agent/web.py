"""HTTP for monitors: a request without body, one answer, and the connection is closed.

So little of HTTP/1.1 (RFC 9112) is enough for every scraper and for curl, and nothing that others send is ever kept,
parsed deeply, or believed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from agent import serving

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    import anyio

MAX_HEAD = 8 << 10
"""Bytes of a request line and its headers; Prometheus sends some 400."""
PLAIN = "text/plain; charset=utf-8"
METHODS = ("GET", "HEAD")

_REQUEST_LINE = re.compile(r"([A-Za-z]{1,20}) (?:http://[^/? ]*)?(/[^? ]*)(?:\?[^ ]*)? HTTP/1\.[01]")
_END = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: ``path`` without its query; ``accept`` as the header says it, which may be anything."""

    method: str
    path: str
    accept: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = PLAIN


def lines(*text: str, status: HTTPStatus = HTTPStatus.OK) -> Page:
    """Return a page of plain text."""
    return Page("".join(f"{line}\n" for line in text).encode(), status)


async def serve(listener: socket.socket, answer: Callable[[Request], Awaitable[Page]]) -> None:
    """Answer requests until cancelled.

    Args:
        listener: bound, and set not to block.
        answer: what to show for a request whose method is one of `METHODS`.
    """

    async def converse(connection: socket.socket, patience: anyio.CancelScope) -> None:
        head = await serving.hear(connection, patience, MAX_HEAD, lambda heard: _END.search(heard) is not None)
        if head:
            request = parse(head)
            page = request if isinstance(request, Page) else await answer(request)
            body = b"" if isinstance(request, Request) and request.method == "HEAD" else page.body
            await serving.say(connection, _head(page) + body)

    await serving.serve(listener, converse)


def parse(head: bytes) -> Request | Page:
    """Return what is asked for, or what to answer if it is no request of ours."""
    if len(head) > MAX_HEAD and not _END.search(head[:MAX_HEAD]):
        return lines("the request is too long", status=HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    first, *headers = _END.split(head, maxsplit=1)[0].decode("latin-1").splitlines() or [""]
    found = _REQUEST_LINE.fullmatch(first)
    if found is None:
        return lines("this is no HTTP request", status=HTTPStatus.BAD_REQUEST)
    method, path = found.groups()
    if method not in METHODS:
        return lines(f"only {' and '.join(METHODS)}", status=HTTPStatus.METHOD_NOT_ALLOWED)
    pairs = (header.partition(":") for header in headers)
    accept = ",".join(value.strip() for name, _, value in pairs if name.lower() == "accept")
    return Request(method, path, accept)


def _head(page: Page) -> bytes:
    allow = f"Allow: {', '.join(METHODS)}\r\n" if page.status == HTTPStatus.METHOD_NOT_ALLOWED else ""
    return (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\nContent-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\nCache-Control: no-store\r\n{allow}Connection: close\r\n\r\n"
    ).encode("ascii")
