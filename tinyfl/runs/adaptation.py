"""Adaptation of a saved initialisation to the data of one new device, computed as on the board."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.algorithms import with_layers
from tinyfl.config import as_python, resolve
from tinyfl.core import F32, F64, TableSource
from tinyfl.data import USUAL, Reading, Table
from tinyfl.data.arrays import by_names, checked_inputs, checked_values, labels_in, numbers_of, refuse_non_finite
from tinyfl.data.frames import on_disk
from tinyfl.data.reading import read_device
from tinyfl.data.words import named
from tinyfl.errors import ConfigError, DataError, RunError, TrainingError
from tinyfl.errors.words import plain
from tinyfl.networks import BATCHES, INITIALISATION, SINGLE, Network, Preparation, from_plan
from tinyfl.registry.chosen import not_loaded
from tinyfl.registry.own import own_code
from tinyfl.runs import class_means
from tinyfl.runs.adapted import adapted
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.evaluation import STEPS, Adaptation, in_units, inner_loop, needs_outputs, plain_adaptation
from tinyfl.runs.extensions import with_code
from tinyfl.runs.provenance import carried, config_of
from tinyfl.runs.records import InitialisationRecord, checked, values
from tinyfl.system.files import npz, read_arrays, write_whole
from tinyfl.tasks import targets_for
from tinyfl.tasks.standard import Standardisation
from tinyfl.tasks.sums import missing

FIELDS = (
    "theta", "network", "plan", "shape", "task", "clip", "adapt_lr_batch", "adapt_lr_stream",
    "mean", "scale", "classes",
)  # fmt: skip
"""Arrays of a saved initialisation; for regression also OF_TARGETS. The weights of an adapted device are saved in the same
format."""

OF_TARGETS = ("target_mean", "target_scale")

MORE = (*OF_TARGETS, "adaptation", "inputs", "centre", "normalised", "augmented", "local", "rates")
"""Arrays that a saved initialisation may have."""


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
class Initialisation:
    """A saved theta, float32 (parameters,), with its network and the standardisation of inputs and labels. ``adaptation`` is
    the name of the algorithm if it has an adaptation of its own, else empty; ``local`` the names of the layers that each device
    learns for itself, else empty. ``rates`` float64 (any, 3) are those of adaptation: a number of samples, its rate in batch
    and in stream mode."""

    theta: F32
    network: Network
    task: str
    clip: float
    rates: F64
    standard: Standardisation
    adaptation: str = ""
    local: str = ""

    def rate(self, mode: str, samples: int) -> float:
        """The rate that the run chose for this many samples, or for the number whose ratio to it is nearest to 1."""
        row = np.abs(np.log(self.rates[:, 0] / samples)).argmin()
        return float(self.rates[row, 2 if mode == "stream" else 1])

    def demand_whole(self, path: Path) -> None:
        """Raises ConfigError if layers of the initialisation at ``path`` are still to be learnt by each device."""
        if self.local:
            raise ConfigError(
                f"{self.local} of {path} stays on each device, which learns its own, so nobody can use this model as it is. "
                "Take a device's: tinyfl export RUN --adapted 0, or the file of tinyfl adapt RUN --data FILE --out FILE."
            )

    @classmethod
    def load(cls, path: Path) -> "Initialisation":
        """Reads the initialisation at ``path``, a file or a run directory.

        Raises RunError if there is none, if it is damaged, or if it does not belong to the run of its directory.
        """
        file = file_of(path)
        if not file.is_file() or file.suffix != ".npz":
            raise RunError(f"{path} holds no {INITIALISATION}. Give a finished run's directory (tinyfl simulate makes one).")
        try:
            arrays = read_arrays(file, FIELDS, (*MORE, "config_sha256"))
        except DataError as error:
            raise RunError(f"{file} is no initialisation written by tinyfl: {error}") from error
        numbers = ("theta", "plan", "shape", "mean", "scale", "classes", "inputs", "centre", "rates", *OF_TARGETS)
        saved = checked(
            InitialisationRecord, values({name: arrays[name] for name in arrays if name not in numbers}), file, COPY
        )
        net = _network(file, saved.network, arrays["shape"], arrays["plan"])
        net = replace(net, prepared=Preparation(_centre(file, arrays, net), saved.normalised, saved.augmented))
        theta = arrays["theta"]
        if theta.dtype != np.float32 or theta.shape != (net.parameters,) or not np.isfinite(theta).all():
            form = f"{theta.dtype} {theta.shape}"
            raise RunError(f"{file} is damaged: theta is not {net.parameters:,} finite float32 numbers but {form}. {COPY}")
        try:
            standard = Standardisation.read(arrays, net.inputs, net.outputs)
        except ValueError as error:
            raise RunError(f"{file} is damaged: {error}. {COPY}") from error
        if (directory := RunDirectory(file.parent)).holds(file):
            directory.demand_own(saved.config_sha256, theta)
        for mode, rate in (("batch", saved.adapt_lr_batch), ("stream", saved.adapt_lr_stream)):
            if rate == 0 and not net.embeds:
                raise RunError(f"{file} is damaged: adapt_lr_{mode}: 0, which adapts nothing. {COPY}")
        return cls(theta, net, saved.task, saved.clip, _rates(file, arrays, saved), standard, saved.adaptation, saved.local)


COPY = "Take the file as tinyfl wrote it."


def _centre(file: Path, arrays: dict[str, NDArray[Any]], net: Network) -> F32 | None:
    centre = arrays.get("centre")
    if centre is None:
        return None
    if (centre.dtype.name, centre.shape) != ("float32", (net.outputs,)) or not np.isfinite(centre).all():
        form = f"{centre.dtype} {centre.shape}"
        raise RunError(f"{file} is damaged: centre is not {net.outputs:,} finite float32 numbers but {form}. {COPY}")
    return centre


def _rates(file: Path, arrays: Mapping[str, NDArray[Any]], saved: InitialisationRecord) -> F64:
    """The rates of adaptation; in a file of an earlier version, one for any number of samples."""
    if "rates" not in arrays:
        return np.array([[1.0, saved.adapt_lr_batch, saved.adapt_lr_stream]])
    rates = arrays["rates"]
    fits = rates.dtype == np.float64 and rates.ndim == 2 and rates.size > 0 and rates.shape[1] == 3
    if not fits or not (np.isfinite(rates) & (rates > 0)).all():
        raise RunError(f"{file} is damaged: rates is {rates.dtype} {rates.shape}, not rows of 3 finite numbers above 0. {COPY}")
    return rates


def _network(file: Path, name: str, shape: np.ndarray, plan: np.ndarray) -> Network:
    if plan.dtype != np.uint8 or shape.dtype.kind not in "iu" or shape.shape not in ((1,), (3,)):
        raise RunError(f"{file} is damaged: its plan is {plan.dtype}, its shape {plain(shape)}. {COPY}")
    try:
        return from_plan(name, tuple(map(int, shape)), plan.tobytes())
    except ConfigError as error:
        raise RunError(f"{file} is damaged: {error}") from error


def file_of(path: Path) -> Path:
    """The file of weights at ``path``, which may be a run's directory."""
    return path / INITIALISATION if path.is_dir() else path


