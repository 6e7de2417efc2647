"""How long a granted token really serves: the earlier of what answer and token say, whoever's clock is wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from agent.errors import RejectedError, TransientError
from agent.network.granted import LEEWAY, MAX_LIFETIME, Exchange, granted
from agent.tokens import AccessToken, decode
from tests import virtual
from tests.certificate_helpers import profile
from tests.engine_helpers import World
from tests.entra_helpers import unpadded

if TYPE_CHECKING:
    from pathlib import Path

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
SENT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SEEN = SENT + SECOND
RIGHT = timedelta(0)


def jwt_of(**claims: Any) -> str:
    """An unsigned token; instants are put as times from the answer, by the right time."""
    numbers = {
        name: (SEEN + value).timestamp() if isinstance(value, timedelta) else value for name, value in claims.items()
    }
    return f"{unpadded(b'{}')}.{unpadded(json.dumps(numbers).encode())}.sig"


def grant(
    secret: str, skew: timedelta | None = RIGHT, ours: timedelta = RIGHT, took: timedelta = SECOND, **answer: Any
) -> AccessToken:
    """Judge an answer; ``ours`` is how far this machine's clock is off, ``skew`` what it believes to be off."""
    exchange = Exchange(SEEN - took + ours, SEEN + ours, skew)
    return granted(profile(), secret, {"token_type": "Bearer", "expires_in": 3600} | answer, exchange)


def serves(token: AccessToken, ours: timedelta = RIGHT) -> timedelta:
    """Return how long a token is said to serve after the answer."""
    return token.expires_at - (SEEN + ours)


def test_an_opaque_token_is_taken_at_the_answers_word() -> None:
    """What cannot be read has no times of its own, and counts from before the request."""
    token = grant("opaque", expires_in=600)
    assert (token.acquired_at, token.expires_at) == (SENT, SENT + 600 * SECOND)


@pytest.mark.parametrize("ours", [-2 * HOUR, -MINUTE, RIGHT, MINUTE, 2 * HOUR])
def test_the_earlier_end_counts(ours: timedelta) -> None:
    """A token that ends before its `expires_in` serves to its `exp`, and one that ends later to its `expires_in`."""
    for exp, served in ((10 * MINUTE, 10 * MINUTE), (5 * HOUR, HOUR - SECOND), (3 * SECOND, 3 * SECOND)):
        token = grant(jwt_of(exp=exp, nbf=-MINUTE, iat=-MINUTE), skew=ours, ours=ours)
        assert serves(token, ours) == served
        assert token.lifetime == served + SECOND


def test_a_wrong_clock_alone_refuses_nothing() -> None:
    """A token is over, or has not begun, only if both clocks say so: either of them may be wrong."""
    fresh = jwt_of(exp=HOUR, nbf=RIGHT, iat=RIGHT)
    for skew, ours in (
        (None, RIGHT),
        (2 * HOUR, 2 * HOUR),
        (-2 * HOUR, -2 * HOUR),
        (-9 * HOUR, RIGHT),
        (9 * HOUR, RIGHT),
    ):
        assert serves(grant(fresh, skew=skew, ours=ours), ours) in (HOUR, HOUR - SECOND)


@pytest.mark.parametrize("skew", [None, RIGHT, -HOUR])
def test_a_token_that_is_over_is_refused(skew: timedelta | None) -> None:
    """Whatever the answer says: no API takes it."""
    for exp in (RIGHT, -SECOND, -24 * HOUR, 0, 1e-300):
        with pytest.raises(TransientError, match=r"the token it has just issued ended .* ago \(exp\)") as caught:
            grant(jwt_of(exp=exp), skew=skew)
        assert not caught.value.unreachable  # other profiles' tokens may be better


@pytest.mark.parametrize("skew", [None, RIGHT, HOUR])
def test_a_token_that_has_not_begun_is_refused(skew: timedelta | None) -> None:
    """APIs allow for five minutes of other clocks, and so does the agent."""
    assert grant(jwt_of(exp=2 * HOUR, nbf=LEEWAY * SECOND), skew=skew).lifetime == HOUR
    for nbf in (LEEWAY * SECOND + SECOND, 365 * 24 * HOUR, 2**47):
        with pytest.raises(TransientError, match=r"is not valid for another .* \(nbf\)"):
            grant(jwt_of(exp=2**47, nbf=nbf), skew=skew)


