"""Every place where bytes of others come in, for a moment each: the same inputs at each run; `tests.fuzz` goes on."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import STEADY, local, provider, targets
from tests.fuzz.mutation import mutants
from tests.process_helpers import PATIENCE, ROOT

if TYPE_CHECKING:
    from pathlib import Path

MOST = 1500
"""Inputs for each target."""
SECONDS = 1.2
"""For each target, where the machine is slower."""
SLOW = 5.0
"""Seconds that no input takes, on the slowest of machines."""


@pytest.mark.parametrize("name", targets())
def test_nothing_escapes(name: str) -> None:
    """Whatever comes in, errors are of our own kinds, messages steer no terminal and tell no secret, all in no time."""
    target, end = targets()[name], time.monotonic() + SECONDS
    for number, content in enumerate(itertools.islice(mutants(target, 0), MOST)):
        began = time.monotonic()
        try:
            target.run(content)
        except BaseException as error:
            error.add_note(f"the input: {content!r}")
            raise
        assert time.monotonic() - began < SLOW, content
        if began > end and number > len(target.seeds):
            break


def test_what_is_found_is_told(tmp_path: Path) -> None:
    """`python -m tests.fuzz` ends with 1 where an input fails, and names the target; what does not fail it does not."""
    good = tmp_path / "good"
    good.write_bytes(b"{access_token}")
    command = [sys.executable, "-m", "tests.fuzz", f"template={good}", f"words={tmp_path / 'missing'}"]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=PATIENCE * 2, check=False
    )
    assert done.returncode == 1
    assert "FAILED: words;" in done.stderr


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**40), 10**40), st.floats(), st.text(max_size=20),
    st.sampled_from(["\x1b[31m", "2026-01-01T12:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "/a",
    "a", "3600", "all"]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
DOCUMENTS: dict[str, tuple[Any, ...]] = {
    "answer": tuple(
        {**provider.GOOD, **more}
        for more in ({}, {"error": "invalid_client", "error_description": "x", "error_codes": [7]})
    ),
    "status": (local.STATUS,),
    "state": (json.loads(local.STATE),),
    "request": local.REQUESTS,
    "reply": local.REPLIES,
}


def changed(document: Any, path: list[int], value: Any) -> Any:
    """Return a document with one value exchanged; numbers lead to it, whatever is there."""
    if not path or not isinstance(document, dict | list | tuple) or not document:
        return value
    pairs = list(document.items() if isinstance(document, dict) else enumerate(document))
    place = path[0] % len(pairs)
    pairs[place] = (pairs[place][0], changed(pairs[place][1], path[1:], value))
    return dict(pairs) if isinstance(document, dict) else [inner for _, inner in pairs]


@settings(**STEADY, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("name", DOCUMENTS)
@given(number=st.integers(0, 9), path=st.lists(st.integers(0, 30), max_size=4), value=VALUES)
def test_any_value_anywhere(name: str, number: int, path: list[int], value: Any) -> None:
    """Any JSON in the place of any part of a good document is dealt with."""
    document = DOCUMENTS[name][number % len(DOCUMENTS[name])]
    content = json.dumps(changed(document, path, value)).encode()
    if name == "answer":
        content = provider.PARTS.join([b"200" if number % 2 else b"400", b"", b"", content])
    targets()[name].run(content)
