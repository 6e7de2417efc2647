"""Small real file systems that can be full or read-only: a tmpfs each, seen by this process alone.

Where there is no right to mount, the directories lie on the ordinary disk, and its faults are left out.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 1, 32, 4096, 16384, 1 << 18
SIZE = 512 << 10


def isolate() -> bool:
    """Give this process mounts of its own; return whether it may mount."""
    if os.geteuid() != 0 or _libc.unshare(_CLONE_NEWNS) != 0:
        return False
    return bool(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0)


def own_directory(*, mounted: bool) -> Path:
    """Return an empty directory; where mounts are possible, always the same, for its name decides the order of sets."""
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
    if not mounted:
        return Path(tempfile.mkdtemp(prefix="token-agent-simulation-", dir=base))
    directory = base / "token-agent-simulation"
    directory.mkdir(mode=0o700, exist_ok=True)
    _mount(b"tmpfs", directory, 0, "size=64m,mode=700")
    return directory


def _mount(source: bytes, path: Path, flags: int, options: str = "") -> None:
    if _libc.mount(source, os.fsencode(path), b"tmpfs", flags, options.encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))


class Disk:
    """One file system; ``faulty`` says that nothing can be written now."""

    def __init__(self, path: Path, *, mounted: bool) -> None:
        path.mkdir(mode=0o755)
        self.path, self.mounted = path, mounted
        self.fault = ""
        if mounted:
            _mount(b"tmpfs", path, 0, f"size={SIZE},mode=755")

    def fill(self) -> None:
        """Use up all space."""
        self.mend()
        self.fault = "full"
        with open(self.path / "filler", "wb", buffering=0) as filler:  # noqa: PTH123
            try:
                for size in (65536, 4096, 1):
                    self._fill(filler.fileno(), size)
            finally:
                os.fsync(filler.fileno())

    @staticmethod
    def _fill(descriptor: int, size: int) -> None:
        try:
            while True:
                os.write(descriptor, bytes(size))
        except OSError:
            return

    def lock(self) -> None:
        """Make it read-only: by a second mount on top, for the agent holds a file open for writing."""
        self.mend()
        self.fault = "read-only"
        _mount(os.fsencode(self.path), self.path, _MS_BIND)
        _mount(b"none", self.path, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)

    def mend(self) -> None:
        """End the fault."""
        if self.fault == "read-only":
            _libc.umount2(os.fsencode(self.path), 2)  # lazily: somebody may look at it
        (self.path / "filler").unlink(missing_ok=True)
        self.fault = ""
