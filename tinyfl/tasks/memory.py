"""The memory of a round, and how many devices fit into a limit at once.

A limit (tinyfl.core.Engine.memory) holds for what the rounds and the evaluation take beyond the interpreter, the data set and
theta: the working memory of all threads, the samples of the devices that learn at once, and their results.
"""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyfl.core import Engine, Plan
from tinyfl.errors import ConfigError
from tinyfl.system.sizes import shown_size
from tinyfl.tasks import SPLITS, Task

PROBED = 64
"""Number of devices, spread over the fleet, on which the memory of their samples is measured."""

RESULTS = 32
"""Bytes for each device beside its samples: its number, loss and code."""


def peak(work: Callable[[], Any]) -> int:
    """Bytes of Python and NumPy that ``work`` holds at its peak, with its result."""
    already = tracemalloc.is_tracing()
    if not already:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not already:
            tracemalloc.stop()


def working_bytes(plan: Plan, engine: Engine) -> int:
    """Bytes of a call beside samples: the threads' working memory, and sums."""
    lanes, threads = engine.resolved()
    return threads * plan.working_bytes(lanes) + 4 * 8 * plan.weights


def _bytes_each(task: Task, size: int, samples: int, kept: int) -> int:
    """Bytes of each device that learns, of ``size``, from ``samples`` samples; ``kept`` is the number of weights it keeps."""
    probed = np.unique(np.linspace(0, size - 1, PROBED).astype(np.uint32))
    return peak(lambda: task.stream(probed, 0, samples)) // len(probed) + 3 * 4 * kept + RESULTS


def devices_at_once(task: Task, size: int, samples: int, plan: Plan, kept: int, engine: Engine) -> int:
    """The number of devices that may learn at once within the limit, in whole groups of lanes.

    Raises ConfigError if not even one group fits.
    """
    lanes, threads = engine.resolved()
    group = lanes * _bytes_each(task, size, samples, kept)
    _demand(working_bytes(plan, engine) + group, engine)
    groups = (engine.memory - working_bytes(plan, engine)) // group
    return lanes * (groups // threads * threads or groups)


def check_limit(task: Task, size: int, samples: int, plan: Plan, kept: int, engine: Engine, *, tasks: int, shots: int) -> None:
    """Raises ConfigError if the limit is too small for one group of lanes, or for evaluation on ``tasks`` devices, whose
    samples are all in memory."""
    group = engine.resolved()[0] * _bytes_each(task, size, samples, kept)
    drawn = peak(lambda: [task.episodes(split, tasks, shots) for split in SPLITS])
    _demand(working_bytes(plan, engine) + max(group, drawn), engine)


def _demand(least: int, engine: Engine) -> None:
    if engine.memory < least:
        threads = engine.resolved()[1]
        fewer = f", which is for {threads} threads: --threads 1 takes less" if threads > 1 else ""
        raise ConfigError(
            f"this run takes more than --memory allows: at least {least:,} bytes. Give --memory {shown_size(least)}{fewer}."
        )
