"""Converts networks to TFLite files, with TensorFlow's converter."""

import numpy as np

from tinyfl import core
from tinyfl.core import F32
from tinyfl.networks import Network
from tinyfl.networks.keras import to_keras
from tinyfl.system.installed import quiet, tensorflow_part
from tinyfl.tasks import Task, numbers

SAMPLES, MAX_DEVICES = 500, 100


def convert(network: Network, theta: F32, representative: F32 | None = None) -> bytes:
    """Converts ``network`` with weights ``theta`` to a .tflite file: float32 or, with ``representative`` inputs (samples,
    *shape) float32 for the ranges, int8 throughout, including input and output.

    Input (1, *shape), output (1, outputs) as in the core: logits for a cross-entropy loss. The same arguments give the same
    bytes. Raises ConfigError for a network that TensorFlow cannot run, InstallError without TensorFlow.
    """
    tf = tensorflow_part("tensorflow")
    model = to_keras(network, theta)
    # Constants instead of variables, so that the converter has nothing to freeze and one graph of fixed shapes.
    weights = [tf.constant(v) for v in model.trainable_variables], [tf.constant(v) for v in model.non_trainable_variables]

    run = tf.function(lambda x: model.stateless_call(*weights, x, training=False)[0])
    graph = run.get_concrete_function(tf.TensorSpec((1, *network.shape), tf.float32, name="input"))
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], tf.Module())
        if representative is not None:
            rows = representative[:, None]
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([row] for row in rows)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        return bytes(converter.convert())


def representative_set(task: Task, network: Network) -> F32:
    """Inputs of up to 100 training devices of ``task``: float32 (about 500, *network.shape)."""
    devices = numbers(0, min(task.fleet_size or MAX_DEVICES, MAX_DEVICES))
    each = -(-SAMPLES // len(devices))
    x, _ = core.samples(task.stream(devices, 0, each), network.plan, devices, 0, each)
    return np.ascontiguousarray(x.reshape(-1, *network.shape))
