"""TinyReptile against its baselines at equal compute: the tables of the README.

    python bench/compare.py sine     seeds 0 to 7, a million sample gradients each; about ten minutes
    python bench/compare.py digits   seeds 0 to 4, 1.28 million sample gradients each; about ten minutes
    python bench/compare.py digits fedavg     only this one, and the random start

Settings are the defaults of tinyfl.config, chosen by bench/tune.py on other seeds. Each figure is the mean over seeds of the
mean over 2,000 unseen devices; +- is half of a 95 % interval over seeds (Student's t).
"""

from argparse import ArgumentParser

import numpy as np
from common import adapted, learn, measured, provenance
from scipy.stats import t

from tinyfl.networks import network
from tinyfl.runs import evaluation, floors
from tinyfl.runs.evaluation import Row
from tinyfl.tasks import load_task

SEEDS = {"sine": range(8), "digits": range(5)}
ALGORITHMS = ("tinyreptile", "reptile", "fedavg", "joint")


def interval(figures: list[float]) -> str:
    diverged = int((~np.isfinite(figures)).sum())
    if diverged:
        return f"diverged for a device in {diverged} of {len(figures)} seeds"
    width = t.ppf(0.975, len(figures) - 1) * np.std(figures, ddof=1) / np.sqrt(len(figures))
    return f"{np.mean(figures):.4f} ± {width:.4f}"


def figure(row: Row) -> float:
    """Accuracy if the task has it, else loss."""
    return row.loss if row.accuracy is None else row.accuracy


def table(task: str, name: str, rows: list[list[Row]], shots: tuple[int, ...]) -> None:
    for shot in shots:
        for mode in evaluation.MODES:
            cells = []
            for steps in (1, 10, 32):
                figures = [figure(adapted([r for r in row if r.shots == shot], steps, mode)) for row in rows]
                cells.append(interval(figures))
            worst = [figure(adapted([r for r in row if r.shots == shot], 10, mode)) for row in rows]
            cells.append(f"{min(worst):.4f} – {max(worst):.4f}")
            print(f"| {task} | {name} | {mode} | {shot} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("task", choices=SEEDS)
    parser.add_argument("algorithms", nargs="*", choices=ALGORITHMS, default=ALGORITHMS, help="these only; default: all four")
    asked = parser.parse_args()
    task = asked.task
    print("| task | start | mode | shots | 1 step | 10 steps | 32 steps | range over seeds, 10 steps |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for algorithm in asked.algorithms:
        rows = []
        for seed in SEEDS[task]:
            config, trained_task, net, theta = learn(task=task, algorithm=algorithm, seed=seed)
            rows.append(measured(config, trained_task, net, theta))
        table(task, algorithm, rows, config.shots)
    rows, below = [], []
    for seed in SEEDS[task]:
        loaded = load_task(task, None, seed)
        net = network(config.network, loaded.shape, loaded.outputs, loaded.loss, loaded.activation)
        rows.append(evaluation.measure(loaded, net, net.initial_weights(seed), shots=config.shots, tasks=config.tasks))
        below.append(floors.floor(loaded, net, shots=config.shots, tasks=config.tasks))
    table(task, "random", rows, config.shots)
    for number, row in enumerate(below[0]):
        what = "loss" if row["accuracy"] is None else "accuracy"
        print(f"| {task} | {row['method']} | | {row['shots']} | | {interval([f[number][what] for f in below])} | | |")
    print(f"\nseeds {list(SEEDS[task])}; {provenance()}")


if __name__ == "__main__":
    main()
