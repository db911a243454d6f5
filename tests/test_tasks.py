"""Tasks: samples are what the page says, fresh each round, never shared between splits; bad data is named with its cure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyfl import core
from tinyfl.core.draws import below, distinct
from tinyfl.errors import ConfigError, DataError
from tinyfl.networks import network
from tinyfl.networks.layers import Loss
from tinyfl.tasks import load_task, numbers
from tinyfl.tasks.digits import images_and_labels
from tinyfl.tasks.episodic import Episodic
from tinyfl.tasks.npz import Npz


def test_sine_devices_are_sines_of_the_stated_ranges() -> None:
    task = load_task("sine", None, 0)
    episodes = task.episodes("test", 500, 10)
    x = np.linspace(-5, 5, 50)
    for row in episodes.query.rows[:50]:
        y = episodes.query.targets[row, 0]  # type: ignore[index]
        basis = np.stack([np.sin(x), np.cos(x)], axis=1)
        coefficients, residual, *_ = np.linalg.lstsq(basis, y, rcond=None)
        assert residual[0] < 1e-8
        assert 0.09 < np.hypot(*coefficients) < 5.01
    support = episodes.support
    assert support.rows.shape == (500, 10)
    assert -5 <= support.table.min() < -4.9
    assert 4.9 < support.table.max() <= 5


def test_a_stream_goes_on_with_fresh_samples_each_round() -> None:
    for name in ("sine", "digits"):
        task = load_task(name, None, 0)
        plan = network("mlp", task.shape, task.outputs, task.loss, task.activation).plan
        rounds = [core.samples(task.stream(numbers(3, 2), r, 16), plan, numbers(3, 2), r, 16)[0] for r in (0, 1)]
        assert not np.array_equal(rounds[0], rounds[1])
        again = core.samples(task.stream(numbers(3, 2), 0, 16), plan, numbers(3, 2), 0, 16)[0]
        assert np.array_equal(rounds[0], again)


def test_a_devices_samples_do_not_depend_on_who_else_is_in_the_cohort() -> None:
    task = load_task("digits", None, 0)
    alone, together = task.stream(numbers(7, 1), 3, 8), task.stream(numbers(0, 20), 3, 8)
    assert np.array_equal(alone.rows[0], together.rows[7])
    assert np.array_equal(alone.labels[0], together.labels[7])


def test_digits_devices_see_five_digits_in_their_own_order_turn_and_gain() -> None:
    task = load_task("digits", None, 0)
    assert isinstance(task, Episodic)
    classes, gain = task.classes_and_gains(numbers(0, 2000), task.train)
    turns, digits = np.divmod(classes, 10)
    assert (turns == turns[:, :1]).all()
    assert set(turns[:, 0]) == {0, 1, 2, 3}
    assert all(len(set(row)) == 5 for row in digits)
    assert np.bincount(digits.ravel(), minlength=10).min() > 800
    assert 0.5 <= gain.min() < 0.51
    assert 1.49 < gain.max() <= 1.5


def test_digits_splits_share_no_image() -> None:
    task = load_task("digits", None, 0)
    assert isinstance(task, Episodic)
    images = [{row.tobytes() for row in pool.table} for pool in (task.train, task.validation, task.test)]
    assert sum(len(pool.table) for pool in (task.train, task.validation, task.test)) == 4 * 1797
    assert not images[0] & images[2]
    assert not images[1] & images[2]
    assert not images[0] & images[1]


def test_support_and_query_of_an_episode_share_no_sample() -> None:
    episodes = load_task("digits", None, 0).episodes("test", 300, 5)
    assert episodes.support.rows.shape == (300, 25)
    assert episodes.query.rows.shape == (300, 75)
    for support, query in zip(episodes.support.rows, episodes.query.rows, strict=True):
        assert len({*support, *query}) == 100
    assert (np.sort(episodes.support.labels, axis=1) == np.repeat(np.arange(5), 5)).all()  # type: ignore[call-overload]


def test_omniglot_reads_the_users_file(shared_data: Callable[[str], Path]) -> None:
    task = load_task("omniglot", shared_data("omniglot28.npz"), 0)
    assert isinstance(task, Episodic)
    assert len(task.test.count) == 659
    assert len(task.train.count) + 4 * len(task.validation.count) == 4 * 964
    assert (task.test.count == 20).all()
    assert set(np.unique(task.train.table)) == {0.0, 1.0}


def test_npz_holds_the_split_out_and_standardises_by_training_devices(own_data: Path) -> None:
    task = Npz(own_data, 0)
    arrays = np.load(own_data)
    assert (task.outputs, task.shape, task.loss) == (3, (4,), Loss.softmax_cross_entropy)
    episodes = task.episodes("test", 30, 5)
    assert set(episodes.device) == {0, 1, 2}
    held_out = np.isin(arrays["device"], [2, 5, 7])
    assert task.standardisation is not None
    test_x = task.standardisation.apply(arrays["x"][held_out])
    seen = episodes.query.table[np.unique(episodes.query.rows)]
    assert {row.tobytes() for row in seen} <= {row.tobytes() for row in test_x}
    train_x = {row.tobytes() for row in task.stream(numbers(0, task.fleet_size or 0), 0, 60).table}
    rows = task.stream(numbers(0, task.fleet_size or 0), 0, 60).rows
    assert not {task._table[row].tobytes() for row in np.unique(rows)} & {row.tobytes() for row in test_x}
    assert train_x


def test_npz_regression_and_named_devices(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "r.npz"
    np.savez(path, x=rng.normal(size=(100, 2, 3)), y=rng.normal(size=(100, 2)), device=np.array(list("abcde") * 20))
    task = load_task("npz", path, 0)
    assert (task.shape, task.outputs, task.loss) == ((2, 3, 1), 2, Loss.mean_squared_error)
    assert task.episodes("test", 10, 3).query.targets is not None


@pytest.mark.parametrize(
    ("shape", "says"), [((6,), (6,)), ((2, 3), (2, 3, 1)), ((2, 3, 4), (2, 3, 4)), ((1, 5), (1, 5, 1)), ((3, 1, 1), (3, 1, 1))]
)
def test_npz_inputs_with_rows_and_columns_keep_them(tmp_path: Path, shape: tuple[int, ...], says: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, y, device = rng.normal(size=(100, *shape)), np.arange(100) // 5 % 2, np.array(list("abcde") * 20)
    np.savez(tmp_path / "rows.npz", x=x, y=y, device=device)
    np.savez(tmp_path / "flat.npz", x=x.reshape(100, -1), y=y, device=device)
    task, flat = (load_task("npz", tmp_path / name, 0) for name in ("rows.npz", "flat.npz"))
    assert task.shape == says
    assert flat.shape == (np.prod(shape),)
    ours, theirs = (which.stream(numbers(0, 3), 0, 4) for which in (task, flat))
    np.testing.assert_array_equal(ours.table, theirs.table)  # only the shape differs: the last index runs fastest
    np.testing.assert_array_equal(ours.rows, theirs.rows)


def test_npz_inputs_of_more_dimensions_are_refused(tmp_path: Path) -> None:
    x = np.zeros((100, 2, 2, 2, 2))
    np.savez(tmp_path / "deep.npz", x=x, y=np.arange(100) % 2, device=np.repeat(np.arange(10), 10))
    with pytest.raises(DataError, match=r"array x is \(100, 2, 2, 2, 2\)"):
        load_task("npz", tmp_path / "deep.npz", 0)


def test_standardisation_is_right_for_many_large_values_and_for_inputs_that_do_not_vary(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    device, x = np.repeat(np.arange(8), 50_000), np.empty((400_000, 2))
    x[:, 0] = rng.normal(1000, 1, len(x))
    x[:, 1] = np.where(device == 7, 0.3, 0.1)
    np.savez(tmp_path / "d.npz", x=x, y=rng.integers(0, 2, len(x)), device=device, split=np.array([7]))
    standard = Npz(tmp_path / "d.npz", 0).standardisation
    assert standard is not None
    np.testing.assert_allclose(standard.mean, [1000, 0.1], rtol=1e-5)
    np.testing.assert_allclose(standard.scale, [1, 1], rtol=0.01)


def test_a_device_with_few_spare_samples_does_not_cut_the_others_query_sets(tmp_path: Path) -> None:
    device = np.repeat(np.arange(6), [100, 100, 100, 100, 100, 11])
    x = np.arange(len(device), dtype=float)[:, None]
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(len(device)) % 2, device=device, split=np.array([4, 5]))
    task = Npz(tmp_path / "d.npz", 0)
    episodes = task.episodes("test", 2, 10)
    assert episodes.query.rows.shape == (2, 50)
    assert len(set(episodes.query.rows[0])) == 50
    assert len(set(episodes.query.rows[1])) == 1
    assert not set(episodes.query.rows[1]) & set(episodes.support.rows[1])
    assert len(task.episodes("test", 1, 10).device) == 1


X, Y, DEVICE = np.ones((12, 2)), np.arange(12) % 2, np.repeat(np.arange(6), 2)
NAN = X.copy()
NAN[5, 1] = np.nan


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": X, "y": Y}, "lacks the array 'device'"),
        ({"x": np.where(np.isnan(NAN), np.inf, NAN), "y": Y, "device": DEVICE}, "array x has inf in row 5, column 1"),
        ({"x": X[:5], "y": Y, "device": DEVICE}, "array y is .* but x has 5 rows"),
        ({"x": X, "y": Y, "device": DEVICE[:3]}, "array device is .* but x has 12 rows"),
        ({"x": X[:, 0], "y": Y, "device": DEVICE}, "array x is float64 .* Give each sample one row"),
        ({"x": X, "y": Y.astype(complex), "device": DEVICE}, "plain arrays"),
        ({"x": X, "y": Y, "device": DEVICE.astype(object)}, r"array device holds Python objects.*device\.astype\(str\)"),
        ({"x": X, "y": Y.astype(object), "device": DEVICE}, r"array y holds Python objects.*y\.astype\(str\)"),
        ({"x": X, "y": Y, "device": DEVICE, "validation": np.array([99])}, "array validation lists device .*99"),
        ({"x": X, "y": Y, "device": DEVICE, "validation": np.arange(6)}, "At least 1 must be held out and 2 remain"),
        ({"x": X, "y": Y, "device": DEVICE, "split": [1], "validation": [0, 1]}, "device 1 is both in"),
        ({"x": X, "y": np.where(DEVICE == 5, np.nan, 1.0), "device": DEVICE}, "array y has nan in row 10"),
        ({"x": X, "y": Y, "device": DEVICE, "split": np.array([99])}, "array split holds out device .*99"),
        ({"x": X, "y": Y, "device": DEVICE, "split": np.array([8, 99])}, "array split holds out device 8, 99, which"),
        (
            {"x": X, "y": np.r_[7, 8, Y[2:]], "device": DEVICE, "split": [0]},
            "class 7 in row 0, and classes 8, which no",
        ),
        ({"x": X, "y": Y, "device": DEVICE, "split": np.arange(5)}, "At least 1 must be held out and 2 remain"),
        ({"x": X, "y": Y, "device": DEVICE, "split": np.isin(DEVICE, [3, 4])}, "array split is"),
        ({"x": X, "y": Y, "device": DEVICE, "split": np.array(["3"])}, "array split is"),
        ({"x": X, "y": Y, "device": np.where(DEVICE == 3, np.nan, DEVICE)}, "array device has nan in row 6"),
        ({"x": X, "y": np.where(DEVICE == 0, 7, Y), "device": DEVICE, "split": np.array([0])}, "class 7 in row 0"),
        ({"x": X, "y": np.zeros(12, int), "device": DEVICE}, "one class only"),
        ({"x": X, "y": Y, "device": np.zeros((12, 2))}, "array device is .* one device name"),
    ],
)
def test_bad_data_is_named_with_its_row(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=says):
        load_task("npz", path, 0)


def test_too_few_samples_for_the_shots_names_the_device_and_the_cure(own_data: Path) -> None:
    with pytest.raises(DataError, match=r"device \d+ \(test\) has 30 samples.*--shots 29 or fewer"):
        Npz(own_data, 0).episodes("test", 10, 30)
    with pytest.raises(DataError, match="--shots"):
        load_task("digits", None, 0).episodes("test", 10, 1000)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.npz"):
        load_task("npz", path, 0)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, x=np.array([{}], dtype=object), y=Y, device=DEVICE)
    with pytest.raises(DataError, match="plain arrays"):
        load_task("npz", path, 0)


def test_a_task_with_the_wrong_data_option_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data FILE"):
        load_task("omniglot", None, 0)
    with pytest.raises(ConfigError, match="--task npz"):
        load_task("digits", tmp_path, 0)
    with pytest.raises(DataError, match="no such file"):
        load_task("npz", tmp_path / "absent.npz", 0)


def test_distinct_draws_are_distinct_in_range_and_uniform() -> None:
    words = core.random(0, core.Stream.task, numbers(0, 3000), words=7)
    picks = distinct(words, np.full(3000, 5), 3)
    assert picks.max() == 4
    assert all(len(set(row)) == 3 for row in picks)
    assert np.bincount(picks.ravel()).min() > 1650  # 1,800 expected of each


def test_below_reaches_every_number_and_no_more() -> None:
    words = np.array([0, 2**31, 2**32 - 1], np.uint32)
    assert below(words, 10).tolist() == [0, 5, 9]


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    for ours, theirs in zip(images_and_labels(), load_digits(return_X_y=True), strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
