"""The sandbox of the unit, tried from inside: what it should refuse is refused, what the agent needs is not.

Each of its lines is also tried alone, or left out, so that none of them stands there for nothing.
"""

from __future__ import annotations

import json
import platform
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab_helpers import needs_lab
from tests.lab_probe import LEFT_BEHIND
from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.lab_helpers import Lab

pytestmark = [needs_lab, pytest.mark.timeout(180)]

Found = dict[str, Any]
UNIT = (ROOT / "systemd" / "token-agent.service").read_text()
REFUSED = {
    "write /etc": "EROFS",
    "write /usr": "EROFS",
    "write /var/lib": "EROFS",
    "write /srv": "EROFS",
    "write /run": "EROFS",
    "write control groups": "EROFS",
    "write kernel settings": ("EROFS", "ENOENT"),
    "see a home": ("ENOENT", "EACCES"),
    "see /tmp": "ENOENT",
    "see devices": "ENOENT",
    "see processes": "ENOENT",
    "see the machine": "ENOENT",
    "see modules": ("ENOENT", "EACCES"),
    "make a device": "EPERM",
    "host name": "EPERM",
    "user namespace": "EPERM",
    "mount namespace": "EPERM",
    "real time": "EPERM",
    "set-user-ID": "EPERM",
    "netlink": "EAFNOSUPPORT",
    "packet socket": "EAFNOSUPPORT",
    "personality": "EPERM",
    "write and execute": ("EPERM", "EACCES"),  # by a system call filter, or by the kernel itself where it can
    "priority": "EPERM",
    "change root": "EPERM",
    "trace": "EPERM",
}
"""What succeeds for root outside the sandbox, and what comes of it within."""
NEEDED = (
    "write own directory", "write state", "write private /tmp", "connect", "resolve", "give to own group",
    "memory file", "child process",
)  # fmt: skip
ALONE = {
    "ProtectSystem=strict": ("write /etc", "write /usr", "write /var/lib", "write /srv"),
    "ReadOnlyPaths=/run": ("write /run",),
    "ProtectHome=yes": ("see a home",),
    "PrivateTmp=yes": ("see /tmp",),
    "PrivateDevices=yes": ("see devices",),
    "ProtectHostname=yes": ("host name",),
    "ProtectKernelTunables=yes": ("write kernel settings",),
    "ProtectKernelModules=yes": ("see modules",),
    "ProtectControlGroups=yes": ("write control groups",),
    "ProtectProc=invisible": ("see processes",),
    "ProcSubset=pid": ("see the machine",),
    "DevicePolicy=closed": ("make a device",),
    "RestrictNamespaces=yes": ("user namespace", "mount namespace"),
    "RestrictRealtime=yes": ("real time",),
    "RestrictSUIDSGID=yes": ("set-user-ID",),
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX": ("netlink", "packet socket"),
    "LockPersonality=yes": ("personality",),
    "MemoryDenyWriteExecute=yes": ("write and execute",),
    "CapabilityBoundingSet=": ("change root", "host name", "packet socket"),
}
"""Lines that refuse something to root by themselves, and what."""
CHANGED = {
    "PrivateIPC=yes": ("ipc namespace", None),
    "PrivateMounts=yes": ("mnt namespace", None),
    "NoNewPrivileges=yes": ("no new privileges", "1"),
    "UMask=0077": ("mode of a new file", "0o600"),
    "LimitCORE=0": ("core size", 0),
    "SystemCallArchitectures=native": ("foreign system call", "SIGSYS"),
}
"""Lines that make something else come of an attempt than without them; None for what differs each time."""
LEFT_OUT = {
    "SystemCallFilter=@system-service": {"trace": "ok"},
    "SystemCallFilter=~@privileged @resources": {"priority": "ok"},
    "SystemCallFilter=@chown": {"give to own group": "EPERM"},
    "SystemCallErrorNumber=EPERM": {"trace": "SIGSYS", "priority": "SIGSYS"},
}
"""Lines that count among others: what comes of it if one of them is left out of the unit."""
USERS_ONLY = ("ProtectProc=invisible", "NoNewPrivileges=yes")
"""Lines that mean nothing to root."""
NOT_HERE = {
    "ProtectClock=yes": "the container has no right to set the clock in any case",
    "ProtectKernelLogs=yes": "the container hides the kernel's messages in any case",
    "KeyringMode=private": "the container refuses keyrings altogether",
    "AmbientCapabilities=": "what is empty by default, stated",
    "RemoveIPC=yes": "tried by a test of its own",
}
"""Lines that cannot be tried by this probe, and why."""
LOOSE = """[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -I /opt/probe.py /run/{name}/found.json
RuntimeDirectory={name}
RuntimeDirectoryPreserve=yes
User={user}
{line}
"""


