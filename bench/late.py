"""Slow devices: rounds that wait for all, rounds with a deadline, and asynchronous rounds, to the same quality.

    python bench/late.py             a few minutes, seeds 0 to 4

Task sine, 64 simulated devices, of which a third (21) takes ten times as long as the others, whose inner loop is the unit of
virtual time. All three have 16 devices at work, start from the same weights, and are TinyReptile with a constant outer step:

- ``wait``: a round of 16 devices lasts as long as its slowest;
- ``deadline``: a round lasts a unit, and slow devices are late: left out;
- ``buffer K``: asynchronous rounds of K arrivals, as `tinyfl simulate --buffer K` has them.

Slow are ``any`` devices, drawn by the seed, or those of the ``largest`` amplitude: who leaves them out never sees such tasks.
The loss is the mean squared error on 300 unseen devices after 10 full-batch steps on 10 samples, at the better of two rates;
and that on the third of them with the largest amplitude. ``time`` is the virtual time until the loss is at most that of
``wait`` at the end, at the first of 60 measurements. +- is half of a 95 % interval over seeds (Student's t).
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from common import provenance
from scipy.stats import t

from tinyfl import core
from tinyfl.algorithms import State
from tinyfl.algorithms.tinyreptile import TinyReptile
from tinyfl.core import F32, F64
from tinyfl.fleet import ALONE, draw_cohort
from tinyfl.late import Arrival, combined
from tinyfl.late.course import Course, Drawn, seconds_of
from tinyfl.late.working import Simulated
from tinyfl.networks import Network, network
from tinyfl.runs.evaluation import inner_loop
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks.sine import Sine

SEEDS = range(5)
DEVICES, COHORT, SHARE, FACTOR = 64, 16, 1 / 3, 10.0
END, MEASUREMENTS = 3_000.0, 60
SAMPLES, RATE, STEP = 32, 0.01, 0.3
BUFFERS = (2, 8)
SHOTS, STEPS, UNSEEN, RATES = 10, 10, 300, (0.01, 0.02)

Thetas = Iterator[tuple[float, F32]]
"""Virtual times, ascending, and theta from then on."""


@dataclass(frozen=True)
class Trial:
    """A seed's fleet, and how long each device takes."""

    seed: int
    fleet: NativeFleet
    seconds: F64

    @property
    def algorithm(self) -> TinyReptile:
        return TinyReptile(rounds=1, samples=SAMPLES, rate=RATE, outer_step=STEP, outer_schedule="constant")

    @property
    def start(self) -> State:
        return State(0, self.fleet.network.initial_weights(self.seed))

    def synchronous(self, deadline: bool) -> Thetas:
        """Rounds that wait for all, or leave slow devices out."""
        state, now = self.start, 0.0
        while True:
            cohort = draw_cohort(self.seed, state.round, COHORT, DEVICES)
            now += 1.0 if deadline else float(self.seconds[cohort].max())
            present = cohort[self.seconds[cohort] <= 1.0] if deadline else cohort
            updates = self.fleet.run(present, state.round, state.theta, self.algorithm.inner(state.round))
            state = self.algorithm.outer(state, updates)
            yield now, state.theta

    def asynchronous(self, buffer: int) -> Thetas:
        """Rounds of ``buffer`` arrivals."""
        state, course, arrived, working = self.start, Course(), list[Arrival](), Simulated(self.fleet)
        drawn = Drawn(self.seed, COHORT, self.seconds)
        while True:
            started = drawn.next(course, state.round, [each.device for each in arrived])
            course.begin(started, state.theta)
            working.begin(started, state.theta, self.algorithm.inner(state.round), ALONE)
            arrived.append(working.next(course.at_work))
            course.end(arrived[-1])
            if len(arrived) == buffer:
                state, arrived = self.algorithm.outer(state, combined(state.theta, state.round, arrived)), []
                yield course.time, state.theta


