"""What the agent keeps in memory stays there: no core dump, and no look into it by others of the same user.

A process that is not dumpable (prctl(2): PR_SET_DUMPABLE) leaves no core behind, whatever its limits are, and its
memory, its environment and its open files are for root alone (proc(5), ptrace(2)). The programs it starts are not
concerned: execve(2) begins anew.
"""

from __future__ import annotations

import ctypes

_PR_SET_DUMPABLE = 4


def keep_private() -> None:
    """Let nobody but root look into this process, from now on; best effort."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
