"""Keywords by speaker, activity by user, presence by node: what is tested was never trained on, and comes after it in time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tinyfl
from tinyfl.core import TableSource
from tinyfl.errors import DataError
from tinyfl.runs.evaluation import mean_and_interval
from tinyfl.tasks import SPLITS, Task, load_task, numbers
from tinyfl.tasks.activity import Activity
from tinyfl.tasks.keywords import WORDS, Keywords, OthersWords, keywords
from tinyfl.tasks.npz import Npz
from tinyfl.tasks.presence import Presence

DAY = 86_400


def row_of(task: Task, source: TableSource) -> NDArray[np.int64]:
    """The numbers of a source's samples, which their first two inputs hold in base 200."""
    standard = task.standardisation
    assert standard is not None
    high, low = (np.rint(source.table[:, i] * standard.scale[i] + standard.mean[i]).astype(int) for i in (0, 1))
    found: NDArray[np.int64] = (200 * high + low)[source.rows]
    return found


def numbered(rows: int, inputs: int) -> NDArray[np.float32]:
    x = np.random.default_rng(0).normal(100, 30, (rows, inputs)).astype(np.float32)
    x[:, 0], x[:, 1] = np.divmod(np.arange(rows), 200)
    return x


def sets_of(task: Task, shots: int) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]]:
    """For each split the rows of support and query sets, (episodes, samples), and each episode's device."""
    for split in SPLITS:
        episodes = task.episodes(split, 60, shots)
        yield split, row_of(task, episodes.support), row_of(task, episodes.query), episodes.device


