"""What is worked out from `systemctl show` is what systemd does: tried from inside of units like the agent's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.doctor.sandbox import PROPERTIES, Sandbox
from tests.lab_helpers import needs_lab
from tests.test_lab_sandbox import in_sandbox, own_directories

if TYPE_CHECKING:
    from tests.lab_helpers import Lab

pytestmark = [needs_lab, pytest.mark.timeout(180)]

PLACES = (
    "/home/a", "/home/a/b", "/root/x", "/run/user/7", "/srv/a", "/srv/a/b", "/srv/c", "/etc/k", "/usr/share/k",
    "/var/k", "/var/k/l", "/tmp/k", "/var/tmp/k", "/opt/k", "/mnt/sp ace", "/run/k", "/run/lock",
    "/var/lib/token-agent",
)  # fmt: skip
PROBE = f"""
import json, os, sys
found = {{}}
for place in {PLACES!r}:
    try:
        read_only = bool(os.statvfs(place).f_flag & os.ST_RDONLY)
        found[place] = read_only if os.path.exists(place + "/mark") else None
    except OSError:
        found[place] = None
json.dump(found, open(sys.argv[1], "w"))
"""
DROP_INS = (
    "ProtectHome=yes",
    "ProtectHome=tmpfs",
    "ProtectHome=read-only\nReadWritePaths=/home/a",
    "ProtectHome=no\nProtectSystem=full",
    "ProtectHome=no\nReadOnlyPaths=/home/a\nProtectSystem=yes",
    "ProtectSystem=no\nPrivateTmp=no",
    'ReadWritePaths=/srv/a /home/a -/nope "/mnt/sp ace"\nReadOnlyPaths=/srv/a/b',
    "ReadOnlyPaths=/srv/a /run\nReadWritePaths=/srv/a\nPrivateTmp=no\nReadWritePaths=/tmp",
    "ProtectHome=tmpfs\nBindReadOnlyPaths=/home/a\nBindPaths=/srv/c\nReadOnlyPaths=/srv",
    "BindPaths=/home/a /srv/a /tmp/k\nReadOnlyPaths=/srv/a",
    "TemporaryFileSystem=/var:ro /srv\nBindPaths=/var/k/l\nReadWritePaths=/srv",
    "InaccessiblePaths=/srv /opt/k\nReadWritePaths=/srv/a\nPrivateTmp=yes\nReadOnlyPaths=/tmp",
    "InaccessiblePaths=-/etc/link\nReadWritePaths=/\nProtectHome=read-only",
    "ProtectKernelTunables=no\nProtectControlGroups=no\nProtectProc=default\nProcSubset=all",
)


@pytest.fixture(scope="module")
def scene(laboratory: Lab) -> Lab:
    """The laboratory with a file in each place."""
    laboratory.reset()
    for place in PLACES:
        laboratory.write(f"{place}/mark", "x")
    for home in ("/home", "/root", "/run/user", "/var/lib/token-agent"):
        laboratory.path(home).chmod(0o755)
    laboratory.write("/opt/places.py", PROBE)
    laboratory.sh("ln", "-sfn", "/srv", "/etc/link")
    return laboratory


def test_as_systemd_does(scene: Lab) -> None:
    """For each kind of line and what it does to others: the same is hidden, and the same is read-only."""
    unit = own_directories(in_sandbox("/usr/bin/python3 -I /opt/places.py /run/{name}/found.json"))
    unit = unit.replace("StateDirectory={name}", "StateDirectory=token-agent")
    units = {f"confined-{n}": unit.replace("{name}", f"confined-{n}") for n in range(len(DROP_INS))}
    scene.add({f"{name}.service": text for name, text in units.items()})
    for name, lines in zip(units, DROP_INS, strict=True):
        scene.write(f"/run/systemd/system/{name}.service.d/more.conf", f"[Service]\n{lines}\n")
    scene.sh("systemctl", "daemon-reload")
    scene.sh("systemctl", "start", *(f"{name}.service" for name in units))
    for name, lines in zip(units, DROP_INS, strict=True):
        tried = json.loads(scene.path(f"/run/{name}/found.json").read_text())
        assert (lines, tried) == (lines, expected(scene, name))


def expected(scene: Lab, name: str) -> dict[str, bool | None]:
    """Return for each place whether it is read-only, None where it is hidden, as the properties of a unit tell."""
    shown = scene.sh("systemctl", "show", f"{name}.service", f"--property={','.join(PROPERTIES)}").stdout
    links = {Path("/etc/link"): Path("/srv")}
    sandbox = Sandbox.of(dict(line.split("=", 1) for line in shown.splitlines()), lambda path: links.get(path, path))
    assert sandbox
    return {
        place: None if sandbox.hides(Path(place, "mark")) else bool(sandbox.makes_read_only(Path(place)))
        for place in PLACES
    }
