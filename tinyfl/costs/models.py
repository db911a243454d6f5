"""Loads a model by a user's name for it: a run, a file, or a network."""

from pathlib import Path
from typing import TYPE_CHECKING

from tinyfl.algorithms import Inner, with_layers
from tinyfl.codecs import Codec
from tinyfl.codecs.down import PLAIN, Down
from tinyfl.config import resolve
from tinyfl.errors import ConfigError
from tinyfl.errors.words import guess
from tinyfl.networks import FAMILIES, KERAS, REFERENCE, Network, demand_named, is_file, is_named, network, reference
from tinyfl.networks.layers import Activation, Loss, Shape
from tinyfl.registry.own import own_code
from tinyfl.runs.learner import down_of

if TYPE_CHECKING:
    from tinyfl.int8.native import Program


def load_model(name: str, shape: Shape | None = None, outputs: int = 0, algorithm: str | None = None) -> "Network | Program":
    """Loads the model ``name``: an int8 .tflite; a .keras or .h5 file; a run's directory or an .npz of tinyfl; a
    reference network; or a network's name, which needs ``shape`` and ``outputs``. A named network is without head if
    ``algorithm`` trains prototypes.

    Raises ConfigError for an unknown name, and the errors of reading the file.
    """
    path = Path(name)
    own = name in REFERENCE or is_file(name) or path.suffix == ".tflite" or path.is_dir()
    if own and (shape is not None or outputs):
        raise ConfigError(f"{name} has its own inputs and outputs: leave --shape and --outputs out.")
    if path.suffix == ".tflite":
        from tinyfl.int8.native import load_program

        return load_program(path)
    if name.endswith(KERAS):
        from tinyfl.networks.keras import from_keras

        return from_keras(path)[0]
    if path.suffix == ".npz" or path.is_dir():
        from tinyfl.runs.adaptation import Initialisation

        return Initialisation.load(path).network
    loss = Loss.softmax_cross_entropy
    if algorithm is not None and resolve(own_code({"algorithm": algorithm})).chosen("algorithm").trains == "prototypes":
        loss = Loss.prototypes
    if name in REFERENCE:
        return reference(name, loss)
    if not is_named(name):
        alike = guess(name, [*REFERENCE, *(f"{family}-{name.partition('-')[2]}" for family in FAMILIES)])
        raise ConfigError(f"there is no run, file or network {name}. {alike}See: tinyfl plan --help, docs/models.md.")
    demand_named(name)
    if shape is None or outputs < 1:
        raise ConfigError(
            f"network {name} needs --shape and --outputs, such as --shape 28x28x1 --outputs 5. Or name one of "
            f"{', '.join(REFERENCE)}, a run's directory, or a .keras, .h5 or .tflite file."
        )
    return network(name, shape, outputs, loss, Activation.leaky_relu)


def read_shape(text: str) -> Shape:
    """Parses a shape from the command line: 43, 49x40 or 28x28x1.

    Raises ConfigError for a malformed shape.
    """
    sizes = text.split("x")
    if not all(size.isdecimal() and int(size) for size in sizes) or len(sizes) > 3:
        raise ConfigError(f"--shape {text} is not a shape. Give inputs, such as 43, or rows, columns and channels: 28x28x1.")
    shape = tuple(map(int, sizes))
    return (*shape, 1) if len(shape) == 2 else shape


def inner_loop(
    model: "Network | Program",
    algorithm: str | None,
    samples: int | None,
    batch: int | None,
    up: str = "fp32",
    feedback: bool = False,
) -> Inner:
    """The inner loop to count for a network: of the algorithm's first round, or ``samples`` in batches, whose update goes
    ``up`` in this codec, with ``feedback`` if a device keeps what that loses.

    Raises ConfigError for numbers that no device can run, an algorithm that has not these settings, feedback without a codec,
    or an algorithm for a model that does not learn.
    """
    codec = Codec.named(resolve({"up": up, "feedback": feedback}).up)
    if algorithm is None and isinstance(model, Network) and model.embeds:
        algorithm = "protonet"
    if algorithm is None:
        plain = Inner(samples=32 if samples is None else samples, batch=1 if batch is None else batch, rate=0.0)
        return plain.sent_as(codec, feedback)
    if not isinstance(model, Network):
        raise ConfigError("an int8 model cannot learn: leave --algorithm out.")
    given = own_code({"algorithm": algorithm, "samples": samples, "batch": batch})
    return with_layers(resolve(given).build(), model.weighted_layers).inner(0).sent_as(codec, feedback)


def way_down(model: "Network | Program", down: str, delta: bool) -> Down:
    """How theta goes down to boards with the model.

    Raises ConfigError for a codec that is none, or a change without one.
    """
    if not isinstance(model, Network):
        return PLAIN
    return down_of(resolve({"down": down, "delta": delta}), model)
