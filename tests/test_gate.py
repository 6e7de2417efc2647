"""Admission: one probe for a provider that does not answer, no two requests of a profile within a second."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import anyio
import pytest

from agent.engine.gate import Gate
from agent.errors import RejectedError, TransientError
from tests import virtual


class Provider:
    """Takes one second to answer; fails while it is down. Counts who asked, and when."""

    def __init__(self, clock: virtual.VirtualClock, gate: Gate, *, authority: str = "A") -> None:
        self.clock, self.gate, self.authority = clock, gate, authority
        self.down = False
        self.asked: list[tuple[float, str]] = []
        self.most = 0
        self._inside = 0

    async def ask(self, profile: str, error: Exception | None = None) -> None:
        async with self.gate.admit(self.authority, profile):
            self.asked.append((self.clock.boot(), profile))
            self._inside += 1
            self.most = max(self.most, self._inside)
            await anyio.sleep(1)
            self._inside -= 1
            if error:
                raise error
            if self.down:
                raise TransientError("down", unreachable=True)


def provider(loop: virtual.VirtualLoop, *, places: int = 4, random: float = 0.5) -> Provider:
    clock = virtual.VirtualClock(loop)
    return Provider(clock, Gate(clock, lambda: random, places))


async def ask_all(the_provider: Provider, count: int) -> list[BaseException | None]:
    """Let many profiles ask at once; return what each met."""
    met: list[BaseException | None] = [None] * count

    async def one(number: int) -> None:
        try:
            await the_provider.ask(f"p{number}")
        except TransientError as error:
            met[number] = error

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(one, number)
    return met


def test_the_first_one_probes_then_all_go() -> None:
    """An unknown provider is asked by one profile; when it answers, the others follow, all places but one."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop, places=4)
        assert await ask_all(the_provider, 10) == [None] * 10
        assert [at for at, _ in the_provider.asked] == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert the_provider.most == 3

    virtual.run(main)


def test_one_request_tells_all_that_the_provider_is_down() -> None:
    """A thousand profiles of a dead provider cost one request, and all know when to come again."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop)
        the_provider.down = True
        met = await ask_all(the_provider, 1000)
        assert len(the_provider.asked) == 1
        waits = {error.retry_after for error in met if isinstance(error, TransientError)}
        assert len([error for error in met if error]) == 1000
        assert waits == {timedelta(seconds=1.5)}  # first back-off: between 1 and 2 s, half of it

    virtual.run(main)


def test_nobody_asks_before_the_next_probe_is_due() -> None:
    """Before the back-off is over an attempt fails at once, without a request; then a single probe goes."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop)
        the_provider.down = True
        await ask_all(the_provider, 1)
        for wait, requests in ((1.0, 1), (0.5, 2), (0.1, 2)):
            await anyio.sleep(wait)
            await ask_all(the_provider, 5)
            assert len(the_provider.asked) == requests

    virtual.run(main)


def test_back_off_of_the_authority_grows_and_ends() -> None:
    """Probes get rarer, up to a minute apart; the first answer opens the gate for everybody at once."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop, places=100, random=0.999999)
        the_provider.down = True
        for _ in range(9):
            met = await ask_all(the_provider, 20)
            error = met[0]
            assert isinstance(error, TransientError)
            assert error.retry_after is not None
            await anyio.sleep(error.retry_after.total_seconds())
        at = [round(time) for time, _ in the_provider.asked]
        assert [after - before - 1 for before, after in pairwise(at)] == [2, 4, 8, 16, 32, 60, 60, 60]
        the_provider.down = False
        assert await ask_all(the_provider, 20) == [None] * 20

    virtual.run(main)


def test_a_refusal_is_an_answer() -> None:
    """A provider that refuses one profile works: the others go through."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop)
        with pytest.raises(RejectedError):
            await the_provider.ask("wrong", RejectedError("no"))
        assert await ask_all(the_provider, 5) == [None] * 5

    virtual.run(main)


def test_throttling_of_one_app_delays_no_other() -> None:
    """A 429 is about the app that got it, not about the provider."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop)
        with pytest.raises(TransientError):
            await the_provider.ask("throttled", TransientError("429", retry_after=timedelta(seconds=60)))
        assert await ask_all(the_provider, 3) == [None] * 3

    virtual.run(main)


def test_a_cancelled_probe_is_taken_over() -> None:
    """When the probing profile is stopped, the next one probes: nobody waits for a ghost."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop)
        async with anyio.create_task_group() as tasks:
            scope = anyio.CancelScope()

            async def first() -> None:
                with scope:
                    await the_provider.ask("first")

            tasks.start_soon(first)
            await anyio.sleep(0.5)
            tasks.start_soon(the_provider.ask, "second")
            await anyio.sleep(0.1)
            scope.cancel()
        assert the_provider.asked == [(0, "first"), (0.6, "second")]

    virtual.run(main)


def test_a_profile_never_asks_twice_within_a_second() -> None:
    """Whatever restarts a profile, its requests stay a second apart."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop)
        for _ in range(2):
            with anyio.move_on_after(0.25):
                await the_provider.ask("p")
        await the_provider.ask("p")
        assert [at for at, _ in the_provider.asked] == [0, 1]

    virtual.run(main)


def test_one_provider_never_takes_the_last_place() -> None:
    """A provider that hangs on all its profiles leaves a place for another provider's."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop, places=4)
        assert await ask_all(the_provider, 1) == [None]
        await ask_all(the_provider, 12)
        assert the_provider.most == 3

    virtual.run(main)
