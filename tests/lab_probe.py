"""Tries, from inside a sandbox, what the sandbox should refuse and what it must not; prints the outcomes as JSON.

Runs alone under Debian's own Python, as the service's user within all its restrictions, or as root without any.
An outcome is "ok", the name of an errno(3) or of a signal, or what was found.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
OWN = Path(os.environ.get("RUNTIME_DIRECTORY", "/run/control"))
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000
ADDR_NO_RANDOMIZE = 0x0040000
X32_GETPID = 0x40000000 | 39
"""A system call of another architecture that every x86-64 kernel is asked for in the same way."""
FUSE = os.makedev(10, 229)
LEFT_BEHIND = 0x70616765
"""The key of a segment of shared memory that root leaves; those of others differ by their numbers."""


def outcome(attempt: Callable[[], Any]) -> Any:
    """Return what comes of an attempt."""
    try:
        result = attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok" if result is None else result


def call(name: str, *arguments: Any) -> None:
    """Call a function of the C library.

    Raises:
        OSError: it failed.
    """
    if getattr(LIBC, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def write(path: str) -> None:
    """Make a file and remove it."""
    Path(path).write_text("x")
    Path(path).unlink()


def see(path: str) -> None:
    """Find a file or directory."""
    Path(path).stat()


def open_socket(family: int, kind: int = socket.SOCK_RAW) -> None:
    socket.socket(family, kind).close()


def in_child(action: Callable[[], None]) -> None:
    """Do something in a child process, for what cannot be undone.

    Raises:
        OSError: it failed.
    """
    child = os.fork()
    if child == 0:
        try:
            action()
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if number < 0:
        raise OSError(signal.Signals(-number).name)
    if number:
        raise OSError(number, os.strerror(number))


def suid() -> None:
    """Make a set-user-ID file of our own."""
    path = OWN / "suid"
    path.write_text("x")
    try:
        path.chmod(0o4700)
    finally:
        path.unlink()


def namespace(kind: str) -> str:
    """Return which namespace of a kind we are in."""
    return str(Path(f"/proc/self/ns/{kind}").readlink())


def made_mode() -> str:
    """Return the mode that a new file gets."""
    path = OWN / "mode"
    path.write_text("x")
    mode = oct(path.stat().st_mode & 0o777)
    path.unlink()
    return mode


def give_to_own_group() -> None:
    """Hand a file to a group that we belong to."""
    path = OWN / "group"
    path.write_text("x")
    os.chown(path, -1, (os.getgroups() or [os.getgid()])[-1])
    path.unlink()


def connect() -> None:
    socket.create_connection(("127.0.0.1", 4430), timeout=5).close()


def resolve() -> None:
    """Look a name up as the agent does."""
    socket.getaddrinfo("somewhere.example", 443)


def run_child() -> None:
    """Run a program, as hooks do."""
    subprocess.run(["/bin/true"], check=True)


def realtime() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def become_root() -> str:
    """Run a set-user-ID program of root's, and return whom it was run as."""
    return subprocess.run(["/opt/root-id", "-u"], text=True, capture_output=True, check=True).stdout.strip()


def make_control_group() -> None:
    path = Path(f"/sys/fs/cgroup/probe-{os.getpid()}")
    path.mkdir()
    path.rmdir()


def make_device() -> None:
    """Make a device that nobody but a file system in user space needs, where devices can be made."""
    path = OWN / "device"
    os.mknod(path, 0o600 | stat.S_IFCHR, FUSE)
    path.unlink()


def foreign_call() -> None:
    """Call the kernel as another architecture does."""
    if platform.machine() != "x86_64":
        raise OSError(errno.ENOSYS, "unknown here")
    in_child(lambda: call("syscall", X32_GETPID))


def status_of(field: str) -> str:
    """Return a field of our own process status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{field}:"))


ATTEMPTS: dict[str, Callable[[], Any]] = {
    "write /etc": lambda: write("/etc/probe"),
    "write /usr": lambda: write("/usr/probe"),
    "write /var/lib": lambda: write("/var/lib/probe"),
    "write /srv": lambda: write("/srv/probe"),
    "write /run": lambda: write("/run/probe"),
    "write control groups": make_control_group,
    "see a home": lambda: see("/home/somebody"),
    "see /tmp": lambda: see("/tmp/somebody"),
    "see devices": lambda: see("/dev/console"),
    "see processes": lambda: see("/proc/1"),
    "see the machine": lambda: see("/proc/meminfo"),
    "see modules": lambda: see("/usr/lib/modules/somebody"),
    "write kernel settings": lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("0") and None,
    "make a device": make_device,
    "foreign system call": foreign_call,
    "leave shared memory": lambda: call("shmget", LEFT_BEHIND + os.geteuid(), 4096, 0o1600),
    "become root": become_root,
    "host name": lambda: in_child(lambda: call("sethostname", b"lab", 3)),
    "user namespace": lambda: in_child(lambda: call("unshare", CLONE_NEWUSER)),
    "mount namespace": lambda: in_child(lambda: call("unshare", CLONE_NEWNS)),
    "real time": lambda: in_child(realtime),
    "set-user-ID": suid,
    "netlink": lambda: open_socket(socket.AF_NETLINK),
    "packet socket": lambda: open_socket(socket.AF_PACKET),
    "personality": lambda: in_child(lambda: call("personality", ADDR_NO_RANDOMIZE)),
    "write and execute": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC).close(),
    "priority": lambda: in_child(lambda: os.setpriority(os.PRIO_PROCESS, 0, 5)),
    "change root": lambda: in_child(lambda: os.chroot("/")),
    "trace": lambda: in_child(lambda: call("ptrace", 0, 0, 0, 0)),
    "core size": lambda: resource.getrlimit(resource.RLIMIT_CORE)[1],
    "capabilities": lambda: int(status_of("CapBnd"), 16),
    "no new privileges": lambda: status_of("NoNewPrivs"),
    "mode of a new file": made_mode,
    "user": os.geteuid,
    "ipc namespace": lambda: namespace("ipc"),
    "mnt namespace": lambda: namespace("mnt"),
    "uts namespace": lambda: namespace("uts"),
    "write own directory": lambda: write(f"{OWN}/probe"),
    "write state": lambda: write(f"{os.environ.get('STATE_DIRECTORY', '/run/control')}/probe"),
    "write private /tmp": lambda: write("/tmp/probe"),
    "connect": connect,
    "resolve": resolve,
    "give to own group": give_to_own_group,
    "memory file": lambda: os.close(os.memfd_create("probe")),
    "child process": run_child,
}

if __name__ == "__main__":
    OWN.mkdir(exist_ok=True)
    Path(sys.argv[1]).write_text(json.dumps({name: outcome(attempt) for name, attempt in ATTEMPTS.items()}))
