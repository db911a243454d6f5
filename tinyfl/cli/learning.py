"""Verbs of learning: run and simulate, evaluate, adapt, metrics, report."""

import json as jsonlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyfl.cli import renamed
from tinyfl.cli.common import Json, app, say, tell
from tinyfl.cli.options import Command, HelpAll, OneOfMany, given, option, with_settings
from tinyfl.config.settings import FLEET, RUN
from tinyfl.errors import ConfigError

if TYPE_CHECKING:
    from tinyfl.fleet import Event
    from tinyfl.flower.rounds import Progress


@app.command(
    "simulate",
    cls=Command,
    help="Train a simulated fleet, and evaluate it: another name for run. Without options: handwritten digits.",
)
@app.command(
    "run", cls=Command, help="Train a fleet of simulated devices, emulated boards and boards on ports, and evaluate it."
)
@with_settings()
def run(
    config: Annotated[Path | None, typer.Argument(help="A TOML file with these options, such as a run's config.toml.")] = None,
    board: Annotated[str | None, option("Emulate each device as this board: mps2-an386, ...", FLEET, "NAME")] = None,
    engine: Annotated[str | None, option("With --board: unicorn, qemu or process.", FLEET, "NAME", common=False)] = None,
    toolchain: Annotated[str | None, option("With --board: zig or gcc.", FLEET, "NAME", common=False)] = None,
    port: Annotated[list[str] | None, option("Serial port of a board in the fleet; may repeat.", FLEET, "PORT")] = None,
    readings: Annotated[
        Path | None, option("With --board and --sensor: recorded readings for the boards.", FLEET, "FILE", common=False)
    ] = None,
    source: Annotated[
        list[Path] | None, option("A C file with the fleet's sensors; may repeat.", FLEET, "FILE", common=False)
    ] = None,
    federation: Annotated[str, option("Run on this federation of Flower's configuration.", FLEET, "NAME")] = "",
    out: Annotated[Path | None, option("Run directory. Default: a new one in runs/.", RUN, "FOLDER")] = None,
    resume: Annotated[Path | None, option("Continue the run in this directory.", RUN, "FOLDER")] = None,
    replay: Annotated[
        Path | None, option("Repeat the run with --buffer in this directory, arrival by arrival.", RUN, "FOLDER", common=False)
    ] = None,
    threads: Annotated[int, option("Threads; 0: all processors. Changes no result.", RUN, "N", common=False)] = 0,
    lanes: Annotated[
        int, option("Devices in lockstep (SIMD): 16, 8, 4 or 1; 0: the most. Changes no result.", RUN, "N", common=False)
    ] = 0,
    memory: Annotated[
        str,
        option(
            "Bound what simulated devices take at once beyond the interpreter and the data set: their samples, and the "
            "threads' working memory. 200M, 2G, ... Changes no result.",
            RUN,
            "SIZE",
            common=False,
        ),
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=RUN)] = False,
    help_all: HelpAll = False,
    **settings: Any,
) -> None:
    from tinyfl.cli.show import runs as show
    from tinyfl.simulation import simulate

    for hint in renamed.in_file(config) if config else ():
        tell(hint)
    options = {**given(settings), "fleet": _fleet(settings["devices"], board, engine, toolchain, port, readings)}

    def work(progress: "Callable[[Progress], None]", on_event: "Callable[[Event], None]") -> Any:
        return simulate(
            config=config, resume=resume, replay=replay, out=out, threads=threads, lanes=lanes, memory=memory,
            progress=progress, on_event=on_event, on_note=show.note, source=source or (), **options,
        )  # fmt: skip

    if federation:
        if source:
            raise ConfigError("the C files of a federation's sensors are at its gateways: tinyfl gateway --source FILE.c.")
        if replay:
            raise ConfigError("a replay is for this machine: leave --federation out.")
        from tinyfl.deployment.submit import run_on

        result = run_on(federation, config=config, resume=resume, out=out, options=options)
    else:
        result = show.with_progress(work).result
    if json:
        typer.echo(jsonlib.dumps(result))
    elif "evaluation" in result:
        show.run(result)
    else:
        say(f"{result['status']}; its directory is where the SuperLink runs: {result['run']}")


