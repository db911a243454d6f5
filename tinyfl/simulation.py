"""A run from config to report: rounds on a fleet, then evaluation on unseen devices."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyfl.algorithms import Inner, Returns, State, WithLayers, demand_for_boards
from tinyfl.codecs.down import Down
from tinyfl.config import Config, as_python, demand_utf8, resolve
from tinyfl.config.settings import RENAMED
from tinyfl.core import F32, Engine
from tinyfl.costs import bytes_of_run
from tinyfl.data.frames import file_of
from tinyfl.errors import ConfigError, InstallError
from tinyfl.errors.words import plain
from tinyfl.fleet import Event
from tinyfl.fleets.assembly import Boards, Training, assembled
from tinyfl.flower.asynchronous import Asynchronous
from tinyfl.flower.lines import as_json
from tinyfl.flower.rounds import Federation, Outcome, Progress
from tinyfl.flower.staleness import staleness
from tinyfl.networks import Network, starts_from
from tinyfl.registry.own import own_code
from tinyfl.registry.shown import shots_of
from tinyfl.report import figures
from tinyfl.report.verdict import verdict
from tinyfl.runs import elsewhere, evaluation, floors
from tinyfl.runs.arrivals import in_real_time, to_replay
from tinyfl.runs.directory import DEVICES, KEPT, RunDirectory, new_directory
from tinyfl.runs.elsewhere import Elsewhere, demand_episodes
from tinyfl.runs.evaluation import Row
from tinyfl.runs.extensions import Resumable
from tinyfl.runs.hashes import theta_sha256
from tinyfl.runs.learner import Learner, Load, algorithm_of, down_of, fitted
from tinyfl.runs.per_device import by_device
from tinyfl.runs.records import ValidationRow
from tinyfl.runs.resuming import restated, resumed
from tinyfl.runs.tables import as_csv, evaluation_rows, joined, line_of
from tinyfl.runs.validation import validator
from tinyfl.sampling import Sampler, sampler, told
from tinyfl.sensors.apart import demand_apart
from tinyfl.sensors.run import live, sensed
from tinyfl.system import notebook
from tinyfl.system.interrupts import interrupt_message
from tinyfl.system.sizes import read_size
from tinyfl.tasks.memory import check_limit
from tinyfl.tasks.standard import Standardisation

if TYPE_CHECKING:
    from tinyfl.flower.grid import FleetAddresses

Place = Callable[[Config, Training, Callable[[Event], None]], AbstractContextManager[tuple["FleetAddresses", Boards]]]
"""Opens the grid of a run's rounds, and lists its boards."""


