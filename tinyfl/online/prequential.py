"""First a test, then a lesson: streams through devices that learn online, beside the model as it was trained."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.config import resolve
from tinyfl.core import F32, Stream
from tinyfl.data import USUAL
from tinyfl.errors import ConfigError, RunError
from tinyfl.online import starts, worlds
from tinyfl.online.averages import NamedHead, averaged
from tinyfl.online.device import Device, static
from tinyfl.online.sets import Head, OnlineSet, Standardised
from tinyfl.online.starts import Start
from tinyfl.online.worlds import World
from tinyfl.runs.adaptation import Initialisation, file_of
from tinyfl.runs.provenance import config_of
from tinyfl.system.files import write_whole

WINDOWS = 20
"""Parts of a stream that progress, table and figure show."""

SPAN = 100
"""Samples before and after a change that are compared."""

NEAR = 0.05
"""A device has recovered once the last SPAN samples are as good as those before the change, less this share of them."""

NEW_PLACES = 8
"""Classes beyond those of the run for which there is room, if nothing else is said."""

RESULT, SAMPLES, PAGE = "online.json", "samples.npz", "report.html"


@dataclass(frozen=True)
class Window:
    """A part of all streams: the samples up to which it goes, and means over devices of the figure, the static model's, that of
    always guessing the last label, and the confidence; None where there is no such thing. Labels that came, and alarms."""

    samples: int
    figure: float
    static: float | None
    last_label: float | None
    confidence: float | None
    labels: int
    drifts: int


@dataclass(eq=False)  # arrays do not compare as a whole
class Course:
    """One device in its world, as far as it has come: for each sample whether it was right, or its loss; the same of the static
    model and, for classes, of guessing the last label that came; and the confidence."""

    world: World
    device: Device
    still: Device | None
    labelled: NDArray[np.uint32]
    delay: int
    figure: F32
    static: F32
    last_label: F32
    confidence: F32
    begun: bytes
    last: Any = None
    heads: dict[int, NamedHead] = field(default_factory=dict)  # from averages, by the samples before

    def go(self, start: int, end: int) -> None:
        """The samples from ``start`` up to ``end``."""
        rows, world = slice(start, end), self.world
        due = np.maximum(np.arange(start, end) - self.delay, 0)
        said, named = self.device.run(world.x[rows], self.labelled[rows], world.y[due])
        if self.device.set.head is not Head.values:
            self.confidence[rows] = said.confidence
        self.figure[rows] = figures(self.device.set.head, world.y[rows], said.outputs, named, world.unit)
        if self.still is not None:
            before, name = self.still.run(world.x[rows], np.zeros(end - start, np.uint32), None)
            self.static[rows] = figures(self.device.set.head, world.y[rows], before.outputs, name, world.unit)
        if self.device.set.head is Head.classes:
            for row in range(start, end):
                self.last_label[row] = world.y[row] == self.last
                self.last = world.y[row - self.delay] if self.labelled[row] else self.last


def figures(head: Head, y: NDArray[Any], outputs: F32, named: NDArray[Any], unit: NDArray[np.float64] | float = 1.0) -> F32:
    """Of each sample: 1 if its class is right, else 0; the share of its labels that are; or its squared error, in squared
    ``unit``."""
    if head is Head.classes:
        right: F32 = (named == y).astype(np.float32)
        return right
    own = outputs[:, : y.shape[1]]
    if head is Head.labels:
        share: F32 = ((own > 0) == (y > 0.5)).mean(axis=1).astype(np.float32)
        return share
    squares: F32 = ((unit * (own - y)) ** 2).mean(axis=1).astype(np.float32)
    return squares


def labels_due(count: int, share: float, delay: int, seed: int, device: int) -> NDArray[np.uint32]:
    """After each of ``count`` samples the number, from 1, of the one whose label then comes, 0 for none: that of ``delay``
    samples before, of a ``share`` of all samples."""
    words = core.random(seed, Stream.sample, np.array([device], np.uint32), words=count)[0]
    chosen = core.uniform(words) < share
    numbers = np.where(chosen, np.arange(1, count + 1), 0).astype(np.uint32)
    return np.concatenate([np.zeros(min(delay, count), np.uint32), numbers[: count - min(delay, count)]])


def course_of(
    world: World, start: Start, set: OnlineSet, *, share: float, delay: int, prior: int, seed: int, number: int
) -> Course:
    """A device at the beginning of its world."""
    count = len(world)
    figure, before, last_label, sure = (np.full(count, np.nan, np.float32) for _ in range(4))
    still = Device(static(set), start) if start.head is not None else None
    device, due = Device(set, start, prior), labels_due(count, share, delay, seed, number)
    return Course(world, device, still, due, delay, figure, before, last_label, sure, device.core.learnt())


def average(courses: Sequence[Course], done: int) -> None:
    """The heads of the devices, after ``done`` samples of each, become their average by class name."""
    for course, head in zip(courses, averaged([course.device.share() for course in courses]), strict=True):
        course.device.take(head)
        course.heads[done] = head


def through(courses: Sequence[Course], progress: Callable[[Window], None] | None = None, every: int = 0) -> list[Window]:
    """All devices through their worlds, part after part; after each ``every`` samples, 0: never, their heads are averaged."""
    longest = max(len(course.world) for course in courses)
    found = list[Window]()
    edges = np.linspace(0, longest, min(WINDOWS, longest) + 1).astype(int).tolist()
    for start, end in pairwise(edges):
        drifts, labels = (sum(course.device.state[key] for course in courses) for key in ("drifts", "labelled"))
        here = [(course, start, min(end, len(course.world))) for course in courses if start < len(course.world)]
        stops = [stop for stop in range(every, end, every) if start < stop] if every else []
        for part, until in pairwise([start, *stops, end]):
            going = [course for course in courses if part < len(course.world)]
            for course in going:
                course.go(part, min(until, len(course.world)))
            if every and until % every == 0:
                average(going, until)

        def mean(name: str, here: Sequence[tuple[Course, int, int]] = here) -> float | None:
            values = np.concatenate([getattr(course, name)[first:last] for course, first, last in here])
            return None if np.isnan(values).all() else float(np.nanmean(values))

        found.append(
            Window(
                end, mean("figure") or 0.0, mean("static"), mean("last_label"), mean("confidence"),
                sum(course.device.state["labelled"] for course in courses) - labels,
                sum(course.device.state["drifts"] for course in courses) - drifts,
            )
        )  # fmt: skip
        if progress:
            progress(found[-1])
    return found


def changes(figure: F32, starts: Sequence[int], *, lower_is_better: bool) -> list[dict[str, Any]]:
    """At each change of a world: the mean figure in the SPAN samples before it and after it, and the number of samples until
    the device has recovered: None if the next change came first."""
    rows, ends = list[dict[str, Any]](), [*starts[1:], len(figure)]
    for start, end in zip(starts[1:], ends[1:], strict=True):
        before, after = float(figure[max(start - SPAN, 0) : start].mean()), float(figure[start : start + SPAN].mean())
        bound = before * (1 + NEAR) if lower_is_better else before * (1 - NEAR)
        sums = np.cumsum(np.append(0, figure[start:end].astype(np.float64)))
        means = (sums[SPAN:] - sums[:-SPAN]) / SPAN if len(sums) > SPAN else np.empty(0)
        there = np.flatnonzero(means <= bound if lower_is_better else means >= bound)
        rows.append({"at": start, "before": before, "after": after, "recovered": int(there[0]) + SPAN if there.size else None})
    return rows


def online(
    run: Path | str | None = None,
    *,
    task: str = "",
    data: Path | str | None = None,
    targets: str = "",
    seed: int = 0,
    devices: int = 1,
    segments: int = 0,
    samples: int = 0,
    shuffle: bool = False,
    labels: float = 1.0,
    delay: int = 0,
    rate: float = 0.05,
    cap: int = 256,
    standardise: str = "inputs",
    places: int = 0,
    tolerance: float = 0.05,
    alarm: float = 10.0,
    average: int = 0,
    unsure: float = 0.0,
    out: Path | str | None = None,
    progress: Callable[[Window], None] | None = None,
    beside: Callable[[Course], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Streams the held-out devices of a task, or one device's file ``data``, through ``devices`` that learn online from the
    initialisation of ``run``, or from nothing, and measures each sample before its label comes: ``delay`` samples later, for a
    share ``labels`` of them. After each ``average`` samples, 0: never, the devices' heads become their mean by class name.
    With ``unsure`` above 0 only those labels come that a device wants, of samples it has less confidence in.

    ``beside`` takes the first device's course once more, on a board, and its answer is the result's ``on_board``.

    Writes result, figures of each sample and what each device learnt to the new or empty directory ``out``. Returns the result
    as plain data. Raises ConfigError for settings that make no sense, RunError for an ``out`` that holds something, and as the
    task and the run do.
    """
    _check(labels, delay, devices, rate, cap, standardise, average)
    if out is not None:
        _demand_free(Path(out))
    start = Initialisation.load(Path(run)) if run else None
    met, kind, called, start_of = _world(run, start, task, data, targets, seed, devices, segments, samples, shuffle)
    begun = start_of or starts.of_nothing(met[0].x.shape[1], kind)
    how = Standardised[standardise]
    if begun.network is None and how is Standardised.embeddings:
        raise ConfigError(
            "there is no network whose embeddings to standardise. Give --standardise inputs, or a run of a deeper one."
        )
    if how is Standardised.embeddings:
        begun = replace(begun, head=None, names=())  # learnt over embeddings as they are
    if unsure and (kind is not Head.classes or not 0 < unsure < 1 or beside is not None):
        raise ConfigError("--unsure is above 0 and below 1, for classes, and in simulation not beside a board. Leave it out.")
    most = _places(places, met, begun, kind)
    set = OnlineSet(
        kind, begun.inputs, begun.size, most, how, begun.network is not None, ring=delay + 1, cap=cap, rate=rate,
        tolerance=tolerance, alarm=alarm, unsure=unsure,
    )  # fmt: skip
    prior = min(cap, 256) if start else 0
    courses = [
        course_of(each, begun, set, share=labels, delay=delay, prior=prior, seed=seed, number=number)
        for number, each in enumerate(met)
    ]
    windows = through(courses, progress, average)
    result = {
        "run": None if run is None else str(run), "task": called, "data": None if data is None else str(data), "seed": seed,
        "head": kind.name, "standardise": standardise, "cap": cap, "rate": rate, "labels": labels, "delay": delay,
        "average": average, "unsure": unsure,
        "network": None if begun.network is None else begun.network.name, "places": set.places,
        "devices": [_of_device(course) for course in courses], **_mean(courses), "windows": [vars(each) for each in windows],
    }  # fmt: skip
    if beside is not None:
        result["on_board"] = beside(courses[0])
    if out is not None:
        _write(Path(out), result, courses)
    return result


