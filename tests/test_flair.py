"""FLAIR: the three layouts give the same samples, nothing leaks, photos are read as they are needed, a wrong file is named."""

import json
import shlex
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

h5py = pytest.importorskip("h5py", reason="needs h5py: pip install 'tinyfl[images]'")
pytest.importorskip("PIL", reason="needs Pillow: pip install 'tinyfl[images]'")

import flair_files as made  # noqa: E402
from test_docs import ROOT, blocks, table, write_files  # noqa: E402

import tinyfl  # noqa: E402
from tinyfl.algorithms import State  # noqa: E402
from tinyfl.config import resolve  # noqa: E402
from tinyfl.core import FASTEST  # noqa: E402
from tinyfl.data.flair import METADATA, Hdf5File, JpegFolder, open_photos, shrink  # noqa: E402
from tinyfl.errors import ConfigError, DataError, RunError  # noqa: E402
from tinyfl.export.carray import c_array  # noqa: E402
from tinyfl.fleets.assembly import Training, assembled  # noqa: E402
from tinyfl.networks import network  # noqa: E402
from tinyfl.runs.directory import RunDirectory  # noqa: E402
from tinyfl.runs.multilabel import LabelScores  # noqa: E402
from tinyfl.tasks import Task, load_task, numbers  # noqa: E402
from tinyfl.tasks.flair import Flair  # noqa: E402

LISTED = made.entries()
PAGE = ROOT / "docs" / "flair.md"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same photos in the three layouts."""
    root = tmp_path_factory.mktemp("flair")
    folder = made.jpeg_folder(root / "jpeg", LISTED)
    return {
        "jpeg": folder,
        "ml-flair": made.ml_flair(root / "ml.hdf5", folder, LISTED),
        "pfl-research": made.pfl_research(root / "pfl.hdf5", folder, LISTED),
    }


@pytest.fixture
def folder(files: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the folder, to spoil."""
    return Path(shutil.copytree(files["jpeg"], tmp_path / "jpeg"))


def samples(task: Flair) -> list[np.ndarray]:
    """All that devices get of the task in two rounds and in the evaluations."""
    streams = [task.stream(numbers(0, 20), round, 9) for round in (0, 1)]
    episodes = [task.episodes(split, 5, 2) for split in ("validation", "test")]
    sources = [*streams, *(source for each in episodes for source in (each.support, each.query))]
    return [array for source in sources for array in (source.table, source.rows, source.targets, source.gain)]


def images(source: Any, device: int) -> set[bytes]:
    """A device's photos in a source."""
    return {source.table[row].tobytes() for row in source.rows[device]}


@pytest.mark.parametrize("label_set", ["coarse", "fine"])
def test_the_three_layouts_and_a_scaled_file_of_them_give_the_same_samples(
    files: dict[str, Path], label_set: str, tmp_path: Path
) -> None:
    for name, path in files.items():
        shrink(path, tmp_path / f"{name}.hdf5", 16)
    every = [*files.values(), *(tmp_path / f"{name}.hdf5" for name in files)]
    first, *others = [Flair(path, 3, label_set, 16) for path in every]
    expected = samples(first)
    for task in others:
        assert [a.tobytes() for a in samples(task)] == [a.tobytes() for a in expected]
        assert task.standardisation.classes.tolist() == first.standardisation.classes.tolist()
        assert task.fleet_size == first.fleet_size == made.USERS["train"]
    assert {path.suffix for path in tmp_path.iterdir()} == {".hdf5"}


@pytest.mark.parametrize(("label_set", "key"), [("coarse", "labels"), ("fine", "fine_grained_labels")])
def test_labels_and_photos_are_those_of_the_list(files: dict[str, Path], label_set: str, key: str) -> None:
    names = sorted({label for entry in LISTED for label in entry[key]})
    for path in files.values():
        photos = open_photos(path, label_set)
        assert photos.labels == tuple(names)
        for (partition, user), mine in made.by_user(LISTED).items():
            place = photos.users[partition].index(user)
            assert photos.names(partition, place) == [entry["image_id"] for entry in mine]
            truth = photos.truth(partition, place)
            assert [[names[j] for j in np.flatnonzero(row)] for row in truth] == [sorted(entry[key]) for entry in mine]
            pixels = photos.pixels(partition, place, np.arange(len(mine)), 16)
            areas = made.decoded(files["jpeg"], mine[-1]).reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
            assert np.abs(pixels[-1] - areas).max() <= 1  # Pillow rounds rows, then columns


