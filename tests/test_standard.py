"""What is done to a user's data: units and types change nothing, and what is learnt is told in the user's own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyfl
from tinyfl import core
from tinyfl.config import resolve
from tinyfl.errors import ConfigError, DataError, RunError, TrainingError
from tinyfl.networks import network
from tinyfl.networks.layers import Loss
from tinyfl.report.verdict import verdict
from tinyfl.runs import evaluation, floors
from tinyfl.runs.adaptation import Initialisation
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.evaluation import inner_loop
from tinyfl.simulation.result import Run
from tinyfl.tasks import load_task, numbers
from tinyfl.tasks.npz import Npz
from tinyfl.tasks.standard import Standardisation, spread

DEVICE = np.repeat(np.arange(12), 20)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(len(DEVICE), 3))
VALUES = np.sin(X[:, 0]) + 0.5 * X[:, 1] + RNG.normal(size=12)[DEVICE]
CLASSES = np.arange(len(DEVICE)) % 3
HELD_OUT = [2, 7]


@pytest.fixture(autouse=True)
def quick(no_page: None) -> None:
    """No run here is about its page."""


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """A user's file of the arrays above, with some in the place of others."""

    def write(**arrays: Any) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npz"
        np.savez(path, **{"x": X, "y": CLASSES, "device": DEVICE, "split": HELD_OUT, **arrays})
        return path

    return write


def run(path: Path, **options: Any) -> Run:
    settings = {"network": "mlp-8", "rounds": 60, "tasks": 20, "shots": (5,), "out": path.with_suffix("")}
    return tinyfl.simulate(task="npz", data=str(path), **{**settings, **options})


def standardised(x: np.ndarray) -> np.ndarray:
    mean, scale, _ = spread(x)
    return replace(Standardisation.none(x.shape[1], 1), mean=mean, scale=scale).apply(x)


@settings(max_examples=60)
@given(st.floats(-1e12, 1e12), st.floats(-150, 150).map(lambda e: 10.0**e), st.integers(0, 1000))
def test_inputs_in_any_units_are_the_same_numbers_to_the_digits_that_the_file_has(shift: float, unit: float, seed: int) -> None:
    from sklearn.preprocessing import StandardScaler

    plain = np.random.default_rng(seed).normal(size=(50, 1))
    given_x = (plain + shift) * unit
    digits = np.spacing(np.abs(given_x).max()) / unit
    np.testing.assert_allclose(standardised(given_x), StandardScaler().fit_transform(plain), atol=1e-6 + 50 * digits)


def test_a_time_in_seconds_is_learnt_and_adapted_to_as_one_that_is_centred(written: Callable[..., Path]) -> None:
    seconds = X + np.array([1.7e9, 0, 48.1351])
    ours, theirs = run(written(x=seconds)), run(written())
    for part in ("evaluation", "baseline"):
        accuracies = [[row["accuracy"] for row in each.result[part]] for each in (ours, theirs)]
        np.testing.assert_allclose(*accuracies, atol=0.011)
    curves = [
        [point["loss"] for point in tinyfl.adapt(fleet.path, written(x=x[:20], y=CLASSES[:20]))["curve"]]
        for fleet, x in ((ours, seconds), (theirs, X))
    ]
    np.testing.assert_allclose(*curves, rtol=1e-3)


@pytest.mark.parametrize("kind", ["bool", "uint8", "int8", "int64", "uint64", "float16", "float32", "longdouble"])
def test_inputs_of_any_type_are_the_same_numbers(written: Callable[..., Path], kind: str) -> None:
    x = RNG.integers(0, 2, (len(DEVICE), 3))
    ours, plain = (Npz(written(x=each), 0)._table for each in (x.astype(kind), x.astype(float)))
    np.testing.assert_array_equal(ours, plain)


