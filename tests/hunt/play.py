"""One hunt in one directory: all are started, the writers die until there is enough of it, and all is counted."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent import lock
from agent.doctor.surroundings import mount_of
from tests import emulator_helpers, process_helpers
from tests.certificate_helpers import CLIENT_ID, written
from tests.hunt import provider
from tests.hunt.board import PROVIDER, WRITER, Board
from tests.hunt.contents import HOT, PROFILES, files_of, resource
from tests.hunt.readers import READERS, Documents
from tests.hunt.victims import FORK, Agent, Forked
from tests.hunt.writers import WRITERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from tests.hunt.reader import Findings, Reader
    from tests.hunt.victims import Victim

STEP = 0.002
"""Seconds between two looks at whose time has come."""
ROTATIONS = 10
"""Of the writer, that readers are to see at least."""
PATIENCE = 3 * process_helpers.PATIENCE
REFRESH = {"at": 0.002, "jitter": 0.0003}
"""Of ten minutes: each profile is renewed after 1.02 to 1.2 s, and the agent asks once a second at most."""


@dataclass(frozen=True)
class Order:
    """How many reads of token files, and kills of the agent, there are to be at the least, and by which writer.

    A writer that is not the program's own is alone, and nobody is killed.
    """

    reads: int
    kills: int
    seed: str
    writer: str = "sink"

    @property
    def is_real(self) -> bool:
        """Whether this is about the program, not about the hunt itself."""
        return self.writer == "sink"


@dataclass
class Result:
    """What came of a hunt; ``issued`` counts the tokens of each victim, ``written`` its files."""

    place: Path
    file_system: str
    seconds: float = 0.0
    findings: list[Findings] = field(default_factory=list)
    victims: list[Victim] = field(default_factory=list)
    issued: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)

    @property
    def reads(self) -> int:
        """Of token files."""
        return sum(each.reads for each in self.findings if each.of_tokens)

    @property
    def bad_reads(self) -> int:
        return sum(each.bad_reads for each in self.findings)

    @property
    def is_bad(self) -> bool:
        """Whether anything is not as it has to be."""
        return bool(self.bad_reads or self.strays)

    def seen(self, issuer: str) -> int:
        """Return how many tokens of a victim were seen by at least one reader."""
        tokens: set[tuple[str, int]] = set().union(*(each.seen for each in self.findings))
        return Counter("writer" if profile == HOT else "agent" for profile, _ in tokens)[issuer]


def hunt(place: Path, order: Order) -> Result:
    """Hunt below a directory, and leave nothing there."""
    with tempfile.TemporaryDirectory(prefix="token-agent-hunt-", dir=place) as name:
        root = Path(name).resolve()
        result = Result(place, mount_of(root).kind)
        Hunt(root, order, result).run()
    return result


class Hunt:
    """All who take part, forked from this process, which has one thread and knows the keys."""

    def __init__(self, root: Path, order: Order, result: Result) -> None:
        self._root, self._order, self._result = root, order, result
        self._tokens, self._run, self._state = (root / name for name in ("tokens", "run", "state"))
        for directory in (root / HOT, self._tokens, self._run, self._state):
            directory.mkdir(mode=0o755)
        self._cold = files_of(PROFILES, self._tokens, 0) if order.is_real else []
        self._hot = files_of([HOT], root / HOT, len(self._cold))
        self._documents = [self._run / "status.json", self._state / "state.json"] if order.is_real else []
        kinds = [kind for kind in READERS if order.is_real or kind is not Documents]
        files = [*self._cold, *self._hot]
        self._board = Board(len(kinds), len(files))
        self._readers = [kind(self._board, files, self._documents, order.seed) for kind in kinds]
        self._seen_from = 0
        self._results: list[Connection] = []
        self._provider: list[BaseProcess] = []
        self._reading: list[BaseProcess] = []

    def run(self) -> None:
        """Hunt from start to end."""
        emulator_helpers.signing_key()  # before anybody is forked, so that all have the same
        with contextlib.ExitStack() as leave:
            leave.callback(self._kill_forked)
            victims = self._result.victims = self._make_victims()
            for victim in victims:
                leave.callback(victim.kill)
                victim.start()
            self._wait(self._are_all_there)
            began, self._seen_from = time.monotonic(), self._board.issued[WRITER]
            for place, reader in enumerate(self._readers):
                self._start_reader(place, reader)
            self._play()
            self._result.seconds = time.monotonic() - began
            self._end()

    # ---- the beginning

    def _make_victims(self) -> list[Victim]:
        writer = WRITERS[self._order.writer](self._board, self._hot)
        made: list[Victim] = [Forked(self._board, self._root / HOT, self._order.seed, writer.run)]
        if self._order.is_real:
            made.append(Agent(self._board, self._tokens, self._order.seed, self._configure(*self._start_provider())))
        return made

    def _start_provider(self) -> tuple[str, str]:
        """Start the provider, and return authority and CA file."""
        pair = process_helpers.current_certificate()
        written(self._root / "app.pem", pair.pem)
        ready, sender = FORK.Pipe(duplex=False)
        self._provider = [_forked(provider.serve, self._board, pair, sender)]
        sender.close()
        answer: tuple[str, str] = ready.recv()
        return answer

    def _configure(self, authority: str, ca_file: str) -> Path:
        usual = {"authority": authority, "ca_file": ca_file, "client_id": CLIENT_ID, "refresh": REFRESH}
        profiles = [
            {
                "name": name,
                "scopes": f"{resource(name)}/.default",
                "certificate": self._root / "app.pem",
                "token_file": [file.keys() for file in self._cold if file.profile == name],
            }
            for name in PROFILES
        ]
        return process_helpers.write_config(self._root, *(usual | profile for profile in profiles))

    def _start_reader(self, place: int, reader: Reader) -> None:
        result, sender = FORK.Pipe(duplex=False)
        self._reading.append(_forked(reader.run, place, sender))
        self._results.append(result)
        sender.close()  # now the pipe ends when the reader does

    def _are_all_there(self) -> bool:
        paths = [file.path for file in (*self._cold, *self._hot)] + self._documents
        return all(path.exists() for path in paths)

    # ---- the hunt

    def _play(self) -> None:
        """Let them write and die until there is enough of it."""
        while not self._is_enough():
            assert all(process.is_alive() for process in self._provider), "the provider has ended by itself"
            for victim in self._result.victims:
                victim.live(mortal=self._order.is_real)
            time.sleep(STEP)

    def _is_enough(self) -> bool:
        kills = self._order.kills if self._order.is_real else 0
        rotations = self._board.issued[WRITER] - self._seen_from
        reads = sum(self._board.reads[place] for place, reader in enumerate(self._readers) if reader.of_tokens)
        enough = reads >= self._order.reads and rotations >= ROTATIONS
        return enough and self._result.victims[-1].kills >= kills

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "nothing happens any more"
            for victim in self._result.victims:
                victim.live(mortal=False)
            time.sleep(STEP)

    # ---- the end

    def _end(self) -> None:
        """Let all write once more, so that they have cleaned up; then stop the agent, then all others."""
        writer, *others = self._result.victims
        self._wait(lambda: all(victim.has_issued() for victim in self._result.victims))
        for agent in others:
            agent.stop()
        self._board.end()
        self._result.findings = [self._finding(place) for place in range(len(self._readers))]
        writer.stop()
        self._count()

    def _finding(self, place: int) -> Findings:
        """Return what a reader has found; its last read was a bad one, if that killed it."""
        process = self._reading[place]
        try:
            finding: Findings = self._results[place].recv()
        except EOFError:
            process.join()
            code = process.exitcode or 0
            assert code < 0, f"a reader has ended by itself ({code})"
            finding = self._readers[place].killed(signal.Signals(-code), self._board.reads[place])
        return finding

    def _count(self) -> None:
        issued = self._board.issued
        self._result.issued = {"agent": issued[PROVIDER], "writer": issued[WRITER]}
        self._result.written = {victim.name: victim.files_written() for victim in self._result.victims}
        known = {file.path for file in (*self._cold, *self._hot)} | {*self._documents, self._run / lock.NAME}
        left = (path for each in (self._root / HOT, self._tokens, self._run, self._state) for path in each.iterdir())
        self._result.strays = sorted(str(path.relative_to(self._root)) for path in left if path not in known)

    def _kill_forked(self) -> None:
        for process in (*self._provider, *self._reading):
            process.kill()
            process.join()


def _forked(run: Callable[..., None], *arguments: object) -> BaseProcess:
    process = FORK.Process(target=run, args=arguments, daemon=True)
    process.start()
    return process
