"""How devices of an asynchronous run work: simulated in virtual time, boards in their own."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from typing import Protocol

import numpy as np

from tinyfl.algorithms import Inner
from tinyfl.core import F32
from tinyfl.errors import RunError
from tinyfl.fleet import Context, Fleet
from tinyfl.late import Arrival, Work


class Working(Protocol):
    """Devices at work."""

    def begin(self, started: Sequence[Work], theta: F32, inner: Inner, context: Context) -> None:
        """Devices start from ``theta``, all of one version, with its inner loop and context."""

    def next(self, at_work: Sequence[Work]) -> Arrival:
        """The next arrival of those ``at_work``, all of which have begun."""

    def close(self) -> None:
        """Waits for no other."""


class Simulated:
    """Devices of a fleet that is simulated, in virtual time. Those of a version learn together, once the first is due."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._waiting: dict[int, tuple[tuple[F32, Inner, Context], list[int]]] = {}
        self._learnt: dict[tuple[int, int], Arrival] = {}

    def begin(self, started: Sequence[Work], theta: F32, inner: Inner, context: Context) -> None:
        for each in started:
            self._waiting.setdefault(each.version, ((theta, inner, context), []))[1].append(each.device)

    def next(self, at_work: Sequence[Work]) -> Arrival:
        work = min(at_work, key=lambda each: each.due)
        if (work.device, work.version) not in self._learnt:
            given, devices = self._waiting.pop(work.version)
            arrived = learn(self._fleet, devices, work.version, *given)
            self._learnt |= {(each.device, each.version): each for each in arrived}
        return replace(self._learnt.pop((work.device, work.version)), time=work.due)

    def close(self) -> None:
        pass


class Replayed(Simulated):
    """Simulated devices that arrive as in a log: its lines' reasons for leaving a device out, and its rounds' times."""

    def __init__(self, fleet: Fleet, reasons: Sequence[str], times: Sequence[float | None]) -> None:
        super().__init__(fleet)
        self._reasons, self._times = reasons, times

    def next(self, at_work: Sequence[Work]) -> Arrival:
        if not at_work:
            raise RunError("the run that is replayed has no more arrivals. Give this one no more --rounds.")
        arrived = super().next(at_work)
        line = int(arrived.time or 0)
        return replace(arrived, reason=self._reasons[line] or arrived.reason, time=self._times[line])


class Live:
    """Devices of a fleet with boards, each of which takes as long as it takes; at most ``places`` at once."""

    def __init__(self, fleet: Fleet, places: int) -> None:
        self._fleet, self._pool = fleet, ThreadPoolExecutor(places, "tinyfl-late")
        self._arrived: SimpleQueue[Arrival | BaseException] = SimpleQueue()

    def begin(self, started: Sequence[Work], theta: F32, inner: Inner, context: Context) -> None:
        for each in started:
            self._pool.submit(self._learn, each, theta, inner, context)

    def _learn(self, work: Work, theta: F32, inner: Inner, context: Context) -> None:
        try:
            (arrival,) = learn(self._fleet, [work.device], work.version, theta, inner, context)
            self._arrived.put(arrival)
        except BaseException as error:  # whoever waits for an arrival raises it
            self._arrived.put(error)

    def next(self, at_work: Sequence[Work]) -> Arrival:
        arrived = self._arrived.get()
        if isinstance(arrived, BaseException):
            raise arrived
        return arrived

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def learn(fleet: Fleet, devices: Sequence[int], version: int, theta: F32, inner: Inner, context: Context) -> list[Arrival]:
    """The inner loops of devices from ``theta``, on their samples of round ``version``."""
    numbers = np.array(sorted(devices), np.uint32)
    phis = fleet.run_each(numbers, version, theta, inner, context)
    return [
        Arrival(device, version, theta, phi, loss, reason)
        for device, phi, loss, reason in zip(numbers.tolist(), phis.phi, phis.loss.tolist(), phis.reasons, strict=True)
    ]
