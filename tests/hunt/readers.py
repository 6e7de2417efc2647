"""Who reads, each in its own manner."""

from __future__ import annotations

import json
import mmap
import os
import re
import stat
import subprocess
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from agent import state
from tests.hunt.contents import BadReadError
from tests.hunt.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.hunt.board import Board
    from tests.hunt.contents import File

HELD = 32
"""Files that are kept open."""
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp")
"""As the program names them; of others nobody knows whose they are."""


class Chunks(Reader):
    """Reads a few bytes at a time, so that a whole replacement fits between two of them."""

    name = "chunks"
    manner = "open, read 16 to 512 bytes at a time, close"

    def read(self, file: File) -> bytes:
        size, found = self._random.randrange(16, 512), []
        descriptor = os.open(file.path, os.O_RDONLY)
        try:
            while chunk := os.read(descriptor, size):
                found.append(chunk)
        finally:
            os.close(descriptor)
        return b"".join(found)


class Mapped(Reader):
    """Maps the file into memory; what the kernel says of it has to be right as well."""

    name = "mapped"
    manner = "mmap; size and mode as well"

    def read(self, file: File) -> bytes:
        with file.path.open("rb", buffering=0) as opened:
            before = os.fstat(opened.fileno())
            if not before.st_size:
                return b""
            try:
                with mmap.mmap(opened.fileno(), before.st_size, prot=mmap.PROT_READ) as mapped:
                    content = mapped[:]
            except ValueError as error:
                raise BadReadError(str(error)) from None  # it has become shorter
            size = os.fstat(opened.fileno()).st_size
        if (mode := stat.S_IMODE(before.st_mode)) != 0o600:
            raise BadReadError(f"mode {mode:04o}", content)
        if size != before.st_size:
            raise BadReadError(f"{before.st_size} bytes, then {size}", content)
        return content


class Held(Reader):
    """Keeps files open long after they were replaced: what was opened stays whole, and stays as it was."""

    name = "held"
    manner = "read an open file again, after its replacement"

    def __init__(self, board: Board, files: Sequence[File], documents: Sequence[Path], seed: str) -> None:
        super().__init__(board, files, documents, seed)
        self._open: deque[tuple[int, bytes]] = deque()

    def read(self, file: File) -> bytes | None:
        if len(self._open) >= HELD and self._random.random() < 3 / 4:
            self._again(*self._random.choice(self._open))
            return None
        descriptor = os.open(file.path, os.O_RDONLY)
        content = _from_start(descriptor)
        self._open.append((descriptor, content))
        if len(self._open) > HELD:
            os.close(self._open.popleft()[0])
        return content

    def _again(self, descriptor: int, content: bytes) -> None:
        """Read what is open already, from its start or by its name in /proc."""
        by_name = self._random.random() < 1 / 2
        found = Path(f"/proc/self/fd/{descriptor}").read_bytes() if by_name else _from_start(descriptor)
        if found != content:
            raise BadReadError("an open file changed", found)


def _from_start(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        return file.readall()


class Lines(Reader):
    """Reads as `curl -H @FILE` does: lines of text through a small buffer."""

    name = "lines"
    manner = "header files a line at a time, as curl -H @FILE"
    formats = ("header",)

    def read(self, file: File) -> bytes:
        with file.path.open("rb", buffering=64) as opened:
            lines = list(opened)
        if len(lines) > 1:
            raise BadReadError(f"{len(lines)} lines", b"".join(lines))
        return b"".join(lines)


class Shell(Reader):
    """Reads as shell scripts do; what `$(...)` cuts off at the end is put back."""

    name = "shell"
    manner = 'sh: "$(cat FILE)", and . FILE for env files'
    script = """
    while IFS= read -r file; do
        case $file in
        *.env) ACCESS_TOKEN= ; command . "$file"; status=$?; content=ACCESS_TOKEN=$ACCESS_TOKEN ;;
        *) content=$(cat "$file"); status=$? ;;
        esac
        printf '%s %s\\0' "$status" "$content"
    done
    """

    def __init__(self, board: Board, files: Sequence[File], documents: Sequence[Path], seed: str) -> None:
        super().__init__(board, files, documents, seed)
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, file: File) -> bytes:
        status, _, content = self._ask(str(file.path)).partition(b" ")
        if status != b"0":
            raise BadReadError(f"the shell says {status.decode()}", content)
        return content + (b"" if file.format == "raw" else b"\n")

    def _ask(self, path: str) -> bytes:
        """Return the answer of a shell that is started once; it ends together with its input."""
        if self._process is None:
            self._process = subprocess.Popen(
                ["sh", "-c", self.script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{path}\n".encode())
        self._process.stdin.flush()
        answer = bytearray()
        while not answer.endswith(b"\0"):
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise AssertionError("the shell has ended")
            answer += chunk
        return bytes(answer[:-1])


class Listed(Reader):
    """Lists the directories: every file is there, and what else there is has a name that the program cleans up."""

    name = "listed"
    manner = "the names in the directory"
    of_tokens = False

    def __init__(self, board: Board, files: Sequence[File], documents: Sequence[Path], seed: str) -> None:
        super().__init__(board, files, documents, seed)
        self._directories: dict[Path, set[str]] = {}
        for file in files:
            self._directories.setdefault(file.path.parent, set()).add(file.path.name)

    def look(self) -> None:
        directory = self._random.choice(list(self._directories))
        try:
            self._check(directory, self._directories[directory], set(os.listdir(directory)))  # noqa: PTH208 - names alone, at once
        except (OSError, BadReadError) as error:
            self._bad(directory, error)

    def _check(self, directory: Path, known: set[str], found: set[str]) -> None:
        for name in known - found:  # a listing may pass by a name that is being replaced, which is there nevertheless
            if not (directory / name).exists():
                raise BadReadError(f"{name} is missing")
        for name in found - known:
            match = _TEMPORARY.fullmatch(name)
            if match is None or match[1] not in known:
                raise BadReadError(f"a file of nobody: {name}")


class Documents(Reader):
    """Reads what the agent writes besides: its status, and what its next start has to know."""

    name = "documents"
    manner = "status.json and state.json"
    of_tokens = False

    def look(self) -> None:
        path = self._random.choice(self._documents)
        try:
            content = path.read_bytes()
            (json.loads if path.name == "status.json" else state.parse)(content)
        except OSError as error:
            self._bad(path, error)
        except ValueError:
            self._bad(path, BadReadError("no whole document", content))


READERS: tuple[type[Reader], ...] = (Reader, Chunks, Mapped, Held, Lines, Shell, Listed, Documents)
