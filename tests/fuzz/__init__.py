"""Hostile input: one function per place where bytes of others come in, and engines that make such bytes.

``python -m tests.fuzz`` says how to run them. A function takes any bytes and returns, or it fails: whatever it lets
escape that is not an error of ours, prints that could steer a terminal, or takes long for, is a finding. The tests run
every one of them for a moment (`tests/test_hostile_fuzz.py`); what was found is kept in ``tests/test_hostile_*.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fuzz.target import Target

STEADY: dict[str, Any] = {"derandomize": True, "database": None, "deadline": None}
"""Settings of Hypothesis for the tests of hostile input: the same examples at each run, whatever the machine."""


def targets() -> dict[str, Target]:
    """Return all targets by name."""
    from tests.fuzz import inputs, local, provider  # noqa: PLC0415 - what they import is to be watched by an engine

    return inputs.TARGETS | provider.TARGETS | local.TARGETS
