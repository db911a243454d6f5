"""Class means on a board, for the verbs adapt and infer."""

from pathlib import Path
from typing import Any

import numpy as np

from tinyfl.building.toolchains import Toolchain
from tinyfl.devices import classes
from tinyfl.errors import ConfigError
from tinyfl.export.infer import write_array
from tinyfl.fleets.emulation import board_at
from tinyfl.runs.adaptation import Initialisation, new_device
from tinyfl.system.files import read_array
from tinyfl.tasks.augmented import shots_of_means


def adapt_on(on: str, run: Path, data: Path, shots: int | None) -> dict[str, Any]:
    """Enrols the first ``shots`` rows of ``data`` on a board, and classifies the others there: the fields of an adaptation's
    result that the board gives, or has beyond it. A board at a port keeps its classes, if it has a store."""
    start, support, query, names = new_device(run, data, shots)
    support = shots_of_means(support, start.network.prepared, start.network.shape)
    assert support.labels is not None and query.labels is not None
    with board_at(on) as opener:
        found = classes.enrol(
            start.network, start.theta, support.inputs()[0], support.labels[0], list(map(str, names)), query.inputs()[0],
            opener, keep=on.startswith("port:"),
        )  # fmt: skip
    return {"on": on, "accuracy_on_board": float((found.numbers == query.labels[0]).mean()), "kept": found.kept}


def infer_on(on: str, run: Path, x: Path, y: Path, toolchain: Toolchain) -> dict[str, Any]:
    """Classifies the rows of ``x`` (.npy), as they are in the run's data, by the classes on a board; writes their numbers to
    ``y`` (.npy), int32 (rows,), -1 for none."""
    start = Initialisation.load(run)
    if not start.network.embeds:
        raise ConfigError(f"{run} is no model with class means. Give an int8 .tflite file, or a run of protonet.")
    if not on.startswith("port:"):
        raise ConfigError("classes are on a board: give --on port:PORT, after tinyfl adapt RUN --data FILE --on port:PORT.")
    rows = read_array(x).astype(np.float32)
    if rows.reshape(len(rows), -1).shape[1] != start.network.inputs:
        raise ConfigError(f"{x} is {rows.shape}: give {start.network.inputs} inputs a row.")
    with board_at(on, toolchain=toolchain) as opener:
        numbers, names = classes.classify(start.standard.apply(rows.reshape(len(rows), -1)), opener)
    write_array(y, numbers)
    result = {"model": str(run), "on": on, "bytes": 4 * start.theta.size, "arena_bytes": start.network.arena_bytes()}
    return result | {"inputs": len(rows), "output": str(y), "dtype": "int32", "shape": [], "names": names}
