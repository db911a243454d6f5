"""Rounds over nodes elsewhere: what a flaky Flower grid does to them, and who serves which devices."""

import itertools
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flaky import HERE, FlakyGrid, remote_grid, serving, strategy, theta_over, three_nodes
from fleet_of_24 import COHORT, FLEET, ROUNDS, SIZE, TASK, THETA
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import FedAvg, FedTrimmedAvg

from tinyfl.algorithms import Inner, Updates
from tinyfl.config.roster import Part
from tinyfl.deployment.gateway import Gateway
from tinyfl.deployment.submit import _given
from tinyfl.errors import ConfigError, TrainingError
from tinyfl.fleet import Event, spans
from tinyfl.fleets.assembly import opened
from tinyfl.flower import remote
from tinyfl.flower.allowed import read_allowed
from tinyfl.flower.client_app import app
from tinyfl.flower.grid import FleetGrid
from tinyfl.flower.messages import Trouble, instructions, shard_record, theta_record
from tinyfl.flower.remote import Post, call_roll
from tinyfl.flower.server_app import over_nodes
from tinyfl.flower.settings import to_run_config
from tinyfl.simulation import simulate


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"POLL": 0.0, "LOOK": 0.01, "RETRY": 0.0, "GRACE": 1.5}.items():
        monkeypatch.setattr(remote, f"{name}_SECONDS", seconds)


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize("nodes", ["1", "devices"])
def test_a_keras_file_is_learnt_by_gateways_that_do_not_have_it(quick: None, tmp_path: Path, nodes: str) -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(6), keras.layers.Dense(1)])
    model.save(tmp_path / "own.keras")
    options: dict[str, Any] = {
        "task": "sine", "seed": 5, "devices": SIZE, "cohort": COHORT, "rounds": 2, "tasks": 20, "adapt_lr": 0.01, "freeze": 1,
        "nodes": nodes,
    }  # fmt: skip
    own = str(tmp_path / "own.keras")
    here = simulate(out=tmp_path / "here", network=own, **options)
    with opened([Part(native=16)]) as first, opened([Part(native=8)], 16) as second:
        run_config = to_run_config({**options, "network": "/nowhere/own.keras"})
        gateways = [Gateway(name, site, read_allowed(), tell=lambda _: None) for name, site in (("a", first), ("b", second))]
        grid = FlakyGrid({
            node: lambda message, gateway=gateway: gateway(message.metadata.message_type, message.content, run_config)
            for node, gateway in zip((9, 4), gateways, strict=True)
        })  # fmt: skip
        there = simulate(over=partial(over_nodes, grid), out=tmp_path / "there", network=own, **options)
    assert there.theta.tobytes() == here.theta.tobytes()
    assert there.theta[:8].tobytes() == model.get_weights()[0].tobytes(), "the file's frozen layer"


OWN_STREAMS: dict[str, dict[str, Any]] = {
    "prototypes": {"algorithm": "protonet", "network": "conv-4-8", "samples": 11},
    "classes": {"algorithm": "embedding", "network": "mlp-8", "samples": 8},
}


@pytest.mark.parametrize("streams", OWN_STREAMS)
def test_nodes_make_the_streams_that_the_algorithm_needs(quick: None, tmp_path: Path, streams: str) -> None:
    """Two gateways, and two nodes without one, learn the theta of one process."""
    options: dict[str, Any] = {
        "task": "digits", "devices": 4, "cohort": 4, "rounds": 2, "tasks": 2, "seed": 5, **OWN_STREAMS[streams],
    }  # fmt: skip
    here = simulate(out=tmp_path / "here", page=False, **options)
    run_config = to_run_config(options)
    with opened([Part(native=3)]) as first, opened([Part(native=1)], 3) as second:
        gateways = [Gateway(name, site, read_allowed(), tell=lambda _: None) for name, site in (("a", first), ("b", second))]
        at_gateways = FlakyGrid({
            node: lambda message, gateway=gateway: gateway(message.metadata.message_type, message.content, run_config)
            for node, gateway in zip((9, 4), gateways, strict=True)
        })  # fmt: skip
        there = simulate(over=partial(over_nodes, at_gateways), out=tmp_path / "gateways", page=False, **options)
    assert there.theta.tobytes() == here.theta.tobytes()
    contexts = [Context(1, part, {"partition-id": part, "num-partitions": 2}, RecordDict(), run_config) for part in (0, 1)]
    alone = FlakyGrid({9 - part: partial(_of_the_app, context) for part, context in enumerate(contexts)})
    there = simulate(over=partial(over_nodes, alone), out=tmp_path / "nodes", page=False, **options)
    assert there.theta.tobytes() == here.theta.tobytes()


