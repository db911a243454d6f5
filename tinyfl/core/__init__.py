"""The C core for Python: the same source as on a board, run for whole cohorts (simulators/native/native.h).

Arrays are NumPy arrays in C order. Every function checks its arguments, since C trusts pointers and row numbers.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinyfl.core import binding
from tinyfl.core.arrays import F32, F64, I32, I64, U8, U32, address, check_array
from tinyfl.core.binding import library
from tinyfl.core.calls import Code, Plan, Stop, check_code, inner_of, interruptibly
from tinyfl.core.classes import Classified, class_means, embeddings
from tinyfl.core.engine import FASTEST, MAX_THREADS, Engine
from tinyfl.core.generator import Stream, check_range, distinct, random, sine, uniform
from tinyfl.core.sources import SineSource, Source, TableSource

__all__ = [
    "F32",
    "F64",
    "FASTEST",
    "I32",
    "I64",
    "LIMIT",
    "MAX_CHANGE",
    "MAX_SUMMED",
    "MAX_THREADS",
    "U8",
    "U32",
    "UNIT",
    "Adapted",
    "Classified",
    "Code",
    "Engine",
    "Plan",
    "SineSource",
    "Source",
    "Stop",
    "Stream",
    "TableSource",
    "Trained",
    "adapt",
    "class_means",
    "distinct",
    "embeddings",
    "fixed",
    "library",
    "race",
    "random",
    "samples",
    "sine",
    "train",
    "train_rounds",
    "uniform",
]  # fmt: skip

UNIT = 2.0**-32
"""The value of one unit of an exact sum."""

MAX_CHANGE = 1024.0
"""Bound of an update's change of any weight; at or above it the update is left out as oversized (TINYFL_MAX_CHANGE)."""

LIMIT = 2.0**50
"""Bound of all values in the core's arithmetic (TINYFL_LIMIT)."""

MAX_SUMMED = 1 << 20
"""Maximum number of devices in one exact sum without overflow: 2^20 x 1024 x 2^32 < 2^63."""


@dataclass(frozen=True)
class Trained:
    """A round's result: the exact sum int64 (weights,) of the changes of devices with code 0, in units of 2^-32; each device's
    mean loss float32 (devices,) and code int32 (devices,); and, if requested, each phi float32 (devices, weights)."""

    sum: I64
    loss: F32
    code: I32
    updates: F32 | None


def _cohort(
    plan: Plan,
    theta: F32,
    source: Source,
    devices: U32,
    count: int,
    round: int,
    inner: bytes,
    kept: F32 | None,
    result: Trained,
    stop: Stop,
) -> binding.Cohort:
    """The cohort for C, ``count`` of ``devices`` (of one round or several), with its arrays checked. The caller keeps them all
    until the call is over."""
    loop = inner_of(inner)
    samples = sum(phase.samples for phase in loop.phases[: loop.count])
    check_array(theta, np.float32, (plan.weights,), "theta")
    check_array(devices, np.uint32, (len(devices),), "devices")
    check_range(round, 0, 1 << 32, "round")
    if count > MAX_SUMMED:
        raise ValueError(f"{count:,} devices in one call; exact sums hold {MAX_SUMMED:,}")
    if source.check(plan.inputs, plan.outputs, len(devices)) not in (0, samples):
        raise ValueError(f"the source does not hold {samples} samples per device")
    if loop.kept:
        if kept is None:
            raise ValueError("the inner loop keeps something: give kept")
        check_array(kept, np.float32, (len(devices), plan.kept_floats(inner)), "kept")
    return binding.Cohort(
        plan.pointer, address(theta), source.structure(), address(devices), count, round, loop,
        address(result.sum), address(result.updates), address(kept), address(result.loss), address(result.code),
        stop.pointer,
    )  # fmt: skip


