"""Terminal output for runs: a progress bar during a run, and a short table at its end."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.box import SIMPLE
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from tinyfl.cli.show.bar import Bar
from tinyfl.cli.show.terminal import Terminal
from tinyfl.fleet import Event
from tinyfl.flower.rounds import Progress as ProgressReport
from tinyfl.registry.chosen import Chosen
from tinyfl.report import html
from tinyfl.report.line import share_of_fp32
from tinyfl.report.tables import on_the_line
from tinyfl.report.verdict import interval, method, without_a_network
from tinyfl.runs.evaluation import LEADING_STEPS, compares
from tinyfl.runs.tables import METRICS, metric

if TYPE_CHECKING:
    from tinyfl.costs import Cost, Operation
    from tinyfl.fleets.emulation import Served

T = TypeVar("T")


def with_progress(work: Callable[[Callable[[ProgressReport], None], Callable[[Event], None]], T]) -> T:
    """Calls ``work`` with functions that show progress and events on stderr."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    bar = Bar("learning", *columns)
    reported: dict[int, str] = {}

    def on_event(event: Event) -> None:
        """Shows boards that go, return or have no loss, once each; events.jsonl has every round."""
        if event.what == "connected" or event.what == reported.get(event.device):
            return
        reported[event.device] = event.what
        who = f"device {event.device}" + (f" ({event.board})" if event.board else "")
        bar.console.print(f"round {event.round + 1:,}: {who} {event.what}: {event.detail}", highlight=False, soft_wrap=True)

    with bar:
        return work(bar.show, on_event)


def note(words: str) -> None:
    """Prints a note on the changes to the user's data or network, before the run begins."""
    Terminal(stderr=True).print(words, highlight=False, soft_wrap=True)


