"""`token-agent check` from outside: everything that is wrong in one go, nothing changed, exit codes for scripts."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.certificate_helpers import make_certificate, written
from tests.process_helpers import Scene, run, scene, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider, an app, and room."""
    with scene(tmp_path) as made:
        (tmp_path / "run").mkdir()
        (tmp_path / "state").mkdir(mode=0o700)
        yield made


def contents(directory: Path) -> dict[str, tuple[int, bytes | None]]:
    """Return everything below a directory, to be compared."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_all_is_well(stage: Scene) -> None:
    """A good configuration exits 0 and shows what was looked at: certificate, thumbprint, token file."""
    config = stage.config()
    done = run("check", "--config", config)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"configuration {config}"
    assert lines[1] == "profile graph"
    assert stage.pair.thumbprint in lines[2]
    assert "expires in 299 days" in lines[2]
    assert f"{stage.directory}/run/graph.token (raw, 0600)" in lines[3]
    assert lines[4:] == ["1 profile: all is well"]
    assert stage.provider.requests == []


def test_nothing_changes(stage: Scene) -> None:
    """No file is written, changed or left behind, with --online either."""
    config = stage.config()
    before = contents(stage.directory)
    run("check", "--config", config)
    assert run("check", "--online", "--config", config).returncode == 0
    assert contents(stage.directory) == before


def test_directories_need_not_exist(tmp_path: Path) -> None:
    """On a machine where no agent has run yet, its own directories are not missed and not made."""
    with scene(tmp_path) as stage:
        assert run("check", "--config", stage.config()).returncode == 0
        assert not (tmp_path / "run").exists()
        asked = stage.profile(token_file={"path": "graph.token", "group": "no-such-group"})
        done = run("check", "--config", stage.config(asked))
        assert done.returncode == 78
        assert "no-such-group" in done.stderr


def test_everything_at_once(stage: Scene) -> None:
    """All problems of all profiles are reported in one run, each with its hint; the exit code is 78."""
    now = datetime.now(UTC)
    expired = make_certificate(not_before=now - timedelta(days=9), not_after=now - timedelta(days=2))
    written(stage.directory / "old.pem", expired.pem)
    config = stage.config(
        stage.profile("good"),
        stage.profile("missing", certificate=stage.directory / "missing.pem"),
        stage.profile("expired", certificate=stage.directory / "old.pem"),
        stage.profile("nowhere", token_file=stage.directory / "no" / "token"),
        stage.profile("nobody", token_file=[{"path": stage.directory / "n.token", "group": "no-such-group"}]),
    )
    done = run("check", "--config", config)
    assert done.returncode == 78
    for said in ("missing.pem: ", "old.pem: ", f"{stage.directory}/no/token: ", "no-such-group", "hint: "):
        assert said in done.stderr
    assert done.stderr.count("ERROR") == 4
    assert f"ERROR    missing: certificate: {stage.directory}/missing.pem: does not exist" in done.stderr
    assert f"ERROR    nowhere: token_file: {stage.directory}/no/token: " in done.stderr
    assert done.stderr.splitlines()[-1] == "5 profiles: 4 problems"
    assert "all is well" not in done.stdout
    assert "profile good" in done.stdout


@pytest.mark.parametrize("directory", ["there", "missing"])
def test_all_of_one_token_file(stage: Scene, directory: str) -> None:
    """Of one token file owner, group, every reader and the directory are reported, where they are wrong."""
    (stage.directory / "there").mkdir()
    asked = {
        "path": stage.directory / directory / "t",
        "owner": "nobody-1",
        "group": "nogroup-2",
        "readers": ["user:nobody-3", "user:nobody-1", "group:nogroup-4", "user:root"],
    }
    done = run("check", "--config", stage.config(stage.profile(token_file=[asked])))
    assert done.returncode == 78
    said = [f"there is no user 'nobody-{each}'" for each in (1, 3)]
    said += [f"there is no group 'nogroup-{each}'" for each in (2, 4)]
    said += [f"the directory {stage.directory}/missing does not exist"] * (directory == "missing")
    said = [each.replace(f"directory {stage.directory}/missing", "directory") for each in said]
    for each in said:
        assert f"ERROR    graph: token_file: {asked['path']}: {each}" in done.stderr
    assert done.stderr.count("ERROR") == len(said)
    assert "token file" not in done.stdout


def test_what_is_wrong_elsewhere(stage: Scene) -> None:
    """A wrong key in one place does not hide what is wrong with files of the profiles that are right by themselves."""
    config = stage.config(
        stage.profile("slip", clientid="x", certificate="/nope/slip.pem"),
        stage.profile("two", client_secret_file="/nope/secret"),  # besides a certificate
        stage.profile("good"),
        stage.profile("missing", certificate="/nope/missing.pem", token_file=stage.directory / "no" / "token"),
        log_levl="info",
    )
    done = run("check", "--config", config)
    assert done.returncode == 78
    problems = [line for line in done.stderr.splitlines() if "ERROR" in line]
    assert [line for line in problems if "slip" in line or "two" in line or "log_levl" in line] == problems[:3]
    assert problems[0].startswith(f"  ERROR    {config}:")
    assert "there is no such key (did you mean `log_level`?)" in problems[0]
    assert "ERROR    missing: certificate: /nope/missing.pem: does not exist" in done.stderr
    assert f"ERROR    missing: token_file: {stage.directory}/no/token: " in done.stderr
    assert len(problems) == 5
    assert [line for line in done.stdout.splitlines() if line.startswith("profile ")] == [
        "profile good",
        "profile missing",
    ]
    assert f"ok       token file {stage.directory}/run/good.token" in done.stdout
    assert done.stderr.splitlines()[-1] == "2 profiles: 5 problems"


@pytest.mark.parametrize("slip", [{"runtime_dirr": "run"}, {"runtime_dir": 5, "state_dir": 7}], ids=str)
def test_a_directory_that_nobody_meant(stage: Scene, slip: dict[str, Any]) -> None:
    """Where the agent's directory is said wrongly, nothing is told of the default one; the rest is looked at."""
    config = stage.config(stage.profile(certificate="/nope/graph.pem"), **slip)
    if "runtime_dir" not in slip:
        lines = [line for line in config.read_text().splitlines() if not line.startswith("runtime_dir =")]
        config.write_text("\n".join(lines))
    with_proc = {"RUNTIME_DIRECTORY": "/proc/no-such", "STATE_DIRECTORY": "/proc/no-such-either"}
    done = run("check", "--config", config, environ=with_proc)
    assert done.returncode == 78
    assert done.stderr.count("ERROR") == 1 + len(slip)
    assert "ERROR    graph: certificate: /nope/graph.pem: does not exist" in done.stderr