def test_support_and_query_share_no_photo_and_no_photo_of_training_is_in_an_evaluation(files: dict[str, Path]) -> None:
    task = Flair(files["pfl-research"], 0, "coarse", made.SIDE)
    assert task.fleet_size is not None
    stream = task.stream(numbers(0, task.fleet_size), 0, 60)
    seen = {split: set[bytes]() for split in ("train", "validation", "test")}
    seen["train"] = {row.tobytes() for row in stream.table}
    for split in ("validation", "test"):
        episodes = task.episodes(split, 99, 3)
        for episode in range(len(episodes.device)):
            support, query = images(episodes.support, episode), images(episodes.query, episode)
            assert (len(support), support & query) == (3, set())
            assert not seen[split] & (support | query)  # of another user
            seen[split] |= support | query
    assert not seen["train"] & seen["validation"]
    assert not (seen["train"] | seen["validation"]) & seen["test"]


def test_a_stream_has_each_photo_of_its_user_before_any_repeats_and_another_order_each_round(files: dict[str, Path]) -> None:
    task = Flair(files["ml-flair"], 0, "coarse", made.SIDE)
    mine = made.by_user(LISTED)
    users = sorted(user for partition, user in mine if partition == "train")
    for device in (0, 7, 23):
        count = len(mine["train", users[device]])
        first, second = (task.stream(numbers(device, 1), round, 2 * count) for round in (0, 1))
        assert len(set(first.rows[0, :count])) == count == len(first.table)
        assert (first.rows[0, :count] == first.rows[0, count:]).all()
        assert count < 4 or not np.array_equal(first.rows, second.rows)
        together = task.stream(numbers(0, 24), 0, 2 * count)
        assert np.array_equal(together.table[together.rows[device]], first.table[first.rows[0]])