def train(
    plan: Plan,
    theta: F32,
    source: Source,
    devices: U32,
    round: int,
    inner: bytes,
    *,
    kept: F32 | None = None,
    each: bool = False,
    engine: Engine = FASTEST,
    stop: Stop | None = None,
    brief: bool = False,
) -> Trained:
    """Runs one round of a cohort from ``theta`` float32 (weights,): the inner loop in the record ``inner``
    (tinyfl.algorithms.Inner) on each device.

    ``kept`` float32 (devices, weights of the local layers) is what each device has kept, NaN where it has nothing; afterwards
    it is what it keeps. A call that takes a fraction of a second is ``brief``: Ctrl-C waits for it. Raises ValueError if arrays
    do not fit the plan or the core refuses the numbers, Interrupted once ``stop`` is set.
    """
    result = Trained(
        np.zeros(plan.weights, np.int64),
        np.empty(len(devices), np.float32),
        np.empty(len(devices), np.int32),
        np.empty((len(devices), plan.weights), np.float32) if each else None,
    )
    stop = stop or Stop()
    cohort = _cohort(plan, theta, source, devices, len(devices), round, inner, kept, result, stop)
    lanes, threads = engine.resolved()
    call = library().tinyfl_native_train
    check_code(interruptibly(lambda: call(ctypes.byref(cohort), lanes, threads), stop, brief))
    return result


def train_rounds(
    plan: Plan,
    theta: F32,
    source: Source,
    devices: U32,
    round: int,
    inner: bytes,
    alphas: F64,
    down: int = 0,
    *,
    engine: Engine = FASTEST,
    stop: Stop | None = None,
) -> tuple[F32, F32, I32]:
    """Runs one round after another, each as ``train`` does. ``devices`` is uint32 (rounds, cohort), ``alphas`` float64
    (rounds,): in round ``round`` + r, the devices of row r learn from their samples in ``source``, which holds one row after
    another, and theta moves by ``alphas[r]`` times their mean change. They start from what the codec with the number ``down``,
    not top P %, makes of theta.

    Returns theta float32 (weights,) after the rounds, and each device's loss and code (rounds, cohort), as in Trained. Raises
    as ``train`` does, ValueError if the inner loop keeps layers, and FloatingPointError if theta cannot be encoded.
    """
    rounds, count = devices.shape
    check_array(alphas, np.float64, (rounds,), "alphas")
    check_range(round, 0, (1 << 32) - rounds, "round")
    loss, code = np.empty(devices.shape, np.float32), np.empty(devices.shape, np.int32)
    result = Trained(np.zeros(plan.weights, np.int64), loss, code, None)
    after, stop = theta.copy(), stop or Stop()
    cohort = _cohort(plan, theta, source, devices.reshape(-1), count, round, inner, None, result, stop)
    lanes, threads = engine.resolved()
    call = library().tinyfl_native_train_rounds
    codec = binding.Codec(down, 0)
    arguments = ctypes.byref(cohort), rounds, address(alphas), ctypes.byref(codec), address(after), lanes, threads
    found = interruptibly(lambda: call(*arguments), stop)
    if found == Code.numeric:
        raise FloatingPointError("a value is not finite, or not below 2^50")
    check_code(found)
    return after, loss, code


