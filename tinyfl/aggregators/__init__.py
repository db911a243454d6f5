"""Flower's strategies that aggregate devices' updates: what a config's ``aggregator``, ``noise`` and ``update_clip`` ask for.

An aggregator combines the phis of a cohort into one; the algorithm takes its outer step towards it. Computation after the noise
of a private aggregator costs no further privacy.
"""

from collections.abc import Container, Iterable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Strategy

from tinyfl.config import Config
from tinyfl.core import F32
from tinyfl.errors import InstallError

ALL: dict[str, Any] = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
"""Options that make an aggregator use every node that it sees, and wait for no more."""


def aggregator(config: Config, rounds_done: int = 0) -> Strategy | None:
    """The aggregator of ``config``; None for the exact mean. With noise it accounts for the privacy spent, including the
    ``rounds_done`` before.

    Raises InstallError if dp-accounting is missing.
    """
    if not config.aggregator and not config.update_clip:
        return None
    strategy = config.replace_mean() or FedAvg(**ALL)
    if not config.update_clip:
        return strategy
    accountant = _accountant(config, rounds_done) if config.noise else None
    return _Clipping(strategy, config.noise, config.update_clip, config.cohort, accountant=accountant)


def shown_record(phi: F32, *, devices: int, loss: float) -> RecordDict:
    """A node's update as an aggregator sees it: with a fixed array name and the weight of the node's devices, since Flower ends
    the run if a node's differ; and in float64, since Krum's distances are small differences of large squares."""
    arrays = ArrayRecord({"theta": Array(phi.astype(np.float64))})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": devices, "loss": loss})})


def privacy_spent(aggregator: Strategy | None) -> dict[str, Any] | None:
    """The privacy spent by ``aggregator`` so far, as JSON: epsilon, delta, and the number of releases. None without noise."""
    spent = aggregator.privacy_spent() if isinstance(aggregator, _Clipping) else None
    return {"epsilon": spent.epsilon, "delta": spent.delta, "releases": spent.num_releases} if spent else None


def target_delta(devices: int) -> float:
    """The delta for which epsilon is reported: 1e-5, or well below 1 / ``devices`` if that is less."""
    return float(min(1e-5, devices**-1.1))


def _accountant(config: Config, rounds_done: int) -> Any:
    """An accountant that assumes every device in every round: cohorts are not secret, anyone with the seed can draw them."""
    from flwr.supercore.privacy_accounting import GaussianPrivacyEvent, NeighboringRelation, PrivacyConfig, SamplingMethod
    from flwr.supercore.privacy_accounting.rdp_accountant import RdpAccountant

    relation, sampling = NeighboringRelation.ADD_OR_REMOVE_ONE, SamplingMethod.NO_AMPLIFICATION
    try:
        accountant = RdpAccountant(PrivacyConfig(target_delta(config.devices), config.devices, relation, sampling))
    except ImportError as error:
        raise InstallError("--noise needs dp-accounting to account for privacy: pip install 'tinyfl[dp]'.") from error
    if rounds_done:
        accountant.compose(GaussianPrivacyEvent(config.noise, config.cohort, config.devices), rounds_done)
    return accountant


class _Clipping(DifferentialPrivacyServerSideFixedClipping):
    """Flower's clipping with two changes. It divides by an update's norm, so an update of zeros would end the run; here it gets
    a tiny change. And its noise is scaled for a complete cohort; here an absent device counts as an update of zeros, as in the
    accountant's neighbouring fleet."""

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        self._requests = list(super().configure_train(server_round, arrays, config, grid))
        return self._requests

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        all_replies = list(replies)
        if all_replies and self.accountant:
            all_replies += self._zero_updates({reply.metadata.src_node_id for reply in all_replies})
        theta = self.current_arrays.to_numpy_ndarrays()
        for reply in all_replies:
            for key, record in reply.content.array_records.items() if reply.has_content() else ():
                phi = [array.astype(np.float64) for array in record.to_numpy_ndarrays()]
                if all(map(np.array_equal, phi, theta)):
                    phi[0].flat[0] += max(np.spacing(abs(phi[0].flat[0])), 1e-30)
                    reply.content[key] = ArrayRecord({name: Array(array) for name, array in zip(record, phi, strict=True)})
        return super().aggregate_train(server_round, all_replies)

    def _zero_updates(self, present: Container[int]) -> Iterable[Message]:
        (theta,) = self.current_arrays.to_numpy_ndarrays()
        absent = (message for message in self._requests if message.metadata.dst_node_id not in present)
        return [Message(shown_record(theta, devices=1, loss=0.0), reply_to=message) for message in absent]
