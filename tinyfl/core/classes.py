"""Embeddings of many samples, and few-shot problems solved by the class means of embeddings (firmware/core/means.h)."""

import ctypes
from dataclasses import dataclass

import numpy as np

from tinyfl.core import binding
from tinyfl.core.arrays import F32, I32, address, check_array
from tinyfl.core.binding import library
from tinyfl.core.calls import Plan, Stop, check_code, interruptibly
from tinyfl.core.engine import FASTEST, Engine
from tinyfl.core.sources import TableSource


def embeddings(plan: Plan, theta: F32, source: TableSource, *, engine: Engine = FASTEST) -> F32:
    """The network's outputs for all samples of ``source``, float32 (devices, samples, outputs); NaN where a value on the way
    is not finite or too large.

    Raises ValueError if arrays do not fit the plan.
    """
    check_array(theta, np.float32, (plan.weights,), "theta")
    source.check(plan.inputs, plan.outputs, len(source.rows))
    gain = None if source.gain is None else np.repeat(source.gain, source.samples)
    each = TableSource(source.table, np.ascontiguousarray(source.rows.reshape(-1, 1)), gain=gain)
    outputs, stop = np.empty((*source.rows.shape, plan.outputs), np.float32), Stop()
    job = binding.Embedding(
        plan.pointer, address(theta), each.structure(), len(each.rows), address(outputs), stop.pointer
    )  # fmt: skip
    lanes, threads = engine.resolved()
    check_code(interruptibly(lambda: library().tinyfl_native_embed(ctypes.byref(job), lanes, threads), stop))
    return outputs


@dataclass(frozen=True)
class Classified:
    """Each problem's loss and accuracy, float32 (problems,), and the nearest class of each query, int32 (problems, queries),
    -1 for none. The loss is the mean, over the queries whose class has support, of the cross-entropy of the softmax over minus
    the squared distances (Snell et al. 2017, arXiv:1703.05175, equation 2).

    If requested, the mean of each class, float32 (problems, places, size), 0 without samples, and the number of those, int32
    (problems, places)."""

    loss: F32
    accuracy: F32
    nearest: I32
    means: F32 | None
    counts: I32 | None


def class_means(
    support: F32,
    support_labels: I32,
    query: F32,
    query_labels: I32,
    *,
    places: int,
    centre: F32 | None = None,
    normalised: bool = False,
    means: bool = False,
) -> Classified:
    """Assigns each query to the class with the nearest mean of support embeddings.

    support (problems, shots, size) and query (problems, queries, size) are embeddings, float32; their labels, int32 (problems,
    shots) and (problems, queries), are below ``places``. ``centre`` float32 (size,) is first subtracted from each embedding,
    which is then scaled to norm 1 if ``normalised``. ``means`` requests the means themselves. Raises ValueError if arrays do
    not fit one another.
    """
    problems, shots, size = support.shape
    queries = query.shape[1]
    check_array(support, np.float32, (problems, shots, size), "support")
    check_array(query, np.float32, (problems, queries, size), "query")
    check_array(support_labels, np.int32, (problems, shots), "support_labels")
    check_array(query_labels, np.int32, (problems, queries), "query_labels")
    if centre is not None:
        check_array(centre, np.float32, (size,), "centre")
    result = Classified(
        np.zeros(problems, np.float32),
        np.zeros(problems, np.float32),
        np.zeros((problems, queries), np.int32),
        np.zeros((problems, places, size), np.float32) if means else None,
        np.zeros((problems, places), np.int32) if means else None,
    )
    job = binding.Problems(
        size, places, address(centre), normalised, problems, shots, queries,
        address(support), address(query), address(support_labels), address(query_labels),
        address(result.loss), address(result.accuracy), address(result.nearest),
        address(result.means), address(result.counts),
    )  # fmt: skip
    check_code(library().tinyfl_native_classify(ctypes.byref(job)))
    return result
