"""The rooms of the package, and who may import whom (docs/CODE.md)."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import tinyfl

PACKAGE = Path(tinyfl.__file__).parent


def modules() -> dict[str, Path]:
    """Every module of the package, the simulators included, by its name."""
    found = {}
    for top, name in ((PACKAGE, "tinyfl"), (Path(*tinyfl.__path__).parent / "simulators", "tinyfl.simulators")):
        for path in top.rglob("*.py"):
            if top == PACKAGE and path.is_relative_to(PACKAGE / "simulators"):
                continue
            parts = path.relative_to(top).with_suffix("").parts
            found[".".join([name, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """The modules that ``name`` imports, anywhere in it."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def room(module: str) -> str:
    """The package or top-level module that holds ``module``."""
    return module.split(".")[1] if "." in module else module


def arrows() -> dict[str, dict[str, list[str]]]:
    """For each room the rooms that it imports, with the imports behind each arrow."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in MODULES:
        for other in imports(name):
            if other.split(".")[0] == "tinyfl" and room(other) != room(name):
                found[room(name)][room(other)].append(f"{name} -> {other}")
    return found


ARROWS = arrows()


def test_no_two_rooms_import_each_other() -> None:
    pairs = [[*ARROWS[a][b], *ARROWS[b][a]] for a in ARROWS for b in ARROWS[a] if a in ARROWS.get(b, {})]
    assert not pairs


def test_no_circle_of_modules() -> None:
    """Imports at a module's top, which is where a circle breaks."""
    graph = {
        name: {
            other
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
            for other in [f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else node.module]
            if other in MODULES and not name.startswith(f"{other}.")
        }
        for name, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_nobody_imports_the_command_line() -> None:
    assert not [name for name in ARROWS if "cli" in ARROWS[name]]


def test_only_the_command_line_and_a_run_make_reports() -> None:
    assert {name for name in ARROWS if "report" in ARROWS[name]} <= {"cli", "simulation"}


def test_only_rooms_of_federations_import_flower() -> None:
    users = {room(name) for name in MODULES for other in imports(name) if other.split(".")[0] == "flwr"}
    assert users <= {"flower", "deployment", "aggregators", "simulators"}


def test_algorithms_are_pure() -> None:
    assert set(ARROWS["algorithms"]) <= {"core", "errors"}


def test_only_links_devices_and_flash_know_ports() -> None:
    users = {room(name) for name in MODULES for other in imports(name) if other.split(".")[0] in ("serial", "smp", "smpclient")}
    assert users <= {"link", "devices", "flash", "simulators"}


def test_every_room_says_what_it_is_for() -> None:
    rooms = [name for name, path in MODULES.items() if path.name == "__init__.py" or name.count(".") == 1]
    silent = [name for name in rooms if not ast.get_docstring(ast.parse(MODULES[name].read_text()))]
    assert silent in ([], ["tinyfl.cli.__main__"])
