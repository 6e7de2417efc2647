"""The shipped units and drop-ins, judged by the systemd of the laboratory, which may be another than the machine's."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.lab_helpers import needs_lab
from tests.test_unit_files import DROP_INS, EXPOSURE, NEWER

if TYPE_CHECKING:
    from tests.lab_helpers import Lab

pytestmark = [needs_lab, pytest.mark.timeout(180)]


def install(it: Lab, *names: str) -> str:
    """Put the unit with its program and some drop-ins where only the analysis finds them, and return the path."""
    it.sh("rm", "-rf", "/srv/units")
    unit = it.path("/etc/systemd/system/token-agent.service").read_text()
    it.write("/srv/units/token-agent.service", unit)
    for name in names:
        it.write(f"/srv/units/token-agent.service.d/{name}", it.example(name))
    return "/srv/units/token-agent.service"


def test_verified(it: Lab) -> None:
    """The unit with each drop-in has nothing that this systemd does not understand, but for what says it is newer."""
    for name in (None, *DROP_INS):
        with_credentials = ["credentials.conf"] if name == "credentials-reload.conf" else []
        path = install(it, *([name] if name else []), *with_credentials)
        done = it.sh("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path, check=False)
        lines = done.stderr.splitlines()
        if name and it.version() < NEWER.get(name, 0):
            assert lines
            assert all(re.search(rf"{re.escape(name)}:\d+: Unknown key.* ignoring", line) for line in lines), lines
        else:
            assert (done.returncode, lines) == (0, []), name


def test_pairs_verified(it: Lab) -> None:
    """Both pairs of a path unit and its service are understood."""
    it.users("billing")
    for pair, instance in (("token-agent-credentials", ""), ("token-agent-hook@", "graph")):
        it.add_examples(pair, instance)
        for kind in ("path", "service"):
            name = f"{pair}{instance}.{kind}"
            done = it.sh("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", name, check=False)
            assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("drop_in", EXPOSURE)
def test_exposure(it: Lab, drop_in: str | None) -> None:
    """The service is as little exposed as what it does allows, as this systemd counts."""
    path = install(it, *([drop_in] if drop_in else []))
    shown = it.sh("systemd-analyze", "security", "--offline=true", path).stdout
    found = re.search(r"exposure level for \S+: ([\d.]+)", shown)
    assert found, shown
    assert float(found[1]) <= EXPOSURE[drop_in]


def test_loaded(it: Lab) -> None:
    """A machine that has all drop-ins loads and starts the service; newer settings only cost a warning."""
    it.users("billing")
    it.sh("install", "-d", "-o", "token-agent", "/srv/billing")
    it.write("/etc/token-agent/keys/graph.pem", it.pair.pem, mode=0o600)
    for name in DROP_INS:
        if name != "own-files-only.conf":  # which contradicts the others
            it.drop_in(name.removesuffix(".conf"), it.example(name))
    assert it.prop("LoadState") == "loaded"
    it.start()
    assert not json.loads(it.sh("systemctl", "--failed", "-o", "json").stdout)
    assert it.prop("NeedDaemonReload") == "no"
    assert it.prop("Type") == "notify"


def test_user_and_directory(it: Lab) -> None:
    """The user is a system user who cannot log in, and the configuration is root's to write and the agent's to read."""
    entry = it.sh("getent", "passwd", "token-agent").stdout.strip().split(":")
    assert int(entry[2]) < 1000
    assert entry[-1].endswith("/nologin")
    assert it.sh("stat", "-c", "%U:%G %a", "/etc/token-agent").stdout == "root:token-agent 750\n"
