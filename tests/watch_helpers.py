"""A consumer of hints as the supervisor is one, and children in namespaces and limits of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextvars import ContextVar
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from agent.clock import SystemClock
from agent.watching import watch
from agent.watching.watcher import Hint, Watcher
from agent.workers import Workers
from tests.process_helpers import ROOT, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from pathlib import Path
    from typing import Self

HOUR = timedelta(hours=1)
QUIET = timedelta(milliseconds=250)
"""Nothing has been noticed for so long: what happened before has been heard of. Longer than the listener takes."""
PATIENCE = 20.0

_numbers = count()


def _numbered() -> str:
    return f"content {next(_numbers):08}\n"


maker: ContextVar[Callable[[], str]] = ContextVar("maker", default=_numbered)
"""Makes what files are filled with; others may want certificates, or configurations."""


def fresh() -> str:
    """Return content that was never there before, always of the same length."""
    return maker.get()()


class Over(Exception):  # noqa: N818 - as StopIteration
    """There are no more changes to make."""


class AttentiveClock(SystemClock):
    """The machine's clock, which tells when somebody begins to wait for longer than any pause."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = anyio.Event()

    async def sleep_until(self, deadline: datetime) -> None:
        if deadline - self.now() > timedelta(seconds=0.5):
            self.waiting.set()
        await super().sleep_until(deadline)


class Consumer:
    """Looks when it is told to, and at no other time; a context manager as its watcher is."""

    def __init__(self, *paths: Path) -> None:
        self.paths = list(paths)
        self._clock = AttentiveClock()
        self.watcher = Watcher(self._clock, Workers(1).disk)

    def __enter__(self) -> Self:
        self.watcher.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.watcher.__exit__()

    def look(self) -> watch.Contents:
        return watch.contents(self.paths)

    def again(self) -> None:
        self.watcher.again()

    async def hint(self, interval: timedelta = HOUR) -> Hint:
        with anyio.fail_after(PATIENCE):
            return await self.watcher.hint(lambda: self.paths, interval)

    async def calm(self) -> list[Hint]:
        """Take all hints until there are none any more: whatever comes then is about something new."""
        hints = []
        while (hint := await self.hint(QUIET)).kind != "scan":
            hints.append(hint)
        return hints

    async def notices(self, change: Callable[[], object], interval: timedelta = HOUR) -> list[str]:
        """Make a change while a hint is waited for, and go on until a look shows it; return the kinds of the hints.

        Within the hour of the default there is no scan: the change was noticed by an event, or the time is over.
        None are returned when the change raises `Over`.
        """
        await self.calm()
        before, self._clock.waiting = self.look(), anyio.Event()
        kinds: list[str] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._disturb, change, tasks.cancel_scope)
            while not kinds or self.look() == before:
                kinds.append((await self.hint(interval)).kind)
        return kinds

    async def _disturb(self, change: Callable[[], object], scope: anyio.CancelScope) -> None:
        await self._clock.waiting.wait()
        try:
            await anyio.to_thread.run_sync(change)
        except Over:
            scope.cancel()


def unshared(namespaces: Iterable[str], call: str, *arguments: object) -> None:
    """Run a function of `tests.watch_children` as root of namespaces of its own.

    Skips if the machine has none, which TOKEN_AGENT_SKIP_NOTHING forbids.
    """
    unshare = ["unshare", "--user", "--map-root-user", *(f"--{name}" for name in namespaces)]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        skip("namespaces of users are not allowed here")
    child(call, *arguments, wrapper=unshare)


def child(call: str, *arguments: object, wrapper: Iterable[str] = ()) -> None:
    """Run a function of `tests.watch_children` in a process of its own; it fails by raising."""
    code = "import sys; from tests import watch_children as it; getattr(it, sys.argv[1])(*sys.argv[2:])"
    done = subprocess.run(
        [*wrapper, sys.executable, "-W", "error", "-c", code, call, *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def skip(reason: str) -> None:
    """Skip a test visibly, or fail it where nothing may be skipped."""
    if "TOKEN_AGENT_SKIP_NOTHING" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)
