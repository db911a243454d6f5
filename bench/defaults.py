"""What a run on the user's own data reaches with no option but the data, beside the best of a search.

    python bench/defaults.py digits                     digits | keywords | activity
    python bench/defaults.py keywords --network dsconv-keywords --data FOLDER

Each set becomes an .npz file as a user would make it: scikit-learn's digits in 60 hands of no order, ten words of Speech
Commands by speaker (those with more clips than the shots), WISDM's activities by person. FOLDER has
speech_commands_test_logmel40.npz and wisdm_users.npz. The search tries 32 points, rate x cohort x rounds, with 3 seeds. Its
best point is chosen by the accuracy on validation devices, and judged, as the defaults are, by that on test devices: after 10
full-batch steps on 10 samples of their own.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from common import provenance

import tinyfl
from tinyfl.core import Engine
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.evaluation import best_rate
from tinyfl.runs.learner import learner_of

RATES, COHORTS, ROUNDS, SEEDS = (0.1, 0.03, 0.01, 0.003), (1, 4, 16), (200, 1000, 5000), (0, 1, 2)
HANDS, SHOTS, TASKS, MOST = 60, 10, 400, 1_000_000
"""MOST: sample gradients of a point."""


def digits(_: Path) -> dict[str, Any]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    hands = np.random.default_rng(0).permutation(np.arange(len(x)) % HANDS)
    return {"x": x.reshape(-1, 8, 8, 1), "y": y, "device": hands}


def keywords(data: Path) -> dict[str, Any]:
    with np.load(data / "speech_commands_test_logmel40.npz") as held:
        clips = np.bincount(held["speaker"][held["core"]], minlength=len(held["speakers"]))
        kept = held["core"] & (clips[held["speaker"]] > SHOTS)
        words, speakers = held["words"][held["word"][kept]], held["speakers"][held["speaker"][kept]]
        return {"x": held["logmel"][kept][..., None], "y": words, "device": speakers}


def activity(data: Path) -> dict[str, Any]:
    with np.load(data / "wisdm_users.npz") as held:
        return {"x": held["X"], "y": held["y"], "device": held["user"]}


SETS = {"digits": digits, "keywords": keywords, "activity": activity}


def validated(file: Path, options: dict[str, Any], seed: int) -> float:
    """The accuracy on validation devices at the best rate of adaptation; 0 for a run that diverges."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = tinyfl.simulate(
                task="npz", data=file, seed=seed, tasks=2, adapt_lr=0.01, threads=1, out=Path(folder) / "run", **options
            )
        except tinyfl.errors.TrainingError:
            return 0.0
        learner = learner_of(RunDirectory(run.path).config())
    found = best_rate(learner.task, learner.network, run.theta, "batch", SHOTS, 0.0, Engine(threads=1))
    return float(found.accuracy) if found else 0.0


def tested(file: Path, options: dict[str, Any], seed: int) -> tuple[float, float, list[str]]:
    """The accuracy on test devices, that of the best method without a network, and the run's first lines."""
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        run = tinyfl.simulate(
            task="npz", data=file, seed=seed, tasks=TASKS, threads=1, on_note=notes.append, out=Path(folder) / "run", **options
        )
    row = next(row for row in run.evaluation if (row["mode"], row["steps"]) == ("batch", 10))
    return row["accuracy"], max(each["accuracy"] for each in run.result["floor"]), notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--network", help="instead of the default one")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--no-search", action="store_true")
    given = parser.parse_args()
    net = {"network": given.network} if given.network else {}
    points = [{**net, "rate": a, "cohort": c, "rounds": r} for a, c, r in product(RATES, COHORTS, ROUNDS) if c * r * 32 <= MOST]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(os.cpu_count()) as pool:
        file = Path(folder) / "own.npz"
        np.savez(file, **SETS[given.set](given.data))

        def submitted(measure: Callable[..., Any], point: dict[str, Any]) -> list[Any]:
            return [pool.submit(measure, file, point, seed) for seed in SEEDS]

        tests = submitted(tested, net)
        searched = [] if given.no_search else [submitted(validated, point) for point in points]
        default, floor = (mean(run.result()[i] for run in tests) for i in range(2))
        print("\n".join(tests[0].result()[2]), flush=True)
        print(f"floor {floor:.1%}, default {default:.1%}", flush=True)
        if given.no_search:
            return
        found = []
        for point, runs in zip(points, searched, strict=True):
            found.append(mean(run.result() for run in runs))
            print(json.dumps({**point, "validation": round(found[-1], 4)}), flush=True)
        chosen = points[found.index(max(found))]
        best = mean(run.result()[0] for run in submitted(tested, chosen))
    how = ", ".join(f"{name} {value}" for name, value in chosen.items() if name not in net)
    figures = " | ".join(f"{each:.1%}" for each in (floor, default, best))
    print(f"| {given.set} | {given.network or 'default'} | {figures} | {how} |")
    print(f"{time.monotonic() - start:.0f} s; seeds {', '.join(map(str, SEEDS))}; {provenance()}")


if __name__ == "__main__":
    main()
