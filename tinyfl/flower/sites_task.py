"""The task of sites with data of their own, as the coordinator has it, and how a site measures its held-out devices."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from flwr.app import ConfigRecord
from numpy.typing import NDArray

from tinyfl.core import F32, U32
from tinyfl.data.arrays import shape_of
from tinyfl.errors import DataError
from tinyfl.errors.words import plain
from tinyfl.networks import Network
from tinyfl.networks.layers import Activation, Loss
from tinyfl.runs.elsewhere import Floor, Here, Measured, Trial, floor_here, measured_here
from tinyfl.runs.moments import Moments, Values
from tinyfl.tasks import SPLITS, Episodes, Split
from tinyfl.tasks.agreement import Agreement
from tinyfl.tasks.npz import Npz, drawing
from tinyfl.tasks.sites import Roll, Share
from tinyfl.tasks.standard import Standardisation

Case = Mapping[str, Any]
"""A measurement as plain data, for JSON: the ``split``, the numbers of held-out ``devices``, ``shots``, ``draws`` and
``queries`` (tinyfl.tasks.npz.Npz.share), and ``loops`` in hexadecimal, ``steps`` and ``race`` (tinyfl.runs.elsewhere.Trial). A
case without loops is the floor."""

Row = dict[str, Any]
"""One device's result: its name, mode, shots, steps, loss, and accuracy if the network classifies."""

METRICS = {name: name for name in ("loss", "accuracy", "mae")}

Asked = Callable[[Sequence["Site"], Sequence[Case], Network, F32 | None], list[Any]]
"""Asks sites to measure cases, and returns their answers."""


@dataclass(frozen=True)
class Site:
    """A site: its Flower node, its roll, its share, and its share as a record that goes along with each message."""

    node: int
    roll: Roll
    share: Share
    record: ConfigRecord

    @property
    def devices(self) -> U32:
        """The numbers of its devices that train."""
        return self.share.devices("train").astype(np.uint32)

    def holds_out(self, split: Split, devices: int) -> bool:
        """Whether some of the first ``devices`` that are held out for ``split`` are its own."""
        return bool((self.share.devices(split) < devices).any())