def test_whole_numbers_that_no_float_holds_are_told_apart() -> None:
    from sklearn.preprocessing import StandardScaler

    steps = RNG.integers(0, 1000, (300, 1))
    np.testing.assert_allclose(
        standardised(1_700_000_000_000_000_000 + steps), standardised(steps), atol=0.5
    )  # the mean is a float64, whose last digit is 256 here
    assert len(np.unique(standardised(1_700_000_000_000_000_000 + steps))) == len(np.unique(steps))
    ends = np.array([[np.iinfo(np.int64).min], [np.iinfo(np.int64).max], [0]])
    np.testing.assert_allclose(standardised(ends), StandardScaler().fit_transform(ends.astype(float)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1e200, 1e-200, 5e-310, 1e307])
def test_squares_that_overflow_or_vanish_are_not_taken(size: float) -> None:
    from sklearn.preprocessing import StandardScaler

    plain = RNG.uniform(-1, 1, (200, 1))
    np.testing.assert_allclose(standardised(size * plain), StandardScaler().fit_transform(plain), atol=1e-4)


def test_what_varies_little_beside_its_mean_varies_and_what_rounding_makes_does_not() -> None:
    one_digit = np.where(CLASSES == 0, np.float32(48.1351), np.nextafter(np.float32(48.1351), np.float32(49)))[:, None]
    third = np.where(CLASSES == 0, 0.1 * 3, 0.3)[:, None]  # the same but for its last digit
    seconds = 1_700_000_000_000_000_000 + (CLASSES == 0)[:, None]
    for column, varies in ((one_digit, True), (third, False), (seconds, True), (np.full((240, 1), 0.1), False)):
        assert spread(column)[2].tolist() == [varies]
    mean, scale, _ = spread(np.full((240, 1), 1.7e9))
    another = replace(Standardisation.none(1, 1), mean=mean, scale=scale).apply(np.array([[1.8e9]]))
    assert abs(another) < 1, "what never varied in training is no outlier of a million deviations elsewhere"


def test_what_was_made_of_the_file_is_said_before_the_first_round(written: Callable[..., Path]) -> None:
    path = written(x=np.c_[X, np.full(len(X), 7.0)], y=CLASSES.astype(float), weights=np.ones(len(X)))
    notes: list[str] = []
    result = run(path, on_note=notes.append, progress=lambda _: notes.append("progress")).result
    assert notes[: notes.index("progress")] == result["notes"]
    said = "\n".join(notes)
    assert said.count("do not vary") == 1
    assert "1 of 4 inputs do not vary among the training devices: 3" in said
    assert "3 classes, whole numbers in an array of floats: 0, 1, 2 (--targets values" in said
    assert "not used: the array weights" in said
    assert "as it is in the file (--standardise" in "\n".join(run(written(), standardise=False).result["notes"])


# Values to predict


UNITS = {"kelvin": (294.0, 3.0), "pascal": (101_325.0, 300.0), "metre": (0.0, 0.002)}


def test_values_in_any_units_give_one_theta_and_errors_in_those_units(written: Callable[..., Path]) -> None:
    plain = run(written(y=VALUES)).result
    for zero, unit in UNITS.values():
        result = run(written(y=zero + unit * VALUES)).result
        for part in ("evaluation", "baseline", "floor"):
            ours, theirs = ([row["loss"] for row in each[part]] for each in (result, plain))
            np.testing.assert_allclose(np.array(ours) / unit**2, theirs, rtol=2e-3)
    metrics = RunDirectory(Path(plain["run"])).metrics()
    assert metrics[-1]["loss"] < np.var(VALUES), "and so is the loss while it learns"


