"""Runs an int8 model on a batch of inputs, or on a task: on this machine or on a board."""

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.building.toolchains import Toolchain
from tinyfl.core import F32, TableSource, class_means
from tinyfl.errors import ConfigError
from tinyfl.int8.native import Program, load_program, run_native
from tinyfl.networks import Preparation
from tinyfl.networks.layers import Loss
from tinyfl.registry.own import own_code
from tinyfl.runs.evaluation import mean_and_interval
from tinyfl.system.files import read_array, write_whole
from tinyfl.tasks import Episodes, Task, load_task
from tinyfl.tasks.augmented import shots_of_means

Run = Callable[[NDArray[Any]], NDArray[Any]]
"""Maps inputs (n, *shape) to raw outputs (n, *shape)."""

MAX_DEVICES = 100
"""Maximum number of a task's test devices, unless one is selected."""


def run_on_board(program: Program, x: NDArray[Any], on: str, *, engine: str = "", toolchain: Toolchain = "zig") -> NDArray[Any]:
    """Like ``tinyfl.int8.on_board.run_over``, on the board at ``on`` (tinyfl.fleets.emulation.board_at), whose errors it also
    raises."""
    from tinyfl.fleets.emulation import board_at
    from tinyfl.int8.on_board import run_over

    with board_at(on, engine=engine, toolchain=toolchain) as opener:
        return run_over(program, x, opener)


def infer(
    model: Path | str,
    *,
    input: Path | str | None = None,
    output: Path | str | None = None,
    on: str = "native",
    task: Path | str | None = None,
    data: Path | str | None = None,
    device: int | str | None = None,
    toolchain: Toolchain = "zig",
) -> dict[str, Any]:
    """Runs the int8 .tflite ``model`` ``on`` this machine (native), an emulated board (emulated:BOARD) or one on a port
    (port:PORT).

    ``input`` is an .npy file with a batch (n, *shape): raw values, or float32, which is quantised; ``output`` is the file for
    raw outputs. ``task``, a task's name or a finished run's directory, measures the accuracy on test devices' query sets; for a
    run ``device`` selects one test device, as ``tinyfl export --adapted``. A run's data are standardised as in the
    run, a named task's data are not. Returns plain data. Raises ConfigError, DataError, and the errors of starting a board.
    """
    if input is None and task is None:
        raise ConfigError("there is no input. Give --input X.npy --output Y.npy, or --task.")
    if (input is None) != (output is None):
        raise ConfigError("--input and --output go together: give both files.")
    if Path(model).is_dir() or Path(model).suffix == ".npz":
        raise ConfigError(
            f"{model} is a run, or weights of one, and no int8 .tflite file. Make that: tinyfl export {model} --int8. A run "
            "itself is for a board that has its classes: --on port:PORT, with --input and --output."
        )
    program = load_program(Path(model))
    run = _runner(program, on, toolchain)
    result: dict[str, Any] = {"model": str(model), "on": on, "bytes": len(program.content)}
    result["arena_bytes"] = program.arena_bytes
    if input is not None and output is not None:
        y = run(_batch(Path(input)))
        write_array(Path(output), y)
        result |= {"inputs": len(y), "output": str(output), "dtype": str(y.dtype), "shape": list(y.shape[1:])}
    if task is not None:
        result |= _on_task(program, run, *_episodes(str(task), Path(data) if data else None, device))
    return result


def _runner(program: Program, on: str, toolchain: Toolchain) -> Run:
    if on == "native":
        return lambda x: run_native(program, x)
    return lambda x: run_on_board(program, x, on, toolchain=toolchain)


def _batch(path: Path) -> NDArray[Any]:
    x = read_array(path)
    return x.astype(np.float32) if x.dtype == np.float64 else x


def write_array(path: Path, y: NDArray[Any]) -> None:
    """Writes ``y`` to ``path`` (.npy), whole or not at all."""
    import io

    buffer = io.BytesIO()
    np.save(buffer, y, allow_pickle=False)
    write_whole(path, buffer.getvalue())


