"""How Reptile's and FedAvg's settings for the sine task were chosen: a grid on two seeds that the comparison does not use.

    python bench/tune_sine.py

Every setting spends the comparison's million sample gradients; the table is sorted by the mean over seeds of the adapted
loss after 10 full-batch steps on validation devices, whose rate is chosen on them too (so the figures flatter themselves).
"""

from itertools import product
from typing import Any

import numpy as np
from common import learn, provenance

from tinyfl import core, evaluation

SEEDS = (100, 101)
GRADIENTS = 1_000_000

REPTILE = [
    {"algorithm": "reptile", "samples": 50, "batch": 10, "cohort": 1, "inner_lr": lr, "outer_step": step, "clip": clip}
    for lr, step, clip in product((0.02, 0.03, 0.05), (0.6, 1.0), (0.0, 4.0))
]
FEDAVG = [
    {"algorithm": "fedavg", "samples": samples, "batch": batch, "cohort": cohort, "inner_lr": lr}
    for (samples, batch), cohort, lr in product(((32, 4), (40, 8)), (2, 5, 10), (0.01, 0.02, 0.05))
]


def validation_loss(options: dict[str, Any], seed: int) -> float:
    rounds = GRADIENTS // (options["samples"] * options["cohort"])
    config, task, net, theta = learn(task="sine", rounds=rounds, seed=seed, **options)
    episodes = task.episodes("validation", evaluation.VALIDATION_EPISODES, 10)
    losses = [
        core.adapt(
            net.plan, theta, episodes.support, episodes.query, (10,), stream=False, rate=rate, clip=config.clip
        ).loss.mean()
        for rate in evaluation.RATES
    ]
    return float(np.min(losses))


def main() -> None:
    for grid in (FEDAVG, REPTILE):
        rows = []
        for options in grid:
            losses = [validation_loss(options, seed) for seed in SEEDS]
            rows.append((float(np.mean(losses)), losses, options))
            print(rows[-1], flush=True)
        print("\n| loss, mean | by seed | settings |\n| --- | --- | --- |")
        for mean, losses, options in sorted(rows, key=lambda row: row[0]):
            print(f"| {mean:.4f} | {', '.join(f'{loss:.4f}' for loss in losses)} | {options} |")
    print(provenance())


if __name__ == "__main__":
    main()
