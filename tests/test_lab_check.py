"""`token-agent check` by root on an installed system: it sees what the service's user would, not what root may do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab_helpers import needs_lab

if TYPE_CHECKING:
    import subprocess

    from tests.lab_helpers import Lab

pytestmark = [needs_lab, pytest.mark.timeout(180)]


def check(it: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    return it.sh("token-agent", "check", *arguments, check=False)


@pytest.mark.parametrize("running", [True, False])
def test_all_is_well(it: Lab, *, running: bool) -> None:
    """Where the service works, root's check finds nothing wrong, whether it runs or not, and also asks the provider."""
    it.configure(**it.places)
    it.start()
    if not running:
        it.sh("systemctl", "stop", "token-agent")
    done = check(it, "--online")
    assert (done.returncode, done.stderr) == (0, "")
    assert "checked as user token-agent, who keeps /run/token-agent" in done.stdout
    assert "answered with a token for" in done.stdout


def test_before_the_first_start(it: Lab) -> None:
    """Before the service ever ran its user is known from the unit, and that it will have its directories."""
    it.configure()
    done = check(it)
    assert (done.returncode, done.stderr) == (0, "")
    assert "checked as user token-agent" in done.stdout
    it.path("/etc/token-agent/graph.pem").chmod(0o600)  # as `cert new` leaves it
    done = check(it)
    assert done.returncode == 78
    assert "chgrp it to a group of token-agent" in done.stderr


def test_credentials_before_the_start(it: Lab) -> None:
    """What systemd will put in place at the start is no error before."""
    it.write("/etc/token-agent/keys/graph.pem", it.pair.pem, mode=0o600)
    it.drop_in("credentials", it.example("credentials.conf"))
    it.configure(it.profile(certificate="${CREDENTIALS_DIRECTORY}/graph.pem"))
    done = check(it)
    assert done.returncode == 0
    assert "graph.pem: systemd puts it there when the service starts; not looked at" in done.stderr


@pytest.mark.parametrize("closed", ["directory", "file"])
def test_what_is_included(it: Lab, closed: str) -> None:
    """An included file or directory that the service may not read is an error of check; the token stays."""
    it.configure(include=["conf.d/*.toml"])
    text = it.path("/etc/token-agent/config.toml").read_text()
    begin = text.index("[[profile]]")
    it.write("/etc/token-agent/config.toml", text[:begin], mode=0o640, group="token-agent")
    it.write("/etc/token-agent/conf.d/graph.toml", text[begin:], mode=0o640, group="token-agent")
    it.sh("chgrp", "token-agent", "/etc/token-agent/conf.d")
    it.path("/etc/token-agent/conf.d").chmod(0o750)
    it.start()
    it.path("/etc/token-agent/conf.d" + ("/graph.toml" if closed == "file" else "")).chmod(0o700)
    it.wait_until(lambda: "configuration refused" in it.prop("StatusText"))
    assert it.token()
    for arguments in (["check"], ["reload"]):
        done = it.sh("token-agent", *arguments, check=False)
        assert done.returncode == 78
        assert "no permission to" in done.stderr
        assert "/etc/token-agent/conf.d" in done.stderr
        assert "chgrp token-agent" in done.stderr
    assert it.token()


def test_once_is_the_services_user(it: Lab) -> None:
    """What root's `once` writes before the first start, and later, is what the service goes on with."""
    it.configure()
    assert it.sh("token-agent", "once").returncode == 0
    assert it.path("/run/token-agent").owner() == it.path("/run/token-agent/graph.token").owner()
    token = it.token()
    it.start()
    assert it.token() == token
    assert it.token_requests() == 1
    it.sh("systemctl", "stop", "token-agent")
    assert it.sh("token-agent", "once", "--force").returncode == 0
    assert it.token() != token
    it.start()
    assert it.token_requests() == 2


def test_variables_of_the_unit(it: Lab) -> None:
    """The paths that systemd gives the running service are known to a check from a shell."""
    it.write("/etc/token-agent/keys/graph.pem", it.pair.pem, mode=0o600)
    it.drop_in("credentials", it.example("credentials.conf"))
    it.configure(it.profile(certificate="${CREDENTIALS_DIRECTORY}/graph.pem"))
    it.start()
    done = check(it)
    assert (done.returncode, done.stderr) == (0, "")
    assert "/run/credentials/token-agent.service/graph.pem" in done.stdout


def test_what_the_user_cannot(it: Lab) -> None:
    """A key and a directory that root could use, and the service cannot, are errors with their fix."""
    it.start()
    it.configure(it.profile(), it.profile("billing", token_file="/srv/roots/token"), **it.places)
    it.sh("install", "-d", "-m", "0755", "/srv/roots")
    it.write("/etc/token-agent/graph.pem", it.pair.pem, mode=0o600)
    done = check(it)
    assert done.returncode == 78
    assert "/etc/token-agent/graph.pem" in done.stderr
    assert "/srv/roots" in done.stderr


def test_configuration_that_the_user_cannot_read(it: Lab) -> None:
    """The configuration itself must be the service's to read; one that lies elsewhere for now is only a warning."""
    it.configure(**it.places)
    it.start()
    path = it.path("/etc/token-agent/config.toml")
    it.write("/root/new.toml", path.read_bytes(), mode=0o600)
    done = check(it, "-c", "/root/new.toml")
    assert done.returncode == 0
    assert "user token-agent may not read it where it is now" in done.stderr
    path.chmod(0o600)
    done = check(it)
    assert done.returncode == 78
    assert "chgrp token-agent /etc/token-agent/config.toml" in done.stderr


@pytest.mark.parametrize("running", [True, False])
def test_what_a_drop_in_gives(it: Lab, *, running: bool) -> None:
    """What the unit was given besides counts: CAP_CHOWN for another owner, a group for what belongs to it."""
    it.users("billing")
    for name in ("owner", "groups"):
        it.drop_in(name, it.example(f"{name}.conf"))
    owned = {"path": "owned", "owner": "billing", "group": "billing"}
    it.configure(it.profile(token_file=[owned, {"path": "shared", "group": "billing"}]), **it.places)
    it.sh("systemctl", "start", "token-agent")
    it.wait_for("StatusText", "runway")
    if not running:
        it.sh("systemctl", "stop", "token-agent")
    done = check(it)
    assert (done.returncode, done.stderr) == (0, "")
    it.path("/etc/systemd/system/token-agent.service.d/owner.conf").unlink()
    it.sh("systemctl", "daemon-reload")
    if running:
        it.sh("systemctl", "restart", "token-agent")
    done = check(it)
    assert done.returncode == 78
    assert "another owner needs root or CAP_CHOWN" in done.stderr
