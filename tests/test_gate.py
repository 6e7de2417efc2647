"""Admission: one probe for a provider that does not answer, no two requests of a profile within a second."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import pytest

from agent.admission import LENT
from agent.engine.gate import Gate
from agent.engine.places import LATE
from agent.errors import RejectedError, TransientError
from tests import virtual

if TYPE_CHECKING:
    from collections.abc import Callable


class Provider:
    """Takes one second to answer; fails while it is down. Counts who asked, and when."""

    def __init__(self, clock: virtual.VirtualClock, gate: Gate, *, authority: str = "A") -> None:
        self.clock, self.gate, self.authority = clock, gate, authority
        self.down = False
        self.takes = 1.0
        self.asked: list[tuple[float, str]] = []
        self.most = 0
        self._inside = 0

    async def ask(self, profile: str, error: Exception | None = None) -> None:
        async with self.gate.admit(self.authority, profile):
            self.asked.append((self.clock.boot(), profile))
            self._inside += 1
            self.most = max(self.most, self._inside)
            await anyio.sleep(self.takes)
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
    """An unknown provider is asked by one profile; when it answers, the others follow, in all places but two."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop, places=5)
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


@pytest.mark.parametrize(("places", "most"), [(1, 1), (2, 1), (3, 2), (4, 2), (8, 5), (16, 11), (100, 74)])
def test_one_provider_never_takes_all_places(places: int, most: int) -> None:
    """A provider that answers is asked by many at once, and yet leaves places for others' profiles."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop, places=places)
        assert await ask_all(the_provider, 1) == [None]
        await ask_all(the_provider, 200)
        assert the_provider.most == most

    virtual.run(main)


TIMEOUT = 30.0
RETRY = 10.0


class Many:
    """Providers that hang, each profile asking again and again, and good ones that answer within a second."""

    def __init__(self, loop: virtual.VirtualLoop, places: int = 16) -> None:
        self.clock = virtual.VirtualClock(loop)
        self.gate = Gate(self.clock, lambda: 0.5, places)
        self.inside = self.most = 0
        self._names = map(str, itertools.count())  # nobody has to wait a second

    async def hang(self, authority: str, way: str, stuck: float = 0.0) -> None:
        """Ask for ever; each time-out leaves a thread behind for as long as ``stuck`` says."""
        while True:
            try:
                async with self.gate.admit(authority, authority, way=way) as place:
                    await self._time_out(place.hold(), stuck)
            except TransientError as error:
                await anyio.sleep((error.retry_after or timedelta(seconds=RETRY)).total_seconds())

    async def _time_out(self, let_go: Callable[[], None], stuck: float) -> None:
        self._enter()
        asyncio.get_running_loop().call_later(TIMEOUT + stuck, self._leave, let_go)
        await anyio.sleep(TIMEOUT)
        raise TransientError("did not answer in time", unreachable=True)

    async def seconds(self, way: str, profiles: int = 1) -> float:
        """Return how long it takes until so many profiles of a provider that works have got an answer."""
        began = self.clock.boot()

        async def one() -> None:
            async with self.gate.admit(way, next(self._names), way=way) as place:
                self._enter()
                let_go = place.hold()
                await anyio.sleep(0.1)
                self._leave(let_go)

        async with anyio.create_task_group() as tasks:
            for _ in range(profiles):
                tasks.start_soon(one)
        return self.clock.boot() - began

    def _enter(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)

    def _leave(self, let_go: Callable[[], None]) -> None:
        self.inside -= 1
        let_go()


@pytest.mark.parametrize("stuck", [0.0, 150.0])
@pytest.mark.parametrize("known", [True, False])
def test_120_tenants_of_a_hanging_host_delay_nobody(stuck: float, *, known: bool) -> None:
    """Whether it ever answered, and whether threads end with their time: another provider, also a new one, goes on."""

    async def main(loop: virtual.VirtualLoop) -> None:
        many = Many(loop)
        if known:
            await many.seconds("dead", 20)
        async with anyio.create_task_group() as tasks:
            for number in range(120):
                tasks.start_soon(many.hang, f"tenant {number}", "dead", stuck)
            await anyio.sleep(0.01)
            assert await many.seconds("new") < 0.2
            for _ in range(60):
                assert await many.seconds("new", 5) < 1
                await anyio.sleep(7)
            assert await many.seconds("another") < 0.2
            tasks.cancel_scope.cancel()
        assert many.most <= 16 + LENT

    virtual.run(main)


@pytest.mark.parametrize("stuck", [0.0, 150.0])
def test_40_hanging_hosts_do_not_delay_one_that_answers(stuck: float) -> None:
    """However many hosts hang, one that answered at last always finds a place; a new one gets its turn among them."""

    async def main(loop: virtual.VirtualLoop) -> None:
        many = Many(loop)
        await many.seconds("good")
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(many.hang, f"dead {number}", f"dead {number}", stuck)
            for _ in range(60):
                assert await many.seconds("good", 5) < 1
                await anyio.sleep(7)
            assert await many.seconds("new") < (LATE if not stuck else TIMEOUT + stuck) + 1
            assert await many.seconds("new") < 0.2
            tasks.cancel_scope.cancel()
        assert many.most <= 16 + LENT

    virtual.run(main)


def test_a_new_host_gets_its_turn_among_40_that_hang() -> None:
    """Where nobody has answered yet, what hangs lends its place after seconds: the last one in the row has it soon."""

    async def main(loop: virtual.VirtualLoop) -> None:
        many = Many(loop)
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(many.hang, f"dead {number}", f"dead {number}", 1000.0)
            await anyio.sleep(0.01)
            assert many.most == 12
            assert await many.seconds("new") < 4 * LATE
            await anyio.sleep(100)
            assert await many.seconds("new") < 0.2
            tasks.cancel_scope.cancel()
        assert 40 < many.most <= 16 + LENT

    virtual.run(main)


def test_what_answers_slowly_is_no_reason_for_more_requests() -> None:
    """Places are lent for hosts that do not answer: one that takes its time is asked by no more than are allowed."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop, places=4)
        the_provider.takes = 5 * LATE
        await ask_all(the_provider, 30)
        assert the_provider.most == 2

    virtual.run(main)