def _check(labels: float, delay: int, devices: int, rate: float, cap: int, standardise: str, average: int) -> None:
    if not 0 <= labels <= 1:
        raise ConfigError(f"--labels {labels} is no share. Give 0 to 1.")
    if not 0 <= delay < 1 << 16 or devices < 1:
        raise ConfigError("a delay is 0 to 65,535 samples, and there is at least one device.")
    if average < 0 or (average and devices < 2):
        raise ConfigError(f"--average {average}: give 0 (never) or a number of samples, and with it --devices 2 or more.")
    checked(rate=rate, cap=cap, standardise=standardise)


def checked(*, rate: float, cap: int, standardise: str) -> None:
    """Raises ConfigError for settings of a set that make no sense."""
    if not 0 <= rate < core.LIMIT or not 0 <= cap <= 1 << 24:
        raise ConfigError(f"--rate is at least 0, and --cap 0 (none) to {1 << 24:,}.")
    if standardise not in Standardised.__members__:
        raise ConfigError(f"--standardise {standardise}: give {', '.join(Standardised.__members__)}.")


def _world(
    run: Path | str | None, start: Initialisation | None, task: str, data: Path | str | None, targets: str, seed: int,
    devices: int, segments: int, samples: int, shuffle: bool,
) -> tuple[list[World], Head, str, Start | None]:  # fmt: skip
    """The worlds, the head that fits them, the task's name, and where devices start."""
    begun = starts.of_run(start) if start else None
    config = config_of(file_of(Path(run))) if run else None
    if data is not None and not task:
        world, kind = worlds.of_file(Path(data), start, config.reading if config else USUAL, targets)
        return [world] * devices, kind, "", begun
    if not task and config is None:
        raise ConfigError(
            "say what comes: --task presence, activity, keywords, sine or npz, or --data FILE, or a run's directory."
        )
    options: dict[str, Any] = config.as_options() if config else {}
    given = {"task": task, "data": None if data is None else str(data)}
    config = resolve({**options, **{key: value for key, value in given.items() if value}, "seed": options.get("seed", seed)})
    loaded = config.load_task(start.standard if start and start.task == config.task else None)
    if begun is not None and (begun.inputs != int(np.prod(loaded.shape))):
        raise ConfigError(f"{run} takes {begun.inputs:,} inputs, and task {config.task} has {np.prod(loaded.shape):,}.")
    standard = loaded.standardisation
    names = standard.classes.tolist() if standard is not None and len(standard.classes) else list(range(loaded.outputs))
    met = worlds.worlds(loaded, names, devices=devices, segments=segments, samples=samples, shuffle=shuffle, seed=seed)
    kind = worlds.head_of(loaded)
    if begun is not None and begun.kind is not kind:
        raise RunError(f"{run} learns {begun.kind.name}, and task {config.task} has {kind.name}. Give a run of that task.")
    return met, kind, config.task, begun


