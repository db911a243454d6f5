"""A round of TinyReptile on `sine`, on a board behind any link and on the native fleet."""

from typing import Any

import numpy as np


def demand_the_native_theta(opener: Any, network_name: str = "mlp-32-32-relu") -> None:
    """The board learns to the same bits as the native fleet. Its plan and weights are more than any UART keeps for it."""
    from tinyfl.algorithms import Inner
    from tinyfl.fleets.linked import LinkFleet
    from tinyfl.networks import network
    from tinyfl.simulators.native import NativeFleet
    from tinyfl.tasks.sine import Sine

    task, cohort = Sine(3), np.zeros(1, np.uint32)
    net = network(network_name, (1,), 1, task.loss, task.activation)
    with LinkFleet([opener], task, net) as board:
        fleets = (board, NativeFleet(task, net, 1))
        ours, theirs = (fleet.run_each(cohort, 0, net.initial_weights(3), Inner(samples=32, rate=0.01)) for fleet in fleets)
    assert ours.reasons == ("",)
    np.testing.assert_array_equal(ours.phi, theirs.phi)
    np.testing.assert_array_equal(ours.loss, theirs.loss)
