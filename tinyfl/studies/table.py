"""The table of a study, as plain data: means over seeds with intervals, and paired differences.

Two lines of a table that differ on one axis only have runs in pairs: of the same seed, and so on the same unseen devices with
the same samples. The mean of the differences of the pairs has an interval of its own, which says whether one is better. Where
results list every test device by name, as for a user's own data, means and differences have intervals over those devices too,
each of which counts with its mean over the seeds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyfl.algorithms import Returns
from tinyfl.errors import InstallError
from tinyfl.runs.evaluation import compares, leads, mean_and_interval
from tinyfl.runs.tables import as_csv, metric
from tinyfl.studies.beside import Column, beside
from tinyfl.studies.device import device_cost
from tinyfl.studies.file import Axis
from tinyfl.studies.plan import Line
from tinyfl.studies.running import Done
from tinyfl.system.files import write_whole
from tinyfl.system.version import version

TABLES, TABLE, DIFFERENCES = "study.json", "table.csv", "differences.csv"

SPENT = {"rounds": "rounds", "gradients": "sample_gradients", "down": "line_bytes_down", "up": "line_bytes_up"}
"""What a line spends on a run, the mean over its runs, which may stop early: the names here and in a run's result."""

Row = dict[str, Any]
Result = Mapping[str, Any]


@dataclass(frozen=True)
class _Runs:
    """A line with the results of those of its runs that have finished, by their value on the axis of seeds."""

    line: Line
    results: Mapping[Any, Result]


def tabulated(done: Done, columns: Sequence[Column] = ()) -> dict[str, Any]:
    """The tables of a study, as JSON holds them (docs/studies.md). They follow from the runs alone, but for tinyfl's
    ``version``."""
    study, notes = done.plan.study, list[str]()
    seeds = study.seeds.name if study.seeds else ""
    every = [_Runs(line, _results(line, done, seeds)) for line in done.plan.lines]
    sections: dict[tuple[tuple[str, Any], ...], list[_Runs]] = {}
    for runs in every:
        of = tuple((axis.name, runs.line.values[axis.name]) for axis in study.sections)
        sections.setdefault(of, []).append(runs)
    axes = [axis for axis in study.lines if axis not in study.sections]
    costs = [_device(runs.line, study.board, notes) for runs in every]
    by_line = {id(runs): cost for runs, cost in zip(every, costs, strict=True)}
    return {
        "version": version(),
        "axes": [axis.name for axis in axes],
        "seeds": [choice.shown for choice in study.seeds.choices] if study.seeds else [],
        "runs": len(done.plan.options),
        "gradients": study.gradients,
        "board": study.board,
        "tables": [
            _table(dict(of), [runs for runs in each if runs.results], axes, by_line, columns) for of, each in sections.items()
        ],
        "failed": [{"run": folder, "why": ended.why} for folder, ended in done.failed.items()],
        "notes": list(dict.fromkeys(notes)),
    }


def _results(line: Line, done: Done, seeds: str) -> dict[Any, Result]:
    return {point.values.get(seeds, ""): done.results[point.folder] for point in line.points if point.folder in done.results}


def _device(line: Line, board: str, notes: list[str]) -> Row:
    if line.inner.returns is Returns.meta_gradient:
        notes.append("no board runs MAML: the memory shown for it is FOMAML's")
    try:
        return device_cost(line, board)
    except InstallError as error:
        notes.append(f"costs on {board} left out: {error}")
        return device_cost(line, "")


def _table(
    of: Row, runs: Sequence[_Runs], axes: Sequence[Axis], costs: Mapping[int, Row], columns: Sequence[Column]
) -> dict[str, Any]:
    """One table: the lines that are measured on the same devices."""
    return {
        "of": of,
        "metric": _metric(runs),
        "rows": [_row(of, each, costs[id(each)], columns) for each in runs],
        "without": _without(runs),
        "differences": _differences(runs, axes),
    }


def _metric(runs: Sequence[_Runs]) -> str:
    return metric([row for each in runs for result in each.results.values() for row in result["evaluation"]])


def _row(of: Row, runs: _Runs, cost: Row, columns: Sequence[Column]) -> Row:
    line, results = runs.line, list(runs.results.values())
    key, first = _metric([runs]), results[0]
    reached = _reached(results, "evaluation", key)
    return {
        "values": dict(line.values),
        "found": dict(line.found),
        "n": len(results),
        "cohort": line.config.cohort,
        "parameters": first["parameters"],
        "network": first["network"],
        **{name: round(float(np.mean([result[key] for result in results]))) for name, key in SPENT.items()},
        "device": cost,
        "reached": reached,
        "start": _reached(results, "baseline", key),
        "devices": over_devices([_of_devices(result, key) for result in results]),
        "curve": _curve(line, results, key, cost),
        "beside": {column.name: beside(column, {**of, **line.values}, reached) for column in columns},
    }


