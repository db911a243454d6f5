"""Evaluation where the held-out devices are on other machines, which send sums over them (tinyfl.runs.evaluation).

The rates and results are those of one process, up to the rounding of a last digit: sums are exact until a mean is made of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tinyfl.core import F32, F64, FASTEST
from tinyfl.networks import Network
from tinyfl.networks.layers import Loss
from tinyfl.runs.adapted import adapted
from tinyfl.runs.evaluation import (
    LEADING_STEPS,
    MODES,
    RATES,
    STEPS,
    VALIDATION_EPISODES,
    Adaptation,
    Mode,
    Row,
    Tried,
    best_of,
    demanded,
    device_means,
    finite,
    in_units,
    inner_loop,
)
from tinyfl.runs.floors import trivial
from tinyfl.runs.moments import Moments, Values
from tinyfl.tasks import SPLITS, Episodes, Split, Task
from tinyfl.tasks.standard import Standardisation


@dataclass(frozen=True)
class Trial:
    """A measurement: adaptations by each of ``loops``, records of inner loops (tinyfl.algorithms.Inner), with results after
    each of ``steps`` passes over the ``shots``, on up to ``count`` devices held out for ``split``. With ``race`` it is for
    choosing among the loops: each episode counts, with the loss that the network learns by. ``mode`` is for people."""

    loops: tuple[bytes, ...]
    steps: tuple[int, ...]
    split: Split
    count: int
    shots: int
    race: bool = False
    mode: str = ""


@dataclass(frozen=True)
class Measured:
    """The result of one loop at each checkpoint: the ``curves`` of the loss, and of accuracy or the mean absolute error; and
    for values what R² is made of."""

    curves: Mapping[str, Sequence[Moments]]
    values: Sequence[Values] = ()


METRICS = ("accuracy", "mae")
"""What is measured beside the loss: of classes, and of values."""

Floor = tuple[str, str, Moments]
"""A method without a network, its metric, and its result."""


@runtime_checkable
class Elsewhere(Protocol):
    """A task whose held-out devices are on other machines, and are measured there. ``shared`` are the results of single devices
    that these have sent, if any did."""

    @property
    def shared(self) -> Sequence[Mapping[str, Any]]: ...

    @property
    def standardisation(self) -> Standardisation | None: ...

    @property
    def digest(self) -> str:
        """A hash of the data on all machines."""

    def demand(self, split: Split, count: int, shots: int) -> None:
        """Raises DataError if a device has too few samples for the shots."""

    def measured(self, network: Network, theta: F32, trials: Sequence[Trial]) -> Sequence[Sequence[Measured]]:
        """The result of each loop of each of ``trials``, over all machines."""

    def floor(self, network: Network, count: int, shots: Sequence[int]) -> Sequence[Sequence[Floor]]:
        """For each of ``shots`` the results without a network, on up to ``count`` test devices of all machines."""


def demand_episodes(task: Task, count: int, shots: int) -> None:
    """Raises DataError if a held-out device has too few samples for the shots."""
    for split in SPLITS:
        if isinstance(task, Elsewhere):
            task.demand(split, count, shots)
        else:
            task.episodes(split, count, shots)


def measure(
    task: Elsewhere,
    network: Network,
    theta: F32,
    *,
    shots: tuple[int, ...],
    tasks: int,
    adapt_lr: float | None,
    clip: float,
    adaptation: Adaptation,
    tick: Callable[[], None],
) -> list[Row]:
    """As tinyfl.runs.evaluation.measure."""
    curves = [(mode, shot) for shot in shots for mode in MODES]
    rates = dict.fromkeys(curves, adapt_lr or 0.0)
    if not adapt_lr:
        races = [_race(mode, shot, clip, adaptation, RATES) for mode, shot in curves]
        for curve, results in zip(curves, task.measured(network, theta, races), strict=True):
            rates[curve] = demanded(_best(RATES, results, network), task.standardisation, "the sites' validation devices").rate
    trials = []
    for mode, shot in curves:
        chosen = inner_loop(mode, shot, max(STEPS), rates[mode, shot], clip, adaptation)
        trials.append(Trial((chosen,), STEPS, "test", tasks, shot, mode=mode))
    rows = []
    for (mode, shot), (result,) in zip(curves, task.measured(network, theta, trials), strict=True):
        for k, steps in enumerate(STEPS):
            loss, loss_ci95, devices = result.curves["loss"][k].mean_and_interval()
            further: dict[str, Any] = {"accuracy": None, "accuracy_ci95": None}
            for metric in result.curves.keys() & (METRICS if np.isfinite(loss) else {"accuracy"}):
                further[metric], further[f"{metric}_ci95"], _ = result.curves[metric][k].mean_and_interval()
            if result.values and np.isfinite(loss):
                further["r2"] = result.values[k].r2
            rows.append(Row(mode, shot, steps, rates[mode, shot], loss, loss_ci95, tasks=devices, **further))
        tick()
    return rows


def best_rate(
    task: Elsewhere,
    network: Network,
    theta: F32,
    mode: Mode,
    shots: int,
    clip: float,
    adaptation: Adaptation,
    rates: Sequence[float] | None = None,
) -> Tried | None:
    """As tinyfl.runs.evaluation.best_rate."""
    rates = RATES if rates is None else rates
    (results,) = task.measured(network, theta, [_race(mode, shots, clip, adaptation, rates)])
    return _best(rates, results, network)


def spread(
    task: Task | Elsewhere, network: Network, theta: F32, shots: int, rate: float, clip: float, adaptation: Adaptation
) -> Moments:
    """The accuracy, for values the loss, of each validation device after LEADING_STEPS full-batch steps at ``rate``, wherever
    the devices are."""

    def trial(samples: int) -> Trial:
        loop = inner_loop("batch", samples, LEADING_STEPS, rate, clip, adaptation)
        return Trial((loop,), (LEADING_STEPS,), "validation", VALIDATION_EPISODES, shots, mode="batch")

    if isinstance(task, Elsewhere):
        ((found,),) = task.measured(network, theta, [trial(shots)])
    else:
        episodes = task.episodes("validation", VALIDATION_EPISODES, shots)
        found = measured_here(task, network, theta, episodes, trial(episodes.support.samples))[0].summed()
    return found.curves["accuracy" if network.classifies else "loss"][0]


def _race(mode: Mode, shots: int, clip: float, adaptation: Adaptation, rates: Sequence[float]) -> Trial:
    """The trial of each of ``rates`` on validation devices."""
    loops = tuple(inner_loop(mode, shots, LEADING_STEPS, rate, clip, adaptation) for rate in rates)
    return Trial(loops, (LEADING_STEPS,), "validation", VALIDATION_EPISODES, shots, race=True)


def _best(rates: Sequence[float], results: Sequence[Measured], network: Network) -> Tried | None:
    """The best of ``rates`` by its result. None if every rate diverges."""
    tried = []
    for rate, result in zip(rates, results, strict=True):
        loss = result.curves["loss"][0]
        if loss.lost < loss.devices:
            accuracy = result.curves["accuracy"][0].mean if network.classifies else float("nan")
            tried.append(Tried(rate, loss.mean, accuracy))
    return best_of(tried, network)


def floor(task: Elsewhere, network: Network, *, shots: tuple[int, ...], tasks: int) -> list[dict[str, Any]]:
    """As tinyfl.runs.floors.floor."""
    rows = []
    none = dict.fromkeys(("loss", "loss_ci95", "accuracy", "accuracy_ci95"))
    for shot, found in zip(shots, task.floor(network, tasks, shots), strict=True):
        for method, what, moments in found:
            mean, ci95, devices = moments.mean_and_interval()
            rows.append(finite({"shots": shot, "method": method, **none, what: mean, f"{what}_ci95": ci95, "tasks": devices}))
    return rows


@dataclass(frozen=True)
class Here:
    """The result of one loop on this machine: its ``curves`` (checkpoints, devices), or in a race (checkpoints, episodes), and
    the values of each checkpoint."""

    curves: Mapping[str, F64]
    values: Sequence[Values] = ()

    def summed(self) -> Measured:
        """What may leave this machine."""
        return Measured({metric: [Moments.of(row) for row in curve] for metric, curve in self.curves.items()}, self.values)


def measured_here(task: Task, network: Network, theta: F32, episodes: Episodes, trial: Trial) -> list[Here]:
    """The result of each loop of ``trial`` on ``episodes``, of this machine."""
    standard = None if trial.race else task.standardisation
    device = np.arange(len(episodes.device)) if trial.race else episodes.device
    with_values = network.loss is Loss.mean_squared_error and not trial.race
    results = []
    for loop in trial.loops:
        found = adapted(
            network, theta, episodes.support, episodes.query, trial.steps, loop, engine=FASTEST, outputs=with_values
        )
        curves, values = {"loss": in_units(found, episodes.query, standard)}, list[Values]()
        if network.classifies:
            curves["accuracy"] = found.accuracy
        if found.outputs is not None and episodes.query.targets is not None:
            truth = episodes.query.targets[episodes.query.rows].astype(np.float64)
            scale = 1.0 if standard is None else standard.target_scale
            curves["mae"] = np.abs((found.outputs - truth) * scale).mean(axis=(2, 3))
            flat = truth.reshape(-1, network.outputs)
            values = [Values.of(each.reshape(-1, network.outputs), flat) for each in found.outputs]
        results.append(Here({metric: device_means(curve, device) for metric, curve in curves.items()}, values))
    return results


def floor_here(task: Task, network: Network, episodes: Episodes) -> list[Floor]:
    """The results without a network on ``episodes``, of this machine."""
    found = trivial(task, network, episodes)
    return [(method, what, Moments.of(device_means(values[None], episodes.device)[0])) for method, what, values in found]
