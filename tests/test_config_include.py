"""Configurations of several files: what is included, in which order, and what goes wrong there."""

from __future__ import annotations

import os
from pathlib import Path

from agent.config.model import Certificate
from tests.config_helpers import HEAD, entry, load, load_one, refused, the_problem, write


def test_included_files_in_order_and_once(tmp_path: Path) -> None:
    """Patterns add files sorted by name, each once, without hidden ones; their paths are relative to themselves."""
    for name in ("b", "a", ".hidden", "..data/c"):
        write(tmp_path, entry(name.strip("./").replace("/", "-")), f"conf.d/{name}.toml")
    write(tmp_path, 'include = "x"', "conf.d/README")
    config = load(tmp_path, f'[agent]\ninclude = ["conf.d/*.toml", "conf.d/**/*.toml", "*.toml"]\n{HEAD}')
    assert [profile.name for profile in config.profiles] == ["graph", "a", "b"]
    assert config.sources == tuple(tmp_path / name for name in ("config.toml", "conf.d/a.toml", "conf.d/b.toml"))
    (certificate,) = config.profiles[1].certificate
    assert certificate.path == tmp_path / "conf.d/graph.pem"
    assert config.profiles[1].token_file[0].path == Path("/run/token-agent/a.token")


def test_include_from_strange_directories(tmp_path: Path) -> None:
    """What is special to patterns stands for itself in the file's own directory and in systemd's."""
    strange = tmp_path / "a[b]*"
    for name in ("x", "y", "z"):
        write(strange, entry(name), f"{name}.toml")
    text = '[agent]\ninclude = ["${CONFIGURATION_DIRECTORY}/y.toml", "${CONFIGURATION_DIRECTORY}/[xz].toml"]'
    config = load(tmp_path, text, {"CONFIGURATION_DIRECTORY": str(strange)})
    assert [profile.name for profile in config.profiles] == ["y", "x", "z"]
    config = load(strange, '[agent]\ninclude = ["x.toml", "[yz].toml"]')
    assert [profile.name for profile in config.profiles] == ["x", "y", "z"]


def test_include_by_absolute_path(tmp_path: Path) -> None:
    """A file elsewhere is named by its whole path, or by a pattern."""
    write(tmp_path / "else.where", entry("x"), "x.toml")
    write(tmp_path / "else.where", entry("y"), "y.toml")
    for pattern, names in ((f"{tmp_path}/else.where/x.toml", ["x"]), (f"{tmp_path}/*/?.toml", ["x", "y"])):
        config = load(tmp_path / "here", f'[agent]\ninclude = "{pattern}"')
        assert [profile.name for profile in config.profiles] == names


def test_defaults_reach_included_files_with_their_own_base(tmp_path: Path) -> None:
    """A path in [defaults] is relative to the main file, also for profiles of included files."""
    text = "\n".join(line for line in entry("x").splitlines() if "certificate" not in line)
    write(tmp_path, text, "conf.d/x.toml")
    profile = load_one(tmp_path, '[agent]\ninclude = "conf.d/*"\n[defaults]\ncertificate = "all.pem"')
    assert profile.certificate == (Certificate(path=tmp_path / "all.pem"),)


def test_include_may_match_nothing(tmp_path: Path) -> None:
    """A configuration without profiles is fine where include can bring them later; it is worth a warning."""
    config = load(tmp_path, '[agent]\ninclude = "conf.d/*.toml"')
    assert config.profiles == ()
    assert any("no profile" in warning for warning in config.warnings)


def test_a_named_file_has_to_be_there(tmp_path: Path) -> None:
    """A file that is named without wildcards and missing is an error where it is named, not one of the file."""
    problem = the_problem(tmp_path, f'[agent]\ninclude = [\n"conf.d/*.toml",\n"more.toml"]\n{HEAD}')
    assert (problem.file, problem.line, problem.key) == (tmp_path / "config.toml", 4, "agent.include")
    assert f"{tmp_path}/more.toml: there is no such file" in problem.message


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    """A directory that is named says how to take all of its files."""
    (tmp_path / "conf.d").mkdir()
    problem = the_problem(tmp_path, f'[agent]\ninclude = "conf.d"\n{HEAD}')
    assert "it is a directory" in problem.message


def test_a_pipe_among_the_files_is_not_waited_for(tmp_path: Path) -> None:
    """A FIFO that a pattern matches is an error, and nobody waits for its writer."""
    (tmp_path / "conf.d").mkdir()
    os.mkfifo(tmp_path / "conf.d/x.toml")
    problem = the_problem(tmp_path, f'[agent]\ninclude = "conf.d/*.toml"\n{HEAD}')
    assert "not a regular file" in problem.message


def test_strange_patterns(tmp_path: Path) -> None:
    """A pattern that cannot be expanded is an error with its line."""
    problem = the_problem(tmp_path, f'[agent]\ninclude = ["conf.d/**.toml"]\n{HEAD}')
    assert (problem.line, problem.key) == (2, "agent.include")
    assert "cannot be expanded" in problem.message


def test_an_included_file_holds_profiles_only(tmp_path: Path) -> None:
    """[agent] and [defaults] belong in the main file, and an included file says so."""
    write(tmp_path, f"[defaults]\n[agent]\n{entry('x')}[other]\n", "x.toml")
    problems = refused(tmp_path, f'[agent]\ninclude = "x.toml"\n{HEAD}')
    assert [(problem.file.name, problem.line, problem.key) for problem in problems] == [
        ("x.toml", 1, "defaults"),
        ("x.toml", 2, "agent"),
        ("x.toml", 9, "other"),
    ]
    assert "[[profile]] entries only" in problems[0].hint


def test_problems_of_all_files_in_order(tmp_path: Path) -> None:
    """All problems of all files are told at once, in the order of files and lines, each in its file."""
    write(tmp_path, entry("b", "retries = 3"), "conf.d/2.toml")
    write(tmp_path, "[[profile]\n", "conf.d/1.toml")
    write(tmp_path, entry("graph"), "conf.d/3.toml")
    problems = refused(tmp_path, f'{HEAD}proxy = "x"\nname2 = "y"\n[agent]\nwatch = 1\ninclude = "conf.d/*.toml"\n')
    assert [(problem.file.name, problem.line) for problem in problems] == [
        ("config.toml", 7),
        ("config.toml", 8),
        ("config.toml", 10),
        ("1.toml", 1),
        ("2.toml", 7),
        ("3.toml", 2),
    ]


def test_one_token_file_of_two_files(tmp_path: Path) -> None:
    """A token file that a profile of another file writes is refused, whichever way it is spelled."""
    write(tmp_path, entry("x", 'token_file = "/run/token-agent/a/../graph.token"'), "x.toml")
    problem = the_problem(tmp_path, f'[agent]\ninclude = "x.toml"\n{HEAD}')
    assert (problem.file.name, problem.line, problem.key) == ("x.toml", 7, 'profile "x": token_file')
    assert 'profile "graph"' in problem.message


def test_a_pattern_appears_in_the_settings(tmp_path: Path) -> None:
    """Patterns in the settings are absolute, so that whoever watches can expand them anywhere."""
    config = load(tmp_path, f'[agent]\ninclude = ["conf.d/*.toml", "/etc/x/*.toml"]\n{HEAD}')
    assert config.agent.include == (f"{tmp_path}/conf.d/*.toml", "/etc/x/*.toml")
