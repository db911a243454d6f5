"""The figures of a report as PNG bytes: the learning curve, and the adaptation of unseen devices.

Drawn on Figure objects, without pyplot and its global state; on white, which suits light and dark pages. Colours are Okabe and
Ito's, and no figure relies on colour alone.
"""

import io
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from tinyfl.errors.words import plain
from tinyfl.report.html import counted, size
from tinyfl.runs.evaluation import LEADING_STEPS, STEPS
from tinyfl.runs.tables import METRICS, metric
from tinyfl.system import cache

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")
Note = Callable[[str], object]

BLUE, SKY, ORANGE, GREEN, VERMILION = "#0072B2", "#56B4E9", "#E69F00", "#00795A", "#C14B00"
INK, GREY, FAINT = "#24292f", "#6b7280", "#e5e7eb"
BACKGROUND = "#b8bec6"
STYLES = (
    (BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (ORANGE, ":"), ("#CC79A7", "-"), (SKY, "--"), ("#000000", "-."),
    ("#8a8000", ":"),
)  # fmt: skip
"""Colours and line styles of a comparison. More lines than these could not be told apart."""

WIDTH = 9.2
DPI = 150
MAX_LABEL_CHARS = 60
"""Maximum length of a label, in characters, so that a legend fits the page."""
DRAWING = threading.Lock()
"""Held while drawing, since matplotlib's settings are the process's."""
MAX_BARS = 60
"""Maximum number of bars of a histogram."""
MODES = {"batch": "full-batch steps", "stream": "passes over the stream", "means": "class means"}


@dataclass(frozen=True)
class Curve:
    """Adaptation rows of one initialisation, in the format of result.json, and their line style."""

    label: str
    rows: Sequence[Mapping[str, Any]]
    colour: str
    dashes: str = "-"
    figures: bool = False
    """Whether to write the result after LEADING_STEPS beside its point."""
    faint: bool = False
    """Whether to draw a thin line without its points and band, as for one of many."""


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
class Spending:
    """What a run had reached, float64, once its lines had carried so many ``bytes``: accuracy, or a loss, as ``key`` says."""

    label: str
    bytes: NDArray[np.float64]
    values: NDArray[np.float64]
    colour: str
    dashes: str = "-"
    key: str = "loss"


STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": GREY,
    "axes.edgecolor": "#c4c9d0", "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9.5,
    "axes.titlelocation": "left", "axes.grid": True, "axes.axisbelow": True, "grid.color": FAINT,
    "grid.linewidth": 0.7, "xtick.color": GREY, "ytick.color": GREY, "legend.frameon": False,
    "figure.facecolor": "white", "axes.facecolor": "white", "lines.solid_capstyle": "round",
}  # fmt: skip
"""The look of all figures, over matplotlib's defaults."""


class NotDrawn(Exception):
    """A figure that matplotlib cannot draw on this machine, and why."""


@contextmanager
def styled() -> Iterator[None]:
    """Sets the style of all drawing inside, whatever the user's matplotlibrc says; restores the settings afterwards. One thread
    draws at a time."""
    with DRAWING:
        cache.lend()
        from matplotlib import style

        with style.context(["default", STYLE]):
            yield


def drawn(draw: Callable[[], T]) -> T | NotDrawn:
    """The figure that ``draw`` makes. A failure is returned, since it costs a report that figure only: it may be of
    matplotlib's cache folder, of the backend in MPLBACKEND, or of a matplotlibrc."""
    try:
        return draw()
    except Exception as error:
        return NotDrawn(f"{type(error).__name__}: {plain(error)}")


def tell_missing(pictures: Sequence[object], again: str, note: Note) -> None:
    """Tells ``note`` of figures that could not be drawn, and the command ``again`` for later."""
    reasons = dict.fromkeys(str(each) for each in pictures if isinstance(each, NotDrawn))
    if reasons:
        note(f"figures left out, since matplotlib cannot draw here ({'; '.join(reasons)}). Once it can: {again}")


