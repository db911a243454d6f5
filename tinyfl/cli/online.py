"""The verb online: streams of samples through devices that learn from each."""

import json as jsonlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyfl.cli.common import Baud, Json, app, given, say
from tinyfl.errors import ConfigError, LinkError
from tinyfl.errors.words import plain

if TYPE_CHECKING:
    from tinyfl.devices.listening import Listening
    from tinyfl.online.prequential import Course


@app.command()
def online(
    ctx: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(help="A run: its network stays frozen, only its last layer learns. Without: no network."),
    ] = None,
    task: Annotated[str, typer.Option(metavar="NAME", help="A task. Default: the run's, if no --data.")] = "",
    data: Annotated[Path | None, typer.Option(help="Its data; without --task a device's rows.")] = None,
    targets: Annotated[str, typer.Option(metavar="KIND", help="Without a run: classes or values.")] = "",
    devices: Annotated[int, typer.Option(min=1, metavar="N", help="Devices, each with its own order.")] = 1,
    segments: Annotated[
        int, typer.Option(min=0, metavar="N", help="Held-out devices in order; 0: all.", show_default=False)
    ] = 0,
    samples: Annotated[int, typer.Option(min=0, metavar="N", help="Samples of each; 0: all.", show_default=False)] = 0,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Mix the samples of each segment.")] = False,
    labels: Annotated[float, typer.Option(metavar="X", help="Share of samples that get a label.")] = 1.0,
    delay: Annotated[int, typer.Option(min=0, metavar="N", help="Labels come N samples late.", show_default=False)] = 0,
    rate: Annotated[float, typer.Option(metavar="X", help="Learning rate of the head; 0: none.")] = 0.05,
    cap: Annotated[int, typer.Option(metavar="N", help="Samples in mean and variance; 0: all.")] = 256,
    standardise: Annotated[str, typer.Option(metavar="WHAT", help="inputs, embeddings or nothing.")] = "inputs",
    places: Annotated[int, typer.Option(min=0, metavar="N", help="Most classes; 0: the run's plus 8.", show_default=False)] = 0,
    tolerance: Annotated[float, typer.Option(metavar="X", help="Rise of the error that is no drift.")] = 0.05,
    alarm: Annotated[float, typer.Option(metavar="X", help="Sum of rises above that; 0: no alarms.")] = 10.0,
    average: Annotated[
        int, typer.Option(min=0, metavar="N", help="Samples between averages; 0: none.", show_default=False)
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of order and labels.")] = 0,
    unsure: Annotated[
        float, typer.Option(min=0, max=1, metavar="X", help="Ask for labels below this confidence.", show_default=False)
    ] = 0.0,
    sensor: Annotated[str, typer.Option(metavar="NAME", help="The board learns from its own sensor.")] = "",
    label: Annotated[str, typer.Option(help="The label of the sensor's samples now.")] = "",
    seconds: Annotated[float, typer.Option(min=0, metavar="X", help="How long to watch a sensor.")] = 60.0,
    every: Annotated[
        int, typer.Option(min=0, metavar="N", help="Samples per commit; 0: one at the end.", show_default=False)
    ] = 0,
    stop: Annotated[bool, typer.Option("--stop", help="Stop learning from the sensor.")] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Drop what the board has learnt online.")] = False,
    on: Annotated[str, typer.Option(help="emulated:BOARD or port:PORT.", show_default=False)] = "native",
    out: Annotated[Path | None, typer.Option(help="Directory for the result and its page.")] = None,
    json: Json = False,
) -> None:
    """Let devices learn online from a stream, each sample predicted first, beside the model as it was trained."""
    from tinyfl.cli.show.online import Live
    from tinyfl.devices.listening import Listening
    from tinyfl.online import online as stream
    from tinyfl.online.prequential import checked
    from tinyfl.online.sets import Standardised

    if sensor or label or stop:
        checked(rate=rate, cap=cap, standardise=standardise)
        how = {
            "rate": rate, "cap": cap, "standardised": Standardised[standardise], "places": places, "tolerance": tolerance,
            "alarm": alarm, "unsure": unsure, "every": every,
        }  # fmt: skip
        how = {key: value for key, value in how.items() if given(ctx, "standardise" if key == "standardised" else key)}
        what = Listening(sensor, label, samples, seconds, stop=stop, anew=anew)
        at_once = stop and not any(given(ctx, name) for name in ("label", "samples", "seconds"))
        _listen(run, on, how, None if at_once else what, json)
        return
    live = Live(json)
    result: dict[str, Any] = stream(
        run, task=task, data=data, targets=targets, seed=seed, devices=devices, segments=segments, samples=samples,
        shuffle=shuffle, labels=labels, delay=delay, rate=rate, cap=cap, standardise=standardise, places=places,
        tolerance=tolerance, alarm=alarm, average=average, unsure=unsure, out=out, progress=live.show,
        beside=None if on == "native" else _board(on, anew),
    )  # fmt: skip
    if out is not None:
        from tinyfl.report.online import write_page

        result["report"] = str(write_page(out, result))
    if json:
        say(jsonlib.dumps(result))
    else:
        live.end(result)


def _listen(run: Path | None, on: str, how: dict[str, Any], what: "Listening | None", json: bool) -> None:
    """A board's own sensor; without ``what`` it stops."""
    from tinyfl.cli.show.online import Watching
    from tinyfl.devices.listening import listen, stop
    from tinyfl.fleets.emulation import board_at
    from tinyfl.runs.adaptation import Initialisation

    if not on.startswith("port:"):
        raise ConfigError("a board learns from its own sensor: give the board too, --on port:PORT.")
    if what and not what.sensor:
        raise ConfigError("a board learns from its own sensor: give --sensor NAME too.")
    shown = Watching(json)
    with board_at(on) as opener:
        start = Initialisation.load(run) if run else None
        result = listen(opener, start, how, what, shown.show) if what else stop(opener)
    if json:
        say(jsonlib.dumps(result))
    else:
        shown.end(result)


@app.command()
def average(
    ports: Annotated[list[str], typer.Argument(metavar="PORT...", help="The ports of the boards.")],
    keep: Annotated[bool, typer.Option("--keep", help="Have boards with a store keep the head over power loss.")] = False,
    baud: Baud = 0,
    json: Json = False,
) -> None:
    """Average the heads of boards that learn online, by the names of their classes. Nothing else leaves a board."""
    from dataclasses import asdict

    from tinyfl.devices.averages import average as average_boards

    done = average_boards(ports, baud=baud, keep=keep)
    if json:
        say(jsonlib.dumps({"boards": [asdict(each) for each in done]}))
    for each in [] if json else done:
        kept = ", kept" if each.kept else ""
        say(f"{plain(each.port)}: {each.failed or f'{len(each.classes)} classes, {each.new} of them new{kept}'}")
    if failed := [each for each in done if each.failed]:
        raise LinkError(f"{len(failed)} of {len(done)} boards do not have the average. Run the command again.")


def _board(on: str, anew: bool) -> "Callable[[Course], dict[str, Any]]":
    """What takes a course on the board ``on``, and says whether it has learnt the same bits."""
    from tinyfl.devices.online import lesson, stream
    from tinyfl.fleets.emulation import board_at

    def take(course: "Course") -> dict[str, Any]:
        with board_at(on) as opener:
            found = stream(lesson(course), opener, keep=on.startswith("port:"), anew=anew)
        same = found.learnt == course.device.core.learnt()
        return {"on": on, "samples": len(found.numbers), "same_bits": same, "kept": found.kept}

    return take
