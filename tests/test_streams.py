"""Streams for algorithms that train prototypes, or all classes at once: in turn, under global labels, and nothing leaks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_class_episodes import rows_in, table_of, task_of
from test_sensor_tasks import clips as clips

import tinyfl
from tinyfl.core import TableSource
from tinyfl.core.draws import shuffled
from tinyfl.errors import ConfigError, DataError
from tinyfl.tasks import SPLITS, ClassTask, load_task, numbers
from tinyfl.tasks.keywords import keywords
from tinyfl.tasks.npz import Npz
from tinyfl.tasks.omniglot import omniglot

CHARACTERS = (14, 16, 9, 20, 12, 15, 17, 13, 18, 21)
"""Of each alphabet: the first four train, the next four are for validation, and the last two for testing."""

DRAWINGS = 4


@pytest.fixture(scope="module")
def alphabets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Characters whose images are their numbers: 16 bits for the character, 8 for the drawing, none of them symmetric."""
    path = tmp_path_factory.mktemp("omniglot") / "omniglot28.npz"
    alphabet = np.repeat(np.arange(10), np.array(CHARACTERS) * DRAWINGS)
    cls = np.repeat(np.arange(sum(CHARACTERS)), DRAWINGS)
    pixels = np.zeros((len(cls), 28, 28), np.uint8)
    pixels[:, 0, :5] = 1
    pixels[:, 1, :16] = cls[:, None] >> np.arange(16) & 1
    pixels[:, 2, :8] = np.arange(len(cls))[:, None] % DRAWINGS >> np.arange(8) & 1
    bits = np.packbits(pixels.reshape(len(cls), -1), axis=1)
    np.savez(path, bits=bits, cls=cls, alphabet=alphabet, alphabet_split=(np.arange(10) >= 8).astype(int))
    return path


def read(table: np.ndarray) -> np.ndarray:
    """The turn, character and drawing of each image."""
    images = table.reshape(-1, 28, 28)
    by_turn = [np.rot90(images, -turn, axes=(1, 2)) for turn in range(4)]
    turns = np.stack([each[:, 0, :5].all(axis=1) for each in by_turn]).argmax(axis=0)
    upright = np.stack(by_turn)[turns, np.arange(len(images))]
    character, drawing = ((upright[:, row] @ (1 << np.arange(28) % 16)) for row in (1, 2))
    return np.stack([turns, character, drawing], axis=1)


def alphabet_of(characters: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.cumsum(CHARACTERS), characters, side="right")


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**40), ways=st.integers(2, 14), more=st.integers(0, 16), apart=st.booleans())
def test_no_stream_has_anything_that_is_tested(alphabets: Path, seed: int, ways: int, more: int, apart: bool) -> None:
    task = omniglot(alphabets, seed, ways, more, apart)
    tested = {split: read(getattr(task, split).table) for split in SPLITS}
    for each in (task, task.in_turn(), task.with_global_labels()):
        source = each.stream(numbers(0, 40), 2, 30)
        assert isinstance(source, TableSource)
        seen = read(source.table)[source.rows]
        assert set(alphabet_of(seen[..., 1]).ravel()) <= set(range(4))
        assert not set(seen[..., 1].ravel()) & {*tested["test"][:, 1], *tested["validation"][:, 1]}
        if apart:
            kinds = seen[..., 0] * 100 + alphabet_of(seen[..., 1])
            assert (kinds == kinds[:, :1]).all()
    assert not set(tested["test"][:, 1]) & set(tested["validation"][:, 1])
    for split in SPLITS:
        episodes = task.episodes(split, 20, 1)
        for support, query in zip(episodes.support.rows, episodes.query.rows, strict=True):
            told, asked = tested[split][support], tested[split][query]
            assert len({*support, *query}) == ways * DRAWINGS
            assert len(set(told[:, 1])) == ways
            assert set(told[:, 1]) == set(asked[:, 1])
            assert not apart or len(set(alphabet_of(told[:, 1]))) == 1


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**40), more=st.integers(0, 20), samples=st.integers(1, 90))
def test_a_device_has_its_classes_in_turn_and_no_sample_twice_while_there_are_others(
    alphabets: Path, seed: int, more: int, samples: int
) -> None:
    task = omniglot(alphabets, seed, training_ways=more).in_turn()
    assert isinstance(task, ClassTask)
    source = task.stream(numbers(5, 3), 1, samples)
    assert source.labels is not None
    np.testing.assert_array_equal(source.labels, np.tile(np.arange(samples) % task.episode_ways, (3, 1)))
    for rows, labels in zip(read(source.table)[source.rows], source.labels, strict=True):
        assert len({*zip(labels, rows[:, 0], rows[:, 1], strict=True)}) == min(samples, task.episode_ways)
        for label in set(labels):
            drawings = rows[labels == label, 2]
            turns = [drawings[turn : turn + DRAWINGS] for turn in range(0, len(drawings), DRAWINGS)]
            assert all(len(set(turn)) == len(turn) for turn in turns)


