"""Compares what is shown with what is so: the status of a running agent, and the copies that survive its end."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from agent import state, status
from tests.simulation.machine import BrokenError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.simulation.cases import Case
    from tests.simulation.clocks import Time
    from tests.simulation.machine import Machine
    from tests.simulation.providers import Issued

T = TypeVar("T")
SAVED_WITHIN = 15.0
"""Seconds from a change to its copy on disk, also when that was full before."""
ROUNDED = 2.5
"""Seconds by which what is shown may differ."""
OVERDUE = 90.0
"""Seconds from the time at which a token falls due to the end of the first attempt, after which it is said to fail."""


def look_at(path: Path) -> tuple[int, ...] | None:
    """Return what changes with a file, None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a hot path
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def read(path: Path) -> str | None:
    """Return what a file holds, None if there is none, or no text in it."""
    try:
        return path.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return None


class _Parsed(Generic[T]):
    """What a file says, parsed when it has become another one."""

    def __init__(self, parse: Callable[[str], T]) -> None:
        self._parse = parse
        self._look: tuple[int, ...] | None = (0,)
        self._value: T

    def of(self, path: Path) -> T:
        if (look := look_at(path)) != self._look:
            self._look, self._value = look, self._parse(read(path) or "")
        return self._value


class Showing:
    """Knows what was found right before, so that only what has changed since is compared again."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self._saved = _Parsed(lambda text: status.from_file(json.loads(text or "{}")))
        self._records = _Parsed(lambda text: state.parse(text.encode()))
        self._same: tuple[object, object] | None = None
        self._news: object = None
        self._told_at = 0.0

    def watch(self, machine: Machine) -> None:
        """Note when something was told to the board."""
        news = machine.services.board.news
        if news is not self._news:
            self._news, self._told_at = news, self._time.true

    def compare(self, machine: Machine, cases: dict[str, Case], *, since: float, unseen: float) -> None:
        """See that all that is shown is so.

        Args:
            machine: with an agent that has had a while to do what it has to.
            cases: what is expected of each profile.
            since: when the agent was started, or its clock disturbed.
            unseen: for how long a file may be altered before the agent notices.
        """
        board, clock, now = machine.services.board, machine.clock, self._time.true
        profiles = tuple(board.profiles.values())
        document = status.document(board.agent, profiles, clock.now(), running=True)
        shown = {entry["name"]: entry for entry in document["profiles"]}
        if shown.keys() != cases.keys():
            raise BrokenError(f"status shows {sorted(shown)}, configured are {sorted(cases)}")
        for name, case in cases.items():
            if not case.vague:
                self._judge(case, shown[name], machine, (since, now - unseen))
        if not machine.run_disk.fault and not machine.state_disk.fault:
            self._compare_saved(document, machine)
            self._compare_records(machine, cases)

    def _compare_saved(self, document: dict[str, Any], machine: Machine) -> None:
        board, saved = machine.services.board, self._saved.of(machine.run_disk.path / "status.json")
        pair = (saved, (board.agent, *board.profiles.values()))
        if pair == self._same or self._time.true < self._told_at + SAVED_WITHIN:
            return
        self._same = pair
        known = status.document(*saved, machine.clock.now(), running=True)
        for entry in (*known["profiles"], *document["profiles"]):
            del entry["runway_seconds"]  # of times that are rounded to the second in the file
        if known != document:
            raise BrokenError(f"status.json differs from what is so: {_difference(known, document)}")

    def _compare_records(self, machine: Machine, cases: dict[str, Case]) -> None:
        records = self._records.of(machine.state_disk.path / "state.json")
        for name, case in cases.items():
            record = records.get(name)
            if not case.sure or not case.everywhere:
                continue
            if record is None or record.token_sha256 != case.digest:
                raise BrokenError(f"{name}: state.json does not know the token on disk")
            case.wallet.saved()

    def _judge(self, case: Case, entry: dict[str, Any], machine: Machine, noticed: tuple[float, float]) -> None:
        """See that what is shown of a profile can be said of its file."""
        now, name, shown = self._time.true, case.plan.name, entry["state"]
        if entry["consecutive_failures"] and not entry["last_error"]:
            raise BrokenError(f"{name}: status counts {entry['consecutive_failures']} failures, and knows of none")
        if case.touched is not None:
            if shown == "fresh" and case.touched < noticed[1] and not case.path.exists():
                raise BrokenError(f"{name}: status says fresh, and its file is gone since {now - case.touched:.0f} s")
        elif case.token is None:
            if shown in ("fresh", "degraded") and not case.former and not case.path.exists():
                raise BrokenError(f"{name}: status says {shown}, and there is no file")
        elif case.token.identity == case.plan.identity:
            if case.everywhere:
                self._judge_times(case, case.token, entry, machine)
                self._judge_files(case, entry, machine)
            overdue = now - max(case.due() + case.slip, case.told_until, noticed[0])
            if shown == "fresh" and overdue > OVERDUE:
                raise BrokenError(f"{name}: status says fresh of a token that was due {overdue:.0f} s ago")

    def _judge_files(self, case: Case, entry: dict[str, Any], machine: Machine) -> None:
        """See that it is shown of each file that it was written."""
        if machine.run_disk.fault or self._time.true < max(case.base, case.rest):
            return  # it may have to have another format, and the provider's wish to be left alone puts that off, too
        written = {each["path"] for each in entry["token_files"] if each["written_at"]}
        if written != {str(path) for path in case.paths}:
            raise BrokenError(f"{case.plan.name}: status shows as written {sorted(written)}")

    def _judge_times(self, case: Case, token: Issued, entry: dict[str, Any], machine: Machine) -> None:
        now, name, shown = self._time.true, case.plan.name, entry["state"]
        expires_at = status.parse_rfc3339(entry["expires_at"])
        ends = (expires_at - machine.clock.now()).total_seconds() + now if expires_at else None
        if ends is None or abs(ends - token.ends) > ROUNDED:
            raise BrokenError(f"{name}: status shows an end at {ends}, the token on disk ends at {token.ends}")
        if shown in ("fresh", "degraded") and now > token.ends + ROUNDED:
            raise BrokenError(f"{name}: status says {shown} of a token that is over")
        if shown in ("pending", "expired") and now < token.ends - ROUNDED:
            raise BrokenError(f"{name}: status says {shown} of a token that serves")


def _difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    entries = zip(one["profiles"], other["profiles"], strict=False)
    found = [(a["name"], key, a[key], b.get(key)) for a, b in entries for key in a if a[key] != b.get(key)]
    return str(found or (one["agent"], other["agent"]))[:300]
