"""TFLite files out of networks, by TensorFlow's converter."""

import numpy as np

from tinyfl import core
from tinyfl.core import F32
from tinyfl.networks import Network
from tinyfl.networks.keras import to_keras
from tinyfl.system.installed import quiet, tensorflow_part
from tinyfl.tasks import Task, numbers

SAMPLES, MAX_DEVICES = 500, 100


def convert(network: Network, theta: F32, representative: F32 | None = None) -> bytes:
    """A .tflite file of ``network`` with weights ``theta``: float32, or, with ``representative`` inputs (samples, *shape)
    float32, whose ranges it takes, int8 throughout, input and output too.

    It takes (1, *shape) and gives (1, outputs), as the core does: logits where the loss is a cross-entropy. The same arguments
    give the same bytes. Raises ConfigError for what TensorFlow cannot run, InstallError without it.
    """
    tf = tensorflow_part("tensorflow")
    model = to_keras(network, theta)
    # Constants in place of variables: the converter then has nothing to freeze, and one graph of fixed shapes.
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
    """Inputs that training devices of ``task`` see, from up to 100 devices: float32 (about 500, *network.shape)."""
    devices = numbers(0, min(task.fleet_size or MAX_DEVICES, MAX_DEVICES))
    each = -(-SAMPLES // len(devices))
    x, _ = core.samples(task.stream(devices, 0, each), network.plan, devices, 0, each)
    return np.ascontiguousarray(x.reshape(-1, *network.shape))
