"""How long FLAIR takes on this machine: scaling its photos once, the rounds, and the evaluation.

Run as `python bench/flair.py FLAIR`, with FLAIR's folder, an HDF5 file of it, or some of its photos in one of these layouts;
`--config FILE` has other settings than the default, such as those of docs/flair.md. Half a minute. It measures the processors'
time for a photo from there and from a scaled file, and for a gradient, and multiplies it by their numbers in the whole set:
other work does not disturb it, and a slow disk is not in it.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from common import provenance

from tinyfl.algorithms import with_layers
from tinyfl.config import resolve
from tinyfl.core import F32, FASTEST, U8, U32, TableSource
from tinyfl.data.flair import Photos, open_photos
from tinyfl.networks import Network, network
from tinyfl.runs.evaluation import LEADING_STEPS, MODES, RATES, STEPS, VALIDATION_EPISODES
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks.flair import MAX_QUERIES, WHITE, Flair

PHOTOS, USERS = 429_078, 51_414
LABELS = {"coarse": 17, "fine": 1628}
USER = 8
"""Photos of a user, on average."""

LEARNS = 3
"""Work of a gradient, in forward passes."""

SECONDS = 4
"""Time for each measurement."""


@dataclass
class Noise:
    """Samples like FLAIR's, but noise that is in memory already."""

    table: U8
    targets: F32

    def stream(self, devices: U32, round: int, samples: int) -> TableSource:
        rows = np.resize(np.arange(len(self.table), dtype=np.int32), (len(devices), samples))
        return TableSource(self.table, rows, targets=self.targets, gain=np.full(len(devices), 1 / WHITE, np.float32))


def of_a_photo(photos: Photos, side: int) -> float:
    """Seconds to read a photo with its labels, a user's at a time."""
    read, start = 0, time.process_time()
    while True:
        for user in range(len(photos.users["train"])):
            truth = photos.truth("train", user)
            read += len(photos.pixels("train", user, np.arange(len(truth)), side))
            if time.process_time() - start > SECONDS:
                return (time.process_time() - start) / read


def scaled_file(path: Path, side: int, labels: int) -> Path:
    """A file in the layout that tinyfl.data.flair.shrink writes, with noise."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["metadata/label_mapping"] = json.dumps({f"{label:04}": label for label in range(labels)})
        for user in range(1000):
            partition = {0: "val", 1: "test"}.get(user, "train")
            group = file.create_group(f"{partition}/{user}")
            group["image_ids"] = np.arange(USER).astype("S")
            group["images"] = rng.integers(0, 256, (USER, side, side, 3), np.uint8)
            group["labels_row"], group["labels_col"] = np.arange(USER), rng.integers(0, labels, USER)
    return path


def of_a_gradient(net: Network, cohort: int, samples: int) -> float:
    """Seconds of a gradient in a round, on all processors."""
    rng = np.random.default_rng(0)
    table = rng.integers(0, 256, (1024, net.inputs), np.uint8)
    task = Noise(table, (rng.random((1024, net.outputs)) < 0.1).astype(np.float32))
    fleet, theta = NativeFleet(task, net, cohort), net.initial_weights(0)
    loop = with_layers(resolve({"task": "flair", "samples": samples}).build(), net.weighted_layers).inner(0)
    rounds, start, threads = 0, time.process_time(), FASTEST.resolved()[1]
    while time.process_time() - start < SECONDS:
        fleet.run(np.arange(cohort, dtype=np.uint32), rounds, theta, loop)
        rounds += 1
    return (time.process_time() - start) / (threads * rounds * cohort * samples)


def duration(seconds: float) -> str:
    return f"{seconds / 60:,.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("flair", type=Path)
    parser.add_argument("--config", type=Path)
    arguments = parser.parse_args()
    config = resolve({"task": "flair", "data": str(arguments.flair)}, arguments.config)
    side, labels = config.image_side, LABELS[config.label_set]
    net = network(config.network, (side, side, 3), labels, Flair.loss, Flair.activation)
    inner = with_layers(config.build(), net.weighted_layers).inner(0)
    photo = of_a_photo(open_photos(arguments.flair), side)
    with tempfile.TemporaryDirectory() as folder:
        small = of_a_photo(open_photos(scaled_file(Path(folder) / "small.hdf5", side, LABELS["coarse"])), side)
    gradient = of_a_gradient(net, min(config.cohort, 64), inner.samples)

    taken = config.rounds * config.cohort * inner.samples
    devices = VALIDATION_EPISODES * LEADING_STEPS * len(RATES) + config.tasks * max(STEPS)
    answers = config.tasks * MAX_QUERIES * len(STEPS) / LEARNS
    evaluated = 2 * len(MODES) * (sum(config.shots) * devices + len(config.shots) * answers)
    if config.evaluate_every:
        on_validation = min(config.shots) * VALIDATION_EPISODES * LEADING_STEPS * len(RATES)
        evaluated += config.rounds // config.evaluate_every * on_validation
    print(f"{net.name}, {net.parameters:,} weights, {side} x {side} pixels; learns in {net.ram_bytes(inner):,} bytes of RAM\n")
    print("| what | number | each | in all |\n| --- | ---: | ---: | ---: |")
    for what, number, seconds in (
        ("scale every photo, once", PHOTOS, photo),
        ("or: photos of the rounds, as they are", taken, photo),
        ("photos of the rounds, from a scaled file", taken, small),
        ("gradients of the rounds", config.rounds * config.cohort * inner.total, gradient),
        ("gradients of the evaluations, at most", evaluated, gradient),
    ):
        print(f"| {what} | {number:,.0f} | {1e6 * seconds:,.0f} µs | {duration(number * seconds)} |")
    print(f"\nThe scaled file has {PHOTOS * side * side * 3 / 1e9:.1f} GB. {provenance()}.")


if __name__ == "__main__":
    main()