def test_the_loss_of_several_outputs_is_that_of_their_own_units(written: Callable[..., Path]) -> None:
    y = np.c_[294 + 3 * VALUES, 101_325 + 300 * X[:, 2]]
    path = written(y=y)
    task = Npz(path, 0)
    net = network("mlp-8", task.shape, 2, task.loss, task.activation)
    theta, episodes = net.initial_weights(0), task.episodes("test", 2, 5)
    rows = evaluation.measure(task, net, theta, shots=(5,), tasks=2, adapt_lr=0.05)
    adapted = core.adapt(
        net.plan,
        theta,
        episodes.support,
        episodes.query,
        (10,),
        inner_loop("batch", episodes.support.samples, 10, 0.05),
        outputs=True,
    )
    assert adapted.outputs is not None
    assert task.standardisation is not None
    predicted = task.standardisation.target_mean + task.standardisation.target_scale * adapted.outputs[0]
    # The rows of the query sets, found again by their inputs.
    table = {row.tobytes(): i for i, row in enumerate(task.standardisation.apply(X))}
    truth = np.array([[y[table[row.tobytes()]] for row in episodes.query.table[rows]] for rows in episodes.query.rows])
    own = ((predicted - truth) ** 2).mean(axis=(1, 2)).mean()
    assert next(row.loss for row in rows if (row.mode, row.steps) == ("batch", 10)) == pytest.approx(own, rel=1e-4)


def test_a_new_device_adapts_and_is_measured_in_the_units_of_its_file(written: Callable[..., Path], tmp_path: Path) -> None:
    fleets = {unit: run(written(y=zero + size * VALUES)) for unit, (zero, size) in UNITS.items()}
    curves = {}
    for unit, fleet in fleets.items():
        zero, size = UNITS[unit]
        mine = written(x=X[:20], y=zero + size * VALUES[:20])
        curve = tinyfl.adapt(fleet.path, mine, shots=10, out=tmp_path / f"{unit}.npz")["curve"]
        curves[unit] = np.array([point["loss"] for point in curve]) / size**2
        assert Initialisation.load(tmp_path / f"{unit}.npz").standard.target_mean == pytest.approx(zero, abs=4 * size)
    np.testing.assert_allclose(curves["kelvin"], curves["metre"], rtol=1e-3)
    np.testing.assert_allclose(curves["pascal"], curves["metre"], rtol=1e-3)
    assert curves["metre"][-1] < curves["metre"][0]


def test_one_value_far_off_is_named(written: Callable[..., Path]) -> None:
    trains = Npz(written(), 0)._members["train"][0]
    y = np.where(np.arange(len(DEVICE)) == 20 * trains, 1e6, VALUES)
    (note,) = [note for note in run(written(y=y)).result["notes"] if "deviations off" in note]
    assert "1e+06 is 13 deviations off" in note


# Classes


FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "whole": lambda y: y,
    "floats": lambda y: y.astype(np.float32),
    "column": lambda y: y[:, None].astype(float),
    "one-hot": lambda y: np.eye(3)[y],
    "one-hot truth": lambda y: np.eye(3)[y] == 1,
}


@pytest.mark.parametrize("form", FORMS)
def test_classes_are_the_same_however_an_array_holds_them(written: Callable[..., Path], form: str) -> None:
    result = run(written(y=FORMS[form](CLASSES)))
    plain = run(written())
    assert result.result["theta_sha256"] == plain.result["theta_sha256"]
    assert all(row["accuracy"] is not None for row in result.evaluation)
    mine = [tinyfl.adapt(result.path, written(x=X[:20], y=FORMS[each](CLASSES[:20])))["curve"] for each in (form, "whole")]
    assert mine[0] == mine[1]


@pytest.mark.parametrize(
    ("y", "loss", "outputs"),
    [
        (CLASSES - 1, Loss.softmax_cross_entropy, 3),
        (10.0 * CLASSES, Loss.softmax_cross_entropy, 3),
        (CLASSES == 1, Loss.softmax_cross_entropy, 2),
        (CLASSES + 0.5, Loss.mean_squared_error, 1),
        (np.float32(1e9) * X[:, 0].astype(np.float32), Loss.mean_squared_error, 1),  # all whole, as floats of that size are
        (np.eye(3)[CLASSES] * 0.9 + 0.05, Loss.mean_squared_error, 3),
        (X, Loss.mean_squared_error, 3),
    ],
)
def test_what_y_holds_is_read_off_it(written: Callable[..., Path], y: np.ndarray, loss: Loss, outputs: int) -> None:
    task = Npz(written(y=y), 0)
    assert (task.loss, task.outputs) == (loss, outputs)


