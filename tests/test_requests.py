"""What the running agent does for callers: the real engine in virtual time, asked as the control socket asks it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from agent import tokens
from agent.engine.requests import Requests
from tests import virtual
from tests.engine_helpers import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from pathlib import Path

    from agent.control import Answer


@asynccontextmanager
async def asked(world: World) -> AsyncIterator[Callable[..., Coroutine[Any, Any, Answer]]]:
    """Run an agent; yield what asks it, and makes sure that no answer holds a token."""
    async with world.running():
        await anyio.sleep(5)
        requests = Requests(world.supervisor, world.services)

        async def ask(op: object, **keys: Any) -> Answer:
            answer = await requests.answer({"op": op, **keys})
            text = json.dumps(answer)
            for name in world.services.board.profiles:
                assert (world.token(name) or "no token") not in text
            return answer

        yield ask


def run(directory: Path, main: Callable[[World], Awaitable[None]]) -> None:
    """Run a test in a world of its own."""

    async def begin(loop: virtual.VirtualLoop) -> None:
        world = World(loop, directory)
        world.configure()
        await main(world)

    virtual.run(begin)


@pytest.mark.parametrize("op", [None, "", "nonsense", 1, ["reload"], {"a": 1}, "x" * 10_000])
def test_unknown_request(tmp_path: Path, op: object) -> None:
    """What an agent does not know it says so, with the likely reason, and goes on."""

    async def main(world: World) -> None:
        async with asked(world) as ask:
            answer = await ask(op)
            assert (answer["ok"], answer["exit_code"]) == (False, 69)
            assert "does not know" in answer["message"]
            assert "older" in answer["hint"]
            assert (await ask("reload"))["ok"]

    run(tmp_path, main)


def test_reload_and_plan(tmp_path: Path) -> None:
    """`plan` says what `reload` then does; after it there is nothing left to do."""

    async def main(world: World) -> None:
        async with asked(world) as ask:
            world.configure("app", "more", each="timeout = 30")
            expected = ["added      more", "changed    app: timeout", "untouched  0 profiles"]
            for _ in range(2):
                assert (await ask("plan"))["lines"] == expected
            answer = await ask("reload")
            assert answer == {"ok": True, "lines": expected, "warnings": []}
            assert (await ask("plan"))["lines"] == ["untouched  2 profiles"]
            await anyio.sleep(5)
            assert world.token("more")

    run(tmp_path, main)


@pytest.mark.parametrize("op", ["plan", "reload"])
def test_refused(tmp_path: Path, op: str) -> None:
    """A configuration that cannot be used is refused with every problem, and what runs goes on."""

    async def main(world: World) -> None:
        async with asked(world) as ask:
            world.configure("app", agent='log_levl = "info"', each="nonsense = 1")
            answer = await ask(op)
            assert (answer["ok"], answer["exit_code"], len(answer["problems"])) == (False, 78, 2)
            assert "log_levl" in answer["message"]
            assert "nonsense" in answer["problems"][1]
            before = world.token()
            await anyio.sleep(3600)
            assert world.token() != before

    run(tmp_path, main)


def test_reload_with_a_broken_certificate(tmp_path: Path) -> None:
    """A certificate that cannot be used is no refusal: the answer names it, and the one at work stays."""

    async def main(world: World) -> None:
        async with asked(world) as ask:
            world.write("app.pem", "nonsense")
            answer = await ask("reload")
            assert answer["ok"]
            (warning,) = answer["warnings"]
            assert warning.startswith(f"app: {tmp_path / 'app.pem'}")
            assert (await ask("refresh", names=["app"]))["profiles"]["app"]["error"] is None

    run(tmp_path, main)


def test_refresh(tmp_path: Path) -> None:
    """Each profile named gets a new token, on disk before the answer comes; the others keep theirs."""

    async def main(world: World) -> None:
        world.configure("a", "b", "c")
        async with asked(world) as ask:
            before = {name: world.token(name) for name in "abc"}
            answer = await ask("refresh", names=["a", "b"])
            assert [*answer["profiles"]] == ["a", "b"]
            for name in "ab":
                outcome, token = answer["profiles"][name], world.token(name)
                assert token
                assert token != before[name]
                assert outcome["token_sha256"] == tokens.fingerprint(token)
                assert (outcome["state"], outcome["error"]) == ("fresh", None)
            assert world.token("c") == before["c"]
            everything = await ask("refresh", names="all")
            assert [*everything["profiles"]] == ["a", "b", "c"]
            assert world.token("c") != before["c"]
            assert len(world.requests()) == 3 + 2 + 3

    run(tmp_path, main)


def test_refresh_of_strangers(tmp_path: Path) -> None:
    """An unknown name is refused with the known ones, and nothing is acquired; so is what is no list of names."""

    async def main(world: World) -> None:
        async with asked(world) as ask:
            answer = await ask("refresh", names=["app", "nobody"])
            assert (answer["ok"], answer["exit_code"]) == (False, 2)
            assert (answer["unknown"], answer["known"]) == (["nobody"], ["app"])
            for names in (None, "app", [1], {"app": 1}, [["app"]], True):
                assert (await ask("refresh", names=names))["exit_code"] == 69
            wrong: tuple[object, ...] = ("1", [], {})
            for seconds in wrong:
                assert not (await ask("refresh", names=["app"], min_valid_seconds=seconds))["ok"]
            assert (await ask("refresh", names=[]))["profiles"] == {}
            assert len(world.requests()) == 1

    run(tmp_path, main)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [({"kind": "status"}, "transient"), ({"kind": "error", "code": 700027}, "rejected")],
)
def test_refresh_fails(tmp_path: Path, fault: dict[str, Any], kind: str) -> None:
    """A failed attempt is told with its kind, code and fix; the old token is still there, and said to be."""

    async def main(world: World) -> None:
        async with asked(world) as ask:
            before = world.token()
            world.provider.fault(**fault, count=None)
            outcome = (await ask("refresh", names=["app"]))["profiles"]["app"]
            assert outcome["error"]["kind"] == kind
            assert {*outcome["error"]} == {"kind", "message", "hint", "code"}
            assert outcome["state"] == "degraded"
            assert outcome["expires_at"] == world.state()["expires_at"]
            assert world.token() == before
            world.provider.recover()
            await anyio.sleep(120)
            assert (await ask("refresh", names=["app"]))["profiles"]["app"]["error"] is None

    run(tmp_path, main)


def test_min_valid(tmp_path: Path) -> None:
    """With a wish for some life left, a token that has it is good enough and nothing is acquired."""

    async def main(world: World) -> None:
        async with asked(world) as ask:
            await anyio.sleep(15 * 60)
            for seconds, requests in ((60, 1), (44 * 60, 1), (46 * 60, 2), (59 * 60, 2), (61 * 60, 3)):
                assert (await ask("refresh", names=["app"], min_valid_seconds=seconds))["ok"]
                assert len(world.requests()) == requests

    run(tmp_path, main)


def test_many_callers_share(tmp_path: Path) -> None:
    """A hundred callers at once cost one or two attempts, a second apart; each gets a token asked for after it came."""

    async def main(world: World) -> None:
        async with asked(world) as ask:
            asked_at, before = world.clock.now(), world.token()
            answers: list[Answer] = []

            async def call() -> None:
                answers.append(await ask("refresh", names=["app"]))
                assert world.token() != before
                assert world.requests()[-1] >= asked_at

            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(call)
            assert len(answers) == 100
            times = world.requests()[1:]
            assert 1 <= len(times) <= 2
            assert all(b - a >= timedelta(seconds=1) for a, b in pairwise([asked_at - timedelta(seconds=1), *times]))

    run(tmp_path, main)


def test_one_after_the_other(tmp_path: Path) -> None:
    """A caller that comes later gets a token of its own, a second after the one before at the earliest."""

    async def main(world: World) -> None:
        async with asked(world) as ask:
            seen = {world.token()}
            for _ in range(5):
                await ask("refresh", names=["app"])
                seen.add(world.token())
            assert len(seen) == 6
            assert all(b - a >= timedelta(seconds=1) for a, b in pairwise(world.requests()))

    run(tmp_path, main)


def test_reload_while_refreshing(tmp_path: Path) -> None:
    """A reload that restarts a profile in the middle of its attempt does not make an old token pass for a new one."""

    async def main(world: World) -> None:
        async with asked(world) as ask:
            await ask("refresh", names=["app"])
            before = world.token()
            answers: list[Answer] = []

            async def refresh() -> None:
                answers.append(await ask("refresh", names=["app"]))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(refresh)
                await anyio.sleep(0.5)  # in virtual time: its attempt waits until the last one is a second ago
                world.configure(each="timeout = 30")
                assert "changed    app: timeout" in (await ask("reload"))["lines"]
            assert answers[0]["profiles"]["app"]["error"] is None
            assert world.token() != before

    run(tmp_path, main)


def test_many_callers_who_need_life(tmp_path: Path) -> None:
    """A hundred callers that only need a token with life left cost one attempt, and none sees an old token."""

    async def main(world: World) -> None:
        async with asked(world) as ask:
            await anyio.sleep(20 * 60)
            before = world.token()

            async def call() -> None:
                await ask("refresh", names=["app"], min_valid_seconds=3000)
                assert world.token() != before

            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(call)
            assert len(world.requests()) == 2

    run(tmp_path, main)


def test_refresh_ends_a_long_wait(tmp_path: Path) -> None:
    """A profile that the provider refused is tried at once when asked for, not five minutes later."""

    async def main(world: World) -> None:
        world.provider.fault("error", count=None, code=700016)
        async with asked(world) as ask:
            assert world.state()["state"] == "pending"
            world.provider.recover()
            outcome = (await ask("refresh", names="all"))["profiles"]["app"]
            assert (outcome["state"], outcome["error"]) == ("fresh", None)
            assert world.clock.now() - virtual.START < timedelta(seconds=30)

    run(tmp_path, main)


def test_socket_cannot_be_made(tmp_path: Path) -> None:
    """An agent whose control socket cannot be made says so and keeps its tokens fresh all the same."""
    (tmp_path / "run" / "control.sock").mkdir(parents=True)

    async def main(world: World) -> None:
        async with asked(world):
            await anyio.sleep(3600)
            assert world.token()
            (event,) = world.log.named("control.unavailable")
            assert event["path"] == str(tmp_path / "run" / "control.sock")

    run(tmp_path, main)


def test_socket_is_there_when_the_agent_has_started(tmp_path: Path) -> None:
    """Callers can come as soon as the agent says that it has started; after its end the name is gone."""

    async def main(world: World) -> None:
        path = tmp_path / "run" / "control.sock"
        async with asked(world):
            assert world.log.named("agent.started")
            assert path.is_socket()
        assert not path.exists()

    run(tmp_path, main)
