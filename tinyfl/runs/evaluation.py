"""Evaluation of an initialisation: loss and accuracy on unseen devices after a few steps on their support sets.

Two modes, each with its own adaptation rate: ``batch`` (a step = one full-batch step on the support set) and ``stream`` (a
step = one pass over it, sample by sample). Rates are chosen on validation devices, separately for each initialisation. A
network that gives embeddings has one mode instead: ``means`` (class means of the support set), without steps and a rate.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.algorithms import Inner, Phase
from tinyfl.core import F32, F64, FASTEST, I32, Engine, TableSource
from tinyfl.errors import TrainingError
from tinyfl.networks import Network
from tinyfl.networks.layers import Loss
from tinyfl.runs.adapted import adapted
from tinyfl.runs.multilabel import LabelScores, first_of_each, label_scores
from tinyfl.tasks import Episodes, Task
from tinyfl.tasks.standard import Standardisation

Mode = Literal["batch", "stream", "means"]

Adaptation = Callable[[Phase], tuple[Phase, ...]]
"""How a new device adapts: its phases instead of one plain phase (tinyfl.algorithms.Algorithm)."""

MODES: tuple[Mode, ...] = ("batch", "stream")
STEPS = (0, 1, 5, 10, 32)
LEADING_STEPS = 10
"""Rates are chosen for the result after this many steps, and reports lead with it."""


def modes_of(network: Network) -> tuple[Mode, ...]:
    """The modes in which devices adapt ``network``."""
    return ("means",) if network.embeds else MODES


def compares(row: Mapping[str, Any]) -> bool:
    """Whether initialisations are compared by this row of an evaluation: after LEADING_STEPS in its mode, or by class means."""
    return bool(row["mode"] == "means" or row["steps"] == LEADING_STEPS)


def leads(row: Mapping[str, Any]) -> bool:
    """Whether reports lead with this row: after LEADING_STEPS full-batch steps, or by class means."""
    return compares(row) and row["mode"] != "stream"


def after_words(rows: Sequence[Mapping[str, Any]], steps: str = "steps") -> str:
    """After what reports lead, for people: the ``steps`` of these rows' leading one, or class means."""
    return "by class means" if any(row["mode"] == "means" for row in rows) else f"after {LEADING_STEPS} {steps}"


RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
VALIDATION_EPISODES = 200

AT_ONCE = 16
"""Episodes whose inputs the floor gathers at once."""

OUTPUTS_AT_ONCE = 1 << 24
"""Numbers that an evaluation of labels gathers at once, but those of AT_ONCE episodes at least."""


@dataclass(frozen=True)
class Row:
    """One measurement: the mean over ``tasks`` devices and the half-width of its 95 % interval, after ``steps`` at learning
    rate ``adapt_lr``, None for class means, on ``shots``. ``accuracy`` is None for regression, whose loss and mean absolute
    error are in the units of the user's targets; the loss is infinite if a device diverged. ``r2`` is R² over all query samples
    of all devices, and ``labels`` are the scores over them, where each of several labels is a yes or a no."""

    mode: Mode
    shots: int
    steps: int
    adapt_lr: float | None
    loss: float
    loss_ci95: float
    accuracy: float | None
    accuracy_ci95: float | None
    tasks: int
    mae: float | None = None
    mae_ci95: float | None = None
    r2: float | None = None
    labels: LabelScores | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data for JSON; the scores of labels are among the others."""
        row = asdict(self)
        labels = row.pop("labels") or {}
        return finite(row | labels)


def finite(data: dict[str, Any]) -> dict[str, Any]:
    """``data`` with None instead of non-finite floats, which JSON lacks."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in data.items()}


def needs_outputs(standard: Standardisation | None) -> bool:
    """Whether ``in_units`` needs the outputs: if there are several, each with its own unit."""
    return standard is not None and standard.of_targets and len(standard.target_scale) > 1


def in_units(found: core.Adapted, query: TableSource, standard: Standardisation | None) -> NDArray[np.floating[Any]]:
    """The loss at each checkpoint on each device, (checkpoints, devices); for regression the mean squared error in the units of
    the user's targets."""
    if standard is None or not standard.of_targets:
        return found.loss
    if not needs_outputs(standard):
        return found.loss * standard.squared_unit
    assert found.outputs is not None
    assert query.targets is not None
    errors = standard.target_scale * (found.outputs - query.targets[query.rows])
    return np.where(np.isfinite(found.loss), (errors**2).mean(axis=(2, 3)), np.inf)


def device_means(values: NDArray[np.floating[Any]], device: NDArray[np.integer[Any]]) -> F64:
    """The means of ``values`` (checkpoints, episodes) on each device, (checkpoints, devices); ``device`` (episodes,) has each
    episode's, from 0."""
    count = np.bincount(device)
    return np.array([np.bincount(device, weights=row.astype(np.float64)) / count for row in values])


def student(n: int) -> float:
    """The factor of a 95 % interval of ``n`` values' mean."""
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(stdtrit(n - 1, 0.975))


