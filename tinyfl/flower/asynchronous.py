"""The rounds of an asynchronous run (tinyfl.late): the same logs, checkpoints and conditions as of any other."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from tinyfl.algorithms import Updates
from tinyfl.config.settings import slow_devices
from tinyfl.core import U32
from tinyfl.fleet import Context
from tinyfl.flower.rounds import Federation
from tinyfl.late import Arrival, Work, combined
from tinyfl.late.course import MEMORY, Course, Drawn, Logged, Starts, seconds_of
from tinyfl.late.working import Live, Replayed, Simulated, Working
from tinyfl.runs.arrivals import replayed


class Asynchronous(Federation):
    """The rounds of a run with a buffer. A resumed run starts again what was at work, from the theta that it had."""

    def _learn(self) -> None:
        state = self._snapshot.state
        self._course = Course.of(state.memory, state.theta, state.round, self.config.devices)
        self._buffer: list[Arrival] = []
        starts, working = self._ways()
        with closing(working):
            for each in self._course.at_work:
                self._begin([each], working)
            while self._snapshot.state.round < self.config.rounds and not self._stops():
                self._start(starts, working)
                self._take(working.next(self._course.at_work))

    def _ways(self) -> tuple[Starts, Working]:
        """Who starts, and how devices work."""
        from tinyfl.flower.grid import FleetGrid

        assert isinstance(self.grid, FleetGrid)
        fleet, config = self.grid.fleet, self.config
        log = replayed(self.directory, config)
        if log is not None:
            return Logged(log.rounds), Replayed(fleet, log.reasons, log.times)
        drawn = Drawn(config.seed, config.cohort, seconds_of(config.seed, config.devices, *slow_devices(config.slow)))
        live = any(not part.native for part in config.fleet)
        return drawn, Live(fleet, config.cohort) if live else Simulated(fleet)

    def _start(self, starts: Starts, working: Working) -> None:
        """Lets devices start from the theta that is current."""
        version = self._snapshot.state.round
        started = starts.next(self._course, version, [each.device for each in self._buffer])
        if started:
            self._course.begin(started, self._snapshot.state.theta)
            self._begin(started, working)

    def _begin(self, started: Sequence[Work], working: Working) -> None:
        """Hands their version's theta, as it goes down, to devices.

        Raises TrainingError if it cannot be sent."""
        version = started[0].version
        theta, encoded = self._down.sent(self._course.thetas[version], None)
        working.begin(started, theta, self.algorithm.inner(version), Context(down=encoded))

    def _take(self, arrived: Arrival) -> None:
        """Takes an arrival into the buffer, and the server's step once that is full."""
        self._course.end(arrived)
        self._buffer.append(arrived)
        if len(self._buffer) < self.config.buffer:
            return
        state = self._snapshot.state
        updates = combined(state.theta, state.round, self._buffer)
        if updates.devices < self.config.minimum:
            self._on_short(updates)
        else:
            after = self.algorithm.outer(state, updates)
            others = {name: array for name, array in after.memory.items() if not name.startswith(MEMORY)}
            self._on_round(replace(after, memory={**others, **self._course.memory()}), updates)
        self._buffer = []

    def _cohorts(self, rounds: int) -> U32:
        return np.array([sorted(each.device for each in self._buffer)], np.uint32)

    def _record_of(self, updates: Updates, counts: bool, seconds: float) -> dict[str, Any]:
        arrivals = [[each.device, each.version] for each in self._buffer]
        return {**super()._record_of(updates, counts, seconds), "arrivals": arrivals, "time": self._buffer[-1].time}
