"""The shape of the program, held by machine: layers, owners of outside things, sizes, words."""

from __future__ import annotations

import ast
import functools
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
AGENT = ROOT / "agent"

PURE = {
    "errors", "tokens", "schedule", "rotation", "config", "formats", "diagnosis", "aadsts", "harmless", "status",
    "state", "words", "hookplan", "redaction", "headline", "health", "tally", "admission",
}  # fmt: skip
EDGES = {
    "child", "clock", "control", "credentials", "files", "hooks", "journal", "lock", "log", "memory", "messages",
    "metrics", "network", "output", "pidfile", "reception", "serving", "sockets", "streams", "systemd", "watching",
    "threads", "users", "web", "workers",
}  # fmt: skip
"""Each wraps one outside thing; they do not import one another, but all may read (`files`), speak, name users and count
threads."""
ENGINE = {"engine"}
SHELL = {"__init__", "__main__", "cli", "commands", "peek"}
BESIDE = {"emulator", "demo", "doctor"}
LAYERS = (PURE, EDGES, ENGINE, SHELL, BESIDE)

OWNERS = {
    "msal": {"network.entra"},
    "requests": set(),
    "urllib3": set(),
    "http.client": {"network.connection"},
    "ssl": {"network.transport", "network.trust", "emulator"},
    "socket": {
        "network",
        "commands",
        "doctor.network",
        "emulator",
        "control",
        "reception",
        "sockets",
        "journal",
        "systemd",
    },
    "prometheus_client": {"metrics"},
    "cryptography": {"credentials", "emulator"},
    "watchfiles": {"watching.listener"},
    "subprocess": {"demo", "doctor.surroundings", "hooks"},
    "fcntl": {"journal", "lock"},
    "structlog": {"log"},
    "random": {"commands"},
    "tomllib": {"config.source", "config.locate", "peek"},
    "datetime.now": {"clock", "credentials.making", "commands", "demo", "emulator"},
    "time": {
        "clock",
        "network",
        "demo",
        "doctor.network",
        "commands",
        "emulator",
        "control",
        "child",
        "hooks",
        "systemd",
    },
    "environ": {"cli", "commands", "demo", "emulator"},
}
"""Who may touch what. `network` and `control` read the monotonic clock for the deadlines of sockets, nothing else."""


