"""Exports a trained network: TFLite files, the same as C arrays, and a model card with measurements."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tinyfl import __version__
from tinyfl.core import F32
from tinyfl.errors import ConfigError
from tinyfl.errors.words import file_name
from tinyfl.export.card import card
from tinyfl.export.carray import c_array
from tinyfl.export.convert import convert, representative_set
from tinyfl.export.interpreters import available
from tinyfl.export.measure import METRICS, Probe, imitation, measure, probes
from tinyfl.int8.compile import compile_tflite
from tinyfl.networks import Network
from tinyfl.registry.chosen import Chosen
from tinyfl.registry.shown import about
from tinyfl.runs.evaluation import LEADING_STEPS
from tinyfl.runs.finished import Finished, Origin, origin, test_device
from tinyfl.runs.hashes import theta_sha256
from tinyfl.system.files import write_whole
from tinyfl.system.installed import tensorflow_part

Kind = Literal["float32", "int8"]
KINDS: tuple[Kind, ...] = ("float32", "int8")
CARD = "model-card.md"

DEVICES = 20
"""Number of test devices to adapt and measure, each with its own files."""


@dataclass(frozen=True)
class _Case:
    """A description of what is measured, and its probes."""

    on: str
    probes: list[Probe]


def export(
    run: Path | str,
    *,
    kinds: tuple[Kind, ...] = KINDS,
    adapted: int | str | None = None,
    data: Path | str | None = None,
    task: Any = None,
    algorithm: Any = None,
    out: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes the network at ``run``, a finished run's directory or an .npz file of weights, as TFLite files and C arrays of
    ``kinds``, and measures them.

    With ``adapted``, exports the weights of the evaluation's test device of this number, from 0, or name, after adaptation to
    its support set, and measures them on its query set. Otherwise exports the initialisation, and measures it on 20 test
    devices without and with adaptation; each device's adapted weights are then converted and run separately. Weights without a
    run are measured only by their agreement with the core in float32.

    ``data``: the task's file, if it has moved. ``task`` and ``algorithm``: the run's own, given again (docs/your-own.md).
    ``out``: a folder; default: "exported" in the run's directory. ``progress`` is called with the numbers of measured models
    and of all. Returns the card's contents as plain data.
    Raises ConfigError, DataError, RunError or TrainingError with a cure, InstallError without TensorFlow.
    """
    available(int8=True)
    source = origin(Path(run), None if data is None else Path(data), task, algorithm)
    network = source.start.network
    inputs = representative_set(source.task, network)
    number, device = (None, None) if adapted is None else _device(source, adapted)
    theta, cases = _cases(source, number, device, inputs)
    converted: dict[bytes, dict[str, bytes]] = {}

    def models(weights: F32) -> dict[str, bytes]:
        key = weights.tobytes()
        if key not in converted:
            converted[key] = {kind: convert(network, weights, inputs if kind == "int8" else None) for kind in kinds}
        return converted[key]

    done, total = 0, sum(len(case.probes) for case in cases)

    def tick() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    unit = source.start.standard.target_scale
    measured = [
        {"on": case.on, "rows": [row.as_json() for row in measure(network, case.probes, models, tick, unit)]} for case in cases
    ]
    folder = Path(out) if out is not None else _folder(source, number)
    files = _files(source, theta, models(theta))
    for name, content in files.items():
        write_whole(folder / name, content)
    result = {
        **_facts(source, theta, number),
        "device": device,
        "representative_samples": len(inputs),
        "int8": _int8(models(theta)),
        "metric": METRICS[network.loss],
        "measured": measured,
        "not_run": available(int8=True)[1],
        "files": [_file(folder / name, content) for name, content in files.items()],
        "card": str(folder / CARD),
    }
    write_whole(folder / CARD, card(result).encode())
    return result


def _device(source: Origin, adapted: int | str) -> tuple[int, str]:
    """The number and the name of the test device of the evaluation that is ``adapted``.

    Raises ConfigError if there is none.
    """
    if source.start.network.embeds:
        raise ConfigError(
            f"devices of {source.path} adapt by class means, and keep the weights: leave --adapted out. tinyfl adapt "
            "writes a device's class means."
        )
    if source.run is None:
        raise ConfigError(f"--adapted needs the run of {source.path}. Give the run's directory.")
    episodes = source.task.episodes("test", source.run.config.tasks, source.run.row["shots"])
    return test_device(source.task, adapted, int(episodes.device.max()) + 1, "--adapted")


