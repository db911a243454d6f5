"""Evaluation where the held-out devices are on other machines, which send sums over them (tinyfl.runs.evaluation).

The rates and results are those of one process, up to the rounding of a last digit: sums are exact until a mean is made of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tinyfl import core
from tinyfl.core import F32, F64, FASTEST, Engine
from tinyfl.errors import TrainingError
from tinyfl.networks import Network
from tinyfl.runs.evaluation import (
    LEADING_STEPS,
    MODES,
    RATES,
    STEPS,
    VALIDATION_EPISODES,
    Adaptation,
    Mode,
    Row,
    finite,
    in_units,
    inner_loop,
    needs_outputs,
    trivial,
)
from tinyfl.runs.moments import Moments, device_means
from tinyfl.tasks import SPLITS, Episodes, Split, Task


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


Measured = Mapping[str, Sequence[Moments]]
"""Loss, and accuracy if the network classifies, at each checkpoint of one loop."""

Floor = tuple[str, str, Moments]
"""A method without a network, its metric, and its result."""


@runtime_checkable
class Elsewhere(Protocol):
    """A task whose held-out devices are on other machines, and are measured there. ``shared`` are the results of single devices
    that these have sent, if any did."""

    @property
    def shared(self) -> Sequence[Mapping[str, Any]]: ...

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

    def loop(mode: Mode, shots: int, passes: int, rate: float) -> bytes:
        return inner_loop(mode, shots, passes, rate, clip, adaptation)

    curves = [(mode, shot) for shot in shots for mode in MODES]
    rates = dict.fromkeys(curves, adapt_lr or 0.0)
    if not adapt_lr:
        races = [
            Trial(tuple(loop(mode, shot, LEADING_STEPS, rate) for rate in RATES), (LEADING_STEPS,), "validation",
                VALIDATION_EPISODES, shot, race=True)
            for mode, shot in curves
        ]  # fmt: skip
        for curve, results in zip(curves, task.measured(network, theta, races), strict=True):
            rates[curve] = _best_rate([_score(result, network) for result in results])
    trials = []
    for mode, shot in curves:
        chosen = loop(mode, shot, max(STEPS), rates[mode, shot])
        trials.append(Trial((chosen,), STEPS, "test", tasks, shot, mode=mode))
    rows = []
    for (mode, shot), (result,) in zip(curves, task.measured(network, theta, trials), strict=True):
        for k, steps in enumerate(STEPS):
            loss, loss_ci95, devices = result["loss"][k].mean_and_interval()
            accuracy, accuracy_ci95 = result["accuracy"][k].mean_and_interval()[:2] if network.classifies else (None, None)
            rows.append(Row(mode, shot, steps, rates[mode, shot], loss, loss_ci95, accuracy, accuracy_ci95, devices))
        tick()
    return rows


def _best_rate(scores: Sequence[float]) -> float:
    """The rate of RATES with the highest score; the lower rate on a tie.

    Raises TrainingError if every rate diverges.
    """
    best, found = -np.inf, 0.0
    for rate, score in zip(RATES, scores, strict=True):
        if score > best:
            best, found = score, rate
    if not found:
        raise TrainingError(
            f"every adaptation rate from {RATES[0]} to {RATES[-1]} diverges on the sites' validation devices: the "
            "initialisation or the data are unusable. Check the loss in the run directory's metrics.jsonl, and start a new run "
            "with a smaller --rate."
        )
    return found


def _score(result: Measured, network: Network) -> float:
    """The score of a loop in a race, the higher the better; -inf if it diverges on each episode."""
    (loss,) = result["loss"]
    if loss.lost == loss.devices:
        return -np.inf
    return result["accuracy"][0].mean if network.classifies else -loss.mean


def floor(task: Elsewhere, network: Network, *, shots: tuple[int, ...], tasks: int) -> list[dict[str, Any]]:
    """As tinyfl.runs.evaluation.floor."""
    rows = []
    none = dict.fromkeys(("loss", "loss_ci95", "accuracy", "accuracy_ci95"))
    for shot, found in zip(shots, task.floor(network, tasks, shots), strict=True):
        for method, what, moments in found:
            mean, ci95, devices = moments.mean_and_interval()
            rows.append(finite({"shots": shot, "method": method, **none, what: mean, f"{what}_ci95": ci95, "tasks": devices}))
    return rows


def measured_here(
    task: Task, network: Network, theta: F32, episodes: Episodes, trial: Trial, engine: Engine = FASTEST
) -> list[dict[str, F64]]:
    """The result of each loop of ``trial`` on ``episodes``, of this machine: loss and accuracy (checkpoints, devices), or in a
    race (checkpoints, episodes)."""
    standard = None if trial.race else task.standardisation
    device = np.arange(len(episodes.device)) if trial.race else episodes.device
    results = []
    for loop in trial.loops:
        adapted = core.adapt(
            network.plan, theta, episodes.support, episodes.query, trial.steps, loop,
            engine=engine, outputs=needs_outputs(standard),
        )  # fmt: skip
        curves = {"loss": in_units(adapted, episodes.query, standard)}
        if network.classifies:
            curves["accuracy"] = adapted.accuracy
        results.append({metric: device_means(curve, device) for metric, curve in curves.items()})
    return results


def floor_here(task: Task, network: Network, episodes: Episodes) -> list[Floor]:
    """The results without a network on ``episodes``, of this machine."""
    found = trivial(task, network, episodes)
    return [(method, what, Moments.of(device_means(values[None], episodes.device)[0])) for method, what, values in found]