def modules() -> list[Path]:
    return sorted(AGENT.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module, or the package it belongs to: agent/emulator/server.py is `emulator`."""
    return path.relative_to(AGENT).parts[0].removesuffix(".py")


def full_name_of(path: Path) -> str:
    """The module with its package: agent/network/trust.py is `network.trust`."""
    return ".".join(path.relative_to(AGENT).with_suffix("").parts)


@functools.cache
def imports(path: Path, *, types_too: bool = False) -> set[str]:
    """All dotted names a module imports when it runs; those of `if TYPE_CHECKING` only when asked for."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not types_too:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def own_imports(path: Path, *, types_too: bool = False) -> set[str]:
    names = {name.split(".")[1] for name in imports(path, types_too=types_too) if name.startswith("agent.")}
    return {name for name in names if (AGENT / f"{name}.py").exists() or (AGENT / name).is_dir()}


def layer_of(name: str) -> int:
    for layer, members in enumerate(LAYERS):
        if name in members:
            return layer
    pytest.fail(f"{name} has no layer: put it into one in {Path(__file__).name}")


def test_imports_point_down() -> None:
    """A module imports from its own layer or a lower one, never from a higher one; `demo` may use all."""
    wrong = [
        f"{name_of(path)} imports {imported}"
        for path in modules()
        for imported in own_imports(path)
        if layer_of(imported) > layer_of(name_of(path)) and name_of(path) != "commands" and name_of(path) != "__main__"
    ]
    assert not wrong


def test_nothing_of_the_agent_imports_what_stands_beside() -> None:
    """Emulator, demo and doctor are reached by their commands alone."""
    wrong = [
        str(path.relative_to(AGENT))
        for path in modules()
        if own_imports(path) & BESIDE and name_of(path) not in BESIDE and path.parent.name != "commands"
    ]
    assert not wrong


def test_edges_do_not_import_one_another() -> None:
    """Each edge wraps one outside thing; few know the form of what another one handles, as `allowed` says."""
    allowed = {
        ("network", "credentials"),
        ("reception", "control"),
        ("reception", "serving"),
        ("web", "serving"),
        ("control", "sockets"),
        ("control", "lock"),
        ("log", "journal"),
    }
    wrong = {
        (name_of(path), other)
        for path in modules()
        if name_of(path) in EDGES
        for other in own_imports(path) & EDGES - {name_of(path), "files", "messages", "threads", "users"}
    }
    assert not wrong - allowed


def test_pure_modules_touch_nothing() -> None:
    """Layer 1 reads no clock, environment, randomness, file or network."""
    forbidden = re.compile(
        r"\bdatetime\.now\b|\butcnow\b|\btime\.time\b|\bos\.|\bopen\(|\.read_text\(|\.read_bytes\(|\brandom\b"
        r"|\bsocket\b|\bsecrets\.\b|environ\b(?!:|\[|\.get|,|\)| )"
    )
    for path in modules():
        if name_of(path) in PURE:
            code = _without_strings(path)
            met = forbidden.findall(code)
            assert not met, f"{path.name}: {met}"
            assert not imports(path) & {"os", "time", "random", "socket", "secrets", "subprocess", "threading"}, path


def _without_strings(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.unparse(tree)


@pytest.mark.parametrize("thing", OWNERS)
def test_outside_things_have_one_owner(thing: str) -> None:
    """Time, MSAL, cryptography, processes and the like are each touched in one place."""
    for path in modules():
        if {name_of(path), full_name_of(path)} & OWNERS[thing]:
            continue
        code = _without_strings(path)
        if thing in ("datetime.now", "environ"):
            used = bool(re.search(rf"\b{'os.environ' if thing == 'environ' else re.escape(thing)}\b", code))
        else:
            used = any(name == thing or name.startswith(f"{thing}.") for name in imports(path))
        assert not used, f"{path.relative_to(ROOT)} uses {thing}, which belongs to {sorted(OWNERS[thing])}"


def test_only_the_command_line_catches_everything() -> None:
    """`except Exception` hides bugs; it stands once, where a bug becomes exit code 1."""
    places = [
        f"{path.name}:{node.lineno}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name) and node.type.id == "Exception"
    ]
    assert [place.split(":")[0] for place in places] == ["cli.py"]


def test_edges_and_pure_code_do_not_log() -> None:
    """The engine logs one event per attempt; whoever raises does not log as well."""
    for path in modules():
        if name_of(path) in PURE | EDGES - {"log"}:
            assert not re.search(r"\blog\.(debug|info|warning|error|exception)\(", _without_strings(path)), path.name


def test_modules_are_short() -> None:
    """No module is longer than 300 lines."""
    long = {str(path.relative_to(ROOT)): text for path in modules() if (text := path.read_text().count("\n")) > 300}
    assert not long


def test_functions_are_short() -> None:
    """Median at most 10 lines, nine of ten at most 25, none above 45, none nested deeper than three."""
    lengths, deep = [], []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = [statement for statement in node.body if not _is_docstring(statement)]
                length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 1
                lengths.append((length, f"{path.name}:{node.name}"))
                if _depth(node) > 3:
                    deep.append(f"{path.name}:{node.name}")
    numbers = sorted(length for length, _ in lengths)
    assert statistics.median(numbers) <= 10
    assert numbers[int(len(numbers) * 0.9)] <= 25
    assert not [where for length, where in lengths if length > 45]
    assert not deep


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _depth(node: ast.AST, depth: int = 0) -> int:
    """Blocks within blocks; functions within functions count anew, `elif` does not count."""
    deepest = depth
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            is_elif = isinstance(node, ast.If) and field == "orelse" and isinstance(child, ast.If)
            is_block = isinstance(child, ast.If | ast.For | ast.AsyncFor | ast.While | ast.Try | ast.With | ast.Match)
            deepest = max(deepest, _depth(child, depth + (is_block and not is_elif)))
    return deepest


def test_every_module_says_what_it_is_for() -> None:
    """Every module has a docstring; the walk in the package's own docstring names modules that exist."""
    for path in modules():
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
    walk = ast.get_docstring(ast.parse((AGENT / "__init__.py").read_text())) or ""
    named = re.findall(r"^    ([\w.]+) {2,}", walk, re.MULTILINE)
    assert len(named) > 5
    assert not [name for name in named if not (AGENT / f"{name.replace('.', '/')}.py").exists()]


def test_every_test_states_its_property() -> None:
    """Each test has a docstring, and no test sleeps."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path.name
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
        assert "time.sleep(" not in _without_strings(path), path.name


def test_a_quarter_of_the_code_is_pure() -> None:
    """Decisions stand apart from effects: a quarter of the agent's own lines are in layer 1."""
    lines = {path: path.read_text().count("\n") for path in modules() if name_of(path) not in BESIDE | {"commands"}}
    assert sum(n for path, n in lines.items() if name_of(path) in PURE) >= sum(lines.values()) / 4
