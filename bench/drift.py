"""Worlds that drift: a model as it was trained, and devices that learn online.

    python bench/drift.py [TASK ...] --data FOLDER --runs FOLDER      sine, vibration, activity, keywords, presence, batch,
    monitor; --seeds N of 5

FOLDER has wisdm_users.npz, room_occupancy.npz and speech_commands_test_logmel40.npz. Runs that are in the folder already are
used again. Each seed trains three initialisations and streams the held-out devices, one after another, through seven systems;
the rates of heads are chosen on validation devices of seed 0. All are measured from the sample SHOTS on, since the two that
adapt learn from those before. Figures are means over 5 seeds with 95 % intervals (Student).
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import provenance
from scipy import stats

import tinyfl
from tinyfl import core
from tinyfl.core import TableSource
from tinyfl.errors import TrainingError
from tinyfl.online import Head, OnlineSet, Standardised, starts, worlds
from tinyfl.online.device import Device
from tinyfl.online.prequential import changes, course_of, through
from tinyfl.online.worlds import World
from tinyfl.runs.adaptation import Initialisation
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.evaluation import inner_loop

SEEDS, SHOTS, STEPS, CAP = 5, 20, 10, 256
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
FILES = {"activity": "wisdm_users.npz", "presence": "room_occupancy.npz", "keywords": "speech_commands_test_logmel40.npz"}
MIXED = ("activity", "keywords")
"""Whose segments are shuffled: in them the label before is mostly the label now."""


@dataclass(frozen=True)
class System:
    name: str
    start: str = "joint"
    standardised: bool = False
    learns: bool = False


SYSTEMS = (
    System("static"),
    System("static, running standardisation", standardised=True),
    System("head only", learns=True),
    System("TinyOL", standardised=True, learns=True),
    System("adapted TinyReptile", "tinyreptile"),
    System("adapted TinyReptile, TinyOL", "tinyreptile", standardised=True, learns=True),
    System("meta-learnt head, TinyOL", "head", standardised=True, learns=True),
)
STARTS = ("joint", "tinyreptile", "head")
"""How an initialisation is trained: jointly; by TinyReptile; and by TinyReptile the joint one's head alone, its body frozen."""


def trained(folder: Path, task: str, data: Path | None, start: str, seed: int, **more: Any) -> Path:
    out, algorithm = folder / f"{task}-{start}-{seed}", "joint" if start == "joint" else "tinyreptile"
    if (out / "initialisation.npz").exists():
        return out
    if start == "head":
        body = trained(folder, task, data, "joint", seed, **more)
        frozen = sum(layer.weights > 0 for layer in Initialisation.load(body).network.placed[:-1])
        more = {**more, "network": str(body), "freeze": frozen}
    more = {"tasks": 100, "shots": SHOTS, **more}  # of what the run itself evaluates only the rate is used
    tinyfl.simulate(task="npz" if task == "vibration" else task, data=data, algorithm=algorithm, seed=seed, out=out, **more)
    return out


def adapted(start: Initialisation, world: World) -> Initialisation:
    """After STEPS full-batch steps on the first SHOTS samples, all layers."""
    names = start.standard.classes.tolist() or list(range(start.network.outputs))
    rows = np.arange(SHOTS, dtype=np.int32)[None]
    known = start.network.classifies
    labels = np.array([[names.index(name) for name in world.y[:SHOTS]]], np.int32) if known else None
    source = TableSource(world.x[:SHOTS].copy(), rows, labels=labels, targets=None if known else world.y[:SHOTS].copy())
    inner = inner_loop("batch", SHOTS, STEPS, start.rate("batch", SHOTS), start.clip)
    found = core.adapt(start.network.plan, start.theta, source, source, [STEPS], inner, weights=True)
    assert found.weights is not None
    return replace(start, theta=found.weights[0])


def figures(system: System, runs: dict[str, Initialisation], world: World, rate: float) -> np.ndarray:
    """Of each sample, right or not, or the squared error."""
    start = adapted(runs["tinyreptile"], world) if system.start == "tinyreptile" else runs[system.start]
    begun = starts.of_run(start)
    places = len(begun.names) + 4 if begun.kind is Head.classes else world.y.shape[1]
    how = Standardised.inputs if system.standardised else Standardised.nothing
    set = OnlineSet(begun.kind, begun.inputs, begun.size, places, how, begun.network is not None, cap=CAP,
                    rate=rate if system.learns else 0.0)  # fmt: skip
    course = course_of(world, begun, set, share=1.0, delay=0, prior=CAP, seed=0, number=0)
    through([course])
    return np.asarray(course.figure)


