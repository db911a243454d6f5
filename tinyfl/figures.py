"""The figures of a report, as PNG bytes: how the fleet learnt, how unseen devices adapt, and what some of them then do.

Drawn on Figure objects, without pyplot, so that nothing global is left behind; on white, which suits light and dark pages.
Colours are Okabe and Ito's, and no figure rests on colour alone.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.core import F32
from tinyfl.evaluation import LEADING_STEPS, STEPS
from tinyfl.networks import Loss, Network
from tinyfl.tasks import Episodes, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, SKY, ORANGE, GREEN, VERMILION = "#0072B2", "#56B4E9", "#E69F00", "#00795A", "#C14B00"
INK, GREY, FAINT = "#24292f", "#6b7280", "#e5e7eb"
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, "#CC79A7", SKY, "#000000", "#8a8000")
DASHES = ("-", "--", "-.", ":")
"""Runs of a comparison differ in colour first, then in dashes."""

WIDTH = 9.2
DPI = 150
SINE_DEVICES, IMAGE_DEVICES, QUERIES, MOST_DUMBBELLS = 6, 4, 10, 30
MODES = {"batch": "full-batch steps", "stream": "passes over the stream"}


@dataclass(frozen=True)
class Curve:
    """Adaptation rows of one initialisation, as result.json holds them, and how to draw them."""

    label: str
    rows: Sequence[Mapping[str, Any]]
    colour: str
    dashes: str = "-"
    figures: bool = False
    """Whether the result after LEADING_STEPS is written beside its point."""


@dataclass(frozen=True)
class Adaptation:
    """What to adapt for a figure: both initialisations, each with its own rate, as the evaluation adapts them."""

    net: Network
    theta: F32
    start: F32
    rate: float
    start_rate: float
    shots: int
    tasks: int
    clip: float

    def run(self, episodes: Episodes, *, outputs: bool) -> tuple[core.Adapted, core.Adapted]:
        """The learnt and the random initialisation, each before and after LEADING_STEPS full-batch steps."""
        learnt, random = (
            core.adapt(
                self.net.plan, theta, episodes.support, episodes.query, (0, LEADING_STEPS),
                stream=False, rate=rate, clip=self.clip, outputs=outputs,
            )
            for theta, rate in ((self.theta, self.rate), (self.start, self.start_rate))
        )  # fmt: skip
        return learnt, random


@dataclass(frozen=True)
class Picture:
    """A figure as PNG bytes, and what it shows."""

    png: bytes
    caption: str


def _style() -> AbstractContextManager[None]:
    from matplotlib import rc_context

    return rc_context(
        {
            "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": GREY,
            "axes.edgecolor": "#c4c9d0", "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9.5,
            "axes.titlelocation": "left", "axes.grid": True, "axes.axisbelow": True, "grid.color": FAINT,
            "grid.linewidth": 0.7, "xtick.color": GREY, "ytick.color": GREY, "legend.frameon": False,
            "figure.facecolor": "white", "axes.facecolor": "white", "lines.solid_capstyle": "round",
        }
    )  # fmt: skip


def _figure(height: float) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(WIDTH, height), dpi=DPI, layout=ConstrainedLayoutEngine(h_pad=0.06))


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    """JSON numbers as floats; null, which stands for what is not finite, as nan."""
    return np.array([np.nan if value is None or not isfinite(value) else value for value in values], np.float64)


def smoothed(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Moving average over ``reach`` values to both sides that skips nan. It reaches no further ahead than back, so that
    the steep start of a curve is not flattened."""
    at = np.arange(len(values))
    back = np.minimum(at, reach)
    low, high = at - back, np.minimum(at + back, len(values) - 1) + 1
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0))])
    count = np.concatenate([[0], np.cumsum(known)])
    among = count[high] - count[low]
    return np.where(among > 0, (total[high] - total[low]) / np.maximum(among, 1), np.nan)