def _of_the_app(context: Context, message: Message) -> RecordDict | Error:
    """What our ClientApp says."""
    reply = app(message, context)
    return reply.error if reply.has_error() else reply.content


@pytest.mark.slow
def test_a_run_over_nodes_is_evaluated_on_the_way_and_continued_as_in_one_process(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "task": TASK.name, "network": "mlp-8-8", "devices": SIZE, "cohort": SIZE, "seed": 5, "rounds": 3, "samples": 8,
        "tasks": 4, "adapt_lr": 0.01, "evaluate_every": 2,
    }  # fmt: skip
    simulate(out=tmp_path / "here", **options)
    here = simulate(resume=tmp_path / "here", rounds=5)
    over = partial(over_nodes, FlakyGrid(three_nodes()))
    simulate(over=over, out=tmp_path / "there", **options)
    there = simulate(over=over, resume=tmp_path / "there", rounds=5)
    assert there.theta.tobytes() == here.theta.tobytes()
    assert [row["round"] for row in here.result["validation"]] == [2, 3, 4, 5]
    for key in ("validation", "best_round", "notes", "config_sha256"):
        assert there.result[key] == here.result[key]


def test_nodes_do_not_standardise_as_an_earlier_run_did(tmp_path: Path, own_data: Path) -> None:
    options: dict[str, Any] = {"task": "npz", "data": str(own_data), "rounds": 2, "tasks": 4, "shots": (5,), "adapt_lr": 0.01}
    first = simulate(out=tmp_path / "first", network="mlp-4", **options)
    with pytest.raises(ConfigError, match="Give --standardise"):
        simulate(over=partial(over_nodes, FlakyGrid({})), out=tmp_path / "run", network=first.path, **options)
    given = to_run_config({"network": _given(None, {"network": str(first.path)})["network"]})
    assert given["network"] == str(first.path / "initialisation.npz")
    config = tmp_path / "config.toml"
    config.write_text("continued = [[2, 2]]\nrounds = 4\n")
    with pytest.raises(ConfigError, match="leave --federation out"):
        _given(config, {})


@pytest.mark.parametrize("each_device", [False, True])
def test_nodes_elsewhere_end_with_the_theta_of_one_process(quick: None, each_device: bool) -> None:
    grid = FlakyGrid(three_nodes())
    assert theta_over(remote_grid(grid, each_device), each_device) == HERE
    assert grid.pushed <= 3 + 3 * ROUNDS  # one message to a node and round, however many devices it serves


@pytest.mark.parametrize("each_device", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_messages_that_are_lost_fail_or_come_twice_change_no_bit(quick: None, seed: int, each_device: bool) -> None:
    chance = random.Random(seed)
    tries: dict[int, int] = {}

    def fate(node: int, message: Message) -> str:
        if message.metadata.message_type == MessageType.QUERY:
            return "well"
        tries[node] = tries.get(node, 0) + 1
        return chance.choice(["well", "twice", "error", "restart"]) if tries[node] % 4 else "well"

    grid = remote_grid(FlakyGrid(three_nodes(), fate), each_device)
    assert theta_over(grid, each_device, minimum=COHORT) == HERE


def test_a_node_that_stays_away_is_left_out_and_named_and_its_devices_with_it(quick: None) -> None:
    events: list[Event] = []
    came: list[Updates] = []
    away = [False]
    grid = FlakyGrid(three_nodes(), lambda node, message: "lost" if node == 900 and away[0] else "well")
    there = remote_grid(grid, on_event=events.append)
    away[0] = True
    theta_over(there, rounds=1, on_round=lambda state, updates: came.append(updates))
    assert set(came[0].absent) <= set(range(8, 16))
    assert set(came[0].absent.values()) == {"node-error"}
    assert came[0].devices + len(came[0].absent) == COHORT
    absent = sorted(came[0].absent)
    assert [(event.device, event.detail) for event in events] == [
        (absent[0], f"node-error: b, devices {spans(absent)}: no reply after 1 request")
    ]


@pytest.mark.parametrize("each_device", [False, True])
def test_a_round_that_waits_says_once_for_whom(quick: None, monkeypatch: pytest.MonkeyPatch, each_device: bool) -> None:
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.1)
    notes: list[str] = []
    came: list[Updates] = []
    away = [False]
    grid = FlakyGrid(three_nodes(), lambda node, message: "lost" if node == 900 and away[0] else "well")
    there = remote_grid(grid, each_device, on_note=notes.append)
    away[0] = True
    theta_over(there, each_device, rounds=1, on_round=lambda state, updates: came.append(updates))
    absent = spans(sorted(came[0].absent))
    assert notes == [f"round 1 waits for b (devices {absent}), for at most 2 s"]