def fixed(phi: F32, theta: F32) -> I64:
    """phi - theta in units of 2^-32, int64, with the core's rounding: for updates from outside the core.

    Raises ValueError if the update is not finite or oversized.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        change = np.abs(phi - theta)  # in float32, as in the core
    if not (change < MAX_CHANGE).all():
        raise ValueError(f"an update that moves a weight by {MAX_CHANGE:g} or more cannot be summed exactly")
    return np.rint((phi.astype(np.float64) - theta.astype(np.float64)) / UNIT).astype(np.int64)


@dataclass(frozen=True)
class Adapted:
    """At each checkpoint and for each device: loss (infinite once diverged) and accuracy, float32 (checkpoints, devices);
    if requested, outputs (checkpoints, devices, queries, outputs) and the last weights (devices, weights)."""

    loss: F32
    accuracy: F32
    outputs: F32 | None
    weights: F32 | None


def _adaptation(
    plan: Plan, theta: F32, support: TableSource, query: TableSource, at: U32, inner: bytes, result: Adapted, stop: Stop
) -> binding.Adaptation:
    """An adaptation for C that fills the arrays of ``result``; ValueError if its inner loop does not fit."""
    loop = inner_of(inner)
    phases = loop.phases[: loop.count]
    if any(phase.samples != support.samples for phase in phases) or sum(phase.passes for phase in phases) < max(at):
        raise ValueError(f"the phases are not passes over the {support.samples} samples, at least {max(at)} of them")
    return binding.Adaptation(
        plan.pointer, address(theta), support.structure(), query.structure(),
        len(support.rows), support.samples, query.samples, loop, address(at), len(at),
        address(result.loss), address(result.accuracy), address(result.outputs), address(result.weights),
        stop.pointer,
    )  # fmt: skip


def _check_adaptation(plan: Plan, theta: F32, support: TableSource, query: TableSource) -> None:
    check_array(theta, np.float32, (plan.weights,), "theta")
    support.check(plan.inputs, plan.outputs, len(support.rows))
    query.check(plan.inputs, plan.outputs, len(support.rows))


def adapt(
    plan: Plan,
    theta: F32,
    support: TableSource,
    query: TableSource,
    steps: Sequence[int],
    inner: bytes,
    *,
    outputs: bool = False,
    weights: bool = False,
    engine: Engine = FASTEST,
) -> Adapted:
    """Adapts ``theta`` on each device's support set by the inner loop in the record ``inner`` (tinyfl.algorithms.Inner), and
    measures it on its query set after each of ``steps`` passes over the support set, all phases counted together.

    Raises ValueError if arrays do not fit the plan, a phase is not on the whole support set, or there are fewer passes.
    """
    _check_adaptation(plan, theta, support, query)
    at, count = np.array(steps, np.uint32), len(support.rows)
    if (np.diff(at.astype(np.int64)) < 0).any():
        raise ValueError("steps must ascend")
    result = Adapted(
        np.empty((len(at), count), np.float32),
        np.empty((len(at), count), np.float32),
        np.zeros((len(at), count, query.samples, plan.outputs), np.float32) if outputs else None,
        np.empty((count, plan.weights), np.float32) if weights else None,
    )
    stop = Stop()
    job = _adaptation(plan, theta, support, query, at, inner, result, stop)
    lanes, threads = engine.resolved()
    check_code(interruptibly(lambda: library().tinyfl_native_adapt(ctypes.byref(job), lanes, threads), stop))
    return result


def race(
    plan: Plan,
    theta: F32,
    support: TableSource,
    query: TableSource,
    steps: int,
    inners: Sequence[bytes],
    *,
    by_accuracy: bool,
    engine: Engine = FASTEST,
) -> list[Adapted]:
    """The results of ``adapt`` after ``steps`` passes with each of up to 64 inner loops, for the one with the highest mean
    accuracy, or the least mean loss.

    A loop is measured only until it surely does worse than another: whether or not it has, all that could be the best have
    their results on all devices. Loss and accuracy are NaN where a loser was not measured.
    Raises ValueError as ``adapt`` does.
    """
    _check_adaptation(plan, theta, support, query)
    at, stop = np.array([steps], np.uint32), Stop()
    unmeasured = np.full((1, len(support.rows)), np.nan, np.float32)
    results = [Adapted(unmeasured.copy(), unmeasured.copy(), None, None) for _ in inners]
    jobs = [_adaptation(plan, theta, support, query, at, *each, stop) for each in zip(inners, results, strict=True)]
    array = (binding.Adaptation * len(jobs))(*jobs)
    lanes, threads = engine.resolved()
    check_code(interruptibly(lambda: library().tinyfl_native_race(array, len(array), by_accuracy, lanes, threads), stop))
    return results


def samples(source: Source, plan: Plan, devices: U32, round: int, count: int) -> tuple[F32, F32]:
    """The samples that ``train`` uses: x (devices, count, inputs) and y (devices, count, outputs), float32."""
    check_array(devices, np.uint32, (len(devices),), "devices")
    check_range(round, 0, 1 << 32, "round")
    if source.check(plan.inputs, plan.outputs, len(devices)) not in (0, count):
        raise ValueError(f"the source does not hold {count} samples per device")
    x = np.empty((len(devices), count, plan.inputs), np.float32)
    y = np.empty((len(devices), count, plan.outputs), np.float32)
    check_code(
        library().tinyfl_native_samples(
            ctypes.byref(source.structure()), address(devices), len(devices), round, count, plan.inputs, plan.outputs,
            address(x), address(y),
        )
    )  # fmt: skip
    return x, y
