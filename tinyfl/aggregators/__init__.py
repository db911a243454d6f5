"""Flower's strategies that aggregate devices' updates: what a config's ``aggregator``, ``noise`` and ``update_clip`` ask for.

An aggregator makes one phi out of the phis of a cohort; the algorithm takes its outer step towards that. Whatever comes after
the noise of a private aggregator costs no more privacy.
"""

from collections.abc import Container, Iterable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedMedian,
    FedTrimmedAvg,
    Krum,
    Strategy,
)

from tinyfl.config import Config
from tinyfl.core import F32
from tinyfl.errors import InstallError

ALL: dict[str, Any] = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
"""An aggregator asks every node that it is shown, and waits for no more."""


def aggregator(config: Config, rounds_done: int = 0) -> Strategy | None:
    """The aggregator that ``config`` asks for, None for the exact mean. With noise it accounts for what privacy is spent, the
    ``rounds_done`` before it included.

    Raises InstallError where there is nothing to account with.
    """
    if not config.aggregator and not config.update_clip:
        return None
    strategy = _robust(config)
    if not config.update_clip:
        return strategy
    accountant = _accountant(config, rounds_done) if config.noise else None
    return _Clipping(strategy, config.noise, config.update_clip, config.cohort, accountant=accountant)


def shown_record(phi: F32, *, devices: int, loss: float) -> RecordDict:
    """What an aggregator is shown of a node's update: under one name and with the weight of the node's devices, whatever the
    node said, since Flower ends the run over one that differs; and in float64, since Krum's distances are small differences
    of large squares."""
    arrays = ArrayRecord({"theta": Array(phi.astype(np.float64))})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": devices, "loss": loss})})


def privacy_spent(aggregator: Strategy | None) -> dict[str, Any] | None:
    """What ``aggregator`` has spent so far, as JSON: epsilon, at which delta, over how many releases. None without noise."""
    spent = aggregator.privacy_spent() if isinstance(aggregator, _Clipping) else None
    return {"epsilon": spent.epsilon, "delta": spent.delta, "releases": spent.num_releases} if spent else None


def target_delta(devices: int) -> float:
    """The delta at which epsilon is told: 1e-5, or well below one in ``devices`` where that is less."""
    return float(min(1e-5, devices**-1.1))


def _robust(config: Config) -> FedAvg:
    if config.aggregator == "median":
        return FedMedian(**ALL)
    if config.aggregator == "trimmed-mean":
        return FedTrimmedAvg(beta=config.tolerate, **ALL)
    if config.aggregator == "krum":
        return Krum(num_malicious_nodes=config.poisoned, **ALL)
    return FedAvg(**ALL)


def _accountant(config: Config, rounds_done: int) -> Any:
    """An accountant of rounds as if each device took part in each: cohorts are no secret, anyone with the seed draws them."""
    from flwr.supercore.privacy_accounting import GaussianPrivacyEvent, NeighboringRelation, PrivacyConfig, SamplingMethod
    from flwr.supercore.privacy_accounting.rdp_accountant import RdpAccountant

    relation, sampling = NeighboringRelation.ADD_OR_REMOVE_ONE, SamplingMethod.NO_AMPLIFICATION
    try:
        accountant = RdpAccountant(PrivacyConfig(target_delta(config.devices), config.devices, relation, sampling))
    except ImportError as error:
        raise InstallError("--noise needs dp-accounting to say what it buys: pip install 'tinyfl[dp]'.") from error
    if rounds_done:
        accountant.compose(GaussianPrivacyEvent(config.noise, config.cohort, config.devices), rounds_done)
    return accountant


class _Clipping(DifferentialPrivacyServerSideFixedClipping):
    """Flower's clipping, but for two things. It divides by an update's norm, and one that is nothing but zeros would end the
    run. And its noise is made for a whole cohort, of which it wants every update: here a device that is absent counts with an
    update of zeros, which is what the accountant's neighbouring fleet has in its place."""

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        self._asked = list(super().configure_train(server_round, arrays, config, grid))
        return self._asked

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        listed = list(replies)
        if listed and self.accountant:
            listed += self._of_absent({reply.metadata.src_node_id for reply in listed})
        theta = self.current_arrays.to_numpy_ndarrays()
        for reply in listed:
            for key, record in reply.content.array_records.items() if reply.has_content() else ():
                phi = [array.astype(np.float64) for array in record.to_numpy_ndarrays()]
                if all(map(np.array_equal, phi, theta)):
                    phi[0].flat[0] += max(np.spacing(abs(phi[0].flat[0])), 1e-30)
                    reply.content[key] = ArrayRecord({name: Array(array) for name, array in zip(record, phi, strict=True)})
        return super().aggregate_train(server_round, listed)

    def _of_absent(self, there: Container[int]) -> Iterable[Message]:
        (theta,) = self.current_arrays.to_numpy_ndarrays()
        absent = (message for message in self._asked if message.metadata.dst_node_id not in there)
        return [Message(shown_record(theta, devices=1, loss=0.0), reply_to=message) for message in absent]