def _episodes(task: str, data: Path | None, device: int | str | None) -> tuple[Task, Episodes, Preparation | None]:
    """The test devices of a task or a run, or one of a run's test devices, and what they do to embeddings, if they adapt by
    class means."""
    if not Path(task).is_dir():
        if device is not None:
            raise ConfigError(f"--device {device} needs a run's test devices: give the run's directory as --task.")
        loaded = load_task(own_code({"task": task})["task"], data, 0, standardise=False)  # a foreign model expects raw inputs
        return loaded, loaded.episodes("test", MAX_DEVICES, 1), None
    from tinyfl.runs.finished import origin, test_device

    source = origin(Path(task), data)
    if source.run is None:
        raise ConfigError(f"{task} has no finished run. Give a run's directory, or a task's name.")
    episodes = source.task.episodes("test", source.run.config.tasks, source.run.row["shots"])
    net = source.start.network
    how = net.prepared if net.embeds else None
    if device is None:
        return source.task, episodes, how
    number, _ = test_device(source.task, device, int(episodes.device.max()) + 1, "--device")
    return source.task, episodes.chosen(np.flatnonzero(episodes.device == number)[:1]), how


def _on_task(program: Program, run: Run, task: Task, episodes: Episodes, how: Preparation | None) -> dict[str, Any]:
    """Measures the model on the episodes' query sets; by class means where ``how`` says what devices do to embeddings."""
    values, outputs = prod(program.input.shape), prod(program.output.shape)
    if how is not None and values == prod(task.shape):
        return _by_means(program, run, task, episodes, how)
    if (values, outputs) != (prod(task.shape), task.outputs):
        raise ConfigError(
            f"the model has {values:,} inputs and {outputs:,} outputs, but task {task.name} has {prod(task.shape):,} and "
            f"{task.outputs:,}. Give the task of the model."
        )
    query, owner = episodes.query, episodes.device
    x = query.inputs()
    truth = np.eye(outputs, dtype=np.float32)[query.labels] if query.targets is None else query.targets[query.rows]
    y = run(x.reshape(-1, *program.input.shape)).reshape(truth.shape)
    standard = task.standardisation
    result: dict[str, Any] = {"task": task.name, "devices": len(set(owner.tolist()))}
    result |= {"samples": int(x.shape[0] * x.shape[1]), "standardised": standard is not None and standard.of_inputs}
    if task.loss is Loss.mean_squared_error:
        unit = 1.0 if standard is None else standard.target_scale
        scores = ((unit * (_real(y, program) - truth)) ** 2).mean(axis=(1, 2))
    elif task.loss is Loss.sigmoid_cross_entropy:
        threshold = 0.5 if _ends_in_probabilities(program) else 0.0
        scores = ((_real(y, program) > threshold) == (truth > 0.5)).mean(axis=(1, 2))
    else:
        scores = (y.argmax(axis=2) == truth.argmax(axis=2)).mean(axis=1)
    name = "loss" if task.loss is Loss.mean_squared_error else "accuracy"
    mean, width, _ = mean_and_interval(scores, np.unique(owner, return_inverse=True)[1])
    return {**result, name: mean, f"{name}_ci95": width if np.isfinite(width) else None}


def _by_means(program: Program, run: Run, task: Task, episodes: Episodes, how: Preparation) -> dict[str, Any]:
    """The accuracy of class means of the model's embeddings, dequantised."""

    def embedded(source: TableSource) -> F32:
        y = run(source.inputs().reshape(-1, *program.input.shape))
        real = y if y.dtype == np.float32 else _real(y, program)
        return np.ascontiguousarray(real.reshape(*source.rows.shape, -1), np.float32)

    support, query = shots_of_means(episodes.support, how, task.shape), episodes.query
    assert support.labels is not None
    assert query.labels is not None
    places = 1 + int(max(support.labels.max(), query.labels.max()))
    found = class_means(
        embedded(support), support.labels, embedded(query), query.labels,
        places=places, centre=how.centre, normalised=how.normalised,
    )  # fmt: skip
    mean, width, devices = mean_and_interval(found.accuracy, np.unique(episodes.device, return_inverse=True)[1])
    standard = task.standardisation is not None and task.standardisation.of_inputs
    result = {"task": task.name, "devices": devices, "samples": query.rows.size, "standardised": standard}
    return {**result, "accuracy": mean, "accuracy_ci95": width if np.isfinite(width) else None}


def _ends_in_probabilities(program: Program) -> bool:
    """Whether the network ends in a sigmoid, apart from QUANTIZE and DEQUANTIZE, which only change the representation."""
    last = [name for name in program.ops if name not in ("DEQUANTIZE", "QUANTIZE")][-1:]
    return last == ["LOGISTIC"]


def _real(y: NDArray[Any], program: Program) -> F32:
    """Dequantises raw outputs."""
    real: F32 = (y.astype(np.float32) - np.float32(program.output.zero)) * np.float32(program.output.scale)
    return real