@dataclass(frozen=True)
class Run:
    """A finished run: its directory, absolute, its JSON, and the initialisation theta, float32 (parameters,)."""

    path: Path
    result: dict[str, Any] = field(hash=False)
    theta: F32 = field(compare=False)  # its hash is in the result

    @property
    def evaluation(self) -> list[dict[str, Any]]:
        return list(self.result["evaluation"])

    @property
    def baseline(self) -> list[dict[str, Any]]:
        return list(self.result["baseline"])

    def frame(self) -> Any:
        """Evaluation and baseline as one pandas.DataFrame: in its column ``weights`` "learnt" and "start".

        Raises InstallError without pandas.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise InstallError(
                "a frame needs pandas: pip install pandas. Without it: run.evaluation and run.baseline."
            ) from error
        return DataFrame(evaluation_rows(self.result))


@dataclass(frozen=True)
class _Job(Learner):
    """A run to do: the learner with its config, algorithm and engine."""

    config: Config
    algorithm: WithLayers
    engine: Engine
    sampler: Sampler
    progress: Callable[[Progress], None]

    @property
    def down(self) -> Down:
        """How theta goes down."""
        return down_of(self.config, self.network)

    def without_head(self, theta: F32) -> tuple[Network, F32]:
        """The network of unseen devices and its weights, from those of training."""
        return self.for_unseen(self.algorithm.algorithm, theta, self.config.devices, self.engine)


def simulate(
    *,
    config: Path | str | None = None,
    resume: Path | str | None = None,
    replay: Path | str | None = None,
    out: Path | str | None = None,
    threads: int = 0,
    lanes: int = 0,
    memory: str = "",
    page: bool = True,
    progress: Callable[[Progress], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    over: "Place | None" = None,
    load: Load = Config.load_task,
    source: Sequence[Path | str] | Path | str = (),
    **options: Any,
) -> Run:
    """Trains on a fleet and evaluates the result; every option is a field of tinyfl.config.Config. Without ``fleet`` all
    devices are simulated. ``algorithm``, ``task`` and ``aggregator`` may also be a class or an object of your own, or
    "package.module:Class" (docs/your-own.md); ``data`` a path, a frame or a dict of arrays, which the run directory keeps
    (docs/tasks.md).

    Without ``page`` the run has no report; ``tinyfl report`` writes it later.
    ``resume`` continues the run in that directory, to the same theta, bit for bit; its data, and a network that is a file, may
    be at other paths by then. ``replay`` repeats the asynchronous run in that directory on simulated devices, which arrive as
    they did there (docs/late.md). ``threads``, ``lanes`` and ``memory`` change only the speed. ``memory`` ("200M", "2G") bounds
    what simulated devices take at once beyond the interpreter, the data set and theta (tinyfl.tasks.memory). ``on_event``
    receives the boards' events, from another thread; ``on_note``, before the first round, the changes to the user's data and
    network, and at the end a line if figures could not be drawn. ``over`` opens the grid of the rounds; without it the whole
    fleet is on this machine; ``load`` loads the task. ``source`` are the C files of the fleet's sensors, which no file can
    name: they are built into emulated boards, and run here for simulated devices and recordings. Without ``progress``, a
    notebook shows a line of it.
    Raises a TinyflError with a cure.
    """
    for old in RENAMED.keys() & options:
        warnings.warn(f"{old} is now {RENAMED[old]}", FutureWarning, stacklevel=2)
    options = own_code(options)
    sources = tuple(Path(each) for each in ((source,) if isinstance(source, str | Path) else source))
    engine = Engine(as_python(threads), as_python(lanes), read_size(str(memory)) if memory else 0)
    try:
        engine.resolved()
    except ValueError as error:
        raise ConfigError(f"{error}. Leave --threads and --lanes out for the fastest.") from error
    report = progress or notebook.line() or (lambda _: None)
    file, resumption, log = Path(config) if config is not None else None, None, b""
    if resume is not None:
        if out is not None or replay is not None:
            option = "--out" if out is not None else "--replay"
            raise ConfigError(f"a resumed run stays in its directory, and what it is: leave {option} out.")
        path = Path(resume)
        resumption = resumed(RunDirectory(path), options, file, load)
        job = _prepare(resumption.wanted, resumption.learner, engine, report)
    else:
        if replay is not None:
            if file:
                raise ConfigError("a replay has the settings of its run: leave the config out.")
            options, log = to_replay(Path(replay), options)
        options, words = sensed(options, file, sources)
        path, job = _new(options, file, Path(out) if out else None, engine, report, load)
        job = replace(job, notes=(*job.notes, *words))
    directory = Resumable(path, (*job.config.words, *(word for each in sources for word in ("--source", str(each)))))
    with directory.locked():
        if resumption:
            resumption.take_over(directory)
        else:
            directory.start(job.config, log)
        tell = on_note or str
        for note in (*(resumption.notes if resumption else ()), *job.notes, *(figures.missed() if page else ())):
            tell(note)
        go_on = f"Go on with: {directory.resume_command}"
        with interrupt_message(lambda: f"stopped. {go_on}"):
            outcome, boards = _train(directory, job, over or partial(here, sources=sources), on_event)
        with interrupt_message(lambda: f"stopped after the last round, before the evaluation was done. {go_on}"):
            net, theta = job.without_head(outcome.state.theta)
            run = _finish(directory, job, net, theta, outcome, boards)
            if page:
                _report(directory, job, net, run, tell)
            return run


def _new(
    options: dict[str, Any],
    file: Path | None,
    out: Path | None,
    engine: Engine,
    progress: Callable[[Progress], None],
    load: Load,
) -> tuple[Path, _Job]:
    """The directory of a new run, and the job. Data that are no file are kept in the directory, for a resume."""
    data = options.get("data")
    if data is None or isinstance(data, str | Path):
        job = _prepare(*_loaded(resolve(options, file, installed=True), load), engine, progress)
        path = out or new_directory(job.config)
        demand_utf8("--out", str(path))
        return path, job
    path = out or new_directory(resolve({**options, "data": ""}, file, installed=True))
    demand_utf8("--out", str(path))
    kept = RunDirectory(path).keep_data(file_of(data))
    try:
        config = resolve({**options, "data": str(kept)}, file, installed=True)
        return path, _prepare(*_loaded(config, load), engine, progress)
    except BaseException:
        kept.unlink()
        with suppress(OSError):
            path.rmdir()
        raise


def _train(
    directory: RunDirectory, job: _Job, place: Place, on_event: Callable[[Event], None] | None
) -> tuple[Outcome, Boards]:
    """Runs the rounds on the grid of ``place``, and logs the boards' events. Returns the outcome and the boards."""

    def report_event(event: Event) -> None:
        event = replace(event, board=plain(event.board), detail=plain(event.detail))
        directory.log_event(event)
        if on_event:
            on_event(event)

    config, standard = job.config, job.task.standardisation
    unit = standard.squared_unit if standard else 1.0
    start = State(0, job.start)
    work = Training(job.task, job.network, job.engine, config.seconds, directory.path / KEPT, config.seed)

    def validate(rounds: int, theta: F32) -> ValidationRow:
        net, own = job.without_head(theta)
        validated = validator(
            job.task, net, shots=min(config.shots), adapt_lr=config.adapt_lr or None, clip=config.clip,
            gradients=config.per_round * job.algorithm.inner(0).total, adaptation=job.algorithm.adaptation, engine=job.engine,
        )  # fmt: skip
        return validated(rounds, own)

    sites = job.task.digest if isinstance(job.task, Elsewhere) else ""
    with place(config, work, report_event) as (grid, boards):
        kind = Asynchronous if config.buffer else Federation
        run = kind(
            directory, config, job.algorithm, grid, start, job.progress, report_event, unit, validate, sites, job.sampler,
            job.down,
        )  # fmt: skip
        outcome = run.run()
    return outcome, boards


