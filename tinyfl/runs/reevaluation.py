"""A finished run evaluated again: with other shots, on other devices or other data. The run itself stays as it is."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyfl.config import Config, resolve
from tinyfl.data.frames import on_disk
from tinyfl.errors import RunError
from tinyfl.networks import INITIALISATION
from tinyfl.registry.shown import shots_of
from tinyfl.runs import evaluation, floors
from tinyfl.runs.adaptation import Initialisation, adaptation_of, file_of
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.evaluation import Adaptation
from tinyfl.runs.extensions import with_code
from tinyfl.runs.finished import demand_data
from tinyfl.runs.hashes import theta_sha256
from tinyfl.runs.learner import refuse_misfit
from tinyfl.runs.per_device import by_device
from tinyfl.tasks import Task


def evaluate(
    run: os.PathLike[str] | str,
    *,
    shots: Sequence[int] | None = None,
    tasks: int | None = None,
    data: Any = None,
    adapt_lr: float | None = None,
    task: Any = None,
    algorithm: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Evaluates the theta of the finished ``run``, a Run, its directory or its initialisation.npz, as a run does at its end.
    What is None is as in the run; ``adapt_lr`` 0 chooses the rates on validation devices. Other ``data``, a path, a frame or a
    dict of arrays, are standardised like the run's, and divided into devices as for a run on them. ``task`` and ``algorithm``
    are the run's own code, given again.

    Returns the rows of the evaluation and of its floor, and each device's result, as plain data; nothing is written.
    ``progress`` receives the curves done and their number.
    Raises RunError if the run has not finished, DataError if the data do not fit it, ConfigError for settings out of range.
    """
    given = {"shots": shots, "tasks": tasks, "adapt_lr": adapt_lr}
    if data is None:
        return _evaluated(Path(run), given, task, algorithm, progress)
    with on_disk(data) as file:
        result = _evaluated(Path(run), {**given, "data": str(file)}, task, algorithm, progress)
    return result if isinstance(data, str | os.PathLike) else {**result, "data": None}


def _evaluated(
    path: Path, given: Mapping[str, Any], task: Any, algorithm: Any, progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    start = Initialisation.load(path)
    file = file_of(path)
    directory = RunDirectory(file.parent)
    if not directory.holds(file):
        raise RunError(f"{path} is no finished run. Give a run's directory, or the {INITIALISATION} in it.")
    config = with_code(directory.config(), task=task, algorithm=algorithm)
    config = resolve({**config.as_options(), **{key: value for key, value in given.items() if value is not None}})
    if "data" not in given:
        demand_data(directory, config)
    loaded, how = config.load_task(start.standard), adaptation_of(file, start, algorithm)
    refuse_misfit(start.network, loaded, str(path))
    result = {
        "run": str(path),
        "task": config.task,
        "network": start.network.name,
        "data": config.data,
        "shots_of": shots_of(config.task, loaded),
        "theta_sha256": theta_sha256(start.theta),
        **_measured(start, loaded, config, how, progress),
    }
    return {**result, "worse_than_floor": floors.worse_than_floor(result)}


def _measured(
    start: Initialisation, task: Task, config: Config, how: Adaptation, progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    """The evaluation, its floor, and each device's result."""
    curves, done = len(config.shots) * len(evaluation.modes_of(start.network)), 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, curves)

    net, theta, tasks = start.network, start.theta, config.tasks
    rows = evaluation.measure(
        task, net, theta, shots=config.shots, tasks=tasks, adapt_lr=config.adapt_lr or None, clip=start.clip, adaptation=how,
        tick=tick,
    )  # fmt: skip
    devices = by_device(task, net, theta, rows, tasks=tasks, clip=start.clip, adaptation=how)
    floor = floors.floor(task, net, shots=config.shots, tasks=tasks)
    return {"evaluation": [row.as_json() for row in rows], "floor": floor, **devices}
