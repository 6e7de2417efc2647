"""Hooks under the real unit: what it refuses and where that is told, what works, and the pair that does the rest."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab_helpers import needs_lab

if TYPE_CHECKING:
    from tests.lab_helpers import Lab

pytestmark = [needs_lab, pytest.mark.timeout(180)]

BILLING = """
[Service]
User={user}
ExecStart=/bin/sh -c 'cd /run/billing; echo $$$$ >pid; trap "echo hup >>heard" HUP; while sleep 0.1; do :; done'
RuntimeDirectory=billing
ExecReload=+/bin/sh -c 'echo reload >>/run/billing/heard'
"""
COMMAND = """#!/bin/sh
{ env; echo "ARGUMENT=$1"; echo "ID=$(id -un)"; touch /srv/after && echo WROTE; } >/run/token-agent/after 2>&1
exit 0
"""
REFUSAL = "reload_unit: exit code 4: Failed to reload-or-try-restart billing.service: Access denied; signal: "


def heard(it: Lab) -> list[str]:
    """Return what the consumer was told."""
    path = it.path("/run/billing/heard")
    return path.read_text().split() if path.exists() else []


def consumer(it: Lab, user: str) -> None:
    """Have a service that can be reloaded and signalled."""
    it.users("billing")
    it.add({"billing.service": BILLING.replace("{user}", user)}, "billing.service")
    it.wait_until(it.path("/run/billing/pid").exists)


def hooked(it: Lab, **hook: Any) -> dict[str, Any]:
    """Return a profile with a hook."""
    return it.profile(on_refresh={"min_interval": "0s", **hook})


# In the sandbox


def test_refused(it: Lab) -> None:
    """Reload and signal are refused to the hardened service; journal and `status` say so, the journal with the fix."""
    consumer(it, "billing")
    it.configure(hooked(it, reload_unit=["billing.service"], signal={"pid_file": "/run/billing/pid", "signal": "HUP"}))
    mark = it.mark()
    it.start()
    it.wait_until(lambda: it.journal("TOKEN_AGENT_EVENT=hook.failed", mark))
    entry = it.journal("TOKEN_AGENT_EVENT=hook.failed", mark)[0]
    assert (entry["TOKEN_AGENT_PROFILE"], entry["PRIORITY"]) == ("graph", "4")
    assert entry["TOKEN_AGENT_MESSAGE"].startswith(REFUSAL)
    assert "token-agent-hook@.path" in entry["TOKEN_AGENT_HINT"]
    done = it.sh("token-agent", "status")
    assert f"graph: on_refresh failed: {REFUSAL}" in done.stdout
    document = json.loads(it.sh("token-agent", "status", "--json").stdout)
    assert document["profiles"][0]["hook"]["exit_code"] == 4
    assert heard(it) == []
    assert it.prop("StatusText") == "1 of 1 fresh, runway 59 min"  # it is the consumer that suffers, not the token


def test_refusal_is_foreseen(it: Lab) -> None:
    """`check` warns beforehand that the service will be refused, of whom, and names the pair; `doctor` afterwards."""
    consumer(it, "billing")
    it.configure(watch=False, **it.places)
    it.start()
    it.configure(
        hooked(it, reload_unit=["billing.service"], signal={"pid_file": "/run/billing/pid", "signal": "HUP"}),
        watch=False,
        **it.places,
    )
    done = it.sh("token-agent", "check")
    user, billing = (it.sh("id", "-u", name).stdout.strip() for name in ("token-agent", "billing"))
    text = " ".join((done.stdout + done.stderr).split())
    assert f"on_refresh.reload_unit: systemd will refuse: the agent runs as user {user}" in text
    assert f"on_refresh.signal: the process of /run/billing/pid is user {billing}'s" in text
    assert text.count("the pair token-agent-hook@.path and token-agent-hook@.service") == 2
    mark = it.mark()
    it.sh("systemctl", "reload", "token-agent")
    it.wait_until(lambda: it.journal("TOKEN_AGENT_EVENT=hook.failed", mark))
    findings = json.loads(it.sh("token-agent", "doctor", "--json", check=False).stdout)
    (finding,) = [each for each in findings if each["area"] == "hook"]
    assert finding["level"] == "warning"
    assert finding["message"].startswith(f"on_refresh failed: {REFUSAL}")
    assert "token-agent-hook@.path" in finding["fix"]


def test_command(it: Lab) -> None:
    """A command runs in the sandbox as the agent's user, with its few variables, and can write where the agent can."""
    it.write("/usr/local/bin/after-refresh", COMMAND, mode=0o755)
    it.configure(hooked(it, command=["/usr/local/bin/after-refresh", "{path}"]))
    mark = it.mark()
    it.start()
    it.wait_until(lambda: it.journal("TOKEN_AGENT_EVENT=hook.finished", mark))
    text = it.path("/run/token-agent/after").read_text()
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert found["ARGUMENT"] == found["TOKEN_AGENT_TOKEN_FILE"] == "/run/token-agent/graph.token"
    assert (found["TOKEN_AGENT_PROFILE"], found["ID"], found["HOME"]) == ("graph", "token-agent", "/")
    assert not {"NOTIFY_SOCKET", "RUNTIME_DIRECTORY", "WATCHDOG_USEC", "JOURNAL_STREAM"} & set(found)
    assert "Read-only file system" in text
    assert "WROTE" not in text
    it.path("/run/token-agent/after").unlink()
    it.sh("token-agent", "refresh", "graph")
    it.wait_until(it.path("/run/token-agent/after").exists)