def test_a_roll_call_that_waits_says_at_once_for_which_devices(quick: None) -> None:
    notes: list[str] = []
    nodes = {1: serving(range(8), "a")}
    grid = FlakyGrid(nodes)
    threading.Timer(0.3, lambda: nodes.update({2: serving(range(8, SIZE), "b")})).start()
    assert len(call_roll(grid, SIZE, within=60, on_note=notes.append)) == 2
    assert notes == ["no gateway has devices 8 to 23 of 24 yet (a has 0 to 7): the run waits, for at most 60 s"]


def test_a_short_round_is_done_again_and_counts_once(quick: None) -> None:
    rounds = itertools.count()
    bad = [True]
    grid = FlakyGrid(three_nodes(), lambda node, message: "lost" if node == 5 and bad[0] else "well")
    bad[0] = False
    there = remote_grid(grid)
    bad[0] = True
    short: list[Updates] = []

    def on_short(updates: Updates) -> None:
        short.append(updates)
        bad[0] = next(rounds) < 1

    run = strategy(minimum=COHORT, on_short=on_short)
    while run.state.round < ROUNDS:
        run.start(there, theta_record(run.state.theta), num_rounds=ROUNDS - run.state.round)
    assert len(short) == 2
    assert run.state.theta.tobytes() == HERE


@pytest.mark.parametrize(
    ("nodes", "kind", "text"),
    [
        ({1: range(8), 2: range(7, SIZE)}, ConfigError, "both serve device 7"),
        ({1: range(8), 2: range(8, SIZE + 1)}, ConfigError, "serves devices 8 to 24, and the run has 0 to 23"),
        ({1: range(8), 2: range(16, SIZE)}, TrainingError, "devices 8 to 15 of 24 have no node"),
        ({}, TrainingError, "devices 0 to 23 of 24 have no node"),
    ],
)
def test_a_roll_call_that_does_not_add_up_says_where(
    quick: None, nodes: dict[int, range], kind: type[Exception], text: str
) -> None:
    grid = FlakyGrid({node: serving(devices, f"lab-{node}") for node, devices in nodes.items()})
    with pytest.raises(kind, match=text):
        call_roll(grid, SIZE, within=0.1)


def test_a_board_that_two_nodes_have_is_refused_in_the_roll_call(quick: None) -> None:
    def knowing(devices: range, name: str, id: str | None) -> Any:
        return lambda message: shard_record(name, devices, [{"device": devices.start, "id": id}])

    nodes = {1: knowing(range(8), "lab", "0b"), 2: knowing(range(8, SIZE), "attic", "0b")}
    with pytest.raises(ConfigError, match=r"board 0b is device 0 of lab and device 8 of attic, and a board counts once"):
        call_roll(FlakyGrid(nodes), SIZE, within=1)
    for id in (None, "0c"):
        assert len(call_roll(FlakyGrid({**nodes, 2: knowing(range(8, SIZE), "attic", id)}), SIZE, within=1)) == 2


def test_a_reply_that_is_there_counts_however_long_sending_took() -> None:
    roll = RecordDict()
    answers = Post(FlakyGrid(three_nodes())).exchange({5: roll, 77: roll}, MessageType.QUERY, time.monotonic() - 1)
    assert all(isinstance(each, RecordDict) for each in answers.values())


def test_nodes_of_one_name_are_told_apart_by_their_devices(quick: None) -> None:
    nodes = {1: serving(range(8), "lab"), 2: serving(range(8, 9), "lab"), 3: serving(range(9, SIZE), "attic")}
    seats = call_roll(FlakyGrid(nodes), SIZE, within=1)
    assert [seat.name for seat in seats] == ["lab (0 to 7)", "lab (8)", "attic"]


def test_a_node_that_knows_nothing_of_tinyfl_is_named_in_the_roll_call(quick: None) -> None:
    stranger = {3: lambda message: RecordDict({"hello": ConfigRecord({"name": "x"})})}
    with pytest.raises(TrainingError, match=r"devices 0 to 23 .* Node 3: the reply to the roll call cannot be read"):
        call_roll(FlakyGrid(stranger), SIZE, within=0.1)
    assert len(call_roll(FlakyGrid({**stranger, **three_nodes()}), SIZE, within=1)) == 3, "others do without it"


def test_stock_strategies_judge_the_devices_behind_gateways(quick: None) -> None:
    random.seed(0)
    told = instructions(Inner(samples=8, rate=0.02), cohort=SIZE, fleet_size=SIZE, seed=1)
    thetas = []
    for grid in (remote_grid(FlakyGrid(three_nodes()), each_device=True), FleetGrid(FLEET, None)):
        result = FedTrimmedAvg(fraction_evaluate=0.0).start(grid, theta_record(THETA), num_rounds=2, train_config=told)
        thetas.append(result.arrays["theta"].numpy())  # type: ignore[index]
    assert np.abs(thetas[0] - thetas[1]).max() < 1e-6
    FedAvg(fraction_evaluate=0.0).start(
        remote_grid(FlakyGrid(three_nodes())), theta_record(THETA), num_rounds=1, train_config=told
    )