def _places(places: int, met: Sequence[World], start: Start, kind: Head) -> int:
    if kind is not Head.classes:
        return int(met[0].y.shape[1])
    return max(places or len(start.names) + NEW_PLACES, len(start.names))


def _of_device(course: Course) -> dict[str, Any]:
    world, device = course.world, course.device
    lower = device.set.head is Head.values
    own = changes(course.figure, world.starts, lower_is_better=lower)
    still = changes(course.static, world.starts, lower_is_better=lower)
    return {
        **device.state, "error": device.state["error"] * float(np.mean(np.square(world.unit))),
        "classes": [str(name) for name in device.names], "labels_refused": device.refused,
        "ram_bytes": device.core.memory.nbytes, "segments": list(world.names),
        "changes": [
            {**row, "name": name, "static_after": other["after"] if course.still else None}
            for row, other, name in zip(own, still, world.names[1:], strict=True)
        ],
    }  # fmt: skip


def _mean(courses: Sequence[Course]) -> dict[str, Any]:
    """The figures of all samples, each device as much as another."""
    classifies = courses[0].device.set.head is not Head.values

    def mean(name: str) -> float | None:
        values = [np.nanmean(each) for course in courses if not np.isnan(each := getattr(course, name)).all()]
        return float(np.mean(values)) if values else None

    return {
        "figure": "accuracy" if classifies else "loss",
        "online": mean("figure"), "static": mean("static"), "last_label": mean("last_label"),
    }  # fmt: skip


def _demand_free(out: Path) -> None:
    if (out / RESULT).exists():
        raise RunError(f"{out} already holds a result of tinyfl online. Give another --out.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} holds something else. Give another --out.")


def _write(out: Path, result: dict[str, Any], courses: Sequence[Course]) -> None:
    from tinyfl.system.files import npz

    out.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"{name}_{number}": getattr(course, name)
        for number, course in enumerate(courses)
        for name in ("figure", "static", "last_label", "confidence", "labelled")
    }
    arrays |= {
        f"learnt_{number}": np.frombuffer(course.device.core.learnt(), np.uint8) for number, course in enumerate(courses)
    }
    write_whole(out / SAMPLES, npz(**arrays))
    write_whole(out / RESULT, f"{json.dumps(result, indent=2)}\n".encode())
