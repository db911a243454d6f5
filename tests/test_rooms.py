"""The rooms of the package, who may import whom (docs/CODE.md), and the same of the agent's files in C."""

import ast
import re
from collections import defaultdict
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import tinyfl

PACKAGE = Path(tinyfl.__file__).parent
FIRMWARE = Path(__file__).parents[1] / "firmware"


@cache
def modules() -> dict[str, Path]:
    """Every module of the package, the simulators included, by its name."""
    found = {}
    for top, name in ((PACKAGE, "tinyfl"), (PACKAGE / "simulators", "tinyfl.simulators")):
        for path in top.rglob("*.py"):
            if top == PACKAGE and path.is_relative_to(PACKAGE / "simulators"):
                continue
            parts = path.relative_to(top).with_suffix("").parts
            found[".".join([name, *(part for part in parts if part != "__init__")])] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    """The syntax tree of the module."""
    return ast.parse(modules()[name].read_text())


def imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if name in modules() else node.module for name in names]
    return []


@cache
def imports(name: str) -> tuple[str, ...]:
    """The modules that ``name`` imports, anywhere in it."""
    return tuple(other for node in ast.walk(tree(name)) for other in imported(node))


def room(module: str) -> str:
    """The package or top-level module that holds ``module``."""
    return module.split(".")[1] if "." in module else module


@cache
def arrows() -> dict[str, dict[str, list[str]]]:
    """For each room the rooms that it imports, with the imports behind each arrow."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in modules():
        for other in imports(name):
            if other.split(".")[0] == "tinyfl" and room(other) != room(name):
                found[room(name)][room(other)].append(f"{name} -> {other}")
    return found


def test_no_two_rooms_import_each_other() -> None:
    found = arrows()
    pairs = [[*found[a][b], *found[b][a]] for a in found for b in found[a] if a in found.get(b, {})]
    assert not pairs


def test_no_circle_of_modules() -> None:
    """Imports at a module's top, which is where a circle breaks."""
    graph = {
        name: {
            other
            for node in tree(name).body
            if isinstance(node, ast.ImportFrom)
            for other in imported(node)
            if other in modules() and not name.startswith(f"{other}.")
        }
        for name in modules()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names a circle


def test_no_circle_of_the_agents_files() -> None:
    """A file calls those below it; what a change makes stale is dropped in the lowest, arena.c."""
    code = {path.stem: path.read_text() for path in (FIRMWARE / "agent").glob("*.c")}
    function = re.compile(r"^\w[^;{}=]*?\b(tinyfl_\w+)\([^;{}]*\)\s*\{", re.MULTILINE)
    home = {name: stem for stem, text in code.items() for name in function.findall(text)}
    called = {stem: set(re.findall(r"tinyfl_\w+", text)) & set(home) for stem, text in code.items()}
    graph = {stem: {home[name] for name in names} - {stem} for stem, names in called.items()}
    assert "arena" in graph["round"]
    TopologicalSorter(graph).prepare()


def test_nobody_imports_the_command_line() -> None:
    assert not [name for name in arrows() if "cli" in arrows()[name]]


def test_only_the_command_line_and_a_run_make_reports() -> None:
    assert {name for name in arrows() if "report" in arrows()[name]} <= {"cli", "simulation"}


def test_only_rooms_of_federations_import_flower() -> None:
    users = {room(name) for name in modules() for other in imports(name) if other.split(".")[0] == "flwr"}
    assert users <= {"flower", "deployment", "aggregators", "simulators"}


def test_algorithms_are_pure() -> None:
    assert set(arrows()["algorithms"]) <= {"codecs", "core", "errors"}


def test_only_links_devices_and_flash_know_ports() -> None:
    users = {
        room(name) for name in modules() for other in imports(name) if other.split(".")[0] in ("serial", "smp", "smpclient")
    }
    assert users <= {"link", "devices", "flash", "simulators"}


def test_every_room_says_what_it_is_for() -> None:
    rooms = [name for name, path in modules().items() if path.name == "__init__.py" or name.count(".") == 1]
    silent = [name for name in rooms if not ast.get_docstring(tree(name))]
    assert silent in ([], ["tinyfl.cli.__main__"])
