"""A fleet that several nodes share, in this process, and the run config by which they know it."""

from tinyfl.networks import network
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks import load_task

SIZE, COHORT, ROUNDS = 24, 10, 5
TASK = load_task("sine", None, 5)
NET = network("mlp-8-8", TASK.shape, TASK.outputs, TASK.loss, TASK.activation)
FLEET = NativeFleet(TASK, NET, SIZE)
THETA = NET.initial_weights(0)
RUN_CONFIG = {"task": "sine", "network": "mlp-8-8", "seed": 5, "devices": SIZE, "cohort": COHORT, "rounds": ROUNDS, "out": ""}
