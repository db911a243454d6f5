"""What a round of a line of a study costs on a device: memory, samples held, bytes and, on a board, time and energy."""

from typing import Any

from tinyfl.algorithms import Returns
from tinyfl.building import boards
from tinyfl.costs import learning_cost, traffic_of
from tinyfl.runs.learner import down_of
from tinyfl.studies.plan import Line


def device_cost(line: Line, board: str) -> dict[str, Any]:
    """The cost of a round as plain data. ``learner_bytes`` is what the learner takes, ``held`` the samples that the device has
    to hold at once, and ``held_bytes`` what those take beyond the one that it learns from; ``down`` and ``up`` are bytes on the
    line. With ``board``, ``on`` has what its firmware takes as a whole, and the time and energy of learning and of the link; no
    board runs MAML.

    Raises ConfigError for a board that is none, and the errors of building its firmware.
    """
    network, inner = line.network, line.inner
    sample = 4 * (network.inputs + network.outputs)
    down = down_of(line.config, network)
    traffic = traffic_of(network, inner, down=down)
    cost = {
        "learner_bytes": network.arena_bytes(inner) + down.held_bytes,
        "held": inner.held,
        "held_bytes": (inner.held - 1) * sample,
        "down": traffic.down,
        "up": traffic.up,
        "gradients": inner.total,
    }
    runs = board and inner.returns is not Returns.meta_gradient
    return {**cost, "on": _on(line, board, cost["held_bytes"])} if runs else cost


def _on(line: Line, board: str, held_bytes: int) -> dict[str, Any]:
    (chosen,) = boards.select(board)
    found = learning_cost(line.network, chosen, inner=line.inner, down=down_of(line.config, line.network))
    work = found.work[-1]
    return {
        "board": found.board,
        "ram": found.ram.taken + held_bytes,
        "ram_available": found.ram.available,
        "fits": found.ram.taken + held_bytes <= found.ram.available and found.flash.fits,
        "flash": found.flash.taken,
        "instructions": work.instructions,
        "counted": work.measured,
        "seconds": work.seconds,
        "millijoules": work.millijoules,
        "link_seconds": found.link_seconds,
    }
