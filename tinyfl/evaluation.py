"""How well an initialisation adapts: loss and accuracy on unseen devices after a few steps on their support sets.

Two modes, each with its own adaptation rate: ``batch`` (a step = one full-batch step on the support set) and ``stream`` (a
step = one pass over it, sample by sample). Rates are chosen on validation devices, for every initialisation by itself.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.algorithms import nearest_mean
from tinyfl.core import F32, FASTEST, Engine
from tinyfl.errors import TrainingError
from tinyfl.networks import Network
from tinyfl.tasks import Episodes, Task

Mode = Literal["batch", "stream"]

MODES: tuple[Mode, ...] = ("batch", "stream")
STEPS = (0, 1, 5, 10, 32)
LEADING_STEPS = 10
"""Rates are chosen for the result after this many steps, and reports lead with it."""

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
VALIDATION_EPISODES = 200


@dataclass(frozen=True)
class Row:
    """One measurement: the mean over ``tasks`` devices and the half-width of its 95 % interval. ``accuracy`` is None for
    regression; a loss is infinite where a device diverged. ``shots`` as asked for, ``steps`` taken at rate ``adapt_lr``."""

    mode: Mode
    shots: int
    steps: int
    adapt_lr: float
    loss: float
    loss_ci95: float
    accuracy: float | None
    accuracy_ci95: float | None
    tasks: int

    def as_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return finite(asdict(self))


def finite(data: dict[str, Any]) -> dict[str, Any]:
    """``data`` with None, which JSON has, for floats that are not finite."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in data.items()}


def mean_and_interval(values: F32, device: NDArray[np.integer[Any]]) -> tuple[float, float, int]:
    """The mean over devices of each device's mean, the half-width of its 95 % interval (Student's t), and the devices.

    values (episodes,), device (episodes,). The half-width is nan for a single device.
    """
    from scipy.stats import t

    count = np.bincount(device)
    of_device = np.bincount(device, weights=values.astype(np.float64)) / count
    n = len(of_device)
    if n < 2 or not np.isfinite(of_device).all():
        return float(of_device.mean()), float("nan"), n
    return float(of_device.mean()), float(t.ppf(0.975, n - 1) * of_device.std(ddof=1) / np.sqrt(n)), n


def choose_rate(task: Task, network: Network, theta: F32, mode: Mode, shots: int, clip: float, engine: Engine) -> float:
    """The rate of RATES that serves ``theta`` best on validation devices after LEADING_STEPS: by accuracy where the task has
    it, by loss where not; the lower rate where two are equal.

    Raises TrainingError if every rate diverges.
    """
    episodes = task.episodes("validation", VALIDATION_EPISODES, shots)
    best, chosen = -np.inf, 0.0
    for rate in RATES:
        adapted = core.adapt(
            network.plan, theta, episodes.support, episodes.query, (LEADING_STEPS,),
            stream=mode == "stream", rate=rate, clip=clip, engine=engine,
        )  # fmt: skip
        score = float(adapted.accuracy.mean(dtype=np.float64) if network.classifies else -adapted.loss.mean(dtype=np.float64))
        if score > best and np.isfinite(adapted.loss).any():
            best, chosen = score, rate
    if not chosen:
        raise TrainingError(
            f"every adaptation rate from {RATES[0]} to {RATES[-1]} diverges on the validation devices: the initialisation or "
            "the data are not usable. Look at the loss in the run directory's metrics.jsonl; lower --inner-lr."
        )
    return chosen


def measure(
    task: Task,
    network: Network,
    theta: F32,
    *,
    shots: tuple[int, ...],
    tasks: int,
    adapt_lr: float | None = None,
    clip: float = 0.0,
    engine: Engine = FASTEST,
    tick: Callable[[], None] | None = None,
) -> list[Row]:
    """Rows for both modes, each of ``shots`` and each of STEPS on ``tasks`` test devices (fewer where the data have fewer).

    ``adapt_lr`` None: chosen on validation devices for each mode and number of shots. ``tick`` is called after each curve.
    """
    rows: list[Row] = []
    for shot in shots:
        episodes = task.episodes("test", tasks, shot)
        for mode in MODES:
            rate = adapt_lr or choose_rate(task, network, theta, mode, shot, clip, engine)
            rows += _rows(network, theta, episodes, mode, shot, rate, clip, engine)
            if tick:
                tick()
    return rows


def _rows(
    network: Network, theta: F32, episodes: Episodes, mode: Mode, shots: int, rate: float, clip: float, engine: Engine
) -> list[Row]:
    adapted = core.adapt(
        network.plan, theta, episodes.support, episodes.query, STEPS,
        stream=mode == "stream", rate=rate, clip=clip, engine=engine,
    )  # fmt: skip
    rows = []
    for k, steps in enumerate(STEPS):
        loss, loss_ci95, tasks = mean_and_interval(adapted.loss[k], episodes.device)
        accuracy, accuracy_ci95 = None, None
        if network.classifies:
            accuracy, accuracy_ci95, _ = mean_and_interval(adapted.accuracy[k], episodes.device)
        rows.append(Row(mode, shots, steps, rate, loss, loss_ci95, accuracy, accuracy_ci95, tasks))
    return rows


def floor(task: Task, network: Network, *, shots: tuple[int, ...], tasks: int) -> list[dict[str, Any]]:
    """Nearest class mean on the raw inputs of the same episodes; empty for regression."""
    if not network.classifies:
        return []
    rows = []
    for shot in shots:
        episodes = task.episodes("test", tasks, shot)
        support, query = episodes.support, episodes.query
        assert support.labels is not None
        assert query.labels is not None
        gain = np.float32(1) if support.gain is None else support.gain[:, None, None]
        right = nearest_mean.accuracy(
            gain * support.table[support.rows], support.labels, gain * query.table[query.rows], query.labels, network.outputs
        )
        accuracy, accuracy_ci95, devices = mean_and_interval(right, episodes.device)
        rows.append(finite({"shots": shot, "accuracy": accuracy, "accuracy_ci95": accuracy_ci95, "tasks": devices}))
    return rows