def test_a_round_reads_the_photos_of_its_cohort_and_no_others(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for path, kind in ((files["jpeg"], JpegFolder), (files["ml-flair"], Hdf5File)):
        read: list[tuple[str, int, int]] = []
        really = kind.pixels

        def counted(self: Any, partition: str, user: int, which: Any, side: int, really: Any = really, to: Any = read) -> Any:
            to.append((partition, user, len(which)))
            return really(self, partition, user, which, side)

        monkeypatch.setattr(kind, "pixels", counted)
        task = Flair(path, 0)
        assert read == []
        task.stream(np.array([4, 9], np.uint32), 0, 3)
        assert read == [("train", 4, 3), ("train", 9, 3)]


def many_users(path: Path, users: int) -> Path:
    """A file of many users in pfl-research's layout, with four photos each."""
    with h5py.File(path, "w") as file:
        file["metadata/label_mapping"] = json.dumps({"a": 0, "b": 1})
        for partition in ("train", "val", "test"):
            for user in range(users if partition == "train" else 2):
                group = file.create_group(f"{partition}/{partition}{user:05}")
                group["images"] = np.full((4, 32, 32, 3), user % 256, np.uint8)
                group["image_ids"] = np.arange(4).astype("S")
                group["labels_row"], group["labels_col"] = np.arange(4), np.arange(4) % 2
    return path


def test_memory_does_not_grow_with_the_number_of_users(tmp_path: Path) -> None:
    paths = {users: many_users(tmp_path / f"{users}.hdf5", users) for users in (50, 400)}
    peaks = {}
    for users, path in (*paths.items(), *paths.items()):  # the first time also loads modules
        tracemalloc.start()
        task = Flair(path, 0)
        for round in range(3):
            task.stream(np.arange(round, 50, 5, dtype=np.uint32), round, 8)
        task.episodes("test", 100, 2)
        peaks[users] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[400] - peaks[50] < 350 * 300  # a name and a count; its photos have 12,288 bytes


def test_episodes_are_of_the_users_with_photos_enough(files: dict[str, Path]) -> None:
    task = Flair(files["jpeg"], 0)
    sizes = [len(photos) for (partition, _), photos in sorted(made.by_user(LISTED).items()) if partition == "test"]
    enough = sum(size > 5 for size in sizes)
    assert 2 <= enough < len(sizes)
    assert len(task.episodes("test", 99, 5).device) == enough
    assert len(task.episodes("test", 2, 5).device) == 2
    fewest = sorted(sizes)[-2]
    with pytest.raises(DataError, match=f"more photos than {fewest} shots. Use --shots {fewest - 1} or fewer"):
        task.episodes("test", 99, fewest)
    assert len(task.episodes("test", 99, fewest - 1).device) == 2


def changed(folder: Path, change: Callable[[list[dict[str, Any]]], object]) -> Path:
    listed = json.loads((folder / METADATA).read_text())
    change(listed)
    (folder / METADATA).write_text(json.dumps(listed))
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entries: entries.clear(), "no users in partition train"),
        (lambda entries: entries[3].pop("user_id"), "entry 3 is not one of FLAIR's"),
        (lambda entries: entries[3].update(partition="dev"), "entry 3 is not"),
        (lambda entries: entries[3].update(image_id="../../secret"), "entry 3 is not"),
        (lambda entries: entries[3].update(labels="food"), "entry 3 is not"),
        (lambda entries: entries.insert(0, None), "entry 0 is not"),
        (lambda entries: entries.append(entries[0]), "has an image twice"),
        (lambda entries: entries[0].update(partition="test"), f"user {LISTED[0]['user_id']} is in two partitions"),
    ],
)
def test_a_wrong_list_of_images_is_refused_by_its_entry(folder: Path, change: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Flair(changed(folder, change), 0)


@settings(max_examples=60)
@given(data=st.data())
def test_no_list_of_images_raises_anything_but_an_error_with_its_path(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-list"
    folder.mkdir(exist_ok=True)
    whole = json.dumps(LISTED[:20]).encode()
    at = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, 30))
    (folder / METADATA).write_bytes(whole[:at] + data.draw(st.binary(max_size=20)) + whole[at + length :])
    try:
        open_photos(folder)
    except DataError as error:
        assert str(folder) in str(error)


