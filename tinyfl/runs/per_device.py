"""Who does badly: each test device's result, and which classes are taken for which."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F32, FASTEST, Engine
from tinyfl.errors.words import plain
from tinyfl.networks import Network
from tinyfl.runs.adapted import adapted
from tinyfl.runs.evaluation import (
    LEADING_STEPS,
    STEPS,
    Adaptation,
    Row,
    device_means,
    finite,
    in_units,
    inner_loop,
    needs_outputs,
    plain_adaptation,
)
from tinyfl.tasks import NamedTask, Task

MAX_NAMED, MAX_NUMBERED = 10_000, 20
"""Maximum number of devices listed: those with names of the user's, and those that a task makes up."""

MAX_CLASSES = 100
"""Maximum number of classes of a confusion matrix."""

AT_ONCE = 256
"""Episodes whose outputs are in memory at once."""

NAME_CHARS = 80


def by_device(
    task: Task,
    network: Network,
    theta: F32,
    rows: Sequence[Row],
    *,
    tasks: int,
    clip: float = 0.0,
    adaptation: Adaptation = plain_adaptation,
    engine: Engine = FASTEST,
) -> dict[str, Any]:
    """The result of each test device before and after LEADING_STEPS full-batch steps, both by class means where devices adapt
    so; worst first, as plain data. For classes of the user's also the confusion matrix over all their answers afterwards. Shots
    and rate are those of the first such row of the evaluation, ``rows``.

    A device's figures are means over its draws, as in the evaluation; a loss is None if one of them diverged, and the matrix
    leaves those out.
    """
    lead = next(row for row in rows if row.mode in ("batch", "means"))
    shots = lead.shots
    episodes = task.episodes("test", tasks, shots)
    classes = task.standardisation.classes if task.standardisation is not None and network.classifies else np.empty(0)
    confused = np.zeros((len(classes), len(classes)), np.int64) if 0 < len(classes) <= MAX_CLASSES else None
    loop, steps = b"", 0
    if lead.adapt_lr is not None:
        loop, steps = inner_loop("batch", episodes.support.samples, max(STEPS), lead.adapt_lr, clip, adaptation), LEADING_STEPS
    losses, accuracies = [], []
    for first in range(0, len(episodes.device), AT_ONCE):
        part = episodes.chosen(np.arange(first, min(first + AT_ONCE, len(episodes.device))))
        found = adapted(
            network, theta, part.support, part.query, (0, steps), loop,
            outputs=confused is not None or needs_outputs(task.standardisation), engine=engine,
        )  # fmt: skip
        losses.append(in_units(found, part.query, task.standardisation))
        accuracies.append(found.accuracy)
        if confused is not None:
            assert found.outputs is not None
            assert part.query.labels is not None
            whole = np.isfinite(found.loss[1])
            np.add.at(confused, (part.query.labels[whole], found.outputs[1, whole].argmax(axis=-1)), 1)
    loss, accuracy = np.concatenate(losses, axis=1), np.concatenate(accuracies, axis=1) if network.classifies else None
    result = {"per_device": {"shots": shots, "steps": steps, **_devices(task, episodes.device, loss, accuracy)}}
    if confused is not None:
        names = [plain(name, NAME_CHARS) for name in classes]
        result["confusion"] = {"shots": shots, "steps": steps, "classes": names, "counts": confused.tolist()}
    return result


def _devices(
    task: Task, device: NDArray[np.integer[Any]], loss: NDArray[np.floating[Any]], accuracy: NDArray[np.floating[Any]] | None
) -> dict[str, Any]:
    """The number of devices and the worst of them, from the figures of the draws (before and after, draws)."""
    draws, losses = np.bincount(device), device_means(loss, device)
    accuracies = None if accuracy is None else device_means(accuracy, device)
    names = task.device_names("test") if isinstance(task, NamedTask) else None
    # Worst first: by accuracy where there is one, then by loss, then in their order.
    worst = np.lexsort((-losses[1],) if accuracies is None else (-losses[1], accuracies[1]))

    def figures(index: int, when: int) -> dict[str, Any]:
        reached = None if accuracies is None else float(accuracies[when][index])
        return finite({"loss": float(losses[when][index]), "accuracy": reached})

    rows = [
        {
            "device": plain(names[index], NAME_CHARS) if names else str(index),
            "draws": int(draws[index]),
            "before": figures(index, 0),
            "after": figures(index, 1),
        }
        for index in worst[: MAX_NAMED if names else MAX_NUMBERED].tolist()
    ]
    return {"number": len(draws), "devices": rows}
