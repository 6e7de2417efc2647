"""Threads: bounded, given back, never holding up whoever gave up."""

from __future__ import annotations

import threading

import anyio
import pytest

from agent.workers import Workers


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
