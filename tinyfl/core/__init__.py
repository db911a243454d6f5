"""The C core, called from Python: the same source as on a board, run for whole cohorts (simulators/native/native.h).

Arrays are NumPy's, C order; every function checks what it hands to C, which trusts pointers and row numbers.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import binding
from tinyfl.core.binding import library
from tinyfl.errors import Interrupted

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]

UNIT = 2.0**-32
"""What one unit of an exact sum is worth."""

MAX_CHANGE = 1024.0
"""An update that moves any weight this far is left out as oversized (TINYFL_MAX_CHANGE)."""

LIMIT = 2.0**50
"""Every value of the core's arithmetic stays below this (TINYFL_LIMIT)."""

MAX_SUMMED = 1 << 20
"""The most devices one exact sum holds without overflow: 2^20 x 1024 x 2^32 < 2^63."""


class Code(IntEnum):
    """The core's return codes (firmware/core/tinyfl.h)."""

    ok = 0
    invalid = -1
    plan = -2
    memory = -3
    numeric = -4
    oversized = -5
    stopped = -6


class Stream(IntEnum):
    """Who uses which stream of the random generator (firmware/core/tinyfl.h)."""

    weights = 0
    cohort = 1
    task = 2
    sample = 3
    support = 4
    query = 5


MAX_THREADS = 256


@dataclass(frozen=True)
class Engine:
    """How much of this machine to use. Neither number changes any result."""

    threads: int = 0
    """Threads; 0: one for each processor."""
    lanes: int = 0
    """Devices in lockstep, 16, 8, 4 or 1; 0: as many as the processor can."""

    def resolved(self) -> tuple[int, int]:
        """(lanes, threads) as C takes them."""
        if not isinstance(self.threads, int) or not 0 <= self.threads <= MAX_THREADS:
            raise ValueError(f"{self.threads!r} threads, not 0 to {MAX_THREADS}")
        widest = library().tinyfl_native_lanes()
        lanes = self.lanes or widest
        if lanes not in (1, 4, 8, 16) or lanes > widest:
            raise ValueError(f"{lanes} lanes; this processor runs {[n for n in (1, 4, 8, 16) if n <= widest]}")
        return lanes, self.threads or _processors()


def _processors() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MAX_THREADS)
    return min(os.cpu_count() or 1, MAX_THREADS)


FASTEST = Engine()
"""All processors, as many lanes as they have."""


class Plan:
    """A network as the core takes it, in the bytes that a board is sent (tinyfl.networks.plan).

    Raises ValueError if the core refuses it.
    """

    def __init__(self, plan: bytes) -> None:
        self.bytes = plan
        self._held = ctypes.create_string_buffer(plan, len(plan))  # the core reads the layers where they lie
        self.pointer = ctypes.pointer(binding.Plan())
        if library().tinyfl_native_read(self.pointer, self._held, len(plan)) != Code.ok:
            raise ValueError("not a plan that the core can run")
        self.weights: int = library().tinyfl_native_weights(self.pointer)
        self.inputs: int = library().tinyfl_native_inputs(self.pointer)
        self.outputs: int = library().tinyfl_native_outputs(self.pointer)

    def ram_bytes(self, batch: int) -> int:
        """RAM of one learning device, by the core's own formula."""
        return int(library().tinyfl_native_ram(self.pointer, batch))


@dataclass(frozen=True)
class SineSource:
    """Samples of the sine task, made by the core itself from (seed, device, round)."""

    seed: int

    def _check(self, plan: Plan, devices: int) -> int:
        if plan.inputs != 1 or plan.outputs != 1:
            raise ValueError("the sine task has one input and one output")
        del devices
        return 0

    def _c(self) -> binding.NativeSource:
        return binding.NativeSource(kind=0, seed=self.seed)


@dataclass(frozen=True)
class TableSource:
    """Samples gathered from a table.

    table: float32 (rows, inputs); rows: int32 (devices, samples), each sample's row; then its class, labels: int32
    (devices, samples), or targets: float32 (table rows, outputs); gain: float32 (devices,) multiplies a device's inputs.
    """

    table: F32
    rows: I32
    labels: I32 | None = None
    targets: F32 | None = None
    gain: F32 | None = None

    @property
    def samples(self) -> int:
        """Samples of each device."""
        if self.rows.ndim != 2:
            raise ValueError(f"rows is {self.rows.shape}, not (devices, samples)")
        return int(self.rows.shape[1])

    def _check(self, plan: Plan, devices: int) -> int:
        _demand(self.table, np.float32, (len(self.table), plan.inputs), "table")
        _demand(self.rows, np.int32, (devices, self.samples), "rows")
        if self.rows.size and (self.rows.min() < 0 or self.rows.max() >= len(self.table)):
            raise ValueError("rows points outside the table")
        if (self.labels is None) == (self.targets is None):
            raise ValueError("give either labels or targets")
        if self.labels is not None:
            _demand(self.labels, np.int32, self.rows.shape, "labels")
            if self.labels.size and (self.labels.min() < 0 or self.labels.max() >= plan.outputs):
                raise ValueError(f"labels are not all in 0 .. {plan.outputs - 1}")
        if self.targets is not None:
            _demand(self.targets, np.float32, (len(self.table), plan.outputs), "targets")
        if self.gain is not None:
            _demand(self.gain, np.float32, (devices,), "gain")
        return self.samples

    def _c(self) -> binding.NativeSource:
        return binding.NativeSource(
            kind=1,
            table=_address(self.table),
            rows=_address(self.rows),
            labels=_address(self.labels),
            targets=_address(self.targets),
            gain=_address(self.gain),
        )


