"""The Debian package under a real dpkg and a real systemd: installed, configured, upgraded, removed, purged.

It is built once, from a copy of the checkout, by the command that the README shows, and shared by all processes of a
test run. Only its compression is less: that takes longest.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from agent import __version__
from tests.lab_helpers import Lab, lab, missing, python_inside
from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUILD = "dpkg-buildpackage -us -uc -b"
NEWER = "9.9"
"""The version of the package that upgrades."""
LEAN = {"DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
PLACES = ("/usr/lib/token-agent", "/usr/bin/token-agent", "/lib/systemd/system/token-agent.service")
"""Of the program."""
STATE = ("/run/token-agent", "/var/lib/token-agent")
DOCUMENTS = (
    "/usr/share/man/man1/token-agent.1.gz",
    "/usr/share/man/man5/token-agent.toml.5.gz",
    "/usr/share/bash-completion/completions/token-agent",
    "/usr/share/zsh/vendor-completions/_token-agent",
    "/usr/share/fish/vendor_completions.d/token-agent.fish",
    "/usr/share/doc/token-agent/config.example.toml",
    "/usr/share/doc/token-agent/copyright",
    *(f"/usr/share/doc/token-agent/systemd/examples/{path.name}" for path in (ROOT / "systemd" / "examples").iterdir()),
)


def lacking() -> str:
    """Return what there is not, empty if the package can be built here and installed in the laboratory."""
    tools = [tool for tool in ("dpkg-buildpackage", "dh", "dpkg-deb") if not shutil.which(tool)]
    if missing() or tools:
        return missing() or f"not installed: {' '.join(tools)}"
    here = subprocess.run(["/usr/bin/python3", "-c", "import sys, ensurepip; print(*sys.version_info[:2], sep='.')"],
                          text=True, capture_output=True, check=False)  # fmt: skip
    if here.returncode:
        return "not installed: python3-venv"
    if here.stdout.strip() != python_inside():
        return f"the package is built for this system's Python {here.stdout.strip()}, not for {python_inside()}"
    return ""


needs_package = [pytest.mark.skipif(bool(lacking()), reason=lacking()), pytest.mark.timeout(400)]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The package, and a newer one, by version."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "package"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (shared / f"{NEWER}.deb").exists():
            build(shared)
    return {version: shared / f"{version}.deb" for version in (__version__, NEWER)}


def build(directory: Path) -> None:
    """Build the package from a copy of the tree, and make a newer one of it; what is in it stays the same."""
    ignored = shutil.ignore_patterns(
        ".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "node_modules", "build"
    )
    shutil.copytree(ROOT, directory / "token-agent", symlinks=True, ignore=ignored)
    run(*BUILD.split(), cwd=directory / "token-agent")
    (made,) = directory.glob("*.deb")
    made = made.rename(directory / f"{__version__}.deb")
    run("dpkg-deb", "--raw-extract", made, directory / "newer")
    control = directory / "newer" / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {NEWER}", control.read_text()))
    run("dpkg-deb", "--build", directory / "newer", directory / f"{NEWER}.deb")
    for made_for_this in ("token-agent", "newer"):  # a quarter of a gigabyte
        shutil.rmtree(directory / made_for_this)


def run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=os.environ | LEAN, text=True, capture_output=True, check=False, timeout=350
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bare(packages: dict[str, Path]) -> Iterator[Lab]:
    """A laboratory with the packages and the provider, in which nothing of the agent's is installed."""
    with lab() as made:
        for version, path in packages.items():
            shutil.copy(path, made.path(f"/root/{version}.deb"))
        for inside in ("/usr/local/bin/token-agent", "/etc/systemd/system/token-agent.service",
                       "/usr/lib/sysusers.d/token-agent.conf", "/usr/lib/tmpfiles.d/token-agent.conf"):  # fmt: skip
            made.path(inside).unlink()
        for excluding in made.path("/etc/dpkg/dpkg.cfg.d").iterdir():  # this tree wants no documentation
            excluding.unlink()
        made.sh("userdel", "token-agent")
        made.sh("systemctl", "daemon-reload")
        yield made


@pytest.fixture
def it(bare: Lab) -> Lab:
    """The same with the package installed, for the first time."""
    bare.sh("dpkg", "--purge", "token-agent", check=False)
    for inside in ("/etc/token-agent", *STATE):
        shutil.rmtree(bare.path(inside), ignore_errors=True)
    bare.provider("DELETE", "requests")
    install(bare)
    return bare


def install(it: Lab, version: str = __version__) -> None:
    it.sh("dpkg", "--install", f"/root/{version}.deb", timeout=120)


def configure(it: Lab) -> None:
    """Write a configuration of one profile that works and has another reader, and what it needs."""
    it.users("reader")
    it.write("/etc/token-agent/ca.pem", it.path("/srv/emulator/ca.pem").read_bytes())
    it.certificate(it.pair)
    it.configure(it.profile(token_file=[{"path": "graph.token", "readers": ["user:reader"]}]), **it.places)


