"""Each test device's result, and tables of a run's figures."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import tinyfl
from tinyfl import cli, core
from tinyfl.errors import ConfigError, RunError
from tinyfl.errors.words import visible
from tinyfl.report import page
from tinyfl.runs import evaluation, per_device
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.learner import learner_of
from tinyfl.runs.tables import TABLES, as_csv, table

QUICK: dict[str, Any] = {"network": "mlp-4", "rounds": 12, "tasks": 40, "adapt_lr": 0.1}


@pytest.fixture(autouse=True)
def quick(no_page: None) -> None:
    """No run here is about its page."""


def named(path: Path, *, values: bool = False, outputs: int = 1) -> Path:
    """Data of devices with names; those of one have their classes, or values, at random."""
    rng = np.random.default_rng(2)
    device = np.repeat([f"room {letter}" for letter in "abcdefghij"], 30)
    kind = rng.integers(0, 3, len(device))
    x = np.eye(3)[kind] * 3 + rng.normal(0, 0.6, (len(device), 3))
    bad = device == "room d"
    y = np.where(bad, rng.integers(0, 3, len(device)), kind) * 10
    y = y + rng.normal(0, 0.1, (outputs, len(device))).squeeze() if values and outputs == 1 else y
    if outputs > 1:
        y = np.stack([y + rng.normal(size=len(device)), 100 * y + rng.normal(size=len(device))], axis=1)
    np.savez(path, x=x, y=y, device=device, split=["room b", "room d", "room h"])
    return path


def leading(result: dict[str, Any]) -> dict[str, Any]:
    return next(row for row in result["evaluation"] if (row["mode"], row["steps"]) == ("batch", 10))


@pytest.mark.parametrize("at_once", [256, 7])
@pytest.mark.parametrize("kind", ["classes", "values", "several"])
def test_the_devices_figures_are_those_of_each_alone_and_their_mean_is_the_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, at_once: int
) -> None:
    monkeypatch.setattr(per_device, "AT_ONCE", at_once)
    data = named(tmp_path / "own.npz", values=kind != "classes", outputs=2 if kind == "several" else 1)
    run = tinyfl.simulate(out=tmp_path / "run", task="npz", data=data, shots=(6, 3), **QUICK)
    found, row = run.result["per_device"], leading(run.result)
    assert (found["shots"], found["steps"], found["number"]) == (3, 10, 3)
    assert sorted(each["device"] for each in found["devices"]) == ["room b", "room d", "room h"]
    assert found["devices"][0]["device"] == "room d"
    for key in ("loss", "accuracy"):
        if row[key] is not None:
            assert np.mean([each["after"][key] for each in found["devices"]]) == pytest.approx(row[key], rel=1e-12)
    # Alone, from the outputs.
    learner = learner_of(RunDirectory(run.path).config())
    episodes = learner.task.episodes("test", 40, 3)
    names = ["room b", "room d", "room h"]
    loop = evaluation.inner_loop("batch", 3, 10, 0.1)
    for number, name in enumerate(names):
        mine = episodes.chosen(np.flatnonzero(episodes.device == number))
        adapted = core.adapt(learner.network.plan, run.theta, mine.support, mine.query, (10,), loop, outputs=True)
        each = next(each for each in found["devices"] if each["device"] == name)
        assert each["draws"] == len(mine.device)
        if kind == "classes":
            right = (adapted.outputs[0].argmax(axis=2) == mine.query.labels).mean()  # type: ignore[index]
            assert each["after"]["accuracy"] == pytest.approx(right, rel=1e-6)
        else:
            standard = learner.task.standardisation
            errors = standard.target_scale * (adapted.outputs[0] - mine.query.targets[mine.query.rows])  # type: ignore
            assert each["after"]["loss"] == pytest.approx((errors**2).mean(), rel=1e-4)
            assert each["after"]["accuracy"] is None


def test_the_confusion_matrix_counts_every_answer(tmp_path: Path) -> None:
    run = tinyfl.simulate(out=tmp_path / "run", task="npz", data=named(tmp_path / "own.npz"), shots=(3,), **QUICK)
    found = run.result["confusion"]
    counts = np.array(found["counts"])
    assert found["classes"] == ["0", "10", "20"]
    learner = learner_of(RunDirectory(run.path).config())
    query = learner.task.episodes("test", 40, 3).query
    assert counts.sum(axis=1).tolist() == np.bincount(query.labels.ravel(), minlength=3).tolist()  # type: ignore[union-attr]
    assert np.trace(counts) / counts.sum() == pytest.approx(leading(run.result)["accuracy"], rel=1e-6)


def test_only_the_users_classes_have_a_confusion_matrix_and_made_up_devices_are_the_worst_few(tmp_path: Path) -> None:
    result = tinyfl.simulate(out=tmp_path / "run", task="digits", **QUICK).result
    found = result["per_device"]
    assert "confusion" not in result  # each device has labels of its own
    assert (found["number"], len(found["devices"])) == (40, 20)
    accuracies = [row["after"]["accuracy"] for row in found["devices"]]
    assert accuracies == sorted(accuracies)


def test_devices_that_diverge_come_first_and_are_no_answers(tmp_path: Path) -> None:
    data = named(tmp_path / "own.npz", values=True)
    with np.errstate(all="ignore"):
        run = tinyfl.simulate(out=tmp_path / "run", task="npz", data=data, shots=(3,), **{**QUICK, "adapt_lr": 2.0})
    after = [row["after"]["loss"] for row in run.result["per_device"]["devices"]]
    assert after[0] is None
    assert RunDirectory(run.path).result()["per_device"]["devices"][0]["after"]["loss"] is None


def test_the_report_has_the_worst_devices_and_the_confusion_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tinyfl.simulate(out=tmp_path / "run", task="npz", data=named(tmp_path / "own.npz"), shots=(3,), **QUICK)
    monkeypatch.undo()
    text = page.rebuild(run.path).read_text()
    worst = run.result["per_device"]["devices"][0]
    assert "Who does badly" in text
    assert f'<th scope="row">room d</th><td class="r">{100 * worst["before"]["accuracy"]:.1f} %</td>' in text
    row = run.result["confusion"]["counts"][2]
    assert f'<td class="r best">{100 * row[2] / sum(row):.1f} %</td><td class="r">{sum(row):,}</td>' in text


def test_a_strangers_names_and_matrices_are_words_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tinyfl.simulate(out=tmp_path / "run", task="npz", data=named(tmp_path / "own.npz"), shots=(3,), **QUICK)
    file = run.path / "result.json"
    result = json.loads(file.read_text())
    hostile = "<script>alert(1)</script>\x1b[2J"
    result["per_device"]["devices"][0]["device"] = hostile
    result["confusion"]["classes"][0] = hostile
    file.write_text(json.dumps(result))
    monkeypatch.undo()
    text = page.rebuild(run.path).read_text()
    assert "<script" not in text
    assert "\x1b" not in text
    said = CliRunner().invoke(cli.app, ["metrics", str(run.path), "--table", "devices"], catch_exceptions=False)
    assert "\x1b" not in said.stdout
    result["confusion"]["counts"][0].append(1)
    file.write_text(json.dumps(result))
    with pytest.raises(RunError, match="counts is not a row and a column for each class"):
        RunDirectory(run.path).result()


def test_the_tables_are_the_files_figures(tmp_path: Path) -> None:
    data = named(tmp_path / "own.npz")
    run = tinyfl.simulate(out=tmp_path / "run", task="npz", data=data, shots=(3,), evaluate_every=4, **QUICK)
    assert [row["round"] for row in table(run.path)] == list(range(1, 13))
    assert [row["loss"] for row in table(run.path)] == [row["loss"] for row in table(run.path, "rounds")]
    assert [row["accuracy"] for row in table(run.path, "evaluation")] == [
        row["accuracy"] for row in [*run.evaluation, *run.baseline]
    ]
    assert table(run.path, "validation") == run.result["validation"]
    assert [row["accuracy_after"] for row in table(run.path, "devices")] == [
        row["after"]["accuracy"] for row in run.result["per_device"]["devices"]
    ]
    for name in TABLES:
        rows = table(run.path, name)
        assert len({tuple(row) for row in rows}) == 1
        held = list(csv.DictReader(io.StringIO(as_csv(rows))))
        assert held == [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]


@given(st.lists(st.tuples(st.text(), st.one_of(st.none(), st.floats(), st.integers())), min_size=1))
def test_any_rows_come_back_from_their_csv(rows: list[tuple[str, Any]]) -> None:
    text = as_csv([{"a": name, "b,\n": value} for name, value in rows])
    held = list(csv.reader(io.StringIO(text, newline="")))
    assert held == [["a", "b,\n"], *([visible(name), "" if value is None else str(value)] for name, value in rows)]


def test_the_verb_prints_csv_or_json_and_writes_either(tmp_path: Path) -> None:
    runs = [tinyfl.simulate(out=tmp_path / name, task="sine", seed=n, **QUICK).path for n, name in enumerate("ab")]
    words = ["metrics", *map(str, runs), "--table", "rounds"]
    said = CliRunner().invoke(cli.app, words, catch_exceptions=False).stdout
    rows = [{"run": str(run), **row} for run in runs for row in table(run, "rounds")]
    assert said == as_csv(rows)
    found = CliRunner().invoke(cli.app, [*words, "--json"], catch_exceptions=False).stdout
    assert json.loads(found) == {"table": "rounds", "rows": rows}
    for name, expected in (("x.csv", said), ("x.json", found)):
        CliRunner().invoke(cli.app, [*words, "--out", str(tmp_path / name)], catch_exceptions=False)
        assert (tmp_path / name).read_text() == expected


def test_what_has_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        table(tmp_path)
    run = tinyfl.simulate(out=tmp_path / "run", task="sine", **QUICK).path
    with pytest.raises(ConfigError, match=r"no table is called 'nope'\. There are metrics"):
        table(run, "nope")
    assert table(run, "validation") == []
    assert as_csv([]) == ""
    (run / "result.json").unlink()
    assert len(table(run, "rounds")) == 12
    with pytest.raises(RunError, match="has not finished"):
        table(run, "devices")
