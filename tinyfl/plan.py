"""What a network is to a board: the bytes of its plan, and the memory that it takes there (firmware/SPEC.md, plan)."""

import struct

from tinyfl.networks import Network

VERSION = 1
DENSE = 0


def plan_bytes(network: Network) -> bytes:
    """The plan that a host sends and a slot keeps."""
    plan = struct.pack("<4sBBH", b"TFLP", VERSION, network.loss, len(network.layers))
    inputs = network.inputs
    for layer in network.layers:
        plan += struct.pack("<BBBBHH", DENSE, layer.activation, layer.learns, 0, inputs, layer.units)
        inputs = layer.units
    return plan


def arena_bytes(network: Network, batch: int) -> int:
    """What a board keeps while it learns ``network`` in batches of ``batch`` samples."""
    layers, widths = len(network.layers), [layer.units for layer in network.layers]
    plan = 8 + 8 * layers
    table = 4 * -(-6 * layers // 4)
    weights = 4 * network.parameters
    learner = 4 * (sum(widths) + 2 * max(widths))
    sample = 4 * (network.inputs + network.outputs)
    return plan + table + weights + learner + sample + (weights if batch > 1 else 0)
