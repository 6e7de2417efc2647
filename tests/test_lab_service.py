"""The service under a real systemd: its unit, its messages, its journal, its files, from start to stop."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.lab_helpers import needs_lab
from tests.process_helpers import current_certificate
from tests.test_unit_files import NEWER

if TYPE_CHECKING:
    from tests.lab_helpers import Lab

pytestmark = [needs_lab, pytest.mark.timeout(180)]

STOP_WITHIN = 2.0
"""Seconds, by the contract."""


def pid(it: Lab) -> int:
    return int(it.prop("MainPID"))


# Start


def test_start(it: Lab) -> None:
    """`systemctl start` returns when the agent is at work; what it keeps and how it is can be seen."""
    it.start()
    assert (it.prop("ActiveState"), it.prop("SubState")) == ("active", "running")
    assert it.prop("StatusText") == "1 of 1 fresh, runway 59 min"
    assert it.token().count(".") == 2
    assert it.prop("User") == "token-agent"
    assert it.sh("token-agent", "status").returncode == 0
    assert (it.sh("stat", "-c", "%U:%G %a", "/etc/token-agent").stdout) == "root:token-agent 750\n"


def test_start_without_provider(it: Lab) -> None:
    """A provider that hangs does not hold up the start, and the line says that tokens are still to come."""
    it.provider("POST", "faults", {"kind": "hang", "count": None})
    it.sh("systemctl", "start", "token-agent", timeout=5)
    assert it.prop("StatusText") == "0 of 1 fresh, graph pending"


def test_configuration_error(it: Lab) -> None:
    """A configuration that cannot be used fails the start with 78, for good, and `systemctl status` says why."""
    it.drop_in("fast", "[Service]\nRestartSec=0\n")
    it.configure(it.profile(clientid="x"))
    mark = it.mark()
    assert it.sh("systemctl", "start", "token-agent", check=False).returncode != 0
    assert it.prop("ActiveState") == "failed"  # not `activating`, in which it would wait for the next attempt
    assert (it.prop("ExecMainStatus"), it.prop("NRestarts")) == ("78", "0")
    shown = it.sh("systemctl", "status", "token-agent", "--no-pager", check=False).stdout
    assert 'Status: "/etc/token-agent/config.toml:' in shown
    assert "token-agent: /etc/token-agent/config.toml:" in shown
    assert "clientid" in shown
    assert "22 (Invalid argument)" in shown
    errors = it.journal("-u", "token-agent", "-p", "err", mark)
    assert any("clientid" in entry["MESSAGE"] for entry in errors)
    it.configure()
    it.start()


# Readers


def test_reader_of_a_group(it: Lab) -> None:
    """A token file that belongs to an application's group is read by its members, with no privilege for the agent."""
    it.users("billing", "other")
    it.drop_in("groups", it.example("groups.conf"))
    it.configure(it.profile(token_file=[{"path": "graph.token", "group": "billing"}]))
    it.start()
    assert it.sh("stat", "-c", "%U:%G %a", "/run/token-agent/graph.token").stdout == "token-agent:billing 640\n"
    assert it.as_user("billing", "cat", "/run/token-agent/graph.token").returncode == 0
    assert it.as_user("other", "cat", "/run/token-agent/graph.token").returncode


def test_reader_by_acl(it: Lab) -> None:
    """A reader named in the profile reads the file by an ACL, which needs no privilege and no membership."""
    it.users("billing", "other")
    it.configure(it.profile(token_file=[{"path": "graph.token", "readers": ["user:other"]}]))
    it.start()
    assert it.as_user("other", "cat", "/run/token-agent/graph.token").returncode == 0
    assert it.as_user("billing", "cat", "/run/token-agent/graph.token").returncode


def test_reader_as_owner(it: Lab) -> None:
    """With CAP_CHOWN from the drop-in, and not without, a token file may belong to another user."""
    it.users("billing")
    it.configure(it.profile(token_file=[{"path": "graph.token", "owner": "billing", "group": "billing"}]))
    it.sh("systemctl", "start", "token-agent")
    it.wait_for("StatusText", "graph")
    assert not it.path("/run/token-agent/graph.token").exists()
    it.drop_in("owner", it.example("owner.conf"))
    it.sh("systemctl", "restart", "token-agent")
    it.wait_for("StatusText", "runway")
    assert it.sh("stat", "-c", "%U:%G", "/run/token-agent/graph.token").stdout == "billing:billing\n"
    assert it.as_user("billing", "cat", "/run/token-agent/graph.token").returncode == 0


