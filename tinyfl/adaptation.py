"""One new device: a saved initialisation adapts to its data, here as it would on the board."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyfl import core
from tinyfl.core import F32, TableSource
from tinyfl.errors import ConfigError, DataError, RunError, TrainingError
from tinyfl.evaluation import STEPS
from tinyfl.files import npz, read_arrays, write_whole
from tinyfl.networks import Network, from_plan
from tinyfl.records import Saved, checked, values
from tinyfl.runs import INITIALISATION, RunDirectory
from tinyfl.tasks.npz import checked_inputs
from tinyfl.words import plain

FIELDS = (
    "theta", "network", "plan", "shape", "task", "clip", "adapt_lr_batch", "adapt_lr_stream",
    "mean", "scale", "classes",
)  # fmt: skip
"""What a saved initialisation holds; the weights of an adapted device are saved in the same form."""


@dataclass(frozen=True)
class Initialisation:
    """A saved theta, float32 (parameters,), with the network it is for and what was done to inputs and labels."""

    theta: F32
    network: Network
    task: str
    clip: float
    adapt_lr: dict[str, float]
    mean: F32
    scale: F32
    classes: np.ndarray

    @classmethod
    def load(cls, path: Path) -> "Initialisation":
        """The initialisation at ``path``, a file or a run directory.

        Raises RunError if there is none, if it is damaged, or if it is not of the run whose directory it lies in.
        """
        file = _file(path)
        if not file.is_file() or file.suffix != ".npz":
            raise RunError(f"{path} holds no {INITIALISATION}. Give a finished run's directory (tinyfl simulate makes one).")
        try:
            held = read_arrays(file, FIELDS, ("config_sha256",))
        except DataError as error:
            raise RunError(f"{file} is no initialisation that tinyfl wrote: {error}") from error
        arrays = ("theta", "plan", "shape", "mean", "scale", "classes")
        saved = checked(Saved, values({name: held[name] for name in held if name not in arrays}), file, COPY)
        net = _network(file, saved.network, held["shape"], held["plan"])
        for name, size in (("theta", net.parameters), ("mean", net.inputs), ("scale", net.inputs)):
            array = held[name]
            if array.dtype != np.float32 or array.shape != (size,) or not np.isfinite(array).all():
                raise RunError(f"{file} is damaged: {name} is not {size:,} finite float32 numbers but {_form(array)}. {COPY}")
        if held["classes"].shape not in ((0,), (net.outputs,)):
            raise RunError(f"{file} is damaged: {net.outputs:,} outputs, and classes is {_form(held['classes'])}. {COPY}")
        if not held["scale"].all():
            raise RunError(f"{file} is damaged: scale, by which inputs are divided, has a 0. {COPY}")
        if (directory := RunDirectory(file.parent)).holds(file):
            directory.demand_own(saved.config_sha256, held["theta"])
        return cls(
            held["theta"], net, saved.task, saved.clip, {"batch": saved.adapt_lr_batch, "stream": saved.adapt_lr_stream},
            held["mean"], held["scale"], held["classes"],
        )  # fmt: skip


COPY = "Take the file as tinyfl wrote it."


def _form(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"


def _network(file: Path, name: str, shape: np.ndarray, plan: np.ndarray) -> Network:
    if plan.dtype != np.uint8 or shape.dtype.kind not in "iu" or shape.shape not in ((1,), (3,)):
        raise RunError(f"{file} is damaged: its plan is {plan.dtype}, its shape {plain(shape)}. {COPY}")
    try:
        return from_plan(name, tuple(map(int, shape)), plan.tobytes())
    except ConfigError as error:
        raise RunError(f"{file} is damaged: {error}") from error


def _file(path: Path) -> Path:
    return path / INITIALISATION if path.is_dir() else path


def adapt(
    run: Path | str,
    data: Path | str,
    *,
    mode: str = "batch",
    steps: int = 10,
    shots: int | None = None,
    adapt_lr: float | None = None,
    out: Path | str | None = None,
) -> dict[str, Any]:
    """Adapts the initialisation of ``run`` to the device whose samples are in the .npz file ``data`` (arrays x and y).

    The first ``shots`` rows are learnt from and the rest measured; where ``shots`` is None all are learnt from, and measured.
    ``out`` takes the adapted weights. Returns loss and accuracy before and after, as plain data.
    Raises DataError where the data do not fit the initialisation, TrainingError where the adaptation diverges.
    """
    start = Initialisation.load(Path(run))
    if mode not in ("batch", "stream"):
        raise ConfigError(f"mode is {mode!r}. Give batch or stream.")
    rate = start.adapt_lr[mode] if adapt_lr is None else adapt_lr
    if not 0 < rate < core.LIMIT:
        raise ConfigError(f"adapt_lr is {rate}, not above 0. Give another --adapt-lr, or leave it out for the run's choice.")
    device = _samples(Path(data), start)
    learnt = device.samples if shots is None else shots
    if not 0 < learnt <= device.samples:
        raise DataError(f"{data} has {device.samples} rows, too few for {learnt} shots. Give --shots 1 to {device.samples}.")
    support = _rows(device, slice(0, learnt))
    query = _rows(device, slice(learnt, None)) if learnt < device.samples else device

    checkpoints = sorted({step for step in STEPS if step < steps} | {0, steps})
    adapted = core.adapt(
        start.network.plan, start.theta, support, query, checkpoints,
        stream=mode == "stream", rate=rate, clip=start.clip, weights=True,
    )  # fmt: skip
    if not np.isfinite(adapted.loss[-1, 0]):
        raise TrainingError(f"adaptation diverges at rate {rate:g}; nothing was written. Give a smaller --adapt-lr.")
    if out is not None:
        assert adapted.weights is not None
        held = read_arrays(_file(Path(run)), FIELDS)
        write_whole(Path(out), npz(**{**held, "theta": adapted.weights[0]}))
    return {
        "run": str(run),
        "network": start.network.name,
        "mode": mode,
        "adapt_lr": rate,
        "shots": learnt,
        "measured_on": "the rest" if query is not device else "the same samples",
        "samples_measured": query.samples,
        "curve": _curve(adapted, checkpoints, start.network),
        "device_ram_bytes": start.network.ram_bytes(learnt if mode == "batch" else 1),
        "out": str(out) if out is not None else None,
    }


def _curve(adapted: core.Adapted, checkpoints: list[int], net: Network) -> list[dict[str, Any]]:
    """The one device's loss and accuracy at each checkpoint; None where JSON has no number for it."""
    return [
        {
            "steps": step,
            "loss": float(adapted.loss[k, 0]) if np.isfinite(adapted.loss[k, 0]) else None,
            "accuracy": float(adapted.accuracy[k, 0]) if net.classifies else None,
        }
        for k, step in enumerate(checkpoints)
    ]


