"""Boards that learn from their own sensor: whether it can feed a round, and a word where it does not."""

from collections.abc import Sequence

from tinyfl.algorithms import Inner
from tinyfl.errors import Dead, Late, LinkError, SensorFault
from tinyfl.link.board import LinkedBoard
from tinyfl.link.sensing import sensor_of
from tinyfl.networks import Network


def demand_sensor(board: LinkedBoard, name: str, network: Network, inner: Inner, classes: Sequence[str]) -> None:
    """Raises Refused for a board without the sensor, SensorFault for one that cannot feed ``network`` in this inner loop, or
    whose labels are not the task's ``classes`` in their order; empty if these have no names."""
    described = board.description
    if name in described.sources and all(each.name != name for each in described.sensors):
        return  # a source of another kind, which takes any index again
    sensor = sensor_of(board, name)
    if (sensor.inputs, sensor.outputs) != (network.inputs, network.outputs):
        raw = network.inputs == sensor.channels != sensor.inputs
        cure = (
            "These are the sensor's raw readings: give the run its C file, --source FILE.c, which makes samples of them."
            if raw
            else "Say --task sensor with samples of this sensor, or change .shape and .outputs in its C file."
        )
        raise SensorFault(
            f"sensor {name} gives {sensor.words}, and {network.name} has {network.inputs} inputs and {network.outputs} "
            f"outputs. {cure}"
        )
    if classes and sensor.labels and tuple(classes) != sensor.labels:
        raise SensorFault(
            f"sensor {name} numbers its classes {', '.join(sensor.labels)}, and the run's data {', '.join(classes)}: its "
            "samples would be learnt as others. Give the run its C file too, --source FILE.c, or the data an array class_names "
            "with the sensor's labels in their order."
        )
    if inner.taken > inner.samples:
        raise SensorFault(
            f"sensor {name} gives each sample once, and this inner loop takes {inner.taken:,} of {inner.samples:,}. Say "
            "--algorithm tinyreptile."
        )


def word_on(name: str, error: LinkError) -> str:
    """A word on the sensor ``name`` that may be the reason of ``error``; empty if there is none."""
    if not name or not isinstance(error, Late | Dead):
        return ""
    return (
        f" Sensor {name} may be slow: give --seconds more than a round of samples takes. Or its C file waits for ever: let "
        ".read return TINYFL_NOT_YET instead."
    )