def test_write_path(it: Lab) -> None:
    """A token file elsewhere needs its directory in the drop-in, and is written there."""
    it.sh("install", "-d", "-o", "token-agent", "/srv/billing")
    it.configure(it.profile(token_file="/srv/billing/token"))
    it.sh("systemctl", "start", "token-agent")
    it.wait_for("StatusText", "graph pending: /srv/billing")
    it.drop_in("paths", it.example("write-paths.conf"))
    it.sh("systemctl", "restart", "token-agent")
    it.wait_for("StatusText", "runway")
    assert it.path("/srv/billing/token").read_text().count(".") == 2


# Reload


def test_reload(it: Lab) -> None:
    """`systemctl reload` returns when the new configuration is in force; tokens at hand are not acquired anew."""
    it.start()
    before = pid(it)
    it.configure(it.profile(), it.profile("billing"), watch=False)
    it.sh("systemctl", "reload", "token-agent")
    assert "of 2 fresh" in it.prop("StatusText")
    it.wait_for("StatusText", "2 of 2 fresh")
    assert it.prop("ReloadResult") == "success"
    assert pid(it) == before
    assert it.token_requests() == 2


def test_reload_refused(it: Lab) -> None:
    """A refused reload fails visibly (exit code, result, line, journal), and the service goes on."""
    it.configure(watch=False)
    it.start()
    before, mark = pid(it), it.mark()
    it.configure(it.profile(clientid="x"), watch=False)
    for _ in range(2):
        assert it.sh("systemctl", "reload", "token-agent", check=False, timeout=20).returncode == 1
        assert it.prop("ReloadResult") == "exit-code"
        assert (it.prop("ActiveState"), it.prop("SubState"), pid(it)) == ("active", "running", before)
        assert "configuration refused: /etc/token-agent/config.toml" in it.prop("StatusText")
    rejected, *_ = it.journal("TOKEN_AGENT_EVENT=config.rejected", mark)
    assert "clientid" in rejected["TOKEN_AGENT_MESSAGE"]
    it.configure(watch=False)
    it.sh("systemctl", "reload", "token-agent")
    assert it.prop("StatusText") == "1 of 1 fresh, runway 59 min"


def test_change_on_disk(it: Lab) -> None:
    """A changed configuration is taken up by itself within the sandbox, and the unit is active again after it."""
    it.start()
    it.configure(it.profile(), it.profile("billing"))
    it.wait_for("StatusText", "2 of 2 fresh")
    it.wait_for("SubState", "running")


def test_certificate_replaced(it: Lab) -> None:
    """A replaced certificate is seen and used without a restart, and the token at hand stays until it is due."""
    it.start()
    before, token, mark = pid(it), it.token(), it.mark()
    pair = current_certificate(number=1)
    it.register(pair)
    it.certificate(pair)
    it.wait_until(lambda: it.journal("TOKEN_AGENT_EVENT=certificate.promoted", mark))
    assert it.sh("token-agent", "refresh", "graph").returncode == 0
    assert it.token() != token
    assert pid(it) == before
    assert it.prop("NRestarts") == "0"


def test_credential(it: Lab) -> None:
    """A key that only root may read comes as a credential; when it is replaced, the path unit restarts the agent."""
    it.write("/etc/token-agent/keys/graph.pem", it.pair.pem, mode=0o600)
    it.path("/etc/token-agent/keys").chmod(0o700)
    it.drop_in("credentials", it.example("credentials.conf"))
    it.configure(it.profile(certificate="${CREDENTIALS_DIRECTORY}/graph.pem"))
    it.start()
    it.add_examples("token-agent-credentials")
    before, token, mark = pid(it), it.token(), it.mark()
    pair = current_certificate(number=1)
    it.register(pair)
    it.write("/etc/token-agent/keys/graph.pem", pair.pem, mode=0o600)
    it.wait_until(lambda: pid(it) not in (before, 0) and it.prop("ActiveState") == "active")
    loaded = it.journal("TOKEN_AGENT_EVENT=certificate.loaded", mark)
    assert loaded[-1]["TOKEN_AGENT_PATH"].startswith("/run/credentials/token-agent.service/")
    it.wait_until(lambda: it.token() != token)  # the new one is tried at once
    assert it.token_requests() == 2