def _samples(path: Path, start: Initialisation) -> TableSource:
    """All samples of the device in the file at ``path``, standardised as the run's were.

    Raises DataError where they do not fit the initialisation.
    """
    arrays = read_arrays(path, ("x", "y"))
    x = checked_inputs(path, arrays["x"])
    if x.shape[1] != start.network.inputs:
        raise DataError(
            f"{path}: array x has {x.shape[1]} inputs a row, and the initialisation is for {start.network.inputs}. "
            "Give the same inputs, in the same order, as the run was trained on."
        )
    labels, targets = _truth(path, arrays["y"], len(x), start)
    table = ((x - start.mean) / start.scale).astype(np.float32)
    rows = np.arange(len(x), dtype=np.int32)[None]
    return TableSource(table, rows, labels=None if labels is None else labels[None], targets=targets)


def _rows(device: TableSource, chosen: slice) -> TableSource:
    """Some of a device's samples."""
    rows = np.ascontiguousarray(device.rows[:, chosen])
    labels = None if device.labels is None else np.ascontiguousarray(device.labels[:, chosen])
    return replace(device, rows=rows, labels=labels)


def _truth(path: Path, y: np.ndarray, rows: int, start: Initialisation) -> tuple[core.I32 | None, F32 | None]:
    """Labels or targets of a device's rows, as the network numbers them."""
    if y.shape[:1] != (rows,):
        raise DataError(f"{path}: array y is {y.shape}, but x has {rows} rows. Give y one entry a row.")
    if start.network.classifies:
        classes = start.classes if len(start.classes) else np.arange(start.network.outputs)
        unknown = ~np.isin(y, classes)
        if y.ndim != 1 or unknown.any():
            row = int(unknown.reshape(rows, -1).any(axis=1).argmax())
            raise DataError(
                f"{path}: array y has {y[row]} in row {row}, and the initialisation knows the classes "
                f"{', '.join(map(str, classes))}. Give y as those numbers (samples,)."
            )
        return np.searchsorted(classes, y).astype(np.int32), None
    if y.dtype.kind not in "fiu":
        raise DataError(f"{path}: array y is {y.dtype} {y.shape}. Give {start.network.outputs} numbers a row.")
    targets = y.reshape(rows, -1).astype(np.float32)
    if targets.shape[1] != start.network.outputs or not np.isfinite(targets).all():
        raise DataError(f"{path}: array y is {y.shape}. Give {start.network.outputs} finite numbers a row.")
    return None, targets
