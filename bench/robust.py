"""Poisoned devices under each aggregator, and accuracy against epsilon: the tables of docs/robust.md.

    python bench/robust.py poison     a fifth of each cohort poisoned, four attacks, the mean and three others; about 20 minutes
    python bench/robust.py noise      none and three levels of noise, without a clip of the gradient and with; about 25 minutes

Task digits, TinyReptile, 60 rounds of 64 samples a device, an outer step of 3 (a long one, for so few rounds), seeds 0 to 4;
accuracy after ten full-batch steps, the mean over seeds of the mean over 500 unseen devices, +- half of a 95 % interval over
seeds.
"""

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from common import adapted, measured, provenance
from compare import interval

from tinyfl.aggregators import aggregator, privacy_spent
from tinyfl.algorithms import State, Updates
from tinyfl.config import AGGREGATORS, Config, resolve
from tinyfl.core import Engine
from tinyfl.fleet import draw_cohort
from tinyfl.flower.grid import FleetAddresses, FleetGrid
from tinyfl.flower.messages import theta_record
from tinyfl.flower.strategy import FleetStrategy
from tinyfl.networks import network
from tinyfl.simulators.faults.poison import ATTACKS, FACTORS, Attack, PoisonedGrid, draw_poisoned
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks import load_task

logging.getLogger("flwr").setLevel(logging.ERROR)
SEEDS = range(5)
SETTINGS: dict[str, Any] = {"task": "digits", "nodes": "devices", "samples": 64, "outer_step": 3.0, "rounds": 60, "tasks": 500}
POISON: dict[str, Any] = {**SETTINGS, "devices": 100, "cohort": 100}
LARGER: dict[str, Any] = {**POISON, "devices": 1000, "aggregator": "trimmed-mean"}
NOISE: dict[str, Any] = {**SETTINGS, "devices": 1000, "cohort": 500, "update_clip": 2.8}
NOISES = [(clip, noise) for clip in (0.0, 0.5) for noise in (0.0, 1.0, 4.0, 10.0)]
"""--clip and --noise. The clip keeps devices from diverging under noise; chosen on seed 100."""


def learnt(options: dict[str, Any], attack: Attack | None = None, share: float = 0.2) -> dict[str, Any]:
    """The result of a run with a given share of poisoned devices: accuracy by shots, updates left out, epsilon, the median norm
    of the last round's updates, and the number of rounds with more poisoned devices than their share."""
    config = resolve(options)
    task = load_task(config.task, None, config.seed)
    net = network(config.network, task.shape, task.outputs, task.loss, task.activation)
    fleet = NativeFleet(task, net, config.devices, Engine(threads=1))
    grid: FleetAddresses = FleetGrid(fleet, None)
    poisoned = draw_poisoned(config.seed, round(share * config.devices), config.devices) if attack else frozenset()
    if attack:
        grid = PoisonedGrid(FleetGrid(fleet, None), poisoned, attack)
    left_out: Counter[str] = Counter()

    def count(_: State, updates: Updates) -> None:
        left_out.update(updates.left_out)

    chosen = aggregator(config)
    start = State(0, net.initial_weights(config.seed))
    strategy = FleetStrategy(
        config.build(), start, cohort=config.cohort, fleet_size=config.devices, seed=config.seed, each_device=True,
        aggregator=chosen, minimum=config.minimum, on_round=count,
    )  # fmt: skip
    strategy.start(grid, theta_record(start.theta), num_rounds=config.rounds)
    assert strategy.state.round == config.rounds, "a round without one update"
    theta = strategy.state.theta
    rows = measured(config, task, net, theta)
    last = fleet.run_each(_cohort(config, config.rounds - 1), config.rounds - 1, theta, config.build().inner(0))
    return {
        "accuracy": {shots: adapted([row for row in rows if row.shots == shots], 10).accuracy for shots in config.shots},
        "left_out": dict(left_out),
        "spent": privacy_spent(chosen),
        "norm": float(np.median(np.linalg.norm(last.phi - theta, axis=1))),
        "over": sum(len(poisoned & set(_cohort(config, r).tolist())) > share * config.cohort for r in range(config.rounds)),
    }


def _cohort(config: Config, round: int) -> Any:
    return draw_cohort(config.seed, round, config.cohort, config.devices)


def most_asked(config: Config) -> int:
    """The maximum number of rounds of any device."""
    return int(np.bincount(np.concatenate([_cohort(config, r) for r in range(config.rounds)])).max())


