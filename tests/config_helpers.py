"""Configurations for tests: real files in a directory of the test, loaded as the agent loads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent import files
from agent.config.load import load_config
from agent.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.config.model import Config, Profile
    from agent.errors import Problem

CLIENT_ID = "ace7a10d-aaaa-4a01-8663-1440b6b78cb9"
OTHER_ID = "0b1c9b3e-5d1f-4f0e-9a57-2f6f3a1c7d10"
HEAD = f"""\
[[profile]]
name = "graph"
tenant = "contoso.onmicrosoft.com"
client_id = "{CLIENT_ID}"
scopes = ["https://graph.microsoft.com/.default"]
certificate = "graph.pem"
"""
"""A profile that is right, on lines 1 to 6; what a test adds begins on line 7."""


def entry(name: str, *lines: str) -> str:
    """Return a profile that is right, with further lines."""
    return "\n".join([HEAD.rstrip().replace('"graph"', f'"{name}"'), *lines, ""])


def write(directory: Path, text: str | bytes, name: str = "config.toml") -> Path:
    """Write a configuration file and return its path."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def load(directory: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> Config:
    """Write a main file, and load it from disk as the agent does."""
    return load_config(write(directory, text), environ or {}, files.read_bytes, files.expand)


def load_one(directory: Path, text: str, environ: Mapping[str, str] | None = None) -> Profile:
    """Return the only profile."""
    (profile,) = load(directory, text, environ).profiles
    return profile


def refused(directory: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> list[Problem]:
    """Return all that is wrong with a main file; every problem is printable, one line, and names a file."""
    with pytest.raises(ConfigurationError) as caught:
        load(directory, text, environ)
    problems = list(caught.value.problems)
    assert caught.value.exit_code == 78
    assert problems
    for problem in problems:
        assert str(problem).startswith(str(problem.file))
        assert str(problem).isprintable()
        assert problem.message
    return problems


def the_problem(directory: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> Problem:
    """Return the only thing that is wrong with a main file."""
    problems = refused(directory, text, environ)
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]
