"""`token-agent doctor` on an installed system with a real systemd, as root and as somebody else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab_helpers import needs_lab
from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab_helpers import Lab

pytestmark = [needs_lab, pytest.mark.timeout(180)]

Found = list[dict[str, str]]


@pytest.fixture(autouse=True)
def enabled(it: Lab) -> Iterator[None]:
    """Have the unit enabled, as a package does; the laboratory's other tests do without."""
    it.sh("systemctl", "enable", "token-agent")
    yield
    it.sh("systemctl", "disable", "token-agent")


def doctor(it: Lab, *arguments: str) -> tuple[int, Found]:
    """Return exit code and findings, as root."""
    done = it.sh("token-agent", "doctor", "--json", *arguments, check=False)
    assert done.stderr == ""
    found: Found = json.loads(done.stdout)
    return done.returncode, found


def of(found: Found, level: str, *areas: str) -> list[str]:
    """Return the messages of a level, of some areas only if any are named."""
    return [each["message"] for each in found if each["level"] == level and (not areas or each["area"] in areas)]


def install(it: Lab, **keys: Any) -> None:
    """Have a token that the user `legacy` is to read, in a directory of its own, and an agent that keeps it."""
    it.users("legacy", "stranger")
    it.sh("rm", "-rf", "/srv/billing")
    it.sh("install", "-d", "-o", "token-agent", "-g", "token-agent", "-m", "0750", "/srv/billing")
    it.drop_in("paths", it.example("write-paths.conf"))
    it.configure(it.profile(token_file=[{"path": "/srv/billing/token", "readers": ["user:legacy"]}], **keys))
    it.start()


def test_all_is_well(it: Lab) -> None:
    """On a system that works nothing is a problem; unit and agent were looked at, and the reader has really read."""
    it.users("legacy")
    it.configure(it.profile(token_file=[{"path": "graph.token", "readers": ["user:legacy"]}]))
    it.start()
    asked = it.token_requests()
    code, found = doctor(it)
    assert (code, of(found, "problem")) == (0, [])
    assert of(found, "ok", "unit") == ["token-agent.service is active (running)"]
    assert of(found, "ok", "agent") == [f"an agent keeps /run/token-agent (pid {it.prop('MainPID')})"]
    assert of(found, "ok", "reader") == ["user legacy can read /run/token-agent/graph.token"]
    assert of(found, "ok", "status") == ["fresh, the token serves for 59 min"]
    assert "/run/token-agent is in memory (tmpfs): no token reaches a disk" in of(found, "ok", "token file")
    assert not [text for text in of(found, "warning") if "NTP" not in text]
    assert it.token_requests() == asked


def test_reader_without_access(it: Lab) -> None:
    """A reader who cannot enter the directory is told which one and what helps; that command, carried out, helps."""
    install(it)
    command = ["cat", "/srv/billing/token"]
    assert it.as_user("legacy", *command).returncode
    code, found = doctor(it)
    (problem,) = [each for each in found if each["level"] == "problem"]
    assert code == 78
    assert problem["message"] == "user legacy cannot enter /srv/billing (0750 token-agent:token-agent)"
    assert "add legacy to group token-agent, or setfacl -m u:legacy:x /srv/billing" in problem["fix"]
    it.sh("sh", "-c", problem["fix"].rpartition(" or ")[2])
    assert it.as_user("legacy", *command).returncode == 0
    code, found = doctor(it)
    assert (code, of(found, "problem")) == (0, [])
    assert of(found, "ok", "reader") == ["user legacy can read /srv/billing/token"]


def test_reader_who_is_asked_about(it: Lab) -> None:
    """Somebody who is no reader is told apart by what is tried, and the configuration names the way in."""
    install(it)
    it.path("/srv/billing").chmod(0o755)
    code, found = doctor(it, "graph", "--user", "legacy", "--user", "stranger")
    assert code == 78
    assert of(found, "ok", "reader") == ["user legacy can read /srv/billing/token"]
    (problem,) = [each for each in found if each["level"] == "problem"]
    assert problem["message"].startswith("user stranger cannot read /srv/billing/token")
    assert 'readers = ["user:stranger"]' in problem["fix"]


