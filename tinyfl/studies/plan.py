"""What a study is going to run: the lines of its tables with their networks, and each run's whole options and expected time."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyfl.algorithms import Inner, alpha_of_stretches
from tinyfl.building import boards
from tinyfl.config import Config, resolve
from tinyfl.config.settings import SETTINGS
from tinyfl.core import Engine
from tinyfl.errors import ConfigError
from tinyfl.fleet import draw_cohort, draw_cohorts
from tinyfl.networks import Network
from tinyfl.registry import KINDS
from tinyfl.registry.chosen import Chosen, not_loaded
from tinyfl.registry.own import own_code
from tinyfl.runs.evaluation import VALIDATION_EPISODES, choose_rate, measure, modes_of
from tinyfl.runs.learner import Learner, algorithm_of, fitted
from tinyfl.simulators.native import NativeFleet
from tinyfl.studies.file import Point, Study, rounds_for

Code = Mapping[str, tuple[str, ...]]
"""The user's own code that a study may load, by kind."""

TRIAL_SECONDS = 0.2
"""How long the trial of a line's rounds lasts."""

TRIAL_TASKS = 16
"""Episodes of the trial of its evaluation."""


@dataclass(frozen=True)
class Line:
    """A line of a study's tables: its values on the axes, the config of its first run, its network, a device's work in a round,
    its runs, and the seconds that one takes on one processor; None if it has boards."""

    values: Mapping[str, Any]
    config: Config
    network: Network
    inner: Inner
    points: tuple[Point, ...]
    seconds: float | None
    found: Mapping[str, Any]
    """The settings that a search has found."""

    @property
    def gradients(self) -> int:
        """Sample gradients of a run."""
        return self.config.rounds * self.config.per_round * self.inner.total


@dataclass(frozen=True)
class Plan:
    """The lines of a study, and the options of each run by its folder."""

    study: Study
    lines: tuple[Line, ...]
    options: Mapping[str, Mapping[str, Any]]

    def seconds(self, done: Sequence[str] = ()) -> float | None:
        """The expected time of all runs but those in the folders ``done``, on one processor; None if it is not known."""
        left = [(line.seconds, sum(point.folder not in done for point in line.points)) for line in self.lines]
        if any(each is None and count for each, count in left):
            return None
        return sum((each or 0.0) * count for each, count in left)

    def after(self, found: Sequence[Mapping[str, Any]], code: Code) -> "Plan":
        """The plan with the settings that a search has found for each line."""
        lines = [
            replace(_line(self.study, line.values, line.points, each, code, trial=False), seconds=line.seconds)
            for line, each in zip(self.lines, found, strict=True)
        ]
        return _whole(self.study, lines, code)


def planned(study: Study, code: Code) -> Plan:
    """The plan of ``study``.

    Raises ConfigError or DataError for settings with which a run could not begin, or code that is not in ``code``.
    """
    if study.board:
        _demand_board(study.board)
    by_line: dict[tuple[tuple[str, Any], ...], list[Point]] = {}
    for point in study.points():
        values = {axis.name: point.values[axis.name] for axis in study.lines}
        by_line.setdefault(tuple(values.items()), []).append(point)
    lines = []
    for key, points in by_line.items():
        sought = {}
        if study.search:  # a value of each range, as if it had been found
            sought = {name: _between(name, ends) for name, ends in study.search.between.items()}
            sought |= {name: each[0] for name, each in study.search.among.items()}
        lines.append(_line(study, dict(key), points, sought, code))
    return _whole(study, lines, code)


def _whole(study: Study, lines: Sequence[Line], code: Code) -> Plan:
    options = dict[str, Mapping[str, Any]]()
    for line in lines:
        follows: dict[str, Any] = {"rounds": line.config.rounds} if study.gradients is not None else {}
        follows |= {"evaluate_every": line.config.evaluate_every} if study.curve else {}
        for point in line.points:
            options[point.folder] = {**point.settings, **line.found, **follows}
            resolved(options[point.folder], code)
    return Plan(study, tuple(lines), {folder: options[folder] for folder in (each.folder for each in study.points())})


