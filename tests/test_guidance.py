"""The report's line of guidance rests on published tables, and says nothing that they do not show."""

import re
from pathlib import Path

import pytest
from test_docs import ROOT

import tinyfl
from tinyfl.config import resolve
from tinyfl.report.guidance import TABLES, Published, guidance

CALLED = {
    "tinyreptile": "tinyreptile",
    "reptile": "reptile",
    "fedavg": "fedavg",
    "joint": "joint",
    "joint training": "joint",
    "protonet": "protonet",
    "protonet, by class means": "protonet",
    "embedding, by class means": "embedding",
}
"""The algorithms by what the pages call them."""


def published(table: Published) -> dict[str, tuple[float, float]]:
    """The column's figures of algorithms as they are on the page, in the section's first table that has the column."""
    section = (ROOT / table.page).read_text().split(f"\n## {table.section}\n")[1].split("\n## ")[0]
    blocks = [
        [line.strip("|").split("|") for line in block.splitlines()] for block in section.split("\n\n") if block[:1] == "|"
    ]
    heads = [[cell.strip() for cell in head] for head, *_ in blocks]
    number = next(n for n, head in enumerate(heads) if table.column in head)
    found = {}
    for cells in blocks[number][2:]:
        mean, half = re.findall(r"[0-9.]+", cells[heads[number].index(table.column)])
        if name := CALLED.get(cells[0].strip().lower()):
            found[name] = (float(mean), float(half))
    return found


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.task}, {table.column}")
def test_the_codes_figures_are_those_of_the_page(table: Published) -> None:
    assert table.figures == published(table)


def test_another_algorithm_is_named_only_where_the_intervals_lie_apart() -> None:
    table = Published("t", "", "", "", {"a": (90.0, 1.0), "b": (88.5, 1.0), "c": (80.0, 1.0)})
    assert [table.better(name) for name in "abc"] == ["", "", "a"]
    errors = Published("t", "", "", "", {"a": (0.1, 0.01), "b": (0.2, 0.01)}, lower=True)
    assert [errors.better(name) for name in "ab"] == ["", "a"]


def test_a_run_is_told_what_does_better_on_its_task() -> None:
    assert "tinyreptile does better: 94.8 % against 93.9 % of reptile" in guidance(resolve({"algorithm": "reptile"}))
    assert guidance(resolve({"algorithm": "tinyreptile"})) == ""
    words = {"task": "keywords", "data": "words.npz", "algorithm": "protonet"}
    assert "tinyreptile does better: 87.8 %" in guidance(resolve(words))
    assert guidance(resolve({**words, "episodes": "classes"})) == ""
    assert "embedding does better" in guidance(resolve({**words, "episodes": "classes", "algorithm": "joint"}))
    assert guidance(resolve({"task": "npz", "data": "own.npz", "algorithm": "joint"})) == ""


def test_the_report_has_the_line(tmp_path: Path) -> None:
    run = tinyfl.simulate(algorithm="joint", task="digits", network="mlp-8", rounds=4, tasks=20, shots=1, out=tmp_path / "run")
    assert "tinyreptile does better" in (run.path / "report.html").read_text()
