"""Targets: what lies on this machine, or speaks on its control socket, and may be damaged or somebody else's."""

from __future__ import annotations

import asyncio
import functools
import json
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agent import control, log, reception, schedule, state, status
from agent.commands import asking, consumer, get, reality, refresh
from agent.commands import status as status_command
from agent.config.model import Refresh
from agent.emulator.wire import Request
from agent.engine.changes import Changes
from agent.engine.requests import Requests
from agent.errors import UnreachableError
from agent.status import AgentStatus, CredentialStatus, HookStatus, LastError, ProfileStatus, TokenFileStatus
from tests import emulator_helpers
from tests.fuzz.inputs import TOKEN, some_profile
from tests.fuzz.provider import NOW, Stopped
from tests.fuzz.target import Target, clean, clean_error, command

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.engine.services import Services
    from agent.engine.supervisor import Supervisor
    from tests.emulator_helpers import Handle

SOCKET = Path("/run/token-agent/control.sock")


# ---- the control socket, the agent's end


class _Engine:
    """As much of a supervisor as a request can reach: it does what it is asked, at once."""

    async def reload(self, reason: str) -> Changes:
        return Changes((), {}, (), (reason,))

    async def plan(self) -> Changes:
        return Changes(("a",), {}, (), ())

    async def refresh(self, names: Iterable[str]) -> list[str]:
        return list(names)


@dataclass
class _Board:
    profiles: dict[str, ProfileStatus] = field(default_factory=dict)


@dataclass
class _Services:
    board: _Board
    clock: Stopped = field(default_factory=Stopped)
    log: Any = field(default_factory=log.get_logger)


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@functools.cache
def _requests() -> Requests:
    log.configure("error", "json", {})
    services = _Services(_Board({"a": FULL, "b": ProfileStatus("b")}))
    return Requests(cast("Supervisor", _Engine()), cast("Services", services))


def request(content: bytes) -> None:
    """One line at the control socket: an answer comes, and it is one that JSON and our own client understand."""
    line = content[: control.MAX_REQUEST].partition(b"\n")[0]
    parsed = reception._parse(line)
    if parsed is not None:
        answer = _loop().run_until_complete(_requests().answer(parsed))
        assert control._understood(json.dumps(answer).encode(), SOCKET) == answer


# ---- the control socket, the asking end


def reply(content: bytes) -> None:
    """Whatever answers in the agent's place: every command that asks ends as commands end, and prints what is clean."""
    try:
        answer = control._understood(content, SOCKET)
    except UnreachableError as error:
        clean_error(error)
        return
    with command():
        asking.show_lines(asking.accept(answer))
    with command():
        refresh.report(asking.outcomes(asking.accept(answer)))
    with command():
        outcome = asking.outcomes(asking.accept(answer), "a")["a"]
        get._judge("a", outcome, None, timedelta(minutes=5))


# ---- files of our own


def records(content: bytes) -> None:
    """A damaged state.json: refused whole, or records that the engine can work with."""
    try:
        found = state.parse(content)
    except ValueError as error:
        clean(ascii(str(error)))
        return
    assert state.parse(state.render(found)) == found
    for record in found.values():
        assert all(path.startswith("/") and "\0" not in path for path in (*record.paths, *record.followed))
        token = replace(record, token_sha256=state.token_hash(TOKEN.secret)).restore(TOKEN.secret)
        if token is None:
            continue
        assert timedelta(0) <= token.lifetime <= timedelta(days=3651)
        schedule.refresh_at(token, Refresh(), 0.5)
        schedule.degraded_at(token, Refresh(min_remaining=timedelta(days=300)))
        token.shifted(timedelta(days=400))
        token.shifted(timedelta(days=-400))


def knowledge(content: bytes) -> None:
    """A damaged status.json: taken as none, or shown without a traceback and without steering the terminal."""
    try:
        agent, profiles = status.from_file(json.loads(content))
    except (ValueError, RecursionError):
        return
    with command():
        compared = tuple(reality.compared(profile, NOW, running=False) for profile in profiles)
        document = status.document(agent, compared, NOW, running=True)
        status_command.show(document)
        status_command.exit_code(document)
        for profile in profiles:
            consumer.lacking(profile, None, NOW)
    json.dumps(document)
    again = json.loads(json.dumps(status.to_file(agent, profiles, NOW)))
    assert status.from_file(again)[0].pid == agent.pid


