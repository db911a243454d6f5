"""The room that a learner asks for is the room that it uses."""

from typing import Any

import numpy as np
from harness import OK, Device
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import IDENTITY, MEAN_SQUARED_ERROR, RELU
from reference_layers import Layer, dense, learner_values, lowest
from small_nets import conv, networks, sample_of, weights_of

FENCE = 16
MARK = np.frombuffer(b"\xa5\x5a\xa5\x7f", np.float32)[0]  # a NaN that no arithmetic makes


@settings(max_examples=200)
@given(networks(), st.integers(0, 1 << 32))
def test_a_learner_writes_to_the_last_float_of_its_memory_and_not_beyond(
    core: Any, net: tuple[list[Layer], int], seed: int
) -> None:
    layers, loss = net
    rng = np.random.default_rng(seed)
    device = Device(core, layers, loss, weights_of(layers, rng))
    count = learner_values(layers)
    room = np.full(count + 2 * FENCE, MARK, np.float32)
    device.memory = room[FENCE : FENCE + count]
    assert device.bytes == 4 * count
    assert device.initialise() == OK
    x, y = sample_of(layers, loss, rng)
    assert device.learn(x, y, 1e-3)[0] == OK
    touched = room.view(np.uint32) != MARK.view(np.uint32)
    assert touched[FENCE] and touched[FENCE + count - 1]
    assert not touched[:FENCE].any() and not touched[FENCE + count :].any()


def test_what_lies_below_the_lowest_layer_that_learns_costs_two_neighbours_at_a_time(core: Any) -> None:
    frozen = [conv((16, 16, 1), 8, 3, 1, True, RELU, learns=False), conv((16, 16, 8), 4, 3, 2, True, RELU, learns=False)]
    layers = [*frozen, conv((8, 8, 4), 2, 3, 2, True, RELU, learns=False), dense(32, 5, IDENTITY)]
    assert lowest(layers) == 3
    device = Device(core, layers, MEAN_SQUARED_ERROR, weights_of(layers, np.random.default_rng(1)))
    assert device.bytes == 4 * (16 * 16 * 8 + 8 * 8 * 4)
