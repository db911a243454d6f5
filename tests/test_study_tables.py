"""The table of a study: its intervals against SciPy's, another tool's column, and the page of hostile words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from test_studies import file_of

from tinyfl.errors import ConfigError
from tinyfl.report.study import difference
from tinyfl.studies import table
from tinyfl.studies.beside import beside, read_columns
from tinyfl.studies.file import read_study


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def result(values: list[float], key: str = "accuracy", tasks: int = 100) -> dict[str, Any]:
    rows = [
        {"mode": "batch", "shots": 5, "steps": steps, "loss": 1.0, "loss_ci95": 0.1, "accuracy": None, "tasks": tasks}
        | {"accuracy_ci95": None, key: value, f"{key}_ci95": 0.02}
        for steps, value in zip((0, 10), values, strict=True)
    ]
    return {"evaluation": rows}


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
def test_means_and_paired_differences_have_students_intervals(pairs: list[tuple[float, float]]) -> None:
    mine, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    assume(min(mine.std(), (mine - theirs).std()) > 1e-6)
    row = table.over_seeds(list(mine), None)
    expected = stats.ttest_1samp(mine, 0).confidence_interval(0.95)
    assert (row["mean"] - row["ci95"], row["mean"] + row["ci95"]) == pytest.approx(tuple(expected), abs=1e-9)
    of = [{i: result([0.5, float(value)]) for i, value in enumerate(side)} for side in (mine, theirs)]
    (difference,) = table._paired(*of)
    low, high = stats.ttest_rel(mine, theirs).confidence_interval(0.95)
    assert difference["mean"] - difference["ci95"] == pytest.approx(low, abs=1e-9)
    if min(abs(low), abs(high)) > 1e-9:
        assert difference["is"] == ("better" if low > 0 else "worse" if high < 0 else "undecided")


def test_labels_are_compared_by_their_average_precision_as_in_a_runs_report() -> None:
    mine, theirs = ({i: result([0.1, base + i / 100], "macro_ap") for i in range(3)} for base in (0.4, 0.2))
    (difference,) = table._paired(mine, theirs)
    assert (difference["mean"], difference["is"]) == (pytest.approx(0.2), "better")


def test_a_lower_loss_is_better_and_a_device_that_diverged_leaves_no_mean() -> None:
    mine, theirs = ({i: result([1.0, base + i / 100], "loss") for i in range(3)} for base in (0.2, 0.4))
    (difference,) = table._paired(mine, theirs)
    assert difference["is"] == "better"
    assert table.over_seeds([0.1, None], None)["diverged"] == 1
    assert table._paired(mine, {7: result([1.0, 0.1], "loss")}) == []
    assert table._paired(mine, {0: result([1.0, 0.1], "loss", tasks=7)}) == []


def test_named_devices_have_intervals_of_their_own_with_their_mean_over_the_seeds() -> None:
    rng = np.random.default_rng(0)
    mine, theirs = rng.uniform(0, 1, (2, 3, 6))  # seeds, devices

    def listed(values: Any) -> dict[str, Any]:
        rows = [{"device": f"p{i}", "after": {"accuracy": float(value)}} for i, value in enumerate(values)]
        return {**result([0.5, float(values.mean())]), "per_device": {"shots": 5, "steps": 10, "number": 6, "devices": rows}}

    pairs = [{i: listed(values) for i, values in enumerate(side)} for side in (mine, theirs)]
    over = {row["over"]: row for row in table._paired(*pairs)}
    low, high = stats.ttest_rel(mine.mean(axis=0), theirs.mean(axis=0)).confidence_interval(0.95)
    row = over["devices"]
    assert (row["mean"] - row["ci95"], row["mean"] + row["ci95"]) == pytest.approx((low, high))
    assert (row["n"], over["seeds"]["n"]) == (6, 3)
    pairs[0][0]["per_device"]["number"] = 7  # the worst are listed only
    assert table.over_devices([table._of_devices(pairs[0][0], "accuracy")]) is None


def test_a_single_seed_has_the_interval_over_its_devices_and_decides_nothing() -> None:
    assert table.over_seeds([0.5], 0.03) == {"mean": 0.5, "ci95": 0.03, "n": 1, "over": "devices", "values": [0.5]}
    (difference,) = table._paired({0: result([0.1, 0.9])}, {0: result([0.1, 0.2])})
    assert (difference["is"], difference["ci95"]) == ("undecided", None)


def test_another_tools_results_stand_beside_the_lines_that_they_are_for() -> None:
    Path("other.csv").write_text("algorithm,shots,accuracy,ci95\njoint,5,0.7,0.02\njoint,1,0.4,\n")
    study = read_study(file_of(rest='[[beside]]\nname = "another"\nfile = "other.csv"\n'))
    (column,) = read_columns(study)
    reached = [{"mode": "batch", "shots": shots, "steps": 10} for shots in (1, 5)]
    assert beside(column, {"algorithm": "tinyreptile"}, reached) == []
    assert [(row["shots"], row["mean"], row["ci95"]) for row in beside(column, {"algorithm": "joint"}, reached)] == [
        (1, 0.4, None),
        (5, 0.7, 0.02),
    ]
    Path("other.csv").write_text("algorithm,seed,loss\njoint,0,0.7\njoint,1,0.8\njoint,2,0.9\n")
    (column,) = read_columns(study)
    (row, _) = beside(column, {"algorithm": "joint"}, reached)
    assert (row["mean"], row["ci95"]) == pytest.approx((0.8, stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "other.csv"),
        ("algorithm,accuracy\n", "has no results"),
        ("algorithm,accuracy\nmaml,0.5\n", "the study has no algorithm maml"),
        ("colour,accuracy\nred,0.5\n", "colour is no axis"),
        ("algorithm,accuracy\njoint,half\n", "half is not a number"),
        ("algorithm,accuracy\njoint,nan\n", "not a finite number"),
        ("algorithm,accuracy,loss\njoint,0.5,0.5\n", "has one figure"),
        ("algorithm\njoint\n", "has one figure"),
    ],
)
def test_another_tools_results_that_fit_nowhere_are_refused_by_their_line(text: str | None, words: str) -> None:
    if text is not None:
        Path("other.csv").write_text(text)
    study = read_study(file_of(rest='[[beside]]\nname = "another"\nfile = "other.csv"\n'))
    with pytest.raises(ConfigError, match=words):
        read_columns(study)


@pytest.mark.parametrize("key", ["accuracy", "macro_ap", "loss"])
def test_a_page_shows_hostile_names_as_words_and_one_that_diverged_as_that(tmp_path: Path, key: str) -> None:
    from tinyfl.report.study import write_study

    evil = '<img src=x onerror="alert(1)"> $x$ \x1b[31m'
    runs = {evil: [0.5, 0.9], "_b": [0.4, 0.8], "c": [0.4, 0.7]}
    device = {"learner_bytes": 10, "held": 1, "held_bytes": 0, "down": 5, "up": 5, "gradients": 8}
    rows = [
        {
            "values": {"learner": name}, "found": {"rate": 0.1}, "n": 2, "cohort": 1, "parameters": 3, "network": evil,
            "rounds": 1, "gradients": 8, "down": 5, "up": 5, "device": device, "devices": None,
            "reached": [
                {"mode": "batch", "shots": 1, "steps": steps, **table.over_seeds([value, None if name == "c" else value], None)}
                for steps, value in zip((0, 10), values, strict=True)
            ],
            "start": [
                {"mode": "batch", "shots": 1, "steps": steps, **table.over_seeds([0.1, 0.2], None)} for steps in (0, 10)
            ],
            "curve": [{"gradients": 4, "bytes": 5, "mean": 0.3, "ci95": None}],
            "beside": {evil: [{"shots": 1, "mean": 0.2, "ci95": None, "n": 1}]},
        }
        for name, values in runs.items()
    ]  # fmt: skip
    tables = {
        "version": evil, "axes": ["learner"], "seeds": [0, 1], "runs": 6, "gradients": 8, "board": "", "notes": [evil],
        "failed": [{"run": evil, "why": evil}],
        "tables": [{"of": {"task": evil}, "metric": key, "rows": rows, "without": [], "differences": []}],
    }  # fmt: skip
    page = write_study(tmp_path, tables, title=evil, command=evil, took=evil, file=evil).read_text()
    assert "<img src=x" not in page and "\x1b" not in page
    assert "diverged" in page
    assert (tmp_path / "study.png").read_bytes()[:4] == b"\x89PNG"


def test_a_difference_that_rounds_to_nothing_has_no_sign() -> None:
    assert [difference({"mean": mean, "ci95": 0.004}, "accuracy") for mean in (-1e-4, 1e-4, -0.012)] == [
        "0.0 points ± 0.4", "0.0 points ± 0.4", "-1.2 points ± 0.4",
    ]  # fmt: skip
