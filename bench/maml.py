"""MAML and FOMAML in the sine setting of MAML's paper (Finn et al. 2017; arXiv:1703.03400, section 5.1 and table 2).

    python bench/maml.py                  seeds 0, 1 and 2, side by side on the processors
    python bench/maml.py --iterations 7000 --seeds 0

A task is A sin(x - phase), A in [0.1, 5], phase in [0, pi], x in [-5, 5]; the network 1-40-40-1 ReLU. Training: 70,000
iterations with 25 tasks of 10 samples to adapt on and 10 queries, one step at rate 0.01, Adam at 0.001. Test: the mean squared
error on 600 other tasks after 1, 5 and 10 full-batch steps on 5 samples, as in the paper's table, and on 10: at rate 0.01
throughout, and at half of it after the first step, since at 0.01 a task among hundreds may diverge and then is the whole mean.
The table has 0.67, 0.38 and 0.35 for MAML.
"""

import time
from argparse import ArgumentParser
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
from common import provenance

from tinyfl import core
from tinyfl.algorithms import Inner, Phase, State, Updates
from tinyfl.algorithms.fomaml import FOMAML
from tinyfl.algorithms.maml import MAML
from tinyfl.core import F32, Engine, TableSource
from tinyfl.networks import network
from tinyfl.networks.layers import Activation, Loss

NET = network("mlp-40-40-relu", (1,), 1, Loss.mean_squared_error, Activation.relu)
TASKS, SAMPLES, TEST_TASKS, QUERIES, RATE = 25, 10, 600, 100, 0.01
STEPS, SHOTS, LATER = (1, 5, 10), (5, 10), (RATE, RATE / 2)
ALGORITHMS = {"maml": MAML, "fomaml": FOMAML}
ONE_THREAD = Engine(threads=1)


def waves(rng: np.random.Generator, tasks: int, *counts: int) -> list[TableSource]:
    """For each of ``counts`` a source with as many samples of each of ``tasks`` new tasks."""
    amplitude, phase = rng.uniform(0.1, 5, (tasks, 1)), rng.uniform(0, np.pi, (tasks, 1))
    sources = []
    for count in counts:
        x = rng.uniform(-5, 5, (tasks, count))
        y, rows = amplitude * np.sin(x - phase), np.arange(x.size, dtype=np.int32).reshape(x.shape)
        sources.append(TableSource(_column(x), rows, targets=_column(y)))
    return sources


def _column(values: np.ndarray) -> F32:
    return values.astype(np.float32).reshape(-1, 1)


def learnt(name: str, iterations: int, seed: int) -> F32:
    """Theta after training."""
    algorithm = ALGORITHMS[name](samples=2 * SAMPLES, steps=1, rate=RATE, outer_step=0.001)
    rng, devices, inner = np.random.default_rng(seed), np.arange(TASKS, dtype=np.uint32), algorithm.inner(0).to_bytes()
    state = State(0, NET.initial_weights(seed))
    for _ in range(iterations):
        (source,) = waves(rng, TASKS, 2 * SAMPLES)
        done = core.train(NET.plan, state.theta, source, devices, 0, inner, engine=ONE_THREAD, brief=True)
        state = algorithm.outer(state, Updates(state.theta, done.sum, int((done.code == core.Code.ok).sum())))
    return state.theta


def errors(theta: F32, shots: int, later: float) -> list[float]:
    """The mean squared error on the test tasks after STEPS, all but the first at the rate ``later``."""
    support, query = waves(np.random.default_rng(1 << 40), TEST_TASKS, shots, QUERIES)
    first = Phase(shots, RATE, batch=shots)
    inner = Inner(first, replace(first, rate=later, passes=max(STEPS) - 1))
    adapted = core.adapt(NET.plan, theta, support, query, STEPS, inner.to_bytes(), engine=ONE_THREAD)
    return [float(row.mean(dtype=np.float64)) for row in adapted.loss]


def result(iterations: int, job: tuple[str, int]) -> list[list[float]]:
    """The errors of one algorithm and seed for each of SHOTS and LATER."""
    theta = learnt(job[0], iterations, job[1])
    return [errors(theta, *each) for each in product(SHOTS, LATER)]


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("--iterations", type=int, default=70_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    asked, began = parser.parse_args(), time.monotonic()
    jobs = list(product(ALGORITHMS, asked.seeds))
    with ProcessPoolExecutor(core.FASTEST.resolved()[1]) as pool:
        found = dict(zip(jobs, pool.map(partial(result, asked.iterations), jobs), strict=True))
    print("| | seed | samples | later rate | 1 step | 5 steps | 10 steps |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    tables = {**found, **{(name, "mean"): np.mean([found[name, s] for s in asked.seeds], axis=0) for name in ALGORITHMS}}
    for (name, seed), rows in tables.items():
        for (shots, later), row in zip(product(SHOTS, LATER), rows, strict=True):
            print(f"| {name} | {seed} | {shots} | {later:g} | {' | '.join(f'{value:.3f}' for value in row)} |")
    print(f"\n{asked.iterations:,} iterations, {time.monotonic() - began:.0f} s, {provenance()}")


if __name__ == "__main__":
    main()
