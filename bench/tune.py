"""Selection of the baselines' hyperparameters: a grid on two seeds that the comparisons do not use.

    python bench/tune.py sine
    python bench/tune.py waves
    python bench/tune.py digits --only fomaml fedprox
    python bench/tune.py keywords FILE
    python bench/tune.py words FILE
    python bench/tune.py activity FILE
    python bench/tune.py presence FILE
    python bench/tune.py omniglot FILE
    python bench/tune.py omniglot-classes FILE

Every setting uses as many sample gradients as the default TinyReptile run of the task. The tables are sorted by the mean
over seeds of the result after 10 full-batch steps on validation devices (loss for sine; error, 1 - accuracy, for digits at
1 shot, for the others at their most shots), on which the adaptation rate is chosen too: all figures are optimistic in the same
way. Words are the episodes of classes of the task keywords; waves is sine with five times the sample gradients, and more
adaptation rates; omniglot-classes has a fifth of omniglot's.
"""

import sys
from argparse import ArgumentParser
from itertools import product
from typing import Any

import numpy as np
from common import learn, provenance

from tinyfl import core
from tinyfl.config import resolve
from tinyfl.networks.layers import Loss
from tinyfl.runs import evaluation
from tinyfl.runs.adapted import adapted

SEEDS = (100, 101)
FINE = (0.015, 0.025, 0.03)
"""Further adaptation rates, for waves."""
GRADIENTS = {
    "sine": 1_000_000, "waves": 5_000_000, "digits": 1_280_000, "keywords": 128_000, "words": 256_000, "activity": 320_000,
    "presence": 64_000, "omniglot": 1_000_000, "omniglot-classes": 200_000,
}  # fmt: skip


def grid(cohorts: dict[str, tuple[int, ...]], rates: dict[str, tuple[float, ...]]) -> list[dict[str, Any]]:
    """Each algorithm at its rates, with the cohorts of its own or else the others'."""
    return [
        {"algorithm": name, "cohort": cohort, "rate": rate}
        for name, found in rates.items()
        for cohort, rate in product(cohorts.get(name, cohorts[""]), found)
    ]


BY_MEANS = [
    *({"algorithm": "protonet", "samples": 30, "cohort": 4, "outer_step": step} for step in (0.001, 0.002, 0.005, 0.01)),
    *(
        {"algorithm": "embedding", "samples": 32, "cohort": cohort, "rate": rate}
        for cohort, rate in ((4, 0.05), (4, 0.1), (4, 0.2), (1, 0.01), (1, 0.02), (1, 0.05))
    ),
]
"""Algorithms after which a device adapts by class means, for words."""

