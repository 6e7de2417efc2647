"""What a unit's sandbox keeps from the agent, worked out from what `systemctl show` printed, and from real links."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.config.model import AgentSettings, Config, Profile
from agent.doctor.confinement import Confinement
from agent.doctor.rights import Person
from agent.doctor.sandbox import PROPERTIES, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.doctor.confinement import Obstacle

SHIPPED = """RootDirectory=
RootImage=
ReadWritePaths=
ReadOnlyPaths=/run
InaccessiblePaths=
ExecPaths=
NoExecPaths=
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
PrivateUsers=no
ProtectHome=yes
ProtectSystem=strict
RuntimeDirectory=token-agent
StateDirectory=token-agent
CacheDirectory=
LogsDirectory=
ProtectProc=invisible
ProcSubset=pid
BindPaths=
BindReadOnlyPaths=
TemporaryFileSystem=
MountAPIVFS=no
"""
"""As systemd 252 and 257 print it for the unit that is shipped; 257 besides: PrivateUsersEx=no."""
MUCH = """ReadWritePaths=/srv/billing -/srv/maybe +/srv/plus -+/srv/both "/srv/with space" /srv/a:b
ReadOnlyPaths=/srv/billing/ro
InaccessiblePaths=-/etc/secret /opt
ExecPaths=/srv/bin
NoExecPaths=/srv
BindPaths=/srv/a:/mnt/a:rbind -/srv/d:/mnt/d:rbind /srv/sp ace:/mnt/sp ace:rbind /srv/c:/mnt/c
BindReadOnlyPaths=/home/certs:/home/certs:rbind /root/ca.pem:/etc/ca.pem:rbind
TemporaryFileSystem=/var:ro /usr/x:size=1M,mode=0700
ProtectHome=tmpfs
"""
"""As both print what drop-ins add."""
USER = Person("token-agent", os.geteuid(), os.getegid(), frozenset({os.getegid()}))


def sandbox(*changes: str) -> Sandbox:
    """Return the sandbox of the shipped unit, with some lines of the output changed."""
    lines = [*SHIPPED.splitlines(), *(line for change in changes for line in change.splitlines())]
    made = Sandbox.of(dict(line.split("=", 1) for line in lines), lambda path: path)
    assert made
    return made


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/home/certs/graph.pem", "ProtectHome=yes"),
        ("/root/ca.pem", "ProtectHome=yes"),
        ("/run/user/1000/graph.pem", "ProtectHome=yes"),
        ("/tmp/graph.pem", "PrivateTmp=yes"),
        ("/var/tmp/graph.pem", "PrivateTmp=yes"),
        ("/homes/certs/graph.pem", ""),
        ("/etc/token-agent/graph.pem", ""),
        ("/run/credentials/token-agent.service/graph.pem", ""),
    ],
)
def test_what_the_shipped_unit_hides(path: str, line: str) -> None:
    """Homes and other people's temporary files are hidden by a line that is named, everything else is seen."""
    assert sandbox().hides(Path(path)) == line


@pytest.mark.parametrize(
    ("directory", "line"),
    [
        ("/srv/billing", "ProtectSystem=strict"),
        ("/var/lib/node_exporter", "ProtectSystem=strict"),
        ("/run/token-agent", ""),
        ("/run/token-agent/more", ""),
        ("/var/lib/token-agent", ""),
        ("/run/billing", "ReadOnlyPaths=/run"),
    ],
)
def test_what_the_shipped_unit_makes_read_only(directory: str, line: str) -> None:
    """Nothing but the agent's own directories can be written."""
    assert sandbox().makes_read_only(Path(directory)) == line


def test_what_brings_a_run_of_its_own() -> None:
    """Several lines bring a /run that ProtectSystem=strict leaves writable; without them it is covered."""
    assert sandbox("ReadOnlyPaths=").makes_read_only(Path("/run/billing")) == ""
    without = "ProtectKernelTunables=no\nProtectControlGroups=no\nProtectProc=default\nProcSubset=all"
    plain = sandbox("ReadOnlyPaths=", without)
    assert plain.makes_read_only(Path("/run/billing")) == "ProtectSystem=strict"
    assert plain.makes_read_only(Path("/run/token-agent")) == ""


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("/home/certs/graph.pem", ""),
        ("/home/other/graph.pem", "ProtectHome=tmpfs"),
        ("/etc/ca.pem", ""),
        ("/etc/secret/graph.pem", "InaccessiblePaths=/etc/secret"),
        ("/opt/graph.pem", "InaccessiblePaths=/opt"),
        ("/var/graph.pem", "TemporaryFileSystem=/var:ro"),
        ("/usr/x/y", "TemporaryFileSystem=/usr/x:size=1M,mode=0700"),
        ("/var/lib/token-agent/state.json", ""),
    ],
)
def test_what_drop_ins_hide(path: str, hidden: str) -> None:
    """Each kind of line counts as it is printed; what is bound into an empty place is seen there."""
    assert sandbox(MUCH).hides(Path(path)) == hidden


