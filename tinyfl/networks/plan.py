"""The binary format of a plan, a network for a board (firmware/SPEC.md, plan)."""

import struct
from collections.abc import Sequence

from tinyfl.networks.layers import Activation, Kind, Loss, Placed

VERSION = 2
_HEADER, _LAYER = struct.Struct("<4sBBH"), struct.Struct("<BBBBHHHHBBBB")


def encode(layers: Sequence[Placed], loss: Loss) -> bytes:
    """Encodes a plan, for a board's slot.

    Raises ValueError for a number too large for its field.
    """
    try:
        return _HEADER.pack(b"TFLP", VERSION, loss, len(layers)) + b"".join(
            _LAYER.pack(
                each.kind, each.activation, each.learns, each.same, *each.input, each.channels, *each.kernel, *each.stride
            )
            for each in layers
        )
    except struct.error as error:
        raise ValueError("a layer has more than 65,535 rows, columns or channels, or a kernel or stride above 255") from error


def decode(plan: bytes) -> tuple[list[Placed], Loss]:
    """Decodes the layers and the loss of a plan.

    Raises ValueError for bytes that are not a plan.
    """
    try:
        magic, version, loss, count = _HEADER.unpack_from(plan)
        if (magic, version) != (b"TFLP", VERSION) or len(plan) != _HEADER.size + _LAYER.size * count:
            raise ValueError(f"{len(plan)} bytes are not a plan of version {VERSION}")
        rows = list(_LAYER.iter_unpack(plan[_HEADER.size :]))
    except struct.error as error:
        raise ValueError(f"{len(plan)} bytes are not a plan") from error
    return [
        Placed(Kind(row[0]), Activation(row[1]), bool(row[2]), bool(row[3]), row[4:7], row[7], row[8:10], row[10:12])
        for row in rows
    ], Loss(loss)