def streamed(task: Task, devices: int) -> set[int]:
    """All rows from which training devices learn in some rounds."""
    return {row for n in range(20) for row in row_of(task, task.stream(numbers(0, devices), n, 40)).ravel().tolist()}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 speakers, 11 of whom say each of the ten words and two others four times, the others the first six words once."""
    words = np.array(sorted((*WORDS, "bed", "cat")))
    pairs = [(speaker, word) for speaker in range(24) for word in range(12) for _ in range(4 if speaker < 11 else word < 6)]
    speaker, word = np.random.default_rng(1).permutation(np.array(pairs)).T
    x = np.repeat(numbered(len(word), 2).astype(np.uint8)[:, None], 3, axis=1)  # all windows alike: none is moved
    path = tmp_path_factory.mktemp("clips") / "clips.npz"
    names = np.array([f"speaker {n:02}" for n in range(24)])
    np.savez(path, logmel=x, word=word, words=words, speaker=speaker, speakers=names)
    return path


def test_speakers_who_are_tested_train_in_no_fold_and_five_seeds_test_each_once(clips: Path) -> None:
    held, tested = np.load(clips), list[str]()
    speaker, word = held["speakers"][held["speaker"]], held["words"][held["word"]]
    for seed in range(5):
        task = keywords(clips, seed, shots=10)
        assert isinstance(task, Keywords)
        assert (task.outputs, task.shape) == (10, (3, 2, 1))
        who = {"train": set(speaker[list(streamed(task, task.fleet_size or 0))])}
        for split, support, query, _ in sets_of(task, 10):
            who[split] = {*speaker[support].ravel(), *speaker[query].ravel()}
            assert set(word[query].ravel()) <= set(WORDS)
            assert all(len({*a, *b}) == 10 + len(set(b)) for a, b in zip(support, query, strict=True))
            assert all(len({*speaker[a], *speaker[b]}) == 1 for a, b in zip(support, query, strict=True))
        assert not who["train"] & (who["test"] | who["validation"])
        assert not who["test"] & who["validation"]
        tested += who["test"]
    assert sorted(tested) == [f"speaker {n:02}" for n in range(11)]


@pytest.mark.parametrize("seed", range(4))
def test_words_and_speakers_that_are_tested_train_not_and_support_is_other_speakers(clips: Path, seed: int) -> None:
    held = np.load(clips)
    speaker, word = held["speakers"][held["speaker"]], held["words"][held["word"]]
    task = keywords(clips, seed, episodes="classes")
    assert isinstance(task, OthersWords)
    rows = list(streamed(task, 50))
    words, speakers = {"train": set(word[rows])}, {"train": set(speaker[rows])}
    assert words["train"] > {"bed", "cat"}
    for split, support, query, device in sets_of(task, 2):
        words[split], speakers[split] = set(word[query].ravel()), {*speaker[support].ravel(), *speaker[query].ravel()}
        names = task.device_names(split)  # type: ignore[arg-type]
        for told, asked, number in zip(support, query, device, strict=True):
            assert set(speaker[asked]) == {names[number]}
            assert names[number] not in speaker[told]
    assert words["test"] == set(WORDS[:5] if seed % 2 == 0 else WORDS[5:])
    assert not words["test"] & (words["train"] | words["validation"])
    assert not speakers["train"] & (speakers["validation"] | speakers["test"])
    assert not speakers["validation"] & speakers["test"]
    episodes = task.episodes("test", 8, 2)
    support, query = episodes.support, episodes.query
    assert support.labels is not None
    assert query.labels is not None
    for e in range(len(episodes.device)):
        told, asked = row_of(task, support)[e], row_of(task, query)[e]
        pairs = {*zip(support.labels[e], word[told], strict=True), *zip(query.labels[e], word[asked], strict=True)}
        assert len(pairs) == 5


def test_fewer_ways_see_some_of_the_words(clips: Path) -> None:
    task = keywords(clips, 0, episodes="classes", ways=3)
    query = task.episodes("test", 40, 1).query
    words = np.load(clips)["words"][np.load(clips)["word"]]
    seen = [frozenset(words[rows]) for rows in row_of(task, query)]
    assert {len(each) for each in seen} == {3}
    assert len(set(seen)) > 5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"word": np.full(600, 99)}, "array word is int64 .600"),
        ({"word": None}, "lacks the array 'word'"),
        ({"words": np.array(["bed"])}, "an index beyond the 1 words"),
        ({"logmel": np.zeros((606, 3, 2))}, r"array logmel is float64 .606, 3, 2., not uint8"),
        ({"words": np.array([f"w{n}" for n in range(12)])}, "0 speakers have 30 clips"),
    ],
)
def test_clips_that_cannot_be_used_are_refused(clips: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    arrays = {name: each for name, each in {**np.load(clips), **change}.items() if each is not None}
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(DataError, match=says):
        keywords(tmp_path / "other.npz", 0)


def test_sound_that_was_not_converted_is_refused_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "s.tar.gz").write_bytes(b"sound")
    with pytest.raises(DataError, match="tinyfl data convert keywords"):
        keywords(tmp_path / "s.tar.gz", 0)


def test_users_who_are_tested_train_not_and_are_those_of_the_recipe(tmp_path: Path) -> None:
    user = np.random.default_rng(0).permutation(np.repeat(np.arange(1, 25), 30))
    x, y = numbered(len(user), 5), user % 3
    x[::7, 3] = np.nan
    np.savez(tmp_path / "a.npz", X=x, y=y, user=user, activities=np.array(["sit", "run", "go"]))
    for seed in range(3):
        task = load_task("activity", tmp_path / "a.npz", seed)
        assert isinstance(task, Activity)
        who = {"train": set(user[list(streamed(task, task.fleet_size or 0))])}
        for split, support, query, _ in sets_of(task, 5):
            who[split] = {*user[support].ravel(), *user[query].ravel()}
            assert all(len({*a, *b}) == 5 + len(set(b)) for a, b in zip(support, query, strict=True))
        recipe = np.random.default_rng(seed).choice(np.unique(user), 10, replace=False)  # bench/wisdm.py
        assert who["test"] == set(recipe)
        assert not who["train"] & (who["test"] | who["validation"])
        assert not who["test"] & who["validation"]
        assert task.standardisation is not None
        assert task.standardisation.classes.tolist() == ["go", "run", "sit"]


def room(path: Path, days: int = 5, nodes: int = 4) -> NDArray[np.int64]:
    """Writes rows of every 20 minutes; somebody is there from 9 to 17 o'clock. Each node's first two inputs number its row."""
    time = np.arange(days * 72) * 1200 + 1_513_900_800
    there = (time % DAY >= 9 * 3600) & (time % DAY < 17 * 3600)
    x = np.zeros((len(time), 3, 4), np.float32)
    x[:, 0], x[:, 1] = (each[:, None] for each in np.divmod(np.arange(len(time)), 200))
    x[:, 2] = there[:, None] * 300 + np.arange(4)
    order = np.random.default_rng(0).permutation(len(time))
    if nodes == 4:
        np.savez(path, X=x.reshape(-1, 12)[order], count=2 * there[order], time=time[order])
    else:
        np.savez(path, X=x[:, :, 0][order], y=1 * there[order], time=time[order])
    return time


@pytest.mark.parametrize("nodes", [1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_a_query_set_comes_after_its_support_set_and_after_all_that_trains(tmp_path: Path, seed: int, nodes: int) -> None:
    time = room(tmp_path / "room.npz", days=5 if nodes == 4 else 11, nodes=nodes)
    task = load_task("presence", tmp_path / "room.npz", seed)
    assert isinstance(task, Presence)
    trained = time[list(streamed(task, task.fleet_size or 0))]
    when = {"train": trained}
    for split, support, query, device in sets_of(task, 7):
        when[split] = time[query]
        assert (time[support].max(axis=1) < time[query].min(axis=1)).all()
        if split == "test" or nodes == 1:
            assert time[query].min() > trained.max()
        if split == "test":
            assert all(len(set((time[query[device == each]] // DAY).ravel())) == 1 for each in np.unique(device))
        names = {name.split()[1] for name in task.device_names(split)}  # type: ignore[arg-type]
        assert names == {str((seed + (split == "validation")) % nodes + 1)}
    assert when["test"].min() > when["validation"].max()
    assert len(task.device_names("test")) == 4


def test_a_node_that_is_tested_or_chooses_rates_does_not_train(tmp_path: Path) -> None:
    room(tmp_path / "room.npz")
    task = Presence(tmp_path / "room.npz", 1)
    assert task.standardisation is not None
    sound = task._table[:, 2] * task.standardisation.scale[2] + task.standardisation.mean[2]
    rows = task.stream(numbers(0, 4), 0, 30).rows
    assert set((np.rint(sound[rows]) % 100).ravel()) == {0, 3}
    assert task.fleet_size == 4


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"X": np.zeros((9, 12)), "count": np.zeros(9, int)}, "lacks the array 'time'"),
        ({"X": np.zeros((9, 12)), "time": np.arange(9)}, "give X .rows, inputs., time and y or count"),
        (
            {"X": np.zeros((9, 12)), "time": np.arange(9), "count": np.zeros(9)},
            "the answers float64: give both as whole numbers",
        ),
        ({"X": np.zeros((9, 12)), "time": np.arange(9), "count": np.ones(9, int)}, "is of one day"),
        ({"X": np.zeros((9, 12)), "time": np.arange(9) * DAY // 4, "count": np.ones(9, int)}, "has somebody always or never"),
        ({"X": np.zeros((9, 2)), "time": np.arange(9) * DAY // 4, "count": np.ones(9, int)}, "four nodes have 12"),
        ({"X": np.zeros((2, 2)), "time": np.arange(2) * DAY, "y": np.ones(2, int)}, "have 1 rows only"),
    ],
)
def test_rows_of_no_room_are_refused(tmp_path: Path, arrays: dict[str, NDArray[Any]], says: str) -> None:
    np.savez(tmp_path / "room.npz", **arrays)
    with pytest.raises(DataError, match=says):
        load_task("presence", tmp_path / "room.npz", 0)


def test_more_shots_than_there_are_samples_before_are_refused(tmp_path: Path) -> None:
    room(tmp_path / "room.npz")
    with pytest.raises(DataError, match=r"samples before it\. Give --shots 36 or fewer"):
        load_task("presence", tmp_path / "room.npz", 0).episodes("validation", 10, 40)


def test_a_folder_is_refused_where_a_resumed_run_would_not_see_it_change(tmp_path: Path) -> None:
    for name in ("activity", "presence"):
        with pytest.raises(DataError, match=r"is a folder\. Give the archive as it was downloaded"):
            load_task(name, tmp_path, 0)


def test_a_run_on_presence_beats_the_majority_and_is_the_same_when_it_is_resumed(tmp_path: Path) -> None:
    room(tmp_path / "room.npz")
    run = tinyfl.simulate(task="presence", data=tmp_path / "room.npz", rounds=300, tasks=40, out=tmp_path / "run")
    majority = next(row["accuracy"] for row in run.result["floor"] if row["method"] == "majority")
    assert run.evaluation[3]["accuracy"] > majority
    assert tinyfl.simulate(resume=tmp_path / "run").result["theta_sha256"] == run.result["theta_sha256"]


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("keywords", "speech_commands_test_logmel40.npz"),
        ("activity", "wisdm_users.npz"),
        ("presence", "room_occupancy.npz"),
        ("presence", "occupancy.npz"),
    ],
)
def test_real_data_make_a_task(shared_data: Callable[[str], Path], task: str, file: str) -> None:
    made = load_task(task, shared_data(file), 0)
    assert isinstance(made, Npz)
    episodes = made.episodes("test", 100, 20)
    assert len(np.unique(episodes.device)) >= {"keywords": 10, "activity": 10, "presence": 6}[task]
    assert np.isfinite(mean_and_interval(np.ones(len(episodes.device)), episodes.device)[0])


def test_fifty_two_speakers_of_the_real_clips_can_be_tested(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("speech_commands_test_logmel40.npz")
    tested = [name for seed in range(5) for name in keywords(path, seed).device_names("test")]  # type: ignore[union-attr]
    assert len(tested) == len(set(tested)) == 52
