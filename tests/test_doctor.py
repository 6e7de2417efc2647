"""`token-agent doctor` from outside: an installed system with a running agent, and everything that can be wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agent import control, lock
from tests import doctor_helpers, sink_helpers
from tests.certificate_helpers import make_certificate, pool_key, written
from tests.process_helpers import Running, Scene, current_certificate, run, scene, start, wait_for_status
from tests.sink_helpers import NOBODY, OTHER, Who, needs_root
from tests.terminal_helpers import on_terminal

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

Found = list[dict[str, str]]


@pytest.fixture
def stage() -> Iterator[Scene]:
    """A provider, an app, and room that every user can reach."""
    with sink_helpers.ground() as ground, scene(ground) as made:
        yield made


@pytest.fixture
def agent(stage: Scene) -> Iterator[Running]:
    """An agent that has written its token, and its status."""
    config = stage.config()
    with start("run", "--config", config) as running:
        wait_for_status(config, fresh)
        yield running


def fresh(document: dict[str, Any]) -> bool:
    return bool(document["profiles"]) and document["profiles"][0]["state"] == "fresh"


def doctor(config: Path, *arguments: str, **environ: str) -> tuple[int, Found]:
    """Return exit code and findings."""
    done = run("doctor", *arguments, "--json", "--config", config, environ=environ)
    assert done.stderr == ""
    found: Found = json.loads(done.stdout)
    return done.returncode, found


def of(found: Found, level: str, area: str = "") -> list[str]:
    """Return the messages of a level and area; whatever is wrong has its fix."""
    chosen = [each for each in found if each["level"] == level and area in ("", each["area"])]
    assert level not in ("problem", "warning") or all(each["fix"] for each in chosen)
    return [each["message"] for each in chosen]


def tools(directory: Path, **outputs: str) -> str:
    """Make programs that print a text, and return a PATH with them."""
    folder = directory / "tools"
    folder.mkdir(exist_ok=True)
    for name, text in outputs.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def unit(**properties: str) -> str:
    usual = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "NRestarts": "0"}
    return "\n".join(f"{name}={value}" for name, value in (usual | {"Result": "success"} | properties).items())


def test_all_is_well(stage: Scene, agent: Running) -> None:
    """A system that works has no problem and exits 0, every area was looked at, and no token was asked for."""
    config = stage.directory / "config.toml"
    asked = stage.token_requests
    code, found = doctor(config)
    assert (code, of(found, "problem")) == (0, [])
    assert {"agent", "unit", "clock", "status", "credential", "token file", "reader", "network"} == {
        each["area"] for each in found
    }
    assert all(set(each) == {"area", "subject", "level", "message", "fix"} for each in found)
    assert of(found, "ok", "agent") == [f"an agent keeps {stage.directory}/run (pid {agent.pid})"]
    assert of(found, "ok", "status") == ["fresh, the token serves for 59 min"]
    assert stage.token_requests == asked


def test_the_report_is_for_people(stage: Scene, agent: Running) -> None:
    """On a terminal the report is 80 columns wide but for words that are longer; grouped, and problems have a fix."""
    (stage.directory / "run").chmod(0o700)
    written_lines = on_terminal("doctor", "--config", stage.directory / "config.toml", "--user", OTHER, columns=200)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in written_lines]
    assert all(len(line) <= 80 or len(line.split()) <= 2 for line in lines)
    assert [line.split()[0] for line in lines if not line.startswith(" ")][:3] == ["agent", "profile", "provider"]
    at = next(number for number, line in enumerate(lines) if line.startswith("  PROBLEM  "))
    whole = " ".join(" ".join(lines[at : at + 4]).split())
    assert f"PROBLEM user {OTHER} cannot enter {stage.directory}/run (0700 root:root)" in whole
    assert f"fix: setfacl -m u:{OTHER}:x {stage.directory}/run" in whole
    assert lines[-1].startswith("1 problem")


def test_the_report_in_a_pipe(stage: Scene, agent: Running) -> None:
    """In a pipe or file no line is folded, so that a message can be found there, and a fix be copied as it stands."""
    arguments = ("doctor", "--config", stage.directory / "config.toml", "--user", OTHER)
    lines = run(*arguments).stdout.splitlines()
    assert max(map(len, lines)) > 100
    found: Found = json.loads(run(*arguments, "--json").stdout)
    for each in found:
        if "ms)" not in each["message"]:
            assert any(line.endswith(each["message"]) for line in lines)
        assert not each["fix"] or any(line.endswith(each["fix"]) for line in lines)


def test_names(stage: Scene, agent: Running) -> None:
    """Only the profiles named are looked at; a name that is none, or a user who is none, is wrong use."""
    config = stage.config(stage.profile(), stage.profile("billing"))
    _, found = doctor(config, "billing")
    assert {each["subject"] for each in found if each["area"] == "credential"} == {"billing"}
    for wrong in (["nonsense"], ["--user", "no-such-user"]):
        done = run("doctor", *wrong, "--config", config)
        assert done.returncode == 2
        assert wrong[-1] in done.stderr


def test_no_agent(stage: Scene) -> None:
    """Where no agent runs and none has, that is a problem, as is the missing token file; nothing is made or changed."""
    config = stage.config()
    before = {path: path.stat().st_mtime_ns for path in stage.directory.rglob("*")}
    code, found = doctor(config)
    assert {path: path.stat().st_mtime_ns for path in stage.directory.rglob("*")} == before
    assert code == 78
    assert of(found, "problem", "agent") == [f"no agent keeps {stage.directory}/run: nothing renews tokens"]
    assert of(found, "problem", "token file") == [f"{stage.directory}/run/graph.token is not there"]
    assert of(found, "ok", "network")


def test_an_agent_that_is_gone(stage: Scene, agent: Running) -> None:
    """After a kill the token is still good, but nobody renews it: a problem. After `once` it is a note."""
    config = stage.directory / "config.toml"
    agent.stop(signal.SIGKILL)
    _, found = doctor(config)
    assert of(found, "problem", "status") == ["stopped, the token serves for 59 min"]
    assert run("once", "--config", config).returncode == 0
    code, found = doctor(config)
    assert (code, of(found, "note", "agent")) == (0, ["no agent is running; `token-agent once` was run last"])


@pytest.mark.parametrize("gone", [False, True])
def test_a_token_that_is_not_what_was_written(stage: Scene, *, gone: bool) -> None:
    """A token file that was altered or removed is one problem, and that its token serves is not said."""
    config = stage.config()
    assert run("once", "--config", config).returncode == 0
    path = stage.directory / "run" / "graph.token"
    path.unlink() if gone else path.write_text("another")
    code, found = doctor(config)
    said = f"{path} is not there" if gone else f"{path}: the token file was altered, and does not hold the token"
    assert (code, of(found, "problem")) == (78, [said])
    assert not [each for each in found if "serves" in each["message"]]


def test_an_agent_that_is_stopped(stage: Scene, agent: Running) -> None:
    """An agent that a signal has stopped is a problem, with the command that lets it go on."""
    config = stage.directory / "config.toml"
    agent.send(signal.SIGSTOP)
    code, found = doctor(config)
    (problem,) = [each for each in found if each["level"] == "problem"]
    assert code == 78
    assert problem["message"].endswith(f"(pid {agent.pid}), and was stopped by a signal: it does nothing")
    assert f"kill -CONT {agent.pid}" in problem["fix"]
    agent.send(signal.SIGCONT)
    assert doctor(config)[0] == 0


def test_an_agent_that_is_mute(stage: Scene) -> None:
    """An agent that takes a question and says nothing within seconds is a problem."""
    config, directory = stage.config(), stage.directory / "run"
    directory.mkdir()
    with lock.hold(directory), control.listen(directory):
        code, found = doctor(config)
    assert code == 78
    (message,) = [message for message in of(found, "problem", "agent") if "left a status" not in message]
    assert message.endswith("does not answer at its control socket within 8 s")


def test_a_certificate_that_the_provider_refuses(stage: Scene, agent: Running) -> None:
    """A new certificate that is not registered is a warning with its fix while the old one serves; it looks right."""
    config, pair = stage.directory / "config.toml", current_certificate(number=1)
    written(stage.directory / "new.pem", pair.pem).replace(stage.certificate)
    assert run("reload", "--config", config).returncode == 0
    wait_for_status(config, lambda document: bool(document["profiles"][0]["credential"]["candidate_error"]))
    code, found = doctor(config)
    (warning,) = [each for each in found if each["level"] == "warning" and each["area"] == "credential"]
    assert code == 0
    assert f"not used: {stage.certificate} (thumbprint {pair.thumbprint}): AADSTS700027" in warning["message"]
    assert warning["fix"].startswith(f"upload the .cer of certificate {pair.thumbprint}")
    assert warning["fix"].endswith("> Certificates & secrets")
    assert not [message for message in of(found, "ok", "credential") if "can be used" in message]
    written(stage.certificate, b"nonsense")
    assert run("reload", "--config", config).returncode == 0
    wait_for_status(config, lambda document: "AADSTS" not in document["profiles"][0]["credential"]["candidate_error"])
    _, found = doctor(config)
    assert (len(of(found, "problem", "credential")), of(found, "warning", "credential")) == (1, [])


def test_a_profile_that_fails(stage: Scene) -> None:
    """What the agent last heard is told with its fix: a refusal needs a person, an outage only time."""
    stage.provider.unregister()
    config = stage.config()
    with start("run", "--config", config):
        wait_for_status(config, lambda document: bool(document["profiles"][0]["last_error"]))
        code, found = doctor(config)
    assert code == 78
    assert "AADSTS700016" in of(found, "problem", "status")[0]


def test_a_hook_that_fails(stage: Scene) -> None:
    """A hook that failed is a warning that says how, while the token is fresh, and exits 0."""
    config = stage.config(stage.profile(on_refresh={"command": ["/bin/false"], "min_interval": "0s"}))
    with start("run", "--config", config):
        wait_for_status(config, lambda document: fresh(document) and document["profiles"][0]["hook"]["error"])
        code, found = doctor(config)
    assert (code, of(found, "warning", "hook")) == (0, ["on_refresh failed: command: exit code 1"])
    assert of(found, "ok", "status") == ["fresh, the token serves for 59 min"]


def test_only_the_network(stage: Scene, agent: Running) -> None:
    """If nothing but the network is wrong the exit code is 75; with a local problem beside it, 78."""
    stage.provider.fault("drop", None)
    config = stage.directory / "config.toml"
    code, found = doctor(config)
    assert (code, len(of(found, "problem")), len(of(found, "problem", "network"))) == (75, 1, 1)
    (stage.directory / "run").chmod(0o700)
    assert doctor(config, "--user", str(OTHER))[0] == 78


def test_a_configuration_that_is_refused(stage: Scene, agent: Running) -> None:
    """Every problem of the configuration is told with file and line; the agent is examined all the same."""
    config = stage.config(stage.profile(clientid="x"), log_levl="info")
    code, found = doctor(config)
    assert code == 78
    problems = of(found, "problem", "configuration")
    assert len(problems) == 2
    assert all(problem.startswith(f"{config}:") for problem in problems)
    assert of(found, "ok", "agent")


def test_no_configuration(stage: Scene) -> None:
    """Where there is no configuration that comes first, and nothing says to start the agent before there is one."""
    path = tools(stage.directory, systemctl=unit(ActiveState="inactive", SubState="dead"))
    config = stage.directory / "no.toml"
    code, found = doctor(config, PATH=path, RUNTIME_DIRECTORY=str(stage.directory))
    assert code == 78
    assert (found[0]["level"], found[0]["message"]) == (
        "problem",
        f"there is no configuration: {config} does not exist",
    )
    assert "config.example.toml" in found[0]["fix"]
    assert [each["fix"] for each in found[1:] if each["level"] == "problem"] == [
        "first the configuration; then systemctl start token-agent"
    ] * 2


@pytest.mark.parametrize(
    ("shown", "level", "said"),
    [
        ({}, "ok", "token-agent.service is active (running)"),
        ({"LoadState": "not-found"}, "note", "systemd knows no usable token-agent.service (not-found)"),
        ({"LoadState": "bad-setting"}, "problem", "systemd knows no usable token-agent.service (bad-setting)"),
        ({"LoadState": "masked"}, "problem", "systemd knows no usable token-agent.service (masked)"),
        ({"ActiveState": "inactive", "SubState": "dead"}, "problem", "token-agent.service is inactive (dead)"),
        (
            {"UnitFileState": "disabled"},
            "warning",
            "token-agent.service is not enabled (disabled): it is gone after the next boot",
        ),
        (
            {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "ExecMainStatus": "78"},
            "problem",
            "token-agent.service is failed (failed), result exit-code, exit status 78",
        ),
        ({"NRestarts": "7"}, "warning", "systemd has restarted it by itself (NRestarts=7)"),
    ],
    ids=str,
)
def test_the_unit(stage: Scene, shown: dict[str, str], level: str, said: str) -> None:
    """What systemd says of the unit is told."""
    path = tools(stage.directory, systemctl=unit(**shown))
    _, found = doctor(stage.config(), PATH=path)
    assert said in of(found, level, "unit")


@pytest.mark.parametrize(
    ("shown", "fix"),
    [
        ({"LoadState": "masked", "UnitFileState": "masked"}, "systemctl unmask token-agent"),
        ({"LoadState": "masked", "UnitFileState": "masked-runtime"}, "systemctl unmask --runtime token-agent"),
        ({"UnitFileState": "disabled"}, "systemctl enable token-agent"),
        ({"UnitFileState": "enabled"}, ""),
    ],
    ids=str,
)
def test_how_a_unit_is_installed(stage: Scene, shown: dict[str, str], fix: str) -> None:
    """A unit that is masked is unmasked, one that is not there after the next boot is enabled."""
    _, found = doctor(stage.config(), PATH=tools(stage.directory, systemctl=unit(**shown)))
    assert "".join(each["fix"] for each in found if each["area"] == "unit") == fix


@pytest.mark.parametrize(("answer", "level"), [("yes", "ok"), ("no", "warning"), ("", "note")])
def test_ntp(stage: Scene, answer: str, level: str) -> None:
    """Whether the clock is synchronised is told, as far as timedatectl knows."""
    _, found = doctor(stage.config(), PATH=tools(stage.directory, timedatectl=f"NTPSynchronized={answer}"))
    assert [each["level"] for each in found if each["subject"] == "NTP"] == [level]


def test_without_systemd(stage: Scene) -> None:
    """Where there are no tools of systemd, a line says so, and the rest is examined."""
    nothing = stage.directory / "nothing"
    nothing.mkdir()
    _, found = doctor(stage.config(), PATH=str(nothing))
    assert of(found, "note", "unit") == ["there is no systemd here to ask, so the unit was not examined"]
    assert of(found, "ok", "network")


@needs_root
def test_the_agents_user(stage: Scene) -> None:
    """The unit's user, with its groups, is tried on the key; where it cannot read, that is a problem with two fixes."""
    path = tools(stage.directory, systemctl=unit(User="nobody", SupplementaryGroups="daemon"))
    config = stage.config()
    stage.certificate.chmod(0o600)
    stage.provider.ca_file.parent.chmod(0o755)
    _, found = doctor(config, PATH=path)
    (problem,) = [each for each in found if each["level"] == "problem" and each["area"] == "credential"]
    assert problem["message"] == f"the agent's user nobody cannot read {stage.certificate} (0600 root:root)"
    assert problem["fix"] == f"setfacl -m u:nobody:r {stage.certificate}; or LoadCredential= in the unit"
    shutil.chown(stage.certificate, group="daemon")
    stage.certificate.chmod(0o640)
    _, found = doctor(config, PATH=path)
    assert f"the agent's user nobody can read {stage.certificate}" in of(found, "ok", "credential")


