"""Verbs of learning: run and simulate, adapt, report."""

import json as jsonlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyfl.cli.common import Json, app, say
from tinyfl.errors import ConfigError

if TYPE_CHECKING:
    from tinyfl.fleet import Event
    from tinyfl.flower.rounds import Progress


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
    standardise: Annotated[
        bool | None,
        typer.Option(
            "--standardise/--no-standardise",
            help="npz: inputs and values as deviations from the training devices' mean. Default: unless weights are a file's.",
        ),
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="npz: y holds classes, or values to predict. Default: what it looks like.")
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
    robust: Annotated[
        str | None,
        typer.Option(help="An aggregator in the place of the mean: median, trimmed-mean or krum; with --nodes devices."),
    ] = None,
    tolerate: Annotated[float | None, typer.Option(help="With --robust: share of poisoned devices to withstand.")] = None,
    noise: Annotated[
        float | None, typer.Option(help="Privacy: noise on a round's sum, in units of --update-clip; with --nodes devices.")
    ] = None,
    update_clip: Annotated[float | None, typer.Option(help="Bound on the norm of a device's whole update; 0: none.")] = None,
    threads: Annotated[int, typer.Option(help="Threads; 0: all processors. Changes no result.")] = 0,
    lanes: Annotated[int, typer.Option(help="Devices in lockstep, 16, 8, 4 or 1; 0: the most. Changes no result.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run directory. Default: a free one in runs/.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this directory.")] = None,
    superlink: Annotated[str, typer.Option(help="Run on the federation of this SuperLink in Flower's configuration.")] = "",
    json: Json = False,
) -> None:
    options: dict[str, Any] = {
        "task": task, "data": str(data) if data else None, "standardise": standardise, "targets": targets,
        "algorithm": algorithm, "network": network, "freeze": freeze,
        "devices": devices, "cohort": cohort, "rounds": rounds, "samples": samples, "batch": batch,
        "inner_lr": inner_lr, "outer_step": outer_step, "clip": clip, "adapt_lr": adapt_lr,
        "shots": tuple(shots) if shots else None, "tasks": tasks, "seed": seed, "nodes": nodes,
        "robust": robust, "tolerate": tolerate, "noise": noise, "update_clip": update_clip,
        "minimum": minimum, "seconds": seconds, "fleet": _fleet(devices, board, engine, toolchain, port),
    }  # fmt: skip
    from tinyfl.cli.show import runs as show
    from tinyfl.simulation import simulate

    def work(progress: "Callable[[Progress], None]", on_event: "Callable[[Event], None]") -> Any:
        return simulate(
            config=config, resume=resume, out=out, threads=threads, lanes=lanes, progress=progress, on_event=on_event,
            on_note=show.note, **options,
        )  # fmt: skip

    if superlink:
        from tinyfl.deployment.submit import run_on

        result = run_on(superlink, config=config, resume=resume, out=out, options=options)
    else:
        result = show.with_progress(work).result
    if json:
        typer.echo(jsonlib.dumps(result))
    elif "evaluation" in result:
        show.run(result)
    else:
        say(f"{result['status']}; its directory is where the SuperLink runs: {result['run']}")


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
    from tinyfl.cli.show import runs as show
    from tinyfl.runs.adaptation import adapt as run_adaptation

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
    from tinyfl.report import page as pages

    if len(runs) == 1 and out is not None:
        raise ConfigError("one run's page is written into its own directory: leave --out out, or name several runs.")
    path = pages.rebuild(runs[0]) if len(runs) == 1 else pages.compare(runs, out or Path("comparison.html"))
    say(jsonlib.dumps({"report": str(path)}) if json else str(path))