def test_whole_numbers_are_values_where_the_user_says_so(written: Callable[..., Path]) -> None:
    path = written(y=CLASSES)
    result = run(path, targets="values").result
    assert result["evaluation"][0]["accuracy"] is None
    assert RunDirectory(Path(result["run"])).config().targets == "values"
    assert tinyfl.simulate(resume=result["run"]).result["theta_sha256"] == result["theta_sha256"]
    with pytest.raises(RunError, match="targets 'values' and cannot be resumed with 'classes'"):
        tinyfl.simulate(resume=result["run"], targets="classes")


@pytest.mark.parametrize(
    ("y", "targets", "says"),
    [
        (np.array(["a", "b", "c"])[CLASSES], "values", r"array y is <U1 .*not numbers"),
        (VALUES, "classes", r"and has -?\d+\.\d+ in row 0\. Classes are whole numbers.*--targets values"),
        (np.c_[CLASSES, CLASSES], "", r"has 0, 0 in row 0\. Classes are whole numbers .* one-hot rows.*--targets values"),
        (np.arange(240), "", r"which no training device has.*--targets values"),
        (np.full(240, 21.5), "", r"array y is 21\.5 on all training devices"),
        (np.where(CLASSES == 1, np.nan, 0), "", "array y has nan in row 1"),
        (CLASSES * 1j, "values", "an array of complex128"),
    ],
)
def test_targets_that_cannot_be_learnt_are_refused_with_the_cure(
    written: Callable[..., Path], y: np.ndarray, targets: str, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        Npz(written(y=y), 0, targets=targets)


def test_settings_of_the_users_data_are_for_those_alone() -> None:
    assert resolve({"task": "npz"}).standardise
    assert not resolve({"task": "npz", "network": "own.keras"}).standardise
    assert resolve({"task": "npz", "network": "own.keras", "standardise": True}).standardise
    for options in ({"standardise": True}, {"targets": "values"}, {"task": "sine", "targets": "classes"}):
        with pytest.raises(ConfigError, match="brings its own"):
            resolve(options)
    with pytest.raises(ConfigError, match="--targets classes or values"):
        resolve({"task": "npz", "targets": "labels"})


# The floor


def test_the_floor_is_scikit_learns_dummies(written: Callable[..., Path]) -> None:
    from sklearn.dummy import DummyClassifier, DummyRegressor

    for y, dummy in ((VALUES, DummyRegressor()), (CLASSES * (RNG.random(240) < 0.4), DummyClassifier())):
        task = Npz(written(y=y), 0)
        net = network("mlp", task.shape, task.outputs, task.loss, task.activation)
        row = floors.floor(task, net, shots=(7,), tasks=40)[0]
        episodes, scores = task.episodes("test", 40, 7), []
        for support, query in zip(episodes.support.rows, episodes.query.rows, strict=True):
            if task.loss is Loss.mean_squared_error:
                truth = episodes.query.targets * task.standardisation.target_scale  # type: ignore[operator,union-attr]
                fitted = dummy.fit(truth[support], truth[support])
                scores.append(((fitted.predict(truth[query]).ravel() - truth[query].ravel()) ** 2).mean())
            else:
                fitted = dummy.fit(support, task._labels[support])  # type: ignore[index]
                scores.append(fitted.score(query, task._labels[query]))  # type: ignore[index]
        what = "loss" if row["accuracy"] is None else "accuracy"
        expected = evaluation.mean_and_interval(np.array(scores), episodes.device)[0]
        assert row[what] == pytest.approx(expected, rel=1e-5)


def test_a_run_that_is_worse_than_its_floor_says_so_before_anything_else(
    written: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from tinyfl.cli.show import runs as show

    far = 1e6 + np.eye(3)[CLASSES]  # as it is, nothing can be learnt from it
    bad = run(written(x=far), standardise=False, rounds=5, rate=1e-9).result
    assert bad["worse_than_floor"][-1] == bad["floor"][-1]
    assert "start a new run with --standardise" in bad["verdict"]
    show.run(bad)
    shown = capsys.readouterr().out
    assert shown.startswith("Worse than without a network: after 10 steps on 5 shots")
    assert "Accuracy, ± half of a 95 % interval over devices. batch: each step on all shots at once; stream: each" in shown
    good = run(written(x=far)).result
    assert (good["worse_than_floor"], good["verdict"]) == ([], "")
    show.run(good)
    assert "Worse" not in capsys.readouterr().out


def test_the_cure_for_what_diverges_is_one_that_cures_it(written: Callable[..., Path]) -> None:
    path = written(x=1.7e9 + X)
    with pytest.raises(TrainingError, match=r"as they are in the file: start a new run with --standardise and another --out\."):
        run(path, standardise=False)
    with pytest.raises(TrainingError, match="smaller --rate than 50"):
        run(path, rate=50.0, out=path.with_name("wild"))
    assert not run(path, out=path.with_name("cured")).result["left_out"]


# What earlier runs left


def test_an_older_initialisation_is_read_as_it_was_meant(written: Callable[..., Path]) -> None:
    result = run(written(y=294 + 3 * VALUES))
    file = result.path / "initialisation.npz"
    held = dict(np.load(file))
    old = {name: held[name] for name in held if not name.startswith("target_")}
    np.savez(file, **{**old, "mean": old["mean"].astype(np.float32), "scale": old["scale"].astype(np.float32)})
    standard = Initialisation.load(result.path).standard
    assert (standard.target_mean, standard.target_scale) == (0, 1)
    for name in ("mean", "target_scale"):
        np.savez(file, **{**held, name: held[name] * np.nan})
        with pytest.raises(RunError, match=f"{name} is not . finite numbers"):
            Initialisation.load(result.path)


def test_runs_on_tasks_with_their_own_data_have_the_hash_that_they_had() -> None:
    # By the version before these settings; a run that it began goes on, and its files still belong together.
    assert resolve({}).sha256() == "4c6bcec2d2c8cc743dafff93374b19b90b3a331db819f6f56cba178a7476ebe1"
    assert resolve({"task": "sine"}).sha256() == "a531d070c84b0c165f7eab65aa4fc63585d8acafa1e01061e74929e3eebc4e0a"
    assert (
        len(
            {
                resolve({"task": "npz", "standardise": s, "targets": t}).sha256()
                for s in (True, False)
                for t in ("classes", "values")
            }
        )
        == 4
    )


def test_a_run_of_an_older_tinyfl_on_own_data_is_of_use_but_not_gone_on_with(written: Callable[..., Path]) -> None:
    from tinyfl.runs.finished import origin

    path = run(written()).path
    config = path / "config.toml"
    lines = config.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if not line.startswith(("standardise", "targets"))))
    assert origin(path, None).run is not None
    with pytest.raises(RunError, match="an older tinyfl started this run"):
        tinyfl.simulate(resume=path)