Source = SineSource | TableSource


def _demand(array: NDArray[Any], dtype: type, shape: tuple[int, ...], name: str) -> None:
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape} in C order")


def _number(value: float, low: float, high: float, name: str) -> None:
    if not low <= value < high:
        raise ValueError(f"{name} is {value}, not from {low} to below {high}")


def _address(array: NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data


class Stop:
    """Ends the calls that it is handed to, from another thread."""

    def __init__(self) -> None:
        self._flag = ctypes.c_int(0)
        self.pointer = ctypes.pointer(self._flag)

    def set(self) -> None:
        self._flag.value = 1


@cache
def _beside(process: int) -> ThreadPoolExecutor:
    """The thread in which the main thread of this process has its calls made; a fork has none of its parent's threads."""
    return ThreadPoolExecutor(1, f"tinyfl-core-{process}")


def _interruptibly(call: Callable[[], int], stop: Stop) -> int:
    """What ``call`` returns. The main thread waits for it in Python, where signals are heard, and ends it where one raises."""
    if threading.current_thread() is not threading.main_thread():
        return call()
    calling = _beside(os.getpid()).submit(call)
    try:
        return calling.result()
    except BaseException:
        stop.set()
        wait([calling])
        raise


def _demand_done(code: int) -> None:
    if code == Code.stopped:
        raise Interrupted("the call was ended before it was done.")
    if code == Code.memory:
        raise MemoryError("the core could not get its working memory")
    if code != Code.ok:
        raise ValueError(f"the core refused the call: {Code(code).name}")


@dataclass(frozen=True)
class Trained:
    """A round's result: the exact sum int64 (weights,) of good devices' changes in units of 2^-32; each device's mean loss
    float32 (devices,) and code int32 (devices,); and, where asked for, each phi float32 (devices, weights)."""

    sum: I64
    loss: F32
    code: I32
    updates: F32 | None


def train(
    plan: Plan,
    theta: F32,
    source: Source,
    devices: U32,
    round: int,
    *,
    samples: int,
    batch: int = 1,
    passes: int = 1,
    rate: float,
    clip: float = 0.0,
    each: bool = False,
    engine: Engine = FASTEST,
    stop: Stop | None = None,
) -> Trained:
    """One round of a cohort from ``theta`` float32 (weights,): ``passes`` over ``samples`` samples of each device.

    Raises ValueError where arrays do not fit the plan or the core refuses the numbers, Interrupted once ``stop`` is set.
    """
    _demand(theta, np.float32, (plan.weights,), "theta")
    _demand(devices, np.uint32, (len(devices),), "devices")
    _number(round, 0, 1 << 32, "round")
    for name, count in (("samples", samples), ("batch", batch), ("passes", passes)):
        _number(count, 1, 1 << 31, name)
    _number(rate, 0, LIMIT, "rate")
    _number(clip, 0, LIMIT, "clip")
    if len(devices) > MAX_SUMMED:
        raise ValueError(f"{len(devices):,} devices in one call; exact sums hold {MAX_SUMMED:,}")
    if source._check(plan, len(devices)) not in (0, samples):
        raise ValueError(f"the source does not hold {samples} samples a device")
    result = Trained(
        np.zeros(plan.weights, np.int64),
        np.empty(len(devices), np.float32),
        np.empty(len(devices), np.int32),
        np.empty((len(devices), plan.weights), np.float32) if each else None,
    )
    stop = stop or Stop()
    cohort = binding.Cohort(
        plan.pointer, _address(theta), source._c(), _address(devices), len(devices), round, samples, batch, passes,
        rate, clip, _address(result.sum), _address(result.updates), _address(result.loss), _address(result.code),
        stop.pointer,
    )  # fmt: skip
    lanes, threads = engine.resolved()
    _demand_done(_interruptibly(lambda: library().tinyfl_native_train(ctypes.byref(cohort), lanes, threads), stop))
    return result


def fixed(phi: F32, theta: F32) -> I64:
    """phi - theta in units of 2^-32, int64, rounded as the core rounds it: for updates that come from elsewhere.

    Raises ValueError where the update is not finite or oversized.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        moved = np.abs(phi - theta)  # in float32, as the core judges it
    if not (moved < MAX_CHANGE).all():
        raise ValueError(f"an update that moves a weight by {MAX_CHANGE:g} or more cannot be summed exactly")
    return np.rint((phi.astype(np.float64) - theta.astype(np.float64)) / UNIT).astype(np.int64)


@dataclass(frozen=True)
class Adapted:
    """At each checkpoint and for each device: loss (infinite once diverged) and accuracy, float32 (checkpoints, devices);
    where asked for, outputs (checkpoints, devices, queries, outputs) and the last weights (devices, weights)."""

    loss: F32
    accuracy: F32
    outputs: F32 | None
    weights: F32 | None


def adapt(
    plan: Plan,
    theta: F32,
    support: TableSource,
    query: TableSource,
    steps: Sequence[int],
    *,
    stream: bool,
    rate: float,
    clip: float = 0.0,
    outputs: bool = False,
    weights: bool = False,
    engine: Engine = FASTEST,
) -> Adapted:
    """Adapts ``theta`` on each device's support set and measures it on its query set after each of ``steps``.

    A step is one full-batch step on the support set or, with ``stream``, one pass over it sample by sample.
    Raises ValueError where arrays do not fit the plan or the core refuses the numbers.
    """
    _demand(theta, np.float32, (plan.weights,), "theta")
    _number(rate, 0, LIMIT, "rate")
    _number(clip, 0, LIMIT, "clip")
    count = len(support.rows)
    support._check(plan, count)
    query._check(plan, count)
    at = np.array(steps, np.uint32)
    if (np.diff(at.astype(np.int64)) < 0).any():
        raise ValueError("steps must ascend")
    result = Adapted(
        np.empty((len(at), count), np.float32),
        np.empty((len(at), count), np.float32),
        np.zeros((len(at), count, query.samples, plan.outputs), np.float32) if outputs else None,
        np.empty((count, plan.weights), np.float32) if weights else None,
    )
    stop = Stop()
    job = binding.Adaptation(
        plan.pointer, _address(theta), support._c(), query._c(), count, support.samples, query.samples, stream,
        rate, clip, _address(at), len(at),
        _address(result.loss), _address(result.accuracy), _address(result.outputs), _address(result.weights),
        stop.pointer,
    )  # fmt: skip
    lanes, threads = engine.resolved()
    _demand_done(_interruptibly(lambda: library().tinyfl_native_adapt(ctypes.byref(job), lanes, threads), stop))
    return result


def samples(source: Source, plan: Plan, devices: U32, round: int, count: int) -> tuple[F32, F32]:
    """The very samples that ``train`` would use: x (devices, count, inputs) and y (devices, count, outputs), float32."""
    _demand(devices, np.uint32, (len(devices),), "devices")
    _number(round, 0, 1 << 32, "round")
    if source._check(plan, len(devices)) not in (0, count):
        raise ValueError(f"the source does not hold {count} samples a device")
    x = np.empty((len(devices), count, plan.inputs), np.float32)
    y = np.empty((len(devices), count, plan.outputs), np.float32)
    _demand_done(
        library().tinyfl_native_samples(
            ctypes.byref(source._c()), _address(devices), len(devices), round, count, plan.inputs, plan.outputs,
            _address(x), _address(y),
        )
    )  # fmt: skip
    return x, y


def sine(seed: int, devices: U32, x: F32) -> F32:
    """The sine task's function of each device at ``x`` (points,): float32 (devices, points)."""
    _demand(devices, np.uint32, (len(devices),), "devices")
    _demand(x, np.float32, (len(x),), "x")
    y = np.empty((len(devices), len(x)), np.float32)
    library().tinyfl_native_sine(seed, _address(devices), len(devices), _address(x), len(x), _address(y))
    return y


def random(seed: int, stream: Stream, devices: U32, round: int = 0, *, words: int) -> U32:
    """Words of the core's generator, a pure function of its arguments: uint32 (devices, words)."""
    _demand(devices, np.uint32, (len(devices),), "devices")
    _number(seed, 0, 1 << 64, "seed")
    _number(round, 0, 1 << 32, "round")
    out = np.empty((len(devices), words), np.uint32)
    library().tinyfl_native_random(seed, int(stream), _address(devices), len(devices), round, words, _address(out))
    return out


def uniform(words: U32) -> F32:
    """Words as floats in [0, 1), by their upper 24 bits."""
    return (words >> 8).astype(np.float32) * np.float32(2**-24)
