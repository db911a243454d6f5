"""A finished run: the evaluation of what it learnt, its files and its report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinyfl.core import F32
from tinyfl.costs import bytes_of_run
from tinyfl.errors import InstallError
from tinyfl.flower.lines import as_json
from tinyfl.flower.rounds import Outcome, Progress
from tinyfl.flower.staleness import late_figures
from tinyfl.networks import Network, starts_from
from tinyfl.registry.shown import shots_of
from tinyfl.report.verdict import verdict
from tinyfl.runs import elsewhere, evaluation, floors
from tinyfl.runs.directory import DEVICES, RunDirectory
from tinyfl.runs.elsewhere import Elsewhere
from tinyfl.runs.evaluation import Row
from tinyfl.runs.hashes import theta_sha256
from tinyfl.runs.per_device import by_device
from tinyfl.runs.tables import as_csv, evaluation_rows, joined, line_of
from tinyfl.simulation.job import Job
from tinyfl.system.version import version
from tinyfl.tasks.standard import Standardisation


@dataclass(frozen=True)
class Run:
    """A finished run: its directory, absolute, its JSON, and the initialisation theta, float32 (parameters,)."""

    path: Path
    result: dict[str, Any] = field(hash=False)
    theta: F32 = field(compare=False)  # its hash is in the result

    def __fspath__(self) -> str:
        """Its directory, so that whatever takes a run's directory takes the run."""
        return str(self.path)

    @property
    def evaluation(self) -> list[dict[str, Any]]:
        return list(self.result["evaluation"])

    @property
    def baseline(self) -> list[dict[str, Any]]:
        return list(self.result["baseline"])

    def frame(self) -> Any:
        """Evaluation and baseline as one pandas.DataFrame: in its column ``weights`` "learnt" and "start".

        Raises InstallError without pandas.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise InstallError(
                "a frame needs pandas: pip install pandas. Without it: run.evaluation and run.baseline."
            ) from error
        return DataFrame(evaluation_rows(self.result))


def _evaluate(job: Job, learners: dict[str, tuple[Network, F32]]) -> dict[str, list[Row]]:
    """The rows of each network with its weights, all on the same episodes."""
    curves = len(learners) * len(evaluation.modes_of(job.result)) * len(job.config.shots)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        job.progress(Progress("evaluating", done, curves))

    job.progress(Progress("evaluating", 0, curves))
    config, task = job.config, job.task
    settings: dict[str, Any] = {
        "shots": config.shots,
        "tasks": config.tasks,
        "adapt_lr": config.adapt_lr or None,
        "clip": config.clip,
        "adaptation": job.algorithm.adaptation,
        "tick": tick,
    }
    if isinstance(task, Elsewhere):
        return {name: elsewhere.measure(task, *learner, **settings) for name, learner in learners.items()}
    return {name: evaluation.measure(task, *learner, engine=job.engine, **settings) for name, learner in learners.items()}


def _floor(job: Job) -> list[dict[str, Any]]:
    settings: dict[str, Any] = {"shots": job.config.shots, "tasks": job.config.tasks}
    if isinstance(job.task, Elsewhere):
        return elsewhere.floor(job.task, job.result, **settings)
    return floors.floor(job.task, job.result, **settings)


def _result(job: Job, outcome: Outcome, rows: dict[str, list[Row]], boards: list[dict[str, Any]], whole: int) -> dict[str, Any]:
    """The JSON of a run, with ``whole`` device-rounds of devices that were not in the round before."""
    config, net = job.config, job.network
    inner = job.algorithm.inner(0)
    rounds, validation = outcome.state.round, outcome.validation
    device_rounds = rounds * config.per_round
    return {
        "task": config.task,
        "algorithm": config.algorithm,
        "network": net.name,
        "parameters": net.parameters,
        "devices": config.devices,
        "cohort": config.cohort,
        "rounds": rounds,
        "device_rounds": device_rounds,
        "device_rounds_per_s": device_rounds / outcome.seconds,
        "seconds": outcome.seconds,
        "sample_gradients": device_rounds * inner.total,
        "seed": config.seed,
        "start": starts_from(config.network),
        "notes": [*job.notes, *validation.words(config.rounds, rounds)],
        "classes": [str(each) for each in job.task.standardisation.classes] if job.task.standardisation else [],
        **bytes_of_run(net, inner, job.down, device_rounds, whole),
        "device_ram_bytes": net.ram_bytes(inner) + job.down.held_bytes,
        "samples_held": inner.held,
        "local": _local(job),
        "left_out": dict(outcome.left_out),
        "failed": dict(outcome.failed),
        "privacy": dict(outcome.privacy) if outcome.privacy else None,
        "boards": boards,
        "theta_sha256": theta_sha256(outcome.state.theta[: job.result.parameters]),
        "config_sha256": config.sha256(),
        "tinyfl": version(),
        "evaluation": [row.as_json() for row in rows["learnt"]],
        "baseline": [row.as_json() for row in rows["start"]],
        **validation.as_json(),
        "floor": _floor(job),
    }


def _local(job: Job) -> list[str]:
    """The layers that stay on each device."""
    local = job.algorithm.inner(0).local
    return [layer.name for layer in job.network.weighted_layers if local & layer.bit]


def _by_device(job: Job, net: Network, theta: F32, rows: list[Row]) -> dict[str, Any]:
    """Each test device's result, at the rate of the leading row; nothing where the devices are elsewhere."""
    if isinstance(job.task, Elsewhere):
        return {}
    config = job.config
    return by_device(
        job.task, net, theta, rows, tasks=config.tasks, clip=config.clip, adaptation=job.algorithm.adaptation,
        engine=job.engine,
    )  # fmt: skip