def test_command_fails(it: Lab) -> None:
    """What a failed command said is in the journal, its exit code in `status`, and the token serves all the same."""
    it.write("/usr/local/bin/after-refresh", "#!/bin/sh\necho no such ledger >&2\nexit 3\n", mode=0o755)
    it.configure(hooked(it, command=["/usr/local/bin/after-refresh"]))
    mark = it.mark()
    it.start()
    it.wait_until(lambda: it.journal("TOKEN_AGENT_EVENT=hook.failed", mark))
    entry = it.journal("TOKEN_AGENT_EVENT=hook.failed", mark)[0]
    assert (entry["TOKEN_AGENT_OUTPUT"], entry["TOKEN_AGENT_EXIT_CODE"]) == ("no such ledger", "3")
    assert "graph: on_refresh failed: command: exit code 3" in it.sh("token-agent", "status").stdout


def test_signal_to_own_user(it: Lab) -> None:
    """A signal reaches a service that runs as the agent's own user, out of the sandbox."""
    consumer(it, "token-agent")
    it.configure(hooked(it, signal={"pid_file": "/run/billing/pid", "signal": "HUP"}))
    it.start()
    it.wait_until(lambda: heard(it) == ["hup"])


def test_stop_while_a_hook_hangs(it: Lab) -> None:
    """The stop of the service takes a hanging hook with it, in time, and nothing of it is left."""
    it.write("/usr/local/bin/after-refresh", "#!/bin/sh\ntrap '' TERM\nsleep 4321\n", mode=0o755)
    it.configure(hooked(it, command=["/usr/local/bin/after-refresh"], timeout="10m"))
    it.start()
    it.wait_until(lambda: it.sh("pgrep", "-f", "^sleep 4321", check=False).stdout)
    began = time.monotonic()
    it.sh("systemctl", "stop", "token-agent")
    assert time.monotonic() - began < 2.0
    assert it.prop("Result") == "success"
    assert not it.sh("pgrep", "-f", "^sleep 4321", check=False).stdout


# With systemd's own privileges


READER = """
[Service]
ExecStart=/bin/sleep infinity
ExecReload=/bin/sh -c 'cat /run/token-agent/graph.token >/run/reloaded; echo >>/run/reloads; {then}'
"""


def reloads(it: Lab) -> int:
    """Return how often the consumer was reloaded."""
    path = it.path("/run/reloads")
    return len(path.read_text().splitlines()) if path.exists() else 0


def pair(it: Lab, then: str = "true") -> None:
    """Have the documented pair and a service that reads the token when it is reloaded."""
    for name in ("reloads", "reloaded"):
        it.path(f"/run/{name}").unlink(missing_ok=True)
    it.add({"graph.service": READER.replace("{then}", then)}, "graph.service")
    it.start()
    it.add_examples("token-agent-hook@", "graph")


def has_the_token(it: Lab) -> bool:
    """Tell whether the consumer read the token that is in the file now."""
    path = it.path("/run/reloaded")
    return path.exists() and path.read_text() == it.token()


def test_pair(it: Lab) -> None:
    """The path unit and its service reload another service once for each renewal, which the agent could not."""
    pair(it)
    for count in (1, 2):
        it.sh("token-agent", "refresh", "graph")
        it.wait_until(lambda: has_the_token(it))
        it.wait_until(lambda: it.prop("ActiveState", "token-agent-hook@graph.service") == "inactive")
        assert reloads(it) == count
    assert it.prop("ActiveState", "token-agent-hook@graph.path") == "active"


def test_pair_coalesces(it: Lab) -> None:
    """Renewals while a slow service is being reloaded are followed by one more reload, which reads the last token."""
    pair(it, then="until [ -e /run/go ]; do sleep 0.1; done")
    it.path("/run/go").unlink(missing_ok=True)
    it.sh("token-agent", "refresh", "graph")
    it.wait_until(lambda: reloads(it) == 1)
    for _ in range(4):
        it.sh("token-agent", "refresh", "graph")
    it.write("/run/go", "")
    it.wait_until(lambda: it.prop("ActiveState", "token-agent-hook@graph.service") == "inactive")
    assert has_the_token(it)
    assert reloads(it) == 2


def test_pair_reports(it: Lab) -> None:
    """A reload that fails is seen at the pair's service, and the next renewal is followed all the same."""
    pair(it, then="exit 1")
    it.sh("token-agent", "refresh", "graph")
    it.wait_until(lambda: it.prop("ActiveState", "token-agent-hook@graph.service") == "failed")
    assert it.prop("ActiveState", "token-agent-hook@graph.path") == "active"
    it.sh("token-agent", "refresh", "graph")
    it.wait_until(lambda: reloads(it) == 2)
