"""Writers that are not as they should be: what the enumeration has to find."""

from __future__ import annotations

import os
from typing import ClassVar

from agent.output import sink
from tests.crashpoints import tracer
from tests.crashpoints.writing import Write
from tests.sink_helpers import NEW


class InPlace(Write):
    """Writes over the old file."""

    name = "broken-in-place"

    def act(self) -> None:
        tracer.wait_to_be_traced()
        self.path.write_bytes(NEW)


class Gap(Write):
    """Removes the old file before it has a new one."""

    name = "broken-gap"
    exact: ClassVar = ()

    def act(self) -> None:
        tracer.wait_to_be_traced()
        self.path.unlink()
        sink.write(self.path, NEW, self.wanted)


class Open(Write):
    """Lets everybody read its temporary file for a moment."""

    name = "broken-open"

    def act(self) -> None:
        temporary = self.path.with_name(f".token.{'0' * 16}.tmp")
        tracer.wait_to_be_traced()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(descriptor, NEW)
        os.fchmod(descriptor, 0o600)
        temporary.replace(self.path)


class Stray(Write):
    """Nobody knows its temporary file."""

    name = "broken-stray"

    def act(self) -> None:
        temporary = self.path.with_name("token.new")
        tracer.wait_to_be_traced()
        temporary.write_bytes(NEW)
        temporary.chmod(0o600)
        temporary.replace(self.path)


class Forgetful(Write):
    """Does not look for what a killed one has left."""

    name = "broken-forgetful"

    def restart(self) -> None:
        self.path.write_bytes(NEW)