@needs_root
def test_what_the_agent_may_do_besides(stage: Scene) -> None:
    """A unit that may read everything is not kept out by a directory; one that may not is told of it once."""
    folder = stage.directory / "live"
    folder.mkdir(mode=0o700)
    written(folder / "cert.pem", stage.pair.cert_pem).chmod(0o644)
    written(folder / "key.pem", stage.pair.key_pem).chmod(0o600)
    stage.provider.ca_file.parent.chmod(0o755)
    config = stage.config(stage.profile(certificate={"path": folder / "cert.pem", "key": folder / "key.pem"}))
    _, found = doctor(config, PATH=tools(stage.directory, systemctl=unit(User="nobody")))
    assert of(found, "problem", "credential") == [f"the agent's user nobody cannot enter {folder} (0700 root:root)"]
    assert of(found, "warning", "credential") == []
    able = unit(User="nobody", AmbientCapabilities="cap_dac_read_search")
    _, found = doctor(config, PATH=tools(stage.directory, systemctl=able))
    assert of(found, "problem", "credential") == []
    assert f"the agent's user nobody can read {folder}/key.pem" in of(found, "ok", "credential")
    without = unit(User="root", CapabilityBoundingSet="")
    (folder / "key.pem").chmod(0o040)
    _, found = doctor(config, PATH=tools(stage.directory, systemctl=without))
    (message,) = of(found, "problem", "credential")
    assert message == f"the agent's user root cannot read {folder}/key.pem (0040 root:root)"