def test_a_global_label_means_the_same_on_every_device(alphabets: Path) -> None:
    task = omniglot(alphabets, 0, training_ways=9).with_global_labels()
    source = task.stream(numbers(0, 500), 0, 40)
    assert source.labels is not None
    kinds = read(source.table)[source.rows][..., :2].reshape(-1, 2)
    pairs = {(label, *kind) for label, kind in zip(source.labels.ravel().tolist(), kinds.tolist(), strict=True)}
    assert len(pairs) == task.classes == 4 * sum(CHARACTERS[:4]) == len({label for label, *_ in pairs})
    assert {label for label, *_ in pairs} == set(range(task.classes))
    assert max(len(set(labels)) for labels in source.labels) == 9


def test_a_digit_turned_is_another_class() -> None:
    task = load_task("digits", None, 0)
    assert isinstance(task, ClassTask)
    plain, source = task.stream(numbers(0, 300), 1, 20), task.with_global_labels().stream(numbers(0, 300), 1, 20)
    assert isinstance(plain, TableSource)
    assert isinstance(source, TableSource)
    assert source.labels is not None
    np.testing.assert_array_equal(source.rows, plain.rows)
    assert task.classes == 40 == len(np.unique(source.labels))
    assert all(len({label // 10 for label in labels.tolist()}) == 1 for labels in source.labels)


def test_a_users_classes_have_global_labels_and_more_of_them_train(clips: Path) -> None:
    table = table_of()
    task = task_of(table, ways=2, training_ways=6).with_global_labels()
    source = task.stream(numbers(0, 200), 0, 30)
    assert source.labels is not None
    classes = table.y[rows_in(task, source.table)[source.rows]]
    assert len({*zip(source.labels.ravel(), classes.ravel(), strict=True)}) == task.classes == len(np.unique(classes))
    assert max(len(set(labels)) for labels in source.labels) == 6
    with pytest.raises(DataError, match=r"as few as 8. Give --training-ways 8 or fewer"):
        task_of(table, ways=2, training_ways=9)
    assert keywords(clips, 0, episodes="classes", training_ways=6).episode_ways == 6


def test_of_devices_of_the_data_all_have_the_same_labels_anyway(own_data: Path) -> None:
    task = Npz(own_data, 0)
    assert isinstance(task, ClassTask)
    plain, turns = (each.stream(numbers(0, 4), 0, 12) for each in (task.with_global_labels(), task.in_turn()))
    np.testing.assert_array_equal(plain.rows, task.stream(numbers(0, 4), 0, 12).rows)
    assert (task.classes, task.episode_ways) == (3, 3)
    assert turns.labels is not None
    assert all(len(set(labels[turn : turn + 3])) == 3 for labels in turns.labels for turn in range(0, 12, 3))


def test_values_have_no_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "v.npz", x=rng.normal(size=(100, 2)), y=rng.normal(size=100), device=np.arange(100) % 10)
    task = Npz(tmp_path / "v.npz", 0)
    for stream in (task.in_turn, task.with_global_labels):
        with pytest.raises(ConfigError, match="y has values to predict, and this algorithm is for classes"):
            stream()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ways": 40}, r"the alphabets .* have not 40 characters. Give fewer --ways or --training-ways: \d+ at most"),
        ({"ways": 21, "one_alphabet": True}, "none of the alphabets .* has 21 characters"),
        ({"training_ways": 300}, "have not 300 characters"),
    ],
)
def test_more_characters_than_there_are_are_refused(alphabets: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        omniglot(alphabets, 0, **options)


def test_settings_of_streams_are_refused_where_they_do_nothing(alphabets: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--training-ways is for algorithms that train prototypes or classes"):
        tinyfl.simulate(task="omniglot", data=alphabets, shots=1, network="mlp-8", training_ways=9, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="--training-ways is of devices with --episodes classes: give that too"):
        tinyfl.config.resolve({"task": "npz", "data": "o.npz", "training_ways": 3})
    with pytest.raises(ConfigError, match="--one-alphabet is not for task digits: leave it out, or say --task omniglot"):
        tinyfl.config.resolve({"task": "digits", "one_alphabet": True})
    with pytest.raises(ConfigError, match="task digits brings its own data: leave --ways out"):
        tinyfl.config.resolve({"task": "digits", "ways": 3})


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_shuffled_numbers_are_those_of_fisher_and_yates(data: st.DataObject) -> None:
    available = data.draw(st.integers(1, 9))
    words = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
    order = list(range(available))
    for i, word in enumerate(words[:available]):
        other = i + (word * (available - i) >> 32)
        order[i], order[other] = order[other], order[i]
    expected = [order[i % available] for i in range(len(words))]
    got = shuffled(np.array([words, words], np.uint32), np.array([available, available]))
    assert got.tolist() == [expected, expected]
