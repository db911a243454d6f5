"""The command line: one thin function a verb. Results go to stdout, progress and errors to stderr."""

import json as jsonlib
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyfl import __version__
from tinyfl.build import Toolchain
from tinyfl.errors import ConfigError, TinyflError

if TYPE_CHECKING:
    from tinyfl.federation import Progress
    from tinyfl.fleet import Event

app = typer.Typer(
    name="tinyfl",
    help="Train a fleet of microcontrollers together.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def tinyfl(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Train a fleet of microcontrollers together."""


@app.command("simulate", help="Simulate a fleet that learns together; adapt the result to unseen devices. Bare: real digits.")
@app.command("run", help="Run federated rounds on a fleet of simulated devices, emulated boards and boards on ports, mixed.")
def run(
    config: Annotated[Path | None, typer.Argument(help="A TOML file with these options, such as a run's config.toml.")] = None,
    task: Annotated[str | None, typer.Option(help="digits, sine, npz or omniglot. Bare: digits.")] = None,
    data: Annotated[Path | None, typer.Option(help="Your .npz file, for npz and omniglot.")] = None,
    algorithm: Annotated[str | None, typer.Option(help="tinyreptile, reptile, fedavg or joint.")] = None,
    network: Annotated[
        str | None, typer.Option(help="Such as mlp-64-64, conv-16-32-32-32, dsconv-16-32-64, or a .keras or .h5 file.")
    ] = None,
    freeze: Annotated[int | None, typer.Option(help="The first so many layers with weights do not learn.")] = None,
    devices: Annotated[int | None, typer.Option(help="Size of the fleet.")] = None,
    board: Annotated[str | None, typer.Option(help="Emulate all devices as boards of this kind, such as mps2-an386.")] = None,
    engine: Annotated[str | None, typer.Option(help="With --board: unicorn, qemu or process.")] = None,
    toolchain: Annotated[str | None, typer.Option(help="With --board: zig or gcc.")] = None,
    port: Annotated[list[str] | None, typer.Option(help="A port with a board, a device of the fleet; may repeat.")] = None,
    minimum: Annotated[int | None, typer.Option(help="Updates that a round needs to count.")] = None,
    seconds: Annotated[float | None, typer.Option(help="What a board may take for its part of a round.")] = None,
    cohort: Annotated[int | None, typer.Option(help="Devices a round; 1 is the algorithm's serial form.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples a device takes in a round.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples an inner step, for reptile and fedavg.")] = None,
    inner_lr: Annotated[float | None, typer.Option(help="Learning rate on the devices.")] = None,
    outer_step: Annotated[float | None, typer.Option(help="How far the server follows, at first.")] = None,
    clip: Annotated[float | None, typer.Option(help="Bound on the norm of the loss's gradient; 0: none.")] = None,
    adapt_lr: Annotated[
        float | None, typer.Option(help="Adaptation rate in the evaluation; 0: chosen on validation devices.")
    ] = None,
    shots: Annotated[list[int] | None, typer.Option(help="Samples to adapt on (per class in N-way tasks); may repeat.")] = None,
    tasks: Annotated[int | None, typer.Option(help="Unseen devices to evaluate on.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same theta.")] = None,
    nodes: Annotated[str | None, typer.Option(help="Flower nodes: a number of gateways, or devices.")] = None,
    threads: Annotated[int, typer.Option(help="Threads; 0: all processors. Changes no result.")] = 0,
    lanes: Annotated[int, typer.Option(help="Devices in lockstep, 16, 8, 4 or 1; 0: the most. Changes no result.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run directory. Default: a free one in runs/.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this directory.")] = None,
    json: Json = False,
) -> None:
    options: dict[str, Any] = {
        "task": task, "data": str(data) if data else None, "algorithm": algorithm, "network": network, "freeze": freeze,
        "devices": devices, "cohort": cohort, "rounds": rounds, "samples": samples, "batch": batch,
        "inner_lr": inner_lr, "outer_step": outer_step, "clip": clip, "adapt_lr": adapt_lr,
        "shots": tuple(shots) if shots else None, "tasks": tasks, "seed": seed, "nodes": nodes,
        "minimum": minimum, "seconds": seconds, "fleet": _fleet(devices, board, engine, toolchain, port),
    }  # fmt: skip
    from tinyfl import show
    from tinyfl.simulation import simulate

    def work(progress: "Callable[[Progress], None]", on_event: "Callable[[Event], None]") -> Any:
        return simulate(
            config=config, resume=resume, out=out, threads=threads, lanes=lanes, progress=progress, on_event=on_event, **options
        )

    finished = show.with_progress(work)
    if json:
        typer.echo(jsonlib.dumps(finished.result))
    else:
        show.run(finished.result)


def _fleet(
    devices: int | None, board: str | None, engine: str | None, toolchain: str | None, port: list[str] | None
) -> list[dict[str, Any]] | None:
    """The fleet that options describe: ``devices`` boards of one kind, or the boards at some ports; None: another."""
    if board and port:
        raise ConfigError("a fleet of --board and --port together is for a file: write both under [[fleet]] (docs/fleets.md).")
    if port:
        return [{"ports": port}]
    if board:
        chosen = {"engine": engine, "toolchain": toolchain, "count": devices}
        return [{"board": board, **{key: value for key, value in chosen.items() if value is not None}}]
    if engine or toolchain:
        raise ConfigError("--engine and --toolchain are for emulated boards: give --board NAME too.")
    return None


@app.command()
def adapt(
    run: Annotated[Path, typer.Argument(help="A finished run's directory, or its initialisation.npz.")],
    data: Annotated[Path, typer.Option(help="The new device's samples: an .npz file with x and y.")],
    mode: Annotated[str, typer.Option(help="batch (full-batch steps) or stream (passes, a sample at a time).")] = "batch",
    steps: Annotated[int, typer.Option(min=0, max=1_000_000, help="Adaptation steps.")] = 10,
    shots: Annotated[int | None, typer.Option(help="Learn from the first SHOTS rows, measure on the rest.")] = None,
    adapt_lr: Annotated[float | None, typer.Option(help="Rate. Default: the run's own choice.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the adapted weights here (.npz).")] = None,
    json: Json = False,
) -> None:
    """Adapt a saved initialisation to one new device's data."""
    from tinyfl import show
    from tinyfl.adaptation import adapt as run_adaptation

    result = run_adaptation(run, data, mode=mode, steps=steps, shots=shots, adapt_lr=adapt_lr, out=out)
    if json:
        typer.echo(jsonlib.dumps(result))
    else:
        show.adaptation(result)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs' directories.")],
    out: Annotated[Path | None, typer.Option(help="Where to write a comparison. Default: comparison.html.")] = None,
    json: Json = False,
) -> None:
    """Write one run's page anew, or several runs side by side in one table and plot."""
    from tinyfl import report as pages

    if len(runs) == 1 and out is not None:
        raise ConfigError("one run's page is written into its own directory: leave --out out, or name several runs.")
    path = pages.rebuild(runs[0]) if len(runs) == 1 else pages.compare(runs, out or Path("comparison.html"))
    typer.echo(jsonlib.dumps({"report": str(path)}) if json else str(path))