def test_credential_replaced_twice(it: Lab) -> None:
    """A key that is replaced while the agent is being restarted for the one before is followed by another restart."""
    it.write("/etc/token-agent/keys/graph.pem", it.pair.pem, mode=0o600)
    it.drop_in("credentials", it.example("credentials.conf"))
    it.drop_in("slow", "[Service]\nExecStartPost=/bin/sh -c 'until [ -e /run/go ]; do sleep 0.1; done'\n")
    it.write("/run/go", "")
    it.configure(it.profile(certificate="${CREDENTIALS_DIRECTORY}/graph.pem"))
    it.start()
    it.add_examples("token-agent-credentials")
    it.path("/run/go").unlink()
    first, second = current_certificate(number=1), current_certificate(number=2)
    mark = it.mark()
    for pair in (first, second):
        it.register(pair)
        it.write("/etc/token-agent/keys/graph.pem", pair.pem, mode=0o600)
        if pair is first:
            it.wait_until(lambda: it.journal("TOKEN_AGENT_EVENT=certificate.loaded", mark))
    it.write("/run/go", "")
    it.wait_until(lambda: it.prop("ActiveState", "token-agent-credentials.service") == "inactive")
    used = [each["TOKEN_AGENT_THUMBPRINT"] for each in it.journal("TOKEN_AGENT_EVENT=certificate.loaded", mark)]
    assert used == [first.thumbprint, second.thumbprint]
    assert it.prop("ActiveState") == "active"


def test_credential_reread(it: Lab) -> None:
    """Where systemd can, a reload reads a replaced credential without a restart; elsewhere the old one serves on."""
    it.write("/etc/token-agent/keys/graph.pem", it.pair.pem, mode=0o600)
    for name in ("credentials", "credentials-reload"):
        it.drop_in(name, it.example(f"{name}.conf"))
    it.configure(it.profile(certificate="${CREDENTIALS_DIRECTORY}/graph.pem"))
    it.start()
    before, mark, pair = pid(it), it.mark(), current_certificate(number=1)
    it.register(pair)
    it.write("/etc/token-agent/keys/graph.pem", pair.pem, mode=0o600)
    it.sh("systemctl", "reload", "token-agent")
    if it.version() >= NEWER["credentials-reload.conf"]:
        it.wait_until(lambda: it.journal("TOKEN_AGENT_EVENT=certificate.promoted", mark))
    assert it.sh("token-agent", "refresh", "graph").returncode == 0
    assert pid(it) == before


# The line of `systemctl status`


def test_status_line(it: Lab) -> None:
    """`systemctl status` shows how many tokens are fresh, the worst trouble by name and code, and the runway."""

    def line() -> str:
        shown = it.sh("systemctl", "status", "token-agent", "--no-pager", check=False).stdout
        return next((text.strip() for text in shown.splitlines() if text.strip().startswith("Status:")), "")

    other = "22222222-2222-4222-8222-222222222222"
    it.configure(it.profile(), it.profile("billing", client_id=other))
    it.sh("systemctl", "start", "token-agent")
    it.wait_until(lambda: line() == 'Status: "1 of 2 fresh, billing pending: AADSTS700016"')
    it.configure(it.profile())
    it.wait_until(lambda: line() == 'Status: "1 of 1 fresh, runway 59 min"')
    it.write("/etc/token-agent/config.toml", "[agent]\nx = 1\n")
    it.wait_until(lambda: line().startswith('Status: "1 of 1 fresh, configuration refused: /etc/token-agent/'))


# The end


def test_killed(it: Lab) -> None:
    """After kill -9 the token file is there all the time, the agent comes back, and nothing is acquired for it."""
    it.drop_in("slow", "[Service]\nRestartSec=1s\n")
    it.start()
    token, before = it.token(), pid(it)
    it.sh("systemctl", "kill", "-s", "KILL", "token-agent")
    it.wait_for("SubState", "auto-restart")
    assert it.token() == token
    it.wait_until(lambda: it.prop("ActiveState") == "active" and pid(it) != before)
    it.wait_for("StatusText", "1 of 1 fresh")
    assert it.prop("NRestarts") == "1"
    assert it.token() == token
    assert it.token_requests() == 1


def test_watchdog_stopped_process(it: Lab) -> None:
    """An agent that is stopped in its tracks is replaced by the watchdog, and its tokens are not acquired anew."""
    it.drop_in("watchdog", "[Service]\nWatchdogSec=1s\nRestartSec=0\nTimeoutStopSec=1s\n")
    it.start()
    token, before, mark = it.token(), pid(it), it.mark()
    it.sh("kill", f"-{signal.SIGSTOP}", before)
    it.wait_until(lambda: pid(it) not in (before, 0) and it.prop("ActiveState") == "active")
    assert any("Watchdog timeout" in entry["MESSAGE"] for entry in it.journal("-u", "token-agent", mark))
    assert (it.token(), it.token_requests()) == (token, 1)


