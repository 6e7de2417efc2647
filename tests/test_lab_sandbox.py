"""The sandbox of the unit, tried from inside: what it should refuse is refused, what the agent needs is not."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab_helpers import Lab, lab, needs_lab
from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [needs_lab, pytest.mark.timeout(180)]

REFUSED = {
    "write /etc": "EROFS",
    "write /usr": "EROFS",
    "write /var/lib": "EROFS",
    "write /srv": "EROFS",
    "write control groups": "EROFS",
    "see a home": ("ENOENT", "EACCES"),
    "see /tmp": "ENOENT",
    "see devices": "ENOENT",
    "see processes": "ENOENT",
    "see the machine": "ENOENT",
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


def in_sandbox(it: Lab, command: str) -> None:
    """Run a command once, in all respects as the unit runs the agent."""
    text = (ROOT / "systemd" / "token-agent.service").read_text()
    for key, value in (("Type", "oneshot"), ("ExecStart", command), ("ExecReload", ""), ("Restart", "no")):
        text = re.sub(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
    text = re.sub(r"^WatchdogSec=.*\n", "", text, flags=re.MULTILINE)
    it.write("/etc/systemd/system/probe.service", text)
    it.sh("systemctl", "daemon-reload")
    it.sh("systemctl", "start", "probe")


@pytest.fixture(scope="module")
def it() -> Iterator[Lab]:
    """A laboratory with things to find."""
    with lab() as made:
        made.write("/home/somebody", "x")
        made.write("/tmp/somebody", "x")
        made.write("/etc/hosts", "127.0.0.1 localhost somewhere.example\n")
        made.write("/opt/probe.py", (ROOT / "tests" / "lab_probe.py").read_text())
        yield made


@pytest.fixture(scope="module")
def within(it: Lab) -> dict[str, Any]:
    """What came of the attempts within the sandbox."""
    in_sandbox(it, "/usr/bin/python3 -I /opt/probe.py /run/token-agent/probe.json")
    found: dict[str, Any] = json.loads(it.path("/run/token-agent/probe.json").read_text())
    return found


@pytest.fixture(scope="module")
def outside(it: Lab) -> dict[str, Any]:
    """What comes of them for root without a sandbox."""
    it.sh("python3", "-I", "/opt/probe.py", "/run/outside.json")
    found: dict[str, Any] = json.loads(it.path("/run/outside.json").read_text())
    return found


@pytest.mark.parametrize("attempt", REFUSED)
def test_refused(within: dict[str, Any], outside: dict[str, Any], attempt: str) -> None:
    """What the agent does not need is refused within the sandbox; it is possible outside, or it would prove nothing."""
    assert outside[attempt] == "ok"
    expected = REFUSED[attempt]
    assert within[attempt] in (expected if isinstance(expected, tuple) else (expected,))


@pytest.mark.parametrize("attempt", NEEDED)
def test_possible(within: dict[str, Any], attempt: str) -> None:
    """What the agent does need is possible within the sandbox."""
    assert within[attempt] == "ok"


def test_limits(it: Lab, within: dict[str, Any], outside: dict[str, Any]) -> None:
    """The process has its own user, no capability to gain, no core dumps, private files and namespaces."""
    assert within["user"] == int(it.sh("id", "-u", "token-agent").stdout)
    assert (within["capabilities"], within["no new privileges"], within["core size"]) == (0, "1", 0)
    assert within["mode of a new file"] == "0o600"
    assert all(within["namespaces"][name] != outside["namespaces"][name] for name in ("ipc", "mnt", "uts"))


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
    in_sandbox(it, "/usr/bin/python3 -I /opt/long.py")
    it.sh("journalctl", "--sync")
    (entry,) = it.journal("TOKEN_AGENT_EVENT=probe.long")
    assert [entry[f"TOKEN_AGENT_VALUE_{number}"] for number in range(10)] == [f"{n}" * 29_000 for n in range(10)]
    assert (entry["PRIORITY"], entry["_TRANSPORT"]) == ("4", "journal")