def test_credentials(stage: Scene) -> None:
    """A key that is open to all, a certificate about to end, and one that cannot be used are told with their fix."""
    now = datetime.now(UTC)
    soon = make_certificate("soon", pool_key(1), not_before=now - timedelta(9), not_after=now + timedelta(5, 60))
    written(stage.directory / "soon.pem", soon.pem)
    (stage.directory / "soon.pem").chmod(0o644)
    config = stage.config(
        stage.profile(certificate=stage.directory / "soon.pem"),
        stage.profile("missing", certificate=stage.directory / "missing.pem"),
        stage.profile("both", certificate=[stage.directory / "soon.pem", stage.certificate]),
    )
    _, found = doctor(config)
    warnings = [each for each in found if each["level"] == "warning" and each["area"] == "credential"]
    assert [(each["subject"], each["message"]) for each in warnings] == [
        ("graph", f"the certificate {stage.directory}/soon.pem expires in 5 days"),
        ("graph", f"{stage.directory}/soon.pem is open to all users (mode 0644)"),
        ("both", f"{stage.directory}/soon.pem is open to all users (mode 0644)"),
    ]
    assert warnings[1]["fix"] == f"chmod o= {stage.directory}/soon.pem"
    assert of(found, "problem", "credential") == [f"{stage.directory}/missing.pem: does not exist"]