def row(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def accuracies(runs: Sequence[dict[str, Any]]) -> list[str]:
    return [interval([run["accuracy"][shots] for run in runs]) for shots in runs[0]["accuracy"]]


def absent(runs: Sequence[dict[str, Any]]) -> str:
    """Number of updates left out, minimum and maximum over the runs, and the reasons."""
    gone = [sum(run["left_out"].values()) for run in runs]
    reasons = ", ".join(sorted({reason for run in runs for reason in run["left_out"]}))
    return f"{spread(gone, ',')} {reasons}" if max(gone) else "none"


def spread(figures: Sequence[float], form: str) -> str:
    low, high = format(min(figures), form), format(max(figures), form)
    return low if low == high else f"{low} – {high}"


def poison(pool: ProcessPoolExecutor) -> None:
    def start(options: dict[str, Any], attack: Attack | None) -> list[Any]:
        return [pool.submit(learnt, {**options, "seed": seed}, attack) for seed in SEEDS]

    attacks: tuple[Attack | None, ...] = (None, *ATTACKS)
    work = {
        (attack, name or "mean"): start({**POISON, "aggregator": name}, attack)
        for attack in attacks
        for name in ("", *AGGREGATORS)
    }
    # krum follows one device, for which an outer step of 3 is too large
    alone = {**POISON, "aggregator": "krum", "outer_step": 1.0}
    work |= {(attack, "krum, outer step 1"): start(alone, attack) for attack in attacks[:2]}
    larger = {tolerate: start({**LARGER, "tolerate": tolerate}, "scaled") for tolerate in (0.2, 0.35)}
    print("| 20 of 100 devices | aggregator | 1 shot | 5 shots | left out of 6,000 updates, range over seeds |")
    print("| --- | --- | ---: | ---: | --- |")
    for (attack, name), jobs in work.items():
        runs = [job.result() for job in jobs]
        what = attack or "no poison"
        factor = f" by {FACTORS[attack]:g}" if attack in FACTORS else ""
        row([what + factor, name, *accuracies(runs), absent(runs)])
    print("\n| 200 of 1,000 devices, cohorts of 100, scaled | 1 shot | 5 shots | rounds with more than 20 poisoned |")
    print("| --- | ---: | ---: | --- |")
    for tolerate, jobs in larger.items():
        runs = [job.result() for job in jobs]
        over = [run["over"] for run in runs]
        row([f"trimmed-mean, tolerate {tolerate:g}", *accuracies(runs), f"{spread(over, 'd')} of 60"])


def noise(pool: ProcessPoolExecutor) -> None:
    from dp_accounting import GaussianDpEvent
    from dp_accounting.rdp import RdpAccountant

    def start(options: dict[str, Any]) -> list[Any]:
        return [pool.submit(learnt, {**options, "seed": seed}) for seed in SEEDS]

    unclipped = start({**NOISE, "update_clip": 0.0})
    work = {(clip, level): start({**NOISE, "clip": clip, "noise": level}) for clip, level in NOISES}
    most = [most_asked(resolve({**NOISE, "seed": seed})) for seed in SEEDS]
    runs = [job.result() for job in unclipped]
    norms = [run["norm"] for run in runs]
    print(f"Median norm of an update after the last round without clipping: {min(norms):.2f} – {max(norms):.2f} over seeds.\n")
    print("| clip | update clip | noise | epsilon | of the device asked most often | 1 shot | 5 shots | absent of 30,000 |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    row(["none", "none", "0", "∞", "∞", *accuracies(runs), absent(runs)])
    for (clip, level), jobs in work.items():
        runs = [job.result() for job in jobs]
        whole = theirs = "∞"
        if level:
            spent, own = runs[0]["spent"], []
            assert all(run["spent"] == spent for run in runs), "diverged devices or not, every round is a release"
            for rounds in most:
                accountant = RdpAccountant()
                accountant.compose(GaussianDpEvent(level), rounds)
                own.append(accountant.get_epsilon(spent["delta"]))
            whole, theirs = f"{spent['epsilon']:.1f}", spread(own, ".1f")
        clips = f"{clip:g}" if clip else "none", f"{NOISE['update_clip']:g}"
        row([*clips, f"{level:g}", whole, theirs, *accuracies(runs), absent(runs)])


def main() -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        {"poison": poison, "noise": noise}[sys.argv[1]](pool)
    print(f"\nseeds {list(SEEDS)}; {provenance()}")


if __name__ == "__main__":
    main()