FIRST_ONLY = """
import os, sys
sys.path[:0] = ["/opt/token-agent/src", "/opt/token-agent/site"]
if not os.path.exists("/run/token-agent/once"):
    open("/run/token-agent/once", "w").close()
"""
WEDGED = {
    "loop": """
    import asyncio, threading
    import agent.engine.renewal as renewal
    refresh_at = renewal.refresh_at
    def hang_soon(*arguments):
        asyncio.get_running_loop().call_later(1, threading.Event().wait)  # once it is ready
        return refresh_at(*arguments)
    renewal.refresh_at = hang_soon
""",
    "sleeper": """
    import datetime
    import anyio
    import agent.clock, agent.engine.herald as herald
    agent.clock.SystemClock.sleep_until = lambda *arguments: anyio.sleep_forever()
    herald.LATE = -datetime.timedelta(hours=2)  # long after it should have been awake, without waiting for that
""",
}
"""What keeps the first agent from renewing, though its process is alive: all of it hangs, or it is never woken."""


@pytest.mark.parametrize("what", WEDGED)
def test_watchdog_wedged_scheduler(it: Lab, what: str) -> None:
    """An agent whose scheduler hangs, though its process is alive, is replaced by the watchdog."""
    it.write("/opt/wedge/sitecustomize.py", FIRST_ONLY + WEDGED[what])
    it.drop_in("watchdog", "[Service]\nWatchdogSec=1s\nRestartSec=0\nEnvironment=PYTHONPATH=/opt/wedge\n")
    mark = it.mark()
    it.sh("systemctl", "start", "token-agent")
    it.wait_until(lambda: it.prop("NRestarts") == "1")
    it.wait_for("StatusText", "1 of 1 fresh")
    assert any("Watchdog timeout" in entry["MESSAGE"] for entry in it.journal("-u", "token-agent", mark))


def test_healthy_under_the_watchdog(it: Lab) -> None:
    """An agent that works is left alone, also while its provider hangs."""
    it.drop_in("watchdog", "[Service]\nWatchdogSec=1s\n")
    it.provider("POST", "faults", {"kind": "hang", "count": None})
    it.sh("systemctl", "start", "token-agent")
    before = pid(it)
    it.sh("sleep", "3")
    assert (pid(it), it.prop("NRestarts")) == (before, "0")


@pytest.mark.parametrize("hanging", [False, True])
def test_stop(it: Lab, *, hanging: bool) -> None:
    """The agent stops in time and cleanly, also while the provider hangs; the token files stay."""
    it.start()
    token = it.token()
    if hanging:
        it.provider("POST", "faults", {"kind": "hang", "count": None})
        before = it.token_requests()
        it.configure(it.profile(), it.profile("billing"))
        it.wait_until(lambda: it.token_requests() > before)
    began = time.monotonic()
    it.sh("systemctl", "stop", "token-agent")
    assert time.monotonic() - began < STOP_WITHIN
    assert (it.prop("Result"), it.prop("ExecMainStatus"), it.prop("ActiveState")) == ("success", "0", "inactive")
    assert it.token() == token


# The journal


def test_journal(it: Lab) -> None:
    """`journalctl TOKEN_AGENT_PROFILE=graph -p warning` finds what went wrong for a profile, and no more."""
    mark = it.mark()
    it.provider(
        "POST", "faults", {"kind": "error", "code": 700027, "count": None, "client_id": it.profile()["client_id"]}
    )
    it.configure(it.profile(), it.profile("billing"))
    it.sh("systemctl", "start", "token-agent")
    it.wait_for("StatusText", "AADSTS700027")
    (entry,) = it.journal("TOKEN_AGENT_PROFILE=graph", "-p", "warning", mark)
    assert entry["TOKEN_AGENT_EVENT"] == "acquisition.failed"
    assert entry["TOKEN_AGENT_CODE"] == "AADSTS700027"
    assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"], entry["_SYSTEMD_UNIT"]) == (
        "4",
        "token-agent",
        "token-agent.service",
    )
    assert entry["_TRANSPORT"] == "journal"
    assert entry["MESSAGE"].startswith("acquisition.failed profile=graph")
    assert len(it.journal("TOKEN_AGENT_CODE=AADSTS700027", "-t", "token-agent", mark)) == 2


def test_journal_lines(it: Lab) -> None:
    """An event of several lines is one entry, whole and readable."""
    it.configure(watch=False)
    it.start()
    mark = it.mark()
    it.configure(it.profile(clientid="x"), it.profile("b", scope="y"), watch=False)
    it.sh("systemctl", "reload", "token-agent", check=False)
    (entry,) = it.journal("TOKEN_AGENT_EVENT=config.rejected", mark)
    first, *below = entry["MESSAGE"].split("\n")
    assert first == 'config.rejected reason="asked for"'
    assert [line.strip() for line in below] == entry["TOKEN_AGENT_MESSAGE"].split("\n")
    assert len(below) >= 2