def _reached(results: Sequence[Result], which: str, key: str) -> list[Row]:
    """Each setting of the evaluation, with its mean over the runs."""
    return [
        {
            **{name: row[name] for name in ("mode", "shots", "steps")},
            **over_seeds([result[which][i][key] for result in results], row[f"{key}_ci95"]),
        }
        for i, row in enumerate(results[0][which])
    ]


def over_seeds(values: Sequence[float | None], of_devices: float | None) -> Row:
    """The mean of ``values``, one for each seed, with half of its 95 % interval (Student's t); of a single seed that interval
    is over its unseen devices, ``of_devices``. None: a device diverged, in ``diverged`` of the seeds."""
    diverged = sum(value is None for value in values)
    row = {"n": len(values), "over": "seeds" if len(values) > 1 else "devices", "values": list(values)}
    if diverged:
        return {"mean": None, "ci95": None, **row, "diverged": diverged}
    known = np.array(values, np.float64)
    mean, width, count = mean_and_interval(known, np.arange(len(known)))
    return {"mean": mean, "ci95": width if count > 1 else of_devices, **row}


def _of_devices(result: Result, key: str) -> dict[str, float | None]:
    """What each test device reaches, by its name; empty unless the result lists all of them, and by names: where a task makes
    devices up, those of another seed are others."""
    found = result.get("per_device") or {"number": 0, "devices": []}
    rows = {row["device"]: row["after"].get(key) for row in found["devices"]}
    numbered = rows.keys() == set(map(str, range(len(rows))))
    return rows if len(rows) == found["number"] and not numbered else {}


def over_devices(seeds: Sequence[Mapping[str, float | None]]) -> Row | None:
    """The mean over all devices in ``seeds`` with half of its 95 % interval, where a device counts with its mean over the seeds
    that have it. None for fewer than two devices, or if one diverged."""
    by_name: dict[str, list[float | None]] = {}
    for devices in seeds:
        for name, value in devices.items():
            by_name.setdefault(name, []).append(value)
    means = [float(np.mean([value for value in each if value is not None])) for each in by_name.values() if None not in each]
    if len(means) < 2 or len(means) < len(by_name):
        return None
    mean, width, count = mean_and_interval(np.array(means), np.arange(len(means)))
    return {"mean": mean, "ci95": width, "n": count, "over": "devices"}


def _curve(line: Line, results: Sequence[Result], key: str, cost: Row) -> list[Row]:
    """The evaluations on validation devices in the course of the runs, after the same rounds in all of them."""
    rounds = [row["round"] for row in results[0].get("validation", [])]
    at = [{row["round"]: row.get(key) for row in result.get("validation", [])} for result in results]
    points = []
    for number in rounds:
        values = [each.get(number) for each in at]
        if any(value is None for value in values):
            continue
        device_rounds = number * line.config.per_round
        points.append(
            {
                "gradients": device_rounds * line.inner.total,
                "bytes": device_rounds * (cost["down"] + cost["up"]),
                **{name: each for name, each in over_seeds(values, None).items() if name in ("mean", "ci95")},
            }
        )
    return points


def _without(runs: Sequence[_Runs]) -> list[Row]:
    """The results without a network, on the same episodes for every line."""
    if not runs:
        return []
    results = max((list(each.results.values()) for each in runs), key=len)
    key = _metric(runs)
    return [
        {
            "method": row.get("method", "nearest class mean"),
            "shots": row["shots"],
            **over_seeds([result["floor"][i][key] for result in results], row[f"{key}_ci95"]),
        }
        for i, row in enumerate(results[0]["floor"])
        if row[key] is not None
    ]


def _differences(runs: Sequence[_Runs], axes: Sequence[Axis]) -> list[Row]:
    """What each choice of an axis gains or loses against the first, all else equal."""
    found = []
    for axis in axes:
        first = axis.choices[0].shown
        for each in runs:
            if each.line.values[axis.name] == first:
                continue
            wanted = {**each.line.values, axis.name: first}
            other = next((one for one in runs if one.line.values == wanted), None)
            if other:
                at = {name: value for name, value in each.line.values.items() if name in {a.name for a in axes} - {axis.name}}
                head = {"axis": axis.name, "choice": each.line.values[axis.name], "first": first, "at": at}
                found += [{**head, **row} for row in _paired(each.results, other.results)]
    return found