@pytest.mark.parametrize(
    ("directory", "line"),
    [
        *((f"/srv/{name}/x", "") for name in ("billing", "maybe", "plus", "both", "with space", "a:b")),
        ("/srv/billing/ro", "ReadOnlyPaths=/srv/billing/ro"),
        ("/srv/billings", "ProtectSystem=strict"),
        ("/home/certs", "BindReadOnlyPaths=/home/certs"),
        *((f"/mnt/{name}", "") for name in ("a", "c", "d", "sp ace")),
        ("/mnt", "ProtectSystem=strict"),
    ],
)
def test_what_drop_ins_open(directory: str, line: str) -> None:
    """The deepest line decides whether a directory can be written, whatever marks and quotes it is printed with."""
    assert sandbox(MUCH).makes_read_only(Path(directory)) == line


def test_what_drop_ins_keep_from_running() -> None:
    """Programs below NoExecPaths= cannot be run, but for those below a deeper ExecPaths=."""
    strict = sandbox(MUCH)
    assert strict.keeps_from_running(Path("/srv/hook")) == "NoExecPaths=/srv"
    assert strict.keeps_from_running(Path("/srv/bin/hook")) == ""
    assert sandbox().keeps_from_running(Path("/srv/hook")) == ""


def test_what_is_inaccessible_stays_so() -> None:
    """Under ProtectHome=yes neither ReadWritePaths= nor BindPaths= brings a home back; under read-only one does."""
    lines = "ReadWritePaths=/home/a\nBindPaths=/home/b:/home/b:rbind"
    assert {sandbox(lines).hides(Path(f"/home/{name}/x")) for name in "ab"} == {"ProtectHome=yes"}
    assert sandbox(lines, "ProtectHome=read-only").makes_read_only(Path("/home/a")) == ""
    assert sandbox("ProtectHome=read-only").makes_read_only(Path("/home/a")) == "ProtectHome=read-only"


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        ("PrivateUsers=no", ""),
        ("PrivateUsers=yes", "PrivateUsers=yes"),
        ("PrivateUsers=yes\nPrivateUsersEx=self", "PrivateUsers=yes"),
        ("PrivateUsers=yes\nPrivateUsersEx=identity", ""),
    ],
)
def test_whether_others_exist(printed: str, line: str) -> None:
    """PrivateUsers=yes hides other users; the kind of 257 that keeps their numbers does not."""
    assert sandbox(printed).users == line


def test_another_root() -> None:
    """Of a unit with a root of its own nothing is said: its paths are others."""
    assert Sandbox.of({"RootDirectory": "/srv/image", "ProtectHome": "yes"}, lambda path: path) is None
    assert set(dict(line.split("=", 1) for line in SHIPPED.splitlines())) <= set(PROPERTIES)


# ---- a configuration's files


def confined(tmp_path: Path, *lines: str, pid: int | None = None) -> Confinement:
    """Return a service for which `home` is hidden, and everything but `open` is read-only."""
    for name in ("home", "etc", "open"):
        (tmp_path / name).mkdir()
    hidden = f"InaccessiblePaths={tmp_path}/home\nReadWritePaths={tmp_path}/open\nPrivateTmp=no"
    return Confinement(sandbox(hidden, *lines), USER, pid)


def profile(**keys: object) -> Profile:
    return Profile.model_validate({"name": "graph", "client_id": "app", "tenant": "contoso.com", **keys})


def told(obstacles: Iterable[Obstacle]) -> dict[str, str]:
    """Return the messages by their keys."""
    return {each.key: each.message for each in obstacles}


def test_every_file_of_a_profile(tmp_path: Path) -> None:
    """Certificate, key, password, trust root, template, pid file and program are each named by their key."""
    service, home = confined(tmp_path), tmp_path / "home"
    found = told(
        service.of_profile(
            profile(
                certificate={"path": home / "a.pem", "key": home / "a.key", "password_file": home / "password"},
                ca_file=home / "ca.pem",
                token_file={"path": tmp_path / "open" / "token", "format": "template", "template_file": home / "t"},
                on_refresh={"signal": {"pid_file": home / "pid"}, "command": [str(home / "hook")]},
            )
        )
    )
    keys = ("certificate", "certificate.key", "certificate.password_file", "ca_file", "token_file.template_file")
    assert set(found) == {*keys, "on_refresh.signal.pid_file", "on_refresh.command"}
    assert set(found.values()) == {f"InaccessiblePaths={home} of token-agent.service hides it from the agent"}


