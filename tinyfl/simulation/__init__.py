"""A run from config to report: rounds on a fleet, then evaluation on unseen devices."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tinyfl.config import Config, as_python
from tinyfl.config.settings import RENAMED
from tinyfl.core import Engine
from tinyfl.errors import ConfigError
from tinyfl.fleet import Event
from tinyfl.flower.rounds import Progress
from tinyfl.registry.own import own_code
from tinyfl.report import figures
from tinyfl.runs.arrivals import to_replay
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.extensions import Resumable
from tinyfl.runs.learner import Load
from tinyfl.runs.resuming import resumed
from tinyfl.sensors.run import sensed
from tinyfl.simulation.job import new_job, prepared, turns
from tinyfl.simulation.result import Run, finished, write_page
from tinyfl.simulation.rounds import Place, here, train
from tinyfl.system import notebook
from tinyfl.system.interrupts import interrupt_message
from tinyfl.system.sizes import read_size


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
    engine = _engine(threads, lanes, memory)
    report = progress or notebook.line() or (lambda _: None)
    file, resumption, log = Path(config) if config is not None else None, None, b""
    if resume is not None:
        if out is not None or replay is not None:
            option = "--out" if out is not None else "--replay"
            raise ConfigError(f"a resumed run stays in its directory, and what it is: leave {option} out.")
        path = Path(resume)
        resumption = resumed(RunDirectory(path), options, file, load)
        job = prepared(resumption.wanted, resumption.learner, engine, report)
    else:
        if replay is not None:
            if file:
                raise ConfigError("a replay has the settings of its run: leave the config out.")
            options, log = to_replay(Path(replay), options)
        options, words = sensed(options, file, sources)
        path, job = new_job(options, file, Path(out) if out else None, engine, report, load)
        job = replace(job, notes=(*job.notes, *words, *turns(job.config, options, file)))
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
            outcome, boards = train(directory, job, over or partial(here, sources=sources), on_event)
        with interrupt_message(lambda: f"stopped after the last round, before the evaluation was done. {go_on}"):
            net, theta = job.without_head(outcome.state.theta)
            run = finished(directory, job, net, theta, outcome, boards)
            if page:
                write_page(directory, job, net, run, tell)
            return run


def _engine(threads: int, lanes: int, memory: str) -> Engine:
    engine = Engine(as_python(threads), as_python(lanes), read_size(str(memory)) if memory else 0)
    try:
        engine.resolved()
    except ValueError as error:
        raise ConfigError(f"{error}. Leave --threads and --lanes out for the fastest.") from error
    return engine
