"""Running a study: its runs side by side, those only that are not done, and going on after any end."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyfl.core.engine import processors
from tinyfl.errors import DataError, TrainingError
from tinyfl.errors.words import plain
from tinyfl.runs.directory import RunDirectory
from tinyfl.studies.directory import WORKERS_LOG, StudyDirectory
from tinyfl.studies.file import read_study
from tinyfl.studies.plan import Code, Plan, planned
from tinyfl.studies.search import searched
from tinyfl.studies.workers import Ended, Workers
from tinyfl.system.interrupts import interrupt_message


@dataclass(frozen=True)
class Going:
    """The progress of a study, for display."""

    stage: str
    done: int
    total: int
    figures: str = ""

    def __str__(self) -> str:
        return f"{self.stage}: {self.done:,} of {self.total:,}" + (f" · {self.figures}" if self.figures else "")


@dataclass(frozen=True)
class Done:
    """A study that has run: its plan, with what a search has found, its runs' results by folder, and why others failed."""

    directory: StudyDirectory
    plan: Plan
    results: Mapping[str, Mapping[str, Any]]
    failed: Mapping[str, Ended]


def prepared(file: Path, out: Path | None, code: Code) -> tuple[StudyDirectory, Plan]:
    """The directory and the plan of the study in ``file``; writes nothing.

    Raises ConfigError for a file that is no study, or settings with which a run could not begin; RunError for a directory that
    holds another study, or a run; DataError where no file is at the path of its data.
    """
    study = read_study(file)
    for path in study.data:
        if not Path(path).exists():
            raise DataError(
                f"{plain(path)}: no such file, and data in {file} names it. Put it there, or write its path into {file}. "
                "Where published data sets come from: tinyfl data list."
            )
    words = tuple(word for kind, names in code.items() for name in names for word in (f"--{kind}", name))
    directory = StudyDirectory(out or Path("studies") / file.stem, file, words)
    directory.demand_own(study)
    return directory, planned(study, code)


def run_study(
    directory: StudyDirectory,
    plan: Plan,
    code: Code,
    *,
    workers: int = 0,
    progress: Callable[[Going], None] = lambda _: None,
) -> Done:
    """Makes the runs of ``plan`` that ``directory`` does not hold yet, with so many ``workers`` at once, 0: as many as this
    process may use processors. Each run is what ``tinyfl.simulate`` makes of its settings, and a run that fails does not end
    the others.

    Raises RunError if the directory holds another study, or is in use.
    """
    study = plan.study
    with RunDirectory(directory.path).locked(), interrupt_message(lambda: f"stopped. Go on with: {directory.command}"):
        directory.take(study)
        trials = study.search.trials * len(study.search.seeds) * len(plan.lines) if study.search else 0
        count = min(workers or processors(), max(len(plan.options), trials))
        watch = _Watch(plan, directory, count, progress)
        with Workers(count, max(processors() // count, 1), directory.path / WORKERS_LOG, watch.tell) as pool:
            if study.search:
                plan = plan.after(searched(plan, directory, pool, code, watch.ended), code)
            return _runs(directory, plan, pool, watch)


def _runs(directory: StudyDirectory, plan: Plan, pool: Workers, watch: "_Watch") -> Done:
    results, failed = dict[str, Mapping[str, Any]](), dict[str, Ended]()
    going = {}
    for folder, options in plan.options.items():
        result = directory.result(directory.run(folder))
        if result is None:
            going[pool.submit(directory.run(folder), options)] = folder
        else:
            results[folder] = result
    watch.begin(going.values())
    for future in as_completed(going):
        folder, ended = going[future], future.result()
        watch.ended(folder, ended)
        result = directory.result(directory.run(folder)) if ended.seconds else None
        if result is None:
            failed[folder] = ended
        else:
            results[folder] = result
    in_order = {folder: results[folder] for folder in plan.options if folder in results}
    return Done(directory, plan, in_order, {folder: failed[folder] for folder in plan.options if folder in failed})


class _Watch:
    """Follows the runs: shows their progress and the time that is left, and logs what each took."""

    def __init__(self, plan: Plan, directory: StudyDirectory, workers: int, report: Callable[[Going], None]) -> None:
        self._directory, self._workers, self._report = directory, workers, report
        self._weights = {point.folder: line.seconds or 1.0 for line in plan.lines for point in line.points}
        self._session, self._began = time.time(), time.monotonic()
        self._shares = dict[str, float]()
        self._total, self._done = len(self._weights), 0
        self._runs_began: float | None = None

    def begin(self, folders: Iterable[str]) -> None:
        """Only these runs are left to do."""
        self._weights = {folder: self._weights[folder] for folder in folders}
        self._done = self._total - len(self._weights)
        self._shares, self._runs_began = {}, time.monotonic()
        self._show()

    def tell(self, folder: str, stage: str, share: float) -> None:
        if folder in self._weights:
            self._shares[folder] = share * 0.9 if stage == "learning" else 0.9 + 0.1 * share
        self._show()

    def ended(self, folder: str, ended: Ended) -> None:
        seconds = {key: round(value, 3) for key, value in (ended.seconds or {}).items()}
        elapsed = round(time.monotonic() - self._began, 3)
        self._directory.log(session=self._session, workers=self._workers, elapsed=elapsed, run=folder, **seconds)
        if folder in self._weights:
            self._shares[folder] = 1.0
            self._done += 1
        self._show()

    def _show(self) -> None:
        if self._runs_began is None:
            self._report(Going("searching", 0, 0))
            return
        shares = dict(self._shares)
        done = sum(self._weights[folder] * share for folder, share in shares.items())
        left = sum(self._weights.values()) - done
        elapsed = time.monotonic() - self._runs_began
        figures = f"about {spoken(elapsed * left / done)} left" if done and elapsed > 1 and left > 0 else ""
        self._report(Going("runs", self._done, self._total, figures))


def spoken(seconds: float) -> str:
    """A time as people say it: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def demand_all(done: Done) -> None:
    """Raises TrainingError if a run has failed, with the reason of the first."""
    if done.failed:
        folder, ended = next(iter(done.failed.items()))
        raise TrainingError(
            f"{len(done.failed):,} of {len(done.plan.options):,} runs failed; the others are in the table. "
            f"{folder}: {ended.why}"
        )