AGENT = AgentStatus("1.0", 4711, NOW - timedelta(days=1), "/etc/token-agent/config.toml", NOW, "bad: x", "run")
FULL = ProfileStatus(
    "a",
    acquired_at=NOW - timedelta(minutes=15),
    expires_at=NOW + timedelta(minutes=45),
    refresh_at=NOW + timedelta(minutes=15),
    degraded_at=NOW + timedelta(minutes=40),
    token_sha256="0123456789ab",
    consecutive_failures=2,
    last_error=LastError(NOW, "rejected", "refused", "upload it", "AADSTS700027", "a-b-c"),
    credential=CredentialStatus("certificate", "/etc/x.pem", "CN=x", "AB", "CD", NOW + timedelta(days=9), "refused"),
    token_files=(TokenFileStatus("/nowhere/a.token", "raw", NOW), TokenFileStatus("/nowhere/b", "json")),
    hook=HookStatus(NOW, 1, "it failed"),
)
OUTCOME: dict[str, Any] = {
    "state": "fresh", "acquired_at": "2026-01-01T12:00:00Z", "expires_at": "2026-01-01T13:00:00Z",
    "token_sha256": "0123456789ab",
    "error": {"kind": "rejected", "message": "refused", "hint": "upload it", "code": "AADSTS700027"},
}  # fmt: skip
REPLIES: tuple[Any, ...] = (
    {"ok": True, "lines": ["untouched  1 profile"], "warnings": ["a: x"]},
    {"ok": True, "profiles": {"a": OUTCOME, "b": {**OUTCOME, "error": None}}},
    {"ok": False, "exit_code": 78, "message": "m", "hint": "h", "problems": ["/c:1: x"]},
    {"ok": False, "exit_code": 2, "message": "m", "hint": "", "unknown": ["z"], "known": ["a"]},
)
REQUESTS: tuple[Any, ...] = (
    {"op": "reload"}, {"op": "plan"}, {"op": "refresh", "names": ["a"], "min_valid_seconds": 300}, {"op": "refresh",
    "names": "all"},
)  # fmt: skip
JSON_WORDS = (
    b'"', b"{", b"}", b"[", b"]", b": ", b", ", b"null", b"true", b"false", b"1e999", b"NaN", b"-1", b"9" * 400,
    b"\\u001b[31m",
    b"\\ud800", b"\\n", b"[[[[[[[[", b"9999-12-31T23:59:59Z", b"0001-01-01T00:00:00+23:59", b"2026-01-01T12:00:00Z",
    b"\\u0000", b"0",
)  # fmt: skip


def _keys(*documents: Any) -> tuple[bytes, ...]:
    """Return all names of keys in documents, as JSON writes them."""
    found: dict[str, None] = {}

    def visit(value: Any) -> None:
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
            visit(item)
        if isinstance(value, dict):
            found.update(dict.fromkeys(value))

    visit(documents)
    return tuple(f'"{name}": '.encode() for name in found)


def _seeds(documents: Iterable[Any]) -> tuple[bytes, ...]:
    return tuple(json.dumps(document).encode() for document in documents)


STATUS = status.to_file(AGENT, (FULL, ProfileStatus("b")), NOW)
STATE = state.render({"a": state.record_of(some_profile(), TOKEN)})


# ---- the emulator's interface for tests


@functools.cache
def _emulator() -> Handle:
    return emulator_helpers.in_process()


def administration(content: bytes) -> None:
    """Anything sent to the emulator's admin interface is done, or refused with a reason."""
    path, _, body = content.partition(b"\n")
    method, _, place = path.decode("latin-1").partition(" ")
    headers = {"content-type": "application/json"}
    answer = _emulator().admin.answer(Request(method, f"/{place}", headers, body))
    assert answer.status in (200, 400, 404, 405, 415)
    json.loads(answer.body)
    _emulator().recover()


ADMINISTRATION = (
    b'POST apps\n{"client_id": "x", "roles": ["A"], "secrets": ["abc"], "tenants": []}',
    b'POST faults\n[{"kind": "status", "status": 503, "count": 2, "retry_after": 3}]',
    b'POST settings\n{"token_lifetime": "1h"}',
    b'POST tenants\n{"name": "fabrikam.com"}',
    b"DELETE apps/x\n",
)

TARGETS = {
    "request": Target(request, _seeds(REQUESTS), (*_keys(*REQUESTS), *JSON_WORDS)),
    "reply": Target(reply, _seeds(REPLIES), (*_keys(*REPLIES), *JSON_WORDS)),
    "state": Target(records, (STATE,), (*_keys(json.loads(STATE)), *JSON_WORDS)),
    "status": Target(knowledge, _seeds([STATUS]), (*_keys(STATUS), *JSON_WORDS), 8192),
    "emulator": Target(administration, ADMINISTRATION, JSON_WORDS),
}
