"""The processes that write, and that are killed and started again: the agent, and the writer."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from tests import process_helpers
from tests.hunt.board import PROVIDER, WRITER, Board, die_with_parent
from tests.hunt.contents import PATTERNS

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess
    from pathlib import Path

FORK = multiprocessing.get_context("fork")
CATCHING = 0.5
"""Seconds in which one is caught writing, if at all."""
SOMETIMES, OFTEN = 1 / 4, 1 / 2
"""How often one dies before it has written anything, and as soon as it is seen writing."""


class Victim:
    """Lives, and dies at random moments.

    Attributes:
        name: what it is called.
        lives: seconds that it lives at most from when it has begun to write.
        issuer: whose tokens it writes.
        kills: how often it was killed.
        caught: how often it had left a temporary file by then.
        worked: seconds that it was writing.
    """

    name: str
    lives: float
    issuer: int

    def __init__(self, board: Board, directory: Path, seed: str) -> None:
        self._board, self._directory = board, directory
        self._random = random.Random(f"{seed} {self.name}")  # noqa: S311 - when somebody dies is no secret
        self.kills = self.caught = 0
        self.worked = 0.0
        self._issued_before = 0
        self._early = False
        self._began: float | None = None
        self._dies_at = float("inf")

    def start(self) -> None:
        """Let it begin, and decide whether it is to see the day."""
        self._issued_before, self._began, self._dies_at = self._board.issued[self.issuer], None, float("inf")
        self.begin()
        if self.kills and self._random.random() < SOMETIMES:
            self._dies_at = time.monotonic() + self._random.random() * self.lives / 3

    def has_issued(self) -> bool:
        """Whether it has had a new token since it was started."""
        return self._board.issued[self.issuer] > self._issued_before

    def live(self, *, mortal: bool) -> None:
        """Go on living; if it is mortal and its time has come, die and live again."""
        self.check()
        now = time.monotonic()
        if self._began is None and self.has_issued():
            self._began = now
            self._dies_at = min(self._dies_at, now + self._random.random() * self.lives)
        if mortal and now >= self._dies_at:
            self._die()
            self.start()

    def _die(self) -> None:
        before = self._temporary()
        if self._random.random() < OFTEN:
            self._catch(before)
        self.kill()
        self.rest()
        self.kills += 1
        self.caught += bool(self._temporary() - before)

    def rest(self) -> None:
        """Count the time that it was writing, now that it is over."""
        if self._began is not None:
            self.worked += time.monotonic() - self._began

    def _catch(self, before: set[str]) -> None:
        """Stop it in the middle of writing a file, if that can be done: its temporary file is there, and stays."""
        deadline = time.monotonic() + CATCHING
        while time.monotonic() < deadline:
            if not self._temporary() - before:
                continue
            os.kill(self.pid, signal.SIGSTOP)
            if self._temporary() - before:
                return
            os.kill(self.pid, signal.SIGCONT)

    @property
    def pid(self) -> int:
        """Of the process."""
        raise NotImplementedError

    def _temporary(self) -> set[str]:
        names = os.listdir(self._directory)  # noqa: PTH208 - as fast as it can be
        return {name for name in names if name.endswith(".tmp")}

    def begin(self) -> None:
        """Start the process."""
        raise NotImplementedError

    def check(self) -> None:
        """Make sure that it has not ended by itself."""
        raise NotImplementedError

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        raise NotImplementedError

    def stop(self) -> None:
        """Let it end as it should."""
        raise NotImplementedError

    def files_written(self) -> int:
        """Return how many files it has replaced."""
        raise NotImplementedError


class Agent(Victim):
    """``token-agent run``, as it is."""

    name, lives, issuer = "agent", 2.0, PROVIDER

    def __init__(self, board: Board, directory: Path, seed: str, config: Path) -> None:
        super().__init__(board, directory, seed)
        self._config, self._log = config, config.with_name("agent.log")
        self._process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*process_helpers.COMMAND, "run", "--config", str(self._config)],
                env=process_helpers.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - there is one thread only
            )

    def check(self) -> None:
        code = self._process.poll()
        assert code is None, f"the agent has ended by itself ({code}):\n{self._last_words()}"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        code = self._process.wait(process_helpers.PATIENCE)
        self.rest()
        assert code == 0, f"the agent has ended with {code}:\n{self._last_words()}"

    def files_written(self) -> int:
        lines = self._log.read_bytes().splitlines()
        return sum(b'"token.written"' in line or b'"output.repaired"' in line for line in lines)

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-5:])


class Forked(Victim):
    """The writer: forked from this process, it ends by itself when the hunt is over."""

    name, lives, issuer = "writer", 1.0, WRITER

    def __init__(self, board: Board, directory: Path, seed: str, run: Callable[[], None]) -> None:
        super().__init__(board, directory, seed)
        self._run = run
        self._process: BaseProcess

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    def begin(self) -> None:
        self._process = FORK.Process(target=self._run, daemon=True)
        self._process.start()

    def check(self) -> None:
        assert self._process.is_alive(), f"the writer has ended by itself ({self._process.exitcode})"

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        self._process.join(process_helpers.PATIENCE)
        self.rest()
        assert self._process.exitcode == 0, f"the writer has ended with {self._process.exitcode}"

    def files_written(self) -> int:
        return self._board.issued[WRITER] * len(PATTERNS)
