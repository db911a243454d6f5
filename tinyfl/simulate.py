"""A run from config to report: rounds over Flower, then evaluation on unseen devices."""

import hashlib
import json
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyfl import evaluation
from tinyfl.algorithms import Algorithm, State, Updates
from tinyfl.config import Config, resolve
from tinyfl.core import Engine
from tinyfl.errors import ConfigError, Interrupted, RunError, TrainingError
from tinyfl.evaluation import Row
from tinyfl.networks import Network, network
from tinyfl.runs import METRICS, Checkpoint, RunDirectory
from tinyfl.tasks import Task, load_task

CHECKPOINT_SECONDS = float(os.environ.get("TINYFL_CHECKPOINT_SECONDS", "2"))
METRICS_RECORDS = 500
"""About how many records a run writes to metrics.jsonl, whatever its length."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for whoever shows it. ``loss`` is the cohorts' mean since the last one shown."""

    stage: str
    done: int
    total: int
    loss: float
    device_rounds_per_s: float


@dataclass(frozen=True)
class Run:
    """A finished run: its directory, its JSON, and the initialisation theta, float32 (parameters,)."""

    path: Path
    result: dict[str, Any]
    theta: np.ndarray

    @property
    def evaluation(self) -> list[dict[str, Any]]:
        return list(self.result["evaluation"])

    @property
    def baseline(self) -> list[dict[str, Any]]:
        return list(self.result["baseline"])