@pytest.mark.parametrize(
    ("days", "keys", "warned"), [(20, {}, True), (40, {}, False), (20, {"warn_before": ["10d"]}, False)]
)
def test_a_certificate_that_ends_soon(stage: Scene, days: int, keys: dict[str, Any], *, warned: bool) -> None:
    """A certificate that ends within the profile's largest `warn_before` is warned of, unless a later one is there."""
    now = datetime.now(UTC)
    pair = make_certificate(not_before=now - timedelta(days=9), not_after=now + timedelta(days=days, hours=1))
    written(stage.directory / "soon.pem", pair.pem)
    soon = stage.directory / "soon.pem"
    done = run("check", "--config", stage.config(stage.profile(certificate=soon, **keys)))
    said = f"warning  graph: the certificate {soon} expires in {days} days: put a renewed one in its place"
    assert (done.returncode, said in done.stderr) == (0, warned)
    assert f"1 profile: all is well{', 1 warning' * warned}" in done.stdout
    done = run("check", "--config", stage.config(stage.profile(certificate=[soon, stage.certificate], **keys)))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"client_secret_file": "/nope"}, "graph: client_secret_file: /nope: does not exist"),
        ({"client_secret_file": "two lines"}, "graph: client_secret_file: {0}/two lines: is not one line of text"),
        ({"federated": {"assertion_file": "/nope"}}, "graph: federated.assertion_file: /nope: does not exist"),
        ({"federated": {"assertion_file": "two lines"}}, "graph: federated.assertion_file: {0}/two lines: does not"),
    ],
    ids=str,
)
def test_what_is_read_at_every_use(stage: Scene, keys: dict[str, Any], said: str) -> None:
    """Secrets and assertions that could not be used now are problems, though the agent would wait for them."""
    (stage.directory / "two lines").write_text("first\nsecond\n")
    (stage.directory / "two lines").chmod(0o600)
    config = stage.config(stage.profile(certificate=None, **keys))
    for online in ([], ["--online"]):
        done = run("check", *online, "--config", config)
        assert done.returncode == 78
        assert f"ERROR    {said.format(stage.directory)}" in done.stderr
        assert done.stderr.count("ERROR") == 1