def place_findings(stage: Scene, **token_file: Any) -> Found:
    config = stage.config(stage.profile(token_file=[{"path": "graph.token"} | token_file]))
    return [each for each in doctor(config)[1] if each["area"] == "token file"]


def test_rights_that_are_not_those_configured(stage: Scene) -> None:
    """A token file with another mode than configured is a problem; if all may read it, that is said."""
    assert run("once", "--config", stage.config()).returncode == 0
    path = stage.directory / "run" / "graph.token"
    path.chmod(0o644)
    (message,) = of(place_findings(stage), "problem")
    assert message == (
        f"{path} has other rights than configured (0644 root:root instead of 0600): everybody may read the token"
    )
    path.chmod(0o600)
    assert f"{path} has the rights it should have (0600 root:root)" in of(place_findings(stage), "ok")
    (message,) = of(place_findings(stage, readers=["user:daemon"]), "problem")
    assert message.endswith("instead of 0600, readers user:daemon)")


def test_what_stands_in_place_of_a_token(stage: Scene) -> None:
    """A link, unless it is to be followed, and anything that is no file, are named."""
    folder = stage.directory / "run"
    folder.mkdir()
    (folder / "graph.token").symlink_to("elsewhere")
    (folder / "elsewhere").mkdir()
    assert of(place_findings(stage), "problem") == [f"{folder}/graph.token is a symbolic link"]
    found = place_findings(stage, follow_symlink=True)
    assert of(found, "problem") == [f"{folder}/elsewhere is not a regular file"]


