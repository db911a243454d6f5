"""Studies: what a file may say, what its table holds, and that nothing that ends one changes it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_docs import ROOT, blocks, evaluate_quickly, words_of, write_files

import tinyfl
from tinyfl.cli import app
from tinyfl.errors import ConfigError, DataError, RunError, TrainingError
from tinyfl.studies import table
from tinyfl.studies.beside import read_columns
from tinyfl.studies.file import folder_of, read_study, rounds_for
from tinyfl.studies.plan import planned, resolved
from tinyfl.studies.running import prepared

SMALL = 'task = "sine"\nnetwork = "mlp-4"\ntasks = 20\n'
GRID = 'algorithm = ["tinyreptile", "joint"]\nseed = [0, 1]\n'


def write(text: str, name: str = "small.toml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def file_of(grid: str = GRID, run: str = SMALL, top: str = "gradients = 960\n", rest: str = "") -> Path:
    return write(f"{top}[run]\n{run}[grid]\n{grid}{rest}")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


REFUSED = {
    "no toml": ("gradients = ", "config is a TOML file"),
    "no grid": ("[run]\n", "grid: is missing"),
    "an empty axis": ("[grid]\nseed = []\n", "at least 1 item"),
    "an unknown key": ("colour = 1\n[grid]\nseed = [0]\n", "colour: is a key that tinyfl does not know"),
    "no setting": ("[grid]\nrat = [0.1]\n", "'rat', which is no setting"),
    "no setting in a table": ("[[grid.what]]\nrat = 0.1\n", "'rat', which is no setting"),
    "no setting in run": ("[run]\nrat = 1\n[grid]\nseed = [0]\n", "'rat', which is no setting"),
    "a value twice": ("[grid]\nseed = [0, 0]\n", "has 0 twice"),
    "an empty table": ('[[grid.what]]\nname = "x"\n', "has settings, and a name"),
    "two axes of one setting": ("[grid]\nseed = [0]\n[[grid.fold]]\nseed = 1\n", "both give seed"),
    "two lengths": ("gradients = 9\n[run]\nrounds = 3\n[grid]\nseed = [0]\n", "and so does rounds"),
    "nothing to search": ("[grid]\nseed = [0]\n[search]\ntrials = 1\nseeds = [9]\n", "has no settings"),
    "searched and given": (
        "[grid]\nrate = [0.1]\n[search]\ntrials = 1\nseeds = [9]\nbetween = { rate = [0.1, 1] }\n", "is searched, and given",
    ),
    "a search of what is measured": (
        "[grid]\nseed = [0]\n[search]\ntrials = 1\nseeds = [9]\namong = { shots = [1, 5] }\n", "decides what is measured",
    ),
    "a range upside down": (
        "[grid]\nseed = [0]\n[search]\ntrials = 1\nseeds = [9]\nbetween = { rate = [1.0, 0.1] }\n", "the lower first",
    ),
    "too many runs": (f"[grid]\nseed = {list(range(10_001))}\n", "describes 10,001 runs"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_is_no_study_is_refused_in_words(what: str) -> None:
    text, words = REFUSED[what]
    with pytest.raises(ConfigError, match=words):
        read_study(write(text))


@pytest.mark.parametrize(
    ("run", "grid", "words"),
    [
        (SMALL, 'algorithm = ["reptil"]\n', "reptil"),
        (SMALL + "cohort = 7\ndevices = 3\n", "seed = [0]\n", "run seed=0: a cohort of 7"),
        (SMALL + "evaluate_every = 5\npatience = 2\n", "seed = [0]\n", "patience may end it before"),
        ("", 'algorithm = ["evil:Evil"]\n', "evil:Evil: that is code"),
    ],
)
def test_settings_with_which_a_run_could_not_begin_are_refused_before_any_does(run: str, grid: str, words: str) -> None:
    Path("evil.py").write_text("raise SystemExit('loaded')")  # a name in a file loads nothing
    with pytest.raises(ConfigError, match=words):
        planned(read_study(file_of(grid, run)), {})
    assert not Path("studies").exists()


def test_data_that_are_not_there_are_refused_by_the_files_name_with_where_to_get_them() -> None:
    path = file_of(run='task = "activity"\ndata = "WISDM_ar_latest.tar.gz"\n')
    with pytest.raises(DataError, match=rf"^WISDM_ar_latest.tar.gz: no such file, and data in {path} .* tinyfl data list"):
        prepared(path, None, {})
    assert not Path("studies").exists()


@pytest.mark.parametrize("board", ["nowhere", "posix", "microbit-v2,pico"])
def test_a_board_that_is_not_one_with_a_chip_is_refused(board: str) -> None:
    with pytest.raises(ConfigError, match="board"):
        planned(read_study(file_of(top=f'board = "{board}"\n')), {})


def test_a_grid_has_every_combination_and_the_seed_tells_no_line_from_another() -> None:
    sizes = '[[grid.size]]\ncohort = 2\nname = "two"\n[[grid.size]]\ncohort = 5\n'
    grid = f'algorithm = ["tinyreptile", "reptile"]\nseed = [3, 4]\n{sizes}'
    study = read_study(file_of(grid))
    points = study.points()
    assert len({point.folder for point in points}) == len(points) == 8
    assert [point.settings["seed"] for point in points] == [3] * 4 + [4] * 4
    assert [axis.name for axis in study.lines] == ["algorithm", "size"]
    assert {point.values["size"] for point in points} == {"two", "cohort 5"}
    plan = planned(study, {})
    assert len(plan.lines) == 4
    assert all(line.gradients == pytest.approx(960, rel=0.3) for line in plan.lines)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text(), st.one_of(st.text(), st.integers(), st.floats())), max_size=4))
def test_every_run_has_a_folder_of_its_own_whatever_its_values_are_called(values: list[tuple[Any, Any]]) -> None:
    apart = {(str(one), str(other)): folder_of({"outer_step": one, "learner": other}) for one, other in values}
    assert len(set(apart.values())) == len(apart)
    assert all(set("/\0") & set(name) == set() and 0 < len(name.encode()) < 255 and name[0] != "." for name in apart.values())


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_rounds_come_as_near_to_the_gradients_as_whole_rounds_do(gradients: int, a_round: int) -> None:
    found = rounds_for(gradients, a_round)
    assert found >= 1
    assert all(abs(found * a_round - gradients) <= abs(other * a_round - gradients) for other in (max(found - 1, 1), found + 1))


def study(*words: str | Path) -> None:
    app(["study", *map(str, words)], standalone_mode=False)


def files(folder: Path) -> dict[str, bytes]:
    """What a study is made into."""
    return {name: (folder / name).read_bytes() for name in (table.TABLES, table.TABLE, table.DIFFERENCES)}


@pytest.mark.slow
def test_a_study_has_the_figures_of_runs_made_one_by_one_and_repeats_none(capsys: pytest.CaptureFixture[str]) -> None:
    path = file_of(top="gradients = 960\ncurve = 3\n")
    study(path, "--dry-run", "--json")
    said = json.loads(capsys.readouterr().out)
    assert (said["runs"], said["done"], Path("studies").exists()) == (4, 0, False)
    assert said["seconds"] > 0
    study(path, "--json")
    out, err = capsys.readouterr()
    tables = json.loads(out)
    assert "4 runs (2 of algorithm × 2 of seed): 3,840 sample gradients" in err
    assert "about " in err
    (only,) = tables["tables"]
    for row in only["rows"]:
        algorithm = row["values"]["algorithm"]
        alone = [
            tinyfl.simulate(
                task="sine", network="mlp-4", tasks=20, algorithm=algorithm, seed=seed, rounds=30, evaluate_every=10, page=False
            ).result
            for seed in (0, 1)
        ]
        losses = [[each["loss"] for each in result["evaluation"]] for result in alone]
        assert [each["mean"] for each in row["reached"]] == pytest.approx(np.mean(losses, axis=0).tolist())
        assert [point["gradients"] for point in row["curve"]] == [320, 640, 960]
        assert [point["mean"] for point in row["curve"]] == pytest.approx(
            np.mean([[each["loss"] for each in result["validation"]] for result in alone], axis=0).tolist()
        )
        assert row["gradients"] == alone[0]["sample_gradients"] == 960
    assert [row["first"] for row in only["differences"]] == ["tinyreptile"] * 2
    folder = Path("studies/small")
    with (folder / table.TABLE).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * len(only["rows"][0]["reached"])
    page = (folder / "study.html").read_text()
    assert "tinyfl study studies/small/study.toml --out studies/small" in page
    assert tables["version"].startswith(tinyfl.__version__)
    assert f"tinyfl {tables['version']}." in page
    assert (folder / "study.png").read_bytes()[:4] == b"\x89PNG"

    before, times = files(folder), [path.stat().st_mtime_ns for path in sorted(folder.glob("runs/*/result.json"))]
    study(folder / "study.toml", "--out", folder)
    assert files(folder) == before
    assert times == [path.stat().st_mtime_ns for path in sorted(folder.glob("runs/*/result.json"))]
    assert "again: tinyfl study studies/small/study.toml --out studies/small" in capsys.readouterr().out

    file_of('algorithm = ["tinyreptile", "joint"]\nseed = [0, 2]\n')
    with pytest.raises(RunError, match=r"curve was 3 there, and is absent|seed was \[0, 1\] there, and is \[0, 2\]"):
        study(path)


@pytest.mark.slow
def test_a_run_that_fails_costs_the_study_that_run_only() -> None:
    path = file_of("rate = [0.01, 100000.0]\nseed = [0]\n")
    with pytest.raises(TrainingError, match=r"1 of 2 runs failed.*rate=100000.0,seed=0"):
        study(path, "--workers", "1")
    tables = json.loads(Path("studies/small/study.json").read_text())
    assert [each["run"] for each in tables["failed"]] == ["rate=100000.0,seed=0"]
    assert [row["values"]["rate"] for row in tables["tables"][0]["rows"]] == [0.01]


def checkpoints(folder: str) -> list[float]:
    """When each run of a study last saved its state."""
    return [path.stat().st_mtime for path in sorted(Path(folder).glob("runs/*/checkpoint/state.npz"))]


@pytest.mark.slow
def test_a_study_killed_twice_ends_with_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    grid = 'algorithm = ["tinyreptile", "reptile"]\nseed = [0, 1]\n'
    path = file_of(grid, SMALL.replace("mlp-4", "mlp-32"), "gradients = 500_000\ncurve = 4\n")
    command = [sys.executable, "-m", "tinyfl.cli", "study", str(path), "--out"]
    environment = {**os.environ, "TINYFL_CHECKPOINT_SECONDS": "0.1"}
    for _ in range(2):
        process = subprocess.Popen([*command, "killed"], env=environment, stdout=-3, stderr=-3)
        before, deadline = checkpoints("killed"), time.monotonic() + 60
        while checkpoints("killed") == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not Path("killed/study.json").exists()
    subprocess.run([*command, "killed"], check=True, env=environment, capture_output=True)
    subprocess.run([*command, "whole", "--workers", "1"], check=True, capture_output=True)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.slow
def test_a_search_finds_settings_on_validation_devices_and_resumed_the_same() -> None:
    pytest.importorskip("optuna", reason="needs optuna: pip install 'tinyfl[search]'")
    search = "[search]\ntrials = 3\nseeds = [100]\nbetween = { rate = [0.001, 0.1] }\namong = { samples = [8, 16] }\n"
    path = file_of('algorithm = ["tinyreptile"]\nseed = [0]\n', rest=search)
    study(path)
    folder = Path("studies/small")
    (line,) = json.loads((folder / "search.json").read_text())
    best = min(line["trials"], key=lambda trial: trial["score"])
    assert line["found"] == best["settings"]
    assert all(0.001 <= trial["settings"]["rate"] <= 0.1 for trial in line["trials"])
    (row,) = json.loads((folder / "study.json").read_text())["tables"][0]["rows"]
    assert row["found"] == line["found"]
    assert row["gradients"] == 960
    before = files(folder)
    (folder / "search.json").unlink()
    study(path)
    assert files(folder) == before


def test_a_search_that_would_see_devices_for_testing_is_refused(own_data: Path) -> None:
    pytest.importorskip("optuna", reason="needs optuna: pip install 'tinyfl[search]'")
    from tinyfl.studies.search import _demand_unseen

    arrays = dict(np.load(own_data))
    search = "[search]\ntrials = 1\nseeds = [100]\nbetween = { rate = [0.001, 0.1] }\n"
    path = file_of("seed = [0]\n", f'task = "npz"\ndata = "{own_data}"\n', rest=search)
    plan = planned(read_study(path), {})
    assert plan.study.search
    _demand_unseen(plan, plan.study.search, {})
    del arrays["split"]
    np.savez(own_data, **arrays)
    with pytest.raises(ConfigError, match="array split"):
        _demand_unseen(plan, plan.study.search, {})


@pytest.mark.slow
def test_compare_writes_its_figures_beside_its_page_and_the_old_form_says_what_it_is_now(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options: dict[str, Any] = {"task": "sine", "network": "mlp-2", "rounds": 4, "tasks": 4, "adapt_lr": 0.01, "page": False}
    for seed in (0, 1):
        tinyfl.simulate(**options, seed=seed, out=f"run{seed}")
    app(["compare", "run0", "run1", "--json"], standalone_mode=False)
    written = json.loads(capsys.readouterr().out)
    assert written == {"report": "comparison.html", "csv": "comparison.csv", "json": "comparison.json"}
    rows = json.loads(Path("comparison.json").read_text())["rows"]
    assert {(row["run"], row["seed"]) for row in rows} == {("run0", 0), ("run1", 1)}
    with Path("comparison.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    app(["compare", "run1", "run0", "--json"], standalone_mode=False)
    assert "replaced the earlier comparison: comparison.html, comparison.csv, comparison.json" in capsys.readouterr().err
    Path("mine.json").write_text('{"thesis": 1}')
    with pytest.raises(RunError, match=r"mine\.json is something else than a comparison.*another --out"):
        app(["compare", "run0", "run1", "--out", "mine.html"], standalone_mode=False)
    assert not Path("mine.html").exists()
    app(["report", "run0", "run1", "--out", "both.html"], standalone_mode=False)
    assert "is now tinyfl compare" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="is the page"):
        app(["compare", "run0", "run1", "--out", "both.csv"], standalone_mode=False)


@pytest.mark.slow
def test_simulate_without_a_page_leaves_all_else_as_it_is() -> None:
    options: dict[str, Any] = {"task": "sine", "network": "mlp-2", "rounds": 4, "tasks": 4, "adapt_lr": 0.01}
    run = tinyfl.simulate(**options, page=False, out="without")
    assert not (run.path / "report.html").exists()
    app(["report", "without"], standalone_mode=False)
    assert (run.path / "report.html").exists()


@pytest.mark.slow
def test_the_page_takes_a_strangers_file_to_a_table_of_three_algorithms() -> None:
    write_files(ROOT / "docs" / "studies.md")
    evaluate_quickly("gestures.toml")
    subprocess.run([sys.executable, "gestures.py"], check=True)
    for words in words_of("docs/studies.md", "study", "compare"):
        app(words, standalone_mode=False)
    (only,) = json.loads(Path("studies/gestures/study.json").read_text())["tables"]
    assert [(row["values"]["algorithm"], row["n"]) for row in only["rows"]] == [
        ("tinyreptile", 3), ("reptile", 3), ("joint", 3),
    ]  # fmt: skip
    assert {row["gradients"] for row in only["rows"]} == {320_000}
    assert {row["n"] for row in only["differences"] if row["over"] == "devices"} == {12}
    assert ("joint", "worse") in {(row["choice"], row["is"]) for row in only["differences"]}
    assert Path("comparison.csv").is_file()


def test_what_the_page_says_of_files_is_a_study() -> None:
    least = "[grid]\nseed = [0]\n"
    texts = [block.text for block in blocks(ROOT / "docs" / "studies.md") if block.language == "toml"]
    studies = [read_study(write(text if "[grid]" in text else least + text)) for text in texts]
    assert any(study.search for study in studies)
    assert any(study.beside for study in studies)
    Path("other.csv").write_text(next(b.text for b in blocks(ROOT / "docs" / "studies.md") if b.language == "csv"))
    found = read_study(file_of('algorithm = ["reptile"]\nseed = [0]\n', rest='[[beside]]\nname = "x"\nfile = "other.csv"\n'))
    assert read_columns(found)


@pytest.mark.parametrize("path", sorted((ROOT / "bench" / "studies").glob("*.toml")), ids=lambda path: path.stem)
def test_a_published_study_can_be_made(path: Path) -> None:
    points = read_study(path).points()
    assert len({resolved(point.settings, {}).sha256() for point in points}) == len(points)


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_study_and_its_workers_and_says_how_to_go_on(end: signal.Signals, code: int) -> None:
    path = file_of(top="gradients = 1_000_000_000\n")
    command = [sys.executable, "-m", "tinyfl.cli", "study", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not checkpoints("studies/small") and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(end)
        out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (code, "")
    assert "tinyfl study studies/small/study.toml --out studies/small" in err.splitlines()[-1]
    saved = checkpoints("studies/small")
    time.sleep(3)
    assert checkpoints("studies/small") == saved  # nothing goes on
