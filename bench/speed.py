"""Speed and memory: device-rounds per second of the cohort call and through Flower, in pairs.

    python bench/speed.py            about two minutes
    python bench/speed.py --million  one cohort of 1,000,000 devices, 3 rounds: seconds and peak memory

Sine, 1-32-32-1 tanh, 32 samples at batch 1, cohorts of 1,000. Two variants alternate, A B A B;
medians, and the median of the pairs' ratios. ``scalar`` is the same source at one lane without the compiler's vectorisation
(-fno-tree-vectorize), which the wide form does not use.
"""

import argparse
import logging
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import peak_mib, provenance

import tinyfl
from tinyfl import core
from tinyfl.algorithms import Inner, State
from tinyfl.algorithms.tinyreptile import TinyReptile
from tinyfl.core import Engine
from tinyfl.core.binding import declare
from tinyfl.fleet import draw_cohort
from tinyfl.flower.grid import FleetGrid
from tinyfl.flower.messages import theta_record
from tinyfl.flower.strategy import FleetStrategy
from tinyfl.networks import Network, network
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks import Task, load_task
from tinyfl.tasks.episodic import ClassPool, Episodic

COHORT, SIZE, PAIRS, TURNS = 1000, 100_000, 15, 9
TASK = load_task("sine", None, 0)
NET = network("mlp-32-32-tanh", (1,), 1, TASK.loss, TASK.activation)
INNER = Inner(samples=32, rate=0.02)


def call(engine: Engine, cohort: int = COHORT) -> float:
    """Device-rounds per second of one cohort call."""
    fleet = NativeFleet(TASK, NET, SIZE, engine)
    theta, devices = NET.initial_weights(0), draw_cohort(0, 0, cohort, SIZE)
    start = time.perf_counter()
    fleet.run(devices, 0, theta, INNER)
    return cohort / (time.perf_counter() - start)


def through_flower(engine: Engine, until: int, rounds: int = 40) -> float:
    """Device-rounds per second through the strategy, its messages and the grid: in stretches up to the round ``until``, or with
    a message a round if it is 0."""
    strategy = FleetStrategy(
        TinyReptile(rounds=rounds, rate=0.02), State(0, NET.initial_weights(0)),
        cohort=COHORT, fleet_size=SIZE, seed=0, until=until,
    )  # fmt: skip
    grid = FleetGrid(NativeFleet(TASK, NET, SIZE, engine), 1)
    start = time.perf_counter()
    strategy.start(grid, theta_record(strategy.state.theta), num_rounds=strategy.messages(grid) if until else rounds)
    return rounds * COHORT / (time.perf_counter() - start)


def pairs(a: Callable[[], float], b: Callable[[], float]) -> tuple[float, float, float]:
    """Medians of both, and the median ratio a / b."""
    a(), b()
    both = [(a(), b()) for _ in range(PAIRS)]
    return (
        statistics.median(x for x, _ in both),
        statistics.median(y for _, y in both),
        statistics.median(x / y for x, y in both),
    )


def scalar_core(folder: Path) -> Path:
    """The library with every engine compiled with the wide engine's flags, but without the compiler's own vectorisation."""
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "CFLAGS": "-fno-tree-vectorize -fno-tree-slp-vectorize"}
    for command in (["cmake", "-S", str(root), "-B", str(folder)], ["cmake", "--build", str(folder)]):
        subprocess.run(command, check=True, capture_output=True, env=environment)
    return next(folder.glob("libtinyfl.*"))


def on_library(path: Path, work: Callable[[], float]) -> Callable[[], float]:
    """Runs ``work`` with the core at ``path`` instead of the installed one."""
    import ctypes

    other, installed = declare(ctypes.CDLL(str(path))), core.library

    def run() -> float:
        core.library = lambda: other  # type: ignore[assignment]
        try:
            return work()
        finally:
            core.library = installed

    return run


