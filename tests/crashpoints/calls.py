"""System calls that change files: their numbers on this machine, and what they are about."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_X86_64 = {
    "open": 2, "openat": 257, "openat2": 437, "creat": 85, "write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296,
    "sendfile": 40, "copy_file_range": 326, "splice": 275, "truncate": 76, "ftruncate": 77, "fallocate": 285,
    "fsync": 74, "fdatasync": 75, "rename": 82, "renameat": 264, "renameat2": 316, "link": 86, "linkat": 265,
    "symlink": 88, "symlinkat": 266, "unlink": 87, "unlinkat": 263, "mkdir": 83, "mkdirat": 258, "rmdir": 84,
    "mknod": 133, "mknodat": 259, "bind": 49, "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452,
    "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190,
    "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199, "utimensat": 280,
}  # fmt: skip
_AARCH64 = {
    "openat": 56, "openat2": 437, "write": 64, "pwrite64": 68, "writev": 66, "pwritev": 70, "sendfile": 71,
    "copy_file_range": 285, "splice": 76, "truncate": 45, "ftruncate": 46, "fallocate": 47, "fsync": 82,
    "fdatasync": 83, "renameat": 38, "renameat2": 276, "linkat": 37, "symlinkat": 36, "unlinkat": 35, "mkdirat": 34,
    "mknodat": 33, "bind": 200, "fchmod": 52, "fchmodat": 53, "fchmodat2": 452, "fchown": 55, "fchownat": 54,
    "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16,
    "utimensat": 88,
}  # fmt: skip
_TABLES = {"x86_64": _X86_64, "aarch64": _AARCH64}
NUMBERS = _TABLES.get(platform.machine(), {})
NAMES = {number: name for name, number in NUMBERS.items()}
SUPPORTED = bool(NUMBERS)

_FLAGS_AT = {"open": 1, "openat": 2}
_MAKING = os.O_CREAT | os.O_TRUNC
_BY_DESCRIPTOR = {"write", "pwrite64", "writev", "pwritev", "ftruncate", "fallocate", "fsync", "fdatasync", "fchmod",
                  "fchown", "fsetxattr", "fremovexattr"}  # fmt: skip


def changes_files(process: int, number: int, arguments: tuple[int, ...]) -> str:
    """Return what a call does that may change a file or its durability, such as ``write run/token``; else nothing.

    Args:
        process: that makes the call.
        number: of the call.
        arguments: as it gives them.
    """
    name = NAMES.get(number, "")
    if name in _FLAGS_AT and not arguments[_FLAGS_AT[name]] & _MAKING:
        return ""
    if name not in _BY_DESCRIPTOR:
        return name
    file = opened(process, arguments[0])
    return f"{name} {file}" if file.startswith("/") and not file.startswith(("/dev/", "/proc/")) else ""


def opened(process: int, descriptor: int) -> str:
    """Return what a descriptor of a process is."""
    try:
        return str(Path(f"/proc/{process}/fd/{descriptor}").readlink())
    except OSError:
        return ""