def _fleet(
    devices: int | None,
    board: str | None,
    engine: str | None,
    toolchain: str | None,
    port: list[str] | None,
    readings: Path | None,
) -> list[dict[str, Any]] | None:
    """The fleet that options describe: ``devices`` boards of one kind, or the boards at some ports; None: another."""
    if board and port:
        raise ConfigError("a fleet of --board and --port together is for a file: write both under [[fleet]] (docs/fleets.md).")
    if readings and not board:
        raise ConfigError("--readings are for emulated boards: give --board NAME too, or write readings under [[fleet]].")
    if port:
        return [{"ports": port}]
    if board:
        chosen = {"engine": engine, "toolchain": toolchain, "count": devices, "readings": readings and str(readings)}
        return [{"board": board, **{key: value for key, value in chosen.items() if value is not None}}]
    if engine or toolchain:
        raise ConfigError("--engine and --toolchain are for emulated boards: give --board NAME too.")
    return None


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run's directory, or its initialisation.npz.")],
    shots: Annotated[
        list[int] | None,
        typer.Option(metavar="N", click_type=OneOfMany(), help="Samples to adapt on; may repeat. Default: the run's."),
    ] = None,
    tasks: Annotated[int | None, typer.Option(help="Unseen devices to evaluate on. Default: the run's.")] = None,
    data: Annotated[Path | None, typer.Option(help="Other data for the run's task, or its own if moved.")] = None,
    adapt_lr: Annotated[
        float | None, typer.Option(help="Learning rate; 0: chosen on validation devices. Default: the run's.")
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="MODULE:CLASS", help="The run's task, if it is code of your own.")] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(metavar="MODULE:CLASS", help="The run's algorithm, if it is code of your own that says how to adapt."),
    ] = None,
    port: Annotated[list[str] | None, typer.Option(help="Measure on the board's own sensor at this port; may repeat.")] = None,
    sensor: Annotated[str, typer.Option(help="With --port: the sensor's name.")] = "",
    samples: Annotated[int, typer.Option(min=1, max=100_000, help="With --port: samples of the sensor to measure on.")] = 50,
    out: Annotated[Path | None, typer.Option(help="Write the JSON here too.")] = None,
    json: Json = False,
) -> None:
    """Evaluate a finished run again: with other shots, devices or data, or on boards' own sensors. The run stays as it is."""
    from tinyfl.cli.show import runs as show
    from tinyfl.runs.reevaluation import evaluate as run_evaluation
    from tinyfl.system.files import write_whole

    if port or sensor:
        _on_sensors(run, port or (), sensor, min(shots or [10]), samples, out, json)
        return
    result = show.with_bar(
        "evaluating",
        lambda tick: run_evaluation(
            run, shots=shots or None, tasks=tasks, data=data, adapt_lr=adapt_lr, task=task, algorithm=algorithm, progress=tick
        ),
    )
    if out is not None:
        write_whole(out, f"{jsonlib.dumps(result, indent=2)}\n".encode())
    if json:
        typer.echo(jsonlib.dumps(result))
    else:
        show.evaluation(result)


def _on_sensors(
    run: Path, ports: Sequence[str], sensor: str, shots: int, samples: int, out: Path | None, as_json: bool
) -> None:
    """Evaluates ``run`` on boards' own sensors."""
    from tinyfl.devices.own_samples import on_own_samples
    from tinyfl.system.files import write_whole

    if not ports or not sensor:
        raise ConfigError("an evaluation on boards' own samples needs both: --port PORT and --sensor NAME.")
    result = on_own_samples(run, ports, sensor, shots=shots, samples=samples)
    if out is not None:
        write_whole(out, f"{jsonlib.dumps(result, indent=2)}\n".encode())
    if as_json:
        typer.echo(jsonlib.dumps(result))
        return
    for row in result["boards"]:
        learnt = f"after {row['shots']} shots" if row["shots"] else "as it is"
        say(
            f"{row['board']} {learnt}: {100 * row['accuracy']:.1f} % of {row['samples']} labelled samples right, loss "
            f"{row['loss']:.4g}"
        )


