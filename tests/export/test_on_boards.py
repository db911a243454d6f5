"""A model in the slot of a board gives the bits that it gives here, beside whatever the board learns."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert's schema: pip install 'tinyfl[tf]'")

from flat import PADDING, Flat
from tools import needs_tools

from tinyfl.errors import DoesNotFit
from tinyfl.export.infer import run_on_board
from tinyfl.fleets.emulation import emulate, started
from tinyfl.int8.compile import compile_tflite
from tinyfl.int8.native import Program, run_native
from tinyfl.link.board import LinkedBoard
from tinyfl.networks import Activation, Loss, network

pytestmark = pytest.mark.usefixtures("emulators")


def small() -> Program:
    """8 x 7 x 2 through a convolution, a depthwise one, a pool and a dense layer to 5 classes."""
    rng, flat = np.random.default_rng(1), Flat()
    spread: dict[str, Any] = {"strideH": 1, "strideW": 1, "padding": PADDING["same"]}

    def weights(shape: tuple[int, ...], axis: int, of: float) -> tuple[int, int]:
        scales = rng.uniform(0.01, 0.03, shape[axis]) / np.sqrt(np.prod(shape) / shape[axis])
        w = flat.tensor(shape, scales.tolist(), data=rng.integers(-127, 128, shape), axis=axis)
        bias = rng.integers(-999, 999, shape[axis])
        return w, flat.tensor((shape[axis],), (scales * of).tolist(), dtype="INT32", data=bias)

    x = flat.tensor((1, 8, 7, 2), 0.02, -3)
    y = flat.tensor((1, 8, 7, 6), 0.05, 4)
    flat.op("CONV_2D", [x, *weights((6, 3, 3, 2), 0, 0.02)], [y], 3, table="Conv2DOptions", **spread)
    z = flat.tensor((1, 8, 7, 6), 0.06, -9)
    spread |= {"dilationHFactor": 1, "dilationWFactor": 1, "table": "DepthwiseConv2DOptions", "depthMultiplier": 1}
    flat.op("DEPTHWISE_CONV_2D", [y, *weights((1, 3, 3, 6), 3, 0.05)], [z], 3, **spread)
    p = flat.tensor((1, 4, 3, 6), 0.06, -9)
    half = {"strideH": 2, "strideW": 2, "padding": PADDING["valid"], "filterHeight": 2, "filterWidth": 2}
    flat.op("MAX_POOL_2D", [z], [p], 2, table="Pool2DOptions", **half)
    q, s = flat.tensor((1, 5), 0.1, 1), flat.tensor((1, 5), 1 / 256, -128)
    flat.op("FULLY_CONNECTED", [p, *weights((5, 72), 0, 0.06)], [q], 4, table="FullyConnectedOptions")
    flat.op("SOFTMAX", [q], [s], 2, table="SoftmaxOptions", beta=0.2)
    return compile_tflite(flat.content([x], [s]))


PROGRAM = small()
X = np.random.default_rng(2).integers(-128, 128, (6, 8, 7, 2), np.int8)
Y = run_native(PROGRAM, X)


@pytest.mark.parametrize(
    ("board", "engine", "toolchain"),
    [
        ("mps2-an386", "unicorn", "zig"),
        ("mps2-an386", "unicorn", "gcc"),
        ("mps2-an386", "qemu", "zig"),
        ("mps2-an385", "unicorn", "zig"),
        ("mps2-an500", "unicorn", "zig"),
        ("mps2-an505", "qemu", "zig"),
        ("stm32f405", "unicorn", "zig"),
        ("microbit-v2", "unicorn", "zig"),
        ("microbit-v2", "unicorn", "gcc"),
        ("posix", "process", "zig"),
        ("raspberry-pi", "qemu", "zig"),
        ("raspberry-pi", "qemu", "gcc"),
    ],
)
def test_every_board_predicts_what_this_machine_does(board: str, engine: str, toolchain: Any) -> None:
    needs_tools(board, engine, toolchain)
    assert len(np.unique(Y, axis=0)) > 3
    np.testing.assert_array_equal(run_on_board(PROGRAM, X, f"emulated:{board}", engine=engine, toolchain=toolchain), Y)


def test_a_port_serves_one_client_after_another_with_the_same_program() -> None:
    with emulate("mps2-an386", link="tcp") as (board,):
        for _ in range(2):
            np.testing.assert_array_equal(run_on_board(PROGRAM, X[:2], f"port:{board.url}"), Y[:2])


def test_float_inputs_are_quantised_on_the_way() -> None:
    real = np.random.default_rng(3).normal(0, 1, (3, 8, 7, 2)).astype(np.float32)
    np.testing.assert_array_equal(run_on_board(PROGRAM, real, "emulated:posix"), run_native(PROGRAM, real))


def test_what_has_no_room_on_a_board_is_refused_with_the_numbers() -> None:
    x = X[:1]
    with pytest.raises(DoesNotFit, match=r"needs 140,040 bytes of flash in the program's slot; .* \(microbit-v2\) has 114,688"):
        run_on_board(replace(PROGRAM, content=bytes(140_000)), x, "emulated:microbit-v2")
    with pytest.raises(DoesNotFit, match=r"needs 200,000 bytes of RAM to run; .* \(microbit-v2\) has 12\d,\d{3}"):
        run_on_board(replace(PROGRAM, arena_bytes=200_000), x, "emulated:microbit-v2")


def test_a_board_learns_commits_and_predicts_side_by_side() -> None:
    net = network("mlp-8", (4,), 3, Loss.softmax_cross_entropy, Activation.relu)
    theta = net.initial_weights(1)

    async def script(board: LinkedBoard) -> None:
        await board.put_program(PROGRAM.content)
        await board.put_plan(net.plan.bytes)
        await board.put_weights(theta)
        await board.commit((await board.status()).weights)
        assert await board.predict(X[0].tobytes()) == Y[0].tobytes()
        np.testing.assert_array_equal(await board.weights(), theta)
        await board.reset()

    async def both(opener: Any) -> None:
        await script(await LinkedBoard.connect(opener))
        board = await LinkedBoard.connect(opener)
        np.testing.assert_array_equal(await board.weights(), theta)
        assert await board.predict(X[1].tobytes()) == Y[1].tobytes()

    with started("microbit-v2") as (running,):
        asyncio.run(both(running.opener))