def test_weights_apart_from_their_run_take_data_as_the_run_did(written: Callable[..., Path], tmp_path: Path) -> None:
    from tinyfl.runs.finished import origin

    result = run(written(y=294 + 3 * VALUES))
    alone = tmp_path / "alone.npz"
    alone.write_bytes((result.path / "initialisation.npz").read_bytes())
    other = written(x=5 * X + 3, y=300 + 9 * VALUES)  # another fleet, in the same units
    source = origin(alone, other)
    assert source.task.standardisation == source.start.standard
    np.testing.assert_allclose(source.task.stream(numbers(0, 1), 0, 4).table.std(), 5, rtol=0.2)


def test_a_task_by_its_name_is_taken_as_it_is_where_a_model_of_any_origin_is_measured(written: Callable[..., Path]) -> None:
    from tinyfl.export.infer import _episodes

    task, *_ = _episodes("npz", written(x=300 + X), None)
    assert task.stream(numbers(0, 1), 0, 4).table.mean() == pytest.approx(300, abs=1)
    assert load_task("npz", written(x=300 + X), 0).stream(numbers(0, 1), 0, 4).table.mean() == pytest.approx(0, abs=1)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("unit", [(0.0, 1.0), (101_325.0, 300.0), (0.0, 0.002)])
def test_r2_and_mean_absolute_error_are_scikit_learns_in_the_users_units(
    written: Callable[..., Path], outputs: int, unit: tuple[float, float]
) -> None:
    from sklearn.metrics import mean_absolute_error, r2_score

    y = np.stack([VALUES, X[:, 2] * X[:, 0]], axis=1)[:, :outputs] * unit[1] + unit[0]
    result = run(written(y=y))
    config = RunDirectory(result.path).config()
    start = Initialisation.load(result.path)
    task = config.load_task()
    episodes = task.episodes("test", config.tasks, 5)
    row = next(row for row in result.evaluation if (row["mode"], row["steps"]) == ("batch", 10))
    loop = inner_loop("batch", 5, 10, row["adapt_lr"])
    adapted = core.adapt(start.network.plan, start.theta, episodes.support, episodes.query, (10,), loop, outputs=True)
    assert adapted.outputs is not None
    assert episodes.query.targets is not None
    truth = start.standard.target_mean + start.standard.target_scale * episodes.query.targets[episodes.query.rows]
    found = start.standard.target_mean + start.standard.target_scale * adapted.outputs[0]
    flat = truth.reshape(-1, outputs), found.reshape(-1, outputs)
    np.testing.assert_allclose(row["r2"], r2_score(*flat), atol=1e-4)
    np.testing.assert_allclose(row["mae"], mean_absolute_error(*flat), rtol=1e-3)
    assert row["mae_ci95"] > 0


