"""Flower's seams: any cut of the fleet gives the same theta, and stock strategies run on the grid unchanged."""

import random

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MessageType, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, FedTrimmedAvg, Krum, Strategy

from tinyfl.algorithms import Inner, State, Updates
from tinyfl.algorithms.tinyreptile import TinyReptile
from tinyfl.errors import ConfigError
from tinyfl.fleet import draw_cohort
from tinyfl.flower.grid import FleetGrid
from tinyfl.flower.messages import instructions, read_theta, theta_record
from tinyfl.flower.strategy import FleetStrategy
from tinyfl.networks import network
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks import load_task

SIZE, COHORT = 60, 12
TASK = load_task("sine", None, 5)
NET = network("mlp-12-12", TASK.shape, TASK.outputs, TASK.loss, TASK.activation)
FLEET = NativeFleet(TASK, NET, SIZE)
THETA = NET.initial_weights(0)
INNER = Inner(samples=16, rate=0.02)


def theta_after(rounds: int, gateways: int | None) -> np.ndarray:
    strategy = FleetStrategy(
        TinyReptile(rounds=rounds, samples=16, rate=0.02), State(0, THETA),
        cohort=COHORT, fleet_size=SIZE, seed=1, each_device=gateways is None,
    )  # fmt: skip
    result = strategy.start(FleetGrid(FLEET, gateways), theta_record(THETA), num_rounds=rounds)
    assert np.array_equal(read_theta(result.arrays), strategy.state.theta)
    return strategy.state.theta


def test_gateways_and_single_devices_as_nodes_end_with_the_same_theta() -> None:
    thetas = [theta_after(6, gateways).tobytes() for gateways in (1, 4, 7, SIZE, None)]
    assert len(set(thetas)) == 1
    assert thetas[0] != THETA.tobytes()


def test_the_strategy_is_the_algorithm_run_by_hand() -> None:
    algorithm = TinyReptile(rounds=6, samples=16, rate=0.02)
    state = State(0, THETA)
    for round in range(6):
        state = algorithm.outer(state, FLEET.run(draw_cohort(1, round, COHORT, SIZE), round, state.theta, INNER))
    assert state.theta.tobytes() == theta_after(6, 3).tobytes()


@pytest.mark.parametrize("gateways", [2, 4, 9])
def test_stock_fedavg_over_gateways_is_the_mean_over_devices(gateways: int) -> None:
    told = instructions(INNER, cohort=COHORT, fleet_size=SIZE, seed=1)
    strategy = FedAvg(fraction_evaluate=0.0)
    grid = FleetGrid(FLEET, gateways)
    result = strategy.start(grid, theta_record(THETA), num_rounds=1, train_config=told)
    mean = FLEET.run_each(draw_cohort(1, 0, COHORT, SIZE), 0, THETA, INNER).phi.mean(axis=0, dtype=np.float64)
    assert np.abs(read_theta(result.arrays) - mean).max() <= 1e-6


@pytest.mark.parametrize(
    ("gateways", "strategy"),
    [(gateways, kind()) for gateways in (3, None) for kind in (FedAvg, FedAdam, FedMedian)]
    + [(None, FedTrimmedAvg(beta=0.2)), (None, Krum(num_malicious_nodes=12))],
    ids=lambda value: f"{value} gateways" if isinstance(value, int) else type(value).__name__,
)
def test_stock_strategies_train_and_evaluate_on_the_grid(strategy: Strategy, gateways: int | None) -> None:
    random.seed(0)  # stock strategies sample nodes by the global generator
    told = instructions(INNER, cohort=COHORT, fleet_size=SIZE, seed=1)
    result = strategy.start(FleetGrid(FLEET, gateways, defaults=told), theta_record(THETA), num_rounds=2, train_config=told)
    assert read_theta(result.arrays).shape == THETA.shape
    assert not np.array_equal(read_theta(result.arrays), THETA)
    assert set(result.train_metrics_clientapp) == {1, 2}
    assert set(result.evaluate_metrics_clientapp) == {1, 2}


def test_each_node_follows_the_instructions_of_its_own_message() -> None:
    arrays = theta_record(THETA)
    still, moving = (Inner(samples=16, rate=lr) for lr in (0.0, 0.1))
    contents = [
        RecordDict({"arrays": arrays, "config": instructions(inner, cohort=SIZE, fleet_size=SIZE, seed=1, round=0)})
        for inner in (still, moving)
    ]
    replies = FleetGrid(FLEET, 2).send_and_receive(
        [Message(content, node, MessageType.TRAIN) for node, content in enumerate(contents, start=1)]
    )
    moved = [not np.array_equal(read_theta(reply.content["arrays"]), THETA) for reply in replies]
    assert moved == [False, True]


def test_a_message_without_instructions_says_what_to_pass() -> None:
    with pytest.raises(ConfigError, match="train_config=instructions"):
        FedAvg().start(FleetGrid(FLEET, 2), theta_record(THETA), num_rounds=1)


def test_a_shard_without_a_usable_update_is_a_flower_error_to_stock_strategies_and_counted_by_ours() -> None:
    wild = Inner(samples=16, rate=1e6)
    grid = FleetGrid(FLEET, 2)
    for exact in (False, True):
        told = instructions(wild, cohort=COHORT, fleet_size=SIZE, seed=1, round=0, exact=exact)
        content = RecordDict({"arrays": theta_record(THETA), "config": told})
        (reply,) = grid.send_and_receive([Message(content, 1, MessageType.TRAIN)])
        assert reply.has_error() is not exact
    assert reply.content["metrics"]["devices"] == 0
    absent = reply.content["absent"]
    cohort = draw_cohort(1, 0, COHORT, SIZE)
    assert set(absent.keys()) == {str(device) for device in cohort[cohort < SIZE // 2]}
    assert set(absent.values()) <= {"numeric", "oversized"}


def test_replies_carry_one_array_record_and_one_metric_record() -> None:
    told = instructions(INNER, cohort=COHORT, fleet_size=SIZE, seed=1, round=0)
    content = RecordDict({"arrays": theta_record(THETA), "config": told})
    (reply,) = FleetGrid(FLEET, 1).send_and_receive([Message(content, 1, MessageType.TRAIN)])
    assert [type(record).__name__ for record in reply.content.values()] == ["ArrayRecord", "MetricRecord"]
    arrays = reply.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    (array,) = arrays.values()
    assert array.stype == "numpy.ndarray"
    assert array.numpy().dtype == np.float32


def test_updates_add_in_any_order() -> None:
    rng = np.random.default_rng(0)
    parts = [Updates(THETA, rng.integers(-(2**40), 2**40, THETA.size), n, float(n), {n: "numeric"}) for n in (1, 2, 3)]
    one, other = parts[0] + parts[1] + parts[2], parts[2] + (parts[0] + parts[1])
    assert (one.sum == other.sum).all()
    assert (one.devices, one.left_out) == (other.devices, other.left_out) == (6, {"numeric": 3})
    assert one.loss == pytest.approx((1 + 4 + 9) / 6)
