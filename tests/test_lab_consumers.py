"""Units that read tokens, under a real systemd: they wait for one, run with one, or take it as a variable."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab_helpers import needs_lab

if TYPE_CHECKING:
    from tests.lab_helpers import Lab

pytestmark = [needs_lab, pytest.mark.timeout(180)]

WAITING = """
[Unit]
After=token-agent.service
Wants=token-agent.service
[Service]
User=billing
ProtectSystem=strict
PrivateTmp=yes
NoNewPrivileges=yes
# As services have it, and as the agent has it too.
RuntimeDirectory=billing
ExecStartPre=/usr/local/bin/token-agent wait graph --timeout {timeout}
ExecStart=/bin/sh -c 'cat /run/token-agent/graph.token >/run/billing/read && exec sleep infinity'
"""
RUNNING = """
[Unit]
After=token-agent.service
[Service]
User=billing
RuntimeDirectory=billing
KillMode=mixed
SuccessExitStatus=143
ExecStart=/usr/local/bin/token-agent exec graph --restart-on-refresh -- \\
    /bin/sh -c 'echo started >>/run/billing/starts; cat $$TOKEN_FILE >/run/billing/read; exec sleep infinity'
"""
ENVIRONMENT = """
[Service]
Type=oneshot
User=billing
RuntimeDirectory=billing
RuntimeDirectoryPreserve=yes
EnvironmentFile=/run/token-agent/graph.env
ExecStart=/bin/sh -c 'printf %%s "$$ACCESS_TOKEN" >/run/billing/read'
"""


def for_billing(it: Lab, **keys: Any) -> dict[str, Any]:
    """Return a profile whose token the user `billing` may read, and make that user."""
    it.users("billing")
    return it.profile(token_file=[{"path": "graph.token", "readers": ["user:billing"]}], **keys)


def read(it: Lab) -> str:
    """Return what the consumer read, nothing as long as it has not."""
    path = it.path("/run/billing/read")
    return path.read_text() if path.exists() else ""


def said(it: Lab, mark: str) -> str:
    """Return what the consumer has said."""
    return "\n".join(entry["MESSAGE"] for entry in it.journal("_SYSTEMD_UNIT=billing.service", mark))


def test_wait_before_the_start(it: Lab) -> None:
    """A service of another user starts no sooner than its token is there, though agent and provider are late."""
    it.configure(for_billing(it))
    it.provider("POST", "faults", {"kind": "error", "status": 503, "count": None})
    it.add({"billing.service": WAITING.replace("{timeout}", "60s")})
    mark = it.mark()
    it.sh("systemctl", "start", "--no-block", "billing")
    it.wait_until(lambda: "waiting for graph" in said(it, mark))
    assert it.prop("SubState", "billing") == "start-pre"
    assert it.prop("ActiveState") == "active"  # `Wants=` has started the agent, which does not wait for the provider
    it.provider("DELETE", "faults")
    it.wait_until(lambda: it.prop("SubState", "billing") == "running")
    it.wait_until(lambda: read(it) == it.token())


def test_wait_in_vain(it: Lab) -> None:
    """A service whose token does not come in time fails to start, and its journal says why and how to mend it."""
    it.configure(for_billing(it))
    it.provider("POST", "faults", {"kind": "error", "code": 700027, "count": None})
    it.add({"billing.service": WAITING.replace("{timeout}", "2s")})
    mark = it.mark()
    assert it.sh("systemctl", "start", "billing", check=False).returncode == 1
    assert (it.prop("Result", "billing"), it.prop("ActiveState", "billing")) == ("exit-code", "failed")
    assert "status=75" in it.prop("ExecStartPre", "billing")
    assert "no valid token within 2 s" in said(it, mark)
    assert "AADSTS700027" in said(it, mark)
    assert read(it) == ""


def test_wait_without_an_agent(it: Lab) -> None:
    """Without an agent the consumer's journal says that none is running, and how to start it."""
    it.configure(for_billing(it))
    it.add({"billing.service": WAITING.replace("{timeout}", "1s").replace("Wants=", "#")})
    mark = it.mark()
    it.sh("systemctl", "start", "billing", check=False)
    assert "status=69" in it.prop("ExecStartPre", "billing")
    assert "no agent is running" in said(it, mark)
    assert "systemctl start token-agent" in said(it, mark)


def test_exec(it: Lab) -> None:
    """`exec` runs a service of another user with its token, anew with the next one, and ends with the unit."""
    it.configure(for_billing(it))
    it.start()
    it.add({"billing.service": RUNNING}, "billing.service")
    it.wait_until(lambda: read(it) == it.token())
    main = it.prop("MainPID", "billing")
    assert it.sh("token-agent", "refresh", "graph").returncode == 0
    it.wait_until(lambda: read(it) == it.token())
    assert it.path("/run/billing/starts").read_text().split() == ["started"] * 2
    assert (it.prop("MainPID", "billing"), it.prop("NRestarts", "billing")) == (main, "0")
    began = time.monotonic()
    it.sh("systemctl", "stop", "billing")
    assert time.monotonic() - began < 5
    assert it.prop("ActiveState", "billing") == "inactive"  # and not `failed`


def test_environment_file(it: Lab) -> None:
    """A token file of variables is what systemd takes as `EnvironmentFile=`, read as root for a service of any user."""
    it.configure(it.profile(token_file=[{"path": "graph.env", "format": "env"}, "graph.token"]))
    it.start()
    it.users("billing")
    it.add({"billing.service": ENVIRONMENT}, "billing.service")
    assert read(it) == it.token()
