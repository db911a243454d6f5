"""The search of settings on validation devices, with optuna, before the runs of a study.

A trial is a run that is evaluated on validation devices once, after its last round. Each line of the table has its own search,
whose trials follow one another, so that the search depends on the file alone: a resumed one asks for the same trials, and finds
those that are done.
"""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from tinyfl.config.settings import SETTINGS
from tinyfl.errors import ConfigError, InstallError
from tinyfl.studies.directory import StudyDirectory
from tinyfl.studies.file import OF_EPISODES, SEED, Search, Study, folder_of
from tinyfl.studies.plan import Code, Line, Plan, completed, resolved
from tinyfl.studies.workers import Ended, Workers
from tinyfl.system.files import write_whole
from tinyfl.tasks import NamedTask

FOLDER, FOUND = "search", "search.json"
WIDE = 10
"""A range whose ends differ by this factor or more is searched on a logarithmic scale."""

FEWEST_TASKS = 2
"""Devices that a trial is tested on: what it reaches on validation devices is what counts."""

WORST = 1e300
"""The score of settings with which a run fails."""


def searched(
    plan: Plan, directory: StudyDirectory, pool: Workers, code: Code, ended: Callable[[str, Ended], None]
) -> tuple[Mapping[str, Any], ...]:
    """The best settings that the search finds for each line, which search.json then holds with all trials.

    Raises InstallError without optuna; ConfigError if the trials would see devices that the study tests on, or if all trials
    of a line fail.
    """
    search = plan.study.search
    assert search is not None
    try:
        import optuna
    except ImportError as error:
        raise InstallError("a study with [search] needs optuna: pip install 'tinyfl[search]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _demand_unseen(plan, search, code)
    lines = ThreadPoolExecutor(len(plan.lines), "tinyfl-search")
    try:
        going = {
            lines.submit(_Line(plan.study, search, line, directory, pool, code, ended).best): i
            for i, line in enumerate(plan.lines)
        }
        found = {going[future]: future.result() for future in as_completed(going)}
    finally:
        lines.shutdown(wait=False, cancel_futures=True)
    in_order = [found[i] for i in range(len(plan.lines))]
    record = [{"values": dict(line.values), **each} for line, each in zip(plan.lines, in_order, strict=True)]
    write_whole(directory.path / FOUND, f"{json.dumps(record, indent=2)}\n".encode())
    return tuple(each["found"] for each in in_order)


class _Line:
    """The search for one line of the table."""

    def __init__(
        self,
        study: Study,
        search: Search,
        line: Line,
        directory: StudyDirectory,
        pool: Workers,
        code: Code,
        ended: Callable[[str, Ended], None],
    ) -> None:
        self._study, self._search, self._line, self._directory = study, search, line, directory
        self._pool, self._code, self._ended = pool, code, ended

    def best(self) -> dict[str, Any]:
        """The best settings, as ``found``, and all ``trials``."""
        import optuna

        found = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        trials = []
        for number in range(self._search.trials):
            trial = found.ask()
            settings = {
                **{name: self._suggested(trial, name, *ends) for name, ends in self._search.between.items()},
                **{name: each[trial.suggest_int(name, 0, len(each) - 1)] for name, each in sorted(self._search.among.items())},
            }
            score = self._score(number, settings)
            found.tell(trial, score)
            trials.append({"settings": settings, "score": None if score == WORST else score})
        reached = [(each["score"], i) for i, each in enumerate(trials) if each["score"] is not None]
        if not reached:
            raise ConfigError(
                f"every trial of the search for {folder_of(self._line.values)} failed. Search elsewhere, or run one of them: "
                f"tinyfl run {self._folder(0, self._search.seeds[0]) / 'config.toml'} --out ANOTHER."
            )
        return {"found": trials[min(reached)[1]]["settings"], "trials": trials}

    def _suggested(self, trial: Any, name: str, low: float, high: float) -> Any:
        log = low > 0 and high / low >= WIDE
        if SETTINGS[name].kind is int:
            return trial.suggest_int(name, int(low), int(high), log=log)
        return trial.suggest_float(name, low, high, log=log)

    def _folder(self, number: int, seed: int) -> Path:
        return self._directory.path / FOLDER / (folder_of(self._line.values) or "all") / f"{number:04d},seed={seed}"

    def _score(self, number: int, settings: Mapping[str, Any]) -> float:
        """What the trial reaches on validation devices, the mean over the seeds: loss, or for classes the share of errors."""
        folders = {seed: self._folder(number, seed) for seed in self._search.seeds}
        going = {}
        for seed, folder in folders.items():
            if self._directory.result(folder) is None:
                going[self._pool.submit(folder, self._options(settings, seed))] = folder
        for future in as_completed(going):
            self._ended(f"{FOLDER}/{going[future].parent.name}/{going[future].name}", future.result())
        reached = [self._reached(folder) for folder in folders.values()]
        return WORST if WORST in reached else float(np.mean(reached))

    def _options(self, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
        options = {**self._line.points[0].settings, **settings, SEED: seed, "tasks": FEWEST_TASKS}
        config, _, _ = completed(self._study, options, self._code)
        return {**options, "rounds": config.rounds, "evaluate_every": config.rounds, "patience": 0}

    def _reached(self, folder: Path) -> float:
        result = self._directory.result(folder)
        if result is None:
            return WORST
        last = result["validation"][-1]
        if last["accuracy"] is not None:
            return 1.0 - float(last["accuracy"])
        return WORST if last["loss"] is None else float(last["loss"])


def _demand_unseen(plan: Plan, search: Search, code: Code) -> None:
    """Raises ConfigError where the devices that a task tests on depend on the seed, since a trial would learn from them."""
    seen = set[str]()
    for line in plan.lines:
        episodes = {key: value for key, value in line.points[0].settings.items() if key in OF_EPISODES}
        if (key := json.dumps(episodes, sort_keys=True, default=str)) in seen:
            continue
        seen.add(key)
        tested = [_tested(point.settings, code) for point in line.points]
        tested += [_tested({**line.points[0].settings, SEED: seed}, code) for seed in search.seeds]
        if any(names != tested[0] for names in tested):
            raise ConfigError(
                f"the seed decides which devices of {line.config.data or line.config.task} are for testing, so a trial with "
                "another seed would learn from them. Name the devices for testing in the data (array split, docs/tasks.md)."
            )


def _tested(settings: Mapping[str, Any], code: Code) -> set[str]:
    """The names of the devices that a run tests on; none of a task that makes them up."""
    task = resolved(settings, code).load_task()
    return set(task.device_names("test")) if isinstance(task, NamedTask) else set()
