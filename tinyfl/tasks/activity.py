"""What is a person doing? Ten seconds of a phone's accelerometer, six activities, 36 users: WISDM (Kwapisz, Weiss and Moore,
Activity Recognition using Cell Phone Accelerometers, SensorKDD 2010). A device is a user; ten are held out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.data import Reading, Table
from tinyfl.data.archives import arrays_of, contents
from tinyfl.data.arff import Arff
from tinyfl.errors import DataError
from tinyfl.tasks.published import Published
from tinyfl.tasks.standard import Standardisation

HELD_OUT = 10
"""Users that are held out, of at least twice as many."""

NEITHER = ("unique_id", "user", "class")
"""Attributes that are no inputs, in lower case."""


class Activity(Published):
    """The task of the file ``data``: the set's archive as it is downloaded, its transformed ARFF file, or the arrays of
    ``arrays``. With ``drop_small``, users with no more than ``shots`` windows are not evaluated; with ``balance``, a user's
    stream has the activities equally often.

    Raises DataError for another file.
    """

    name = "activity"

    def __init__(
        self,
        data: Path,
        seed: int,
        standard: Standardisation | None = None,
        drop_small: bool = False,
        balance: bool = False,
        shots: int = 0,
    ) -> None:
        held = arrays_of(data, ("X", "y", "user"), ("activities", "columns"), arrays)
        y, users = held["y"], np.unique(held["user"])
        if len(users) < 2 * HELD_OUT:
            raise DataError(f"{data} has {len(users)} users, and {HELD_OUT} are held out: at least {2 * HELD_OUT} are needed.")
        names = held.get("activities", np.empty(0))
        if names.size and y.dtype.kind in "iu" and y.ndim == 1 and 0 <= y.min() <= y.max() < names.size:
            y = names[y]
        columns = held.get("columns", np.empty(0, "U1"))
        inputs = tuple(columns.tolist()) if columns.shape == held["X"].shape[1:] else ()
        # NumPy's generator, as in the recipe that used to make these splits (docs/tasks.md).
        split = np.random.default_rng(seed).choice(users, HELD_OUT, replace=False)
        table = Table(str(data), held["X"], y, held["user"], split, names=inputs)
        super().__init__(table, seed, standard, Reading(drop_small=drop_small, balance=balance, shots=shots))


def arrays(path: Path) -> Mapping[str, NDArray[Any]]:
    """The windows in WISDM_ar_latest.tar.gz, in its folder, or in its transformed ARFF file: ``X`` float32 (windows, inputs),
    NaN where the source has a question mark; ``y`` (windows,), an index into ``activities``; ``user`` (windows,); and
    ``columns``, the names of the inputs.

    Raises DataError for anything else.
    """
    found = list(contents(path, ".arff"))
    if len(found) != 1:
        raise DataError(f"{path} has {len(found)} ARFF files, and WISDM has one, WISDM_ar_v1.1_transformed.arff.")
    name, text = found[0]
    table = Arff.read(str(path), text.decode("utf-8", "replace"))
    spelt = {each.lower(): each for each in table.nominal}
    labels, user = (table.texts(spelt.get(each, each)) for each in ("class", "user"))
    inputs = [each for each in table.nominal if each.lower() not in NEITHER]
    activities = [each for each in table.nominal[spelt["class"]] if each in set(labels)] or sorted(set(labels))
    y = [activities.index(each) if each in activities else -1 for each in labels.tolist()]
    if min(y) < 0 or not all(each.isdigit() and len(each) < 9 for each in user.tolist()):
        raise DataError(f"{path}: {name} has a class that it does not declare, or a user that is no number.")
    return {
        "X": np.stack([table.numbers(each) for each in inputs], axis=1).astype(np.float32),
        "y": np.array(y, np.uint8),
        "user": user.astype(np.int64),
        "activities": np.array(activities),
        "columns": np.array(inputs),
    }