@contextmanager
def here(
    config: Config, work: Training, on_event: Callable[[Event], None], sources: Sequence[Path] = ()
) -> Iterator[tuple["FleetAddresses", Boards]]:
    """The grid of the config's fleet on this machine, and its boards, whose sensors have the C files ``sources``."""
    from tinyfl.flower.grid import FleetGrid

    with assembled(config.parts, work, on_event, sources) as (fleet, boards):
        yield FleetGrid(fleet, config.gateways), boards


def _loaded(config: Config, load: Load) -> tuple[Config, Learner]:
    """The config completed from its data, with its task and network."""
    config.demand_code()
    return fitted(config, load)


def _prepare(config: Config, learner: Learner, engine: Engine, progress: Callable[[Progress], None]) -> _Job:
    """Checks before the first round what would fail after the last."""
    demand_episodes(learner.task, config.tasks, max(config.shots))
    if config.training_ways and config.chosen("algorithm").trains == "task":
        raise ConfigError(
            f"--training-ways is for algorithms that train prototypes or classes, and {config.algorithm} trains what a device "
            "does after training, with as many classes. Leave it out."
        )
    algorithm = algorithm_of(config, learner.network)
    if config.buffer and algorithm.inner(0).keeps:
        raise ConfigError(
            "--buffer goes with devices that keep nothing from round to round. Give --local-start reconstructed, or leave "
            "--buffer out."
        )
    if any(not part.native for part in config.fleet):
        demand_for_boards(algorithm.inner(0))
    demand_apart(config.parts, learner.task)
    if engine.memory:
        _check_memory(config, learner, algorithm.inner(0), engine)
    more = *restated(config), *told(config.sampling, config.embedding), *in_real_time(config), *live(config.parts)
    learner = replace(learner, notes=(*learner.notes, *more))
    chooses = sampler(
        config.sampling, config.embedding, task=learner.task, samples=algorithm.inner(0).samples, seed=config.seed,
        size=config.cohort, fleet_size=config.devices,
    )  # fmt: skip
    return _Job(**vars(learner), config=config, algorithm=algorithm, engine=engine, sampler=chooses, progress=progress)


