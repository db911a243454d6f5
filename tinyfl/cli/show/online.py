"""Terminal output for online learning: a line as each part of the streams is through, then the changes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.table import Table

from tinyfl.cli.common import say
from tinyfl.cli.show.terminal import Terminal
from tinyfl.online.prequential import Window
from tinyfl.report import html

if TYPE_CHECKING:
    from tinyfl.link.online import Watched

COLUMNS = ("samples", "online", "static", "last label", "sure", "labels", "drifts")
WIDTH = 11


class Live:
    """A table that grows while devices learn, without the columns of what there is not; nothing if ``quiet``."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self._columns = quiet, list[str]()

    def show(self, window: Window) -> None:
        if self.quiet:
            return
        figures = [short(each) for each in (window.figure, window.static, window.last_label, window.confidence)]
        cells = dict(zip(COLUMNS, [f"{window.samples:,}", *figures, f"{window.labels:,}", f"{window.drifts:,}"], strict=True))
        if not self._columns:
            self._columns = [name for name, cell in cells.items() if cell]
            say("".join(f"{name:>{WIDTH}}" for name in self._columns))
        say("".join(f"{cells[name]:>{WIDTH}}" for name in self._columns))

    def end(self, result: Mapping[str, Any]) -> None:
        console, what = Terminal(), result["figure"]
        rows = [row for device in result["devices"] for row in device["changes"]]
        if rows:
            table = Table(box=SIMPLE, title=f"{what} around each change", title_justify="left")
            for name in ("change", "at", "before", "after", "static after", "recovered in"):
                table.add_column(name, justify="left" if name == "change" else "right")
            for row in rows[:20]:
                recovered = "not" if row["recovered"] is None else html.counted(row["recovered"], "sample")
                after = [short(row[key]) for key in ("before", "after", "static_after")]
                table.add_row(str(row["name"]), f"{row['at']:,}", *after, recovered)
            console.print(table)
            if len(rows) > 20:
                say(f"and {len(rows) - 20:,} further changes: in the page, or with --json")
        beside = "".join(f", {name} {short(result[key])}" for key, name in BESIDE.items() if result[key] is not None)
        unit = ", in squared units of y" if what == "loss" else ""
        say(f"{what} online {short(result['online'])}{beside}{unit}")
        if board := result.get("on_board"):
            same = "the same bits as the simulated device" if board["same_bits"] else "other bits than the simulated device"
            say(f"{board['on']} has learnt {same}" + (", and keeps them" if board["kept"] else ""))
        if "report" in result:
            say(f"report: {result['report']}")


class Watching:
    """A table that grows while a board learns from its own sensor; nothing if ``quiet``."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self._begun = quiet, False

    def show(self, watched: "Watched") -> None:
        if self.quiet:
            return
        if not self._begun:
            say("".join(f"{name:>{WIDTH}}" for name in ("samples", "labels", "error", "sure", "drifts", "wanted")))
            self._begun = True
        wanted = f"{watched.wanted:,}" if watched.wanted else ""
        figures = (f"{watched.samples:,}", f"{watched.labels:,}", short(watched.error), short(watched.confidence))
        say("".join(f"{cell:>{WIDTH}}" for cell in (*figures, f"{watched.drifts:,}", wanted)))

    def end(self, result: Mapping[str, Any]) -> None:
        kept = "kept over power loss" if result["kept"] else "in its RAM only"
        goes_on = "it goes on by itself" if result["goes_on"] else "it has stopped"
        of = f" of {result['sensor']}" if result["sensor"] else ""
        say(f"{result['new']:,} new samples{of}; what is learnt is {kept}, and {goes_on}")
        if result["new"] and not result["labels"]:
            say("No label came. Say what it is, --label NAME, or let the sensor's C file say it.")


BESIDE = {"static": "static model", "last_label": "always the last label"}


def short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