def test_inputs_by_name_are_put_in_the_runs_order_wherever_its_standardisation_is_used(written: Callable[..., Path]) -> None:
    names, turned = np.array(["a", "b", "c"]), [2, 0, 1]
    result = run(written(inputs=names))
    standard = Initialisation.load(result.path).standard
    plain, other = (written(x=x, inputs=inputs) for x, inputs in ((X, names), (X[:, turned], names[turned])))
    np.testing.assert_array_equal(*(Npz(path, 0, standard=standard)._table for path in (plain, other)))
    ours, theirs = (
        tinyfl.adapt(result.path, written(x=x[:20], y=CLASSES[:20], inputs=inputs))["curve"]
        for x, inputs in ((X, names), (X[:, turned], names[turned]))
    )
    assert ours == theirs
    with pytest.raises(DataError, match="has the inputs a, b, d, and the run a, b, c"):
        tinyfl.adapt(result.path, written(inputs=np.array(["a", "b", "d"])))


def test_the_advice_to_a_run_that_is_worse_names_a_rate_only_if_one_was_given(tmp_path: Path) -> None:
    few: dict[str, Any] = {"task": "sine", "network": "mlp-32", "rounds": 20, "devices": 1, "tasks": 20}
    result = tinyfl.simulate(out=tmp_path / "few", **few).result
    assert result["verdict"].endswith("Give more --rounds than 20.")
    given = verdict(result, resolve({**few, "rate": 0.5}))
    assert given.endswith("Give more --rounds than 20, or leave --rate to its default.")
