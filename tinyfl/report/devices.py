"""The figure of some unseen devices before and after adaptation, drawn to suit the task."""

from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.core import F32
from tinyfl.networks import Network
from tinyfl.networks.layers import Loss
from tinyfl.report.figures import BLUE, GREEN, GREY, INK, ORANGE, VERMILION, canvas, legend, logarithmic, png, styled
from tinyfl.report.html import counted
from tinyfl.runs.adapted import adapted
from tinyfl.runs.evaluation import (
    LEADING_STEPS,
    Adaptation,
    device_means,
    in_units,
    inner_loop,
    needs_outputs,
    plain_adaptation,
)
from tinyfl.tasks import Episodes, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SINE_DEVICES, IMAGE_DEVICES, QUERIES, MAX_DUMBBELLS = 6, 4, 10, 30


@dataclass(frozen=True)
class Comparison:
    """The adaptations for a figure: both initialisations, each with its own rate, as in the evaluation; ``called`` is the name
    of the one that the run started from."""

    net: Network
    theta: F32
    start: F32
    rate: float | None
    start_rate: float | None
    shots: int
    tasks: int
    clip: float
    called: str = "random start"
    adaptation: Adaptation = plain_adaptation

    def run(self, episodes: Episodes, *, outputs: bool) -> tuple[core.Adapted, core.Adapted]:
        """Adapts the learnt and the starting initialisation; results before and after LEADING_STEPS full-batch steps."""

        def of(theta: F32, rate: float | None) -> core.Adapted:
            samples, loop = episodes.support.samples, b""
            if rate is not None:
                loop = inner_loop("batch", samples, LEADING_STEPS, rate, self.clip, self.adaptation)
            at = (0, LEADING_STEPS)
            return adapted(self.net, theta, episodes.support, episodes.query, at, loop, outputs=outputs)

        return of(self.theta, self.rate), of(self.start, self.start_rate)

    @property
    def how(self) -> str:
        """How devices adapt, for people."""
        return "by class means" if self.net.embeds else f"for {LEADING_STEPS} full-batch steps"

    @property
    def after(self) -> str:
        """What the results are after, for people."""
        return "class means" if self.net.embeds else f"{LEADING_STEPS} steps"


@dataclass(frozen=True)
class Picture:
    """A figure as PNG bytes, and its caption."""

    png: bytes
    caption: str


def device_figures(task: Task, comparison: Comparison) -> Picture:
    """The figure of some unseen devices before and after adaptation, drawn to suit the task."""
    from tinyfl.tasks.episodic import Episodic
    from tinyfl.tasks.sine import Sine

    with styled():
        if isinstance(task, Sine):
            return _functions(task, comparison)
        if isinstance(task, Episodic) and len(task.shape) == 3 and task.shape[0] == task.shape[1] and task.shape[2] == 1:
            return _images(task, comparison)
        return _dumbbells(task, comparison)


