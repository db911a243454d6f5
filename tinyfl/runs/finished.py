"""What is exported, and where it comes from: a finished run, or weights in an .npz file that tinyfl wrote."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyfl.config import Config
from tinyfl.errors import DataError
from tinyfl.runs.adaptation import Initialisation
from tinyfl.runs.directory import INITIALISATION, RunDirectory
from tinyfl.runs.evaluation import LEADING_STEPS
from tinyfl.runs.records import Made, checked, values
from tinyfl.system.files import read_arrays
from tinyfl.tasks import Task, load_task


@dataclass(frozen=True)
class Origin:
    """Weights with the task they were learnt on. ``run`` is None for weights apart from a run."""

    path: Path
    start: Initialisation
    task: Task
    seed: int
    config_sha256: str
    run: "Finished | None"


@dataclass(frozen=True)
class Finished:
    """A finished run: its config, its JSON, and the hash of the files that it read (empty without)."""

    config: Config
    result: dict[str, Any]
    data_sha256: str

    @property
    def row(self) -> dict[str, Any]:
        """What the run is led with where it has most shots: full-batch steps, LEADING_STEPS of them."""
        rows = [row for row in self.result["evaluation"] if (row["mode"], row["steps"]) == ("batch", LEADING_STEPS)]
        return max(rows, key=lambda row: int(row["shots"]))


def origin(run: Path, data: Path | None) -> Origin:
    """The origin at ``run``: a finished run's directory or its initialisation.npz, or another .npz file of weights. ``data`` is
    the task's file, where it needs one and no longer lies where the run had it.

    Raises RunError where there is none or the run has not finished, DataError where the data are not the run's.
    """
    start = Initialisation.load(run)
    directory = run if run.is_dir() else run.parent
    file = run / INITIALISATION if run.is_dir() else run
    made = checked(Made, values(read_arrays(file, ("seed", "config_sha256"))), file, "Take the file as tinyfl wrote it.")
    seed, config_sha256 = made.seed, made.config_sha256
    if not RunDirectory(directory).holds(file):
        return Origin(file, start, load_task(start.task, data, seed, standard=start.standard), seed, config_sha256, None)
    run_directory = RunDirectory(directory)
    config = run_directory.config()
    config = config if data is None else replace(config, data=str(data))
    task = config.load_task(start.standard)
    finished = Finished(config, run_directory.result(), _data_of_run(run_directory, config))
    return Origin(directory, start, task, seed, config_sha256, finished)


def _data_of_run(directory: RunDirectory, config: Config) -> str:
    """The hash of what the run read.

    Raises DataError where that has gone or was changed.
    """
    from tinyfl.runs.directory import data_sha256

    checkpoint = directory.checkpoint()
    try:
        found = data_sha256(config)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}, and the run read it. Put it back.") from error
    if checkpoint is not None and checkpoint.data_sha256 != found:
        raise DataError(f"{config.data}: changed since the run. Give the run's own: --data FILE.")
    return found
