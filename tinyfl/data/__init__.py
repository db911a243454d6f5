"""A user's own data, wherever they come from, as plain arrays (docs/tasks.md)."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Table:
    """Samples of many devices, a row each, as they are in their source: nothing is checked or scaled yet.

    ``source`` names the source in messages. ``x`` is (rows, *a sample's shape), ``y`` (rows,) or (rows, outputs), and
    ``device`` (rows,) has each row's device by name or number. ``split`` lists the devices to hold out, ``validation``
    those that choose adaptation rates, and ``classes`` the classes that episodes of classes hold out; None leaves the
    choice to the seed. ``class_names`` are y's classes in the order of their numbers, for a sensor's samples; None: their
    own order. ``names`` are the inputs' names; empty if they have none. ``notes`` describe what the reader did, for people.
    """

    source: str
    x: NDArray[Any]
    y: NDArray[Any]
    device: NDArray[Any]
    split: NDArray[Any] | None = None
    validation: NDArray[Any] | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    classes: NDArray[Any] | None = None
    class_names: NDArray[Any] | None = None


@dataclass(frozen=True)
class Reading:
    """How a user's data are read, and used. Empty names of columns are found by convention (tinyfl.data.columns).

    ``input_columns`` are separated by commas. ``window`` rows, or 0 for none, make a sample, every ``stride`` rows (0: as
    many). ``missing`` is "mean", that of the training devices, or "refuse". With ``drop_small``, devices with no more than
    ``shots`` samples are not evaluated. With ``balance``, a device's stream has its classes equally often. ``targets`` is the
    kind of y, as in tinyfl.config.Config. ``episodes`` of "classes" are of ``ways`` classes each; those of algorithms that
    train prototypes or classes, of ``training_ways`` (0: as many).
    """

    label_column: str = ""
    device_column: str = ""
    input_columns: str = ""
    window: int = 0
    stride: int = 0
    missing: str = "mean"
    drop_small: bool = False
    balance: bool = False
    shots: int = 0
    targets: str = ""
    episodes: str = ""
    ways: int = 5
    training_ways: int = 0


USUAL = Reading()
"""Everything by convention."""
