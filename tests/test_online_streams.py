"""tinyfl online: streams through simulated devices, each sample first a test and then, if its label comes, a lesson."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import tinyfl
from tinyfl.cli import app
from tinyfl.errors import ConfigError, RunError, TrainingError
from tinyfl.networks import network
from tinyfl.networks.layers import Activation, Loss
from tinyfl.online import Head, OnlineSet, Standardised, online
from tinyfl.online.device import Device
from tinyfl.online.prequential import changes, labels_due
from tinyfl.online.starts import Start, of_nothing, of_run
from tinyfl.runs.adaptation import Initialisation


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on sine waves."""
    out = tmp_path_factory.mktemp("online") / "run"
    tinyfl.simulate(task="sine", network="mlp-16", devices=20, rounds=300, tasks=4, out=out)
    return out


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One device's file: three classes, whose inputs are shifted from the middle on, where a fourth appears."""
    rng = np.random.default_rng(3)
    y = np.concatenate([rng.integers(0, 3, 600), rng.integers(0, 4, 600)])
    x = rng.normal(0, 1, (1200, 4)) + 4 * np.eye(4)[y] + 3 * (np.arange(1200) >= 600)[:, None]
    path = tmp_path / "device.npz"
    np.savez(path, x=x.astype(np.float32), y=np.array(["idle", "fan", "tilt", "stuck"])[y])
    return path


def test_the_head_starts_as_the_runs_last_layer_and_a_rate_of_0_keeps_the_run_as_it_is(run: Path) -> None:
    still = online(run, rate=0, standardise="nothing", segments=3, samples=50)
    assert still["online"] == still["static"]
    start = Initialisation.load(run)
    begun, x = of_run(start), np.linspace(-5, 5, 7, dtype=np.float32)[:, None]
    device = Device(OnlineSet(Head.values, 1, 16, 1, Standardised.nothing, rate=0.0, alarm=0.0), begun)
    said, _ = device.run(x, np.zeros(7, np.uint32), None)
    source = tinyfl.core.TableSource(x, np.arange(7, dtype=np.int32)[None], labels=np.zeros((1, 7), np.int32))
    assert said.outputs.tobytes() == tinyfl.core.embeddings(start.network.plan, start.theta, source).tobytes()


def test_a_head_that_learns_follows_a_wave_that_changes_and_the_model_as_it_was_does_not(run: Path) -> None:
    found = online(run, rate=0.02, standardise="nothing", samples=600)
    assert found["online"] < 0.7 * found["static"]
    assert [change["at"] for change in found["devices"][0]["changes"]] == [600]


def test_classes_are_learnt_by_name_from_nothing_and_one_that_appears_gets_a_place(file: Path) -> None:
    found = online(data=file, rate=0.1)
    (device,) = found["devices"]
    assert set(device["classes"]) == {"idle", "fan", "tilt", "stuck"}
    assert found["online"] > 0.85
    few = online(data=file, rate=0.1, places=3)["devices"][0]
    assert len(few["classes"]) == 3
    assert few["labels_refused"] > 100


def test_labels_come_late_or_for_a_share_only(file: Path) -> None:
    due = labels_due(1000, 0.1, 7, seed=0, device=0)
    numbers = due[due > 0]
    assert 60 < len(numbers) < 140
    assert (np.flatnonzero(due) + 1 - numbers == 7).all()
    all_labels, few, late = (
        online(data=file, rate=0.1, labels=share, delay=delay) for share, delay in ((1, 0), (0.1, 0), (1, 50))
    )
    assert few["devices"][0]["labelled"] < 0.15 * all_labels["devices"][0]["labelled"]
    assert late["devices"][0]["labelled"] == 1150
    assert few["online"] < all_labels["online"]
    assert 0.7 < late["online"] < all_labels["online"]


def test_a_device_that_asks_for_labels_when_unsure_needs_fewer_for_the_same(file: Path) -> None:
    asked = online(data=file, rate=0.1, unsure=0.6)
    share = asked["devices"][0]["labelled"] / 1200
    assert share < 0.5
    assert asked["online"] > online(data=file, rate=0.1, labels=share)["online"]
    assert sum(window["labels"] for window in asked["windows"]) == asked["devices"][0]["labelled"]
    with pytest.raises(ConfigError, match="for classes"):
        online(task="sine", unsure=0.5)


