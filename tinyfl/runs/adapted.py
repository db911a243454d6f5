"""Adaptation of a network to devices: by gradient steps or, of a network that gives embeddings, by class means."""

from collections.abc import Callable, Sequence

import numpy as np

from tinyfl import core
from tinyfl.core import F32, FASTEST, Engine, TableSource
from tinyfl.networks import Network
from tinyfl.tasks.augmented import shots_of_means

AT_ONCE = 1 << 24
"""Numbers of embeddings in memory at once, but those of one device at least."""

Embed = Callable[[slice], F32]
"""The embeddings of some devices' samples, float32 (devices, samples, size)."""


def adapted(
    network: Network,
    theta: F32,
    support: TableSource,
    query: TableSource,
    steps: Sequence[int],
    loop: bytes,
    *,
    outputs: bool = False,
    engine: Engine = FASTEST,
) -> core.Adapted:
    """The results of ``core.adapt`` or, of a network that gives embeddings, those of the class means of the support sets: no
    steps, so the same at each of ``steps``, and outputs that are 1 for the nearest class and 0 for the others."""
    if not network.embeds:
        return core.adapt(network.plan, theta, support, query, steps, loop, outputs=outputs, engine=engine)
    assert query.labels is not None
    how = network.prepared
    support = shots_of_means(support, how, network.shape)
    assert support.labels is not None
    embed = [_embedder(network, theta, source, engine) for source in (support, query)]
    places, found = 1 + max(int(support.labels.max()), int(query.labels.max())), []
    at_once = max(1, AT_ONCE // ((support.samples + query.samples) * network.outputs))
    for first in range(0, len(support.rows), at_once):
        part = slice(first, first + at_once)
        shots, asked = (each(part) for each in embed)
        found.append(
            core.class_means(
                shots, support.labels[part], asked, query.labels[part],
                places=places, centre=how.centre, normalised=how.normalised,
            )
        )  # fmt: skip
    loss, accuracy, nearest = (
        np.concatenate([getattr(each, name) for each in found]) for name in ("loss", "accuracy", "nearest")
    )
    answers = (nearest[..., None] == np.arange(network.outputs)).astype(np.float32) if outputs else None

    def at_each(values: F32) -> F32:
        return np.repeat(values[None], len(steps), axis=0)

    return core.Adapted(at_each(loss), at_each(accuracy), None if answers is None else at_each(answers), None)


def _embedder(network: Network, theta: F32, source: TableSource, engine: Engine) -> Embed:
    """Of ``source``. A row of the table that many devices have is embedded once, if their gains are 1."""
    if source.gain is not None and (source.gain != 1).any():
        gains = source.gain

        def one_by_one(part: slice) -> F32:
            rows, gain = np.ascontiguousarray(source.rows[part]), np.ascontiguousarray(gains[part])
            of_part = TableSource(source.table, rows, labels=np.zeros_like(rows), gain=gain)
            return core.embeddings(network.plan, theta, of_part, engine=engine)

        return one_by_one
    rows, at = np.unique(source.rows, return_inverse=True)
    once = TableSource(source.table, rows[None], labels=np.zeros_like(rows[None]))
    table, at = core.embeddings(network.plan, theta, once, engine=engine)[0], at.reshape(source.rows.shape)
    return lambda part: table[at[part]]
