"""The origin of an export: a finished run, or an .npz file of weights written by tinyfl."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyfl.config import Config
from tinyfl.data.words import named
from tinyfl.errors import ConfigError, DataError
from tinyfl.registry.own import own_code
from tinyfl.runs.adaptation import Initialisation, adaptation_of, file_of
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.evaluation import Adaptation, leads
from tinyfl.runs.extensions import with_code
from tinyfl.runs.provenance import config_of, seed_and_hash
from tinyfl.tasks import NamedTask, Task, load_task


@dataclass(frozen=True)
class Origin:
    """Weights and the task they were learnt on. ``run`` is None for weights outside a run directory."""

    path: Path
    start: Initialisation
    task: Task
    seed: int
    config_sha256: str
    run: "Finished | None"
    adaptation: Adaptation


@dataclass(frozen=True)
class Finished:
    """A finished run: its config, its JSON, and the hash of its data file (empty without one)."""

    config: Config
    result: dict[str, Any]
    data_sha256: str

    @property
    def row(self) -> dict[str, Any]:
        """The row for the most shots that reports lead with."""
        rows = [row for row in self.result["evaluation"] if leads(row)]
        return max(rows, key=lambda row: int(row["shots"]))


def origin(run: Path, data: Path | None, task: Any = None, algorithm: Any = None) -> Origin:
    """Reads the origin at ``run``: a finished run's directory or its initialisation.npz, or another .npz file of weights.
    ``data`` is the path of the task's file if it has moved since the run; ``task`` and ``algorithm`` are the run's own, given
    again.

    Raises RunError if there is none or the run has not finished, DataError if the data are not the run's.
    """
    start = Initialisation.load(run)
    file = file_of(run)
    directory = file.parent
    seed, config_sha256 = seed_and_hash(file)
    adaptation = adaptation_of(file, start, algorithm)
    config = config_of(file)
    if config is None:
        named = start.task if task is None else own_code({"task": task})["task"]
        return Origin(file, start, load_task(named, data, seed, standard=start.standard), seed, config_sha256, None, adaptation)
    config = with_code(config, task=task)
    config = config if data is None else replace(config, data=str(data))
    loaded = config.load_task(start.standard)
    run_directory = RunDirectory(directory)
    if not run_directory.holds(file):
        return Origin(file, start, loaded, seed, config_sha256, None, adaptation)
    finished = Finished(config, run_directory.result(), demand_data(run_directory, config))
    return Origin(directory, start, loaded, seed, config_sha256, finished, adaptation)


def test_device(task: Task, device: int | str, count: int, option: str) -> tuple[int, str]:
    """The number of one of the ``count`` test devices of ``task``, which is given by its number or its name, and its name.

    Raises ConfigError, with the ``option``, if there is none.
    """
    names = [str(name) for name in task.device_names("test")] if isinstance(task, NamedTask) else []
    try:
        number = int(device)
    except ValueError:
        number = names.index(str(device)) if device in names else -1
    if not 0 <= number < count:
        called = f", called {named(names)}" if names else ""
        raise ConfigError(f"{option} {device}: there are test devices 0 to {count - 1:,}{called}. Give one of them.")
    return number, names[number] if names else f"{number:,}"


def demand_data(directory: RunDirectory, config: Config) -> str:
    """The hash of the run's data file; empty without one.

    Raises DataError if the file is missing or has changed. A run of sites takes any file: it has none of its own.
    """
    from tinyfl.runs.hashes import data_sha256

    checkpoint = directory.checkpoint()
    try:
        found = data_sha256(config)
    except OSError as error:
        raise DataError(
            f"{error.filename}: {error.strerror}; the run was trained on this file. Put it back, or give --data its new path."
        ) from error
    if checkpoint is not None and checkpoint.data_sha256 != found and not checkpoint.sites_sha256:
        raise DataError(f"{config.data} was changed since the run. Give the run's own file: --data FILE.")
    return found