@app.command()
def build(
    board: Annotated[str, typer.Option(help="A board's name, or all.")],
    toolchain: Annotated[Toolchain, typer.Option(help="zig (from tinyfl[firmware]) or gcc (arm-none-eabi-gcc).")] = "zig",
    source: Annotated[list[Path] | None, typer.Option(help="A C file with sources of samples; may repeat.")] = None,
    out: Annotated[Path, typer.Option(help="Where to build, a folder for each board.")] = Path("build/firmware"),
    json: Json = False,
) -> None:
    """Build a board's firmware, and show what it takes of flash and RAM."""
    from tinyfl import boards, show
    from tinyfl import build as builder

    chosen = boards.names() if board == "all" else [board]
    made = [builder.build(boards.load(name), out / name, toolchain=toolchain, sources=source or ()) for name in chosen]
    if json:
        typer.echo(jsonlib.dumps({"firmware": [firmware.summary() for firmware in made]}))
    else:
        show.firmware(made)


@app.command()
def plan(
    model: Annotated[
        str, typer.Argument(help="A run, a .keras, .h5, .npz or .tflite file, conv-omniglot, or a network's name.")
    ],
    board: Annotated[str, typer.Option(help="A board's name, or all.")] = "all",
    shape: Annotated[str | None, typer.Option(help="For a network's name: its input, such as 28x28x1.")] = None,
    outputs: Annotated[int, typer.Option(help="For a network's name: its outputs.")] = 0,
    freeze: Annotated[int, typer.Option(help="The first so many layers with weights do not learn.")] = 0,
    samples: Annotated[int, typer.Option(help="Samples of a round.")] = 32,
    batch: Annotated[int, typer.Option(help="Samples an inner step.")] = 1,
    toolchain: Annotated[Toolchain, typer.Option(help="zig (from tinyfl[firmware]) or gcc (arm-none-eabi-gcc).")] = "zig",
    json: Json = False,
) -> None:
    """What a model costs on a board, before anything is flashed: RAM, flash, instructions, seconds and millijoules."""
    from tinyfl import costs, show
    from tinyfl.models import load_model, read_shape

    made = load_model(model, read_shape(shape) if shape else None, outputs)
    found = costs.on_boards(made, board, name=model, freeze=freeze, samples=samples, batch=batch, toolchain=toolchain)
    if json:
        typer.echo(jsonlib.dumps({"costs": [cost.as_json() for cost in found]}))
    else:
        show.costs(found)
    costs.demand_fit(made, found, freeze=freeze, batch=batch)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run's directory, or an .npz file of weights.")],
    int8: Annotated[bool, typer.Option("--int8", help="Only int8. Bare: both.")] = False,
    float32: Annotated[bool, typer.Option("--float", help="Only float32. Bare: both.")] = False,
    adapted: Annotated[
        int | None, typer.Option(metavar="DEVICE", help="The weights to which this test device, from 0, adapts.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The task's file, if not where the run had it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files. Default: exported, in the run's directory.")] = None,
    json: Json = False,
) -> None:
    """Write a trained network as TFLite files and C arrays, with a model card of what they reach."""
    from tinyfl import show
    from tinyfl.export import model

    kinds = model.KINDS if int8 == float32 else ("int8",) if int8 else ("float32",)
    result = show.with_bar(
        "measuring", lambda tick: model.export(run, kinds=kinds, adapted=adapted, data=data, out=out, progress=tick)
    )
    if json:
        typer.echo(jsonlib.dumps(result))
    else:
        show.exported(result)


