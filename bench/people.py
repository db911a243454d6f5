"""Keywords, activity and presence: each algorithm before and after adapting, with intervals over people or days.

    python bench/people.py keywords keywords.npz [--words] [--seeds N]
    python bench/people.py activity WISDM_ar_latest.tar.gz
    python bench/people.py presence room+occupancy+estimation.zip

With --keep FOLDER the figures of each start and seed are kept there, and read instead of measured again: give the same options.
With the tasks' default settings. A figure is the mean over the people (of presence: the days) that are tested in any of the
seeds, in per cent, +- half of a 95 % interval over them (Student's t). The last column is the difference from joint training,
or else from the first algorithm of --only, adapted on the most samples, on the same people, seeds and episodes.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from common import learn, provenance
from scipy.stats import t

from tinyfl import core
from tinyfl.config import Config, resolve
from tinyfl.core import F32
from tinyfl.networks import Network
from tinyfl.runs import evaluation, floors
from tinyfl.runs.adapted import adapted
from tinyfl.runs.evaluation import LEADING_STEPS
from tinyfl.runs.learner import fitted
from tinyfl.tasks import NamedTask, Task

Figures = dict[tuple[str, int, int], dict[str, list[float]]]
"""For each start, shots and steps, the accuracy of each person in each seed."""

BY_STEPS = ("tinyreptile", "reptile", "fedavg", "joint")
BY_MEANS = ("protonet", "embedding")
"""Algorithms after which a device adapts by gradient steps, and those after which it adapts by class means."""

RANDOM = "random start"
"""Not trained; the floors are measured beside it."""

EPISODES = {"keywords": 200, "activity": 500, "presence": 500}
"""How many are tested in a seed."""


def start(name: str, options: dict[str, Any], seed: int) -> tuple[Config, Task, Network, F32]:
    """The initial weights that an algorithm finds, or random ones."""
    if name == RANDOM:
        config, learner = fitted(resolve(options | {"algorithm": BY_STEPS[0], "seed": seed}))
        return config, learner.task, learner.network, learner.network.initial_weights(seed)
    before = time.perf_counter()
    learnt = learn(algorithm=name, seed=seed, **options)
    print(f"seed {seed}, {name}: {time.perf_counter() - before:.0f} s of training", file=sys.stderr, flush=True)
    return learnt


def add(figures: Figures, key: tuple[str, int, int], names: list[str], values: Any, device: Any) -> None:
    """Adds the mean of each device's ``values`` (episodes,)."""
    for number, name in enumerate(names):
        figures[key][name].append(float(np.mean(values[device == number])))


def measured(name: str, config: Config, task: Task, net: Network, theta: F32) -> Figures:
    """What the start ``theta`` reaches, unadapted and adapted; of a random one the floors too."""
    assert isinstance(task, NamedTask)
    figures: Figures = defaultdict(lambda: defaultdict(list))
    people = [each.partition(" from ")[2] or each for each in task.device_names("test")]
    for shots in config.shots:
        episodes, steps, loop = task.episodes("test", config.tasks, shots), (0, LEADING_STEPS), b""
        if net.embeds:
            steps = (LEADING_STEPS,)
        else:
            rate = evaluation.choose_rate(task, net, theta, "batch", shots, config.clip, core.FASTEST)
            loop = evaluation.inner_loop("batch", episodes.support.samples, LEADING_STEPS, rate, config.clip)
        found = adapted(net, theta, episodes.support, episodes.query, steps, loop)
        for k, after in enumerate(steps):
            add(figures, (name, shots, after), people, found.accuracy[k], episodes.device)
        if name == RANDOM:
            for method, _, values in floors.trivial(task, net, episodes):
                add(figures, (method, shots, LEADING_STEPS), people, values, episodes.device)
    return figures


def figures_of(name: str, options: dict[str, Any], seed: int, kept: Path | None) -> Figures:
    """The figures of one start in one seed: those in the file ``kept`` if there is one, else measured and kept there."""
    if kept and kept.exists():
        return {(which, shots, steps): held for which, shots, steps, held in json.loads(kept.read_text())}
    figures = measured(name, *start(name, options, seed))
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps([[*key, held] for key, held in figures.items()]))
    return figures


def shown(values: list[float]) -> str:
    """The mean in per cent, with its interval."""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{100 * np.mean(values):.1f} ± {100 * half:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("keywords", "activity", "presence"))
    parser.add_argument("data")
    parser.add_argument("--words", action="store_true", help="keywords: unseen words of unseen speakers")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=BY_STEPS + BY_MEANS, default=BY_STEPS, help="algorithms")
    parser.add_argument("--rounds", type=int, default=0, help="instead of the task's default, for a short trial")
    parser.add_argument("--keep", type=Path, help="a folder for the figures of each seed")
    given = parser.parse_args()
    options: dict[str, Any] = {"task": given.task, "data": given.data, "tasks": EPISODES[given.task]}
    options |= {"episodes": "classes", "shots": (1, 5)} if given.words else {}
    options |= {"rounds": given.rounds} if given.rounds else {}
    figures: Figures = defaultdict(lambda: defaultdict(list))
    began = time.perf_counter()
    for seed in range(given.seeds):
        for start_name in (*given.only, RANDOM):
            named = f"{given.task}{'-words' * given.words}-{seed}-{start_name.replace(' ', '-')}.json"
            for key, held in figures_of(start_name, options, seed, given.keep and given.keep / named).items():
                for name, values in held.items():
                    figures[key][name] += values
    people = {key: {name: float(np.mean(each)) for name, each in held.items()} for key, held in figures.items()}
    shots = sorted({key[1] for key in people})
    against = "joint" if "joint" in given.only else given.only[0]
    print(f"| start | unadapted | {' | '.join(f'{n} samples' for n in shots)} | less {against} |")
    print(f"| --- | ---: |{' ---: |' * len(shots)} ---: |")
    for name in dict.fromkeys(key[0] for key in people):
        before = people.get((name, shots[-1], 0))
        cells = [shown(list(before.values())) if before else ""]
        cells += [shown(list(people[name, n, LEADING_STEPS].values())) for n in shots]
        base = people[against, shots[-1], LEADING_STEPS]
        less = [value - base[person] for person, value in people[name, shots[-1], LEADING_STEPS].items()]
        print(f"| {name} | {' | '.join(cells)} | {shown(less) if name != against else ''} |")
    tested = len(next(iter(people.values())))
    print(f"\n{tested} tested, seeds 0 to {given.seeds - 1}, {time.perf_counter() - began:.0f} s; {provenance()}")


if __name__ == "__main__":
    main()
