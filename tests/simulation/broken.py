"""Machines that are not as they should be: what the watchman has to find.

Each spoils one seam between the engine and the simulated machine, so that it is as if the engine itself were wrong.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from tests.simulation.clocks import MachineClock
from tests.simulation.providers import Way

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from agent.config.model import Profile
    from agent.network.call import Call
    from agent.network.transport import Reply
    from tests.simulation.play import Play
    from tests.simulation.providers import Identity


_HOARD: list[bytes] = []


class _LateClock(MachineClock):
    """Sleeps a tenth too long."""

    async def sleep_until(self, deadline: datetime) -> None:
        await super().sleep_until(deadline + max(timedelta(0), deadline - self.now()) / 10)


def _late(play: Play) -> None:
    play.machine.clock_type = _LateClock


class _Heedless(Way):
    """Hears nothing of Retry-After."""

    def request(
        self, call: Call, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        reply = super().request(call, method, url, headers, body)
        return replace(reply, headers={name: value for name, value in reply.headers.items() if name != "retry-after"})


def _heedless(play: Play) -> None:
    play.way_type = _Heedless


class _Fatal(Way):
    """Fails as nobody expects, once."""

    requests = 0

    def request(
        self, call: Call, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        _Fatal.requests += 1
        if _Fatal.requests == 20:
            raise ZeroDivisionError
        return super().request(call, method, url, headers, body)


def _fatal(play: Play) -> None:
    play.way_type = _Fatal


class _Swapping(Way):
    """Hands one profile another one's token, once."""

    bodies: ClassVar[list[tuple[Identity, bytes]]] = []

    def request(
        self, call: Call, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        reply = super().request(call, method, url, headers, body)
        if b"access_token" not in reply.body:
            return reply
        latest = reversed(self.bodies)  # one that is over by now would be refused for that
        other = next((content for identity, content in latest if identity != self._identity), reply.body)
        self.bodies.append((self._identity, reply.body))
        return replace(reply, body=other) if len(self.bodies) == 8 else reply


def _swap(play: Play) -> None:
    play.way_type = _Swapping


def _leak(play: Play) -> None:
    """Leave a descriptor open whenever a provider is asked."""
    way = play.machine.hooks.transport

    def leaking(profile: Profile) -> Way:
        os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return way(profile)  # type: ignore[return-value]

    play.machine.hooks.transport = leaking


def _hoard(play: Play) -> None:
    """Keep a MiB whenever a provider is asked."""
    way = play.machine.hooks.transport

    def hoarding(profile: Profile) -> Way:
        _HOARD.append(os.urandom(1 << 20))
        return way(profile)  # type: ignore[return-value]

    play.machine.hooks.transport = hoarding


def _deaf(play: Play) -> None:
    """Hear nothing of what happens in directories, and do not say so."""
    play.machine.notices.poll = lambda: None  # type: ignore[method-assign]


def _rewritten(play: Play, name: str, rewrite: Callable[[Path, list[bytes], bool], None]) -> None:
    """Let something be done to a file of the runtime directory after disk work, before anybody looks.

    Args:
        play: that is to be spoilt.
        name: of the file.
        rewrite: is told all that was in the file, and whether that is news.
    """
    touched, path, before = play.machine.hooks.touched, play.machine.run_disk.path / name, list[bytes]()

    def spoil() -> None:
        if path.exists():
            content = path.read_bytes()
            news = content not in before[-1:]
            before.extend([content] if news else [])
            rewrite(path, before, news)
        touched()

    play.machine.hooks.touched = spoil


def _put(path: Path, content: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(content)
    other.chmod(0o600)
    other.replace(path)


def _put_back(path: Path, before: list[bytes], news: bool) -> None:  # noqa: FBT001 - as `rewrite`
    """Put an older token over a newer one, once, and not at once."""
    if len(before) == 6 and not news:
        _put(path, before[-2])


def _write_in_place(path: Path, before: list[bytes], news: bool) -> None:  # noqa: FBT001 - as `rewrite`
    """Let the new content be in the old file, after some renewals."""
    kept = path.with_name("kept")
    if not news:
        return
    if len(before) == 6:
        kept.replace(path)
        path.write_bytes(before[-1])
    elif len(before) == 5:
        kept.hardlink_to(path)


def _stay(path: Path, before: list[bytes], news: bool) -> None:  # noqa: FBT001 - as `rewrite`
    """Let what is shown stay as it was."""
    if news and len(before) > 20:
        _put(path, before[19])
        before[20:] = [before[19]]


@dataclass(frozen=True)
class Broken:
    """What is done to a machine, and what the watchman says of it."""

    spoil: Callable[[Play], None]
    said: str


MACHINES = {
    "late": Broken(_late, "still has token"),
    "heedless": Broken(_heedless, "before the throttle was over"),
    "fatal": Broken(_fatal, "the agent ended by itself"),
    "leak": Broken(_leak, "descriptor"),
    "hoard": Broken(_hoard, "memory grew"),
    "swap": Broken(_swap, "a token that is not its own"),
    "deaf": Broken(_deaf, "was not put right"),
    "put back": Broken(lambda play: _rewritten(play, "p0.token", _put_back), "'s file holds token"),
    "in place": Broken(lambda play: _rewritten(play, "p0.token", _write_in_place), "was written in place"),
    "stale": Broken(lambda play: _rewritten(play, "status.json", _stay), "status.json differs"),
}
