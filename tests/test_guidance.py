"""The report's line of guidance rests on published tables, and says nothing that they do not show."""

import re
from pathlib import Path

import pytest
from test_docs import ROOT

import tinyfl
from tinyfl.config import resolve
from tinyfl.report.guidance import TABLES, Published, guidance

CALLED = {
    "tinyreptile": "TinyReptile",
    "reptile": "Reptile",
    "fedavg": "FedAvg",
    "joint": "joint training",
    "protonet": "ProtoNet",
}


def published(table: Published) -> dict[str, tuple[float, float]]:
    """The column's figures as they are on the page."""
    section = (ROOT / table.page).read_text().split(f"\n## {table.section}\n")[1].split("\n## ")[0]
    head, _, *rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    column = [cell.strip() for cell in head].index(table.column)
    found = {}
    for cells in rows:
        mean, half = re.findall(r"[0-9.]+", cells[column])
        found[cells[0].strip()] = (float(mean), float(half))
    return found


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.task)
def test_the_codes_figures_are_those_of_the_page(table: Published) -> None:
    assert {CALLED[name]: figure for name, figure in table.figures.items()} == published(table)


def test_another_algorithm_is_named_only_where_the_intervals_lie_apart() -> None:
    table = Published("t", "", "", "", {"a": (90.0, 1.0), "b": (88.5, 1.0), "c": (80.0, 1.0)})
    assert [table.better(name) for name in "abc"] == ["", "", "a"]
    errors = Published("t", "", "", "", {"a": (0.1, 0.01), "b": (0.2, 0.01)}, lower=True)
    assert [errors.better(name) for name in "ab"] == ["", "a"]


def test_a_run_is_told_what_does_better_on_its_task() -> None:
    assert "tinyreptile does better: 94.8 % against 93.9 % of reptile" in guidance(resolve({"algorithm": "reptile"}))
    assert guidance(resolve({"algorithm": "tinyreptile"})) == ""
    assert guidance(resolve({"task": "npz", "data": "own.npz", "algorithm": "joint"})) == ""


def test_the_report_has_the_line(tmp_path: Path) -> None:
    run = tinyfl.simulate(algorithm="joint", task="digits", network="mlp-8", rounds=4, tasks=20, shots=1, out=tmp_path / "run")
    assert "tinyreptile does better" in (run.path / "report.html").read_text()