def spoilt(path: Path, change: Callable[[Any], object], source: Path) -> Path:
    shutil.copy(source, path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replaced(group: Any, name: str, value: Any) -> None:
    del group[name]
    group[name] = value


def first_user(file: Any) -> Any:
    return file["train"][min(file["train"])]


def unknown_label(file: Any) -> None:
    user = first_user(file)
    replaced(user, "labels", np.array([b"tank"] * len(user["images"])))


def far_off(name: str) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        replaced(first_user(file), name, np.full(len(first_user(file)[name]), 9999))

    return change


WRONG: list[tuple[str, Callable[[Any], object], str]] = [
    ("ml-flair", lambda file: file.pop("metadata"), "metadata is not as FLAIR's scripts write it"),
    ("ml-flair", unknown_label, "train/.* is not as .*tank"),
    ("ml-flair", lambda file: replaced(first_user(file), "labels", np.array([b"food"] * 99)), "labels of 99"),
    ("ml-flair", lambda file: first_user(file).pop("images"), "train/.* is not as"),
    ("ml-flair", lambda file: replaced(first_user(file), "images", np.zeros((30, 8, 8, 3))), "images are float64"),
    ("ml-flair", lambda file: first_user(file).create_dataset("image", data=0), "without --not_group_data_by_user"),
    ("ml-flair", lambda file: file.move("val", "other"), "no users in partition val"),
    ("pfl-research", far_off("labels_col"), "train/.* is not as .*9999"),
    ("pfl-research", far_off("labels_row"), "train/.* is not as .*9999"),
    ("pfl-research", lambda file: replaced(first_user(file), "labels_row", np.zeros(999, int)), "999 rows and"),
    ("pfl-research", lambda file: replaced(file, "metadata/label_mapping", '{"a": 5}'), "not numbered from 0"),
    ("pfl-research", lambda file: replaced(file, "metadata/label_mapping", "[1]"), "metadata is not as"),
    ("pfl-research", lambda file: file.copy(first_user(file), f"test/{min(file['train'])}"), "is in two partitions"),
]


@pytest.mark.parametrize(("layout", "change", "words"), WRONG)
def test_a_wrong_hdf5_file_is_refused_by_what_is_wrong(
    files: dict[str, Path], tmp_path: Path, layout: str, change: Callable[[Any], object], words: str
) -> None:
    path = spoilt(tmp_path / "wrong.hdf5", change, files[layout])
    with pytest.raises(DataError, match=words) as refused:
        Flair(path, 0).stream(numbers(0, 1), 0, 4)
    assert str(path) in str(refused.value)


def test_what_is_no_flair_at_all_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "text.hdf5").write_text("text")
    for path, words in (
        (tmp_path / "none.hdf5", "no such file"),
        (tmp_path / "text.hdf5", "is no HDF5 file"),
        (tmp_path, f"has no {METADATA}"),
    ):
        with pytest.raises(DataError, match=words):
            load_task("flair", path, 0)
    first = folder / "small_images" / f"{LISTED[0]['image_id']}.jpg"
    user = sorted(user for partition, user in made.by_user(LISTED) if partition == "train").index(LISTED[0]["user_id"])
    for content in (b"", first.read_bytes()[:200], None):
        first.unlink() if content is None else first.write_bytes(content)
        with pytest.raises(DataError, match=f"{first} cannot be read"):
            Flair(folder, 0).stream(numbers(user, 1), 0, 99)


def test_a_board_needs_one_scale_for_all_pixels(files: dict[str, Path]) -> None:
    texts = c_array("m", b"model", None, Flair(files["jpeg"], 0).standardisation)
    assert "extern const double tinyfl_m_mean[1], tinyfl_m_scale[1];" in texts["m.h"]
    assert "Both are the same for all." in texts["m.h"]
    assert "tinyfl_m_scale[] = {\n    255.0,\n}" in texts["m.c"]
    assert '"animal",\n    "food"' in texts["m.c"]


def test_the_default_network_learns_the_coarse_labels_in_256_kilobytes() -> None:
    net = network(resolve({"task": "flair"}).network, (32, 32, 3), 17, Flair.loss, Flair.activation)
    assert net.arena_bytes() < 0.5 * 256 * 1024
    assert f"{net.parameters:,} weights and learns in {net.ram_bytes():,} bytes" in PAGE.read_text()


def test_settings_of_images_are_flairs_alone() -> None:
    assert resolve({"task": "flair", "label_set": "fine", "image_side": 64}).image_side == 64
    for options in ({"label_set": "fine"}, {"image_side": 64}):
        with pytest.raises(ConfigError, match="is not for task npz: leave it out, or say --task flair"):
            resolve({"task": "npz", **options})
    with pytest.raises(ConfigError, match="Give --label-set coarse or fine"):
        resolve({"task": "flair", "label_set": "all"})


JOB: dict[str, Any] = {
    "task": "flair", "image_side": 16, "network": "conv-8-16", "algorithm": "fedavg", "samples": 24, "rate": 0.5, "cohort": 8,
    "shots": (3,), "tasks": 8, "seed": 0,
}  # fmt: skip


