"""The file of a study: what its runs share, what they differ in, and what else is asked of them (docs/studies.md)."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinyfl.config import read_toml, renamed
from tinyfl.config.settings import MAX_ROUNDS, RENAMED, SETTINGS, TASK
from tinyfl.errors import ConfigError
from tinyfl.errors.words import file_name, guess, plain, problem

MAX_RUNS = 10_000
MAX_FOLDER_CHARS = 200
"""Maximum length of a run's folder name, in characters: a file system takes 255 bytes."""

SEED = "seed"
OF_EPISODES = {each.name for each in SETTINGS.values() if each.panel == TASK} | {"shots", "tasks"}
"""The settings that decide which episodes a run is evaluated on."""

Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class Search(BaseModel):
    """The settings to search on validation devices: ``between`` two numbers, or ``among`` values, with as many ``trials`` for
    each line of the table, each on these ``seeds``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    trials: Annotated[int, Field(ge=1, le=10_000)]
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 63)]], Field(min_length=1)]
    between: dict[str, Range] = {}
    among: dict[str, Annotated[list[Any], Field(min_length=2)]] = {}


class Beside(BaseModel):
    """A column of another tool's results: its ``name``, and the CSV ``file`` that holds them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    name: str
    file: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    gradients: Annotated[int, Field(ge=1, strict=True)] | None = None
    curve: Annotated[int, Field(ge=0, le=1000, strict=True)] = 0
    board: str = ""
    run: dict[str, Any] = {}
    grid: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    search: Search | None = None
    beside: list[Beside] = []


@dataclass(frozen=True)
class Choice:
    """A value of an axis: what tables show of it, and the settings that it stands for."""

    shown: str | int | float | bool
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Axis:
    """What runs differ in: a setting, or several that change together."""

    name: str
    choices: tuple[Choice, ...]

    @property
    def settings(self) -> set[str]:
        """The names of all settings that its choices give."""
        return {name for choice in self.choices for name in choice.settings}


@dataclass(frozen=True)
class Point:
    """A run of a study: its folder's name, its value on each axis, and its settings."""

    folder: str
    values: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """A study as its file describes it. ``gradients`` is the number of sample gradients of each run, None for the rounds of its
    settings; ``curve`` the number of evaluations in the course of each; ``board`` the board whose cost tables show; empty for
    none. ``sha256`` is the hash of what the file says."""

    gradients: int | None
    curve: int
    board: str
    run: Mapping[str, Any]
    axes: tuple[Axis, ...]
    search: Search | None
    beside: tuple[Beside, ...]
    sha256: str

    @property
    def seeds(self) -> Axis | None:
        """The axis that intervals are over: the one that gives the seed."""
        return next((axis for axis in self.axes if SEED in axis.settings), None)

    @property
    def lines(self) -> tuple[Axis, ...]:
        """The axes that tell the lines of a table from each other."""
        return tuple(axis for axis in self.axes if axis is not self.seeds)

    @property
    def sections(self) -> tuple[Axis, ...]:
        """The axes that tell tables from each other, since they change what is measured."""
        return tuple(axis for axis in self.lines if axis.settings & OF_EPISODES)

    @property
    def data(self) -> list[str]:
        """The paths of its runs' data."""
        return list(dict.fromkeys(str(point.settings["data"]) for point in self.points() if point.settings.get("data")))

    def points(self) -> list[Point]:
        """All runs, seed by seed, so that a study that is stopped has some of every line."""
        axes = [*([self.seeds] if self.seeds else []), *self.lines]
        every = product(*(axis.choices for axis in axes))
        return [self._point({axis.name: choice for axis, choice in zip(axes, choices, strict=True)}) for choices in every]

    def _point(self, chosen: Mapping[str, Choice]) -> Point:
        values = {axis.name: chosen[axis.name].shown for axis in self.axes}
        settings = dict(self.run)
        for axis in self.axes:
            settings.update(chosen[axis.name].settings)
        return Point(folder_of(values), values, settings)


def folder_of(values: Mapping[str, Any]) -> str:
    """The folder of the run with these values, which names them."""
    name = ",".join(f"{file_name(key)}={file_name(value)}" for key, value in values.items())
    unclear = any(file_name(value) != str(value) for value in values.values())
    if not unclear and len(name) <= MAX_FOLDER_CHARS:
        return name
    digest = hashlib.sha256(json.dumps({key: str(value) for key, value in values.items()}).encode()).hexdigest()
    return f"{name[:MAX_FOLDER_CHARS]}-{digest[:8]}"