@app.command()
def infer(
    model: Annotated[Path, typer.Argument(help="An int8 .tflite file.")],
    input: Annotated[Path | None, typer.Option(help="A batch of inputs (.npy): raw int8, or float32 to be quantised.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the raw outputs go (.npy).")] = None,
    on: Annotated[str, typer.Option(help="native, emulated:BOARD, or port:PORT.")] = "native",
    task: Annotated[
        str | None, typer.Option(help="Measure the accuracy on test devices of this task, or of this finished run.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The task's .npz file.")] = None,
    device: Annotated[int | None, typer.Option(help="On this test device of the run, as export --adapted numbers it.")] = None,
    toolchain: Annotated[Toolchain, typer.Option(help="zig (from tinyfl[firmware]) or gcc (arm-none-eabi-gcc).")] = "zig",
    json: Json = False,
) -> None:
    """Run an int8 model over a batch or a task: here, on an emulated board, or on a board on a port."""
    from tinyfl import show
    from tinyfl.infer import infer as run_inference

    result = run_inference(model, input=input, output=output, on=on, task=task, data=data, device=device, toolchain=toolchain)
    if json:
        typer.echo(jsonlib.dumps(result))
    else:
        show.inference(result)


@app.command()
def emulate(
    board: Annotated[str, typer.Option(help="A board's name.")],
    count: Annotated[int, typer.Option(help="How many.")] = 1,
    engine: Annotated[str, typer.Option(help="unicorn, qemu or process. Default: unicorn; process for posix.")] = "",
    link: Annotated[str, typer.Option(help="pty or tcp.")] = "pty",
    toolchain: Annotated[Toolchain, typer.Option(help="zig (from tinyfl[firmware]) or gcc (arm-none-eabi-gcc).")] = "zig",
    first: Annotated[int, typer.Option(help="Id of the first board; the others count on from it.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Where to build. Default: the user's cache.")] = None,
    json: Json = False,
) -> None:
    """Run emulated boards with the firmware that is flashed, each on a pty or TCP port of its own, until Ctrl-C."""
    from tinyfl import emulation, show

    with emulation.emulate(board, count, engine=engine, link=link, toolchain=toolchain, first=first, out=out) as running:
        ended = emulation.ended_by_signal()  # before anyone is told that the boards are up, and may end them
        if json:
            typer.echo(jsonlib.dumps({"boards": [asdict(each) for each in running]}))
        else:
            show.emulated(running)
        ended.wait()


def main() -> None:
    """Runs the command line; a TinyflError becomes its message on stderr and its exit code."""
    try:
        app(prog_name="tinyfl")
    except TinyflError as error:
        typer.echo(f"tinyfl: {error}", err=True)
        sys.exit(error.exit_code)
    except MemoryError as error:
        typer.echo(f"tinyfl: out of memory ({error}). Give a smaller --cohort, --samples, --tasks or --network.", err=True)
        sys.exit(TinyflError.exit_code)


if __name__ == "__main__":
    main()