def amplitudes(task: Sine, devices: np.ndarray) -> F32:
    return np.hypot(*task.parameters(devices.astype(np.uint32)).T)


def losses_of(task: Sine, net: Network) -> Callable[[F32], tuple[float, float]]:
    """What measures a theta: its loss on all unseen devices, and on those of the largest amplitude."""
    episodes = task.episodes("test", UNSEEN, SHOTS)
    y = episodes.query.targets
    assert y is not None
    large = np.argsort(-np.abs(y.reshape(UNSEEN, -1)).max(axis=1))[: round(SHARE * UNSEEN)]

    def measure(theta: F32) -> tuple[float, float]:
        loops = [inner_loop("batch", SHOTS, STEPS, rate) for rate in RATES]
        losses = [core.adapt(net.plan, theta, episodes.support, episodes.query, (STEPS,), loop).loss[0] for loop in loops]
        best = min(losses, key=lambda loss: float(loss.mean(dtype=np.float64)))
        return float(best.mean(dtype=np.float64)), float(best[large].mean(dtype=np.float64))

    return measure


def curve(course: Thetas, measure: Callable[[F32], tuple[float, float]]) -> np.ndarray:
    """The losses at each measurement (measurements, 2)."""
    found = list[tuple[float, float]]()
    theta = None
    for now, after in course:
        while theta is not None and len(found) < MEASUREMENTS and now > (len(found) + 1) * END / MEASUREMENTS:
            found.append(measure(theta))
        if len(found) == MEASUREMENTS:
            return np.array(found)
        theta = after
    raise AssertionError("a course has no end")


def interval(figures: np.ndarray, digits: int) -> str:
    half = t.ppf(0.975, len(figures) - 1) * figures.std(ddof=1) / np.sqrt(len(figures))
    return f"{figures.mean():,.{digits}f} ± {half:,.{digits}f}"


def time_to(curve: np.ndarray, target: float) -> float:
    """The first measurement at ``target`` or below; infinite without one."""
    reached = np.flatnonzero(curve[:, 0] <= target)
    return float(reached[0] + 1) * END / MEASUREMENTS if len(reached) else np.inf


def main() -> None:
    began = time.monotonic()
    print("| slow | rounds | time to the loss of `wait` | loss at the end | of the largest amplitude |")
    print("| --- | --- | ---: | ---: | ---: |")
    for slow in ("any", "largest"):
        found: dict[str, list[np.ndarray]] = {}
        for seed in SEEDS:
            task = Sine(seed)
            net = network("mlp-32-32-tanh", task.shape, task.outputs, task.loss, task.activation)
            seconds = seconds_of(seed, DEVICES, SHARE, FACTOR)
            if slow == "largest":
                seconds = np.sort(seconds)[amplitudes(task, np.arange(DEVICES)).argsort().argsort()]
            trial, measure = Trial(seed, NativeFleet(task, net, DEVICES), seconds), losses_of(task, net)
            ways = {"wait": trial.synchronous(False), "deadline": trial.synchronous(True)}
            ways |= {f"buffer {buffer}": trial.asynchronous(buffer) for buffer in BUFFERS}
            for name, course in ways.items():
                found.setdefault(name, []).append(curve(course, measure))
                print(slow, seed, name, found[name][-1][[9, 29, -1]].round(3).tolist(), file=sys.stderr, flush=True)
        for name, curves in found.items():
            times = np.array([time_to(one, other[-1, 0]) for one, other in zip(curves, found["wait"], strict=True)])
            missed = np.isinf(times).sum()
            taken = f"not in {missed} of {len(times)} seeds" if missed else interval(times, 0)
            ends = np.array([one[-1] for one in curves])
            print(f"| {slow} | {name} | {taken} | {interval(ends[:, 0], 3)} | {interval(ends[:, 1], 3)} |", flush=True)
    print(f"\n{END:,.0f} units of time; seeds {list(SEEDS)}; {time.monotonic() - began:.0f} s; {provenance()}")


if __name__ == "__main__":
    main()
