"""A column of another tool's results, read from a CSV file, beside those of a study (docs/studies.md)."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain
from tinyfl.runs.evaluation import leads, mean_and_interval
from tinyfl.studies.file import Study

VALUES = ("accuracy", "loss")
OTHERS = ("shots", "seed", "ci95")
MAX_LINES = 100_000


@dataclass(frozen=True)
class Column:
    """The results of another tool: each with the values of axes that it is for, its shots if it names them, the figure, and
    half of its interval if it is known."""

    name: str
    rows: tuple[tuple[Mapping[str, str], int | None, float, float | None], ...]


def read_columns(study: Study) -> list[Column]:
    """The columns of other tools that the study's file names.

    Raises ConfigError for a file that cannot be read, or results for what the study does not have.
    """
    return [_column(study, plain(each.name, 60), Path(each.file)) for each in study.beside]


def _column(study: Study, name: str, path: Path) -> Column:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line, _ in zip(csv.DictReader(file), range(MAX_LINES), strict=False)]
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: {error}. Give a CSV file with a line of names (docs/studies.md).") from error
    axes = {axis.name: {str(choice.shown) for choice in axis.choices} for axis in study.lines}
    rows = []
    for number, line in enumerate(lines, 2):
        where = f"{path}, line {number}"
        keys = {key for key in line if key and line[key] not in ("", None)}
        if unknown := sorted(keys - {*axes, *VALUES, *OTHERS}):
            raise ConfigError(f"{where}: {plain(unknown[0], 60)} is no axis of the study. Leave this column out.")
        values = {key: line[key] for key in keys & axes.keys()}
        if strange := next((key for key, value in values.items() if value not in axes[key]), None):
            raise ConfigError(
                f"{where}: the study has no {strange} {plain(values[strange], 60)}; it has {', '.join(sorted(axes[strange]))}."
            )
        figure = [_number(where, line[key]) for key in VALUES if key in keys]
        if len(figure) != 1:
            raise ConfigError(f"{where}: a line has one figure, in a column accuracy or loss.")
        shots = int(_number(where, line["shots"])) if "shots" in keys else None
        rows.append((values, shots, figure[0], _number(where, line["ci95"]) if "ci95" in keys else None))
    if not rows:
        raise ConfigError(f"{path} has no results. Give a CSV file with a line of names (docs/studies.md).")
    return Column(name, tuple(rows))


def _number(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {plain(text, 60)} is not a number.") from error
    if not math.isfinite(value):
        raise ConfigError(f"{where}: {plain(text, 60)} is not a finite number.")
    return value


def beside(column: Column, values: Mapping[str, Any], reached: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The column's figures for the line with these ``values``, one for each number of shots after LEADING_STEPS full-batch
    steps: several, as of several seeds, as their mean with half of its 95 % interval."""
    found = []
    for row in reached:
        if not leads(row):
            continue
        mine = [
            (figure, width)
            for at, shots, figure, width in column.rows
            if shots in (None, row["shots"]) and all(str(values.get(key)) == value for key, value in at.items())
        ]
        if mine:
            mean, width, count = mean_and_interval(np.array([figure for figure, _ in mine]), np.arange(len(mine)))
            found.append({"shots": row["shots"], "mean": mean, "ci95": width if count > 1 else mine[0][1], "n": count})
    return found
