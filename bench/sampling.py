"""Cohorts of diverse tasks against uniform and similar ones, at equal sample gradients, paired over seeds.

    python bench/sampling.py sine              half a million sample gradients a run, seeds 0 to 4
    python bench/sampling.py digits
    python bench/sampling.py omniglot FILE     your omniglot28.npz

TinyReptile with the defaults of tinyfl.config, but a cohort of 5 on sine, whose default of 1 has no diversity. Each figure is
the mean over seeds of the mean over 1,000 unseen devices, after 10 full-batch steps. A difference is that to the uniform run of
the same seed, which starts from the same weights and is evaluated on the same devices; +- is half of a 95 % interval over seeds
(Student's t).

The cohorts ``mixed`` have the devices of those by ``farthest``, mixed over the rounds: each takes part as often, but the tasks
of a cohort are no more diverse than by chance. Two more columns say what cohorts are like, as ratios to uniform ones, means
over seeds:

- ``apart``, the mean squared distance between the parameters of two devices in a cohort;
- ``error``, the mean squared distance of a cohort's mean update from that of the whole fleet, from the theta at the end of the
  uniform run. Diverse batches are said to make it small (arXiv:2312.16612). Here ``updates`` are those very updates.
"""

import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from common import provenance
from scipy.stats import t

from tinyfl import core
from tinyfl.algorithms import State
from tinyfl.config import Config, resolve
from tinyfl.core import F32, FASTEST
from tinyfl.fleet import summed
from tinyfl.networks import Network, network
from tinyfl.runs import evaluation
from tinyfl.sampling import ByTask, Sampler, sampler
from tinyfl.sampling.embeddings import embedded, sketched
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks import Task

SEEDS = range(5)
GRADIENTS = 500_000
TASKS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "sine": ({"cohort": 5}, ("parameters", "updates")),
    "digits": ({}, ("parameters", "means", "tags", "updates")),
    "omniglot": ({}, ("parameters", "means")),
}
"""The options of a task's runs, and the embeddings."""

COHORTS = 300
"""Number of cohorts whose mean update is compared."""

SAMPLINGS = ("dpp", "farthest", "similar")
CONTROLS = [("mixed", "parameters")]


@dataclass(frozen=True)
class Mixed:
    """The devices of another sampler's cohorts, mixed over the rounds."""

    of: Sampler
    drawn = learns = False

    def cohorts(self, rounds: range, state: State) -> np.ndarray:
        cohorts, rng = self.of.cohorts(rounds, state), np.random.default_rng(0)
        mixed, filled = np.empty_like(cohorts), np.zeros(len(cohorts), np.int64)
        devices, count = np.unique(cohorts, return_counts=True)
        # The most frequent first, each in the rounds with the most room: so there is room for all, and none comes twice.
        for n in np.argsort(-count, kind="stable"):
            at = np.argsort(filled + rng.random(len(filled)))[: count[n]]
            mixed[at, filled[at]] = devices[n]
            filled[at] += 1
        return np.sort(mixed, axis=1)

    def after(self, before: State, state: State, changes: Any) -> State:
        return state


def learnt(config: Config, task: Task, net: Network, choice: Sampler) -> tuple[F32, list[np.ndarray]]:
    """Theta after the rounds of ``config``, and the cohort of each."""
    fleet, algorithm = NativeFleet(task, net, config.devices), config.build()
    state, cohorts = State(0, net.initial_weights(config.seed)), list[np.ndarray]()
    if not choice.learns:
        cohorts = list(choice.cohorts(range(config.rounds), state))
        for round, cohort in enumerate(cohorts):
            state = algorithm.outer(state, fleet.run(cohort, round, state.theta, algorithm.inner(round)))
        return state.theta, cohorts
    for round in range(config.rounds):
        cohort, inner = choice.cohorts(range(round, round + 1), state)[0], algorithm.inner(round)
        cohorts.append(cohort)
        phis = fleet.run_each(cohort, round, state.theta, inner)
        usable = [i for i, reason in enumerate(phis.reasons) if not reason]
        changes = {int(cohort[i]): core.fixed(phis.phi[i], state.theta) for i in usable}
        state = choice.after(state, algorithm.outer(state, summed(cohort, state.theta, phis)), changes)
    return state.theta, cohorts