def identity(it: Lab) -> tuple[int, str]:
    """Return what tells one token file from another."""
    return it.path("/run/token-agent/graph.token").stat().st_ino, it.token()


def left(it: Lab) -> list[str]:
    """Return everything that bears the agent's name, but for what others noted about it and the laboratory's own."""
    found = it.sh("find", "/", "-xdev", "(", "-path", "/opt", "-o", "-path", "/root", "-o", "-path", "/proc", ")",
                  "-prune", "-o", "-name", "*token-agent*", "-print").stdout.split()  # fmt: skip
    runtime = it.sh("find", "/run", "-name", "*token-agent*", "-not", "-path", "/run/systemd/*").stdout.split()
    return sorted({*found, *runtime})


def test_version() -> None:
    """The package bears the program's version."""
    first = (ROOT / "debian" / "changelog").read_text().splitlines()[0]
    assert first.startswith(f"token-agent ({__version__}) ")


def test_build_is_documented() -> None:
    """The command that builds the package here is the one in the README."""
    assert f"$ {BUILD}\n" in (ROOT / "README.md").read_text()


class TestPackage:
    """What a machine with the package is like; each test begins with its installation."""

    pytestmark = needs_package

    def test_installed(self, it: Lab) -> None:
        """Everything is where it belongs, and nothing runs, and nothing has failed, before there is a configuration."""
        assert it.sh("stat", "-c", "%U:%G %a", "/etc/token-agent").stdout == "root:token-agent 750\n"
        assert it.sh("getent", "passwd", "token-agent").stdout.endswith(":/:/usr/sbin/nologin\n")
        assert not list(it.path("/etc/token-agent").iterdir())
        assert not [inside for inside in (*PLACES, *DOCUMENTS) if not it.path(inside).exists()]
        assert it.sh("token-agent", "--version").stdout == f"token-agent {__version__}\n"
        assert it.sh("dpkg", "--verify", "token-agent").stdout == ""
        it.sh("systemctl", "start", "token-agent")
        assert (it.prop("ActiveState"), it.prop("ConditionResult"), it.prop("UnitFileState")) == (
            "inactive",
            "no",
            "enabled",
        )
        assert not it.sh("systemctl", "--failed", "--no-legend").stdout.strip()

    def test_service(self, it: Lab) -> None:
        """With a configuration the service starts, sandboxed, from what the package brought, and its readers read."""
        configure(it)
        it.start()
        assert it.prop("ExecStart").split("path=")[1].startswith("/usr/bin/token-agent ")
        executable = it.sh("readlink", f"/proc/{it.prop('MainPID')}/exe").stdout.strip()
        assert executable == f"/usr/bin/python{python_inside()}"
        assert it.as_user("reader", "cat", "/run/token-agent/graph.token").stdout == it.token()
        assert it.as_user("nobody", "cat", "/run/token-agent/graph.token").returncode != 0
        assert it.as_user("reader", "token-agent", "get", "graph").stdout == it.token()
        assert it.sh("token-agent", "check").returncode == 0
        it.sh("systemctl", "reload", "token-agent")
        assert it.sh("dpkg", "--verify", "token-agent").stdout == ""  # nothing was written below /usr

    def test_upgraded(self, it: Lab) -> None:
        """An upgrade restarts a running agent, which goes on with its tokens; one that was stopped stays so."""
        configure(it)
        it.start()
        before, pid = identity(it), it.prop("MainPID")
        install(it, NEWER)
        it.wait_for("StatusText", "runway")
        assert it.prop("MainPID") not in (pid, "0")
        assert (identity(it), it.token_requests()) == (before, 1)
        it.sh("systemctl", "stop", "token-agent")
        install(it)
        assert it.prop("ActiveState") == "inactive"
        assert identity(it) == before

    def test_removed(self, it: Lab) -> None:
        """A removal keeps configuration, state and tokens for a later installation; a purge keeps what users wrote."""
        configure(it)
        it.start()
        before = identity(it)
        it.sh("dpkg", "--remove", "token-agent")
        assert not it.sh("pgrep", "-u", "token-agent", check=False).stdout
        assert not [inside for inside in PLACES if os.path.lexists(it.path(inside))]
        assert identity(it) == before
        install(it)
        it.wait_for("StatusText", "runway")
        assert (identity(it), it.token_requests()) == (before, 1)
        it.sh("dpkg", "--purge", "token-agent")
        assert left(it) == ["/etc/token-agent"]
        assert {path.name for path in it.path("/etc/token-agent").iterdir()} == {"ca.pem", "config.toml", "graph.pem"}
        assert it.sh("getent", "passwd", "token-agent").returncode == 0
        shutil.rmtree(it.path("/etc/token-agent"))
        install(it)
        it.sh("dpkg", "--purge", "token-agent")
        assert left(it) == []
