"""What a saved network says of new samples, in the user's units and by the user's names."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyfl import core
from tinyfl.core import F32, TableSource
from tinyfl.data.arrays import checked_inputs, refuse_non_finite
from tinyfl.errors import ConfigError, DataError
from tinyfl.networks import Network
from tinyfl.networks.layers import Loss
from tinyfl.runs.adaptation import Initialisation


def predict(run: os.PathLike[str] | str, x: ArrayLike) -> NDArray[Any]:
    """The predictions of ``run``, a finished run or the file of ``adapt(..., out=FILE)``, for samples ``x`` (samples, ...), in
    the units and the order of the run's inputs: names of classes (samples,), values in their units (samples, outputs), or the
    probabilities of labels (samples, outputs).

    Raises ConfigError for a network that each device completes, by classes or a part of its own, DataError for other inputs.
    """
    start = Initialisation.load(Path(run))
    start.demand_whole(Path(run))
    network, standard = start.network, start.standard
    if network.embeds:
        raise ConfigError(f"{run} gives embeddings, and a device names classes by its own samples: tinyfl adapt measures one.")
    rows = checked_inputs("x", np.asarray(x), "mean" if standard.of_inputs else "refuse")
    if rows.shape[1] != network.inputs:
        raise DataError(
            f"x has {rows.shape[1]} inputs per row, and {run} takes {network.inputs}. Give those of the run's data."
        )
    table = standard.apply(rows)
    refuse_non_finite("x", "x, once standardised,", table, "Scale that input down")
    said = outputs_of(network, start.theta, table)
    if network.loss is Loss.mean_squared_error:
        return np.asarray(standard.target_mean + standard.target_scale * said)
    if network.loss is Loss.sigmoid_cross_entropy:
        return np.asarray(0.5 + 0.5 * np.tanh(said.astype(np.float64) / 2))  # the sigmoid, without overflow
    names = standard.classes if len(standard.classes) else np.arange(network.outputs)
    return np.asarray(names[said.argmax(axis=1)])


def outputs_of(network: Network, theta: F32, x: F32) -> F32:
    """The core's outputs (samples, outputs) for ``x`` (samples, ...), as the network takes them."""
    rows = np.arange(len(x), dtype=np.int32)[None]
    nothing = np.zeros((len(x), network.outputs), np.float32)
    source = TableSource(np.ascontiguousarray(x.reshape(len(x), -1)), rows, targets=nothing)
    said: F32 = core.embeddings(network.plan, theta, source)[0]
    return said