def adapt(
    run: os.PathLike[str] | str,
    data: Any,
    *,
    mode: str = "batch",
    steps: int = 10,
    shots: int | None = None,
    adapt_lr: float | None = None,
    out: Path | str | None = None,
    algorithm: Any = None,
) -> dict[str, Any]:
    """Adapts the initialisation of ``run``, a Run, its directory or a file of weights, to the device whose samples are
    ``data``: an .npz file with x and y or a file of the run's columns (docs/tasks.md), or a dict or frame of either.

    Learns from the first ``shots`` rows and measures on the rest; with ``shots`` None, learns from and measures on all rows.
    Writes the adapted weights to ``out``; of a run whose devices adapt by class means, the means, without steps, rate and mode.
    ``algorithm`` is the run's own, given again, if it has an adaptation of its own.
    Returns loss and accuracy before and after, as plain data.
    Raises DataError if the data do not fit the initialisation, TrainingError if the adaptation diverges.
    """
    steps, shots, adapt_lr = as_python((steps, shots, adapt_lr))
    with on_disk(data) as file:
        return _adapted(Path(run), file, mode, steps, shots, adapt_lr, None if out is None else Path(out), algorithm)


def _adapted(
    run: Path,
    data: Path,
    mode: str,
    steps: int,
    shots: int | None,
    adapt_lr: float | None,
    out: Path | None,
    algorithm: Any,
) -> dict[str, Any]:
    start = Initialisation.load(run)
    if start.network.embeds:
        return by_class_means(run, start, data, shots, out)
    if mode not in ("batch", "stream"):
        raise ConfigError(f"mode is {mode!r}. Give batch or stream.")
    device, names = _samples(data, start, _reading(file_of(run)))
    support, query = _support_and_query(data, device, shots)
    rate = start.rate(mode, support.samples) if adapt_lr is None else adapt_lr
    if not 0 < rate < core.LIMIT:
        raise ConfigError(f"adapt_lr is {rate}, not above 0. Give another --adapt-lr, or leave it out for the run's choice.")
    how = adaptation_of(file_of(run), start, algorithm)
    checkpoints = sorted({step for step in STEPS if step < steps} | {0, steps})
    found = core.adapt(
        start.network.plan, start.theta, support, query, checkpoints,
        inner_loop(mode, support.samples, steps, rate, start.clip, how),
        weights=True, outputs=needs_outputs(start.standard),
    )  # fmt: skip
    if not np.isfinite(found.loss[-1, 0]):
        raise TrainingError(f"adaptation diverges at rate {rate:g}; nothing was written. Give a smaller --adapt-lr.")
    if out is not None:
        assert found.weights is not None
        arrays = _saved(file_of(run))
        write_whole(out, npz(**{**arrays, "theta": found.weights[0], "local": ""}))
    return {
        "run": str(run),
        "network": start.network.name,
        "mode": mode,
        "adapt_lr": rate,
        "shots": support.samples,
        "measured_on": "the rest" if query is not device else "the same samples",
        "samples_measured": query.samples,
        "notes": _one_sided(support, query, names),
        "curve": _curve(found, in_units(found, query, start.standard), checkpoints, start.network),
        "device_ram_bytes": start.network.ram_bytes(SINGLE if mode == "stream" or support.samples == 1 else BATCHES),
        "out": str(out) if out is not None else None,
    }