def test_no_token_lives_longer_than_a_month() -> None:
    """Neither the answer's word nor the token's own is believed beyond."""
    longest = MAX_LIFETIME * SECOND
    assert grant("opaque", expires_in=10**18).lifetime == longest
    assert serves(grant(jwt_of(exp=365 * 24 * HOUR, iat=RIGHT), expires_in=10**18)) == longest - SECOND
    assert serves(grant(jwt_of(exp=365 * 24 * HOUR, iat=RIGHT), expires_in=None)) == longest - SECOND
    assert serves(grant(jwt_of(exp=2**47), expires_in=None)) <= longest


def test_what_the_token_says_is_enough() -> None:
    """`expires_in` is only recommended (RFC 6749 5.1): `exp` does, with `iat` or without."""
    for claims in ({"exp": 900 * SECOND, "iat": RIGHT}, {"exp": 900 * SECOND}, {"exp": 900.75 * SECOND}):
        assert 899 * SECOND <= serves(grant(jwt_of(**claims), expires_in=None)) <= 900 * SECOND


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", [None, True, "x", "1", [], {}, -1, 1e300, 10**30, float("nan"), float("inf")])
def test_times_that_are_none_say_nothing(claim: str, value: Any) -> None:
    """A claim that is no instant within reach of a calendar neither shortens a token's life nor ends it."""
    assert grant(jwt_of(**{claim: value})).lifetime == HOUR


def test_a_clock_set_back_during_the_request() -> None:
    """The life of a token is never negative, and its end is counted from the new time."""
    token = grant(jwt_of(exp=HOUR, iat=RIGHT), took=-HOUR)
    assert (token.acquired_at, token.expires_at) == (SEEN, SEEN + HOUR)


@pytest.mark.parametrize("kind", ["bearer", "Bearer", "BEARER"])
def test_bearer_in_any_case(kind: str) -> None:
    """The type of a token is written in any case (RFC 6749 5.1), and handed on as it came."""
    assert grant("opaque", token_type=kind).token_type == kind


@pytest.mark.parametrize("kind", ["pop", "DPoP", "mac", "N_A"])
def test_other_types_are_refused(kind: str) -> None:
    """A client must not use a token whose type it does not understand (RFC 6749 7.1); nor could a reader of a file."""
    with pytest.raises(RejectedError, match=f"of the type '{kind}'") as caught:
        grant("opaque", token_type=kind)
    assert caught.value.code == "token_type"
    assert "bearer" in caught.value.hint


@pytest.mark.parametrize("made", [7200, 3600, -301, -1800])
def test_the_good_token_stays_while_useless_ones_come(tmp_path: Path, made: int) -> None:
    """Tokens that are dead on arrival are failures: retried, named, and never written over one that serves."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        async with world.running():
            await anyio.sleep(1)
            good = world.token()
            world.provider.fault("stale", None, seconds=made)
            await anyio.sleep(3000)
            assert world.token() == good
            assert world.state()["state"] == "degraded"
            assert "it has just issued" in world.state()["last_error"]["message"]
            world.provider.recover()
            await anyio.sleep(60)
            assert world.token() != good
            assert world.state()["state"] == "fresh"

    virtual.run(main)


def test_a_token_from_a_cache_is_renewed_by_what_is_left_of_it(tmp_path: Path) -> None:
    """`expires_in` says an hour, the token ten minutes: the files say ten minutes, and the next comes in time."""

    async def main(loop: virtual.VirtualLoop) -> None:
        world = World(loop, tmp_path)
        world.configure()
        world.provider.fault("stale", seconds=3000)
        async with world.running():
            await anyio.sleep(1)
            _, claims = decode(world.token() or "")
            shown = datetime.fromisoformat(world.state()["expires_at"])
            assert abs(shown.timestamp() - claims["exp"]) <= 1
            await anyio.sleep(400)
            assert decode(world.token() or "")[1]["exp"] > claims["exp"]

    virtual.run(main)