def test_the_samples_until_a_device_has_recovered_are_counted() -> None:
    figure = np.ones(1000, np.float32)
    figure[300:450] = 0
    (row,) = changes(figure, (0, 300), lower_is_better=False)
    assert (row["before"], row["after"]) == (1, 0)
    assert row["recovered"] == 150 + 95
    figure[300:] = 0
    assert changes(figure, (0, 300), lower_is_better=False)[0]["recovered"] is None


@pytest.mark.parametrize(("count", "delay"), [(5, 0), (5, 3), (5, 5), (5, 9)])
def test_there_is_a_word_of_each_sample_however_late_labels_are(count: int, delay: int) -> None:
    due = labels_due(count, 1.0, delay, seed=0, device=0)
    assert due.tolist() == [max(number - delay, 0) for number in range(1, count + 1)]


def test_errors_of_just_the_alarms_sum_are_none() -> None:
    """A head of zeros says the first class: its errors are 0, 1 and 1, their means 0, 1/2 and 2/3."""
    set = OnlineSet(Head.classes, 1, 1, 2, Standardised.nothing, embedded=False, rate=0.0, tolerance=0.0, alarm=0.5)
    device = Device(set, of_nothing(1, Head.classes))
    x, drifts = np.ones((1, 1), np.float32), []
    for number, name in enumerate(("a", "b", "b"), start=1):
        device.run(x, np.array([number], np.uint32), np.array([name], object))
        drifts.append(device.state["drifts"])
    assert drifts == [0, 0, 1]


@given(
    st.integers(0, 99), st.lists(st.integers(1, 260), min_size=2, max_size=4), st.booleans(), st.sampled_from([0.0, 0.5, 0.95])
)
def test_changes_are_those_of_a_slow_search(seed: int, lengths: list[int], lower: bool, level: float) -> None:
    rng = np.random.default_rng(seed)
    figure = np.concatenate([(rng.random(each) < rng.choice([level, 0.5])) for each in lengths]).astype(np.float32)
    starts = [sum(lengths[:each]) for each in range(len(lengths))]
    rows = changes(figure, starts, lower_is_better=lower)
    assert [row["at"] for row in rows] == starts[1:]
    for row, end in zip(rows, [*starts[2:], len(figure)], strict=True):
        at = row["at"]
        before = sum(map(float, figure[max(0, at - 100) : at])) / min(100, at)
        assert row["before"] == pytest.approx(before)
        assert row["after"] == pytest.approx(np.mean(figure[at : at + 100]))
        bound = before * 1.05 if lower else before * 0.95
        for count in range(100, end - at + 1):
            mean = sum(map(float, figure[at + count - 100 : at + count])) / 100
            if bound and abs(mean - bound) < 1e-6:
                return  # too near for a float32 mean
            if mean <= bound if lower else mean >= bound:
                assert row["recovered"] == count
                break
        else:
            assert row["recovered"] is None


def test_an_anomaly_has_a_higher_score_without_any_label_and_is_not_learnt() -> None:
    """Two numbers code four that depend on them; the anomaly breaks the dependence."""
    rng = np.random.default_rng(0)
    net = network("mlp-2-tanh", (4,), 2, Loss.prototypes, Activation.tanh)
    theta = np.array([0.3, 0, 0, 0.3, 0.3, 0, 0, 0.3, 0, 0], np.float32)
    hidden = rng.normal(0, 1, (4000, 2)).astype(np.float32)
    x = np.concatenate([hidden, hidden], axis=1) + rng.normal(0, 0.1, (4000, 4)).astype(np.float32)
    x[3000:, 2] *= -1
    set = OnlineSet(Head.reconstruct, 4, 2, 4, ring=0, rate=0.05, threshold=0.8)
    said, _ = Device(set, Start(net, theta, 4, 2, Head.reconstruct, None, ())).run(x, np.zeros(4000, np.uint32), None)
    assert np.median(said.scores[2000:3000]) < 0.3
    assert np.median(said.scores[3000:]) > 2 * np.median(said.scores[2000:3000])
    with pytest.raises(ValueError, match="not a set"):
        Device(OnlineSet(Head.reconstruct, 4, 4, 4, ring=0, embedded=False), of_nothing(4, Head.reconstruct))


