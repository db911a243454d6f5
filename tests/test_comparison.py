"""A comparison of many runs can be read."""

import shutil
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import tinyfl
from tinyfl.report import figures, page
from tinyfl.report.comparison import curves_of, named_in
from tinyfl.runs.evaluation import LEADING_STEPS


def result(value: float | None, key: str = "accuracy") -> dict[str, Any]:
    row = {"mode": "batch", "shots": 1, "steps": LEADING_STEPS, "loss": 1.0, "loss_ci95": 0.1, "accuracy": None}
    return {"evaluation": [{**row, "accuracy_ci95": 0.1, key: value}]}


def labels(values: list[float | None], key: str = "accuracy") -> list[str]:
    return [curve.label for curve in curves_of([f"run {value}" for value in values], [result(each, key) for each in values])]


def test_few_runs_are_named_in_their_order() -> None:
    assert labels([0.1, 0.9, 0.5]) == ["run 0.1", "run 0.9", "run 0.5"]
    assert named_in([result(0.5)] * 8) == ""


@pytest.mark.parametrize(("key", "best"), [("accuracy", 39), ("loss", 1)])
def test_of_forty_runs_the_best_are_named_and_the_others_are_one_line_of_the_legend(key: str, best: int) -> None:
    values: list[float | None] = [each / 40 for each in range(1, 40)]
    found = labels([None, *values] if key == "loss" else [*values, 0.0], key)
    order = range(best, best - 8, -1) if key == "accuracy" else range(best, best + 8)
    assert found[:9] == [*(f"run {each / 40}" for each in order), "the other 32 runs"]
    assert len(found) == 40 and set(found[9:]) == {""}
    assert named_in([result(0.5)] * 40).startswith("In colour: the 8 best after 10 full-batch steps on 1 shot")


def test_no_two_named_runs_look_alike_even_without_colour() -> None:
    styles = [(curve.colour, curve.dashes) for curve in curves_of(list("abcdefgh"), [result(0.5)] * 8)]
    assert len(set(styles)) == 8 and all(dashes != after for (_, dashes), (_, after) in pairwise(styles))


@pytest.mark.slow
@pytest.mark.usefixtures("rendered")
@pytest.mark.parametrize("name", ["g", "a-name-of-a-run-that-says-all-about-its-settings-and-then-some-more-"])
def test_forty_equal_runs_leave_the_panels_room_and_are_all_best(tmp_path: Path, name: str) -> None:
    run = tinyfl.simulate(
        task="sine", network="mlp-2", cohort=2, devices=4, rounds=4, tasks=4, adapt_lr=0.01, out=tmp_path / "g"
    )
    for number in range(40):
        shutil.copytree(run.path, tmp_path / f"{name}{number}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, where the legend leaves the panels no room
        out = page.compare([tmp_path / f"{name}{number}" for number in range(40)], tmp_path / "many.html")
    rows = out.read_text().split('<th scope="row">')[1:]
    assert [row.count("best") for row in rows[:39]] == [2] * 39


def test_bands_that_lie_over_each_other_leave_what_is_below_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[int, float] = {}
    for count in (2, 8, 40):
        monkeypatch.setattr(figures, "_curve", lambda *given, count=count: drawn.update({count: given[-1]}))
        figures.adaptation(curves_of([" "] * count, [result(0.5)] * count), [])
    assert all(1 - (1 - alpha) ** min(count, 8) < 0.5 for count, alpha in drawn.items()) and len(drawn) == 3
