"""`token-agent check` by root on an installed system: it sees what the service's user would, not what root may do."""

from __future__ import annotations

import json
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


def doctor(it: Lab) -> tuple[set[str], str]:
    """Return the problems of the unit that the doctor finds, and all that is well."""
    found = json.loads(it.sh("token-agent", "doctor", "--json", check=False).stdout)
    problems = {each["message"] for each in found if (each["area"], each["level"]) == ("unit", "problem")}
    return problems, "\n".join(each["message"] for each in found if each["level"] == "ok")


@pytest.mark.parametrize("running", [True, False])
def test_files_that_the_unit_hides(it: Lab, *, running: bool) -> None:
    """Below /home and /root the agent sees nothing: check and doctor say so with the line and the fix, which helps."""
    it.sh("install", "-d", "-m", "0755", "/home/certs")
    it.write("/home/certs/graph.pem", it.pair.pem, mode=0o640, group="token-agent")
    it.write("/root/ca.pem", it.path("/etc/token-agent/ca.pem").read_bytes())
    it.sh("ln", "-sf", "/root/ca.pem", "/etc/token-agent/linked.pem")
    keys = {"certificate": "/home/certs/graph.pem", "ca_file": "/etc/token-agent/linked.pem"}
    it.configure(it.profile(**keys), **it.places)
    if running:
        it.sh("systemctl", "start", "token-agent")
    hides = "ProtectHome=yes of token-agent.service hides"
    certificate = f"certificate: /home/certs/graph.pem: {hides} it from the agent"
    ca_file = "ca_file: /etc/token-agent/linked.pem: it leads to /root/ca.pem, which "
    done = check(it)
    assert done.returncode == 78
    assert f"ERROR    graph: {certificate}" in done.stderr
    assert f"ERROR    graph: {ca_file}{hides} from the agent" in done.stderr
    assert "hint: move it to /etc/token-agent, or have systemd pass it: LoadCredential=" in done.stderr
    assert "ok       certificate" not in done.stdout
    assert f"ERROR    graph: {certificate}" in it.as_user("token-agent", "token-agent", "check").stderr
    problems, well = doctor(it)
    assert problems >= {certificate, f"{ca_file}{hides} from the agent"}
    assert "/home/certs/graph.pem" not in well
    it.configure(**it.places)
    done = check(it)
    assert (done.returncode, done.stderr) == (0, "")


def test_where_the_unit_lets_nobody_write(it: Lab) -> None:
    """A directory in /srv is read-only for the agent until the shipped drop-in names it; check and doctor say so."""
    it.sh("install", "-d", "-o", "token-agent", "/srv/billing")
    it.configure(it.profile(token_file="/srv/billing/token"), **it.places)
    what = "token_file: /srv/billing/token: ProtectSystem=strict of token-agent.service makes /srv/billing read-only"
    done = check(it)
    assert done.returncode == 78
    assert f"ERROR    graph: {what} for the agent" in done.stderr
    assert "hint: ReadWritePaths=/srv/billing in a drop-in, as in write-paths.conf of /usr/share/doc/" in done.stderr
    assert "ok       token file" not in done.stdout
    assert f"{what} for the agent" in doctor(it)[0]
    it.drop_in("paths", it.example("write-paths.conf"))
    for _ in range(2):
        done = check(it)
        assert (done.returncode, done.stderr) == (0, "")
        it.start()
    assert not doctor(it)[0]
    it.sh("systemctl", "stop", "token-agent")
    it.sh("rm", "-r", "/srv/billing")


def test_users_that_the_unit_hides(it: Lab) -> None:
    """With own-files-only.conf a token file with readers is an error that names it; one of the agent's own is none."""
    it.users("legacy")
    it.drop_in("own", it.example("own-files-only.conf"))
    it.configure(it.profile(token_file={"path": "graph.token", "readers": "user:legacy"}), **it.places)
    done = check(it)
    assert done.returncode == 78
    assert "PrivateUsers=yes of token-agent.service hides all other users and groups from the agent" in done.stderr
    assert "readers user:legacy" in done.stderr
    assert "hint: remove own-files-only.conf" in done.stderr
    assert any("PrivateUsers=yes" in problem for problem in doctor(it)[0])
    it.configure(**it.places)
    it.start()
    done = check(it)
    assert (done.returncode, done.stderr) == (0, "")
    assert not doctor(it)[0]


def test_a_configuration_that_is_not_the_services(it: Lab) -> None:
    """A configuration of somebody's own, with a runtime directory of his own, has nothing to do with the unit."""
    own = {"runtime_dir": "/root/run", "state_dir": "/root/state"}
    it.write("/root/graph.pem", it.pair.pem, mode=0o600)
    it.configure(it.profile(certificate="/root/graph.pem"), **own)
    it.path("/etc/token-agent/config.toml").replace(it.path("/root/own.toml"))
    done = check(it, "-c", "/root/own.toml")
    assert (done.returncode, done.stderr) == (0, "")
