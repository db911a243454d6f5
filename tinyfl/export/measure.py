"""Measures an exported model: the same samples through the core in float32 and through each interpreter of the file."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinyfl import core
from tinyfl.core import F32
from tinyfl.errors import TrainingError
from tinyfl.export.interpreters import available
from tinyfl.networks import Network
from tinyfl.networks.layers import Loss
from tinyfl.runs.evaluation import LEADING_STEPS, Adaptation, finite, inner_loop, mean_and_interval
from tinyfl.runs.prediction import outputs_of
from tinyfl.tasks import Episodes, numbers
from tinyfl.tasks.standard import F64

METRICS = {
    Loss.softmax_cross_entropy: "accuracy",
    Loss.sigmoid_cross_entropy: "labels right",
    Loss.mean_squared_error: "mean squared error",
    Loss.prototypes: "mean squared error of embeddings",
}
CORE = "tinyfl's core"


@dataclass(frozen=True)
class Probe:
    """Weights, and samples to measure them on: ``x`` float32 (rows, *shape), the truth ``y`` float32 (rows, outputs). Probes of
    one ``device`` count as one."""

    device: int
    theta: F32
    x: F32
    y: F32


@dataclass(frozen=True)
class Measured:
    """A mean over devices with the half-width of its 95 % interval, and its ``drop`` against the core in float32 on the same
    samples, with its half-width."""

    numbers: str
    """float32 or int8."""
    by: str
    value: float
    ci95: float
    drop: float
    drop_ci95: float
    devices: int
    samples: int
    """Samples per device."""

    def as_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return finite(asdict(self))


def probes(
    network: Network, theta: F32, episodes: Episodes, rate: float, clip: float, adaptation: Adaptation
) -> tuple[list[Probe], list[Probe]]:
    """Probes on the query sets of ``episodes``: with ``theta`` itself, and after LEADING_STEPS full-batch steps on each support
    set.

    Raises TrainingError if a device diverges.
    """
    adapted = core.adapt(
        network.plan,
        theta,
        episodes.support,
        episodes.query,
        (0, LEADING_STEPS),
        inner_loop("batch", episodes.support.samples, LEADING_STEPS, rate, clip, adaptation),
        weights=True,
    )
    assert adapted.weights is not None
    if not np.isfinite(adapted.loss).all():
        diverged = int((~np.isfinite(adapted.loss[-1])).sum())
        raise TrainingError(
            f"adaptation diverged at rate {rate:g} on {diverged:,} of {len(episodes.device):,} devices; nothing was written. "
            "Start a run with a smaller --adapt-lr, or a --clip."
        )
    count = len(episodes.device)
    x, y = core.samples(episodes.query, network.plan, numbers(0, count), 0, episodes.query.samples)
    x = x.reshape(count, -1, *network.shape)
    cases = list(zip(episodes.device.tolist(), adapted.weights, x, y, strict=True))
    return [Probe(d, theta, a, b) for d, _, a, b in cases], [Probe(*case) for case in cases]


def imitation(network: Network, theta: F32, x: F32) -> Probe:
    """A probe with the core's float32 outputs as truth, for weights without other truth."""
    y = outputs_of(network, theta, x)
    return Probe(0, theta, x, (y > 0).astype(np.float32) if network.loss is Loss.sigmoid_cross_entropy else y)


def measure(
    network: Network,
    chosen: Sequence[Probe],
    models: Callable[[F32], dict[str, bytes]],
    tick: Callable[[], None],
    unit: F64 | float = 1.0,
) -> list[Measured]:
    """Measures the core in float32, and each file of ``models`` (from a theta to files by "float32" or "int8") in each
    interpreter: one row each. ``tick`` is called after each probe. ``unit`` scales outputs for errors: one value, or one per
    output."""
    scores: dict[tuple[str, str], list[float]] = {}
    for probe in chosen:
        outputs = {("float32", CORE): outputs_of(network, probe.theta, probe.x)}
        for kind, model in models(probe.theta).items():
            runs, _ = available(int8=kind == "int8")
            outputs |= {(kind, name): run(model, probe.x) for name, run in runs.items()}
        for key, y in outputs.items():
            scores.setdefault(key, []).append(_score(network.loss, y, probe.y, unit))
        tick()
    device = np.array([probe.device for probe in chosen])
    own = np.array(scores["float32", CORE])
    sign = -1 if network.loss in (Loss.mean_squared_error, Loss.prototypes) else 1
    return [_row(*key, np.array(each), sign * (own - each), device, len(chosen[0].x)) for key, each in scores.items()]


def _row(kind: str, by: str, values: Any, drops: Any, device: Any, samples: int) -> Measured:
    device = np.unique(device, return_inverse=True)[1]
    value, ci95, count = mean_and_interval(values, device)
    drop, drop_ci95, _ = mean_and_interval(drops, device)
    return Measured(kind, by, value, ci95, drop, drop_ci95, count, samples)


def _score(loss: Loss, y: F32, truth: F32, unit: F64 | float) -> float:
    if loss is Loss.softmax_cross_entropy:
        return float((y.argmax(axis=1) == truth.argmax(axis=1)).mean())
    if loss is Loss.sigmoid_cross_entropy:
        return float(((y > 0) == (truth > 0.5)).mean())
    return float(((unit * (y - truth)) ** 2).mean(dtype=np.float64))
