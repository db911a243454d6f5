"""The share of this machine that the core may take."""

import os
from dataclasses import dataclass

from tinyfl.core.binding import library

MAX_THREADS = 256


@dataclass(frozen=True)
class Engine:
    """The share of this machine for the core. No number changes any result."""

    threads: int = 0
    """Threads; 0: one for each processor."""
    lanes: int = 0
    """Devices in lockstep, 16, 8, 4 or 1; 0: the processor's maximum."""
    memory: int = 0
    """Bytes for a call's working memory and its devices' samples (tinyfl.tasks.memory); 0: no limit."""

    def resolved(self) -> tuple[int, int]:
        """(lanes, threads) without zeros, for C. Raises ValueError for numbers out of range."""
        if not isinstance(self.threads, int) or not 0 <= self.threads <= MAX_THREADS:
            raise ValueError(f"{self.threads!r} threads, not 0 to {MAX_THREADS}")
        widest = library().tinyfl_native_lanes()
        lanes = self.lanes or widest
        if lanes not in (1, 4, 8, 16) or lanes > widest:
            raise ValueError(f"{lanes} lanes; this processor runs {[n for n in (1, 4, 8, 16) if n <= widest]}")
        return lanes, self.threads or processors()


def processors() -> int:
    """Processors that this process may run on; at most MAX_THREADS count."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MAX_THREADS)
    return min(os.cpu_count() or 1, MAX_THREADS)


FASTEST = Engine()
"""All processors, and their maximum number of lanes."""