def new_device(
    run: Path, data: Path, shots: int | None = None
) -> tuple[Initialisation, TableSource, TableSource, NDArray[Any]]:
    """The initialisation of ``run``, and of the new device with the samples in ``data`` its first ``shots`` rows, the others
    (all rows twice without), and the names of its classes.

    Raises ConfigError if the run's devices do not adapt by class means.
    """
    start = Initialisation.load(run)
    if not start.network.embeds:
        raise ConfigError(f"devices of {run} learn by steps, not by class means. Leave --on out, or take a run of protonet.")
    device, names = _samples(data, start, _reading(file_of(run)))
    return start, *_support_and_query(data, device, shots), names


def by_class_means(run: Path, start: Initialisation, data: Path, shots: int | None, out: Path | None) -> dict[str, Any]:
    """As ``adapt``, for a network that gives embeddings: the device learns the classes of its own that its first ``shots`` rows
    have, by their means."""
    net, file = start.network, file_of(run)
    device, names = _samples(data, start, _reading(file))
    support, query = _support_and_query(data, device, shots)
    found = adapted(net, start.theta, support, query, (0,), b"")
    if not np.isfinite(found.loss).all():
        raise TrainingError("an embedding is not finite; nothing was written. Check the device's inputs.")
    if out is not None:
        class_means.save(out, _saved(file), *class_means.class_means(net, start.theta, support, len(names)), names)
    return {
        "run": str(run),
        "network": net.name,
        "mode": "means",
        "adapt_lr": None,
        "shots": support.samples,
        "measured_on": "the rest" if query is not device else "the same samples",
        "samples_measured": query.samples,
        "notes": _one_sided(support, query, names),
        "curve": _curve(found, found.loss, [0], net),
        "device_ram_bytes": class_means.ram_bytes(net, len(names)),
        "out": None if out is None else str(out),
    }


def _reading(file: Path) -> Reading:
    """How the run of the initialisation in ``file`` read its data; by convention without a run."""
    config = config_of(file)
    return config.reading if config else USUAL