@app.command()
def adapt(
    run: Annotated[Path, typer.Argument(help="A finished run's directory, or its initialisation.npz.")],
    data: Annotated[
        Path, typer.Option(help="The new device's samples: an .npz file with x and y, or a file of the run's columns.")
    ],
    mode: Annotated[str, typer.Option(help="batch (full-batch steps) or stream (passes, one sample at a time).")] = "batch",
    steps: Annotated[int, typer.Option(min=0, max=1_000_000, help="Adaptation steps.")] = 10,
    shots: Annotated[int | None, typer.Option(help="Learn from the first SHOTS rows, measure on the rest.")] = None,
    adapt_lr: Annotated[float | None, typer.Option(help="Learning rate. Default: the run's own.")] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(metavar="MODULE:CLASS", help="The run's algorithm, if it is code of your own that says how to adapt."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the adapted weights here (.npz).")] = None,
    on: Annotated[
        str,
        typer.Option(
            help="native (this machine); or a board that enrols the classes: emulated:BOARD, or port:PORT, which keeps them."
        ),
    ] = "native",
    json: Json = False,
) -> None:
    """Adapt a saved initialisation to one new device's data."""
    from tinyfl.cli.classes import adapt_on
    from tinyfl.cli.show import runs as show
    from tinyfl.runs.adaptation import adapt as run_adaptation

    measured = {} if on == "native" else adapt_on(on, run, data, shots)
    result = run_adaptation(run, data, mode=mode, steps=steps, shots=shots, adapt_lr=adapt_lr, out=out, algorithm=algorithm)
    result |= measured
    if json:
        typer.echo(jsonlib.dumps(result))
    else:
        show.adaptation(result)


@app.command()
def metrics(
    runs: Annotated[list[Path], typer.Argument(help="Directories of runs.")],
    table: Annotated[
        str, typer.Option(metavar="NAME", help="metrics (the loss over the rounds), rounds, evaluation, validation or devices.")
    ] = "metrics",
    out: Annotated[Path | None, typer.Option(help="Write this file instead of stdout: .json, or else CSV.")] = None,
    json: Json = False,
) -> None:
    """Print a table of figures of one or several runs, as CSV or JSON."""
    from tinyfl.runs import tables
    from tinyfl.system.files import write_whole

    rows = [{**({"run": str(run)} if len(runs) > 1 else {}), **row} for run in runs for row in tables.table(run, table)]
    text = jsonlib.dumps({"table": table, "rows": rows})
    if out is not None:
        write_whole(out, (f"{text}\n" if out.suffix == ".json" else tables.as_csv(rows)).encode())
    if json:
        typer.echo(text)
    else:
        say(str(out) if out is not None else tables.as_csv(rows).rstrip("\n"))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="A finished run's directory.")],
    out: Annotated[Path | None, typer.Option(help="With several runs: the page to write, as of tinyfl compare.")] = None,
    json: Json = False,
) -> None:
    """Rewrite the report of a run. Several runs are for tinyfl compare."""
    from tinyfl.report import page as pages
    from tinyfl.report.compared import write_comparison

    if len(runs) == 1:
        if out is not None:
            raise ConfigError("one run's page is written into its own directory: leave --out out, or name several runs.")
        path = str(pages.rebuild(runs[0], tell))
    else:
        tell("tinyfl: report with several runs is now tinyfl compare")
        path = write_comparison(runs, out or Path("comparison.html"), tell)["report"]
    say(jsonlib.dumps({"report": path}) if json else path)
