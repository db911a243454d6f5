"""A user's data as they come: names of classes and devices, and who trains, validates and tests."""

import re
import shutil
import subprocess
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
from tinyfl.core.draws import distinct
from tinyfl.data import Table
from tinyfl.data.devices import HELD_OUT, VALIDATION, members, owners
from tinyfl.errors import DataError
from tinyfl.export.carray import c_array
from tinyfl.simulation.result import Run
from tinyfl.tasks import numbers
from tinyfl.tasks.npz import Npz
from tinyfl.tasks.standard import Standardisation

RNG = np.random.default_rng(0)
DEVICE = np.repeat(np.arange(10), 30)
CLASS = RNG.integers(0, 3, DEVICE.size)
X = np.eye(3)[CLASS] * 2 + RNG.normal(0, 0.5, (DEVICE.size, 3))
NAMES = np.array(["jogging", "sitting", "walking"])


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """A user's file of the arrays above, with some in the place of others."""

    def write(**arrays: Any) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npz"
        np.savez(path, **{"x": X, "y": CLASS, "device": DEVICE, **arrays})
        return path

    return write


def run(data: Any, out: Path, **options: Any) -> Run:
    return tinyfl.simulate(
        **{"task": "npz", "data": data, "network": "mlp-8", "rounds": 40, "tasks": 20, "shots": (5,), "out": out, **options}
    )


@pytest.mark.parametrize("form", [NAMES, NAMES.astype("S"), NAMES[:, None]])
def test_classes_and_devices_by_name_learn_as_by_number_and_keep_their_names(
    written: Callable[..., Path], tmp_path: Path, form: np.ndarray, no_page: None
) -> None:
    users = np.array([f"user {d}" for d in range(10)])[DEVICE]
    named = run(str(written(y=form[CLASS], device=users, notes=np.array([{}], object))), tmp_path / "named")
    numbered = run(str(written()), tmp_path / "numbered")
    assert named.result["theta_sha256"] == numbered.result["theta_sha256"]
    assert named.result["classes"] == NAMES.tolist()
    assert "y: 3 classes, by name: jogging, sitting, walking" in " ".join(named.result["notes"])
    assert "not used: the array notes" in named.result["notes"]
    mine = tmp_path / "mine.npz"
    np.savez(mine, x=X[:20], y=form[CLASS[:20]])
    adapted = tinyfl.adapt(tmp_path / "named", mine, shots=10)
    np.savez(mine, x=X[:20], y=CLASS[:20])
    assert adapted["curve"] == tinyfl.adapt(tmp_path / "numbered", mine, shots=10)["curve"]
    with pytest.raises(DataError, match=r"y has \d in row 0, but .*jogging, sitting, walking. Give y as those names"):
        tinyfl.adapt(tmp_path / "named", mine)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler (cc): apt-get install gcc libc6-dev")
def test_any_names_of_classes_are_what_c_reads(tmp_path: Path) -> None:
    letters = [*"abc019?/=(\\\"'%\n\t\r\x01\x7f", "é", "日", "🏃", "\u2028"]
    names = ["", "??=", "\\", '"; }', "\x01" + "1", *("".join(RNG.choice(letters, RNG.integers(1, 9))) for _ in range(2000))]
    folder = tmp_path
    classes = np.array(names)
    standard = replace(Standardisation.none(1, len(names)), classes=classes)
    for file, text in c_array("m", b"model", None, standard).items():
        (folder / file).write_text(text)
    main = f'#include "m.h"\n#include <stdio.h>\nint main(void) {{ for (int i = 0; i < {len(names)}; i++)'
    (folder / "main.c").write_text(f"{main} {{ fputs(tinyfl_m_classes[i], stdout); putchar(0); }} return 0; }}\n")
    subprocess.run(["cc", "-std=c99", "-Wall", "-Werror", "-o", "main", "main.c", "m.c"], cwd=folder, check=True)
    shown = subprocess.run([folder / "main"], capture_output=True, check=True).stdout
    assert shown.decode().split("\0")[:-1] == [str(name) for name in classes]


def as_before(table: Table, names: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Who trains, validates and tests, where no class is at stake: the first devices of two random orders."""

    def first(number: int, pool: np.ndarray, share: float) -> np.ndarray:
        keys = core.random(seed, core.Stream.task, numbers(number, 1), words=len(pool))
        return np.sort(pool[distinct(keys, np.array([len(pool)]), max(1, round(share * len(pool))))[0]])

    everyone = np.arange(len(names))
    test = first(0, everyone, HELD_OUT) if table.split is None else np.flatnonzero(np.isin(names, table.split))
    rest = np.setdiff1d(everyone, test)
    validation = first(1, rest, VALIDATION)
    return {"test": test, "validation": validation, "train": np.setdiff1d(rest, validation)}


@settings(max_examples=100)
@given(st.integers(4, 60), st.integers(0, 1 << 40), st.integers(1, 6), st.booleans())
def test_devices_are_drawn_by_the_seed_and_always_leave_each_class_one_to_train(
    devices: int, seed: int, classes: int, listed: bool
) -> None:
    rng = np.random.default_rng(seed)
    device = np.repeat(np.arange(devices), rng.integers(1, 5, devices))
    labels = np.minimum(rng.geometric(0.4, device.size), classes)
    split = rng.choice(devices, max(1, devices // 5), replace=False) if listed else None
    table = Table("t", labels[:, None], labels, device, split)
    names, owner = owners(table)
    before = as_before(table, names, seed)
    if listed and len(np.unique(labels[~np.isin(owner, before["test"])])) < len(np.unique(labels)):
        return  # the user's own split leaves a class without a training device, which the task refuses
    try:
        found = members(table, names, owner, seed, labels)
    except DataError as error:
        assert re.search("would leave a class which no training device has", str(error))
        return
    assert np.array_equal(np.sort(np.concatenate(list(found.values()))), np.arange(devices))
    assert set(labels[np.isin(owner, found["train"])]) == set(labels)
    if set(labels[np.isin(owner, before["train"])]) == set(labels):
        assert all(np.array_equal(found[part], before[part]) for part in before)
    assert all(np.array_equal(found[p], members(table, names, owner, seed, labels)[p]) for p in found)


@pytest.mark.parametrize("split", [None, [0, 3, 9, 14]])
def test_a_class_of_one_device_alone_is_no_matter_of_the_seeds_luck(written: Callable[..., Path], split: Any) -> None:
    device = np.repeat(np.arange(20), 40)
    y = np.where(device == 7, 3, RNG.integers(0, 3, device.size))
    arrays = {"x": RNG.normal(size=(800, 3)), "y": y, "device": device} | ({} if split is None else {"split": split})
    path = written(**arrays)
    for seed in range(100):
        task = Npz(path, seed)
        assert 7 in task._members["train"]
        assert len(task._members["test"]) == 4
        assert len(task._members["validation"]) == 2


def test_the_array_validation_says_who_chooses_rates(written: Callable[..., Path]) -> None:
    for seed in range(5):
        both = Npz(written(split=[1, 2], validation=[3, 8]), seed)._members
        assert {part: each.tolist() for part, each in both.items()} == {
            "test": [1, 2], "validation": [3, 8], "train": [0, 4, 5, 6, 7, 9],
        }  # fmt: skip
        drawn = Npz(written(validation=[3, 8]), seed)._members
        assert drawn["validation"].tolist() == [3, 8]
        assert len(drawn["test"]) == 2
        assert not {3, 8} & set(drawn["test"].tolist())