def simulate(
    *,
    config: Path | None = None,
    resume: Path | None = None,
    out: Path | str | None = None,
    threads: int = 0,
    lanes: int = 0,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Run:
    """Runs a simulated fleet and evaluates what it learnt; every option is a field of tinyfl.config.Config.

    ``resume`` goes on with the run in that directory, to the same theta, bit for bit. ``threads`` and ``lanes`` change only
    the speed. Raises a TinyflError that says what to do.
    """
    engine = Engine(threads, lanes)
    try:
        engine.resolved()
    except ValueError as error:
        raise ConfigError(f"{error}. Leave --lanes out for the fastest.") from error
    if resume is not None:
        directory = RunDirectory(Path(resume))
        settings = directory.config()
        _refuse_changes(settings, options, config)
    else:
        settings = resolve(options, config)
        directory = RunDirectory(Path(out) if out else _free_directory(settings))
    task = load_task(settings.task, Path(settings.data) if settings.data else None, settings.seed)
    settings = _fitted(settings, task)
    net = network(settings.network, task.inputs, task.outputs, task.loss, task.activation)
    settings = Config(**{**asdict(settings), "network": net.name})
    algorithm = settings.build()
    with directory.locked():
        if resume is None:
            directory.start(settings)
        federation = _Federation(directory, settings, task, net, algorithm, engine, progress)
        state, seconds, left_out = federation.run()
        return _finish(directory, settings, task, net, algorithm, engine, state, seconds, left_out, progress)


def _free_directory(config: Config) -> Path:
    """runs/TASK-ALGORITHM-SEED, or the first of -2, -3, ... that is free."""
    base = Path("runs") / f"{config.task}-{config.algorithm}-{config.seed}"
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def _refuse_changes(settings: Config, options: dict[str, Any], file: Path | None) -> None:
    asked = {**(asdict(resolve({}, file)) if file else {}), **{k: v for k, v in options.items() if v is not None}}
    for key, value in asked.items():
        held = getattr(settings, key)
        if str(value) != str(held) and value != held:
            raise RunError(
                f"the run was started with {key} {held!r} and cannot be resumed with {value!r}. "
                "Leave the option out, or start a new run with another --out."
            )


def _fitted(config: Config, task: Task) -> Config:
    """The config with the number of devices that the data fix, and a cohort no larger than the fleet.

    Raises ConfigError where the user asked for more than there are.
    """
    devices = config.devices or task.fleet_size or 1
    if task.fleet_size is not None and devices > task.fleet_size:
        raise ConfigError(
            f"{devices:,} devices, but the data have {task.fleet_size:,} that train. Leave --devices out to use them all."
        )
    if config.cohort > devices:
        raise ConfigError(f"a cohort of {config.cohort:,} out of {devices:,} devices. Give a smaller --cohort.")
    return Config(**{**asdict(config), "devices": devices})


def data_sha256(config: Config) -> str:
    """Hash of the user's data file; empty for tasks that bring their own."""
    if not config.data:
        return ""
    with Path(config.data).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Federation:
    """The rounds of one run, with its metrics and checkpoints."""

    def __init__(
        self,
        directory: RunDirectory,
        config: Config,
        task: Task,
        net: Network,
        algorithm: Algorithm,
        engine: Engine,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        from tinyfl.simulators.native import NativeFleet

        self.directory, self.config, self.algorithm, self.progress = directory, config, algorithm, progress
        self.fleet = NativeFleet(task, net, config.devices, engine)
        self.hashes = config.sha256(), data_sha256(config)
        self.state = State(0, net.initial_weights(config.seed))
        self.left_out: Counter[str] = Counter()
        self.seconds_before = 0.0
        self.stop = False
        self._losses: list[float] = []

    def run(self) -> tuple[State, float, Counter[str]]:
        """Goes on from the checkpoint to the last round. Returns the state, the seconds it took and who was left out."""
        self._restore()
        self.directory.trim_metrics(self.state.round)
        first = self.state.round
        self._began = self._saved = time.monotonic()
        with (self.directory.path / METRICS).open("a") as self._metrics:
            if first < self.config.rounds:
                previous = signal.getsignal(signal.SIGINT)
                self._catch_interrupt()
                try:
                    self._rounds(first)
                finally:
                    signal.signal(signal.SIGINT, previous)
        if sum(self.left_out.values()) >= self.config.rounds * self.config.cohort:
            raise TrainingError(
                f"not one of {self.config.rounds * self.config.cohort:,} updates was usable ({dict(self.left_out)}): "
                "the inner loop diverges on every device. Give a smaller --inner-lr, or a --clip."
            )
        return self.state, self._seconds(), self.left_out

    def _catch_interrupt(self) -> None:
        """Ctrl-C waits for the end of the round, so that nothing is half done."""

        def stop(*_: object) -> None:
            self.stop = True

        try:
            signal.signal(signal.SIGINT, stop)
        except ValueError:  # not the main thread: whoever owns it decides
            return

    def _rounds(self, first: int) -> None:
        from tinyfl.flower.grid import FleetGrid
        from tinyfl.flower.messages import theta_record
        from tinyfl.flower.strategy import FleetStrategy

        log = logging.getLogger("flwr")
        level = log.level
        log.setLevel(logging.ERROR)
        try:
            grid = FleetGrid(self.fleet, self.config.gateways)
            strategy = FleetStrategy(
                self.algorithm,
                self.state,
                cohort=self.config.cohort,
                fleet_size=self.config.devices,
                seed=self.config.seed,
                each_device=self.config.gateways is None,
                on_round=self._on_round,
            )
            strategy.start(grid, theta_record(self.state.theta), num_rounds=self.config.rounds - first)
        finally:
            log.setLevel(level)

    def _restore(self) -> None:
        checkpoint = self.directory.checkpoint()
        if checkpoint is None:
            return
        if checkpoint.config_sha256 != self.hashes[0]:
            raise RunError(
                f"{self.directory.path}/config.toml was changed since the run started, so it cannot be resumed. "
                "Put it back, or start a new run with it: tinyfl simulate CONFIG --out ANOTHER."
            )
        if checkpoint.data_sha256 != self.hashes[1]:
            raise RunError(
                f"{self.config.data} was changed since the run started, so it cannot be resumed. "
                "Put it back, or start a new run with another --out."
            )
        self.state = checkpoint.state
        self.left_out = Counter(checkpoint.left_out)
        self.seconds_before = checkpoint.seconds

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self._began

    def _on_round(self, state: State, updates: Updates) -> None:
        self.state = state
        self.left_out.update(updates.left_out)
        if updates.devices:
            self._losses.append(updates.loss)
        every = max(1, self.config.rounds // METRICS_RECORDS)
        if state.round % every == 0 or state.round == self.config.rounds:
            self._record()
        now = time.monotonic()
        if now - self._saved >= CHECKPOINT_SECONDS or state.round == self.config.rounds or self.stop:
            self._metrics.flush()
            self.directory.save_checkpoint(Checkpoint(state, *self.hashes, left_out=self.left_out, seconds=self._seconds()))
            self._saved = now
        if self.stop:
            raise Interrupted(
                f"stopped after round {state.round:,} of {self.config.rounds:,}. "
                f"Go on with: tinyfl simulate --resume {self.directory.path}"
            )

    def _record(self) -> None:
        loss = float(np.mean(self._losses)) if self._losses else float("nan")
        self._losses.clear()
        record = {
            "round": self.state.round,
            "loss": loss if np.isfinite(loss) else None,
            "left_out": dict(self.left_out),
        }
        self._metrics.write(json.dumps(record) + "\n")
        if self.progress:
            rounds_here = self.state.round * self.config.cohort
            speed = rounds_here / max(self._seconds(), 1e-9)
            self.progress(Progress("learning", self.state.round, self.config.rounds, loss, speed))


def _finish(
    directory: RunDirectory,
    config: Config,
    task: Task,
    net: Network,
    algorithm: Algorithm,
    engine: Engine,
    state: State,
    seconds: float,
    left_out: Counter[str],
    progress: Callable[[Progress], None] | None,
) -> Run:
    """Evaluates, and writes initialisation.npz, result.json and the report."""
    if progress:
        progress(Progress("evaluating", config.rounds, config.rounds, float("nan"), 0.0))
    start = net.initial_weights(config.seed)
    rows: dict[str, list[Row]] = {}
    for name, theta in (("evaluation", state.theta), ("baseline", start)):
        rows[name] = evaluation.measure(
            task, net, theta, shots=config.shots, tasks=config.tasks, adapt_lr=config.adapt_lr or None,
            clip=config.clip, engine=engine,
        )  # fmt: skip
    inner = algorithm.inner(0)
    device_rounds = config.rounds * config.cohort
    payload = device_rounds * 4 * net.parameters
    result: dict[str, Any] = {
        "task": config.task,
        "algorithm": config.algorithm,
        "network": net.name,
        "parameters": net.parameters,
        "devices": config.devices,
        "cohort": config.cohort,
        "rounds": config.rounds,
        "device_rounds": device_rounds,
        "device_rounds_per_s": device_rounds / seconds,
        "seconds": seconds,
        "sample_gradients": device_rounds * inner.samples * inner.passes,
        "seed": config.seed,
        "bytes_down": payload,
        "bytes_up": payload,
        "device_ram_bytes": net.ram_bytes(inner.batch),
        "left_out": dict(left_out),
        "theta_sha256": hashlib.sha256(state.theta.tobytes()).hexdigest(),
        "config_sha256": config.sha256(),
        "evaluation": [row.as_json() for row in rows["evaluation"]],
        "baseline": [row.as_json() for row in rows["baseline"]],
        "floor": evaluation.floor(task, net, shots=config.shots, tasks=config.tasks),
        "run": str(directory.path),
    }
    _save_initialisation(directory, config, task, net, state, rows["evaluation"])
    directory.save_result(result)
    from tinyfl.report import write_report

    write_report(directory, config, task, net, state.theta, start, result)
    return Run(directory.path, result, state.theta)


def _save_initialisation(
    directory: RunDirectory, config: Config, task: Task, net: Network, state: State, rows: list[Row]
) -> None:
    standard = task.standardisation
    directory.save_initialisation(
        theta=state.theta,
        network=net.name,
        task=config.task,
        inputs=net.inputs,
        outputs=net.outputs,
        loss=int(net.loss),
        seed=config.seed,
        clip=config.clip,
        adapt_lr_batch=next(row.adapt_lr for row in rows if row.mode == "batch"),
        adapt_lr_stream=next(row.adapt_lr for row in rows if row.mode == "stream"),
        mean=standard.mean if standard else np.zeros(net.inputs, np.float32),
        scale=standard.scale if standard else np.ones(net.inputs, np.float32),
        classes=standard.classes if standard else np.empty(0, np.int64),
        config_sha256=config.sha256(),
    )
