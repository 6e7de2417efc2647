"""Performs a scenario again and again, killed at one point after the other.

Every process is forked from this one, which has imported everything and has one thread only: that costs milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.crashpoints import checks, tracer
from tests.crashpoints.scenarios import Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.crashpoints.scenarios import Scenario


@dataclass
class Report:
    """What came of a scenario: the calls of its longest run, how often it was killed, and what was wrong then."""

    calls: list[str] = field(default_factory=list)
    kills: int = 0
    failures: list[str] = field(default_factory=list)


class Runner:
    """Runs one scenario; everything of it lies in a directory."""

    def __init__(self, make: Callable[[Path], Scenario], directory: Path, *, every: bool = False) -> None:
        """Args: ``every`` system call is a point, not only those that change files."""
        self._root, self._template = directory / "root", directory / "template"
        self._root.mkdir(mode=0o755)
        self._scenario, self._every = make(self._root), every
        self.report = Report()

    @contextlib.contextmanager
    def prepared(self) -> Iterator[Report]:
        """Be ready for kills while the block runs."""
        with self._scenario.surrounded():
            self._prepare()
            yield self.report

    def _prepare(self) -> None:
        """Make what there is before, and perform the whole once, to know how it ends."""
        in_child(self._scenario.prepare)
        self._before = Moment.of(self._root)
        self._root.rename(self._template)
        run = self._perform(0)
        assert run.code == 0, f"it fails by itself: {run.code}"
        self._after = Moment.of(self._root)
        self.report.calls = run.calls
        self._check()

    def kill_at(self, point: int) -> bool:
        """Kill it at a point and see what comes of it; return false if it ended before."""
        run = self._perform(point)
        if not run.killed:
            assert run.code == 0, f"it fails by itself: {run.code}"
            return False
        self.report.kills += 1
        try:
            self._check()
        except AssertionError as error:
            before = run.calls[-2] if point > 1 else "the start"
            self.report.failures.append(f"point {point}, after {before}, before {run.calls[-1]}: {error}")
        return True

    def _perform(self, point: int) -> tracer.Run:
        if self._root.exists():
            shutil.rmtree(self._root)
        subprocess.run(["cp", "-a", self._template, self._root], check=True)
        child = os.fork()
        if not child:
            _be_child(self._scenario.act, None)
        return tracer.follow(child, point, every=self._every)

    def _check(self) -> None:
        self._scenario.look(self._before, self._after)
        in_child(self._scenario.restart)
        found = checks.tree(self._root)
        differs = {name for name, _ in found.items() ^ self._after.tree.items()}
        said = {name: (self._after.tree.get(name), found.get(name)) for name in sorted(differs)}
        assert not said, f"in the end something else is there: {said}"


def in_child(work: Callable[[], None]) -> None:
    """Do something in a process of its own.

    Raises:
        AssertionError: it failed, and how.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _be_child(work, writing)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, said or f"ended with {os.waitstatus_to_exitcode(status)}"


def _be_child(work: Callable[[], None], complaints: int | None) -> None:
    """Do something and end this process, whatever happens."""
    code = 1
    with contextlib.suppress(BaseException):
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, it is told
            if complaints is not None:
                os.write(complaints, traceback.format_exc().encode())
            else:
                traceback.print_exc()
                sys.stderr.flush()
    os._exit(code)
