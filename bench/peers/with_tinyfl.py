"""tinyfl: the cohort call, and the same rounds through ``tinyfl.simulate``.

python with_tinyfl.py FOLDER call|simulate
python with_tinyfl.py FOLDER samples JOB COHORT DATA    writes the job that all peers read
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from job import ROUNDS, Job, Turns, asked

import tinyfl
from tinyfl import core
from tinyfl.algorithms import State
from tinyfl.algorithms.tinyreptile import TinyReptile
from tinyfl.fleet import draw_cohort
from tinyfl.flower.rounds import Progress
from tinyfl.networks import Network, network
from tinyfl.simulation.result import Run
from tinyfl.simulators.native import MAX_STRETCH, NativeFleet
from tinyfl.tasks import Task, load_task

SIZE, RECORDS = 100_000, 500


@dataclass(frozen=True)
class Kind:
    """A job's learning. ``between`` is about the number of device-rounds between two looks at the clock in a simulation: no
    fewer than a stretch of rounds has, which all end at once."""

    task: str
    network: str
    samples: int
    rate: float
    between: int

    def parts(self, data: Path | None) -> tuple[Task, Network]:
        task = load_task(self.task, data, 0)
        return task, network(self.network, task.shape, task.outputs, task.loss, task.activation)


KINDS = {
    "J1": Kind("sine", "mlp-32-32-tanh", samples=32, rate=0.02, between=25_000),
    "J2": Kind("omniglot", "conv-8-16-relu", samples=25, rate=0.02, between=500),
}


def write(folder: Path, name: str, cohort: int, data: Path) -> None:
    """Writes the first round of a simulation with this cohort: theta, and the samples of each device."""
    kind = KINDS[name]
    task, net = kind.parts(data if kind.task == "omniglot" else None)
    devices = draw_cohort(0, 0, cohort, SIZE)
    x, y = core.samples(task.stream(devices, 0, kind.samples), net.plan, devices, 0, kind.samples)
    pixels = x.astype(np.uint8)
    folder.mkdir(parents=True)
    np.save(folder / "theta.npy", net.initial_weights(0))
    np.save(folder / "x.npy", pixels if (pixels == x).all() else x)
    np.save(folder / "y.npy", y)
    (folder / "job.json").write_text(json.dumps({"name": name, "cohort": cohort, "rate": kind.rate}))
    (folder / "data").write_text(str(data))


def call(job: Job, data: Path, after: Turns) -> None:
    kind = KINDS[job.name]
    task, net = kind.parts(data if kind.task == "omniglot" else None)
    fleet, algorithm = NativeFleet(task, net, SIZE), TinyReptile(ROUNDS, kind.samples, kind.rate)
    state, devices = State(0, job.theta), draw_cohort(0, 0, job.cohort, SIZE)
    while True:
        state = algorithm.outer(state, fleet.run(devices, state.round, state.theta, algorithm.inner(state.round)))
        after(state.theta.copy)


def simulate(job: Job, data: Path, after: Turns) -> None:
    """A run of one round, whose theta counts, then a long one that goes on until no more rounds are wanted. Both report in
    equal steps."""
    kind = KINDS[job.name]
    every = min(MAX_STRETCH, max(1, kind.between // job.cohort))

    def run(rounds: int, name: str) -> Run:
        before = 0

        def progress(now: Progress) -> None:
            nonlocal before
            if now.stage == "learning" and now.done > before:
                done, before = now.done - before, now.done
                after(rounds=done)

        return tinyfl.simulate(
            task=kind.task, network=kind.network, data=data if kind.task == "omniglot" else None, devices=SIZE,
            cohort=job.cohort, rounds=rounds, samples=kind.samples, rate=kind.rate, adapt_lr=0.01, shots=1, tasks=2, seed=0,
            out=job.folder / name, progress=progress,
        )  # fmt: skip

    after.save(run(1, "first").theta)
    run(every * RECORDS, "simulated")


def main() -> None:
    if sys.argv[2] == "samples":
        write(Path(sys.argv[1]), sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]))
        return
    job, variant, after = asked()
    {"call": call, "simulate": simulate}[variant](job, Path((job.folder / "data").read_text()), after)


if __name__ == "__main__":
    main()
