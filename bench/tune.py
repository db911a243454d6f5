"""Selection of the baselines' hyperparameters: a grid on two seeds that the comparisons do not use.

    python bench/tune.py sine | digits

Every setting uses as many sample gradients as the default TinyReptile run of the task. The tables are sorted by the mean
over seeds of the result after 10 full-batch steps on validation devices (loss for sine; error, 1 - accuracy, for digits at
1 shot), on which the adaptation rate is chosen too: all figures are optimistic in the same way.
"""

import sys
from itertools import product
from typing import Any

import numpy as np
from common import learn, provenance

from tinyfl import core
from tinyfl.networks.layers import Loss
from tinyfl.runs import evaluation

SEEDS = (100, 101)
GRADIENTS = {"sine": 1_000_000, "digits": 1_280_000}
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
    ],
    "digits": [
        *({"algorithm": "tinyreptile", "cohort": 10, "rate": lr} for lr in (0.05, 0.1, 0.2)),
        *({"algorithm": "reptile", "cohort": 10, "rate": lr} for lr in (0.2, 0.5, 1.0)),
        *({"algorithm": "fedavg", "cohort": 10, "rate": lr} for lr in (0.1, 0.2, 0.5)),
        *({"algorithm": "joint", "samples": 32, "cohort": 4, "rate": lr} for lr in (0.05, 0.2, 0.5)),
    ],
}


def validation(task: str, options: dict[str, Any], seed: int) -> float:
    """The figure to minimise, after training with ``options``."""
    samples = options.get("samples", {"reptile": 50, "fedavg": 40}.get(options["algorithm"], 32))
    rounds = GRADIENTS[task] // (samples * options["cohort"])
    config, trained_task, net, theta = learn(task=task, rounds=rounds, seed=seed, **options)
    episodes = trained_task.episodes("validation", evaluation.VALIDATION_EPISODES, config.shots[0])
    figures = []
    for rate in evaluation.RATES:
        inner = evaluation.inner_loop("batch", episodes.support.samples, 10, rate, config.clip)
        adapted = core.adapt(net.plan, theta, episodes.support, episodes.query, (10,), inner)
        classifies = net.loss is Loss.softmax_cross_entropy
        figures.append(float(1 - adapted.accuracy.mean() if classifies else adapted.loss.mean(dtype=np.float64)))
    return min(figures)


def main() -> None:
    task = sys.argv[1]
    rows = []
    for options in GRIDS[task]:
        figures = [validation(task, options, seed) for seed in SEEDS]
        rows.append((options["algorithm"], float(np.mean(figures)), figures, options))
        print(rows[-1], file=sys.stderr, flush=True)
    print("| algorithm | mean | by seed | settings |\n| --- | ---: | --- | --- |")
    for algorithm, mean, figures, options in sorted(rows, key=lambda row: row[:2]):
        print(f"| {algorithm} | {mean:.4f} | {', '.join(f'{figure:.4f}' for figure in figures)} | {options} |")
    print(f"\n{provenance()}")


if __name__ == "__main__":
    main()