def test_a_directory_that_is_not_there(stage: Scene) -> None:
    """A directory that nobody has made is one problem, with the command that makes it; nobody is said to reach it."""
    missing = stage.directory / "srv" / "app"
    config = stage.config(stage.profile(token_file=[{"path": missing / "token", "readers": ["user:daemon"]}]))
    _, found = doctor(config)
    assert of(found, "problem", "token file") == [
        f"{missing}/token: the directory {stage.directory}/srv does not exist"
    ]
    assert [each["fix"] for each in found if each["area"] == "token file"] == [
        f"install -d -o token-agent -m 0755 {missing}"
    ]
    assert [each["level"] for each in found if each["area"] == "reader"] == ["note"]
    (stage.directory / "srv").touch()
    assert of(doctor(config)[1], "problem", "token file") == [f"{missing}/token: {stage.directory}/srv is no directory"]


def test_leftovers(stage: Scene) -> None:
    """Temporary files of a killed agent are counted, those of a write that may be under way are not."""
    folder = stage.directory / "run"
    folder.mkdir()
    for name in (".graph.token.0123456789abcdef.tmp", ".graph.token.1123456789abcdef.tmp", ".other.tmp"):
        (folder / name).touch()
        os.utime(folder / name, (0, 0))
    (folder / ".graph.token.2123456789abcdef.tmp").touch()
    (message,) = [each for each in of(place_findings(stage), "warning") if "temporary" in each]
    assert message == (f"2 temporary files left beside {folder}/graph.token, such as .graph.token.0123456789abcdef.tmp")