def reached(config: Config, task: Task, net: Network, theta: F32) -> list[float]:
    """For each of the config's shots what unseen devices reach: accuracy, or the loss."""
    figures = []
    for shots in config.shots:
        rate = evaluation.choose_rate(task, net, theta, "batch", shots, config.clip, FASTEST)
        episodes = task.episodes("test", config.tasks, shots)
        loop = evaluation.inner_loop("batch", episodes.support.samples, evaluation.LEADING_STEPS, rate, config.clip)
        adapted = core.adapt(net.plan, theta, episodes.support, episodes.query, (evaluation.LEADING_STEPS,), loop)
        figures.append(float((adapted.accuracy if net.classifies else adapted.loss).mean(dtype=np.float64)))
    return figures


def apart(cohorts: list[np.ndarray], parameters: F32) -> float:
    """The mean squared distance of two devices in a cohort."""
    points = parameters[np.array(cohorts)].astype(np.float64)
    size = points.shape[1]
    return float(2 * size / (size - 1) * points.var(axis=1).sum(axis=1).mean())


def changes_of(config: Config, task: Task, net: Network, theta: F32) -> F32:
    """The update of every device of the fleet from ``theta``, (devices, weights)."""
    inner = config.build().inner(0)
    everyone = np.arange(config.devices, dtype=np.uint32)
    phis = NativeFleet(task, net, config.devices).run_each(everyone, config.rounds, theta, inner)
    return phis.phi - theta


def error(choice: Sampler, changes: F32) -> float:
    """The mean squared distance of the mean of a cohort's ``changes`` from that of all, over many cohorts."""
    cohorts = choice.cohorts(range(COHORTS), State(0, changes[0]))
    whole = changes.mean(axis=0, dtype=np.float64)
    return float(np.mean([((changes[cohort].mean(axis=0) - whole) ** 2).sum() for cohort in cohorts]))


def interval(figures: np.ndarray) -> str:
    half = t.ppf(0.975, len(figures) - 1) * figures.std(ddof=1) / np.sqrt(len(figures))
    return f"{figures.mean():+.4f} ± {half:.4f}"


def main() -> None:
    name, data = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    options, embeddings = TASKS[name]
    options = {"task": name, "data": data, "tasks": 1000, **options}
    plain = resolve(options)
    config = resolve({**options, "rounds": GRADIENTS // (plain.cohort * plain.samples)})
    runs = [("uniform", ""), *((sampling, embedding) for embedding in embeddings for sampling in SAMPLINGS), *CONTROLS]
    found: dict[tuple[str, str], list[list[float]]] = {run: [] for run in runs}
    began = time.monotonic()
    for seed in SEEDS:
        config = resolve({**config.as_options(), "seed": seed})
        task = config.load_task()
        net = network(config.network, task.shape, task.outputs, task.loss, task.activation)
        parameters = embedded("parameters", task, config.devices, config.samples, seed)
        for sampling, embedding in runs:
            choice = sampler(
                "farthest" if sampling == "mixed" else sampling, embedding, task=task, samples=config.samples, seed=seed,
                size=config.cohort, fleet_size=config.devices,
            )  # fmt: skip
            choice = Mixed(choice) if sampling == "mixed" else choice
            theta, cohorts = learnt(config, task, net, choice)
            if not embedding:
                changes = changes_of(config, task, net, theta)
                directions = sketched(changes.astype(np.float64), seed)
                directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            known = replace(choice, table=directions) if isinstance(choice, ByTask) and choice.learns else choice
            like = [apart(cohorts, parameters), error(known, changes)]
            found[sampling, embedding].append([*like, *reached(config, task, net, theta)])
            print(seed, sampling, embedding, found[sampling, embedding][-1], file=sys.stderr, flush=True)
    shots = [f"{shot} shot{'s' * (shot > 1)} | difference" for shot in config.shots]
    print(f"| cohorts | by | apart | error | {' | '.join(shots)} |")
    print(f"| --- | --- {'| ---: ' * (2 + 2 * len(shots))}|")
    uniform = np.array(found["uniform", ""])
    for (sampling, embedding), rows in found.items():
        figures = np.array(rows)
        cells = [f"{ratio:.2f}" for ratio in (figures[:, :2] / uniform[:, :2]).mean(axis=0)]
        for k in range(2, figures.shape[1]):
            difference = interval(figures[:, k] - uniform[:, k]) if embedding else ""
            cells += [f"{figures[:, k].mean():.4f}", difference]
        print(f"| {sampling} | {embedding} | {' | '.join(cells)} |")
    what = f"{config.rounds:,} rounds of {config.cohort} devices with {config.samples} samples, {config.network}"
    print(f"\n{what}; seeds {list(SEEDS)}; {time.monotonic() - began:.0f} s; {provenance()}")


if __name__ == "__main__":
    main()