@dataclass
class SitesTask:
    """The task of ``sites``: it knows what they have agreed on, and nothing of their samples. ``here`` is the task of the
    coordinator's own held-out devices, and ``ask`` asks the sites. ``shared`` are the results of single devices that sites
    have sent."""

    agreed: Agreement
    standardisation: Standardisation
    sites: tuple[Site, ...]
    here: Npz | None
    ask: Asked
    shared: list[Row] = field(default_factory=list)
    name: str = field(default=Npz.name, init=False)
    activation: Activation = field(default=Activation.relu, init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return shape_of("the sites' data", np.empty((0, *self.agreed.shape)))

    @property
    def outputs(self) -> int:
        return len(self.agreed.classes) if self.agreed.targets == "classes" else int(np.prod(self.agreed.outputs))

    @property
    def loss(self) -> Loss:
        return Loss.softmax_cross_entropy if self.agreed.targets == "classes" else Loss.mean_squared_error

    @property
    def fleet_size(self) -> int | None:
        return len(self.agreed.members["train"])

    @property
    def training_samples(self) -> int:
        return int(self.agreed.counts[self.agreed.members["train"]].sum())

    @property
    def digest(self) -> str:
        """A hash of all sites' data."""
        return hashlib.sha256("".join(sorted(roll.digest for roll in self.agreed.rolls)).encode()).hexdigest()

    def stream(self, devices: U32, round: int, samples: int) -> Any:
        raise _away()

    def episodes(self, split: Split, count: int, shots: int) -> Episodes:
        raise _away()

    def demand(self, split: Split, count: int, shots: int) -> None:
        """Raises DataError if a held-out device of any site has too few samples for the shots."""
        self._case(split, count, shots)

    def _case(self, split: Split, count: int, shots: int) -> dict[str, Any]:
        agreed, held_out = self.agreed, self.agreed.members[split][:count]
        draws, queries = drawing("the data of all sites", split, agreed.devices, agreed.counts, held_out, count, shots)
        return {"split": split, "devices": len(held_out), "shots": shots, "draws": draws, "queries": queries}

    def measured(self, network: Network, theta: F32, trials: Sequence[Trial]) -> Sequence[Sequence[Measured]]:
        """The result of each loop of each of ``trials`` on the held-out devices of all sites."""
        cases = [
            {**self._case(trial.split, trial.count, trial.shots), "loops": [loop.hex() for loop in trial.loops],
                "steps": trial.steps, "race": trial.race, "mode": trial.mode}
            for trial in trials
        ]  # fmt: skip
        return [_added_measured(parts) for parts in self._parts(cases, network, theta)]

    def floor(self, network: Network, count: int, shots: Sequence[int]) -> Sequence[Sequence[Floor]]:
        """The results without a network on the test devices of all sites, for each of ``shots``."""
        cases = [self._case("test", count, shot) for shot in shots]
        return [_added_floor(parts) for parts in self._parts(cases, network, None)]

    def _parts(self, cases: Sequence[Case], network: Network, theta: F32 | None) -> list[list[Any]]:
        """For each case the answers of all that have some of its devices."""
        asked = [site for site in self.sites if any(site.holds_out(case["split"], case["devices"]) for case in cases)]
        answers = self.ask(asked, cases, network, theta)
        if self.here is not None:
            here = [answered(self.here, network, theta, case)[0] for case in cases]
            answers.append([read_answer(said, case, network) for said, case in zip(here, cases, strict=True)])
        return [[part for part in parts if part is not None] for parts in zip(*answers, strict=True)]


def _away() -> DataError:
    return DataError("The samples are at their sites.")


def answered(task: Npz, network: Network, theta: F32 | None, case: Case) -> tuple[Any, list[Row]]:
    """The answer to a case as plain data, sums over this table's devices, or None if it has none of the case's; and, of test
    devices, the results of each, which are not part of it.

    Raises DataError for a case that is none.
    """
    split, numbers = case["split"], [int(case[name]) for name in ("devices", "shots", "draws", "queries")]
    if split not in SPLITS:
        raise DataError(f"{plain(split, 40)} is nothing that devices are held out for.")
    names = task.held_out(split, numbers[0])
    if not len(names):
        return None, []
    episodes = task.share(split, *numbers)
    if "loops" not in case or theta is None:
        return [(method, what, found.to_json()) for method, what, found in floor_here(task, network, episodes)], []
    loops, steps = tuple(map(bytes.fromhex, case["loops"])), tuple(map(int, case["steps"]))
    trial = Trial(loops, steps, split, numbers[0], numbers[1], bool(case["race"]), plain(case["mode"], 40))
    results = measured_here(task, network, theta, episodes, trial)
    sums = [_written(loop.summed()) for loop in results]
    return sums, [] if trial.race or trial.split != "test" else _rows(trial, names, results)


def _written(loop: Measured) -> dict[str, Any]:
    curves = {metric: [each.to_json() for each in curve] for metric, curve in loop.curves.items()}
    return {**curves, "values": [each.to_json() for each in loop.values]}


def _rows(trial: Trial, names: NDArray[Any], results: Sequence[Here]) -> list[Row]:
    """The result of each device, after each number of steps."""
    return [
        {"device": name, "mode": trial.mode, "shots": trial.shots, "steps": step,
            **{metric: float(curve[k, i]) for metric, curve in loop.curves.items()}}
        for loop in results
        for i, name in enumerate(names.tolist())
        for k, step in enumerate(trial.steps)
    ]  # fmt: skip


def read_answer(said: Any, case: Case, network: Network) -> Any:
    """Reads the answer to ``case``: for each loop the Measured, or the Floor; None if the site has none of the case's devices.

    Raises KeyError, TypeError or ValueError for anything else.
    """
    if said is None:
        return None
    if "loops" not in case:
        return [(plain(method, 40), METRICS[what], Moments.from_json(found)) for method, what, found in said]
    values, classifies = network.loss is Loss.mean_squared_error and not case["race"], network.classifies
    metrics = ["loss", *["accuracy"] * classifies, *["mae"] * values]
    loops = [
        Measured(
            {metric: [Moments.from_json(each) for each in loop[metric]] for metric in metrics},
            [Values.from_json(each) for each in loop["values"]],
        )
        for loop in said
    ]
    if len(loops) != len(case["loops"]):
        raise ValueError("other loops than asked for")
    for loop in loops:
        sized = [*loop.curves.values(), *[loop.values] * values]
        if any(len(each) != len(case["steps"]) for each in sized) or any(
            len(each.total) != network.outputs for each in loop.values
        ):
            raise ValueError("other results than asked for")
    return loops


def read_rows(said: Any, weights: str) -> list[Row]:
    """Reads the results of single devices that a site shares; none if it shares none.

    Raises KeyError, TypeError or ValueError for anything else.
    """
    return [
        {
            "weights": weights,
            "device": plain(row["device"], 40),
            "mode": plain(row["mode"], 40),
            **{key: int(row[key]) for key in ("shots", "steps")},
            **{key: float(row[key]) for key in METRICS if key in row},
        }
        for row in said
    ]


def _added_measured(parts: Sequence[Sequence[Measured]]) -> list[Measured]:
    """The result of each loop, from the answers that have some of the case's devices."""
    return [
        Measured(
            {metric: [_added(each) for each in zip(*(loop.curves[metric] for loop in loops), strict=True)]
                for metric in loops[0].curves},
            [reduce(add, each) for each in zip(*(loop.values for loop in loops), strict=True)],
        )
        for loops in zip(*parts, strict=True)
    ]  # fmt: skip


def _added_floor(parts: Sequence[Any]) -> list[Floor]:
    return [(*same[0][:2], _added([moments for _, _, moments in same])) for same in zip(*parts, strict=True)]


def _added(moments: Sequence[Moments]) -> Moments:
    return sum(moments, Moments())