def test_spans_are_short() -> None:
    assert spans([]) == ""
    assert spans([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"


def test_replies_that_cannot_be_updates_are_left_out_and_named(quick: None) -> None:
    """A gateway that lies: more devices than it was asked for, sums that no updates have, arrays of another shape."""
    honest = serving(range(8))

    def lying(message: Message) -> RecordDict | Error:
        said = honest(message)
        assert isinstance(said, RecordDict)
        if message.metadata.message_type == MessageType.TRAIN:
            lies.pop()(said)
        return said

    def count(said: RecordDict) -> None:
        said["metrics"]["devices"] = 100

    def sums(said: RecordDict) -> None:
        array = said.array_records["arrays"]["sum"]
        array.data = np.full(len(THETA), 1 << 60, "<i8").tobytes()

    def shape(said: RecordDict) -> None:
        said["arrays"] = ArrayRecord([np.zeros(3, np.float32)])

    def words(said: RecordDict) -> None:
        said["absent"] = ConfigRecord({"20": "dead"})

    def lowest(said: RecordDict) -> None:  # whose absolute value is below every bound, in int64
        said.array_records["arrays"]["sum"].data = np.full(len(THETA), -(1 << 63), "<i8").tobytes()

    def facts(said: RecordDict) -> None:
        said["events"] = ConfigRecord({"said": ["{", '{"fruit": 1}', "[1]"], "seconds": "long"})

    lies = [facts, words, lowest, count, sums, shape]
    nodes = {**three_nodes(), 5: lying}
    came: list[Updates] = []
    theta_over(remote_grid(FlakyGrid(nodes)), rounds=6, on_round=lambda state, updates: came.append(updates))
    reasons = [set(updates.absent.values()) for updates in came]
    assert reasons == [{"corrupt"}, {"oversized"}, {"corrupt"}, {"oversized"}, {"corrupt"}, set()]
    assert all(set(updates.absent) <= set(range(8)) for updates in came)


APART_LIES: dict[str, Callable[[RecordDict], None]] = {
    "nan": lambda said: said.array_records["arrays"].update({"phis": Array(np.full((2, len(THETA)), np.nan, np.float32))}),
    "huge": lambda said: said.array_records["arrays"].update({"phis": Array(np.full((2, len(THETA)), 1e30, np.float32))}),
    "no array": lambda said: said.array_records["arrays"].update({"phis": Array("float32", (2,), "numpy.ndarray", b"")}),
    "cut": lambda said: said.array_records["arrays"].update(
        {"phis": Array("float32", (2,), "numpy.ndarray", b"\x93NUMPY\x01")}
    ),
    "devices": lambda said: said.config_records["apart"].update({"devices": [-1, 1]}),
    "losses": lambda said: said.config_records["apart"].update({"losses": 1.0}),
}


@pytest.mark.parametrize("lie", APART_LIES.values(), ids=APART_LIES)
def test_a_bad_answer_with_updates_apart_costs_its_devices_and_no_other(quick: None, lie: Callable[[RecordDict], None]) -> None:
    honest = serving(range(8))

    def lying(message: Message) -> RecordDict | Error:
        said = honest(message)
        assert isinstance(said, RecordDict)
        if message.metadata.message_type == MessageType.TRAIN:
            lie(said)
        return said

    came: list[Updates] = []
    grid = remote_grid(FlakyGrid({**three_nodes(), 5: lying}), each_device=True)
    theta_over(grid, each_device=True, rounds=1, on_round=lambda state, updates: came.append(updates))
    assert came[0].absent
    assert set(came[0].absent) <= set(range(8))
    assert came[0].devices + len(came[0].absent) == COHORT


FLOWERS_CODES = [code for name, code in vars(ErrorCode).items() if name.isupper()]


@pytest.mark.parametrize("code", FLOWERS_CODES)
@pytest.mark.parametrize("each_device", [False, True])
def test_a_failure_of_flowers_own_is_a_node_error_whatever_its_code(quick: None, each_device: bool, code: int) -> None:
    serves = serving(range(8))

    def failing(message: Message) -> RecordDict | Error:
        roll = message.metadata.message_type == MessageType.QUERY
        return serves(message) if roll else Error(code, "numeric: it cannot be loaded")

    came: list[Updates] = []
    grid = remote_grid(FlakyGrid({**three_nodes(), 5: failing}), each_device)
    theta_over(grid, each_device, rounds=1, on_round=lambda state, updates: came.append(updates))
    assert set(came[0].absent.values()) == {"node-error"}
    assert code not in set(Trouble)