@pytest.mark.parametrize("places", [1, 2, 3, 5])
def test_few_places_are_enough(places: int) -> None:
    """With a single place all take turns; from two on, what hangs leaves one to what answers."""

    async def main(loop: virtual.VirtualLoop) -> None:
        many = Many(loop, places)
        await many.seconds("good")
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(many.hang, f"dead {number}", f"dead {number}")
            await anyio.sleep(1)
            for _ in range(20):
                assert await many.seconds("good") < (0.2 if places > 1 else 5 * TIMEOUT + 1)
            tasks.cancel_scope.cancel()
        assert many.most <= places + LENT

    virtual.run(main)


def test_a_cancelled_wait_costs_no_place() -> None:
    """Whoever gives up waiting, or is given a place in that very moment, leaves it to others."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop, places=2)
        await the_provider.ask("first")
        for delay in (0, 0.5, 1, 1, 1.5):
            async with anyio.create_task_group() as tasks:
                for number in range(3):
                    tasks.start_soon(the_provider.ask, f"p{delay} {number}")
                await anyio.sleep(delay)
                tasks.cancel_scope.cancel()
            the_provider._inside = 0
        assert await ask_all(the_provider, 3) == [None] * 3

    virtual.run(main)


def test_who_waited_for_a_place_is_told_that_the_provider_is_down() -> None:
    """Of 150 profiles that fall due together, those in the first places find out; then only probes go."""

    async def main(loop: virtual.VirtualLoop) -> None:
        the_provider = provider(loop, places=16)
        await ask_all(the_provider, 1)
        the_provider.down = True
        the_provider.asked.clear()
        met = await ask_all(the_provider, 150)
        assert len(the_provider.asked) == 11
        assert [type(error) for error in met] == [TransientError] * 150
        assert {error.retry_after for error in met if isinstance(error, TransientError)} == {timedelta(seconds=1.5)}
        await anyio.sleep(1.5)
        await ask_all(the_provider, 150)
        assert len(the_provider.asked) == 12

    virtual.run(main)