def mean_and_interval(values: NDArray[np.floating[Any]], device: NDArray[np.integer[Any]]) -> tuple[float, float, int]:
    """The mean of the devices' means, the half-width of its 95 % interval (Student's t), and the number of devices.

    values (episodes,), device (episodes,). The half-width is nan for a single device.
    """
    of_device = device_means(values[None], device)[0]
    n = len(of_device)
    if n < 2 or not np.isfinite(of_device).all():
        return float(of_device.mean()), float("nan"), n
    return float(of_device.mean()), float(student(n) * of_device.std(ddof=1) / np.sqrt(n)), n


def plain_adaptation(phase: Phase) -> tuple[Phase, ...]:
    """All layers, from the first pass to the last."""
    return (phase,)


def inner_loop(
    mode: str, samples: int, passes: int, rate: float, clip: float = 0.0, adaptation: Adaptation = plain_adaptation
) -> bytes:
    """The record of an adaptation's inner loop: ``passes`` passes over ``samples`` samples, in single steps (mode stream) or in
    one full-batch step each."""
    batch = 1 if mode == "stream" else samples
    return Inner(*adaptation(Phase(samples, rate, batch, max(passes, 1), clip))).to_bytes()


@dataclass(frozen=True)
class Tried:
    """A rate, and what it reaches on validation devices: the mean loss, infinite if a device diverged, and accuracy."""

    rate: float
    loss: float
    accuracy: float


def best_rate(
    task: Task,
    network: Network,
    theta: F32,
    mode: Mode,
    shots: int,
    clip: float,
    engine: Engine,
    adaptation: Adaptation = plain_adaptation,
    rates: Sequence[float] | None = None,
    count: int | None = None,
) -> Tried | None:
    """The best of ``rates`` (None: RATES) for ``theta`` on ``count`` validation devices (None: VALIDATION_EPISODES) after
    LEADING_STEPS: by accuracy for classification, else by loss; the lower rate on a tie. None if every rate diverges."""
    episodes = task.episodes("validation", VALIDATION_EPISODES if count is None else count, shots)
    if network.embeds:
        found = adapted(network, theta, episodes.support, episodes.query, (0,), b"", engine=engine)
        return Tried(0.0, *(float(each.mean(dtype=np.float64)) for each in (found.loss, found.accuracy)))
    rates = RATES if rates is None else rates
    adaptations = core.race(
        network.plan, theta, episodes.support, episodes.query, LEADING_STEPS,
        [inner_loop(mode, episodes.support.samples, LEADING_STEPS, rate, clip, adaptation) for rate in rates],
        by_accuracy=network.classifies, engine=engine,
    )  # fmt: skip
    return best_of(
        [
            Tried(rate, *(float(each.mean(dtype=np.float64)) for each in (found.loss, found.accuracy)))
            for rate, found in zip(rates, adaptations, strict=True)
            if np.isfinite(found.loss).any()
        ],
        network,
    )


def best_of(tried: Sequence[Tried], network: Network) -> Tried | None:
    """The best of ``tried``, rates that do not diverge on every device; the first on a tie. None without one."""
    best, found = -np.inf, None
    for each in tried:
        # The score of a rate that lost the race early is NaN, and never the best.
        score = each.accuracy if network.classifies else -each.loss
        if score > best:
            best, found = score, each
    return found


def demanded(found: Tried | None, standard: Standardisation | None, devices: str) -> Tried:
    """``found``, the best rate on ``devices``. Raises TrainingError if every rate diverges."""
    if found is None:
        cure = "a smaller --rate" if standard is None or standard.of_inputs else "--standardise"
        raise TrainingError(
            f"every adaptation rate from {RATES[0]} to {RATES[-1]} diverges on {devices}: the initialisation or "
            f"the data are unusable. Check the loss in the run directory's metrics.jsonl, and start a new run with {cure}."
        )
    return found


def choose_rate(
    task: Task,
    network: Network,
    theta: F32,
    mode: Mode,
    shots: int,
    clip: float,
    engine: Engine,
    adaptation: Adaptation = plain_adaptation,
    count: int | None = None,
) -> float:
    """The best rate of RATES for ``theta`` (best_rate).

    Raises TrainingError if every rate diverges.
    """
    found = best_rate(task, network, theta, mode, shots, clip, engine, adaptation, count=count)
    return demanded(found, task.standardisation, "the validation devices").rate


