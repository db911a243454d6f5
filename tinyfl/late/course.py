"""Who is at work in an asynchronous run, and who starts next: by the seed, or as a log of arrivals has it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.core import F32, F64, U32, Stream
from tinyfl.core.draws import below
from tinyfl.errors import RunError
from tinyfl.fleet import draw_cohort
from tinyfl.late import Arrival, Work

NEXT, SLOW = np.uint32(4), np.uint32(5)
"""Numbers in the generator's stream of cohorts, for the next device and for slow ones; tinyfl.sampling takes 0 to 3."""

MEMORY = "late."
"""The names in a State's memory of what is at work begin with this."""


@dataclass
class Course:
    """An asynchronous run at some moment: the devices at work, in the order of their start; the theta of each version that one
    of them has started from; the number of starts so far; and the time."""

    at_work: list[Work] = field(default_factory=list)
    thetas: dict[int, F32] = field(default_factory=dict)
    starts: int = 0
    time: float = 0.0

    def begin(self, started: Sequence[Work], theta: F32) -> None:
        """Counts devices that have ``started`` from the same version, whose theta is ``theta``."""
        self.at_work += started
        self.starts += len(started)
        self.thetas |= {each.version: theta for each in started}

    def end(self, arrived: Arrival) -> None:
        """Counts a device that has arrived."""
        self.at_work = [each for each in self.at_work if (each.device, each.version) != (arrived.device, arrived.version)]
        if all(each.version != arrived.version for each in self.at_work):
            del self.thetas[arrived.version]
        self.time = arrived.time or 0.0

    def memory(self) -> Mapping[str, NDArray[Any]]:
        """Itself as the arrays of a checkpoint."""
        return {
            f"{MEMORY}work": np.array([(each.device, each.version) for each in self.at_work], np.int64).reshape(-1, 2),
            f"{MEMORY}due": np.array([each.due for each in self.at_work], np.float64),
            f"{MEMORY}starts": np.array(self.starts, np.int64),
            f"{MEMORY}time": np.array(self.time, np.float64),
            **{f"{MEMORY}theta.{version}": theta for version, theta in self.thetas.items()},
        }

    @classmethod
    def of(cls, memory: Mapping[str, NDArray[Any]], theta: F32, round: int, devices: int) -> "Course":
        """The course in the memory of a run of ``devices`` after ``round`` rounds, at ``theta``; a new one if it has none.

        Raises RunError if it is damaged.
        """
        held = {name.removeprefix(MEMORY): array for name, array in memory.items() if name.startswith(MEMORY)}
        if not held:
            return cls()
        try:
            work, due = held.pop("work"), held.pop("due")
            starts, time = held.pop("starts").item(), held.pop("time").item()
            thetas = {int(name.removeprefix("theta.")): array for name, array in held.items()}
            at_work = [Work(device, since, at) for (device, since), at in zip(work.tolist(), due.tolist(), strict=True)]
            fits = (
                [work.dtype, due.dtype] == [np.int64, np.float64]
                and type(starts) is int
                and starts >= 0
                and all(0 <= each.device < devices and 0 <= each.version < round for each in at_work)
                and len({(each.device, each.version) for each in at_work}) == len(at_work)
                and thetas.keys() == {each.version for each in at_work}
                and all(each.shape == theta.shape and each.dtype == np.float32 for each in thetas.values())
                and all(np.isfinite(each).all() for each in (due, time, *thetas.values()))
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{DAMAGED} ({type(error).__name__}). {CURE}") from error
        if not fits:
            raise RunError(f"{DAMAGED}. {CURE}")
        return cls(at_work, thetas, starts, time)


DAMAGED, CURE = "the checkpoint's devices at work are damaged", "Start the run again with another --out."


class Starts(Protocol):
    """Who starts next."""

    def next(self, course: Course, version: int, buffered: Collection[int]) -> list[Work]:
        """The devices that start from ``version``, while those in ``buffered`` have arrived since the last step."""


@dataclass(frozen=True)
class Drawn:
    """``places`` devices are at work, as long as there are others: neither at work nor arrived since the last step, so that a
    device counts once in a round, and starts from a version once. The first are the cohort of round 0; each of the others is
    drawn by the seed and the number of its start. ``seconds`` float64 (devices,) is how long each device takes."""

    seed: int
    places: int
    seconds: F64

    def next(self, course: Course, version: int, buffered: Collection[int]) -> list[Work]:
        devices, started = len(self.seconds), list[Work]()
        taken = {each.device for each in course.at_work} | set(buffered)
        for number in range(course.starts, course.starts + min(self.places - len(course.at_work), devices - len(taken))):
            if number < self.places:
                device = int(draw_cohort(self.seed, 0, self.places, devices)[number])
            else:
                device = draw_next(self.seed, number, devices, taken)
            taken.add(device)
            started.append(Work(device, version, course.time + float(self.seconds[device])))
        return started


def draw_next(seed: int, number: int, devices: int, taken: Collection[int]) -> int:
    """Draws the device of start ``number``: one of ``devices``, each as likely as any other, that is not ``taken``."""
    words = core.random(seed, Stream.cohort, np.full(1, NEXT), number % (1 << 32), words=1)
    free = int(below(words, devices - len(taken))[0, 0])
    held = np.sort(np.fromiter(taken, np.int64, len(taken)))
    return free + int(np.searchsorted(held - np.arange(len(held)), free, side="right"))


def seconds_of(seed: int, devices: int, share: float, factor: float) -> F64:
    """How long each device takes, in units of a usual one, float64 (devices,): a ``share`` of them, drawn by the seed, takes
    ``factor`` times as long."""
    numbers: U32 = np.arange(devices, dtype=np.uint32)
    words = core.random(seed, Stream.cohort, np.full(devices, SLOW), numbers, words=1)[:, 0]
    seconds = np.ones(devices)
    seconds[np.argsort(words, kind="stable")[: round(share * devices)]] = factor
    return seconds


class Logged:
    """As in a log of arrivals: for each round from 0 the pairs of device and version, in the order of their arrival."""

    def __init__(self, rounds: Sequence[Sequence[tuple[int, int]]]) -> None:
        self._of_version: dict[int, list[Work]] = {}
        for line, (device, version) in enumerate(pair for pairs in rounds for pair in pairs):
            self._of_version.setdefault(version, []).append(Work(device, version, float(line)))

    def next(self, course: Course, version: int, buffered: Collection[int]) -> list[Work]:
        return [] if buffered else self._of_version.get(version, [])  # all that start from a version do so at once
