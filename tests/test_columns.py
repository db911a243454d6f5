"""Tables of columns as people have them, CSV to frames: which column is what, windows of a stream, missing values."""

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyfl
from tinyfl.data import Reading
from tinyfl.data.columns import table_of
from tinyfl.data.reading import read_table
from tinyfl.errors import ConfigError, DataError, InstallError, RunError
from tinyfl.report.page import rebuild
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.hashes import data_sha256
from tinyfl.simulation.result import Run
from tinyfl.tasks.npz import Npz
from tinyfl.tasks.standard import spread

RNG = np.random.default_rng(0)
ROWS = 240
USER = np.array([f"u{number:02d}" for number in range(8)]).repeat(ROWS // 8)
LABEL = np.array(["rest", "walk"])[RNG.integers(0, 2, ROWS)]
AX, AY = (RNG.normal(size=ROWS) + (LABEL == "walk") for _ in range(2))


@pytest.fixture
def duckdb() -> Any:
    return pytest.importorskip("duckdb", reason="needs duckdb: pip install 'tinyfl[data]'")


def csv(path: Path, **columns: Any) -> Path:
    """A file of the columns above, with some in the place of others."""
    table = {"user": USER, "label": LABEL, "ax": AX, "ay": AY, **columns}
    table = {name: values for name, values in table.items() if values is not None}
    lines = [",".join(table), *(",".join(map(str, row)) for row in zip(*(v.tolist() for v in table.values()), strict=True))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def run(data: Any, out: Path, **options: Any) -> Run:
    chosen = {"task": "npz", "network": "mlp-8", "rounds": 40, "tasks": 20, "shots": (5,), "out": out, **options}
    return tinyfl.simulate(data=data, **chosen)


@pytest.mark.slow
def test_all_forms_of_the_same_table_learn_the_same_theta(tmp_path: Path, duckdb: Any, no_page: None) -> None:
    path, arrays = csv(tmp_path / "t.csv"), {"x": np.c_[AX, AY], "y": LABEL, "device": USER}
    files = {"csv": path}
    for name, kind in (("p.parquet", "PARQUET"), ("j.jsonl", "JSON"), ("c.csv.gz", "CSV")):
        files[name] = tmp_path / name
        duckdb.sql(f"COPY (FROM '{path}') TO '{files[name]}' (FORMAT {kind})")
    np.savez(tmp_path / "n.npz", **arrays)
    forms = {**{name: str(file) for name, file in files.items()}, "npz": tmp_path / "n.npz", "arrays": arrays}
    forms["columns"] = {"user": USER.astype(object), "ax": AX, "label": LABEL, "ay": AY}
    if find_spec("pandas"):
        forms["frame"] = import_module("pandas").read_csv(path)
    thetas = {name: run(data, tmp_path / f"run {name}").result["theta_sha256"] for name, data in forms.items()}
    assert len(set(thetas.values())) == 1, thetas
    notes = json.loads((tmp_path / "run csv" / "result.json").read_text())["notes"]
    assert notes[0] == "columns: device is user, label label, inputs ax, ay"


def test_a_pandas_frame_is_taken_and_kept_for_a_resume(tmp_path: Path, no_page: None) -> None:
    pandas = pytest.importorskip("pandas", reason="needs pandas, as users have it")
    when = pandas.Timestamp("2024-05-01") + pandas.to_timedelta(np.arange(ROWS) * 40, unit="ms")
    frame = pandas.DataFrame({"when": when, "user": USER, "label": pandas.Categorical(LABEL), "ax": AX, "ay": AY})
    frame["ay"] = frame["ay"].astype("Float64")
    frame.loc[3, "ay"] = pandas.NA
    first = run(frame, tmp_path / "run", rounds=30)
    assert "time: when, which is no input" in first.result["notes"]
    assert any("1 missing values in 1 rows" in note and "ay (1)" in note for note in first.result["notes"])
    assert tinyfl.simulate(resume=tmp_path / "run").result["theta_sha256"] == first.result["theta_sha256"]
    before = (tmp_path / "run" / "data.npz").read_bytes()
    with pytest.raises(RunError, match="already holds a run"):
        run(frame.iloc[::-1], tmp_path / "run")
    assert (tmp_path / "run" / "data.npz").read_bytes() == before
    (tmp_path / "run").rename(tmp_path / "moved")
    assert tinyfl.simulate(resume=tmp_path / "moved").result["theta_sha256"] == first.result["theta_sha256"]
    with pytest.raises(DataError, match=r"no column is called device, .*--device-column NAME"):
        run(frame.drop(columns="user"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (3, "data is a int. Give a path, a frame, or a dict of arrays"),
        ({}, "data has no columns"),
        ({"ax": np.ones(3), "user": np.ones(4)}, "columns of several shapes"),
        ({"user": USER, "label": LABEL, "ax": np.array([{}] * ROWS, object)}, "column ax is neither numbers, texts nor dates"),
    ],
)
def test_other_data_of_a_program_are_refused(tmp_path: Path, data: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        run(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("columns", "reading", "says"),
    [
        ({"label": None}, {}, "no column is called label, target, class, activity or y.*Its columns are user, ax, ay"),
        ({"user": None}, {}, "no column is called device.*--device-column NAME"),
        ({"label": None, "x": AX, "y": AX}, {}, "column y may be the label, or an axis"),
        ({}, {"label_column": "no"}, "no column is called no. Its columns are user, label, ax, ay"),
        ({}, {"input_columns": "ax,no"}, "no column is called no"),
        ({"note": LABEL}, {"input_columns": "ax,note"}, r"column note \(text, such as \w+\) is no input"),
        ({"ax": None, "ay": None}, {}, "no column but user, label has numbers"),
        ({"label": np.where(np.arange(ROWS) == 5, "", LABEL)}, {}, "column label has no value in row 5 and 0 others"),
        ({"user": np.where(np.arange(ROWS) > 99, "?", USER)}, {}, "column user has no value in row 100 and 139 others"),
        ({"split": np.where(np.arange(ROWS) == 0, "test", "train")}, {}, "device u00 has rows of several parts"),
    ],
)
def test_columns_that_cannot_be_read_are_named(
    tmp_path: Path, duckdb: Any, columns: dict[str, Any], reading: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        read_table(csv(tmp_path / "t.csv", **columns), Reading(**reading))


def test_rows_of_other_lengths_and_decimal_commas_are_said(tmp_path: Path, duckdb: Any) -> None:
    (tmp_path / "ragged.csv").write_text("ax,user,label\n1,u,l\n2,u\n3,u,l\n")
    with pytest.raises(DataError, match=r"rows have other numbers of values than its columns, ax,user,label"):
        read_table(tmp_path / "ragged.csv")
    (tmp_path / "commas.csv").write_text("ax;user;label\n1,5;u;l\n2,5;v;m\n")
    with pytest.raises(DataError, match="no column but user, label has numbers, as inputs do: with a decimal point"):
        read_table(tmp_path / "commas.csv")
    (tmp_path / "semicolons.csv").write_text("ax;user;date\n1.5;u;12:03:04\n2.5;v;12:03:05\n")
    table = read_table(tmp_path / "semicolons.csv", Reading(label_column="date"))
    assert (table.x.tolist(), table.y.tolist()) == ([[1.5], [2.5]], ["12:03:04", "12:03:05"])


def test_columns_are_found_by_convention_or_chosen_and_the_rest_is_said(tmp_path: Path, duckdb: Any) -> None:
    more = {"Unnamed: 0": np.arange(ROWS), "note": np.array(["1,5 g"] * ROWS), "timestamp": np.arange(ROWS) * 0.04}
    more["split"] = np.where(USER == "u03", "test", np.where(USER == "u05", "val", "train"))
    path = csv(tmp_path / "t [1].csv", **{**more, "note": np.array(["cold"] * ROWS)})  # a pattern to duckdb
    table = read_table(path)
    assert table.names == ("ax", "ay")
    np.testing.assert_array_equal(table.x, np.c_[AX, AY])
    assert (list(table.split), list(table.validation)) == (["u03"], ["u05"])  # type: ignore[arg-type]
    assert "time: timestamp, which is no input" in table.notes
    assert "not used: columns Unnamed: 0 (numbers the rows), note (text, such as cold)" in table.notes
    other = read_table(path, Reading(label_column="ay", device_column="split", input_columns="ax, timestamp"))
    assert (other.names, other.y.tolist(), set(other.device)) == (("ax", "timestamp"), AY.tolist(), {"test", "train", "val"})  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    ("files", "label", "device"),
    [
        ({"u1.csv": ("label",), "u2.csv": ("label",)}, "rest", "u1"),
        ({"rest.csv": ("user",), "walk.csv": ("user",)}, "rest", "u0"),
        ({"rest/u1.csv": (), "walk/u1.csv": ()}, "rest", "u1"),
        ({"u1/day1.csv": ("label",), "u2/day1.csv": ("label",)}, "rest", "u1"),
    ],
)
def test_names_of_files_and_folders_say_what_columns_do_not(
    tmp_path: Path, duckdb: Any, files: dict[str, tuple[str, ...]], label: str, device: str
) -> None:
    every = {"label": np.array(["rest"] * 4), "user": np.array(["u0"] * 4)}
    for name, has in files.items():
        kept = {column: values if column in has else None for column, values in every.items()}
        csv(tmp_path / "d" / name, **kept, ax=np.arange(4.0) * 2, ay=np.ones(4))
    table = read_table(tmp_path / "d", Reading(window=3, stride=1))
    assert table.x.shape == (4, 3, 2)  # two windows of each file, none over two
    assert (str(table.y[0]), str(table.device[0])) == (label, device)
    assert any(note.startswith(f"files: {len(files)} in d; the ") for note in table.notes)


@pytest.mark.slow
def test_a_report_that_is_drawn_again_from_a_folder_has_its_devices(tmp_path: Path, duckdb: Any) -> None:
    for user in np.unique(USER):
        csv(tmp_path / "d" / f"{user}.csv", user=None, label=LABEL[user == USER], ax=AX[user == USER], ay=AY[user == USER])
    page = rebuild(run(str(tmp_path / "d"), tmp_path / "run").path)
    assert "Left out" not in page.read_text()
    (tmp_path / "d" / "u07.csv").unlink()
    assert "was changed since the run" in rebuild(tmp_path / "run").read_text()


@pytest.mark.slow
def test_a_folders_files_must_agree_and_its_hash_is_that_of_its_files(tmp_path: Path, duckdb: Any, no_page: None) -> None:
    folder = tmp_path / "d"
    for user in np.unique(USER):
        rows = user == USER
        csv(folder / f"{user}.csv", user=None, label=LABEL[rows], ax=AX[rows], ay=AY[rows])
    (folder / "notes.txt").write_text("no data")
    first = run(str(folder), tmp_path / "run").result
    assert first["theta_sha256"] == run(str(csv(tmp_path / "t.csv")), tmp_path / "one").result["theta_sha256"]
    config = RunDirectory(tmp_path / "run").config()
    held = data_sha256(config)
    (folder / "notes.txt").write_text("other words")
    assert data_sha256(config) == held
    (folder / "u07.csv").rename(folder / "u08.csv")
    assert data_sha256(config) != held
    csv(folder / "u09.csv", user=None, az=AX)
    with pytest.raises(DataError, match=r"u09.csv has the columns ax, ay, az, label, and u00.csv ax, ay, label"):
        read_table(folder)
    with pytest.raises(DataError, match="has no CSV"):
        read_table(tmp_path / "run" / "checkpoint")


@pytest.mark.parametrize("content", [b"", b"\n", b"user,label,ax\n", b"\xff\xfe\x00user", b'a,"b\n1', b"PAR1"])
@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, duckdb: Any, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_table(tmp_path / name)
    assert "\n" not in str(refused.value)
    assert name in str(refused.value)


@pytest.mark.parametrize("name", ["t.xlsx", "t.pkl", "t.feather", "t.txt", "t.npy"])
def test_other_files_of_data_are_refused_with_a_way_to_go_on(tmp_path: Path, name: str) -> None:
    if name == "t.xlsx":
        np.savez(tmp_path / "zip.npz", x=AX)
        (tmp_path / "zip.npz").rename(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(b"\x80\x04 something")
    with pytest.raises(DataError, match=r"is neither an .npz, a CSV, .*frame\.to_csv.*data=frame"):
        read_table(tmp_path / name)


def test_without_duckdb_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(InstallError, match=r"pip install 'tinyfl\[data\]'"):
        read_table(csv(tmp_path / "t.csv"))
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "absent.csv")


def windows_by_hand(
    x: np.ndarray, y: np.ndarray, device: np.ndarray, time: np.ndarray | None, window: int, stride: int
) -> list[tuple[Any, Any, list[float]]]:
    """Each device's windows, row by row: a run of rows ends where the class changes or time has a gap."""
    found = []
    for name in np.unique(device):
        rows = np.flatnonzero(device == name)
        if time is not None:
            rows = rows[np.argsort(time[rows], kind="stable")]
            steps = sorted(np.diff(time[rows]))
            usual = steps[len(steps) // 2] if steps else 0
        parts, part = [], list(rows[:1])
        for before, row in pairwise(rows):
            if y[row] != y[before] or (time is not None and time[row] - time[before] > 2 * usual):
                parts.append(part)
                part = []
            part.append(row)
        for each in [*parts, part]:
            found += [
                (name, y[each[0]], x[each[first : first + window]].tolist())
                for first in range(0, len(each) - window + 1, stride)
            ]
    return found


@settings(max_examples=150)
@given(st.integers(0, 1 << 30), st.integers(1, 4), st.integers(1, 6), st.booleans(), st.integers(1, 80))
def test_windows_are_within_one_device_one_class_and_over_no_gap(
    seed: int, window: int, stride: int, timed: bool, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    device, y, x = rng.integers(0, 3, rows), rng.integers(0, 20, rows) // 15, rng.normal(size=(rows, 2))
    time = np.cumsum(rng.choice([1.0, 1.0, 1.5, 7.0], rows)) if timed else None
    if timed:
        order = rng.permutation(rows)
        device, y, x, time = device[order], y[order], x[order], time[order]  # type: ignore[index]
    columns = {"device": device, "label": y, "a": x[:, 0], "b": x[:, 1]} | ({"time": time} if timed else {})
    expected = windows_by_hand(x, y, device, time, window, stride)
    if not expected:
        with pytest.raises(DataError, match="Give a smaller --window"):
            table_of("t", columns, Reading(window=window, stride=stride))
        return
    table = table_of("t", columns, Reading(window=window, stride=stride, input_columns="a,b"))
    found = [(d, c, w.tolist()) for d, c, w in zip(table.device, table.y, table.x, strict=True)]
    assert found == expected


def test_windows_of_an_npz_are_those_of_the_same_columns(tmp_path: Path, duckdb: Any) -> None:
    time = np.arange(ROWS) * 0.04
    np.savez(tmp_path / "t.npz", x=np.c_[AX, AY], y=LABEL, device=USER, timestamp=time)
    reading = Reading(window=2, stride=1)
    tables = [read_table(path, reading) for path in (tmp_path / "t.npz", csv(tmp_path / "t.csv", timestamp=time))]
    for name in ("x", "y", "device"):
        np.testing.assert_array_equal(*(getattr(table, name) for table in tables))
    task = Npz(tmp_path / "t.npz", 0, reading=reading)
    assert task.shape == (2, 2, 1)
    dates = np.datetime64("2024-05-01") + np.arange(ROWS)
    np.savez(tmp_path / "dates.npz", x=np.c_[AX, AY], y=LABEL, device=USER, timestamp=dates)
    assert "not used: the array timestamp" in read_table(tmp_path / "dates.npz").notes
    with pytest.raises(ConfigError, match="give --window N too"):
        read_table(tmp_path / "t.npz", Reading(stride=2))
    values = Reading(window=4, targets="values")
    assert len(read_table(tmp_path / "t.csv", Reading(window=4)).x) < len(read_table(tmp_path / "t.csv", values).x)


def test_missing_values_become_the_training_mean_and_are_said(tmp_path: Path, no_page: None) -> None:
    gone = RNG.random((ROWS, 2)) < [0.2, 0.0]
    x = np.where(gone, np.nan, np.c_[AX, AY])
    np.savez(tmp_path / "t.npz", x=x, y=LABEL, device=USER, split=["u01", "u06"])
    task = Npz(tmp_path / "t.npz", 0)
    names = np.unique(USER)
    trains = np.isin(USER, names[task._members["train"]])
    assert task.standardisation is not None
    present = x[trains & ~gone[:, 0], 0]
    np.testing.assert_allclose(task.standardisation.mean, [present.mean(), AY[trains].mean()])
    np.testing.assert_allclose(task.standardisation.scale, [present.std(), AY[trains].std()])
    filled = np.where(gone, present.mean(), x)
    expected = (filled - task.standardisation.mean) / task.standardisation.scale
    np.testing.assert_allclose(task._table, expected, atol=1e-6)
    assert (task._table[gone] == 0).all()
    said = f"x: {gone.sum()} missing values in {gone.sum()} rows become the training devices' mean; by input: 0 ({gone.sum()})"
    assert said in task.standardisation.notes
    for reading, standardise in ((Reading(missing="refuse"), True), (Reading(), False)):
        with pytest.raises(DataError, match="array x has nan in row"):
            Npz(tmp_path / "t.npz", 0, standardise, reading=reading)
    result = run(str(tmp_path / "t.npz"), tmp_path / "run")
    np.savez(tmp_path / "new.npz", x=x[:30], y=LABEL[:30])
    assert all(point["loss"] is not None for point in tinyfl.adapt(result.path, tmp_path / "new.npz")["curve"])


@settings(max_examples=50)
@given(st.integers(0, 1000), st.floats(0, 0.9))
def test_means_and_deviations_are_those_of_the_values_that_are_there(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(1e6, 3, (40, 3))
    x[1:][rng.random((39, 3)) < share] = np.nan
    mean, scale, varies = spread(x)
    for column in range(3):
        parts = spread(x[~np.isnan(x[:, column]), column, None])
        np.testing.assert_allclose((mean[column], scale[column], varies[column]), [part[0] for part in parts], rtol=1e-12)


def test_an_input_that_no_training_device_has_is_refused(tmp_path: Path) -> None:
    x = np.c_[AX, np.where(USER == "u01", AY, np.nan)]
    np.savez(tmp_path / "t.npz", x=x, y=LABEL, device=USER, split=["u01"])
    with pytest.raises(DataError, match=r"array x has nan in row 0, column 1 .*No training device has a value there"):
        Npz(tmp_path / "t.npz", 0)


@pytest.mark.parametrize("option", [{"window": 5}, {"missing": "refuse"}, {"balance": True}, {"label_column": "y"}])
def test_settings_of_tables_are_refused_for_other_tasks(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"task sine brings its own data: leave --.* out, or say --task npz"):
        tinyfl.simulate(task="sine", **option)


def test_drop_small_evaluates_the_other_devices_and_says_how_many(tmp_path: Path, no_page: None) -> None:
    count = np.maximum(1, (2000 * np.arange(1, 201) ** -1.3).astype(int))  # a power law, as of real users
    device = np.repeat(np.arange(200), count)
    y = RNG.integers(0, 3, device.size)
    path = tmp_path / "t.npz"
    np.savez(path, x=RNG.normal(size=(device.size, 3)) + 2 * y[:, None], y=y, device=device)
    small = int((count <= 5).sum())
    with pytest.raises(DataError, match=rf"too few for 5 shots and a query, as {small} of all 200 devices have.*--drop-small"):
        run(path, tmp_path / "no")
    result = run(path, tmp_path / "yes", drop_small=True)
    assert f"devices: {small} have fewer than 6 samples, and are not evaluated" in result.result["notes"]
    task = RunDirectory(tmp_path / "yes").config().load_task()
    assert isinstance(task, Npz)
    assert all(count[task._members[part]].min() > 5 for part in ("test", "validation"))
    assert len(task._members["train"]) + len(task._members["test"]) + len(task._members["validation"]) == 200
    np.savez(path, x=RNG.normal(size=(device.size, 3)), y=y, device=device, split=[1, 2, 199])
    task = Npz(path, 0, reading=Reading(drop_small=True, shots=5))
    assert task._members["test"].tolist() == [1, 2]
    assert 199 not in task._members["train"]
    with pytest.raises(DataError, match="Only 0 of 200 devices have 99,999 samples: give fewer --shots"):
        Npz(path, 0, reading=Reading(drop_small=True, shots=99_998))


def test_balance_takes_a_devices_classes_in_turn_whatever_their_number(tmp_path: Path) -> None:
    device = np.repeat(np.arange(10), 50)
    y = np.where(np.arange(500) % 50 < 2, 2, np.arange(500) % 2)  # 2 of 50 rows are of the rare class
    y[device == 3] = 0
    np.savez(tmp_path / "t.npz", x=np.c_[np.arange(500.0), y], y=y, device=device, split=[0])
    plain, task = Npz(tmp_path / "t.npz", 0), Npz(tmp_path / "t.npz", 0, reading=Reading(balance=True))
    trains = np.arange(task.fleet_size or 0, dtype=np.uint32)
    streams = [task.streams(trains, np.full(len(trains), number, np.uint32), 30) for number in range(20)]
    for stream in streams:
        for at, row in enumerate(stream.rows):
            assert stream.labels is not None
            owner, labels = device[row], stream.labels[at]
            assert (owner == task._members["train"][at]).all()
            assert np.array_equal(y[row], labels)
            expected = [30] if owner[0] == 3 else [10, 10, 10]
            assert np.unique(labels, return_counts=True)[1].tolist() == expected
            assert len(set(row[labels == 0])) == len(row[labels == 0])  # a common class's rows come once before any again
    assert len({tuple(stream.rows[0]) for stream in streams}) == 20
    rare = np.concatenate([np.ravel(plain.stream(trains, number, 30).labels) for number in range(20)])
    assert (rare == 2).mean() < 0.05
    np.savez(tmp_path / "v.npz", x=np.ones((500, 2)), y=RNG.normal(size=500), device=device)
    with pytest.raises(DataError, match="--balance is for classes"):
        Npz(tmp_path / "v.npz", 0, reading=Reading(balance=True))


@pytest.mark.parametrize("window", [0, 3])
def test_a_new_devices_columns_are_read_as_the_runs_were_in_any_order(
    tmp_path: Path, duckdb: Any, no_page: None, window: int
) -> None:
    label = np.repeat(["rest", "walk"], ROWS // 2)[np.argsort(np.arange(ROWS) % 30 < 15, kind="stable")]
    fleet = run(str(csv(tmp_path / "t.csv", label=label)), tmp_path / "run", window=window, shots=(3,))
    rows = USER == "u03"
    new = {"user": None, "label": label[rows], "ax": None, "ay": AY[rows], "aax": np.ones(rows.sum())}
    path = csv(tmp_path / "new.csv", **new, **{"Temp": np.ones(rows.sum())})
    with pytest.raises(DataError, match=r"no column is called ax\. Its columns are label, ay, aax, Temp"):
        tinyfl.adapt(fleet.path, path, shots=2)
    table = {"ay": AY[rows], "temp": np.ones(30), "label": label[rows], "ax": AX[rows]}
    lines = [",".join(table), *(",".join(map(str, row)) for row in zip(*(v.tolist() for v in table.values()), strict=True))]
    path.write_text("\n".join(lines))
    columns = tinyfl.adapt(fleet.path, path, shots=2)["curve"]
    np.savez(tmp_path / "new.npz", x=np.c_[AX, AY][rows], y=label[rows])
    assert columns == tinyfl.adapt(fleet.path, tmp_path / "new.npz", shots=2)["curve"]
    with pytest.raises(DataError, match="has the devices u00, u01"):
        tinyfl.adapt(fleet.path, tmp_path / "t.csv")
