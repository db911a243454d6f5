"""Calls of the core: its plans and codes, and how a call is stopped."""

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from enum import IntEnum
from functools import cache

from tinyfl.core import binding
from tinyfl.core.binding import library
from tinyfl.errors import Interrupted


class Code(IntEnum):
    """The core's return codes (firmware/core/tinyfl.h, online.h)."""

    ok = 0
    invalid = -1
    plan = -2
    memory = -3
    numeric = -4
    oversized = -5
    stopped = -6
    full = -11
    only = -12
    gone = -13


class Plan:
    """A network for the core, from the bytes sent to a board (tinyfl.networks.plan).

    Raises ValueError if the core refuses it.
    """

    def __init__(self, plan: bytes) -> None:
        self.bytes = plan
        self._buffer = ctypes.create_string_buffer(plan, len(plan))  # the core reads the layers in place
        self.pointer = ctypes.pointer(binding.Plan())
        if library().tinyfl_native_read(self.pointer, self._buffer, len(plan)) != Code.ok:
            raise ValueError("not a plan that the core can run")
        self.weights: int = library().tinyfl_native_weights(self.pointer)
        self.inputs: int = library().tinyfl_native_inputs(self.pointer)
        self.outputs: int = library().tinyfl_native_outputs(self.pointer)

    def ram_bytes(self, inner: bytes) -> int:
        """Bytes of RAM of one device in the inner loop ``inner``, by the core's own formula."""
        return int(library().tinyfl_native_ram(self.pointer, ctypes.byref(inner_of(inner))))

    def working_bytes(self, lanes: int, ways: int = 0) -> int:
        """Bytes that each thread of a call works in, with devices in ``lanes`` and prototypes of ``ways`` classes."""
        return int(library().tinyfl_native_working_bytes(self.pointer, lanes, ways))

    def kept_floats(self, inner: bytes) -> int:
        """Number of floats that a device keeps from round to round in the inner loop ``inner``."""
        return int(library().tinyfl_native_kept_weights(self.pointer, ctypes.byref(inner_of(inner))))


def inner_of(record: bytes) -> binding.Inner:
    """The inner loop in ``record``; ValueError if the core refuses it."""
    inner = binding.Inner()
    if library().tinyfl_native_inner_read(ctypes.byref(inner), record, len(record)) != Code.ok:
        raise ValueError("not an inner loop that the core can run")
    return inner


class Stop:
    """Stops the core calls that were given it, from another thread."""

    def __init__(self) -> None:
        self._flag = ctypes.c_int(0)
        self.pointer = ctypes.pointer(self._flag)

    def set(self) -> None:
        self._flag.value = 1


@cache
def _call_thread(process: int) -> ThreadPoolExecutor:
    """The thread that makes calls for this process's main thread; one per process, since a fork lacks its parent's threads."""
    return ThreadPoolExecutor(1, f"tinyfl-core-{process}")


def interruptibly(call: Callable[[], int], stop: Stop, brief: bool = False) -> int:
    """Runs ``call`` and returns its result. The main thread waits in Python, where signals arrive; if one raises, the call is
    stopped. They wait for a ``brief`` call, since a change of threads takes as long as a part of it."""
    if brief or threading.current_thread() is not threading.main_thread():
        return call()
    future = _call_thread(os.getpid()).submit(call)
    try:
        return future.result()
    except BaseException:
        stop.set()
        wait([future])
        raise


def check_code(code: int) -> None:
    if code == Code.stopped:
        raise Interrupted("the call was stopped before it was done.")
    if code == Code.memory:
        raise MemoryError("the core could not get its working memory")
    if code != Code.ok:
        raise ValueError(f"the core refused the call: {Code(code).name}")