def missed() -> tuple[str, ...]:
    """A line about the figures that a report will lack, if that is known beforehand."""
    if "MPLCONFIGDIR" in os.environ or cache.place():
        return ()
    return (f"the report will have no figures: {cache.missed() or cache.NOTHING}, and matplotlib needs a cache. {cache.CURE}",)


def canvas(height: float) -> "Figure":
    """An empty figure as wide as the page, ``height`` inches high."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(WIDTH, height), dpi=DPI, layout=ConstrainedLayoutEngine(h_pad=0.06))


def png(figure: "Figure") -> bytes:
    """Renders a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def legend(figure: "Figure", ax: "Axes") -> None:
    """Draws the legend of ``ax`` above the figure, in one row if it fits. Labels may come from a user: markup is off."""
    handles, labels = ax.get_legend_handles_labels()
    columns = len(labels) if sum(len(label) + 7 for label in labels) < 125 else 2
    drawn = figure.legend(handles, labels, loc="outside upper left", ncols=columns, columnspacing=1.3)
    for text in drawn.get_texts():
        text.set_parse_math(False)


def numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    """JSON numbers as floats; null, which means non-finite, as nan."""
    return np.array([np.nan if value is None or not isfinite(value) else value for value in values], np.float64)


def smoothed(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Moving average over ``reach`` values on both sides, without nan. Near the start the window shrinks on both sides, so that
    the steep start of a curve is not flattened."""
    at = np.arange(len(values))
    back = np.minimum(at, reach)
    low, high = at - back, np.minimum(at + back, len(values) - 1) + 1
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0))])
    count = np.concatenate([[0], np.cumsum(known)])
    count_between = count[high] - count[low]
    return np.where(count_between > 0, (total[high] - total[low]) / np.maximum(count_between, 1), np.nan)


def learning_curve(metrics: Sequence[Mapping[str, Any]], unit: str, *, log: bool) -> bytes:
    """The devices' training loss over the rounds: each record in a faint line, and a moving average."""
    with styled():
        figure = canvas(2.9)
        ax = figure.add_subplot()
        rounds = np.array([line["round"] for line in metrics], np.float64)
        loss = numbers([line["loss"] for line in metrics])
        mark = "o" if len(loss) < 30 else ""
        every = int(rounds[0]) if len(rounds) else 1
        record = "each round" if every == 1 else f"mean of {every:,} rounds"
        ax.plot(rounds, loss, color=SKY, alpha=0.55, lw=0.8, marker=mark, ms=3, label=record)
        ax.plot(rounds, smoothed(loss, len(loss) // 32), color=BLUE, lw=2, label="moving average")
        if log:
            logarithmic(ax, "y", loss)
        ax.set_xlabel("round")
        ax.set_ylabel(f"online loss per device\n({unit})")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.margins(x=0.01)
        ax.legend(loc="upper right", ncols=2)
        return png(figure)


def validation(rows: Sequence[Mapping[str, Any]], best: int | None, unit: str) -> bytes:
    """The evaluations on validation devices, as accuracy or loss in ``unit`` over sample gradients, or over rounds where an
    older tinyfl counted none; with their deviation over devices. The round ``best`` is marked."""
    key, spent = metric(rows), "sample_gradients" if all(row.get("sample_gradients") for row in rows) else "round"
    with styled():
        figure = canvas(2.6)
        ax = figure.add_subplot()
        over, values = np.array([row[spent] for row in rows], np.float64), numbers([row[key] for row in rows])
        deviation = numbers([row.get("deviation") for row in rows])
        if key == "loss":  # its deviation is often more than itself, and nothing lies below 0
            ax.fill_between(over, values, values + deviation, color=BLUE, alpha=0.15, lw=0, label="+ deviation over devices")
        else:
            low, high = np.clip((values - deviation, values + deviation), 0, 1)
            ax.fill_between(over, low, high, color=BLUE, alpha=0.15, lw=0, label="± deviation over devices")
        ax.plot(over, values, color=BLUE, lw=1.8, marker="o", ms=3.5, label="validation devices")
        at = np.array([row["round"] == best for row in rows])
        ax.plot(over[at], values[at], ls="", marker="*", color=VERMILION, ms=13, label="the best, which is kept")
        if key == "loss":
            logarithmic(ax, "y", values)
        else:
            _per_cent(ax)
        ax.set_xlabel(spent.replace("_", " "))
        ax.set_ylabel("accuracy" if key == "accuracy" else unit)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.legend(loc="best", ncols=3)
        return png(figure)


def over_bytes(runs: Sequence[Spending], unit: str) -> bytes:
    """What each of ``runs`` reached, a loss in ``unit``, over the bytes that its lines carried: on a logarithmic axis if they
    are several."""
    with styled():
        figure = canvas(2.6)
        ax = figure.add_subplot()
        for run in runs:
            mark = "o" if len(run.values) < 60 else ""
            ax.plot(run.bytes, run.values, color=run.colour, ls=run.dashes, lw=1.8, marker=mark, ms=3.5, label=run.label)
        if len(runs) > 1:
            logarithmic(ax, "x", np.concatenate([run.bytes for run in runs]))
            legend(figure, ax)
        else:
            ax.set_xlim(0, runs[0].bytes.max(initial=1) * 1.01)
        ax.xaxis.set_major_formatter(lambda value, _: size(value).replace(".0 ", " ") if value else "0")
        if runs[0].key != "loss":
            _per_cent(ax)
        elif unit == METRICS["loss"]:
            logarithmic(ax, "y", np.concatenate([run.values for run in runs]))
        ax.set_xlabel("over all lines so far, down and up")
        ax.set_ylabel(unit if runs[0].key == "loss" else METRICS[runs[0].key])
        return png(figure)


def staleness(kinds: Sequence[Mapping[str, Any]]) -> bytes:
    """How many updates had which staleness: a stacked histogram of the kinds of devices, as result.json has them."""
    from matplotlib.ticker import MaxNLocator

    ages = [np.array([int(age) for age in kind["staleness"]], np.int64) for kind in kinds]
    largest = max(int(each.max(initial=0)) for each in ages)
    width = 1 + largest // MAX_BARS
    bars = 1 + largest // width
    below = np.zeros(bars)
    with styled():
        figure = canvas(2.4)
        ax = figure.add_subplot()
        for kind, age, (colour, _) in zip(kinds, ages, STYLES, strict=False):
            counts = np.array(list(kind["staleness"].values()), np.float64)
            height = np.bincount(age // width, counts, bars)
            at = width * (np.arange(bars) + 0.5) - 0.5
            ax.bar(at, height, 0.86 * width, below, color=colour, label=plain(kind["kind"], MAX_LABEL_CHARS))
            below += height
        ax.set_xlabel("staleness, in rounds")
        ax.set_ylabel("updates")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(visible=False, axis="x")
        if len(kinds) > 1:
            legend(figure, ax)
        return png(figure)


def adaptation(curves: Sequence[Curve], floor: Sequence[Mapping[str, Any]]) -> bytes:
    """The metric of the rows over adaptation steps: a panel for each mode and number of shots."""
    key = metric(curves[0].rows)
    shots = sorted({row["shots"] for curve in curves for row in curve.rows})
    floors = {row["shots"]: row for row in floor}  # the last of each: nearest class mean, or support mean
    named = sum(not curve.faint for curve in curves)
    band = min(0.18, 0.5 / named)  # where bands lie over each other, lines stay visible
    with styled():
        figure = canvas(0.34 + 2.5 * len(shots) + 0.08 * named)
        there = [mode for mode in MODES if any(row["mode"] == mode for curve in curves for row in curve.rows)]
        grid = figure.subplots(len(shots), len(there), sharex=True, sharey=True, squeeze=False)
        for ax, (shot, mode) in zip(grid.flat, ((s, m) for s in shots for m in there), strict=True):
            for curve in curves:
                _curve(ax, curve, [row for row in curve.rows if (row["shots"], row["mode"]) == (shot, mode)], key, band)
            if shot in floors:
                level, name = floors[shot].get(key), plain(floors[shot].get("method", "nearest class mean"), MAX_LABEL_CHARS)
                ax.axhline(np.nan if level is None else level, color=INK, lw=1.1, ls=(0, (4, 3)), label=name)
            ax.set_title(f"{counted(shot, 'shot')} · {MODES[mode]}", color=INK)
            _adaptation_axes(ax, key)
        for ax in grid[-1]:
            ax.set_xlabel("adaptation steps")
        for ax in grid[:, 0]:
            ax.set_ylabel(METRICS[key])
            if key == "loss":
                logarithmic(ax, "y", numbers([row["loss"] for curve in curves for row in curve.rows]))
        legend(figure, grid.flat[0])
        return png(figure)


def _curve(ax: "Axes", curve: Curve, rows: Sequence[Mapping[str, Any]], key: str, band: float) -> None:
    """Draws one line with its band, of opacity ``band``; a row without a number is marked at the top as diverged."""
    steps = np.array([row["steps"] for row in rows], np.float64)
    value, half = numbers([row.get(key) for row in rows]), numbers([row.get(f"{key}_ci95") for row in rows])
    label = f" {curve.label}" if curve.label.startswith("_") else curve.label  # matplotlib hides labels that start with _
    if curve.faint:
        ax.plot(steps, value, color=curve.colour, lw=0.7, label=label or None, zorder=1.5)
        return
    low = np.maximum(value - half, value / 100 if key == "loss" else 0)
    ax.fill_between(steps, low, value + half, color=curve.colour, alpha=band, lw=0)
    ax.plot(steps, value, color=curve.colour, ls=curve.dashes, lw=1.8, marker="o", ms=4, label=label)
    means = np.array([row["mode"] == "means" for row in rows], bool)
    first = (steps == 0) & ~means
    ax.plot(steps[first], value[first], ls="", marker="o", ms=4.5, mfc="white", mec=curve.colour, zorder=4)
    diverged = steps[np.isnan(numbers([row["loss"] for row in rows]))]
    if diverged.size:
        where = ax.get_xaxis_transform()
        ax.plot(diverged, np.full(len(diverged), 0.96), ls="", marker="x", color=curve.colour, transform=where, clip_on=False)
        ax.text(diverged[0], 0.9, "diverged", color=curve.colour, transform=where, ha="center", va="top", fontsize=7.5)
    at = (steps == LEADING_STEPS) | means
    if curve.figures and np.isfinite(value[at]).any():
        text = f"{value[at][0]:.3g}" if key == "loss" else f"{100 * value[at][0]:.1f} %"
        ax.annotate(
            text, (steps[at][0], value[at][0]), (0, 7), textcoords="offset points", ha="center", va="bottom",
            color=curve.colour, fontweight="bold", fontsize=8.5,
        )  # fmt: skip


def _per_cent(ax: "Axes") -> None:
    from matplotlib.ticker import PercentFormatter

    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def _adaptation_axes(ax: "Axes", key: str) -> None:
    from matplotlib.ticker import NullLocator

    ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    ax.set_xticks(STEPS, [str(step) for step in STEPS])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.axvline(LEADING_STEPS, color=FAINT, lw=5, zorder=0)
    ax.margins(y=0.12)
    if key != "loss":
        _per_cent(ax)


def logarithmic(ax: "Axes", which: Literal["x", "y"], values: NDArray[np.float64]) -> None:
    """Makes an axis logarithmic, with plain numbers, if all finite ``values`` are positive."""
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