GRIDS: dict[str, list[dict[str, Any]]] = {
    "sine": [
        *(
            {"algorithm": "fedavg", "samples": samples, "batch": batch, "cohort": cohort, "rate": lr}
            for (samples, batch), cohort, lr in product(((32, 4), (40, 8)), (2, 5, 10), (0.01, 0.02, 0.05))
        ),
        *(
            {"algorithm": "reptile", "samples": 50, "batch": 10, "cohort": 1, "rate": lr, "outer_step": step, "clip": clip}
            for lr, step, clip in product((0.02, 0.03, 0.05), (0.6, 1.0), (0.0, 4.0))
        ),
        *(
            {"algorithm": "fedprox", "samples": 32, "batch": 4, "cohort": 5, "rate": lr, "pull": pull}
            for lr, pull in product((0.02, 0.05), (0.01, 0.1, 1.0))
        ),
        *(
            {"algorithm": name, "samples": 20, "cohort": cohort, "steps": steps, "rate": lr, "outer_step": step}
            for name, cohort, (steps, lr), step in product(
                ("fomaml", "maml"), (2, 10), ((1, 0.02), (5, 0.01), (5, 0.02)), (0.001, 0.003)
            )
        ),
    ],
    "waves": [
        {"algorithm": "tinyreptile", "samples": 64, "cohort": 1, "rate": 0.012},
        *({"algorithm": "reptile", "cohort": 1, "rate": lr} for lr in (0.02, 0.03)),
        *(
            {"algorithm": name, "cohort": cohort, "outer_schedule": schedule}
            for name, cohort, schedule in product(("fomaml", "maml"), (2, 10), ("constant", "linear"))
        ),
    ],
    "digits": [
        *({"algorithm": "tinyreptile", "cohort": 10, "rate": lr} for lr in (0.05, 0.1, 0.2)),
        *({"algorithm": "reptile", "cohort": 10, "rate": lr} for lr in (0.2, 0.5, 1.0)),
        *({"algorithm": "fedavg", "cohort": 10, "rate": lr} for lr in (0.1, 0.2, 0.5)),
        *({"algorithm": "fedprox", "cohort": 10, "rate": 0.2, "pull": pull} for pull in (0.001, 0.01, 0.1)),
        *(
            {"algorithm": name, "cohort": 10, "steps": steps, "rate": lr, "outer_step": step}
            for name, steps, lr, step in product(("fomaml", "maml"), (1, 5), (0.1, 0.5), (0.001, 0.003))
        ),
        *({"algorithm": "joint", "samples": 32, "cohort": 4, "rate": lr} for lr in (0.05, 0.2, 0.5)),
    ],
    "keywords": BY_MEANS
    + grid(
        {"": (8,)},
        {"tinyreptile": (0.01, 0.02, 0.05), "reptile": (0.1, 0.2, 0.5), "fedavg": (0.1, 0.2, 0.5), "joint": (0.2, 0.5, 1.0)},
    ),
    "words": BY_MEANS
    + grid(
        {"": (8,)},
        {"tinyreptile": (0.02, 0.05, 0.1), "reptile": (0.1, 0.2, 0.5), "fedavg": (0.1, 0.2, 0.5), "joint": (0.1, 0.2, 0.5)},
    ),
    "omniglot": [
        {"algorithm": "protonet", "training_ways": ways, "samples": samples, "cohort": cohort, "outer_step": step}
        for ways, samples, cohort, step in (
            (32, 96, 4, 0.003),
            (32, 160, 4, 0.003),
            (32, 160, 2, 0.002),
            (60, 180, 4, 0.003),
            (60, 180, 2, 0.003),
        )
    ],
    "omniglot-classes": [
        {"algorithm": "embedding", "samples": 32, "batch": batch, "cohort": cohort, "rate": rate, "training_ways": ways}
        for batch, cohort, rate, ways in (
            (1, 2, 0.05, 5),
            (1, 2, 0.05, 20),
            (1, 1, 0.02, 32),
            (1, 1, 0.05, 32),
            (32, 4, 0.5, 20),
            (32, 4, 1.0, 20),
            (32, 1, 0.2, 32),
            (32, 1, 0.5, 32),
        )
    ],
    "activity": grid(
        {"": (1, 5, 10), "joint": (20,)},
        {
            "tinyreptile": (0.005, 0.01, 0.02),
            "reptile": (0.02, 0.05, 0.1),
            "fedavg": (0.02, 0.05, 0.1),
            "joint": (0.02, 0.05, 0.2),
        },
    ),
    "presence": grid(
        {"": (1,)},
        {
            "tinyreptile": (0.005, 0.01, 0.05),
            "reptile": (0.02, 0.1, 0.3),
            "fedavg": (0.02, 0.1, 0.3),
            "joint": (0.02, 0.1, 0.3),
        },
    ),
}


def validation(task: str, data: dict[str, Any], options: dict[str, Any], seed: int) -> tuple[float, float]:
    """The figure to minimise, after training with ``options``, and its adaptation rate; ``data`` says where those of the task
    are."""
    gradients = resolve({"task": task, **data, **options}).build().inner(0).total
    rounds = GRADIENTS[task] // (gradients * options["cohort"])
    config, trained_task, net, theta = learn(**{"task": task, **data}, rounds=rounds, seed=seed, **options)
    shots = config.shots[-1 if "data" in data else 0]
    episodes = trained_task.episodes("validation", evaluation.VALIDATION_EPISODES, shots)
    if net.embeds:
        return float(1 - adapted(net, theta, episodes.support, episodes.query, (0,), b"").accuracy.mean()), 0.0
    figures = []
    for rate in sorted((*evaluation.RATES, *(FINE if task == "waves" else ()))):
        inner = evaluation.inner_loop("batch", episodes.support.samples, 10, rate, config.clip)
        found = core.adapt(net.plan, theta, episodes.support, episodes.query, (10,), inner)
        classifies = net.loss is Loss.softmax_cross_entropy
        figures.append((float(1 - found.accuracy.mean() if classifies else found.loss.mean(dtype=np.float64)), rate))
    return min(figures)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("task", choices=GRIDS)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--only", nargs="+", default=(), metavar="ALGORITHM")
    asked = parser.parse_args()
    task, data = asked.task, {"data": asked.data} if asked.data else dict[str, Any]()
    if task == "words":
        data |= {"task": "keywords", "episodes": "classes", "shots": (1, 5)}
    if task == "waves":
        data |= {"task": "sine"}
    if task.startswith("omniglot"):
        data |= {"task": "omniglot", "network": "conv-16-32-32-32-leaky-relu", "shots": (1,)}
    rows = []
    for options in (each for each in GRIDS[task] if not asked.only or each["algorithm"] in asked.only):
        figures = [validation(task, data, options, seed) for seed in SEEDS]
        rows.append((options["algorithm"], float(np.mean([figure for figure, _ in figures])), figures, options))
        print(rows[-1], file=sys.stderr, flush=True)
    print("| algorithm | mean | by seed | settings |\n| --- | ---: | --- | --- |")
    for algorithm, mean, figures, options in sorted(rows, key=lambda row: row[:2]):
        print(
            f"| {algorithm} | {mean:.4f} | {', '.join(f'{figure:.4f} at {rate:g}' for figure, rate in figures)} | {options} |"
        )
    print(f"\n{provenance()}")


if __name__ == "__main__":
    main()