def chosen_rates(runs: dict[str, Initialisation], world: World) -> dict[str, float]:
    """For each system that learns, the rate that is best on this world."""
    best = {}
    for system in SYSTEMS:
        sign = 1 if runs["joint"].network.classifies else -1

        def worth(rate: float, system: System = system, sign: int = sign) -> float:
            try:
                return sign * float(figures(system, runs, world, rate)[SHOTS:].mean())
            except TrainingError:
                return -np.inf

        best[system.name] = max(RATES, key=worth) if system.learns else 0.0
    return best


def interval(values: Sequence[float], places: int) -> str:
    found = np.array([value for value in values if value is not None and np.isfinite(value)], float)
    if len(found) < 2:
        return f"{found.mean():.{places}f}" if len(found) else "–"
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5
    return f"{found.mean():.{places}f} ± {half:.{places}f}"


def table(task: str, meet: Callable[[int, str], tuple[dict[str, Initialisation], World]], seeds: int) -> None:
    """The systems on the worlds of all seeds: over the whole stream, around changes, and samples to recover."""
    rates = chosen_rates(*meet(0, "validation"))
    rows: dict[str, list[dict[str, Any]]] = {system.name: [] for system in SYSTEMS}
    last = list[float]()
    for seed in range(seeds):
        runs, world = meet(seed, "test")
        better = not runs["joint"].network.classifies
        if not better:
            last.append(float((world.y[SHOTS:] == world.y[SHOTS - 1 : -1]).mean()))
        for system in SYSTEMS:
            figure = figures(system, runs, world, rates[system.name])
            around = changes(figure, world.starts, lower_is_better=better)
            rows[system.name].append({
                "all": figure[SHOTS:].mean(), "before": np.mean([row["before"] for row in around]),
                "after": np.mean([row["after"] for row in around]), "end": figure[-200:].mean(),
                "recovered": np.mean([row["recovered"] is not None for row in around]),
                "samples": np.mean([row["recovered"] for row in around if row["recovered"] is not None] or [np.nan]),
            })  # fmt: skip
    print(
        f"\n{task}: {len(world):,} samples, {len(world.starts)} segments"
        + (f"; last label {interval(last, 3)}" if last else "")
    )
    print("| system | rate | whole stream | before | after | last 200 | recovered | samples to recover |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, found in rows.items():
        cells = [interval([row[key] for row in found], 3) for key in ("all", "before", "after", "end", "recovered")]
        samples = interval([row["samples"] for row in found], 0)
        print(f"| {name} | {rates[name] or ''} | {' | '.join(cells)} | {samples} |", flush=True)


def of_task(task: str, data: Path | None, folder: Path) -> Callable[[int, str], tuple[dict[str, Initialisation], World]]:
    def meet(seed: int, split: str) -> tuple[dict[str, Initialisation], World]:
        paths = {start: trained(folder, task, data, start, seed) for start in STARTS}
        runs = {start: Initialisation.load(path) for start, path in paths.items()}
        loaded = RunDirectory(paths["joint"]).config().load_task(runs["joint"].standard)
        names = runs["joint"].standard.classes.tolist() or list(range(loaded.outputs))
        (world,) = worlds.worlds(loaded, names, shuffle=task in MIXED, seed=seed, split=split)  # type: ignore[arg-type]
        return runs, world

    return meet


BANDS, PHASE = 16, 1000
MODES = ("normal", "stuck", "tilted", "loose")


def machine(rng: np.random.Generator, modes: Sequence[int], gain: float = 1.0, offset: float = 0.0) -> np.ndarray:
    """Spectra of a fan's vibration, one row each: BANDS levels, of which each mode raises two hidden tones and their harmonics
    in its own way, with a level that wanders and noise; then a sensor's gain and offset."""
    tones = np.random.default_rng(99).normal(0, 1, (len(MODES), 5, BANDS)) * np.exp(-np.arange(BANDS) / 8)
    load = rng.normal(0, 1, (len(modes), 4))
    x = np.stack([tones[mode, 0] + 0.5 * (row @ tones[mode, 1:]) for mode, row in zip(modes, load, strict=True)])
    return np.asarray(gain * (x + rng.normal(0, 0.3, x.shape)) + offset)


def vibration(folder: Path) -> Callable[[int, str], tuple[dict[str, Initialisation], World]]:
    """30 machines with sensors of slightly different gain train on three modes. A held-out one runs a while, then its sensor's
    gain becomes 1.6 with an offset of 1.5, then a fourth mode appears."""

    def meet(seed: int, split: str) -> tuple[dict[str, Initialisation], World]:
        data = folder / f"vibration-{seed}.npz"
        if not data.exists():
            rng = np.random.default_rng(seed)
            device, y = np.repeat(np.arange(40), 60), rng.integers(0, 3, 2400)
            gains = rng.uniform(0.9, 1.1, 40)
            x = np.concatenate([machine(rng, y[device == each], gains[each]) for each in range(40)])
            np.savez(data, x=x.astype(np.float32), y=np.array(MODES)[y], device=device)
        more = {"network": "mlp-8", "rounds": 3000}
        runs = {start: Initialisation.load(trained(folder, "vibration", data, start, seed, **more)) for start in STARTS}
        rng = np.random.default_rng((seed, split == "test"))
        parts = [rng.integers(0, 3, PHASE), rng.integers(0, 3, PHASE), rng.integers(0, 4, PHASE)]
        x = np.concatenate([machine(rng, parts[0]), machine(rng, parts[1], 1.6, 1.5), machine(rng, parts[2], 1.6, 1.5)])
        y = np.array([MODES[mode] for part in parts for mode in part], object)
        return runs, World(
            runs["joint"].standard.apply(x), y, (0, PHASE, 2 * PHASE), ("normal sensor", "other sensor", "fourth mode")
        )

    return meet


def auc(normal: np.ndarray, other: np.ndarray) -> float:
    return float(stats.mannwhitneyu(other, normal).statistic / (len(normal) * len(other)))


def anomalies(folder: Path) -> None:
    """A head that reconstructs the input from the frozen code of 8 numbers learns from a normal machine alone, without a
    label. The threshold is the 99th percentile of its scores in the second half of the first 1,000 samples; then it learns
    below that only."""
    meet = vibration(folder)
    ways = {"static": (Standardised.nothing, 0.0), "static, running standardisation": (Standardised.inputs, 0.0),
            "head only": (Standardised.nothing, 0.02), "TinyOL": (Standardised.inputs, 0.02),
            "TinyOL, learns from all": (Standardised.inputs, 0.02)}  # fmt: skip
    keys = (
        "AUC before",
        "false alarms",
        "AUC after 500",
        "false alarms, first 500",
        "false alarms, next 500",
        "AUC after 1,000",
    )
    rows: dict[str, list[list[float]]] = {name: [] for name in ways}
    for seed in range(SEEDS):
        runs, _ = meet(seed, "test")
        start = replace(starts.of_run(runs["joint"]), kind=Head.reconstruct, head=None, names=())
        for name, (how, rate) in ways.items():
            rng = np.random.default_rng((seed, 7))

            def spectra(modes: Sequence[int], drifted: bool, rng: np.random.Generator = rng, runs: Any = runs) -> Any:
                return runs["joint"].standard.apply(machine(rng, modes, *((1.6, 1.5) if drifted else ())))

            set = OnlineSet(Head.reconstruct, BANDS, 8, BANDS, how, ring=0, cap=CAP, rate=0.02)
            first = Device(set, start, CAP if how else 0)
            said = scores(first, spectra([0] * PHASE, False))
            threshold = float(np.quantile(said[PHASE // 2 :], 0.99))
            learns = np.inf if name.endswith("all") else threshold
            device = Device(replace(set, rate=rate, threshold=learns), start, CAP if how else 0)
            device.core.restore(first.core.learnt())
            row = list[float]()
            for drifted in (False, True, True):
                normal = scores(device, spectra([0] * 500, drifted))
                odd = scores(device, spectra(rng.integers(1, 3, 50).tolist(), drifted))
                row += [auc(normal[-300:], odd), float((normal > threshold).mean())]
            rows[name].append([row[0], row[1], row[2], row[3], row[5], row[4]])
    print("\nanomalies, no labels; false alarms at the fixed threshold")
    print(f"| device | {' | '.join(keys)} |\n|{' --- |' * (len(keys) + 1)}")
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(interval([row[k] for row in found], 3) for k in range(len(keys)))} |", flush=True)


def scores(device: Device, x: Any) -> np.ndarray:
    said, _ = device.run(np.ascontiguousarray(x), np.zeros(len(x), np.uint32), None)
    return np.asarray(said.scores)


def batch(data: Path, folder: Path) -> None:
    """Online against batch training of the same head, from zeros, on the same first n samples of activity's held-out users,
    mixed; measured on the last 400."""
    counts, epochs = (50, 100, 200, 400, 800), (1, 10, 50, 200)
    rows: dict[str, list[list[float]]] = {"online": []} | {f"batch, {n} epochs": [] for n in epochs}
    meet = of_task("activity", data, folder)
    for seed in range(SEEDS):
        runs, world = meet(seed, "test")
        start = replace(starts.of_run(runs["joint"]), head=None)
        net, order = start.network, np.random.default_rng(seed).permutation(len(world))
        assert net is not None
        x, y = world.x[order].copy(), np.unique(world.y, return_inverse=True)[1][order].astype(np.int32)
        rows_of = np.arange(len(x), dtype=np.int32)[None]
        e = core.embeddings(net.plan, start.theta, TableSource(x, rows_of, labels=rows_of * 0))[0]
        e, e_test, y, y_test = e[:-400], e[-400:], y[:-400], y[-400:]
        for name, found in rows.items():
            passes = 1 if name == "online" else int(name.split()[1])
            found.append([fit(e[:n], y[:n], e_test, y_test, passes, 1 if name == "online" else n) for n in counts])
    print(f"\nonline against batch: accuracy after n samples\n| head | {' | '.join(map(str, counts))} |\n|{' --- |' * 6}")
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(interval([row[k] for row in found], 3) for k in range(len(counts)))} |", flush=True)


def fit(e: np.ndarray, y: np.ndarray, e_test: np.ndarray, y_test: np.ndarray, passes: int, size: int) -> float:
    """The best accuracy over RATES of a softmax head after ``passes`` in batches of ``size``."""
    best = 0.0
    for rate in (*RATES, 1.0):
        w = np.zeros((e.shape[1] + 1, int(max(y.max(), y_test.max())) + 1))
        ones = np.column_stack([e, np.ones(len(e))])
        for _ in range(passes):
            for at in range(0, len(e), size):
                part, label = ones[at : at + size], y[at : at + size]
                o = part @ w
                p = np.exp(o - o.max(axis=1, keepdims=True))
                p /= p.sum(axis=1, keepdims=True)
                p[np.arange(len(label)), label] -= 1
                w -= rate * part.T @ p / len(label)
        best = max(best, float(((np.column_stack([e_test, np.ones(len(e_test))]) @ w).argmax(axis=1) == y_test).mean()))
    return best


def monitor() -> None:
    """Errors of 10 % become 30 % at sample 2,000, or stay: false alarms a 1,000 samples, and samples until an alarm."""
    rng = np.random.default_rng(0)
    errors = rng.random((400, 4000)) < np.where(np.arange(4000) < 2000, 0.1, 0.3)
    print("\nmonitor | false alarms a 1,000 samples | missed | median delay | words\n--- | --- | --- | --- | ---")
    for name, words, alarms in (
        ("Page-Hinkley .05/5", 3, lambda u: page(u, 0.05, 5)), ("Page-Hinkley .1/5", 3, lambda u: page(u, 0.1, 5)),
        ("Page-Hinkley .05/10", 3, lambda u: page(u, 0.05, 10)), ("Page-Hinkley .1/10", 3, lambda u: page(u, 0.1, 10)),
        ("DDM (Gama 2004)", 4, ddm), ("two averages, 32 and 512, + .2", 2, averages),
    ):  # fmt: skip
        found = [alarms(row) for row in errors]
        false = sum(sum(at < 2000 for at in each) for each in found) / len(errors) / 2
        first = [next((at - 2000 for at in each if at >= 2000), None) for each in found]
        delays = [delay for delay in first if delay is not None]
        print(f"{name} | {false:.3f} | {first.count(None) / len(first):.3f} | {np.median(delays):.0f} | {words}", flush=True)


def page(errors: np.ndarray, tolerance: float, alarm: float) -> list[int]:
    found, count, usual, excess = list[int](), 0, 0.0, 0.0
    for at, error in enumerate(errors.astype(float)):
        count += 1
        usual += (error - usual) / count
        excess = max(0.0, excess + error - usual - tolerance)
        if excess > alarm:
            found, count, usual, excess = [*found, at], 0, 0.0, 0.0
    return found


def ddm(errors: np.ndarray) -> list[int]:
    found, count, p, least = list[int](), 0, 0.0, (np.inf, np.inf)
    for at, error in enumerate(errors.astype(float)):
        count += 1
        p += (error - p) / count
        s = (p * (1 - p) / count) ** 0.5
        if count >= 30 and p + s < sum(least):
            least = (p, s)
        if count >= 30 and p + s > least[0] + 3 * least[1]:
            found, count, p, least = [*found, at], 0, 0.0, (np.inf, np.inf)
    return found


def averages(errors: np.ndarray) -> list[int]:
    found, fast, slow = list[int](), 0.1, 0.1
    for at, error in enumerate(errors.astype(float)):
        fast, slow = fast + (error - fast) / 32, slow + (error - slow) / 512
        if fast > slow + 0.2:
            found, slow = [*found, at], fast
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ("sine", "vibration", "anomalies", "activity", "presence", "keywords", "batch", "monitor")
    parser.add_argument("tasks", nargs="*", choices=[*every, []], default=[])
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = options.runs or Path(folder)
        runs.mkdir(exist_ok=True, parents=True)
        for task in options.tasks or every:
            if task == "monitor":
                monitor()
            elif task == "anomalies":
                anomalies(runs)
            elif task == "batch":
                batch(options.data / FILES["activity"], runs)
            elif task == "vibration":
                table(task, vibration(runs), options.seeds)
            else:
                table(task, of_task(task, options.data / FILES[task] if task in FILES else None, runs), options.seeds)
    print(json.dumps({"provenance": provenance()}))


if __name__ == "__main__":
    main()
