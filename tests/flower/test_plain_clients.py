"""Our strategy over clients that know nothing of tinyfl."""

import logging
from collections.abc import Iterable

import numpy as np
import pytest
from answers import FLEET
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedMedian

from tinyfl.algorithms import Inner, State, Updates
from tinyfl.flower.grid import FleetGrid
from tinyfl.flower.messages import theta_record
from tinyfl.flower.strategy import FleetStrategy

logging.getLogger("flwr").setLevel(logging.ERROR)

FEATURES, ROWS, RATE = 6, 12, 0.05


def own_data(node: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(node)
    x = rng.normal(0, 1, (ROWS, FEATURES))
    return x, x @ np.arange(FEATURES) + node / 10


def sgd(theta: np.ndarray, node: int, rate: float) -> tuple[np.ndarray, float]:
    x, y = own_data(node)
    w = theta.astype(np.float64)
    for row, target in zip(x, y, strict=True):
        w -= rate * (row @ w - target) * row
    return w.astype(np.float32), float(((x @ w - y) ** 2).mean())


app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    (theta,) = message.content["arrays"].to_numpy_ndarrays()
    phi, loss = sgd(theta, int(context.node_config["partition-id"]), RATE)
    reply = {"weights": ArrayRecord([phi]), "metrics": MetricRecord({"num-examples": ROWS, "loss": loss})}
    return Message(RecordDict(reply), reply_to=message)


class Clients(Grid):
    """Calls the ClientApp of each node in this process."""

    NODES = (71, 12, 35, 9, 50)

    def __init__(self) -> None:
        FleetGrid(FLEET)  # sets the identity that messages ask for
        self._contexts = {
            node: Context(1, node, {"partition-id": node, "num-partitions": 5}, RecordDict(), {}) for node in self.NODES
        }

    def get_node_ids(self) -> Iterable[int]:
        return iter(self.NODES)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return [app(message, self._contexts[message.metadata.dst_node_id]) for message in messages]

    set_run = run = create_message = push_messages = pull_messages = None  # type: ignore[assignment]


class Linear:
    """Reptile's outer step on whatever clients do with the rate that they are told."""

    def inner(self, round: int) -> Inner:
        return Inner(samples=ROWS, rate=RATE)

    def outer(self, state: State, updates: Updates) -> State:
        return state.step(0.5 * (updates.mean() - state.theta))


@pytest.mark.parametrize("median", [False, True], ids=["mean", "median"])
def test_a_client_app_that_knows_nothing_of_tinyfl_takes_part(median: bool) -> None:
    theta = np.zeros(FEATURES, np.float32)
    losses: list[float] = []
    ours = FleetStrategy(
        Linear(), State(0, theta), cohort=5, fleet_size=5, seed=0, aggregator=FedMedian() if median else None,
        on_round=lambda _, updates: losses.append(updates.loss),
    )  # fmt: skip
    ours.start(Clients(), theta_record(theta), num_rounds=4)
    for round in range(4):
        told = [sgd(theta, node, 0.05) for node in Clients.NODES]
        rows = np.stack([phi for phi, _ in told]).astype(np.float64)
        middle = np.median(rows, axis=0) if median else rows.mean(axis=0)
        theta = (theta + 0.5 * (middle - theta)).astype(np.float32)
        assert losses[round] == pytest.approx(np.mean([loss for _, loss in told]))
    assert np.abs(ours.state.theta - theta).max() < 1e-6