def read_study(path: Path) -> Study:
    """Reads the file of a study.

    Raises ConfigError where it is none, or describes no runs.
    """
    table = read_toml(path)
    try:
        file = _File(**table)
    except ValidationError as error:
        found = "; ".join(problem(each) for each in error.errors()[:3])
        raise ConfigError(f"{path} is no study: {found}. See docs/studies.md.") from error
    axes = tuple(_axis(path, name, values) for name, values in file.grid.items())
    run = renamed(file.run)
    _demand_settings(path, "[run]", run)
    _demand_one_axis_each(path, axes)
    _demand_what_is_searched(path, file, axes, run)
    if file.gradients is not None and "rounds" in {*run, *(name for axis in axes for name in axis.settings)}:
        raise ConfigError(f"{path}: gradients says how long each run is, and so does rounds. Leave one of them out.")
    digest = hashlib.sha256(json.dumps(table, sort_keys=True, default=str).encode()).hexdigest()
    study = Study(file.gradients, file.curve, file.board, run, axes, file.search, tuple(file.beside), digest)
    runs = 1
    for axis in axes:
        runs *= len(axis.choices)
    if runs > MAX_RUNS:
        raise ConfigError(f"{path} describes {runs:,} runs. Make several studies, of {MAX_RUNS:,} runs or fewer each.")
    return study


def _axis(path: Path, name: str, values: list[Any]) -> Axis:
    choices = tuple(_choice(path, name, value) for value in values)
    (twice, count), *_ = Counter(str(choice.shown) for choice in choices).most_common(1)
    if count > 1:
        raise ConfigError(f"{path}: [grid] {plain(name, 80)} has {plain(twice, 80)} twice. Leave one out, or give it a name.")
    return Axis(name, choices)


def _choice(path: Path, axis: str, value: Any) -> Choice:
    if not isinstance(value, dict):
        _demand_settings(path, "[grid]", {axis: value})
        return Choice(", ".join(map(str, value)) if isinstance(value, list) else value, renamed({axis: value}))
    settings = renamed({key: each for key, each in value.items() if key != "name"})
    _demand_settings(path, f"[grid] {plain(axis, 80)}", settings)
    name = value.get("name") or ", ".join(f"{key} {each}" for key, each in settings.items())
    if not settings or not isinstance(name, str):
        raise ConfigError(f"{path}: a table of [grid] {plain(axis, 80)} has settings, and a name as text if you like.")
    return Choice(plain(name, 80), settings)


def _demand_settings(path: Path, where: str, given: Mapping[str, Any]) -> None:
    """Raises ConfigError for a name that is no setting."""
    for name in given:
        if name not in SETTINGS and name not in RENAMED:
            raise ConfigError(
                f"{path}: {where} names {plain(name, 80)!r}, which is no setting. {guess(name, SETTINGS)}There are "
                f"{', '.join(sorted(SETTINGS))}; an axis of several settings is a list of tables (docs/studies.md)."
            )


def _demand_one_axis_each(path: Path, axes: tuple[Axis, ...]) -> None:
    """Raises ConfigError where two axes give the same setting."""
    owner: dict[str, str] = {}
    for axis in axes:
        for setting in axis.settings:
            if setting in owner:
                raise ConfigError(
                    f"{path}: [grid] {plain(owner[setting], 80)} and {plain(axis.name, 80)} both give {setting}. Leave it in "
                    "one of them."
                )
            owner[setting] = axis.name


def _demand_what_is_searched(path: Path, file: _File, axes: tuple[Axis, ...], run: Mapping[str, Any]) -> None:
    """Raises ConfigError where the search is for what cannot be searched."""
    if file.search is None:
        return
    sought = {**file.search.between, **file.search.among}
    given = {*run, *(name for axis in axes for name in axis.settings)}
    _demand_settings(path, "[search]", sought)
    for name in sought:
        if name in OF_EPISODES or name in (SEED, "rounds", "evaluate_every", "patience"):
            raise ConfigError(f"{path}: {name} decides what is measured, or for how long, and is not searched. Leave it out.")
        if name in given or (name in file.search.between and name in file.search.among):
            raise ConfigError(f"{path}: {name} is searched, and given too. Leave one of them out.")
    if not sought:
        raise ConfigError(f"{path}: [search] has no settings. Give between = {{ rate = [0.01, 1.0] }}, or among.")
    for name, (low, high) in file.search.between.items():
        if not low < high or SETTINGS[name].kind not in (int, float):
            raise ConfigError(
                f"{path}: [search] between has {name} from {low:g} to {high:g}. Give two numbers, the lower first."
            )


def rounds_for(gradients: int, a_round: int) -> int:
    """The number of rounds of ``a_round`` sample gradients each that comes nearest to ``gradients``."""
    return min(max(round(gradients / a_round), 1), MAX_ROUNDS)