def _paired(mine: Mapping[Any, Result], theirs: Mapping[Any, Result]) -> list[Row]:
    """The differences of the runs of the same seeds, in the rows that compare; those that were measured on as many devices."""
    rows = []
    pairs = [(mine[seed], theirs[seed]) for seed in mine if seed in theirs]
    if not pairs:
        return []
    key = metric(pairs[0][0]["evaluation"])
    for row in pairs[0][0]["evaluation"]:
        if not compares(row):
            continue
        both = [(_like(row, a["evaluation"]), _like(row, b["evaluation"])) for a, b in pairs]
        if any(a is None or b is None or a["tasks"] != b["tasks"] for a, b in both):
            continue
        values = [None if a[key] is None or b[key] is None else a[key] - b[key] for a, b in both]  # type: ignore[index]
        head = {name: row[name] for name in ("mode", "shots", "steps")}
        difference = over_seeds(values, None)
        rows.append({**head, **difference, "is": _judged(difference, key)})
        by_device = over_devices([_apart(_of_devices(a, key), _of_devices(b, key)) for a, b in pairs])
        if by_device and _lists(pairs[0][0], row):
            rows.append({**head, **by_device, "is": _judged(by_device, key)})
    return rows


def _like(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row of an evaluation's ``rows`` that compares with ``row``: the same, or what reports lead with too."""
    return next(
        (
            other
            for other in rows
            if other["shots"] == row["shots"]
            and ((leads(row) and leads(other)) or (other["mode"], other["steps"]) == (row["mode"], row["steps"]))
        ),
        None,
    )


def _lists(result: Result, row: Row) -> bool:
    """Whether ``row`` of the evaluation is the one of which ``result`` lists every device."""
    return row["mode"] != "stream" and all(row[key] == result["per_device"][key] for key in ("shots", "steps"))


def _apart(mine: Mapping[str, float | None], theirs: Mapping[str, float | None]) -> dict[str, float | None]:
    """The differences of the devices in both."""
    both = {name: (mine[name], theirs[name]) for name in mine if name in theirs}
    return {name: None if a is None or b is None else a - b for name, (a, b) in both.items()}


def _judged(difference: Row, key: str) -> str:
    """Whether the interval of a difference lies on one side of zero: better, worse, or undecided."""
    mean, half = difference["mean"], difference["ci95"]
    if mean is None or half is None or abs(mean) <= half:
        return "undecided"
    return "better" if (mean > 0) == (key != "loss") else "worse"


def as_rows(tables: Mapping[str, Any]) -> list[Row]:
    """The tables as rows of plain values, one for each line and setting of the evaluation, for a CSV file."""
    rows = []
    for table in tables["tables"]:
        for row in table["rows"]:
            device, on = row["device"], row["device"].get("on", {})
            costs = {key: device[key] for key in ("learner_bytes", "held", "held_bytes")}
            costs |= {f"round_{key}": device[key] for key in ("down", "up", "gradients")}
            costs |= {f"board_{key}": value for key, value in on.items()}
            run = {key: row[key] for key in ("network", "parameters", "rounds", "cohort", "gradients", "down", "up")}
            for learnt, start in zip(row["reached"], row["start"], strict=True):
                rows.append(
                    {
                        **table["of"],
                        **row["values"],
                        **{key: learnt[key] for key in ("mode", "shots", "steps")},
                        "metric": table["metric"],
                        **{key: learnt[key] for key in ("mean", "ci95", "n", "over")},
                        "start_mean": start["mean"],
                        "start_ci95": start["ci95"],
                        **_beside_columns(row, learnt),
                        **run,
                        **costs,
                    }
                )
    return rows


def _beside_columns(row: Row, learnt: Row) -> Row:
    """What other tools reach where this row of the evaluation leads."""
    return {
        f"beside {tool}": next((each["mean"] for each in figures if leads(learnt) and each["shots"] == learnt["shots"]), None)
        for tool, figures in row["beside"].items()
    }


def difference_rows(tables: Mapping[str, Any]) -> list[Row]:
    """The paired differences as rows of plain values, for a CSV file."""
    names = ("axis", "choice", "first", "mode", "shots", "steps", "mean", "ci95", "n", "over", "is")
    return [
        {
            **table["of"],
            **{name: row[name] for name in names},
            "at": ", ".join(f"{name} {value}" for name, value in row["at"].items()),
        }
        for table in tables["tables"]
        for row in table["differences"]
    ]


def save(folder: Path, tables: Mapping[str, Any]) -> None:
    """Writes the tables into ``folder`` as JSON, and their lines and paired differences as CSV."""
    write_whole(folder / TABLES, f"{json.dumps(tables, indent=2)}\n".encode())
    write_whole(folder / TABLE, as_csv(as_rows(tables)).encode())
    write_whole(folder / DIFFERENCES, as_csv(difference_rows(tables)).encode())
