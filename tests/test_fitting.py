"""What a run on the user's own data chooses by their size, where nobody says otherwise."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from own import write_own

import tinyfl
from tinyfl.config import Config, resolve
from tinyfl.config.fitting import FEWEST, MOST, fit, network_name
from tinyfl.networks import network
from tinyfl.networks.layers import Activation, Loss
from tinyfl.registry.tasks import TASKS

OPTIONS: dict[str, Any] = {"network": "mlp-5", "rounds": 77, "rate": 0.07}
SHAPES = st.one_of(st.tuples(st.integers(1, 5000)), st.tuples(st.integers(1, 100), st.integers(1, 100), st.integers(1, 3)))
SAMPLES = st.integers(1, 10**9)


def chosen_for(shape: tuple[int, ...], held: int = 1000, **options: Any) -> Config:
    """The config of a run on npz data of this shape, of which the training devices have ``held`` samples."""
    config = resolve({"task": "npz", **options})
    net = network(network_name(config, shape), shape, 3, Loss.softmax_cross_entropy, Activation.relu)
    return fit(config, net, held)


def table(rows: int = 600, devices: int = 12, shape: tuple[int, ...] = (6,)) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, rows)
    x = rng.normal(size=(rows, *shape)) + y.reshape(-1, *[1] * len(shape))
    return {"x": x, "y": y, "device": np.arange(rows) % devices}


@given(st.sets(st.sampled_from(list(OPTIONS))), SHAPES, SAMPLES)
def test_what_is_given_stays_and_the_rest_is_in_range(names: set[str], shape: tuple[int, ...], samples: int) -> None:
    given_ = {name: OPTIONS[name] for name in names}
    chosen = chosen_for(shape, samples, **given_)
    assert {name: getattr(chosen, name) for name in names} == given_
    if "rounds" not in names:
        assert FEWEST <= chosen.rounds <= MOST
    if "rate" not in names:
        assert 0 < chosen.rate < 1
    assert chosen.unsaid == ()


@given(SHAPES, SAMPLES)
def test_a_config_that_was_chosen_is_read_back_as_it_is(shape: tuple[int, ...], samples: int) -> None:
    chosen = chosen_for(shape, samples)
    again = resolve(chosen.as_options())
    assert again == chosen
    assert chosen_for(shape, samples + 10**6, **again.as_options()) == chosen


@pytest.mark.parametrize("task", TASKS)
def test_defaults_follow_the_size_of_any_data_but_not_of_a_known_set(task: str) -> None:
    """Also activity and the like, which are read as the user's data are."""
    assert bool(resolve({"task": task}).unsaid) == (task == "npz")


def test_tasks_with_data_of_their_own_keep_their_defaults(tmp_path: Path) -> None:
    run = tinyfl.simulate(task="sine", rounds=2, tasks=2, adapt_lr=0.01, out=tmp_path / "run")
    assert (run.result["network"], run.result["cohort"]) == ("mlp-64-64-tanh", 1)
    assert not any("fit these data" in note for note in run.result["notes"])


def test_the_first_lines_say_what_was_chosen_and_the_options_repeat_it(tmp_path: Path) -> None:
    notes: list[str] = []
    run = tinyfl.simulate(task="npz", data=table(), tasks=8, adapt_lr=0.01, out=tmp_path / "run", on_note=notes.append)
    (note,) = (note for note in notes if "fit these data" in note)
    words = note.split(": ")[1].split()
    options = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    said = {name: value if name == "network" else float(value) for name, value in options.items()}
    again = tinyfl.simulate(task="npz", data=table(), tasks=8, adapt_lr=0.01, out=tmp_path / "again", **said)
    assert set(said) == {"network", "rounds", "rate"}
    assert again.theta.tobytes() == run.theta.tobytes()
    assert tinyfl.simulate(config=run.path / "config.toml", out=tmp_path / "file").theta.tobytes() == run.theta.tobytes()


def test_the_more_inputs_a_dense_layer_has_the_smaller_is_the_rate() -> None:
    assert chosen_for((40,)).rate > chosen_for((400,)).rate > chosen_for((4000,)).rate
    assert chosen_for((48, 48, 1), network="conv-8-16").rate == chosen_for((12 * 12 * 16,)).rate  # its dense layer has as many
    assert chosen_for((48, 48, 1)).rate == chosen_for((40,)).rate  # averages over the image first


def test_images_have_convolutions_and_rows_of_numbers_have_not(tmp_path: Path) -> None:
    options: dict[str, Any] = {"task": "npz", "rounds": 2, "tasks": 4, "adapt_lr": 0.01}
    image = tinyfl.simulate(data=table(shape=(9, 9, 1)), out=tmp_path / "image", **options)
    row = tinyfl.simulate(data=table(shape=(81,)), out=tmp_path / "row", **options)
    assert image.result["network"].startswith("conv")
    assert row.result["network"].startswith("mlp")


def test_an_algorithm_of_the_users_own_keeps_its_own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_own(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = tinyfl.simulate(task="npz", data=table(), algorithm="cosine:CosineReptile", tasks=4, adapt_lr=0.01, out="run")
    config = tomllib.loads((run.path / "config.toml").read_text())
    assert (config["rounds"], config["rate"]) == (200, 0.02)  # the class's