def learning(metrics: Sequence[Mapping[str, Any]], unit: str, *, log: bool) -> bytes:
    """The devices' loss in training, over the rounds: each record faint, and a moving average of them."""
    with _style():
        figure = _figure(2.9)
        ax = figure.add_subplot()
        rounds = np.array([line["round"] for line in metrics], np.float64)
        loss = numbers([line["loss"] for line in metrics])
        mark = "o" if len(loss) < 30 else ""
        every = int(rounds[0]) if len(rounds) else 1
        record = "each round" if every == 1 else f"mean of {every:,} rounds"
        ax.plot(rounds, loss, color=SKY, alpha=0.55, lw=0.8, marker=mark, ms=3, label=record)
        ax.plot(rounds, smoothed(loss, len(loss) // 32), color=BLUE, lw=2, label="moving average")
        if log:
            _log(ax, "y", loss)
        ax.set_xlabel("round")
        ax.set_ylabel(f"online loss per device\n({unit})")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.margins(x=0.01)
        ax.legend(loc="upper right", ncols=2)
        return _png(figure)


def adaptation(curves: Sequence[Curve], floor: Sequence[Mapping[str, Any]]) -> bytes:
    """Accuracy, or loss where there is none, over adaptation steps: a panel for each mode and number of shots."""
    key = metric(curves[0].rows)
    shots = sorted({row["shots"] for curve in curves for row in curve.rows})
    floors = {row["shots"]: row["accuracy"] for row in floor}
    with _style():
        figure = _figure(0.5 + 2.5 * len(shots))
        grid = figure.subplots(len(shots), len(MODES), sharex=True, sharey=True, squeeze=False)
        for ax, (shot, mode) in zip(grid.flat, ((s, m) for s in shots for m in MODES), strict=True):
            for curve in curves:
                _curve(ax, curve, [row for row in curve.rows if (row["shots"], row["mode"]) == (shot, mode)], key)
            if shot in floors:
                ax.axhline(floors[shot], color=INK, lw=1.1, ls=(0, (4, 3)), label="nearest class mean")
            ax.set_title(f"{shot:,} {'shot' if shot == 1 else 'shots'} · {MODES[mode]}", color=INK)
            _adaptation_axes(ax, key)
        for ax in grid[-1]:
            ax.set_xlabel("adaptation steps")
        for ax in grid[:, 0]:
            ax.set_ylabel("accuracy" if key == "accuracy" else "mean squared error")
            if key == "loss":
                _log(ax, "y", numbers([row["loss"] for curve in curves for row in curve.rows]))
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 3))
        return _png(figure)


def metric(rows: Sequence[Mapping[str, Any]]) -> str:
    """What rows are judged by: accuracy where the task has it."""
    return "loss" if all(row["accuracy"] is None for row in rows) else "accuracy"