def test_unit_that_is_stopped(it: Lab) -> None:
    """Where the unit is not active, unit and agent are problems, each with the command that starts it."""
    it.start()
    it.sh("systemctl", "stop", "token-agent")
    code, found = doctor(it)
    assert code == 78
    assert "token-agent.service is inactive (dead)" in of(found, "problem", "unit")
    assert of(found, "problem", "agent") == ["no agent keeps /run/token-agent: nothing renews tokens"]
    assert all("systemctl start token-agent" in e["fix"] for e in found if e["area"] in ("unit", "agent") and e["fix"])
    it.sh("systemctl", "start", "token-agent")
    it.wait_until(lambda: doctor(it)[0] == 0)


def test_unit_that_failed(it: Lab) -> None:
    """A service that could not start is told with its exit status, and what is wrong in which line."""
    it.configure(it.profile(clientid="x"))
    it.sh("systemctl", "start", "token-agent", check=False)
    code, found = doctor(it)
    assert code == 78
    assert "token-agent.service is failed (failed), result exit-code, exit status 78" in of(found, "problem", "unit")
    assert any("config.toml:" in text and "clientid" in text for text in of(found, "problem", "configuration"))


def test_restarts_are_told(it: Lab) -> None:
    """An agent that systemd had to restart is a warning."""
    it.drop_in("fast", "[Service]\nRestartSec=0\n")
    it.start()
    it.sh("systemctl", "kill", "-s", "KILL", "token-agent")
    it.wait_until(lambda: it.prop("NRestarts") == "1" and it.prop("ActiveState") == "active")
    it.wait_for("StatusText", "1 of 1 fresh")
    code, found = doctor(it)
    assert (code, of(found, "warning", "unit")) == (0, ["systemd has restarted it by itself (NRestarts=1)"])


def test_keys_of_the_unit(it: Lab) -> None:
    """The configuration is read with the variables of the running service: a credential's path is one of systemd's."""
    it.write("/etc/token-agent/keys/graph.pem", it.pair.pem, mode=0o600)
    it.drop_in("credentials", it.example("credentials.conf"))
    it.configure(it.profile(certificate="${CREDENTIALS_DIRECTORY}/graph.pem"))
    it.start()
    code, found = doctor(it)
    assert (code, of(found, "problem")) == (0, [])
    assert any("/run/credentials/token-agent.service/graph.pem can be used" in text for text in of(found, "ok"))
    it.sh("systemctl", "stop", "token-agent")
    _, found = doctor(it)
    assert of(found, "problem", "configuration", "credential", "token file") == []
    assert any("systemd puts it there when the service starts" in text for text in of(found, "note", "credential"))


def test_certificate_that_only_root_can_read(it: Lab) -> None:
    """A key that root could read but the service's user cannot is found, though root is who asks."""
    it.start()
    it.write("/etc/token-agent/graph.pem", it.pair.pem, mode=0o600)
    code, found = doctor(it)
    assert code == 78
    assert any("token-agent" in text and "/etc/token-agent/graph.pem" in text for text in of(found, "problem"))