def finished(
    directory: RunDirectory, job: Job, net: Network, theta: F32, outcome: Outcome, boards: list[dict[str, Any]]
) -> Run:
    """Evaluates ``net`` with ``theta``, and writes initialisation.npz and result.json."""
    rows = _evaluate(job, {"learnt": (net, theta), "start": job.without_head(job.start)})
    result = {
        **_result(job, outcome, rows, boards, sum(joined(directory)) if job.config.delta else 0),
        "line": as_json(line_of(directory)) if boards else {},
        **(late_figures(directory, job.config, boards) if job.config.buffer else {"staleness": []}),
        "run": str(directory.name),
        "shots_of": shots_of(job.config.task, job.task),
        **_by_device(job, net, theta, rows["learnt"]),
    }
    result["worse_than_floor"] = floors.worse_than_floor(result)
    result["verdict"] = verdict(result, job.config)
    standard = job.task.standardisation or Standardisation.none(net.inputs, net.outputs)
    directory.save_initialisation(
        theta=theta,
        network=net.name,
        task=job.config.task,
        plan=np.frombuffer(net.plan.bytes, np.uint8),
        shape=np.array(net.shape),
        seed=job.config.seed,
        clip=job.config.clip,
        adaptation=job.config.algorithm if job.algorithm.adapts else "",
        local=", ".join(_local(job)),
        adapt_lr_batch=_rate(rows["learnt"], "batch"),
        adapt_lr_stream=_rate(rows["learnt"], "stream"),
        **_rates(job, rows["learnt"]),
        **net.prepared.arrays(),
        **standard.arrays(),
        config_sha256=job.config.sha256(),
    )
    directory.save_result(result)
    if isinstance(job.task, Elsewhere) and job.task.shared:
        directory.save(DEVICES, as_csv(job.task.shared).encode())
    return Run(directory.path, result, theta)


def _rate(rows: Sequence[Row], mode: evaluation.Mode) -> float:
    """The rate of the first row of a mode; 0 without one, as class means have none."""
    return next((row.adapt_lr for row in rows if row.mode == mode and row.adapt_lr is not None), 0.0)


def _rates(job: Job, rows: Sequence[Row]) -> dict[str, Any]:
    """The rates of adaptation by the number of samples, for the file of the initialisation; nothing of class means."""
    by_shots: dict[int, dict[str, float]] = {}
    for row in rows:
        if row.adapt_lr is not None:
            by_shots.setdefault(row.shots, {})[row.mode] = row.adapt_lr
    per_shot = job.result.outputs if shots_of(job.config.task, job.task) == "class" else 1
    found = [[shots * per_shot, each["batch"], each["stream"]] for shots, each in by_shots.items()]
    return {"rates": np.array(found, np.float64)} if found else {}


def write_page(directory: RunDirectory, job: Job, net: Network, run: Run, tell: Callable[[str], object]) -> None:
    from tinyfl.report.page import write_report

    start = job.start[: net.parameters]
    write_report(directory, job.config, job.task, net, run.theta, start, run.result, job.algorithm.adaptation, tell)