def run(result: dict[str, Any]) -> None:
    """A finished run: an unseen device's results, beside the initial weights' and the floor's; first a warning if the run is
    worse than its floor."""
    console = Terminal()
    if words := result.get("verdict"):
        console.print(words, style="bold red", highlight=False, soft_wrap=True)
    _evaluation(console, result, f"{result['task']} · {result['algorithm']} · {result['network']} · unseen devices")
    for words in result.get("notes", ()):
        if words.startswith("validation: "):
            console.print(words, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{result['device_rounds']:,} device-rounds of {result['devices']:,} devices in {result['seconds']:.1f} s "
        f"({result['device_rounds_per_s']:,.0f}/s); a device needs {result['device_ram_bytes']:,} bytes of RAM to learn."
    )
    if virtual := result.get("virtual_time"):
        console.print(f"virtual time: {virtual:,g} units, in each of which a usual device does a round")
    if share := share_of_fp32(result):
        console.print(f"over the line: {html.size(sum(on_the_line(result)))}, {share}")
    boots = sorted(board["boot_seconds"] for board in result["boards"] if "boot_seconds" in board)
    if boots:
        median, slowest = 1e3 * boots[len(boots) // 2], 1e3 * boots[-1]
        console.print(f"{len(boots):,} emulated boards, each up in {median:.0f} ms (the slowest in {slowest:.0f}).")
    if privacy := result.get("privacy"):
        console.print(f"epsilon {privacy['epsilon']:.3g} at delta {privacy['delta']:.1g}, after {privacy['releases']:,} rounds")
    if result["left_out"]:
        console.print("left out: " + ", ".join(f"{count:,} {reason}" for reason, count in result["left_out"].items()))
    for part, why in result.get("failed", {}).items():
        console.print(f"FAILED: {part}: {why}", style="bold red", soft_wrap=True)
    console.print(f"theta {result['theta_sha256'][:16]}…  report: {result['run']}/report.html", soft_wrap=True)


def _evaluation(console: Terminal, result: dict[str, Any], title: str) -> None:
    """A table of the evaluation, beside the initial weights' if there are such rows, and the floor's."""
    floors = {row["shots"]: row for row in result["floor"]}  # the last of each: nearest class mean, or support mean
    beside = [method(row).replace("class ", "") for row in list(floors.values())[:1]]
    starts = result.get("baseline", [])
    table = Table(title=title)
    for column in ("mode", "shots", "steps", "adapted", *([result.get("start", "random start")] if starts else []), *beside):
        table.add_column(column, justify="left" if column == "mode" else "right")
    for number, learnt in enumerate(result["evaluation"]):
        if learnt["steps"] not in (0, 1, LEADING_STEPS):
            continue
        cells = [learnt["mode"], str(learnt["shots"]), str(learnt["steps"]), _figure(learnt)]
        cells += [_figure(starts[number])] if starts else []
        lead = compares(learnt)
        cells += [_figure(floors[learnt["shots"]]) if lead else "" for _ in beside]
        table.add_row(*cells, style="bold" if lead else "")
    console.print(table)
    console.print(_legend(result["evaluation"]), markup=False, highlight=False, soft_wrap=True)
    for line in without_a_network(result):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    found = result.get("per_device")
    if found and len(found["devices"]) == found["number"] > 1:  # else a task makes them up
        worst = ", ".join(f"{row['device']} {_figure(row['after'])}" for row in found["devices"][:3])
        name = METRICS[metric([row["after"] for row in found["devices"]])]
        console.print(f"worst devices, by {name}: {worst}", markup=False, highlight=False, soft_wrap=True)


MODES = {
    "batch": "batch: each step on all shots at once", "stream": "stream: each step a pass over the shots, one by one",
    "means": "means: the nearest class mean",
}  # fmt: skip


def _legend(rows: Sequence[dict[str, Any]]) -> str:
    """What the figures of an evaluation are, and its modes."""
    squares = ", in squares of the values' units" * any(row.get("mae") is not None for row in rows)
    modes = "; ".join(MODES.get(mode, mode) for mode in dict.fromkeys(row["mode"] for row in rows))
    return f"{METRICS[metric(rows)].capitalize()}{squares}, {interval(rows)}. {modes}."


def evaluation(result: dict[str, Any]) -> None:
    """A finished run, evaluated again."""
    console = Terminal()
    on = f" · {Path(result['data']).name}" if result["data"] else ""
    _evaluation(console, result, f"{result['task']}{on} · {result['network']} · {result['run']}")


def adaptation(result: dict[str, Any]) -> None:
    """One device's adaptation curve."""
    console = Terminal()
    rate = "" if result["adapt_lr"] is None else f" · rate {result['adapt_lr']:g}"
    table = Table(title=f"{result['network']} · {result['mode']} · {result['shots']} shots{rate}")
    table.add_column("steps", justify="right")
    table.add_column("loss", justify="right")
    table.add_column("accuracy", justify="right")
    for point in result["curve"]:
        accuracy = "" if point["accuracy"] is None else f"{100 * point['accuracy']:.1f} %"
        table.add_row(str(point["steps"]), html.loss(point["loss"]), accuracy)
    console.print(table)
    console.print(f"measured on {result['measured_on']} ({result['samples_measured']} samples)")
    for words in result.get("notes", ()):
        console.print(f"WARNING: {words}", style="bold red", highlight=False, soft_wrap=True)
    if "on" in result:
        kept = "keeps its classes" if result["kept"] else "loses its classes with its power"
        console.print(
            f"on {result['on']}: accuracy {100 * result['accuracy_on_board']:.1f} %; the board {kept}", soft_wrap=True
        )
    if result["out"]:
        console.print(f"adapted weights: {result['out']}", soft_wrap=True)


def with_bar(what: str, work: Callable[[Callable[[int, int], None]], T]) -> T:
    """Calls ``work`` with a function of (done, total) that shows progress on stderr."""
    bar = Bar(what, SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with bar:
        return work(lambda done, total: bar.show(ProgressReport(what, done, total)))


def exported(result: dict[str, Any]) -> None:
    """The files of an export, and their measured results."""
    from tinyfl.export.card import drop, figure

    console = Terminal()
    for case in result["measured"]:
        console.print(f"On {case['on']}:", soft_wrap=True)
        table = Table()
        for column in ("numbers", "run by", result["metric"], "worse by"):
            table.add_column(column, justify="left" if column in ("numbers", "run by") else "right")
        for row in case["rows"]:
            reached = figure(row["value"], row["ci95"], result["metric"])
            table.add_row(row["numbers"], row["by"], reached, drop(row, result["metric"]))
        console.print(table)
    for name, why in result["not_run"].items():
        console.print(f"not run: {name} ({why})", soft_wrap=True)
    for file in result["files"]:
        console.print(f"{file['path']}  {file['bytes']:,} bytes", soft_wrap=True)
    console.print(result["card"], soft_wrap=True)


def costs(found: "Sequence[Cost]") -> None:
    """A table of a model's costs, one board per row, with marks for what does not fit."""
    from tinyfl.costs import CYCLES_PER_INSTRUCTION

    console = Terminal()
    table = Table(title=found[0].model, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("board", no_wrap=True)
    slot = ["slot"] if found[0].from_slot else []
    for column in ("RAM, KB", "flash", *slot, *(work.what for work in found[0].work), "link"):
        table.add_column(column, justify="right", no_wrap=True)
    for cost in found:
        rooms = [
            f"{room.taken / 1e3:.1f}{'' if room.fits else ' ✗'}\nof {room.available / 1e3:.1f}"
            for room in cost.rooms[: 2 + len(slot)]
        ]
        link = f"~{_seconds(cost.link_seconds)}\n{html.three_digits(cost.link_bytes / 1e3)} KB"
        table.add_row(cost.board, *rooms, *map(_work, cost.work), link, style="" if cost.fits else "red", end_section=True)
    console.print(table)
    if len(found) == 1:
        for name, room in zip(("RAM", "flash", "slot"), found[0].rooms, strict=True):
            console.print(
                f"{name}: "
                + " + ".join(f"{part} {count:,}" for part, count in room.parts.items())
                + f" = {room.taken:,} of {room.available:,}{'' if room.fits else ' ✗'}"
            )
    measured = "counted in emulation" if any(work.measured for cost in found for work in cost.work) else "estimated"
    console.print(
        f"Bytes are exact; ✗ does not fit. M and k: instructions in millions and thousands, {measured}; ~ marks estimates. "
        f"Seconds assume {CYCLES_PER_INSTRUCTION:g} cycles an instruction, mJ the manifest's power; the link runs at its "
        "full rate."
    )


def _work(work: "Operation") -> str:
    energy = f"\n{_energy(work.millijoules)}" if work.millijoules is not None else ""
    return f"{'' if work.measured else '~'}{_seconds(work.seconds)}\n{_count(work.instructions)}{energy}"


def _count(instructions: float) -> str:
    return f"{html.three_digits(instructions / 1e6)} M" if instructions >= 1e6 else f"{html.three_digits(instructions / 1e3)} k"


def _energy(millijoules: float) -> str:
    return f"{html.three_digits(millijoules)} mJ" if millijoules >= 1 else f"{html.three_digits(1e3 * millijoules)} µJ"


def _seconds(seconds: float) -> str:
    if seconds >= 1:
        return f"{html.three_digits(seconds)} s"
    return f"{html.three_digits(1e3 * seconds)} ms" if seconds >= 1e-3 else f"{html.three_digits(1e6 * seconds)} µs"


def inference(result: dict[str, Any]) -> None:
    """The results of an int8 model on a batch or a task."""
    console = Terminal()
    console.print(f"{result['model']} on {result['on']}: {result['bytes']:,} bytes, {result['arena_bytes']:,} of RAM to run in")
    if "output" in result:
        shape = " x ".join(map(str, result["shape"]))
        what = f"outputs of {shape} {result['dtype']}" if shape else "class numbers"
        console.print(f"{result['inputs']:,} {what}: {result['output']}", soft_wrap=True)
    if "task" in result:
        row = {"accuracy": None, "loss": None, "accuracy_ci95": None, "loss_ci95": None, **result}
        name = METRICS[metric([row])]
        console.print(
            f"{result['task']}: {name} {_figure(row)} on {result['samples']:,} samples, devices: {result['devices']:,}"
        )
        task = Chosen("task", result["task"])
        if task.built_in and task.takes("standardise") and not result["standardised"]:
            console.print("Inputs are unchanged from the file; to standardise them like a run's, give its directory as --task.")


def emulated(boards: "Sequence[Served]") -> None:
    """A table of emulated boards and their urls."""
    table = Table("id", "board", "url")
    for board in boards:
        table.add_row(board.id, board.board, board.url)
    Terminal().print(table)
    Terminal(stderr=True).print("Ctrl-C ends them.")


def _figure(row: dict[str, Any]) -> str:
    """Accuracy or macro average precision in per cent, or loss, with the half-width of its interval."""
    for key in ("macro_ap", "accuracy"):
        if row.get(key) is not None:
            return html.percent(row[key], row.get(f"{key}_ci95"))
    if row["loss"] is None:
        return "diverged"
    return html.loss(row["loss"], row.get("loss_ci95"))
