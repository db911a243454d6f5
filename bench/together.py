"""What devices that learn online gain by others, and by asking.

    python bench/together.py [--runs FOLDER]

The vibration-like stream of drift.py, on machines whose sensors differ, learnt from a share of the labels. The fourth mode
appears at half of them at sample 500, and at the others at 1,000. Means over 5 seeds with 95 % intervals (Student); FOLDER
keeps the runs.

Heads averaged by class name, beside each device alone; and labels only of samples that the device is unsure of, beside as many
of any samples, on the stream of drift.py.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from common import provenance
from drift import BANDS, CAP, MODES, SEEDS, interval, machine, vibration

from tinyfl.online import Head, OnlineSet, Standardised, starts
from tinyfl.online.prequential import course_of, through
from tinyfl.online.worlds import World
from tinyfl.runs.adaptation import Initialisation

MACHINES, EVERY = 8, 100


def together(folder: Path) -> None:
    """Each device alone, and with heads that are averaged every EVERY samples."""
    meet = vibration(folder)
    print(f"\ntogether: {MACHINES} machines\n| labels | heads | whole stream | fourth mode, its first 20 where it comes late |")
    print("| --- | --- | --- | --- |")
    for share in (0.05, 0.2, 1.0):
        rows: dict[int, list[list[float]]] = {0: [], EVERY: []}
        for seed in range(SEEDS):
            runs, _ = meet(seed, "test")
            start = starts.of_run(runs["joint"])
            set = OnlineSet(Head.classes, BANDS, 8, 4, Standardised.inputs, cap=CAP, rate=0.1)
            for every, found in rows.items():
                fleet = [_machine_of(seed, number, runs["joint"]) for number in range(MACHINES)]
                courses = [
                    course_of(world, start, set, share=share, delay=0, prior=CAP, seed=seed, number=number)
                    for number, world in enumerate(fleet)
                ]
                through(courses, every=every)
                late = [course.figure[course.world.y == MODES[3]][:20].mean() for course in courses[MACHINES // 2 :]]
                found.append([float(np.mean([course.figure.mean() for course in courses])), float(np.mean(late))])
        for every, found in rows.items():
            cells = " | ".join(interval([row[k] for row in found], 3) for k in range(2))
            print(f"| {share:.0%} | {'averaged' if every else 'alone'} | {cells} |", flush=True)


def asking(folder: Path) -> None:
    """TinyOL at rate 0.1 with the labels that it wants, and with the same share of all labels."""
    meet = vibration(folder)
    print("\nasking\n| unsure | labels | asked | the same share of any samples |\n| --- | --- | --- | --- |")
    for unsure in (0.5, 0.7, 0.9):
        rows = list[tuple[float, float, float]]()
        for seed in range(SEEDS):
            runs, world = meet(seed, "test")
            asked, share = _asked(runs["joint"], world, unsure, 1.0)
            rows.append((share, asked, _asked(runs["joint"], world, 0.0, share)[0]))
        print(f"| {unsure} | {' | '.join(interval([row[k] for row in rows], 3) for k in range(3))} |", flush=True)


def _asked(run: Initialisation, world: World, unsure: float, share: float) -> tuple[float, float]:
    """Accuracy, and the share of the labels that came."""
    start = starts.of_run(run)
    places = len(start.names) + 4
    set = OnlineSet(start.kind, BANDS, 8, places, Standardised.inputs, cap=CAP, rate=0.1, unsure=unsure)
    course = course_of(world, start, set, share=share, delay=0, prior=CAP, seed=0, number=0)
    through([course])
    return float(course.figure.mean()), course.device.state["labelled"] / len(world)


def _machine_of(seed: int, number: int, start: Initialisation) -> World:
    rng = np.random.default_rng((seed, number, 24))
    first, last = (500, 1000) if number < MACHINES // 2 else (1000, 500)
    modes = np.concatenate([rng.integers(0, 3, first), rng.integers(0, 4, last)])
    x = machine(rng, modes.tolist(), rng.uniform(0.8, 1.6), rng.uniform(-1, 1))
    return World(start.standard.apply(x), np.array(MODES, object)[modes], (0, first), ("three modes", "fourth mode"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = options.runs or Path(folder)
        runs.mkdir(exist_ok=True, parents=True)
        together(runs)
        asking(runs)
    print(json.dumps({"provenance": provenance()}))


if __name__ == "__main__":
    main()
