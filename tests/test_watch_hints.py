"""When hints come: by events at once, by time exactly, never in floods; and what leaving or cancelling does."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from agent.watching.watcher import Watcher
from agent.workers import Workers
from tests import virtual
from tests.process_helpers import ROOT, environment
from tests.watch_helpers import HOUR, Consumer, fresh

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


def listeners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "file events"]


def in_virtual_time(main: Callable[[Watcher, virtual.VirtualClock], Awaitable[None]]) -> None:
    async def start(loop: virtual.VirtualLoop) -> None:
        clock, workers = virtual.VirtualClock(loop), Workers(1)
        loop.workers.append(workers)
        with Watcher(clock, workers.disk) as watcher:
            await main(watcher, clock)

    virtual.run(start)


def test_scans_come_at_their_interval(tmp_path: Path) -> None:
    """Without any event there is a hint every interval, to the millisecond; a step of the wall clock adds none."""

    async def main(watcher: Watcher, clock: virtual.VirtualClock) -> None:
        assert (await watcher.hint(lambda: [tmp_path / "file"], timedelta(seconds=10))).kind == "armed"
        times = [clock.boot()]
        for number in range(6):
            if number == 3:
                clock.step(timedelta(hours=5))
            if number == 4:
                clock.step(timedelta(hours=-5))
            assert (await watcher.hint(lambda: [tmp_path / "file"], timedelta(seconds=10))).kind == "scan"
            times.append(clock.boot())
        assert [b - a for a, b in pairwise(times)] == pytest.approx([10] * 6, abs=0.001)

    in_virtual_time(main)


def test_nothing_to_watch_leaves_the_scan() -> None:
    """No thread is started for no places."""
    before = listeners()

    async def main(watcher: Watcher, clock: virtual.VirtualClock) -> None:
        assert (await watcher.hint(list, HOUR)).kind == "scan"
        assert clock.boot() == pytest.approx(3600)
        assert set(listeners()) <= set(before)

    in_virtual_time(main)


def test_endless_noise_costs_one_hint_a_second(tmp_path: Path) -> None:
    """Ten hints come at once, the others a second apart; after a quiet time it is ten again."""

    async def main(watcher: Watcher, clock: virtual.VirtualClock) -> None:
        times = []
        for _ in range(15):
            watcher.again()
            await watcher.hint(lambda: [tmp_path / "file"], HOUR)
            times.append(clock.boot())
        assert [b - a for a, b in pairwise(times)] == pytest.approx([0] * 9 + [1] * 5)
        await clock.sleep_until(clock.now() + timedelta(seconds=10))
        times = []
        for _ in range(11):
            watcher.again()
            await watcher.hint(lambda: [tmp_path / "file"], HOUR)
            times.append(clock.boot())
        assert [b - a for a, b in pairwise(times)] == pytest.approx([0] * 9 + [1])

    in_virtual_time(main)


def test_a_storm_is_a_few_hints_and_its_end_is_seen(tmp_path: Path) -> None:
    """A thousand replacements cause a bounded number of hints, the last of which shows the final content."""
    path = tmp_path / "app.pem"

    def storm() -> None:
        for _ in range(1000):
            (tmp_path / "new").write_text(fresh())
            (tmp_path / "new").rename(path)
        path.write_text("final\n")

    async def main() -> None:
        with Consumer(path) as consumer:
            await consumer.calm()
            kinds = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, storm)
                while not path.exists() or path.read_text() != "final\n":
                    kinds.append((await consumer.hint()).kind)
            kinds += [hint.kind for hint in await consumer.calm()]
            assert set(kinds) == {"event"}
            assert len(kinds) <= 20

    anyio.run(main)


def test_other_places_are_watched_at_the_next_call(tmp_path: Path) -> None:
    """What `places` returns is followed, and `again` brings that forward while a hint is waited for."""
    one, other = tmp_path / "one" / "file", tmp_path / "other" / "file"
    for path in (one, other):
        path.parent.mkdir()

    async def main() -> None:
        with Consumer(one) as consumer:
            await consumer.calm()

            def look_elsewhere() -> None:
                consumer.paths[:] = [other]
                anyio.from_thread.run_sync(consumer.again)
                other.write_text(fresh())

            kinds = await consumer.notices(look_elsewhere)
            assert kinds[0] in ("armed", "asked")
            assert set(await consumer.notices(lambda: other.write_text(fresh()))) == {"event"}
            one.write_text(fresh())
            assert not await consumer.calm()

    anyio.run(main)


def test_what_happens_between_two_calls_is_not_lost(tmp_path: Path) -> None:
    """An event that comes while nobody waits is kept for the next call; it is heard when another watcher is calm."""
    path = tmp_path / "file"

    async def main() -> None:
        with Consumer(path) as late, Consumer(path) as other:
            for consumer in (late, other):
                await consumer.calm()
            assert await other.notices(lambda: path.write_text(fresh()))
            await other.calm()
            assert (await late.hint()).kind == "event"
            assert not await late.calm()

    anyio.run(main)


def test_a_cancelled_wait_loses_nothing(tmp_path: Path) -> None:
    """Wherever a call is cancelled, the next one goes on: the change after it is noticed."""
    path = tmp_path / "a" / "file"
    path.parent.mkdir()

    async def main() -> None:
        for delay in (0, 0.0001, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.08):
            with Consumer(path) as consumer:
                with anyio.move_on_after(delay):
                    await consumer.hint()
                assert set(await consumer.notices(lambda: path.write_text(fresh()))) <= {"event", "armed"}

    anyio.run(main)


def test_leaving_ends_the_thread_and_waits_for_nothing(tmp_path: Path) -> None:
    """The thread ends by itself, as it does for each listener that is replaced by another."""

    async def main() -> None:
        with Consumer(tmp_path / "a" / "file") as consumer:
            await consumer.calm()
            (tmp_path / "a").mkdir()
            await consumer.calm()
            assert len(listeners()) == 1

    anyio.run(main)
    for thread in listeners():
        thread.join(5)
        assert not thread.is_alive()


def test_nobody_waits_for_a_watcher_that_was_not_left(tmp_path: Path) -> None:
    """Loop and interpreter end, without a word, although a thread is listening."""
    code = "import sys; from tests import watch_children as it; it.never_left(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "file")],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