def resolved(options: Mapping[str, Any], code: Code) -> Config:
    """The config of ``options`` from a file, which loads the code only that this user named too.

    Raises ConfigError for other code, and as ``resolve`` does.
    """
    named = [Chosen.read(kind, options[kind]) for kind in KINDS if kind in options]
    if strange := [each for each in named if not each.loads_by_name and each.name not in code.get(each.kind, ())]:
        raise not_loaded(*strange)
    return resolve(own_code(options), installed=True)


def completed(study: Study, settings: Mapping[str, Any], code: Code) -> tuple[Config, Learner, Inner]:
    """The config of a run with these ``settings`` and as many rounds as the study asks for, its learner, and a device's work in
    its first round."""
    config, learner = fitted(resolved(settings, code))
    inner = algorithm_of(config, learner.network).inner(0)
    if study.gradients is not None:
        config = replace(config, rounds=rounds_for(study.gradients, config.per_round * inner.total))
    if study.curve:
        config = replace(config, evaluate_every=max(config.rounds // study.curve, 1))
    return config, learner, inner


def _line(
    study: Study, values: Mapping[str, Any], points: Sequence[Point], found: Mapping[str, Any], code: Code, trial: bool = True
) -> Line:
    """The line with these ``values``, from its first run with the settings ``found``; with a ``trial`` of its time.

    Raises ConfigError where that run could not begin, with its folder.
    """
    try:
        config, learner, inner = completed(study, {**points[0].settings, **found}, code)
    except ConfigError as error:
        raise ConfigError(f"run {points[0].folder}: {error}") from error
    if study.gradients is not None and config.patience:
        raise ConfigError("gradients says how long each run is, and patience may end it before. Leave one of them out.")
    seconds = _seconds(config, learner, inner) if trial and not config.fleet else None
    return Line(values, config, learner.network, inner, tuple(points), seconds, found)


def _demand_board(name: str) -> None:
    """Raises ConfigError for a name that is not that of one board with a chip."""
    found = boards.select(name)
    if len(found) != 1 or found[0].memory is None:
        raise ConfigError(f"board is {name}: name one board with a chip, such as microbit-v2 (docs/boards.md).")


def _between(name: str, ends: Sequence[float]) -> Any:
    return round(sum(ends) / 2) if SETTINGS[name].kind is int else float(np.sqrt(ends[0] * ends[1])) or sum(ends) / 2


def _seconds(config: Config, learner: Learner, inner: Inner) -> float:
    """The time of a run's rounds and evaluation on one processor, from a short trial of both."""
    engine, theta = Engine(threads=1), learner.start
    fleet = NativeFleet(learner.task, learner.network, config.devices, engine)
    algorithm = algorithm_of(config, learner.network)
    at_once = fleet.stretch(inner, config.cohort) if alpha_of_stretches(algorithm) and not config.buffer else 1
    done, began = 0, time.monotonic()
    while time.monotonic() - began < TRIAL_SECONDS or not done:
        if at_once > 1:
            devices = draw_cohorts(config.seed, range(done, done + at_once), config.cohort, config.devices)
            fleet.run_stretch(devices, done, theta, inner, np.zeros(at_once))
        else:
            fleet.run(draw_cohort(config.seed, done, config.per_round, config.devices), done, theta, inner)
        done += at_once
    rounds = (time.monotonic() - began) / done * config.rounds
    return rounds + _evaluation_seconds(config, learner, engine)


def _evaluation_seconds(config: Config, learner: Learner, engine: Engine) -> float:
    """The time of a run's evaluations: those of theta and of the start, and those in its course."""
    task, network, tasks = learner.task, learner.result, min(TRIAL_TASKS, config.tasks)
    theta = learner.start[: network.parameters]
    searches, measures = list[float](), list[float]()
    for shots in config.shots:
        began = time.monotonic()
        rate = config.adapt_lr or choose_rate(task, network, theta, "batch", shots, config.clip, engine, count=TRIAL_TASKS)
        chosen = time.monotonic()
        measure(task, network, theta, shots=(shots,), tasks=tasks, adapt_lr=rate, clip=config.clip, engine=engine)
        searches.append((chosen - began) * VALIDATION_EPISODES / TRIAL_TASKS)
        measures.append((time.monotonic() - chosen) * config.tasks / tasks)
    course = config.rounds // config.evaluate_every if config.evaluate_every else 0
    return course * searches[0] + 2 * (len(modes_of(network)) * sum(searches) + sum(measures))
