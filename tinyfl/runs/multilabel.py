"""Scores of answers in which each of several labels is a yes or a no.

As FLAIR's benchmark has them (arXiv:2207.08869; flair_metrics.py of apple/ml-flair): macro is the mean over labels, where a
label that no sample has counts 0; micro takes the labels of all samples as one. Average precision is exact, as in scikit-learn,
or from 200 thresholds, as in FLAIR. FLAIR's macro F1 is the harmonic mean of macro precision and macro recall; scikit-learn's
is the mean of the labels' F1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F32, F64, I32

Truths = NDArray[np.bool_]

THRESHOLDS = np.r_[-1e-7, np.arange(1, 199) / 199, 1 + 1e-7]
"""FLAIR's and Keras's 200, evenly spaced; an answer is yes above a threshold, and the ends lie beyond all probabilities."""

GROUPS = 20
"""Number of groups of devices that the interval's jackknife leaves out in turn."""


@dataclass(frozen=True)
class LabelScores:
    """The scores of all answers together. ``macro_ap_ci95`` is the half-width of a 95 % interval over devices; ``macro_ap_200``
    and ``micro_ap_200`` are from 200 thresholds. Precision, recall and F1 are those of answers above a probability of 0.5.
    ``labels_seen`` is the number of labels that any of the ``answered`` samples has."""

    macro_ap: float
    macro_ap_ci95: float | None
    micro_ap: float
    macro_ap_200: float
    micro_ap_200: float
    macro_precision: float
    macro_recall: float
    macro_f1_flair: float
    macro_f1_sklearn: float
    micro_precision: float
    micro_recall: float
    micro_f1: float
    labels_seen: int
    answered: int


def label_scores(outputs: F32, truth: Truths, device: I32) -> LabelScores:
    """The scores of ``outputs``, logits (samples, labels), for the ``truth`` (samples, labels), on ``device`` (samples,)."""
    macro, width = _macro(outputs, truth, device)
    precision, recall = _precision_and_recall(outputs > 0, truth)
    of_each = _share(2 * precision * recall, precision + recall)
    flat, true = outputs.reshape(-1, 1), truth.reshape(-1, 1)
    micro_precision, micro_recall = (float(each[0]) for each in _precision_and_recall(flat > 0, true))
    macro_precision, macro_recall = float(precision.mean()), float(recall.mean())
    return LabelScores(
        macro_ap=macro,
        macro_ap_ci95=width,
        micro_ap=float(average_precision(flat[:, 0], true[:, 0])[0]),
        macro_ap_200=float(binned_average_precision(outputs, truth).mean()),
        micro_ap_200=float(binned_average_precision(flat, true)[0]),
        macro_precision=macro_precision,
        macro_recall=macro_recall,
        macro_f1_flair=_harmonic(macro_precision, macro_recall),
        macro_f1_sklearn=float(of_each.mean()),
        micro_precision=micro_precision,
        micro_recall=micro_recall,
        micro_f1=_harmonic(micro_precision, micro_recall),
        labels_seen=int(truth.any(axis=0).sum()),
        answered=len(truth),
    )


def average_precision(outputs: F32, truth: Truths, weights: F64 | None = None) -> F64:
    """The sum over the outputs, from the largest down, of precision times the gain in recall, as scikit-learn's
    ``average_precision_score``: (1,), or (k,) for ``weights`` (k, samples) of the samples. 0 if nothing is true.

    outputs and truth (samples,). Samples of equal output come together.
    """
    if not truth.any():
        return np.zeros(1 if weights is None else len(weights))
    order = np.argsort(-outputs, kind="stable")
    ranked = outputs[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    of_equals = np.repeat(last, np.diff(last, prepend=-1))
    counted = np.ones((1, len(ranked))) if weights is None else weights[:, order]
    right = counted * truth[order]
    precision = _share(right.cumsum(axis=1)[:, of_equals], counted.cumsum(axis=1)[:, of_equals])
    found: F64 = np.minimum(_share((right * precision).sum(axis=1), right.sum(axis=1)), 1.0)
    return found


def binned_average_precision(outputs: F32, truth: Truths) -> F64:
    """FLAIR's average precision of each label: the sum over THRESHOLDS of precision times the recall that the next one loses,
    (labels,). A precision or recall of nothing is 0.

    outputs, logits, and truth (samples, labels).
    """
    labels = truth.shape[1]
    passed = np.searchsorted(THRESHOLDS, 0.5 * (1 + np.tanh(outputs.astype(np.float64) / 2)))

    def above(chosen: Truths) -> F64:
        """How many chosen samples lie above each threshold, (thresholds, labels)."""
        at = (passed * labels + np.arange(labels))[chosen]
        counts = np.bincount(at, minlength=(len(THRESHOLDS) + 1) * labels).reshape(-1, labels)
        return counts[:0:-1].cumsum(axis=0)[::-1].astype(np.float64)

    right = above(truth)
    precision, recall = _share(right, right + above(~truth)), _share(right, truth.sum(axis=0))
    found: F64 = np.minimum(((recall[:-1] - recall[1:]) * precision[:-1]).sum(axis=0), 1.0)
    return found


def first_of_each(rows: I32) -> Truths:
    """Which of each episode's ``rows`` (episodes, samples) come for the first time in it: a device with few samples repeats
    them."""
    order = np.argsort(rows, axis=1, kind="stable")
    ranked = np.take_along_axis(rows, order, axis=1)
    new = np.diff(ranked, axis=1, prepend=ranked[:, :1] - 1) != 0
    first = np.empty(rows.shape, bool)
    np.put_along_axis(first, order, new, axis=1)
    return first


def _macro(outputs: F32, truth: Truths, device: I32) -> tuple[float, float | None]:
    """The mean of the labels' average precision, and the half-width of its interval: a jackknife over groups of devices (Efron
    and Tibshirani 1993, chapter 11), in which a label that only the group left out has stays as it is. None for a single
    device."""
    numbers = np.unique(device, return_inverse=True)[1]
    groups = min(GROUPS, int(numbers.max()) + 1)
    kept = numbers % groups != np.arange(groups)[:, None]
    weights = np.concatenate([np.ones((1, len(numbers))), kept])
    found = np.array([average_precision(outputs[:, j], truth[:, j], weights) for j in range(truth.shape[1])])
    every, *without = np.where(truth.T @ weights.T > 0, found, found[:, :1]).mean(axis=0)
    if groups < 2:
        return float(every), None
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(every), float(stdtrit(groups - 1, 0.975) * np.sqrt((groups - 1) * np.var(without)))


def _precision_and_recall(answers: Truths, truth: Truths) -> tuple[F64, F64]:
    right = (answers & truth).sum(axis=0)
    return _share(right, answers.sum(axis=0)), _share(right, truth.sum(axis=0))


def _harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _share(part: NDArray[Any], whole: NDArray[Any]) -> F64:
    """``part`` / ``whole``; 0 of nothing."""
    part, whole = np.broadcast_arrays(part, whole)
    share: F64 = np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
    return share