def _cases(source: Origin, adapted: int | None, device: str | None, inputs: F32) -> tuple[F32, list[_Case]]:
    """The weights to write, and the cases to measure."""
    start, network = source.start, source.start.network
    if network.embeds:
        on = f"{len(inputs):,} samples of training devices, with the core's embedding in float32 as the truth"
        return start.theta, [_Case(on, [imitation(network, start.theta, inputs)])]
    if adapted is None:
        start.demand_whole(source.path)
    if source.run is None:
        on = f"{len(inputs):,} samples of training devices, with the core's answer in float32 as the truth"
        return start.theta, [_Case(on, [imitation(network, start.theta, inputs)])]

    row = source.run.row
    episodes = source.task.episodes("test", source.run.config.tasks, row["shots"])
    if adapted is None:
        selection = np.unique(np.linspace(0, len(episodes.device) - 1, DEVICES).astype(int))
    else:
        selection = np.flatnonzero(episodes.device == adapted)[:1]
    before, after = probes(network, start.theta, episodes.chosen(selection), row["adapt_lr"], start.clip, source.adaptation)
    steps = f"{LEADING_STEPS} full-batch steps at rate {row['adapt_lr']:g} on {row['shots']} shots"
    if adapted is not None:
        return after[0].theta, [_Case(f"test device {device}, after {steps}", after)]
    measured = f"{len(set(episodes.device[selection].tolist())):,} test devices"
    return start.theta, [
        _Case(f"{measured}, as exported: before any adaptation", before),
        _Case(f"{measured}, each with its own model after {steps}", after),
    ]


def _folder(source: Origin, adapted: int | None) -> Path:
    if source.run is None:
        return source.path.with_name(f"{source.path.stem}-exported")
    return source.path / ("exported" if adapted is None else f"exported-device-{adapted}")


def _files(source: Origin, theta: F32, models: dict[str, bytes]) -> dict[str, bytes]:
    """The files to write, by name."""
    start, files = source.start, {}
    for kind, model in models.items():
        name = f"{file_name(f'{start.task}-{start.network.name}')}-{kind}"
        files[f"{name}.tflite"] = model
        program = compile_tflite(model) if kind == "int8" else None
        files |= {file: text.encode() for file, text in c_array(name, model, program, start.standard).items()}
    return files


def _file(path: Path, content: bytes) -> dict[str, Any]:
    return {"path": str(path), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _facts(source: Origin, theta: F32, adapted: int | None) -> dict[str, Any]:
    """The origin of the weights, and the network's inputs and outputs."""
    start, network, task = source.start, source.start.network, Chosen("task", source.start.task)
    return {
        "run": str(source.path),
        "tinyfl": __version__,
        "tensorflow": tensorflow_part("tensorflow").__version__,
        "task": start.task,
        "about": about(start.task, source.task),
        "of_user": not task.built_in or task.takes("targets"),
        "network": network.name,
        "layers": _layers(network),
        "parameters": network.parameters,
        "shape": list(network.shape),
        "outputs": network.outputs,
        "loss": network.loss.name,
        "inputs": list(start.standard.names),
        "classes": start.standard.classes.tolist(),
        "standardised": start.standard.of_inputs,
        "targets_standardised": start.standard.of_targets,
        "seed": source.seed,
        "config_sha256": source.config_sha256,
        "theta_sha256": theta_sha256(theta),
        "adapted": adapted,
        "learnt": None if source.run is None else _learnt(source.run),
    }


def _learnt(run: Finished) -> dict[str, Any]:
    keys = ("algorithm", "devices", "rounds", "cohort", "sample_gradients")
    return {
        **{key: run.result[key] for key in keys},
        "data": Path(run.config.data).name,
        "data_sha256": run.data_sha256,
        "evaluation": run.row,
    }


def _layers(network: Network) -> list[dict[str, Any]]:
    return [
        {
            "kind": layer.kind.name,
            "input": list(layer.input),
            "output": list(layer.output),
            "kernel": list(layer.kernel),
            "stride": list(layer.stride),
            "padding": "same" if layer.same else "valid",
            "activation": layer.activation.name,
            "weights": layer.weights,
            "learns": layer.learns,
        }
        for layer in network.placed
    ]


def _int8(models: dict[str, bytes]) -> dict[str, Any] | None:
    """An int8 model's scales, and its bytes in the core."""
    if "int8" not in models:
        return None
    program = compile_tflite(models["int8"])
    return {
        "input": {"scale": program.input.scale, "zero": program.input.zero},
        "output": {"scale": program.output.scale, "zero": program.output.zero},
        "program_bytes": len(program.content),
        "arena_bytes": program.arena_bytes,
    }