@pytest.mark.slow
def test_a_job_on_flair_learns_reports_resumes_and_gives_the_same_weights_from_each_layout(
    files: dict[str, Path], tmp_path: Path
) -> None:
    runs = {name: tinyfl.simulate(data=path, rounds=60, out=tmp_path / name, **JOB) for name, path in files.items()}
    assert len({run.result["theta_sha256"] for run in runs.values()}) == 1
    result = runs["jpeg"].result
    learnt, start = (
        next(row for row in result[key] if (row["mode"], row["steps"]) == ("batch", 10)) for key in ("evaluation", "baseline")
    )
    assert learnt["macro_ap"] > max(start["macro_ap"], result["floor"][0]["macro_ap"]) + 0.1
    assert result["worse_than_floor"] == []
    assert result["classes"] == list(made.COARSE)
    page = (runs["jpeg"].path / "report.html").read_text()
    assert "macro F1 (FLAIR)" in page and "macro average precision" in page and "mean squared" not in page

    part = tinyfl.simulate(data=files["jpeg"], rounds=20, out=tmp_path / "part", **JOB)
    assert tinyfl.simulate(resume=part.path, rounds=60).result["theta_sha256"] == result["theta_sha256"]
    again = tinyfl.evaluate(runs["jpeg"].path)
    assert again["evaluation"] == result["evaluation"]

    file = runs["ml-flair"].path / "result.json"
    for wrong in (7, "x", float("inf")):
        spoilt_result = json.loads(file.read_text())
        spoilt_result["evaluation"][0]["macro_ap"] = wrong
        file.write_text(json.dumps(spoilt_result))
        with pytest.raises(RunError, match="evaluation"):
            RunDirectory(runs["ml-flair"].path).result()


@pytest.mark.usefixtures("emulators")
def test_emulated_boards_that_get_photos_from_the_host_end_with_the_native_fleets_theta(files: dict[str, Path]) -> None:
    config = resolve({"task": "flair", "data": str(files["jpeg"]), "image_side": 8, "samples": 6})
    task = config.load_task()
    net = network("dsconv-4-6", task.shape, task.outputs, task.loss, task.activation)
    thetas = set()
    for part in ({"native": 2}, {"board": "mps2-an386", "count": 2}):
        fleet = resolve({"fleet": [part], "cohort": 2}).parts
        state, algorithm = State(0, net.initial_weights(0)), config.build()
        with assembled(fleet, Training(task, net, FASTEST, 60.0), lambda event: None) as (made, _):
            for round in range(2):
                updates = made.run(numbers(0, 2), round, state.theta, algorithm.inner(round))
                assert (updates.devices, updates.left_out) == (2, {})
                state = algorithm.outer(state, updates)
        thetas.add(state.theta.tobytes())
    assert len(thetas) == 1


@pytest.mark.slow
def test_the_page_on_flair_does_what_it_says(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(PAGE)
    shutil.copytree(files["jpeg"], "flair")
    lines = [shlex.split(line) for block in blocks(PAGE) if block.language == "sh" for line in block.text.splitlines()]
    fewer = {
        "simulate": ["--rounds", "3", "--shots", "2"],
        "run": ["--rounds", "1", "--cohort", "2", "--tasks", "2", "--adapt-lr", "0.1"],
        "plan": [],
    }
    for program, *words in lines:
        itself = [] if program == "python" else ["-m", "tinyfl.cli"]
        subprocess.run([sys.executable, *itself, *words, *fewer.get(words[0], [])], check=True, capture_output=True)
    assert {path.name for path in Path("runs").iterdir()} == {"flair", "flair-host"}
    row = json.loads(Path("runs/flair/result.json").read_text())["evaluation"][0]
    scores = {name for cells in table(PAGE, "in the JSON") for name in cells[0].split(", ")}
    assert scores == {field.name for field in fields(LabelScores)}
    assert scores < row.keys()


def test_the_fixture_of_the_real_layout_is_read(shared_data: Callable[[str], Path]) -> None:
    task: Task = load_task("flair", shared_data("flair_fixture"), 0)
    assert (task.shape, task.fleet_size) == ((32, 32, 3), 16)
    episodes = task.episodes("test", 10, 1)
    assert episodes.support.targets is not None
    assert set(np.unique(episodes.support.targets)) == {0, 1}