def _curve(ax: "Axes", curve: Curve, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    """One line with its band; a row without a number is marked at the top as diverged."""
    steps = np.array([row["steps"] for row in rows], np.float64)
    value, half = numbers([row[key] for row in rows]), numbers([row[f"{key}_ci95"] for row in rows])
    low = np.maximum(value - half, value / 100 if key == "loss" else 0)
    ax.fill_between(steps, low, value + half, color=curve.colour, alpha=0.18, lw=0)
    ax.plot(steps, value, color=curve.colour, ls=curve.dashes, lw=1.8, marker="o", ms=4, label=curve.label)
    first = steps == 0
    ax.plot(steps[first], value[first], ls="", marker="o", ms=4.5, mfc="white", mec=curve.colour, zorder=4)
    gone = steps[np.isnan(numbers([row["loss"] for row in rows]))]
    if gone.size:
        where = ax.get_xaxis_transform()
        ax.plot(gone, np.full(len(gone), 0.96), ls="", marker="x", color=curve.colour, transform=where, clip_on=False)
        ax.text(gone[0], 0.9, "diverged", color=curve.colour, transform=where, ha="center", va="top", fontsize=7.5)
    at = steps == LEADING_STEPS
    if curve.figures and np.isfinite(value[at]).any():
        text = f"{100 * value[at][0]:.1f} %" if key == "accuracy" else f"{value[at][0]:.3g}"
        ax.annotate(
            text, (LEADING_STEPS, value[at][0]), (0, 7), textcoords="offset points", ha="center", va="bottom",
            color=curve.colour, fontweight="bold", fontsize=8.5,
        )  # fmt: skip


def _adaptation_axes(ax: "Axes", key: str) -> None:
    from matplotlib.ticker import NullLocator, PercentFormatter

    ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    ax.set_xticks(STEPS, [str(step) for step in STEPS])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.axvline(LEADING_STEPS, color=FAINT, lw=5, zorder=0)
    ax.margins(y=0.12)
    if key == "accuracy":
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def devices(task: Task, what: Adaptation) -> Picture:
    """What some unseen devices do before and after adaptation, as far as the task can be drawn."""
    from tinyfl.tasks.episodic import Episodic
    from tinyfl.tasks.sine import Sine

    with _style():
        if isinstance(task, Sine):
            return _functions(task, what)
        side = round(task.inputs**0.5)
        if isinstance(task, Episodic) and side * side == task.inputs:
            return _images(task, what, side)
        return _dumbbells(task, what)


def _functions(task: Task, what: Adaptation) -> Picture:
    """Each device's function, its support points, and the network's function before and after."""
    episodes = task.episodes("test", SINE_DEVICES, what.shots)
    learnt, random = what.run(episodes, outputs=True)
    assert learnt.outputs is not None
    assert random.outputs is not None
    support, query = episodes.support, episodes.query
    assert support.targets is not None
    assert query.targets is not None
    figure = _figure(4.6)
    grid = figure.subplots(2, SINE_DEVICES // 2, sharex=True, sharey=True)
    for d, ax in enumerate(grid.flat):
        x = query.table[query.rows[d], 0]
        ax.plot(x, query.targets[query.rows[d], 0], color="#b6bcc6", lw=4.5, label="true function")
        ax.plot(x, random.outputs[1, d, :, 0], color=ORANGE, lw=1.2, ls="-.", label=f"random start, {LEADING_STEPS} steps")
        ax.plot(x, learnt.outputs[0, d, :, 0], color=BLUE, lw=1.2, ls=":", label="learnt, before adapting")
        ax.plot(x, learnt.outputs[1, d, :, 0], color=BLUE, lw=1.9, label=f"learnt, {LEADING_STEPS} steps")
        rows = support.rows[d]
        ax.plot(support.table[rows, 0], support.targets[rows, 0], "o", color=INK, ms=3.8, label="its samples")
        ax.set_title(f"test device {d + 1}", color=GREY)
    bound = 1.15 * float(np.abs(query.targets).max())
    grid.flat[0].set_ylim(-bound, bound)  # an unlucky curve may leave the picture, and must not flatten the others
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper left", ncols=5, columnspacing=1.3)
    return Picture(
        _png(figure),
        f"The first {SINE_DEVICES} unseen test devices, not picked. Each adapts on its {what.shots:,} "
        f"samples (dots) for {LEADING_STEPS} full-batch steps.",
    )


def _images(task: Task, what: Adaptation, side: int) -> Picture:
    """Support images with the device's own labels; query images with the labels given before and after."""
    episodes = task.episodes("test", IMAGE_DEVICES, what.shots)
    adapted, _ = what.run(episodes, outputs=True)
    assert adapted.outputs is not None
    support, query = episodes.support, episodes.query
    assert support.labels is not None
    assert query.labels is not None
    ways, shown = what.net.outputs, min(QUERIES, query.samples)
    gain = np.ones(IMAGE_DEVICES, np.float32) if support.gain is None else support.gain
    brightest = float((gain[:, None, None] * query.table[query.rows]).max())
    given = adapted.outputs.argmax(axis=-1)
    figure = _figure(1.32 * IMAGE_DEVICES)
    for d, ax in enumerate(figure.subplots(IMAGE_DEVICES, 1)):

        def draw(part: core.TableSource, i: int, left: float, d: int = d, ax: "Axes" = ax) -> None:
            picture = gain[d] * part.table[part.rows[d, i]].reshape(side, side)
            ax.imshow(picture, cmap="gray_r", vmin=0, vmax=brightest, extent=(left, left + 0.9, 0, 0.9))

        _image_axes(ax, ways, shown)
        right = f"{100 * adapted.accuracy[1, d]:.0f} % of {query.samples} right"
        ax.text(0, 1.1, f"test device {d + 1} learns from")
        ax.text(ways + 0.6, 1.1, f"then answers, {right}" + (f"; the first {shown}:" if shown < query.samples else ""))
        for i in range(ways):
            draw(support, i, i)
            ax.text(i + 0.45, -0.12, _letter(support.labels[d, i]), ha="center", va="top", fontweight="bold")
        for i in range(shown):
            draw(query, i, ways + 0.6 + i)
            for line, answer in enumerate(given[:, d, i]):
                _answer(ax, ways + 1.05 + i, line, answer, right=answer == query.labels[d, i])
    one = "" if what.shots == 1 else f" of {what.shots:,}"
    return Picture(
        _png(figure),
        f"The first {IMAGE_DEVICES} unseen test devices, not picked. Left: the samples each one adapts on, one{one} of each "
        f"class, under labels of its own. Right: images it has not seen, with the label it gives before and, "
        f"in bold, after {LEADING_STEPS} full-batch steps.",
    )


def _letter(label: int) -> str:
    """A device's own label; letters, since digits would read as what the image shows."""
    return chr(ord("A") + label) if label < 26 else str(label)


def _answer(ax: "Axes", x: float, line: int, label: int, *, right: bool) -> None:
    """A label given before (line 0) or after (line 1) adaptation; a mark says it to those who see no colours."""
    ax.text(
        x, -0.12 - 0.34 * line, f"{_letter(label)} {'✓' if right else '✗'}", ha="center", va="top",
        color=GREEN if right else VERMILION, fontweight="bold" if line else "normal",
    )  # fmt: skip


def _image_axes(ax: "Axes", ways: int, shown: int) -> None:
    ax.set_axis_off()
    ax.set_xlim(-0.05, ways + shown + 0.6)
    ax.set_ylim(-0.85, 1.35)
    for line, text in enumerate(("before", "after")):
        ax.text(ways + 0.5, -0.12 - 0.34 * line, text, ha="right", va="top", color=GREY, fontsize=7.5)


def _dumbbells(task: Task, what: Adaptation) -> Picture:
    """Each held-out device's result before and after, beside what it reaches from random weights."""
    episodes = task.episodes("test", what.tasks, what.shots)
    count = np.bincount(episodes.device)
    classifies = what.net.loss is Loss.softmax_cross_entropy

    def of_device(values: F32) -> NDArray[np.float64]:
        return np.bincount(episodes.device, weights=values.astype(np.float64)) / count

    learnt, random = what.run(episodes, outputs=False)
    before, after, by_chance = (
        of_device(a.accuracy[k] if classifies else a.loss[k]) for a, k in ((learnt, 0), (learnt, 1), (random, 1))
    )
    order = np.argsort(after if classifies else -after, kind="stable")
    if len(order) > MOST_DUMBBELLS:
        order = order[np.linspace(0, len(order) - 1, MOST_DUMBBELLS).round().astype(int)]
    figure = _figure(1.3 + 0.19 * len(order))
    ax = figure.add_subplot()
    y = np.arange(len(order))
    ax.hlines(y, before[order], after[order], color=BLUE, alpha=0.35, lw=2)
    ax.plot(by_chance[order], y, "|", color=ORANGE, ms=9, mew=2, label=f"random start, {LEADING_STEPS} steps")
    ax.plot(before[order], y, "o", mfc="white", mec=BLUE, ms=5.5, label="learnt, before adapting")
    ax.plot(after[order], y, "o", color=BLUE, ms=6, label=f"learnt, {LEADING_STEPS} steps")
    _device_axes(ax, order, classifies, np.concatenate([before, after, by_chance]))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    chosen = f"{len(order)} of the {len(count):,} held-out devices, evenly from worst to best" if len(order) < len(count) else (
        f"All {len(count)} held-out devices, best on top")  # fmt: skip
    return Picture(
        _png(figure),
        f"{chosen}; numbered in the order of their names. Each adapts on {what.shots:,} of its own samples for "
        f"{LEADING_STEPS} full-batch steps; mean over {int(count.min()):,} draws of those samples.",
    )


def _device_axes(ax: "Axes", order: NDArray[np.int64], classifies: bool, values: NDArray[np.float64]) -> None:
    from matplotlib.ticker import PercentFormatter

    ax.set_yticks(np.arange(len(order)), [f"device {number + 1}" for number in order], fontsize=7.5)
    ax.set_ylim(-0.7, len(order) - 0.3)
    ax.grid(axis="y", visible=False)
    if classifies:
        ax.set_xlabel("accuracy")
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        return
    ax.set_xlabel("mean squared error")
    _log(ax, "x", values)


def _log(ax: "Axes", which: Literal["x", "y"], values: NDArray[np.float64]) -> None:
    """A logarithmic axis with plain numbers on it, if the finite ones of ``values`` allow it."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    known = values[np.isfinite(values)]
    if not known.size or known.min() <= 0:
        return
    ax.set(**{f"{which}scale": "log"})
    axis = ax.xaxis if which == "x" else ax.yaxis
    narrow = known.max() / known.min() < 200
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
