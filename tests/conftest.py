"""What holds for all tests: nothing of the user's environment reaches them, and CI skips nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.lab_helpers import Lab

SKIP_NOTHING = "TOKEN_AGENT_SKIP_NOTHING"
"""Set where everything is installed that any test needs: what would be skipped there has failed."""
_FOREIGN = ("TOKEN_AGENT_CONFIG", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "JOURNAL_STREAM")

for _name in _FOREIGN:
    os.environ.pop(_name, None)


LONGEST = ("test_simulation", "test_crash_points", "test_machine_frozen", "test_demo", "test_hunt", "test_fleet")
"""Modules whose tests take longest: what begins last should be short, or all but one worker wait for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each worker, which gets its share of the tests in their order, begin with its share of the longest."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    longest = [item for item in items if item.path.stem in LONGEST]
    rest = [item for item in items if item.path.stem not in LONGEST]
    size = -(-len(rest) // workers)
    shares = [longest[n::workers] + rest[n * size : (n + 1) * size] for n in range(workers)]
    items[:] = [item for share in shares for item in share]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where nothing may be skipped."""
    report = yield
    if report.skipped and os.environ.get(SKIP_NOTHING) and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"{SKIP_NOTHING} is set, and this was skipped: {reason}"
    return report


@pytest.fixture(scope="session")
def laboratory() -> Iterator[Lab]:
    """A real systemd for all tests of this process that need one; as they leave it."""
    from tests.lab_helpers import lab  # noqa: PLC0415 - only those need what it imports

    with lab() as made:
        yield made


@pytest.fixture
def it(laboratory: Lab) -> Lab:
    """The same, as it was before the first test."""
    laboratory.reset()
    return laboratory
