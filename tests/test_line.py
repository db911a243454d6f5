"""The bytes of a round on the line, against those that an emulated board really exchanges."""

import asyncio
import hashlib

import numpy as np
import pytest

from tinyfl.algorithms import Inner, Phase
from tinyfl.building import boards
from tinyfl.codecs import Codec
from tinyfl.codecs.down import PLAIN, Down
from tinyfl.costs import traffic_of
from tinyfl.link.board import LinkedBoard, Round, floats
from tinyfl.link.wire import MachineWire, Wire
from tinyfl.networks import Network, network
from tinyfl.networks.layers import Activation, Loss

NET = network("mlp-40-40", (1,), 1, Loss.mean_squared_error, Activation.tanh)
HEAD = NET.weighted_layers[-1].bit
LOOPS = {
    "a stream": Inner(samples=4, rate=0.01),
    "mini-batches": Inner(samples=8, batch=4, passes=2, rate=0.01),
    "a local head": Inner(Phase(1, 0.01, layers=HEAD), Phase(2, 0.01), local=HEAD),
}


CODED = [
    ("a stream", "int4", Down(Codec.named("int8"), False, NET.arrays())),
    ("a stream", "int8", Down(Codec.named("int4"), True, NET.arrays())),
]


class Counted:
    """A wire that counts bytes."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self.patience, self.down, self.up, self.exchanges = wire, wire.patience, 0, 0, 0

    async def send(self, data: bytes) -> None:
        self.down += len(data)
        self.exchanges += 1
        await self.wire.send(data)

    async def receive(self) -> bytes:
        data = await self.wire.receive()
        self.up += len(data)
        return data

    async def close(self) -> None:
        await self.wire.close()


async def real_round(net: Network, inner: Inner, machine: object, down: Down) -> Counted:
    wire = Counted(await MachineWire(machine).open())  # type: ignore[arg-type]

    async def opener() -> Wire:
        return wire

    board = await LinkedBoard.connect(opener)
    await board.put_plan(net.plan.bytes)
    theta = net.initial_weights(1) + np.float32(0.001)  # biases begin at 0
    await board.put_weights(theta, held=True)
    wire.down = wire.up = wire.exchanges = 0
    if down.plain:
        await board.put_weights(2 * theta)
        theta = 2 * theta
    else:
        theta, encoded = down.sent(2 * theta, theta if down.delta else None)
        assert encoded
        await board.put_encoded(encoded)
    base = hashlib.sha256(floats(theta)).digest()
    status = await board.train(Round(1 << 20, 1 << 20, 1 << 31, inner.to_bytes(), base, "sine", 1 << 60, 1 << 20))
    await board.update(status)
    return wire


@pytest.mark.slow
@pytest.mark.usefixtures("emulators")
@pytest.mark.parametrize(("what", "up", "down"), [*((what, "fp32", PLAIN) for what in LOOPS), *CODED])
def test_a_round_takes_the_bytes_on_the_line_that_are_counted_for_it(what: str, up: str, down: Down) -> None:
    from tinyfl.fleets.emulation import firmware
    from tinyfl.simulators.unicorn import Machine

    board = boards.load("mps2-an386")
    inner = LOOPS[what].sent_as(Codec.named(up))
    real = asyncio.run(real_round(NET, inner, Machine(firmware(board, "zig").elf, board, 1), down))
    told = traffic_of(NET, inner, board.buffer, down)
    assert told.exchanges == real.exchanges
    for sent, counted in ((real.down, told.down), (real.up, told.up)):
        assert sent <= counted <= 1.004 * sent + 12  # bytes; numbers in messages count with four bytes, and may have fewer


def test_what_is_never_sent_costs_nothing_on_the_way_up() -> None:
    whole, headless = traffic_of(NET, LOOPS["a stream"]), traffic_of(NET, LOOPS["a local head"])
    assert 0 < whole.up - headless.up < 2 * 4 * sum(NET.arrays(HEAD))
    assert abs(whole.down - headless.down) < 64
    assert whole.down > 4 * NET.parameters < whole.up


def test_a_stream_in_single_steps_holds_one_sample_and_a_support_set_all() -> None:
    assert [LOOPS[what].held for what in LOOPS] == [1, 8, 1]
    assert Inner(Phase(5, 0.1, batch=2), Phase(9, 0.1)).held == 5
