"""Terminal output for studies: what one would take, its progress, and its tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from rich.box import SIMPLE
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
from rich.table import Table

from tinyfl.cli.show.bar import Bar
from tinyfl.cli.show.terminal import Terminal
from tinyfl.core.engine import processors
from tinyfl.report import html
from tinyfl.report.study import device_columns, difference, figure, leading, shown
from tinyfl.runs.evaluation import LEADING_STEPS
from tinyfl.runs.tables import METRICS
from tinyfl.studies.directory import StudyDirectory
from tinyfl.studies.plan import Plan
from tinyfl.studies.running import Going, spoken

T = TypeVar("T")

MAX_COLUMNS = 8
OF_THE_LEARNER = ("RAM of the<br>learner", "RAM for<br>those", "down", "up")
"""Columns that the terminal leaves out where there are those of a board."""


def expected(plan: Plan, directory: StudyDirectory, workers: int) -> dict[str, Any]:
    """What a study would take from here, as plain data; in words too, under ``words``."""
    study, runs = plan.study, len(plan.options)
    done = [folder for folder in plan.options if directory.finished(folder)]
    seconds, at_once = plan.seconds(done), min(workers or processors(), runs)
    gradients = sum(line.gradients * len(line.points) for line in plan.lines)
    axes = [axis for axis in study.axes if len(axis.choices) > 1]
    of = f" ({' × '.join(f'{len(axis.choices)} of {axis.name}' for axis in axes)})" if len(axes) > 1 else ""
    each = f", {study.gradients:,} for each run as near as whole rounds come" if study.gradients else ""
    words = [f"{html.counted(runs, 'run')}{of}: {gradients:,} sample gradients{each}"]
    if done:
        words.append(f"{len(done):,} of them are done already")
    if study.search:
        trials = study.search.trials * len(study.search.seeds) * len(plan.lines)
        words.append(f"before them {trials:,} trials of the search, each as long as a run without its evaluation")
        seconds = (
            None if seconds is None else seconds + trials * sum(line.seconds or 0 for line in plan.lines) / len(plan.lines)
        )
    if seconds is None:
        words.append("no estimate of the time: some runs are on boards")
    elif len(done) < runs:
        words.append(f"about {spoken(seconds / at_once)} with {at_once} at once, by a short trial of each kind of run")
    wall = None if seconds is None else seconds / at_once
    return {"runs": runs, "done": len(done), "gradients": gradients, "seconds": wall, "workers": at_once, "words": words}


def with_progress(work: Callable[[Callable[[Going], None]], T]) -> T:
    """Calls ``work`` with a function that shows progress on stderr."""
    what, figures = TextColumn("{task.description}"), TextColumn("{task.fields[figures]}")
    bar = Bar("runs", SpinnerColumn(), what, BarColumn(), MofNCompleteColumn(), figures)
    with bar:
        return work(bar.show)


def took(seconds: Mapping[str, float]) -> str:
    """The time that a study has taken so far, in words."""
    whole, useful = seconds["processor_seconds"], seconds["rounds_and_evaluation"]
    if not whole:
        return "no run was left to do"
    return f"the runs took {spoken(whole)} of processors, {useful / whole:.0%} of it in rounds and evaluation"


def tables(found: Mapping[str, Any], last: Sequence[str]) -> None:
    """The tables of a study, the differences that are beyond doubt, what a device needs, and the ``last`` lines."""
    console = Terminal()
    for each in found["tables"]:
        if each["rows"]:
            _table(console, found["axes"], each)
    for each in found["failed"]:
        console.print(f"FAILED: {each['run']}: {each['why']}", style="bold red", highlight=False, soft_wrap=True)
    for line in (*found["notes"], *last):
        console.print(line, highlight=False, soft_wrap=True)


def _table(console: Terminal, axes: Sequence[str], found: Mapping[str, Any]) -> None:
    key, rows = found["metric"], found["rows"]
    shots = list(leading(rows[0]["reached"]))
    of = ", ".join(shown(axis, value) for axis, value in found["of"].items())
    what = METRICS[key]
    means = " or by class means" if any(row["mode"] == "means" for each in rows for row in each["reached"]) else ""
    after = f"{what} after {LEADING_STEPS} steps{means}"
    table = Table(title=f"{of} · {after}" if of else after, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    names = axes or ["runs"]
    for name in names:
        table.add_column(name, no_wrap=True)
    for number in shots:
        table.add_column(html.counted(number, "shot"), justify="right")
        for tool in rows[0]["beside"]:
            table.add_column(tool, justify="right")
    for name in ("gradients", "over\nthe links"):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        cells = _names(row, axes)
        for number in shots:
            cells.append(figure(leading(row["reached"])[number], key))
            for column in row["beside"].values():
                theirs = next((each for each in column if each["shots"] == number), None)
                cells.append(figure(theirs, key) if theirs else "")
        table.add_row(*cells, f"{row['gradients']:,}", html.size(row["down"] + row["up"]))
    console.print(table)
    _devices(console, names, axes, rows)
    for row in found["differences"]:
        if row["mode"] in ("batch", "means"):
            _difference(console, row, key)


def _names(row: Mapping[str, Any], axes: Sequence[str]) -> list[str]:
    return [str(row["values"][axis]) for axis in axes] or ["all"]


def _devices(console: Terminal, names: Sequence[str], axes: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """What a round costs on a device."""
    table = Table(title="a device's round", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True)
    columns = device_columns(rows)
    if len(columns) > MAX_COLUMNS:  # the page has them all
        columns = {name: column for name, column in columns.items() if name not in OF_THE_LEARNER}
    for name in columns:
        table.add_column(name.replace("<br>", "\n"), justify="right", overflow="fold")
    for i, row in enumerate(rows):
        table.add_row(*_names(row, axes), *(column[i][0] for column in columns.values()))
    console.print(table)


def _difference(console: Terminal, row: Mapping[str, Any], key: str) -> None:
    at = "".join(f", {shown(axis, value)}" for axis, value in row["at"].items())
    who = f"{shown(row['axis'], row['choice'])} against {shown(row['axis'], row['first'])}{at}"
    of = "device" if row["over"] == "devices" and row["n"] > 1 else "seed"
    figures = f"{difference(row, key)} over {html.counted(row['n'], of)}"
    words = f"{who}, {html.counted(row['shots'], 'shot')}: {figures} ({row['is']})"
    console.print(words, style="bold" if row["is"] != "undecided" else "", highlight=False, soft_wrap=True)
