"""Common code of the benchmarks: training without Flower (the same bits, tests/test_flower.py), memory, and provenance."""

import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from tinyfl.algorithms import State
from tinyfl.config import Config, resolve
from tinyfl.core import F32
from tinyfl.fleet import draw_cohort
from tinyfl.networks import Network
from tinyfl.runs import evaluation
from tinyfl.runs.evaluation import Row
from tinyfl.runs.learner import algorithm_of, fitted
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks import Task


def learn(**options: Any) -> tuple[Config, Task, Network, F32]:
    """The network of unseen devices, and its theta, of a run with these options."""
    config, learner = fitted(resolve(options))
    task, net = learner.task, learner.network
    fleet, algorithm = NativeFleet(task, net, config.devices), algorithm_of(config, net)
    state = State(0, learner.start)
    for round in range(config.rounds):
        cohort = draw_cohort(config.seed, round, config.cohort, config.devices)
        state = algorithm.outer(state, fleet.run(cohort, round, state.theta, algorithm.inner(round)))
    return config, task, *learner.for_unseen(algorithm.algorithm, state.theta, config.devices)


def adapted(rows: list[Row], steps: int, mode: str = "batch") -> Row:
    """The row of ``rows`` at ``steps``."""
    return next(row for row in rows if (row.mode, row.steps) == (mode, steps))


def measured(config: Config, task: Task, net: Network, theta: F32) -> list[Row]:
    """The evaluation of ``simulate``."""
    return evaluation.measure(task, net, theta, shots=config.shots, tasks=config.tasks, clip=config.clip)


def peak_mib() -> float:
    """MiB that this process has taken at most. On Linux ru_maxrss begins at what the parent took, so /proc tells it there."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def provenance() -> str:
    """Commit and machine, for a table's footer."""
    commit, changes = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain")
    return f"commit {commit}{' with changes' if changes else ''}, Python {platform.python_version()}, {platform.machine()}"


def _git(*arguments: str) -> str:
    here = Path(__file__).parent
    return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
