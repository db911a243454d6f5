"""Verbs of models: plan, export, infer."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from tinyfl.cli.common import Compiler, Json, app


@app.command()
def plan(
    model: Annotated[
        str, typer.Argument(help="A run, a .keras, .h5, .npz or .tflite file, conv-omniglot, or a network's name.")
    ],
    board: Annotated[str, typer.Option(help="Boards' names or manifests' paths, with commas between, or all.")] = "all",
    shape: Annotated[str | None, typer.Option(help="For a network's name: its input, such as 28x28x1.")] = None,
    outputs: Annotated[int, typer.Option(help="For a network's name: its outputs.")] = 0,
    freeze: Annotated[int, typer.Option(help="The first N layers with weights do not learn.")] = 0,
    samples: Annotated[int | None, typer.Option(help="Samples in each round. Default: 32, or the algorithm's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples in each inner step. Default: 1, or the algorithm's.")] = None,
    algorithm: Annotated[
        str | None, typer.Option(metavar="NAME", help="The algorithm that learns on the board, or MODULE:CLASS.")
    ] = None,
    up: Annotated[str, typer.Option(metavar="CODEC", help="How results go up, as in simulate.")] = "fp32",
    feedback: Annotated[bool, typer.Option("--feedback", help="With --up: devices keep what the codec loses.")] = False,
    down: Annotated[str, typer.Option(metavar="CODEC", help="How theta goes down, as in simulate.")] = "fp32",
    delta: Annotated[bool, typer.Option("--delta", help="With --down: only the change of theta goes down.")] = False,
    source: Annotated[list[Path] | None, typer.Option(help="Count this C file of sources too; may repeat.")] = None,
    toolchain: Compiler = "zig",
    json: Json = False,
) -> None:
    """Show a model's cost on boards before flashing: RAM, flash, instructions, seconds and millijoules."""
    from tinyfl import costs
    from tinyfl.building import boards
    from tinyfl.cli.show import runs as show
    from tinyfl.costs.models import inner_loop, load_model, read_shape, way_down

    boards.select(board)  # a board that is none, before what its network lacks
    made = load_model(model, read_shape(shape) if shape else None, outputs, algorithm)
    inner = inner_loop(made, algorithm, samples, batch, up, feedback)
    way = way_down(made, down, delta)
    found = costs.on_boards(
        made, board, name=model, freeze=freeze, inner=inner, down=way, toolchain=toolchain, sources=source or ()
    )
    if json:
        typer.echo(jsonlib.dumps({"costs": [cost.as_json() for cost in found]}))
    else:
        show.costs(found)
    costs.demand_fit(made, found, freeze=freeze, inner=inner)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run's directory, or the file of tinyfl adapt --out.")],
    int8: Annotated[bool, typer.Option("--int8", help="Only int8. Default: both.")] = False,
    float32: Annotated[bool, typer.Option("--float", help="Only float32. Default: both.")] = False,
    adapted: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="Adapt the weights to this test device first: its number or name."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The task's file, if it has moved since the run.")] = None,
    task: Annotated[str | None, typer.Option(metavar="MODULE:CLASS", help="The run's task, if it is code of your own.")] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(metavar="MODULE:CLASS", help="The run's algorithm, if it is code of your own that says how to adapt."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files. Default: exported, in the run's directory.")] = None,
    json: Json = False,
) -> None:
    """Write a trained network as TFLite files and C arrays, with a model card of their accuracy."""
    from tinyfl.cli.show import runs as show
    from tinyfl.export import model

    kinds = model.KINDS if int8 == float32 else ("int8",) if int8 else ("float32",)
    result = show.with_bar(
        "measuring",
        lambda tick: model.export(
            run, kinds=kinds, adapted=adapted, data=data, task=task, algorithm=algorithm, out=out, progress=tick
        ),
    )
    if json:
        typer.echo(jsonlib.dumps(result))
    else:
        show.exported(result)


@app.command()
def infer(
    model: Annotated[Path, typer.Argument(help="An int8 .tflite file, or a run whose classes a board has.")],
    input: Annotated[Path | None, typer.Option(help="Inputs (.npy): raw int8, or float32 to be quantised.")] = None,
    output: Annotated[Path | None, typer.Option(help="File for the raw outputs (.npy).")] = None,
    on: Annotated[str, typer.Option(help="native (this machine), emulated:BOARD or port:PORT.")] = "native",
    task: Annotated[
        str | None, typer.Option(help="Measure the accuracy on test devices of this task, or of this finished run.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The task's .npz file.")] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="Only this test device, as in export --adapted.")] = None,
    toolchain: Compiler = "zig",
    json: Json = False,
) -> None:
    """Run an int8 model on inputs from a file or a task: on this machine, an emulated board, or a board at a port."""
    from tinyfl.cli.show import runs as show
    from tinyfl.export.infer import infer as run_inference

    if (model.is_dir() or model.suffix == ".npz") and input is not None and output is not None:
        from tinyfl.cli.classes import infer_on

        result = infer_on(on, model, input, output, toolchain)
    else:
        result = run_inference(
            model, input=input, output=output, on=on, task=task, data=data, device=device, toolchain=toolchain
        )
    if json:
        typer.echo(jsonlib.dumps(result))
    else:
        show.inference(result)