def in_sandbox(command: str, *, without: str = "") -> str:
    """Return a unit that runs a command once, in all respects as the unit runs the agent, but for one line."""
    text = UNIT.replace(f"\n{without}\n", "\n") if without else UNIT
    assert not without or text != UNIT
    for key, value in (("Type", "oneshot"), ("ExecStart", command), ("ExecReload", ""), ("Restart", "no")):
        text = re.sub(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
    return re.sub(r"^WatchdogSec=.*\n", "", text, flags=re.MULTILINE)


def probed(it: Lab, units: Mapping[str, str]) -> dict[str, Found]:
    """Run units that each leave in their own directory what was found, and return that by their names."""
    it.add({f"{name}.service": text for name, text in units.items()})
    it.sh("systemctl", "start", *(f"{name}.service" for name in units))
    return {name: json.loads(it.path(f"/run/{name}/found.json").read_text()) for name in units}


def variants(it: Lab, units: Mapping[str, str]) -> dict[str, Found]:
    """Run units that are known by the line that makes them up, and return what they found by that line."""
    names = {line: f"variant-{number}" for number, line in enumerate(units)}
    found = probed(it, {names[line]: text.replace("{name}", names[line]) for line, text in units.items()})
    return {line: found[name] for line, name in names.items()}


def own_directories(text: str) -> str:
    """Return a unit that has directories of its own, so that several can run at once."""
    return text.replace("Directory=token-agent", "Directory={name}")


PROBE = "/usr/bin/python3 -I /opt/probe.py /run/{name}/found.json"


@pytest.fixture(scope="module")
def scene(laboratory: Lab) -> Lab:
    """The laboratory with things to find."""
    laboratory.reset()
    for inside in ("/home/somebody", "/tmp/somebody", "/usr/lib/modules/somebody"):
        laboratory.write(inside, "x")
    laboratory.write("/etc/hosts", "127.0.0.1 localhost somewhere.example\n")
    laboratory.write("/opt/probe.py", (ROOT / "tests" / "lab_probe.py").read_text())
    laboratory.sh("install", "-m", "4755", "/usr/bin/id", "/opt/root-id")
    return laboratory


@pytest.fixture(scope="module")
def within(scene: Lab) -> Found:
    """What came of the attempts within the sandbox."""
    unit = own_directories(in_sandbox(PROBE))
    return variants(scene, {"the unit": unit})["the unit"]


@pytest.fixture(scope="module")
def outside(scene: Lab) -> Found:
    """What comes of them for root without a sandbox."""
    scene.sh("python3", "-I", "/opt/probe.py", "/run/outside.json")
    found: Found = json.loads(scene.path("/run/outside.json").read_text())
    return found


@pytest.fixture(scope="module")
def alone(scene: Lab) -> dict[str, Found]:
    """What came of them under nothing but one line each; "" is nothing at all for root, "user" for a user."""
    lines = {line: line for line in ("", *ALONE, *CHANGED)} | {"user": ""}
    units = {}
    for name, line in lines.items():
        user = "token-agent" if name in ("user", *USERS_ONLY) else "root"
        units[name] = LOOSE.replace("{user}", user).replace("{line}", line)
    return variants(scene, units)


@pytest.fixture(scope="module")
def left_out(scene: Lab) -> dict[str, Found]:
    """What came of them in the sandbox without one line each."""
    return variants(scene, {line: own_directories(in_sandbox(PROBE, without=line)) for line in LEFT_OUT})


@pytest.mark.parametrize("attempt", REFUSED)
def test_refused(within: Found, outside: Found, attempt: str) -> None:
    """What the agent does not need is refused within the sandbox; it is possible outside, or it would prove nothing."""
    assert outside[attempt] == "ok"
    expected = REFUSED[attempt]
    assert within[attempt] in (expected if isinstance(expected, tuple) else (expected,))


@pytest.mark.parametrize("attempt", NEEDED)
def test_possible(within: Found, attempt: str) -> None:
    """What the agent does need is possible within the sandbox."""
    assert within[attempt] == "ok"


@pytest.mark.parametrize("line", ALONE)
def test_line_alone(alone: dict[str, Found], line: str) -> None:
    """A line of the sandbox refuses something by itself, which is possible without it."""
    without = alone["user" if line in USERS_ONLY else ""]
    for attempt in ALONE[line]:
        assert without[attempt] == "ok"
        assert alone[line][attempt] not in ("ok", "ENOSYS")


@pytest.mark.parametrize("line", CHANGED)
def test_line_changes(alone: dict[str, Found], line: str) -> None:
    """A line of the sandbox gives the process another limit, namespace or fate than it has without it."""
    attempt, expected = CHANGED[line]
    if attempt == "foreign system call" and platform.machine() != "x86_64":
        pytest.skip("this machine knows no other architecture to call by")
    without = alone["user" if line in USERS_ONLY else ""]
    assert alone[line][attempt] != without[attempt]
    assert expected in (None, alone[line][attempt])


@pytest.mark.parametrize("line", LEFT_OUT)
def test_line_left_out(left_out: dict[str, Found], within: Found, line: str) -> None:
    """A line that counts among others is missed: without it something else comes of an attempt."""
    for attempt, outcome in LEFT_OUT[line].items():
        assert within[attempt] != outcome
        assert left_out[line][attempt] == outcome


def test_every_line_is_tried() -> None:
    """Each line of the unit's sandbox is tried by one of these tests, or it is said why it cannot be."""
    sandbox = UNIT.partition("needs nothing else.\n")[2].partition("\n[Install]")[0]
    lines = {line for line in sandbox.splitlines() if line and not line.startswith("#")}
    assert {"UMask=0077", "LimitCORE=0"} <= set(UNIT.splitlines())
    assert lines | {"UMask=0077", "LimitCORE=0"} == {*ALONE, *CHANGED, *LEFT_OUT, *NOT_HERE}


def test_privileges(alone: dict[str, Found], within: Found) -> None:
    """A set-user-ID program of root's gives the agent's user root's rights, but not under the unit."""
    assert alone["user"]["become root"] == "0"
    assert alone["NoNewPrivileges=yes"]["become root"] == within["become root"] == str(within["user"]) != "0"


def test_shared_memory(scene: Lab) -> None:
    """What shared memory the agent's user has left is removed with the service, even if it were the machine's."""
    key = str(LEFT_BEHIND + int(scene.sh("id", "-u", "token-agent").stdout))
    for line, left in (("RemoveIPC=no", True), ("RemoveIPC=yes", False)):
        unit = LOOSE.replace("{user}", "token-agent").replace("{line}", line)
        assert variants(scene, {line: unit})[line]["leave shared memory"] == "ok"
        assert (key in scene.sh("cat", "/proc/sysvipc/shm").stdout) is left


def test_limits(scene: Lab, within: Found, outside: Found) -> None:
    """The process has its own user, no capability to gain, no core dumps, private files and namespaces."""
    assert within["user"] == int(scene.sh("id", "-u", "token-agent").stdout)
    assert (within["capabilities"], within["no new privileges"], within["core size"]) == (0, "1", 0)
    assert within["mode of a new file"] == "0o600"
    assert all(within[f"{name} namespace"] != outside[f"{name} namespace"] for name in ("ipc", "mnt", "uts"))


LONG = """
import os, sys
sys.path[:0] = ["/opt/token-agent/src", "/opt/token-agent/site"]
from agent import log
log.configure("info", "auto", os.environ)
log.get_logger().warning("probe.long", profile="graph", **{f"value_{n}": f"{n}" * 29_000 for n in range(10)})
"""


def test_long_event(it: Lab) -> None:
    """An event that is too long for a datagram reaches the real journal whole, from within the sandbox."""
    it.write("/opt/long.py", LONG)
    mark = it.mark()
    it.add({"long.service": in_sandbox("/usr/bin/python3 -I /opt/long.py")}, "long.service")
    it.sh("journalctl", "--sync")
    (entry,) = it.journal("TOKEN_AGENT_EVENT=probe.long", mark)
    assert [entry[f"TOKEN_AGENT_VALUE_{number}"] for number in range(10)] == [f"{n}" * 29_000 for n in range(10)]
    assert (entry["PRIORITY"], entry["_TRANSPORT"]) == ("4", "journal")
