"""What is local never leaves its device: recorders on boards' links and on Flower's messages find nothing of a learnt head, and
all of a learnt body."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flaky import FlakyGrid
from flwr.app import ArrayRecord, Error, Message, RecordDict

from tinyfl import core
from tinyfl.algorithms import Inner
from tinyfl.algorithms.tinymetafed import TinyMetaFed
from tinyfl.config.roster import Part
from tinyfl.core import F32, U32
from tinyfl.deployment.gateway import Gateway
from tinyfl.devices.push import load
from tinyfl.errors import ConfigError
from tinyfl.fleet import Context
from tinyfl.fleets.assembly import opened
from tinyfl.fleets.emulation import started
from tinyfl.fleets.linked import LinkFleet
from tinyfl.flower.allowed import read_allowed
from tinyfl.flower.server_app import over_nodes
from tinyfl.flower.settings import to_run_config
from tinyfl.link.wire import Opener, Wire
from tinyfl.networks import network
from tinyfl.runs.adaptation import adapt
from tinyfl.simulation import simulate
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks.sine import Sine

TASK = Sine(4)
NET = network("mlp-8-8", (1,), 1, TASK.loss, TASK.activation)
LAYERS, THETA = NET.weighted_layers, NET.initial_weights(4)
HEAD, BODY = LAYERS[-1].weights, slice(0, LAYERS[-1].weights.start)
COHORT: U32 = np.arange(2, dtype=np.uint32)
ROUNDS = 3
STARTS = ["reconstructed", "kept"]


def loop(start: str, round: int) -> Inner:
    return TinyMetaFed(ROUNDS, samples=12, rate=0.05, local_start=start).inner(round, LAYERS)


def learnt(start: str, heads: dict[int, F32], round: int, theta: F32) -> list[F32]:
    """All weights of each device after a round, by an inner loop that sends them all."""
    whole, found = Inner(*loop(start, round).phases), []
    for device in COHORT.tolist():
        own = theta.copy()
        if start == "kept" and device in heads:
            own[HEAD] = heads[device]
        phi = NativeFleet(TASK, NET, len(COHORT)).run_each(COHORT[device : device + 1], round, own, whole).phi[0]
        heads[device] = phi[HEAD].copy()
        found.append(phi)
    return found


class Recorded:
    """A wire that keeps all that it carries."""

    def __init__(self, wire: Wire, kept: bytearray) -> None:
        self.wire, self.kept, self.patience = wire, kept, wire.patience

    async def send(self, data: bytes) -> None:
        self.kept += data
        await self.wire.send(data)

    async def receive(self) -> bytes:
        data = await self.wire.receive()
        self.kept += data
        return data

    async def close(self) -> None:
        await self.wire.close()


def recorded(opener: Opener, kept: bytearray) -> Opener:
    async def opening() -> Wire:
        return Recorded(await opener(), kept)

    return opening


def share_found(values: np.ndarray[Any, Any], carried: bytes, *, framed: bool = False) -> float:
    """How many pieces of eight bytes of the values are in ``carried``; of ``framed`` bytes only pieces without a zero, which
    framing takes over as they are."""
    content, size = values.tobytes(), values.itemsize
    pieces = [content[at : at + 8] for at in range(0, len(content) - 7, size)]
    pieces = [piece for piece in pieces if not (framed and 0 in piece)]
    return sum(piece in carried for piece in pieces) / len(pieces)


@pytest.mark.parametrize("start", STARTS)
def test_no_link_to_a_board_carries_a_learnt_head(start: str) -> None:
    carried, heads, theta = bytearray(), dict[int, F32](), THETA
    with (
        started("posix", len(COHORT)) as boards,
        LinkFleet([recorded(board.opener, carried) for board in boards], TASK, NET) as fleet,
    ):
        for round in range(ROUNDS):
            own = learnt(start, heads, round, theta)
            updates = fleet.run(COHORT, round, theta, loop(start, round), Context(7, 0))
            for phi in own:
                assert share_found(phi[BODY], bytes(carried), framed=True) > 0.9
                assert share_found(phi[HEAD], bytes(carried), framed=True) == 0
            theta = updates.mean().astype(np.float32)
            np.testing.assert_array_equal(theta[HEAD], THETA[HEAD])


def contents(record: RecordDict | Error) -> Iterator[bytes]:
    """All bytes and numbers of a message."""
    if isinstance(record, Error):
        yield record.reason.encode()
        return
    for each in record.values():
        if isinstance(each, ArrayRecord):
            yield from (array.data for array in each.values())
        else:
            yield from (value if isinstance(value, bytes) else repr(value).encode() for value in each.values())  # type: ignore[union-attr]


@pytest.mark.parametrize("start", STARTS)
def test_no_message_of_a_federation_carries_a_learnt_head(start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {
        "task": "sine", "network": NET.name, "algorithm": "tinymetafed", "local_start": start, "samples": 12, "rate": 0.05,
        "devices": 2, "cohort": 2, "rounds": ROUNDS, "tasks": 2, "adapt_lr": 0.01, "seed": TASK.seed,
    }  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    carried, heads = list[bytes](), dict[int, F32]()
    run_config = to_run_config(options)

    def tapped(gateway: Gateway) -> Callable[[Message], RecordDict | Error]:
        def said(message: Message) -> RecordDict | Error:
            reply = gateway(message.metadata.message_type, message.content, run_config)
            carried.extend((b"".join(contents(message.content)), b"".join(contents(reply))))
            return reply

        return said

    with opened([Part(native=1)]) as first, opened([Part(native=1)], 1) as second:
        gateways = [Gateway(name, site, read_allowed(), tell=lambda _: None) for name, site in (("a", first), ("b", second))]
        grid = FlakyGrid({4 + i: tapped(gateway) for i, gateway in enumerate(gateways)})
        run = simulate(over=partial(over_nodes, grid), out=tmp_path / "run", page=False, **options)
    everything, theta = b"".join(carried), THETA
    for round in range(ROUNDS):
        alpha, mean = TinyMetaFed(ROUNDS).alpha(round), np.zeros(len(theta))
        for phi in learnt(start, heads, round, theta):
            change = core.fixed(phi, theta)
            assert share_found(change[BODY], everything) == 1
            for values in (change[HEAD], phi[HEAD]):
                assert share_found(values, everything) == 0
            mean += change * core.UNIT / len(COHORT)
        mean[HEAD] = 0
        theta = (theta + alpha * mean).astype(np.float32)
    assert theta.tobytes() == run.theta.tobytes()


def test_a_run_with_a_local_head_is_pushed_as_a_devices_model_only(tmp_path: Path) -> None:
    run = simulate(
        out=tmp_path / "run", page=False, task="sine", network=NET.name, algorithm="tinymetafed", rounds=ROUNDS, tasks=2,
        adapt_lr=0.01,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"dense-2 of .*run stays on each device"):
        load(str(run.path))
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(-1, 1)
    np.savez(tmp_path / "device.npz", x=x, y=x)
    adapt(run.path, tmp_path / "device.npz", out=tmp_path / "own.npz")
    assert load(str(tmp_path / "own.npz")).arena == NET.arena_bytes()