def test_keys_that_only_root_can_enter(it: Lab) -> None:
    """A service that may read every file reads keys where only root could; without that it is told of it once."""
    for name, content in (("cert.pem", it.pair.cert_pem), ("key.pem", it.pair.key_pem)):
        it.write(f"/etc/letsencrypt/live/{name}", content, mode=0o644 if name == "cert.pem" else 0o600)
    it.sh("chmod", "0700", "/etc/letsencrypt/live")
    it.drop_in("keys", it.example("read-root-keys.conf"))
    live = "/etc/letsencrypt/live"
    it.configure(it.profile(certificate={"path": f"{live}/cert.pem", "key": f"{live}/key.pem"}))
    it.start()
    code, found = doctor(it)
    assert (code, of(found, "problem"), of(found, "warning", "credential")) == (0, [], [])
    assert f"the agent's user token-agent can read {live}/key.pem" in of(found, "ok", "credential")
    it.sh("systemctl", "stop", "token-agent")
    assert of(doctor(it)[1], "problem", "credential") == []
    it.drop_in("keys", "")
    _, found = doctor(it)
    assert of(found, "problem", "credential") == [f"the agent's user token-agent cannot enter {live} (0700 root:root)"]


def test_no_configuration(it: Lab) -> None:
    """Without a configuration the first thing said is where to begin; that, carried out, is a configuration."""
    example = (ROOT / "config.example.toml").read_text()
    it.write("/usr/share/doc/token-agent/config.example.toml", example)
    it.sh("rm", "/etc/token-agent/config.toml")
    code, found = doctor(it)
    assert (code, found[0]["level"], found[0]["area"]) == (78, "problem", "configuration")
    command, *_ = found[0]["fix"].split("; ")
    assert command == "cp /usr/share/doc/token-agent/config.example.toml /etc/token-agent/config.toml"
    assert all("first the configuration" in each["fix"] for each in found[1:] if each["level"] == "problem")
    it.sh("sh", "-c", command)
    assert it.path("/etc/token-agent/config.toml").read_text() == example


def test_a_unit_that_is_not_enabled(it: Lab) -> None:
    """A service that runs and will not after the next boot is a warning; its fix, carried out, helps."""
    it.sh("systemctl", "disable", "token-agent")
    it.start()
    code, found = doctor(it)
    (warning,) = [each for each in found if each["level"] == "warning" and each["area"] == "unit"]
    assert (code, warning["fix"]) == (0, "systemctl enable token-agent")
    it.sh("sh", "-c", warning["fix"])
    assert of(doctor(it)[1], "warning", "unit") == []


def test_an_agent_that_is_stopped_by_a_signal(it: Lab) -> None:
    """An active service that does nothing is a problem; its fix, carried out, helps."""
    it.start()
    it.sh("systemctl", "kill", "-s", "STOP", "token-agent")
    code, found = doctor(it)
    assert code == 78
    (problem,) = [each for each in found if each["level"] == "problem"]
    assert "was stopped by a signal" in problem["message"]
    it.sh("sh", "-c", problem["fix"].removeprefix("let it go on: ").partition(";")[0])
    assert doctor(it)[0] == 0


def test_without_root(it: Lab) -> None:
    """Who may not read the configuration is told whether he can read the token and why not, and what he is not told."""
    install(it)
    for user, code, what in (
        ("stranger", 78, "cannot enter /srv/billing"),
        ("legacy", 0, "can read /srv/billing/token"),
    ):
        if user == "legacy":
            it.path("/srv/billing").chmod(0o755)
        done = it.as_user(user, "token-agent", "doctor", "--json")
        found: Found = json.loads(done.stdout)
        assert done.returncode == code, found
        assert of(found, "ok", "unit") == ["token-agent.service is active (running)"]
        assert of(found, "ok", "status") == ["fresh, the token serves for 59 min"]
        (message,) = [each["message"] for each in found if each["area"] == "reader"]
        assert message.startswith(f"user {user} {what}")
        assert "chgrp" not in done.stdout
        assert "you may not read /etc/token-agent/config.toml" in found[-1]["message"]


def test_the_report(it: Lab) -> None:
    """What people get is the same report in words, grouped, with the number of problems in its last line."""
    install(it)
    done = it.sh("token-agent", "doctor", check=False)
    assert done.returncode == 78
    assert "PROBLEM  user legacy cannot enter /srv/billing" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 problem")