def _check_memory(config: Config, learner: Learner, inner: Inner, engine: Engine) -> None:
    """Raises ConfigError if the engine's limit of memory is too small for the first round or for evaluation."""
    task, plan = learner.task, learner.network.plan
    if inner.returns is Returns.meta_gradient:
        raise ConfigError("--memory cannot bound what MAML takes. Leave it out, or say --algorithm fomaml.")
    kept = plan.kept_floats(inner.to_bytes())
    shots = max(config.shots)
    check_limit(task, config.devices, inner.samples, plan, kept, engine, tasks=config.tasks, shots=shots)


def _evaluate(job: _Job, learners: dict[str, tuple[Network, F32]]) -> dict[str, list[Row]]:
    """The rows of each network with its weights, all on the same episodes."""
    curves = len(learners) * len(evaluation.modes_of(job.result)) * len(job.config.shots)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        job.progress(Progress("evaluating", done, curves))

    job.progress(Progress("evaluating", 0, curves))
    config, task = job.config, job.task
    settings: dict[str, Any] = {
        "shots": config.shots,
        "tasks": config.tasks,
        "adapt_lr": config.adapt_lr or None,
        "clip": config.clip,
        "adaptation": job.algorithm.adaptation,
        "tick": tick,
    }
    if isinstance(task, Elsewhere):
        return {name: elsewhere.measure(task, *learner, **settings) for name, learner in learners.items()}
    return {name: evaluation.measure(task, *learner, engine=job.engine, **settings) for name, learner in learners.items()}


def _floor(job: _Job) -> list[dict[str, Any]]:
    settings: dict[str, Any] = {"shots": job.config.shots, "tasks": job.config.tasks}
    if isinstance(job.task, Elsewhere):
        return elsewhere.floor(job.task, job.result, **settings)
    return floors.floor(job.task, job.result, **settings)


def _result(
    job: _Job, outcome: Outcome, rows: dict[str, list[Row]], boards: list[dict[str, Any]], whole: int
) -> dict[str, Any]:
    """The JSON of a run, with ``whole`` device-rounds of devices that were not in the round before."""
    config, net = job.config, job.network
    inner = job.algorithm.inner(0)
    rounds, validation = outcome.state.round, outcome.validation
    device_rounds = rounds * config.per_round
    return {
        "task": config.task,
        "algorithm": config.algorithm,
        "network": net.name,
        "parameters": net.parameters,
        "devices": config.devices,
        "cohort": config.cohort,
        "rounds": rounds,
        "device_rounds": device_rounds,
        "device_rounds_per_s": device_rounds / outcome.seconds,
        "seconds": outcome.seconds,
        "sample_gradients": device_rounds * inner.total,
        "seed": config.seed,
        "start": starts_from(config.network),
        "notes": [*job.notes, *validation.words(config.rounds, rounds)],
        "classes": [str(each) for each in job.task.standardisation.classes] if job.task.standardisation else [],
        **bytes_of_run(net, inner, job.down, device_rounds, whole),
        "device_ram_bytes": net.ram_bytes(inner) + job.down.held_bytes,
        "samples_held": inner.held,
        "local": _local(job),
        "left_out": dict(outcome.left_out),
        "failed": dict(outcome.failed),
        "privacy": dict(outcome.privacy) if outcome.privacy else None,
        "boards": boards,
        "theta_sha256": theta_sha256(outcome.state.theta[: job.result.parameters]),
        "config_sha256": config.sha256(),
        "evaluation": [row.as_json() for row in rows["learnt"]],
        "baseline": [row.as_json() for row in rows["start"]],
        **validation.as_json(),
        "floor": _floor(job),
    }