@needs_root
def test_file_systems(stage: Scene) -> None:
    """A tmpfs is good, a disk is a note, and what PrivateTmp= hides is a warning."""
    warned = of(place_findings(stage), "warning")
    private = str(stage.directory).startswith("/tmp/")
    assert [each.partition(": ")[2] for each in warned] == (
        ["a service with PrivateTmp= does not see this /tmp"] if private else []
    )
    found = sink_helpers.call(_on_tmpfs, stage.directory, who=sink_helpers.Who(mounts=True))
    assert found == ("tmpfs", stage.directory / "memory with blanks")


def _on_tmpfs(directory: Path) -> tuple[str, Path]:
    from agent.doctor import surroundings  # noqa: PLC0415 - in the child

    target = directory / "memory with blanks"
    target.mkdir()
    sink_helpers.mount("tmpfs", "tmpfs", target, "size=1m")
    mount = surroundings.mount_of(target / "below" / "token")
    return mount.kind, mount.point


@needs_root
def test_a_mount_that_only_the_agent_sees(stage: Scene) -> None:
    """A token that the agent writes into a mount of its own is found out, since another file or none is here."""
    path = stage.directory / "file"
    path.touch()
    child = sink_helpers.start(_hide_until_killed, stage.directory, who=sink_helpers.Who(mounts=True))
    sink_helpers.wait_until_ready(child)
    try:
        from agent.doctor import surroundings  # noqa: PLC0415 - beside its use

        assert surroundings.differs_for(child.pid, path)
        assert not surroundings.differs_for(os.getpid(), path)
    finally:
        _end(child)
    assert not surroundings.differs_for(child.pid, path)


def _hide_until_killed(directory: Path) -> None:
    sink_helpers.mount("tmpfs", "tmpfs", directory, "size=1m")
    sink_helpers.ready()
    signal.pause()


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.communicate()


def test_the_agents_own_environment(stage: Scene) -> None:
    """Directories of systemd that only the running agent knows are taken from it."""
    credentials = stage.directory / "credentials"
    credentials.mkdir()
    stage.certificate.rename(credentials / "graph.pem")
    config = stage.config(stage.profile(certificate="${CREDENTIALS_DIRECTORY}/graph.pem"))
    code, found = doctor(config)
    assert "CREDENTIALS_DIRECTORY" in of(found, "problem", "configuration")[0]
    with start("run", "--config", config, environ={"CREDENTIALS_DIRECTORY": str(credentials)}):
        wait_for_status(config, fresh)
        code, found = doctor(config)
    assert (code, of(found, "problem")) == (0, [])


@needs_root
def test_without_root(stage: Scene, agent: Running) -> None:
    """Another user is told what was not tried and what may not be seen, and that is no problem of the system's."""
    config = stage.directory / "config.toml"
    code, found = sink_helpers.call(doctor_helpers.examine, config, stage.directory / "run", who=Who(NOBODY))
    assert code == 0, found
    notes = of(found, "note")
    assert any("you are not root" in note for note in notes)
    assert f"{stage.certificate}: you may not read it, so it was not examined" in notes
    assert of(found, "problem") == []