def _saved(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays of the initialisation in ``file``, which adapted weights keep, but for theta."""
    return {**read_arrays(file, FIELDS, MORE), **carried(file)}


def adaptation_of(file: Path, start: Initialisation, algorithm: Any = None) -> Adaptation:
    """How devices adapt the initialisation ``start`` of ``file``; ``algorithm`` is its algorithm, given again by this user.

    Raises ConfigError if it has an adaptation of its own whose code no name loads and nobody gave, RunError for other code than
    the run's.
    """
    if not start.adaptation:
        return plain_adaptation
    directory = RunDirectory(file.parent)
    if directory.holds(file):
        config = with_code(directory.config(), algorithm=algorithm)
    else:
        config = resolve({"algorithm": start.adaptation, **own_code({"algorithm": algorithm} if algorithm else {})})
    chosen = config.chosen("algorithm")
    if chosen.code is None and not chosen.loads_by_name:
        raise not_loaded(chosen)
    return with_layers(config.build(), start.network.weighted_layers).adaptation


def _support_and_query(path: Path, device: TableSource, shots: int | None) -> tuple[TableSource, TableSource]:
    """The first ``shots`` rows of ``device`` and the rest; without a rest or with None, all rows twice.

    Raises DataError for too few rows.
    """
    count = device.samples if shots is None else shots
    if not 0 < count <= device.samples:
        raise DataError(f"{path} has {device.samples} rows, too few for {count} shots. Give --shots 1 to {device.samples}.")
    support = _rows(device, slice(0, count))
    return support, _rows(device, slice(count, None)) if count < device.samples else device


def _one_sided(support: TableSource, query: TableSource, names: NDArray[Any]) -> list[str]:
    """Warnings of classes, by their ``names``, that the device is measured on and never sees, or of a single class."""
    if support.labels is None or query.labels is None:
        return []
    seen, measured = np.unique(support.labels), np.unique(query.labels)
    if missing := sorted(set(measured) - set(seen)):
        return [
            f"the {support.samples:,} rows that it learns from have no row of {_named(names[missing])}, and the rest has: mix "
            "the rows of --data, or give more --shots."
        ]
    if len(seen) == 1:
        return [
            f"all rows are of {_named(names[seen])}: a device that always says so is right. Give rows of other classes too."
        ]
    return []


def _named(classes: NDArray[Any]) -> str:
    return f"{'class' if len(classes) == 1 else 'classes'} {named(classes)}"


def _curve(
    found: core.Adapted, losses: NDArray[np.floating[Any]], checkpoints: list[int], net: Network
) -> list[dict[str, Any]]:
    """The device's loss and accuracy at each checkpoint; None for a non-finite loss."""
    return [
        {
            "steps": step,
            "loss": float(losses[k, 0]) if np.isfinite(losses[k, 0]) else None,
            "accuracy": float(found.accuracy[k, 0]) if net.classifies else None,
        }
        for k, step in enumerate(checkpoints)
    ]


def _samples(path: Path, start: Initialisation, reading: Reading) -> tuple[TableSource, NDArray[Any]]:
    """Reads all samples of the device in the file at ``path``, standardised like the run's, and the names of their classes: the
    device's own where it learns them by class means.

    Raises DataError if they do not fit the initialisation.
    """
    held = read_device(path, replace(reading, targets=targets_for(start.network.loss)), start.standard.names)
    x = checked_inputs(path, held.x, "mean" if start.standard.of_inputs else "refuse")
    never = missing(x).all(axis=0)
    if never.any():
        refuse_non_finite(path, "x", np.where(never, x, 0), "The device has no value of that input at all: give it some")
    if x.shape[1] != start.network.inputs:
        raise DataError(
            f"{path}: array x has {x.shape[1]} inputs per row, but the initialisation takes {start.network.inputs}. "
            "Give the same inputs, in the same order, as in the run's data."
        )
    classes = start.standard.classes if len(start.standard.classes) else np.arange(start.network.outputs)
    if start.network.embeds:
        classes = np.unique(labels_in(path, held.y, "classes")[0])  # type: ignore[arg-type]  # classes have labels
    labels, targets = _labels_or_targets(path, held, start, classes)
    table = start.standard.apply(x)
    refuse_non_finite(path, "x, once standardised,", table, "Scale that input down")
    rows = np.arange(len(x), dtype=np.int32)[None]
    return TableSource(table, rows, labels=None if labels is None else labels[None], targets=targets), classes


def _rows(device: TableSource, chosen: slice) -> TableSource:
    """A slice of a device's samples."""
    rows = np.ascontiguousarray(device.rows[:, chosen])
    labels = None if device.labels is None else np.ascontiguousarray(device.labels[:, chosen])
    return replace(device, rows=rows, labels=labels)


def _labels_or_targets(
    path: Path, held: Table, start: Initialisation, classes: NDArray[Any]
) -> tuple[core.I32 | None, F32 | None]:
    """Labels (rows,), numbers of ``classes``, or targets float32 (rows, outputs), of a device's rows."""
    y, rows = held.y, len(held.x)
    if y.shape[:1] != (rows,):
        raise DataError(f"{path}: array y is {y.shape}, but x has {rows} rows. Give y one entry per row.")
    if not start.network.classifies:
        values = checked_values(path, y)
        if values.shape[1] != start.network.outputs:
            raise DataError(f"{path}: array y is {y.shape}. Give {start.network.outputs} numbers per row.")
        return None, start.standard.targets(values)
    labels, _ = labels_in(path, y, "classes")
    assert labels is not None
    labels = by_names(path, labels, held.class_names)
    same_kind = (labels.dtype.kind == "U") == (classes.dtype.kind == "U")
    unknown = ~np.isin(labels, classes) if same_kind else np.ones(len(labels), bool)
    if unknown.any():
        row = int(unknown.argmax())
        raise DataError(
            f"{path}: array y has {plain(labels[row], 40)} in row {row}, but the initialisation knows the classes "
            f"{plain(', '.join(map(str, classes)))}. Give y as those {'names' if classes.dtype.kind == 'U' else 'numbers'} "
            "(samples,)."
        )
    return numbers_of(labels, classes), None