def test_a_trust_root_that_is_none(stage: Scene) -> None:
    """A ca_file without a certificate is a problem, and hides none of the certificate's."""
    (stage.directory / "ca.pem").write_text("no certificate\n")
    broken = stage.profile("a", ca_file=stage.directory / "ca.pem", certificate="/nope/graph.pem")
    done = run("check", "--config", stage.config(broken, stage.profile("b", ca_file="/nope/ca.pem")))
    assert done.returncode == 78
    assert f"ERROR    a: ca_file: {stage.directory}/ca.pem: " in done.stderr
    assert "ERROR    a: certificate: /nope/graph.pem: does not exist" in done.stderr
    assert "ERROR    b: ca_file: /nope/ca.pem: no usable trust root: does not exist" in done.stderr


def test_a_directory_that_cannot_be_made(stage: Scene) -> None:
    """Where no directory can be, such as in /proc, it does not help that the rights would allow it."""
    done = run("check", "--config", stage.config(runtime_dir="/proc/token-agent"))
    assert done.returncode == 78
    assert "ERROR    [agent] runtime_dir: /proc/token-agent: " in done.stderr


def test_who_else_could_change_the_configuration(stage: Scene) -> None:
    """What of the configuration everybody, or another user, may write to is warned of, with the fix."""
    config, included = stage.config(include=["conf.d/*.toml"]), stage.directory / "conf.d" / "more.toml"
    included.parent.mkdir()
    included.write_text("")
    assert "warning" not in run("check", "--config", config).stderr
    included.parent.chmod(0o777)
    config.chmod(0o666)
    stage.directory.chmod(0o1777)  # sticky: nobody else can replace what is in it
    done = run("check", "--config", config)
    assert done.returncode == 0
    assert [line.partition(": ")[2] for line in done.stderr.splitlines()] == [
        f"chmod o-w {config}",
        f"chmod o-w {included.parent}",
    ]
    if os.geteuid() == 0:
        config.chmod(0o600)
        included.parent.chmod(0o755)
        os.chown(included, 65534, -1)
        said = run("check", "--config", config).stderr
        assert (
            f"{included} belongs to user nobody, who can so change what the agent does: chown root {included}" in said
        )


def test_configuration_problems(stage: Scene) -> None:
    """A file that is no configuration is reported whole: every problem with file and line; exit 78."""
    config = stage.config(stage.profile(clientid="x"), stage.profile("a", scopes=None), log_levl="info")
    done = run("check", "--config", config)
    assert (done.returncode, done.stdout) == (78, "")
    problems = done.stderr.splitlines()
    assert problems[-1] == f"token-agent: the configuration has {len(problems) - 1} problems"
    assert all(line.startswith(f"token-agent: {config}:") for line in problems[:-1])
    for said in ("log_level", "client_id", "scopes"):
        assert said in done.stderr


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (None, 0, "answered with a token for 60 min"),
        ({"kind": "error", "code": 700016}, 77, "AADSTS700016"),
        ({"kind": "status", "endpoint": "token"}, 75, "AADSTS90033"),
    ],
    ids=str,
)
def test_online(stage: Scene, fault: dict[str, object] | None, code: int, said: str) -> None:
    """--online asks the provider once for each profile, writes no token, and tells refusals from outages."""
    config = stage.config()
    if fault:
        stage.provider.fault(**fault, count=None)  # type: ignore[arg-type]
    done = run("check", "--online", "--config", config)
    assert done.returncode == code
    assert said in (done.stderr if fault else done.stdout)
    assert stage.token_requests == 1
    assert not (stage.directory / "run" / "graph.token").exists()


def test_while_an_agent_runs(stage: Scene) -> None:
    """A check beside a running agent works and does not disturb it."""
    config = stage.config()
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written")
        assert run("check", "--config", config).returncode == 0
        assert run("status", "--config", config).returncode == 0
        assert agent.stop() == 0