def test_links(tmp_path: Path) -> None:
    """A link counts by where it leads, and a link within a hidden directory is hidden itself, wherever it leads."""
    service = confined(tmp_path)
    for name in ("home/a.pem", "etc/b.pem"):
        (tmp_path / name).touch()
    (tmp_path / "etc" / "in").symlink_to(tmp_path / "home")
    (tmp_path / "home" / "out").symlink_to(tmp_path / "etc")
    (tmp_path / "etc" / "around").symlink_to(tmp_path / "home" / "out")
    for given, leads in (("etc/in/a.pem", "home/a.pem"), ("home/out/b.pem", ""), ("etc/around/b.pem", "home/out")):
        (message,) = told(service.of_profile(profile(certificate={"path": tmp_path / given}))).values()
        start = f"it leads to {tmp_path / leads}, which " if leads else ""
        assert message.startswith(f"{start}InaccessiblePaths={tmp_path}/home of token-agent.service hides")
    assert not told(service.of_profile(profile(certificate={"path": tmp_path / "etc" / "b.pem"})))


def test_places_to_write(tmp_path: Path) -> None:
    """A directory that cannot be written is named with its line and the drop-in; also one that is still to be made."""
    service = confined(tmp_path)
    for place, start in (
        ("etc", "ProtectSystem=strict"),
        ("etc/new", "ProtectSystem=strict"),
        ("home", "Inaccessible"),
    ):
        (found,) = service.of_profile(profile(token_file={"path": tmp_path / place / "token"}))
        assert found.writing
        assert found.message.startswith(start)
        assert str(tmp_path / place) in found.message
        assert "write-paths.conf" in found.fix
        assert (f"ReadWritePaths={tmp_path}/{place} " in found.fix) is (place != "home")
    assert not told(service.of_profile(profile(token_file={"path": tmp_path / "open" / "new" / "token"})))


def test_places_below_what_is_read_only(tmp_path: Path) -> None:
    """Below a ReadOnlyPaths=, such as the unit's of /run, the drop-in opens a directory; /run itself it does not."""
    (tmp_path / "run" / "billing").mkdir(parents=True)
    service = Confinement(sandbox(f"ReadOnlyPaths={tmp_path}/run\nPrivateTmp=no"), USER, None)
    for place, opened in (("run/billing", True), ("run", False)):
        (found,) = service.of_profile(profile(token_file={"path": tmp_path / place / "token"}))
        assert found.message.startswith(f"ReadOnlyPaths={tmp_path}/run ")
        assert found.fix.startswith(f"ReadWritePaths={tmp_path}/run/billing in a drop-in") is opened
        assert found.fix.startswith("take it out of that line") is not opened


def test_own_places(tmp_path: Path) -> None:
    """The agent's directories, metrics and configuration are looked at; a candidate that lies elsewhere is not."""
    service, home = confined(tmp_path), tmp_path / "home"
    settings = AgentSettings(
        runtime_dir=tmp_path / "etc",
        state_dir=tmp_path / "open",
        metrics_textfile=home / "agent.prom",
        metrics_listen=f"unix:{tmp_path}/etc/metrics",
    )
    sources = (home / "config.toml", home / "more.toml")
    config = Config(path=sources[0], agent=settings, profiles=(), sources=sources)
    written = {"runtime_dir", "metrics_textfile", "metrics_listen"}
    assert set(told(service.of_agent(config, sources[0]))) == {*written, "", "include"}
    assert set(told(service.of_agent(config, Path("/etc/token-agent/config.toml")))) == written


def test_no_others_to_give_it_to(tmp_path: Path) -> None:
    """Under PrivateUsers=yes a token file can be the agent's own or root's, and nobody else's."""
    service = confined(tmp_path, "PrivateUsers=yes")
    path = tmp_path / "open" / "token"
    fine = {"owner": str(USER.uid), "group": str(USER.gid), "readers": ["user:0"]}
    assert not told(service.of_profile(profile(token_file={"path": path, **fine})))
    strange = {"owner": "4711", "group": "4712", "readers": ["user:4713", "group:4714"]}
    (found,) = service.of_profile(profile(token_file={"path": path, **strange}))
    assert found.message.endswith("owner 4711, group 4712, readers user:4713, readers group:4714")
    assert "own-files-only.conf" in found.fix


def test_what_a_running_agent_sees(tmp_path: Path) -> None:
    """Where the agent runs and sees a file, or may write to a mount, the lines of its unit are no obstacle."""
    (tmp_path / "graph.pem").touch()
    wanted = profile(certificate={"path": tmp_path / "graph.pem"}, token_file={"path": tmp_path / "token"})
    lines = f"InaccessiblePaths={tmp_path}"
    assert not told(Confinement(sandbox(lines), USER, os.getpid()).of_profile(wanted)).get("certificate")
    assert set(told(Confinement(sandbox(lines), USER, None).of_profile(wanted))) == {"certificate", "token_file"}
    assert not told(Confinement(sandbox("PrivateTmp=no"), USER, os.getpid()).of_profile(wanted))