def test_what_cannot_be_streamed_is_refused_with_a_cure(run: Path, file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say what comes"):
        online()
    with pytest.raises(ConfigError, match="have no order"):
        online(task="digits")
    with pytest.raises(ConfigError, match="4 inputs a row, and the run takes 1"):
        online(run, data=file, targets="values")
    for wrong in (
        {"labels": 2.0},
        {"delay": -1},
        {"rate": float("nan")},
        {"standardise": "all"},
        {"standardise": "embeddings"},
    ):
        with pytest.raises(ConfigError):
            online(data=file, **wrong)
    with pytest.raises(TrainingError, match="smaller --rate"):
        online(task="sine", rate=1e9, samples=100)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(RunError, match="holds something else"):
        online(task="sine", samples=50, out=tmp_path / "mine")


def test_losses_of_values_are_in_their_units_and_what_values_have_not_is_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x, device = rng.normal(size=(240, 2)), np.repeat(np.arange(12), 20)
    data = tmp_path / "kelvin.npz"
    np.savez(data, x=300 + x, y=294 + 30 * x[:, 0] + 10 * rng.normal(size=12)[device], device=device)
    options = {"task": "npz", "network": "mlp-8", "data": str(data), "rounds": 50, "shots": (5,)}
    run = tinyfl.simulate(out=tmp_path / "run", page=False, **options).path
    start = Initialisation.load(run)
    np.savez(tmp_path / "one.npz", x=300 + x[:50], y=294 + 30 * x[:50, 0])
    source = tinyfl.core.TableSource(
        start.standard.apply(300 + x[:50]), np.arange(50, dtype=np.int32)[None], labels=np.zeros((1, 50), np.int32)
    )
    outputs = tinyfl.core.embeddings(start.network.plan, start.theta, source)[0]
    kelvin = start.standard.target_mean + start.standard.target_scale * outputs
    loss = float(((kelvin[:, 0] - (294 + 30 * x[:50, 0])) ** 2).mean())
    words = ["online", str(run), "--data", str(tmp_path / "one.npz"), "--rate", "0", "--standardise", "nothing"]
    said = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert said.stdout.split("\n")[0].split() == ["samples", "online", "static", "labels", "drifts"]
    assert f"loss online {loss:.3g}, static model {loss:.3g}, in squared units of y" in said.stdout
    found = json.loads((tmp_path / "out" / "online.json").read_text())
    assert found["static"] == pytest.approx(loss, rel=1e-5)
    assert found["devices"][0]["error"] == pytest.approx(loss, rel=1e-4)
    assert "running confidence" not in (tmp_path / "out" / "report.html").read_text()


def test_the_verb_prints_a_table_and_writes_a_page_and_the_figures(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "streams"
    words = ["online", str(run), "--samples", "200", "--devices", "2", "--rate", "0.02", "--out", str(out)]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    assert "static model" in said.stdout
    assert "wave 1" in said.stdout
    page = (out / "report.html").read_text()
    assert "wave 1" in page
    assert "the model as it was trained" in page
    refused = CliRunner().invoke(app, words)
    assert "already holds a result" in str(refused.exception)
    again = json.loads(CliRunner().invoke(app, [*words[:-1], str(tmp_path / "again"), "--json"]).stdout)
    held = json.loads((out / "online.json").read_text())
    assert {key: again[key] for key in held} == held
    with np.load(out / "samples.npz") as arrays:
        assert arrays["figure_1"].shape == (400,)


def test_a_board_that_goes_through_the_stream_learns_the_same_bits(run: Path, file: Path, firmware_cache: None) -> None:
    pytest.importorskip("unicorn")
    for words in (
        [str(run), "--samples", "60", "--rate", "0.02"],
        ["--data", str(file), "--labels", "0.5", "--delay", "3", "--rate", "0.1"],
    ):
        said = CliRunner().invoke(app, ["online", *words, "--on", "emulated:mps2-an386", "--json"])
        assert said.exit_code == 0, said.output
        assert json.loads(said.stdout)["on_board"]["same_bits"]
