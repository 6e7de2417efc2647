"""Threads: bounded, given back, never holding up whoever gave up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest

from agent.workers import StalledError, Workers


def test_a_hanging_exchange_is_aborted_at_its_time_out() -> None:
    """The time-out aborts the work, whose thread then ends and gives its place back."""

    async def main() -> None:
        workers, aborted = Workers(1), threading.Event()
        for _ in range(3):  # would wait for ever for a place that was lost
            aborted.clear()
            with pytest.raises(TimeoutError):
                await workers.network(lambda: (aborted.wait, aborted.set), 0.01)
        assert await workers.network(lambda: (lambda: "free", lambda: None), 5) == "free"

    anyio.run(main)


def test_an_abandoned_thread_keeps_its_place() -> None:
    """A thread that cannot be aborted counts until it really ends: threads never pile up."""

    async def main() -> None:
        workers, release, began = Workers(1), threading.Event(), []

        def stuck() -> None:
            began.append(1)
            release.wait()

        with pytest.raises(TimeoutError):
            await workers.network(lambda: (stuck, lambda: None), 0.01)
        with anyio.move_on_after(0.05) as waiting:
            await workers.network(lambda: (stuck, lambda: None), 5)
        assert waiting.cancelled_caught
        assert began == [1]
        release.set()
        await workers.network(lambda: (lambda: None, lambda: None), 5)

    anyio.run(main)


def test_places_survive_cancellation_at_any_moment() -> None:
    """Cancelled before, while or after its thread began, an exchange gives its place back exactly once."""

    async def main() -> None:
        workers = Workers(2)
        for delay in (0, 0, 0.0001, 0.001, 0.002):
            stop = threading.Event()
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(workers.network, lambda stop=stop: (stop.wait, stop.set), 5)
                await anyio.sleep(delay)
                tasks.cancel_scope.cancel()
        for _ in range(4):
            await workers.network(lambda: (lambda: None, lambda: None), 5)

    anyio.run(main)


def test_failures_come_through() -> None:
    """What the work raises reaches the caller."""

    def fail() -> None:
        raise OSError("broken")

    async def main() -> None:
        workers = Workers(1)
        with pytest.raises(OSError, match="broken"):
            await workers.network(lambda: (fail, lambda: None), 5)
        with pytest.raises(OSError, match="broken"):
            await workers.disk(fail)

    anyio.run(main)


def test_a_place_is_given_back_when_nothing_could_begin() -> None:
    """Where the work cannot even be prepared, its place is free again."""

    def begin() -> tuple[object, object]:
        raise OSError("broken")

    async def main() -> None:
        workers = Workers(1)
        for _ in range(3):
            with pytest.raises(OSError, match="broken"):
                await workers.network(begin, 5)  # type: ignore[arg-type]

    anyio.run(main)


def test_an_aborted_thread_has_ended_when_its_caller_goes_on() -> None:
    """Who gives up an exchange that can be aborted does not leave a thread behind, not even for a moment."""

    async def main() -> None:
        workers, aborted, ended = Workers(1), threading.Event(), threading.Event()

        def work() -> None:
            aborted.wait()
            ended.set()

        with anyio.move_on_after(0.01) as given_up:
            await workers.network(lambda: (work, aborted.set), 5)
        assert given_up.cancelled_caught
        assert ended.is_set()

    anyio.run(main)


def test_a_thread_that_ends_after_the_loop_still_ends() -> None:
    """An abandoned thread finds the loop stopped or closed when it ends, and ends all the same."""
    for close_first in (False, True):
        loop, release, threads = asyncio.new_event_loop(), threading.Event(), _threads()

        async def give_up(release: threading.Event = release) -> None:
            with anyio.move_on_after(0.01):
                await Workers(1).network(lambda: (release.wait, lambda: None), 5)

        loop.run_until_complete(give_up())
        (thread,) = _threads() - threads
        if close_first:
            loop.close()
        release.set()
        deadline = time.monotonic() + 10
        while thread in _threads():
            assert time.monotonic() < deadline
        loop.close()


def _threads() -> set[str]:
    return {path.name for path in Path("/proc/self/task").iterdir()}


def test_a_place_that_does_not_answer_costs_itself_only() -> None:
    """Its thread is given up and no second one tried there; other places go on, and it does when it answers again."""
    release, runs = threading.Event(), []
    frozen, good = Path("/frozen"), Path("/good")

    def stuck() -> str:
        runs.append(1)
        release.wait()
        return "late"

    async def main() -> None:
        pool = Workers(1)
        works = [(frozen, stuck), (good, lambda: "good"), (frozenset({good, frozen}), lambda: "both")]
        found = await pool.disk_each(works)
        assert [str(each) if isinstance(each, str) else type(each) for each in found] == [
            StalledError,
            "good",
            StalledError,
        ]
        assert pool.stalled == {frozen}
        for _ in range(2 * Workers.DISK_THREADS):
            with pytest.raises(StalledError):
                await pool.disk(stuck, at=frozen)
        assert len(runs) == 2  # with the others in one thread, and by itself
        assert await pool.disk(lambda: "other", at=good) == "other"
        release.set()
        with anyio.fail_after(30):
            while pool.stalled:  # the thread of them all ends first, or that of the one
                await pool.news.wait()
        assert await pool.disk(stuck, at=frozen) == "late"

    anyio.run(main)


STUCK = """
import threading, anyio
from agent.workers import Workers

async def main():
    with anyio.move_on_after(0.05):
        await Workers(1).network(lambda: (threading.Event().wait, lambda: None), 50)
    print("stopped", flush=True)

anyio.run(main)
"""


def test_a_thread_that_cannot_be_aborted_does_not_hold_up_the_stop() -> None:
    """A name look-up that hangs for minutes is no reason for the process to stay."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")
    assert time.monotonic() - began < 10