def _functions(task: Task, comparison: Comparison) -> Picture:
    """Each device's function, its support points, and the network's function before and after."""
    episodes = task.episodes("test", SINE_DEVICES, comparison.shots)
    learnt, start = comparison.run(episodes, outputs=True)
    support, query = episodes.support, episodes.query
    assert support.targets is not None
    assert query.targets is not None
    figure = canvas(4.6)
    grid = figure.subplots(2, SINE_DEVICES // 2, sharex=True, sharey=True)
    for d, ax in enumerate(grid.flat):
        x = query.table[query.rows[d], 0]
        ax.plot(x, query.targets[query.rows[d], 0], color="#b6bcc6", lw=4.5, label="true function")
        for found, k, label, style in (
            (start, 1, f"{comparison.called}, {LEADING_STEPS} steps", {"color": ORANGE, "lw": 1.2, "ls": "-."}),
            (learnt, 0, "learnt, before adapting", {"color": BLUE, "lw": 1.2, "ls": ":"}),
            (learnt, 1, f"learnt, {LEADING_STEPS} steps", {"color": BLUE, "lw": 1.9}),
        ):
            assert found.outputs is not None
            diverged = not np.isfinite(found.loss[k, d])
            ax.plot(x, np.full(len(x), np.nan) if diverged else found.outputs[k, d, :, 0], label=label, **style)
        rows = support.rows[d]
        ax.plot(support.table[rows, 0], support.targets[rows, 0], "o", color=INK, ms=3.8, label="its samples")
        note = "" if np.isfinite(learnt.loss[1, d]) else ": diverged"
        ax.set_title(f"test device {d + 1}{note}", color=GREY)
    bound = 1.15 * float(np.abs(query.targets).max())
    grid.flat[0].set_ylim(-bound, bound)  # an outlying curve may leave the picture, but must not flatten the others
    legend(figure, grid.flat[0])
    return Picture(
        png(figure),
        f"The first {SINE_DEVICES} unseen test devices, not hand-picked. Each adapts on its {comparison.shots:,} "
        f"samples (dots) for {LEADING_STEPS} full-batch steps.",
    )


def _images(task: Task, comparison: Comparison) -> Picture:
    """Support images with the device's own labels; query images with the predictions before and after."""
    episodes = task.episodes("test", IMAGE_DEVICES, comparison.shots)
    found, _ = comparison.run(episodes, outputs=True)
    assert found.outputs is not None
    support, query = episodes.support, episodes.query
    assert support.labels is not None
    assert query.labels is not None
    ways, count_shown = task.outputs, min(QUERIES, query.samples)
    shown, asked = support.inputs(), query.inputs()
    brightest = float(asked.max())
    predictions = np.where(np.isfinite(found.loss)[..., None], found.outputs.argmax(axis=-1), -1)
    figure = canvas(1.32 * IMAGE_DEVICES)
    for d, ax in enumerate(figure.subplots(IMAGE_DEVICES, 1)):
        _image_axes(ax, ways, count_shown, ("", "answer") if comparison.net.embeds else ("before", "after"))
        right = f"{100 * found.accuracy[1, d]:.0f} % of {query.samples} right"
        ax.text(0, 1.1, f"test device {d + 1} learns from")
        ax.text(
            ways + 0.6, 1.1, f"then answers, {right}" + (f"; the first {count_shown}:" if count_shown < query.samples else "")
        )
        for i in range(ways):
            _image(ax, i, shown[d, i] / brightest)
            ax.text(i + 0.45, -0.12, _letter(support.labels[d, i]), ha="center", va="top", fontweight="bold")
        for i in range(count_shown):
            _image(ax, ways + 0.6 + i, asked[d, i] / brightest)
            for line, answer in enumerate(predictions[:, d, i]):
                if line or not comparison.net.embeds:
                    _answer(ax, ways + 1.05 + i, line, answer, right=answer == query.labels[d, i])
    one = "" if comparison.shots == 1 else f" of {comparison.shots:,}"
    return Picture(
        png(figure),
        f"The first {IMAGE_DEVICES} unseen test devices, not hand-picked. Left: the samples each one adapts on, one{one} of "
        "each class, under labels of its own. Right: images it has not seen, with the label it gives "
        + ("by its class means." if comparison.net.embeds else f"before and, in bold, after {LEADING_STEPS} full-batch steps."),
    )


def _image(ax: "Axes", left: float, pixels: F32) -> None:
    side = isqrt(len(pixels))
    ax.imshow(pixels.reshape(side, side), cmap="gray_r", vmin=0, vmax=1, extent=(left, left + 0.9, 0, 0.9))


def _letter(label: int) -> str:
    """A device's own label as a letter, since a digit could be mistaken for the image's content; a dash if it diverged."""
    if label < 0:
        return "–"
    return chr(ord("A") + label) if label < 26 else str(label)


def _answer(ax: "Axes", x: float, line: int, label: int, *, right: bool) -> None:
    """A prediction before (line 0) or after (line 1) adaptation; a mark repeats the colour's meaning."""
    ax.text(
        x, -0.12 - 0.34 * line, f"{_letter(label)} {'✓' if right else '✗'}", ha="center", va="top",
        color=GREEN if right else VERMILION, fontweight="bold" if line else "normal",
    )  # fmt: skip


def _image_axes(ax: "Axes", ways: int, count_shown: int, lines: tuple[str, str]) -> None:
    ax.set_axis_off()
    ax.set_xlim(-0.05, ways + count_shown + 0.6)
    ax.set_ylim(-0.85, 1.35)
    for line, text in enumerate(lines):
        ax.text(ways + 0.5, -0.12 - 0.34 * line, text, ha="right", va="top", color=GREY, fontsize=7.5)


def _dumbbells(task: Task, comparison: Comparison) -> Picture:
    """Each held-out device's result before and after, beside its result from the run's initial weights."""
    episodes = task.episodes("test", comparison.tasks, comparison.shots)
    count, classifies = np.bincount(episodes.device), comparison.net.classifies
    learnt, start = comparison.run(episodes, outputs=needs_outputs(task.standardisation))

    def result_of(found: core.Adapted) -> NDArray[np.floating[Any]]:
        return found.accuracy if classifies else in_units(found, episodes.query, task.standardisation)

    results = np.array([result_of(a)[k] for a, k in ((learnt, 0), (learnt, 1), (start, 1))])
    before, after, baseline = device_means(results, episodes.device)
    order = np.argsort(after if classifies else -after, kind="stable")
    if len(order) > MAX_DUMBBELLS:
        order = order[np.linspace(0, len(order) - 1, MAX_DUMBBELLS).round().astype(int)]
    before, after, baseline = (np.where(np.isfinite(v), v, np.nan)[order] for v in (before, after, baseline))
    figure = canvas(1.3 + 0.19 * len(order))
    ax = figure.add_subplot()
    y = np.arange(len(order))
    ax.hlines(y, before, after, color=BLUE, alpha=0.35, lw=2)
    ax.plot(baseline, y, "|", color=ORANGE, ms=9, mew=2, label=f"{comparison.called}, {comparison.after}")
    if not comparison.net.embeds:
        ax.plot(before, y, "o", mfc="white", mec=BLUE, ms=5.5, label="learnt, before adapting")
    ax.plot(after, y, "o", color=BLUE, ms=6, label=f"learnt, {comparison.after}")
    names = [f"device {n + 1}" + ("" if np.isfinite(value) else ": diverged") for n, value in zip(order, after, strict=True)]
    ax.set_yticks(y, names, fontsize=7.5)
    unit = "mean squared error" if comparison.net.loss is Loss.mean_squared_error else "cross-entropy"
    _device_axes(ax, len(order), "" if classifies else unit, np.concatenate([before, after, baseline]))
    legend(figure, ax)
    selection = f"All {len(count)} held-out devices"
    if len(order) < len(count):
        selection = f"{len(order)} of the {len(count):,} held-out devices, evenly from worst to best"
    return Picture(
        png(figure),
        f"{selection}, best on top; numbered in the order of their names. Each adapts on {comparison.shots:,} of its own "
        f"samples {comparison.how}; mean over {counted(int(count.min()), 'draw')} of those samples.",
    )


def _device_axes(ax: "Axes", devices: int, unit: str, values: NDArray[np.float64]) -> None:
    """Axes of accuracies, or of losses in ``unit``."""
    from matplotlib.ticker import PercentFormatter

    ax.set_ylim(-0.7, devices - 0.3)
    ax.grid(axis="y", visible=False)
    if not unit:
        ax.set_xlabel("accuracy")
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        return
    ax.set_xlabel(unit)
    logarithmic(ax, "x", values)
