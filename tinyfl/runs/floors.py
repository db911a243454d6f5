"""The floor that a learned initialisation has to beat: what methods without network or training reach on the same samples."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.algorithms import nearest_mean
from tinyfl.core import F32, TableSource
from tinyfl.networks import Network
from tinyfl.networks.layers import Loss
from tinyfl.runs.evaluation import finite, leads, mean_and_interval, parts_of, truth_of
from tinyfl.runs.multilabel import first_of_each, label_scores
from tinyfl.tasks import Episodes, Task

MAJORITY, NEAREST_MEAN, SUPPORT_MEAN = "majority", "nearest class mean", "support mean"


def floor(task: Task, network: Network, *, shots: tuple[int, ...], tasks: int) -> list[dict[str, Any]]:
    """The results of methods without a network on the same episodes, a row for each number of shots and method: the majority
    class of the support set and the nearest class mean on its raw inputs, or the mean of its values."""
    rows = []
    for shot in shots:
        episodes = task.episodes("test", tasks, shot)
        for method, what, values in trivial(task, network, episodes):
            mean, ci95, devices = mean_and_interval(values, episodes.device)
            none = dict.fromkeys(("loss", "loss_ci95", "accuracy", "accuracy_ci95"))
            row = {"shots": shot, "method": method, **none, what: mean, f"{what}_ci95": ci95, "tasks": devices}
            rows.append(finite(row | _of_labels(network, episodes)))
    return rows


def _of_labels(network: Network, episodes: Episodes) -> dict[str, Any]:
    """The scores of the shares of labels in the support set, where each of several labels is a yes or a no."""
    if network.loss is not Loss.sigmoid_cross_entropy:
        return {}
    odds = np.log(1 / _shares(episodes.support) - 1)
    answers = np.repeat(-odds, first_of_each(episodes.query.rows).sum(axis=1), axis=0)
    return asdict(label_scores(answers.astype(np.float32), *truth_of(episodes)))


def _shares(support: TableSource) -> NDArray[np.float64]:
    """How likely each label is, by a support set alone: (episodes, labels), by Laplace's rule of succession."""
    assert support.targets is not None
    return np.stack([(support.targets[rows].sum(axis=0, dtype=np.float64) + 1) / (len(rows) + 2) for rows in support.rows])


def trivial(task: Task, network: Network, episodes: Episodes) -> Iterator[tuple[str, str, NDArray[np.floating[Any]]]]:
    """Each trivial method, its metric, and its values (episodes,)."""
    support, query = episodes.support, episodes.query
    if network.classifies:
        assert support.labels is not None
        assert query.labels is not None
        votes = np.eye(network.outputs, dtype=np.int64)[support.labels].sum(axis=1)
        yield MAJORITY, "accuracy", (query.labels == votes.argmax(axis=1)[:, None]).mean(axis=1)
        yield NEAREST_MEAN, "accuracy", _nearest_mean(episodes, network.outputs)
    elif network.loss is Loss.mean_squared_error:
        assert support.targets is not None
        assert query.targets is not None
        support_mean = support.targets[support.rows].mean(axis=1, keepdims=True, dtype=np.float64)
        errors = query.targets[query.rows] - support_mean
        if task.standardisation is not None:
            errors *= task.standardisation.target_scale
        yield SUPPORT_MEAN, "loss", (errors**2).mean(axis=(1, 2))
    else:
        assert query.targets is not None
        shares = _shares(support)
        of_each = [query.targets[rows].mean(axis=0, dtype=np.float64) for rows in query.rows]
        yield SUPPORT_MEAN, "loss", -(of_each * np.log(shares) + (1 - np.array(of_each)) * np.log(1 - shares)).mean(axis=1)


def _nearest_mean(episodes: Episodes, classes: int) -> F32:
    """The accuracy of the nearest class mean (episodes,), some episodes at a time: their inputs are large."""
    shares = []
    for part in parts_of(episodes):
        support, query = part.support, part.query
        assert support.labels is not None
        assert query.labels is not None
        shares.append(nearest_mean.accuracy(support.inputs(), support.labels, query.inputs(), query.labels, classes))
    return np.concatenate(shares)


def worse_than_floor(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a result's floor that beat the leading row of its evaluation on as many shots."""
    leading = {row["shots"]: row for row in result["evaluation"] if leads(row)}

    def beats(floor: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
        if floor.get("macro_ap") is not None:
            return bool(floor["macro_ap"] > (row.get("macro_ap") or 0.0))
        if floor["accuracy"] is not None:
            return bool(floor["accuracy"] > row["accuracy"])
        return bool(row["loss"] is None or floor["loss"] < row["loss"])

    return [dict(floor) for floor in result["floor"] if beats(floor, leading[floor["shots"]])]