def speed() -> None:
    wide, one = Engine(), Engine(lanes=1)
    lanes, threads = wide.resolved()
    print(f"{lanes} lanes, {threads} threads; {provenance()}\n")
    print("| A | B | A, device-rounds/s | B, device-rounds/s | A / B |\n| --- | --- | ---: | ---: | ---: |")

    def row(name_a: str, name_b: str, a: Callable[[], float], b: Callable[[], float]) -> None:
        x, y, ratio = pairs(a, b)
        print(f"| {name_a} | {name_b} | {x:,.0f} | {y:,.0f} | {ratio:.2f} |", flush=True)

    row(f"{lanes} lanes", "1 lane, same flags", lambda: call(wide), lambda: call(one, 200))
    with tempfile.TemporaryDirectory() as folder:
        if shutil.which("cmake"):
            path = scalar_core(Path(folder))
            a, b = on_library(path, lambda: call(wide)), on_library(path, lambda: call(one, 200))
            row(f"{lanes} lanes, scalar flags", "1 lane, scalar flags", a, b)
            row("1 lane, default flags", "1 lane, scalar flags", lambda: call(one, 200), b)
    row(f"{threads} threads", "1 thread", lambda: call(wide), lambda: call(Engine(threads=1)))
    row("cohort call", "through Flower, a message a round", lambda: call(wide), lambda: through_flower(wide, 0))
    row("cohort call", "through Flower, in stretches", lambda: call(wide), lambda: through_flower(wide, 40))
    roofline(lanes)


def roofline(lanes: int) -> None:
    """Multiply-adds per second of one core in a cohort's call, beside the core's peak in the same second: medians of TURNS."""
    print("\n| job | device-rounds/s of one core | multiply-adds/s | share of the peak |\n| --- | ---: | ---: | ---: |")
    for name, (task, net, samples) in {"J1": (TASK, NET, 32), "J2": images()}.items():
        fleet, each = NativeFleet(task, net, SIZE, Engine(threads=1)), multiply_adds(net) * samples
        turns = [(peak(lanes, "off"), max(call_of(fleet, samples) for _ in range(5))) for _ in range(TURNS)]
        rate = statistics.median(rate for _, rate in turns)
        share = statistics.median(rate * each / most for most, rate in turns)
        print(f"| {name} | {rate:,.0f} | {rate * each / 1e9:.1f} billion | {share:.0%} |", flush=True)
    apart, fused = (statistics.median(peak(lanes, contract) for _ in range(TURNS)) / 1e9 for contract in ("off", "fast"))
    print(f"\nPeak of one core: {apart:.1f} billion multiply-adds/s, multiply and add apart; {fused:.1f} fused.")


def multiply_adds(net: Network) -> int:
    """Multiply-adds of one step of SGD: forward, the gradients of weights, and of inputs but the first layer's."""
    return 3 * net.multiplies - net.placed[0].multiplies


def images() -> tuple[Task, Network, int]:
    """J2's task, with made-up images in place of Omniglot's; its network and number of samples."""
    rng = np.random.default_rng(0)
    pool = ClassPool.of(rng.integers(0, 2, (2000, 784), np.uint8), np.arange(2000, dtype=np.int32) // 20, [100])
    task = Episodic("images", 0, (28, 28, 1), 5, (1.0, 1.0), pool, pool, pool)
    return task, network("conv-8-16-relu", task.shape, 5, task.loss, task.activation), 25


def call_of(fleet: NativeFleet, samples: int) -> float:
    """Device-rounds per second of one call for a cohort."""
    theta, devices = fleet.network.initial_weights(0), draw_cohort(0, 0, COHORT, SIZE)
    source, inner = fleet.task.stream(devices, 0, samples), Inner(samples=samples, rate=0.01).to_bytes()
    start = time.perf_counter()
    core.train(fleet.network.plan, theta, source, devices, 0, inner, engine=fleet.engine)
    return COHORT / (time.perf_counter() - start)


def peak(lanes: int, contract: str) -> float:
    """Multiply-adds per second of one core in vectors of ``lanes`` floats (bench/peak.c)."""
    flags = {16: ["-mavx512f", "-mfma"], 8: ["-mavx2", "-mfma"]}.get(lanes, [])
    source = Path(__file__).with_name("peak.c")
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "peak")
        options = ["-O2", *flags, f"-ffp-contract={contract}", f"-DLANES={lanes}"]
        subprocess.run(["cc", *options, str(source), "-o", program], check=True)
        return float(subprocess.run([program], capture_output=True, text=True, check=True).stdout)


def million() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = tinyfl.simulate(
            task="sine", network="mlp-32-32", devices=1_000_000, cohort=1_000_000, rounds=3, tasks=200, out=Path(folder) / "run"
        )
    peak = peak_mib()
    print(f"1,000,000 devices, 3 rounds: {run.result['seconds']:.1f} s, {run.result['device_rounds_per_s']:,.0f} "
          f"device-rounds/s, peak memory {peak:.0f} MiB; {provenance()}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--million", action="store_true")
    np.seterr(all="raise")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    million() if parser.parse_args().million else speed()