def _local(job: _Job) -> list[str]:
    """The layers that stay on each device."""
    local = job.algorithm.inner(0).local
    return [layer.name for layer in job.network.weighted_layers if local & layer.bit]


def _by_device(job: _Job, net: Network, theta: F32, rows: list[Row]) -> dict[str, Any]:
    """Each test device's result, at the rate of the leading row; nothing where the devices are elsewhere."""
    if isinstance(job.task, Elsewhere):
        return {}
    config = job.config
    return by_device(
        job.task, net, theta, rows, tasks=config.tasks, clip=config.clip, adaptation=job.algorithm.adaptation,
        engine=job.engine,
    )  # fmt: skip


def _finish(
    directory: RunDirectory, job: _Job, net: Network, theta: F32, outcome: Outcome, boards: list[dict[str, Any]]
) -> Run:
    """Evaluates ``net`` with ``theta``, and writes initialisation.npz and result.json."""
    rows = _evaluate(job, {"learnt": (net, theta), "start": job.without_head(job.start)})
    result = {
        **_result(job, outcome, rows, boards, sum(joined(directory)) if job.config.delta else 0),
        "line": as_json(line_of(directory)) if boards else {},
        "staleness": staleness(directory, job.config, boards) if job.config.buffer else [],
        "run": str(directory.name),
        "shots_of": shots_of(job.config.task, job.task),
        **_by_device(job, net, theta, rows["learnt"]),
    }
    result["worse_than_floor"] = floors.worse_than_floor(result)
    result["verdict"] = verdict(result, job.config)
    standard = job.task.standardisation or Standardisation.none(net.inputs, net.outputs)
    directory.save_initialisation(
        theta=theta,
        network=net.name,
        task=job.config.task,
        plan=np.frombuffer(net.plan.bytes, np.uint8),
        shape=np.array(net.shape),
        seed=job.config.seed,
        clip=job.config.clip,
        adaptation=job.config.algorithm if job.algorithm.adapts else "",
        local=", ".join(_local(job)),
        adapt_lr_batch=_rate(rows["learnt"], "batch"),
        adapt_lr_stream=_rate(rows["learnt"], "stream"),
        **_rates(job, rows["learnt"]),
        **net.prepared.arrays(),
        **standard.arrays(),
        config_sha256=job.config.sha256(),
    )
    directory.save_result(result)
    if isinstance(job.task, Elsewhere) and job.task.shared:
        directory.save(DEVICES, as_csv(job.task.shared).encode())
    return Run(directory.path, result, theta)


def _rate(rows: Sequence[Row], mode: evaluation.Mode) -> float:
    """The rate of the first row of a mode; 0 without one, as class means have none."""
    return next((row.adapt_lr for row in rows if row.mode == mode and row.adapt_lr is not None), 0.0)


def _rates(job: _Job, rows: Sequence[Row]) -> dict[str, Any]:
    """The rates of adaptation by the number of samples, for the file of the initialisation; nothing of class means."""
    by_shots: dict[int, dict[str, float]] = {}
    for row in rows:
        if row.adapt_lr is not None:
            by_shots.setdefault(row.shots, {})[row.mode] = row.adapt_lr
    per_shot = job.result.outputs if shots_of(job.config.task, job.task) == "class" else 1
    found = [[shots * per_shot, each["batch"], each["stream"]] for shots, each in by_shots.items()]
    return {"rates": np.array(found, np.float64)} if found else {}


def _report(directory: RunDirectory, job: _Job, net: Network, run: Run, tell: Callable[[str], object]) -> None:
    from tinyfl.report.page import write_report

    start = job.start[: net.parameters]
    write_report(directory, job.config, job.task, net, run.theta, start, run.result, job.algorithm.adaptation, tell)
