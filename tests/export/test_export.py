"""A trained network leaves: the files do what the core does, the card says what was measured, and errors say what to do."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nets
import numpy as np
import pytest

import tinyfl
from tinyfl import cli, core
from tinyfl.devices import push
from tinyfl.errors import ConfigError, DataError, InstallError, RunError
from tinyfl.export import model as exporting
from tinyfl.export.card import drop
from tinyfl.export.carray import c_array
from tinyfl.export.convert import convert, representative_set
from tinyfl.export.infer import infer
from tinyfl.export.interpreters import available
from tinyfl.export.measure import CORE, imitation, measure
from tinyfl.export.model import export
from tinyfl.int8.native import load_program
from tinyfl.networks import Network
from tinyfl.networks.keras import to_keras
from tinyfl.networks.layers import Activation, Conv, Dense, DepthwiseConv, Loss, Pool
from tinyfl.runs.adaptation import Initialisation
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.evaluation import inner_loop
from tinyfl.tasks import load_task
from tinyfl.tasks.standard import Standardisation

pytestmark = pytest.mark.usefixtures("tensorflow")
litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert: pip install 'tinyfl[tf]'")

TFLM = "tinyfl's core, as TFLM"
QUICK: dict[str, Any] = {"rounds": 60, "cohort": 2, "samples": 16, "tasks": 12}

EVERY_KIND = Network(
    "every-kind",
    (9, 8, 2),
    (
        Conv(4, (3, 2), (2, 1), True, Activation.leaky_relu),
        DepthwiseConv((2, 3), (1, 1), False, 2, Activation.tanh),
        Pool(True, (2, 2), (2, 2), same=True),
        Conv(3, (1, 1), (1, 1), False, Activation.sigmoid),
        Pool(False, (2, 2), (1, 1), same=True),
        DepthwiseConv((1, 1), (1, 1), False, 1, Activation.relu),
        Pool(True, None),
        Dense(3, Activation.identity),
    ),
    Loss.softmax_cross_entropy,
)


def devices_data(path: Path) -> Path:
    """Classes 2, 5 and 7 in units that need standardisation."""
    rng = np.random.default_rng(1)
    device, y = np.repeat(np.arange(12), 30), np.tile([2, 5, 7], 120)
    x = 300 + 50 * (np.eye(8, 4)[y] * 2 + rng.normal(0, 0.5, (360, 4)) + rng.normal(0, 1, (12, 4))[device])
    np.savez(path, x=x, y=y, device=device)
    return path


def values_data(path: Path) -> Path:
    """Values in kelvin."""
    rng = np.random.default_rng(1)
    x, device = rng.normal(size=(360, 2)), np.repeat(np.arange(12), 30)
    np.savez(path, x=300 + x, y=294 + 3 * x[:, 0] + rng.normal(size=12)[device], device=device)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """One small run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    given = {
        "digits": {"task": "digits", "network": "dsconv-4-8", "devices": 20, "shots": (1, 5), "adapt_lr": 0.1},
        "sine": {"task": "sine", "network": "mlp-16", "devices": 20},
        "npz": {"task": "npz", "network": "mlp-8", "data": str(devices_data(folder / "own.npz"))},
        "values": {"task": "npz", "network": "mlp-8", "data": str(values_data(folder / "values.npz")), "rounds": 100},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinyfl.report.page.write_report", lambda *_: None)
        patch.setattr(exporting, "DEVICES", 3)
        yield {name: tinyfl.simulate(out=folder / name, **{**QUICK, **options}).path for name, options in given.items()}


@pytest.fixture
def run(finished: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a finished run that a test may add to or spoil."""
    return lambda name: Path(shutil.copytree(finished[name], tmp_path / name))


def interpreter(content: bytes) -> Any:
    made = litert.Interpreter(model_content=content)
    made.allocate_tensors()
    return made


def value(result: dict[str, Any], numbers: str, by: str, case: int = -1) -> Any:
    (row,) = [row for row in result["measured"][case]["rows"] if row["numbers"] == numbers and row["by"].startswith(by)]
    return row["value"]


def test_a_float_file_answers_as_the_core_and_an_int8_file_nearly_so() -> None:
    theta = nets.weights(EVERY_KIND)
    x = np.random.default_rng(1).normal(0, 1, (100, *EVERY_KIND.shape)).astype(np.float32)
    own = nets.outputs(EVERY_KIND, theta, x)
    for numbers, content, bound in (
        ("float32", convert(EVERY_KIND, theta), 1e-5),
        ("int8", convert(EVERY_KIND, theta, x), 0.06),
    ):
        runs, _ = available(int8=numbers == "int8")
        assert len(runs) >= (2 if numbers == "int8" else 1)
        for by, answer in runs.items():
            assert np.abs(answer(content, x) - own).max() < bound * np.ptp(own), (numbers, by)


def test_an_int8_file_has_no_float_in_it_and_fixed_shapes() -> None:
    theta = nets.weights(EVERY_KIND)
    x = np.random.default_rng(1).normal(0, 1, (20, *EVERY_KIND.shape)).astype(np.float32)
    made = interpreter(convert(EVERY_KIND, theta, x))
    assert {np.dtype(tensor["dtype"]).name for tensor in made.get_tensor_details()} <= {"int8", "int32"}
    (given,), (taken,) = made.get_input_details(), made.get_output_details()
    assert (given["shape"].tolist(), taken["shape"].tolist()) == ([1, 9, 8, 2], [1, 3])
    assert (given["shape_signature"] > 0).all()


def test_the_same_weights_give_the_same_file() -> None:
    theta = nets.weights(EVERY_KIND)
    x = np.random.default_rng(1).normal(0, 1, (20, *EVERY_KIND.shape)).astype(np.float32)
    assert convert(EVERY_KIND, theta, x) == convert(EVERY_KIND, theta, x)


def test_what_tensorflow_cannot_run_is_refused() -> None:
    network = Network(
        "uneven", (8, 8, 1), (DepthwiseConv((3, 3), (2, 1)), Dense(2, Activation.identity)), Loss.mean_squared_error
    )
    with pytest.raises(ConfigError, match=r"layer 1: .*strides of \(2, 1\)"):
        to_keras(network, nets.weights(network))


def test_representative_inputs_are_those_of_training_devices() -> None:
    task = load_task("digits", None, 3)
    network = Network("any", task.shape, (Dense(5, Activation.identity),), task.loss)
    x = representative_set(task, network)
    assert x.shape == (500, 8, 8, 1)
    assert 1 < x.max() <= 1.5, "gains of devices are in it"


def test_an_initialisation_is_measured_as_it_is_and_after_adaptation(run: Callable[[str], Path]) -> None:
    path = run("digits")
    ticks: list[tuple[int, int]] = []
    result = export(path, progress=lambda done, total: ticks.append((done, total)))
    assert ticks == [(done, 6) for done in range(1, 7)]
    rows = 4 if result["not_run"] else 6
    assert [len(case["rows"]) for case in result["measured"]] == [rows, rows]
    for case in (0, 1):
        assert value(result, "float32", "LiteRT", case) == pytest.approx(value(result, "float32", CORE, case), abs=0.01)
        assert value(result, "int8", "LiteRT", case) == pytest.approx(value(result, "float32", CORE, case), abs=0.1)
    row = result["measured"][1]["rows"][-1]
    assert row["drop"] == pytest.approx(value(result, "float32", CORE) - row["value"])
    assert (row["devices"], row["samples"]) == (3, 75)
    assert json.dumps(result)
    for file in result["files"]:
        content = Path(file["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])
    assert {Path(file["path"]).parent for file in result["files"]} == {path / "exported"}
    card = Path(result["card"]).read_text()
    for fact in (
        result["theta_sha256"], result["config_sha256"], "dsconv-4-8", "digits", "tinyreptile", tinyfl.__version__, "LiteRT",
        f"{result['files'][0]['bytes']:,}", "Seed 0", f"{result['int8']['input']['scale']:.9g}",
        f"{result['int8']['arena_bytes']:,}",
    ):  # fmt: skip
        assert str(fact) in card


def test_an_adapted_device_is_the_one_of_the_evaluation(run: Callable[[str], Path]) -> None:
    path = run("digits")
    result = export(path, kinds=("float32",), adapted=2, out=path / "there")
    start, task = Initialisation.load(path), load_task("digits", None, 0)
    episodes = task.episodes("test", QUICK["tasks"], 5)
    adapted = core.adapt(
        start.network.plan,
        start.theta,
        episodes.support,
        episodes.query,
        (10,),
        inner_loop("batch", episodes.support.samples, 10, 0.1),
        weights=True,
    )
    assert adapted.weights is not None
    assert result["theta_sha256"] == hashlib.sha256(adapted.weights[2].tobytes()).hexdigest()
    assert value(result, "float32", CORE) == pytest.approx(float(adapted.accuracy[0, 2]))
    assert value(result, "float32", "LiteRT") == pytest.approx(float(adapted.accuracy[0, 2]), abs=0.02)
    assert [Path(file["path"]).suffix for file in result["files"]] == [".tflite", ".h", ".c"]
    model = Path(result["files"][0]["path"]).read_bytes()
    assert model == convert(start.network, adapted.weights[2])
    with pytest.raises(ConfigError, match="test devices 0 to 11"):
        export(path, adapted=12)


def test_a_device_has_its_number_and_the_name_that_it_has_in_the_data(tmp_path: Path) -> None:
    data = devices_data(tmp_path / "own.npz")
    arrays = dict(np.load(data))
    np.savez(data, **{**arrays, "device": np.char.add("u", arrays["device"].astype(str))})
    path = tinyfl.simulate(task="npz", network="mlp-8", data=str(data), out=tmp_path / "run", page=False, **QUICK).path
    held = result_of(path)["per_device"]["devices"]
    numbered = {export(path, kinds=("float32",), adapted=number)["device"]: number for number in range(len(held))}
    assert set(numbered) == {each["device"] for each in held}
    for name, number in numbered.items():
        named, by_number = (export(path, kinds=("int8",), adapted=each) for each in (name, number))
        assert (named["adapted"], named["theta_sha256"]) == (number, by_number["theta_sha256"])
        assert f"test device {name} of the run" in Path(named["card"]).read_text()
    program = next(Path(each["path"]) for each in named["files"] if each["path"].endswith(".tflite"))
    assert infer(program, task=path, device=name)["accuracy"] == infer(program, task=path, device=number)["accuracy"]
    with pytest.raises(ConfigError, match=rf"--device who: there are test devices 0 to \d, called {held[0]['device'][0]}"):
        infer(program, task=path, device="who")
    with pytest.raises(ConfigError, match="Make that: tinyfl export"):
        infer(path, task=path)


def result_of(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / "result.json").read_text()))


def test_a_better_result_is_called_so() -> None:
    row = {"numbers": "int8", "by": CORE, "drop": -0.0107, "drop_ci95": None}
    assert drop(row, "mean squared error") == "better by 0.0107"
    assert drop({**row, "drop": 0.0107}, "accuracy") == "1.1 points"
    assert drop({**row, "drop": -0.0107}, "accuracy") == "better by 1.1 points"
    assert drop({**row, "drop": -1e-9}, "accuracy") == "0.0 points"


def test_regression_has_an_error_in_place_of_an_accuracy(run: Callable[[str], Path]) -> None:
    result = export(run("sine"), kinds=("int8",))
    assert result["metric"] == "mean squared error"
    for row in result["measured"][1]["rows"]:
        assert row["drop"] == pytest.approx(row["value"] - value(result, "float32", CORE))
    assert "values" in Path(result["card"]).read_text()


def test_errors_of_values_are_in_their_units_for_every_file_and_by_infer(run: Callable[[str], Path]) -> None:
    path = run("values")
    result = export(path, adapted=0)
    held = json.loads((path / "result.json").read_text())
    start = next(row["loss"] for row in held["baseline"] if (row["mode"], row["steps"]) == ("batch", 0))
    assert 3 < start < 60, "kelvin squared"
    (core_, *files) = [row["value"] for row in result["measured"][-1]["rows"]]
    assert core_ < start
    assert files == pytest.approx([core_] * len(files), abs=0.5)
    (model,) = [Path(file["path"]) for file in result["files"] if file["path"].endswith("int8.tflite")]
    by_infer = infer(model, task=str(path), device=0)
    assert by_infer["loss"] == pytest.approx(value(result, "int8", "tinyfl"), rel=1e-5)
    assert "target_mean + target_scale * output" in Path(result["card"]).read_text()
    assert "const double tinyfl_npz_mlp_8_relu_int8_target_mean[1]" in model.with_suffix(".h").read_text()


def test_multi_label_networks_are_measured_by_labels() -> None:
    network = Network("labels", (4,), (Dense(3, Activation.identity),), Loss.sigmoid_cross_entropy)
    theta = nets.weights(network)
    x = np.random.default_rng(1).normal(0, 1, (40, 4)).astype(np.float32)
    ticks: list[None] = []
    first, *others = measure(
        network, [imitation(network, theta, x)], lambda theta: {"int8": convert(network, theta, x)}, lambda: ticks.append(None)
    )
    assert (first.by, first.value, first.drop) == (CORE, 1, 0)
    assert all(0.95 < row.value <= 1 and row.drop == pytest.approx(1 - row.value) for row in others)
    assert len(ticks) == 1


def test_standardisation_and_classes_travel_with_the_model(run: Callable[[str], Path], tmp_path: Path) -> None:
    path = run("npz")
    result = export(path, kinds=("int8",), adapted=0)
    start = Initialisation.load(path)
    assert result["standardised"]
    card = Path(result["card"]).read_text()
    assert "Classes, in order: 2, 5, 7." in card
    assert "(x - mean) / scale" in card
    assert "own.npz" in card
    header = next(Path(file["path"]) for file in result["files"] if file["path"].endswith(".h"))
    assert f"_mean[{start.standard.mean.size}]" in header.read_text()


def test_data_that_have_gone_or_were_changed_are_refused_and_may_lie_elsewhere(
    run: Callable[[str], Path], tmp_path: Path
) -> None:
    path = run("npz")
    config = (path / "config.toml").read_text()
    data = next(line for line in config.splitlines() if line.startswith("data ="))
    (path / "config.toml").write_text(config.replace(data, f'data = "{tmp_path / "gone.npz"}"'))
    with pytest.raises(DataError, match=r"gone\.npz.*--data"):
        export(path, kinds=("float32",), adapted=0)
    whole = devices_data(tmp_path / "moved.npz")
    export(path, kinds=("float32",), adapted=0, data=whole)
    np.savez(whole, **{**np.load(whole), "x": np.load(whole)["x"] + 1})
    with pytest.raises(DataError, match="changed since the run"):
        export(path, kinds=("float32",), adapted=0, data=whole)


def test_of_weights_apart_from_their_run_only_the_agreement_is_known(run: Callable[[str], Path], tmp_path: Path) -> None:
    path = run("digits")
    alone = tmp_path / "kitchen.npz"
    shutil.copy(path / "initialisation.npz", alone)
    result = export(alone, kinds=("int8",))
    assert value(result, "float32", CORE) == 1
    assert 0.8 < value(result, "int8", TFLM) <= 1
    assert Path(result["card"]).parent == tmp_path / "kitchen-exported"
    assert "accuracy is unknown here" in Path(result["card"]).read_text()
    with pytest.raises(ConfigError, match="Give the run's directory"):
        export(alone, adapted=1)
    shutil.copy(run("npz") / "initialisation.npz", alone)
    with pytest.raises(ConfigError, match="--data FILE"):
        export(alone)


@pytest.mark.parametrize("algorithm", ["tinyreptile", "tinymetafed"])
def test_the_file_of_an_adaptation_is_exported_pushed_and_infers(algorithm: str, tmp_path: Path) -> None:
    data = devices_data(tmp_path / "own.npz")
    path = tinyfl.simulate(
        task="npz", network="mlp-8", data=str(data), algorithm=algorithm, out=tmp_path / "run", page=False, **QUICK
    ).path
    device = tmp_path / "device.npz"
    np.savez(device, **{name: array[:30] for name, array in np.load(data).items() if name != "device"})
    alone = tmp_path / "kitchen.npz"
    tinyfl.adapt(path, device, shots=10, out=alone)
    result = export(alone, kinds=("int8",))
    config = RunDirectory(path).config()
    assert (result["seed"], result["config_sha256"]) == (config.seed, config.sha256())
    program = next(Path(each["path"]) for each in result["files"] if each["path"].endswith(".tflite"))
    assert infer(program, task=path)["accuracy"] > 1 / 3
    assert push.load(str(program)).sha256 == hashlib.sha256(load_program(program).content).digest()
    assert push.load(str(alone)).sha256 == bytes.fromhex(result["theta_sha256"])
    tinyfl.adapt(alone, device, shots=10, out=tmp_path / "again.npz")
    assert export(tmp_path / "again.npz", kinds=("int8",))["seed"] == config.seed


def test_what_an_older_tinyfl_adapted_is_refused_with_a_cure(run: Callable[[str], Path], tmp_path: Path) -> None:
    with np.load(run("npz") / "initialisation.npz") as saved:
        older = {name: saved[name] for name in saved if name not in ("seed", "config_sha256")}
    np.savez(tmp_path / "older.npz", **older)
    with pytest.raises(RunError, match="Adapt again with this one: tinyfl adapt RUN"):
        export(tmp_path / "older.npz")


def test_weights_beside_another_runs_config_are_refused(run: Callable[[str], Path]) -> None:
    path = run("digits")
    shutil.copy(run("sine") / "initialisation.npz", path)
    with pytest.raises(RunError, match="from different runs"):
        export(path)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler (cc): apt-get install gcc libc6-dev")
def test_the_c_array_holds_the_file_aligned_and_what_inputs_need(tmp_path: Path) -> None:
    content, name = bytes(range(256)) + b"TFL3!", "npz-mlp 8-int8"
    mean, scale = np.array([0.1, -3e7, 1.7e9 + 0.1]), np.array([1, 2.5, 5e-324])
    standard = replace(Standardisation.none(3, 1), mean=mean, scale=scale, target_mean=np.array([101325.1]))
    for file, text in c_array(name, content, None, standard).items():
        (tmp_path / file).write_text(text)
    (tmp_path / "main.c").write_text(
        f'#include <stdint.h>\n#include <stdio.h>\n#include "{name}.h"\n'
        "#define OWN tinyfl_npz_mlp_8_int8\n"
        "int main(void)\n{\n"
        "    if ((uintptr_t)tinyfl_npz_mlp_8_int8 % 16)\n        return 1;\n"
        "    fwrite(tinyfl_npz_mlp_8_int8, 1, TINYFL_NPZ_MLP_8_INT8_BYTES, stdout);\n"
        "    fwrite(tinyfl_npz_mlp_8_int8_mean, 8, 3, stdout);\n"
        "    fwrite(tinyfl_npz_mlp_8_int8_scale, 8, 3, stdout);\n"
        "    fwrite(tinyfl_npz_mlp_8_int8_target_mean, 8, 1, stdout);\n"
        "    return 0;\n}\n"
    )
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-Wno-unused-macros"]
    subprocess.run(["cc", *flags, "main.c", f"{name}.c", "-o", "main"], cwd=tmp_path, check=True)
    said = subprocess.run([tmp_path / "main"], capture_output=True, check=True).stdout
    assert said == content + mean.tobytes() + scale.tobytes() + standard.target_mean.tobytes()


def test_without_what_the_extra_installs_the_message_says_so(
    run: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(InstallError, match=r"pip install 'tinyfl\[tf\]'"):
        export(run("digits"))


def test_tflite_runtime_is_left_out_with_the_reason_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    known = exporting.available.__globals__["version"]
    monkeypatch.setitem(
        exporting.available.__globals__, "version", lambda name: "2.14.0" if name == "tflite-runtime" else known(name)
    )
    monkeypatch.setattr(np, "__version__", "2.4.6")
    runs, missing = available(int8=True)
    assert missing == {"tflite-runtime 2.14.0": "needs numpy below 2, but 2.4.6 is installed"}
    assert not any("runtime" in name for name in runs)


def test_the_command_prints_one_json_object_and_nobody_chats(run: Callable[[str], Path]) -> None:
    words = [sys.executable, "-m", "tinyfl.cli", "export", str(run("digits")), "--int8", "--adapted", "1", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True, env={**os.environ, "COLUMNS": "200"})
    result = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert result["adapted"] == 1
    assert [Path(file["path"]).suffix for file in result["files"]] == [".tflite", ".h", ".c"]
    assert [line for line in done.stderr.splitlines() if line.strip() and "measuring" not in line] == []


def test_a_person_sees_tables_and_files(
    run: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tinyfl", "export", str(run("sine")), "--float", "--adapted", "0"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert "test device 0" in said
    assert "LiteRT" in said
    assert "model-card.md" in said
    assert "float32.tflite" in said


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nowhere"], 4, "holds no initialisation.npz"),
        (["RUN", "--adapted", "99"], 2, "test devices 0 to 11"),
        (["RUN", "--adapted", "-1"], 2, "test devices 0 to 11"),
        (["RUN", "--adapted", "u3"], 2, "test devices 0 to 11"),
        (["RUN", "--data", "x.npz"], 2, "brings its own data"),
        (["RUN", "--float", "--adapted", "0", "--out", "/proc/nowhere"], 4, "cannot be written"),
    ],
)
def test_errors_have_their_codes(
    words: list[str],
    code: int,
    says: str,
    run: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    path = str(run("digits"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tinyfl", "export", *(path if word == "RUN" else word for word in words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr()
    assert (left.value.code, said.out) == (code, "")
    assert says in said.err