def measure(
    task: Task,
    network: Network,
    theta: F32,
    *,
    shots: tuple[int, ...],
    tasks: int,
    adapt_lr: float | None = None,
    clip: float = 0.0,
    adaptation: Adaptation = plain_adaptation,
    engine: Engine = FASTEST,
    tick: Callable[[], None] | None = None,
) -> list[Row]:
    """Rows for all modes, each of ``shots`` and each of STEPS, on ``tasks`` test devices, or as many as the data have.

    With ``adapt_lr`` None the rate is chosen on validation devices for each mode and number of shots. ``tick`` is called after
    each curve.
    """
    rows: list[Row] = []
    for shot in shots:
        episodes = task.episodes("test", tasks, shot)
        if network.embeds:
            rows += _rows(task, network, theta, episodes, "means", shot, None, b"", engine)
            if tick:
                tick()
            continue
        for mode in MODES:
            rate = adapt_lr or choose_rate(task, network, theta, mode, shot, clip, engine, adaptation)
            loop = inner_loop(mode, episodes.support.samples, max(STEPS), rate, clip, adaptation)
            rows += _rows(task, network, theta, episodes, mode, shot, rate, loop, engine)
            if tick:
                tick()
    return rows


def _rows(
    task: Task,
    network: Network,
    theta: F32,
    episodes: Episodes,
    mode: Mode,
    shots: int,
    rate: float | None,
    loop: bytes,
    engine: Engine,
) -> list[Row]:
    if network.loss is Loss.sigmoid_cross_entropy:
        return _label_rows(network, theta, episodes, mode, shots, rate, loop, engine)
    standard = task.standardisation
    at = (0,) if network.embeds else STEPS
    found = adapted(
        network, theta, episodes.support, episodes.query, at, loop,
        engine=engine, outputs=network.loss is Loss.mean_squared_error,
    )  # fmt: skip
    losses = in_units(found, episodes.query, standard)
    rows = []
    for k, steps in enumerate(at):
        loss, loss_ci95, tasks = mean_and_interval(losses[k], episodes.device)
        accuracy, accuracy_ci95 = None, None
        if network.classifies:
            accuracy, accuracy_ci95, _ = mean_and_interval(found.accuracy[k], episodes.device)
        of_values: dict[str, Any] = {}
        if found.outputs is not None and np.isfinite(loss):
            of_values = scores(found.outputs[k], episodes, standard)
        rows.append(Row(mode, shots, steps, rate, loss, loss_ci95, accuracy, accuracy_ci95, tasks, **of_values))
    return rows


def _label_rows(
    network: Network, theta: F32, episodes: Episodes, mode: Mode, shots: int, rate: float | None, loop: bytes, engine: Engine
) -> list[Row]:
    """The rows of several labels, of some episodes at a time: outputs may be many. A sample that its device repeats counts once
    in the scores."""
    losses, outputs = [], []
    at_once = max(AT_ONCE, OUTPUTS_AT_ONCE // (len(STEPS) * episodes.query.samples * network.outputs))
    for part in parts_of(episodes, at_once):
        found = core.adapt(network.plan, theta, part.support, part.query, STEPS, loop, engine=engine, outputs=True)
        assert found.outputs is not None
        losses.append(found.loss)
        outputs.append(found.outputs[:, first_of_each(part.query.rows)])
    loss_of, answers, (truth, device) = np.concatenate(losses, axis=1), np.concatenate(outputs, axis=1), truth_of(episodes)
    rows = []
    for k, steps in enumerate(STEPS):
        loss, loss_ci95, tasks = mean_and_interval(loss_of[k], episodes.device)
        labels = label_scores(answers[k], truth, device) if np.isfinite(loss) else None
        rows.append(Row(mode, shots, steps, rate, loss, loss_ci95, None, None, tasks, labels=labels))
    return rows


def parts_of(episodes: Episodes, at_once: int = AT_ONCE) -> Iterator[Episodes]:
    """``at_once`` episodes after another."""
    for first in range(0, len(episodes.device), at_once):
        yield episodes.chosen(np.arange(first, min(first + at_once, len(episodes.device))))


def truth_of(episodes: Episodes) -> tuple[NDArray[np.bool_], I32]:
    """Each query sample once: the labels that it has, (samples, labels), and its device (samples,)."""
    rows = episodes.query.rows
    once = first_of_each(rows)
    assert episodes.query.targets is not None
    return episodes.query.targets[rows[once]] > 0.5, np.repeat(episodes.device, once.sum(axis=1))


def scores(outputs: F32, episodes: Episodes, standard: Standardisation | None) -> dict[str, float | None]:
    """The mean absolute error with the half-width of its interval, in the user's units, and R² of the ``outputs`` (episodes,
    queries, outputs): both as in scikit-learn, the mean over outputs. R² is None if a target is constant."""
    query = episodes.query
    assert query.targets is not None
    truth = query.targets[query.rows].astype(np.float64)
    errors = outputs - truth
    around = ((truth - truth.mean(axis=(0, 1))) ** 2).sum(axis=(0, 1))
    r2 = float(np.mean(1 - (errors**2).sum(axis=(0, 1)) / around)) if (around > 0).all() else None
    in_units = np.abs(errors * (1.0 if standard is None else standard.target_scale))
    mae, width, _ = mean_and_interval(in_units.mean(axis=(1, 2)), episodes.device)
    return {"mae": mae, "mae_ci95": width, "r2": r2}
