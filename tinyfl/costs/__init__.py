"""The cost of a model on a board, before flashing: RAM, flash, instructions, seconds and millijoules.

Bytes are exact, from the linked firmware and the plan. Instructions are counted in emulation if the board has an emulator and
the model fits, else estimated from the network's multiplications. Seconds assume CYCLES_PER_INSTRUCTION, not yet confirmed on
silicon; millijoules are seconds times the board's power while it computes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tinyfl.algorithms import ALL, Inner, Returns, demand_for_boards
from tinyfl.building import boards
from tinyfl.building.boards import Board
from tinyfl.building.build import Firmware
from tinyfl.building.toolchains import Toolchain
from tinyfl.codecs.down import PLAIN, Down
from tinyfl.errors import ConfigError, DoesNotFit, InstallError
from tinyfl.link import PROGRAM_HEADER, WEIGHTS_HEADER
from tinyfl.link.line import BITS_PER_BYTE
from tinyfl.link.traffic import BUFFER, HASH, Traffic, round_traffic
from tinyfl.networks import Network
from tinyfl.networks.layers import Kind

if TYPE_CHECKING:
    from tinyfl.int8.native import Program

CYCLES_PER_INSTRUCTION = 1.5
"""Assumed: a Cortex-M4F takes 1 cycle for most instructions, 2 for a load by itself, 3 for a multiply-add, and waits for
flash."""

MESSAGE_BYTES = 64
"""Overhead of a block of an inference's input or output and its reply, in bytes: headers, CBOR keys, checksums, framing."""

# Instructions per multiplication (dense and convolution; depthwise) and per output of a layer: forward pass, then learning
# step. Fitted to three networks on mps2 boards with zig; for other shapes the error may reach 50 %.
_FLOAT_UNIT = ((3.2, 10.0, 61.0), (11.6, 38.0, 100.0))
_INT8 = 4.0  # per step of a program's inner loops
_SOFT_FLOAT = ((110.0, 344.0, 0.0), (326.0, 800.0, 0.0))


_PROCESS = "{} is a process, without a memory limit. Name a board with a chip."

T = TypeVar("T")


ROUND = Inner(samples=32, rate=0.0)
"""The usual round to count: TinyReptile's."""

HELD = "theta held"
"""The part of RAM for the weights whose change goes down."""


@dataclass(frozen=True)
class Room:
    """One kind of memory, in bytes: the size of each part, and the bytes available."""

    parts: Mapping[str, int]
    available: int

    @property
    def taken(self) -> int:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.taken <= self.available


@dataclass(frozen=True)
class Operation:
    """An operation and its cost. ``measured``: counted in emulation; ``millijoules`` is None if the power is unknown."""

    what: str
    instructions: int
    seconds: float
    millijoules: float | None
    measured: bool


@dataclass(frozen=True)
class Cost:
    """The cost of a model on a board."""

    model: str
    board: str
    ram: Room
    flash: Room
    slot: Room
    """Flash for a committed model."""
    work: Sequence[Operation]
    link_bytes: int
    """Bytes of a round, down and up."""
    link_seconds: float
    from_slot: bool = False
    """The model runs from its slot, so it must fit there."""

    @property
    def rooms(self) -> tuple[Room, Room, Room]:
        return self.ram, self.flash, self.slot

    @property
    def fits(self) -> bool:
        """Whether the model runs on the board. A learning model runs in RAM; it needs its slot only for a commit."""
        return self.ram.fits and self.flash.fits and (self.slot.fits or not self.from_slot)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        rooms = {
            name: {"parts": dict(room.parts), "taken": room.taken, "available": room.available, "fits": room.fits}
            for name, room in zip(("ram", "flash", "slot"), self.rooms, strict=True)
        }
        work = [asdict(each) for each in self.work]
        link = {"bytes": self.link_bytes, "seconds": self.link_seconds, "measured": False}
        return {"model": self.model, "board": self.board, "fits": self.fits, **rooms, "work": work, "link": link}


def learning_cost(
    network: Network,
    board: Board,
    *,
    inner: Inner = ROUND,
    down: Down = PLAIN,
    toolchain: Toolchain = "zig",
    sources: Sequence[Path] = (),
) -> Cost:
    """The cost of learning with ``network`` on ``board``, in rounds with the inner loop ``inner`` to which theta goes ``down``,
    with the user's ``sources`` in its firmware.

    Raises ConfigError for a board that is a process, for what no board runs, and the errors of ``build``.
    """
    demand_for_boards(inner)
    from tinyfl.costs.counted import instructions
    from tinyfl.fleets.emulation import firmware

    if board.memory is None:
        raise ConfigError(_PROCESS.format(board.name))
    built = firmware(board, toolchain, sources=sources)
    ram = _ram(network, built, inner, down)
    slot = {"header": WEIGHTS_HEADER, "plan": len(network.plan.bytes), "weights": 4 * network.parameters}
    counts = _if_emulated(board, lambda: instructions(network, board, inner.batch, toolchain)) if ram.fits else None
    forward, step = counts or _estimated(network, board)
    again = inner.taken - inner.total  # support samples, whose class means come first
    traffic = traffic_of(network, inner, board.buffer, down)
    down_and_up = traffic.down + traffic.up
    sizes = built.size
    assert sizes is not None
    return Cost(
        network.name,
        board.name,
        ram,
        Room(dict(sizes.flash), board.memory.program.size),
        Room(slot, board.memory.slots[0].size),
        (
            _work("infer", forward, board, counts is not None),
            _work("learn", step, board, counts is not None),
            _work(f"{inner.total} steps", inner.total * step + again * forward, board, counts is not None),
        ),
        down_and_up,
        down_and_up * BITS_PER_BYTE / board.links[0].baud,
    )


def traffic_of(network: Network, inner: Inner, buffer: int = BUFFER, down: Down = PLAIN, *, whole: bool = False) -> Traffic:
    """The bytes on the line of a round for a device with ``network``, the longest of whose messages has ``buffer`` bytes. A
    device that did not take part in the round before gets theta ``whole``, if others get its change."""
    return sum(parts_of(network, inner, buffer, down, whole=whole).values(), start=Traffic())


def parts_of(
    network: Network, inner: Inner, buffer: int = BUFFER, down: Down = PLAIN, *, whole: bool = False
) -> dict[str, Traffic]:
    """The same by part of the round."""
    return round_traffic(
        bytes_down(network, down, whole), bytes_up(network, inner), inner.to_bytes(), buffer,
        encoded=not (down.plain or (down.delta and whole)), onto=(0 if whole else HASH) if down.delta else None,
    )  # fmt: skip


def bytes_down(network: Network, down: Down = PLAIN, whole: bool = False) -> int:
    """The bytes of theta for a device in a round."""
    return 4 * network.parameters if down.plain else down.bytes(whole)


def bytes_up(network: Network, inner: Inner) -> int:
    """The bytes of a device's update, at most."""
    return inner.up.bytes(network.arrays(ALL & ~inner.local))


def bytes_of_run(network: Network, inner: Inner, down: Down, device_rounds: int, whole: int) -> dict[str, Any]:
    """The bytes of a run of so many ``device_rounds``, down and up, as in its JSON; in ``whole`` of them the device was not in
    the round before. Those on the line are with messages and frames: by part of the round, how many are due to such devices,
    and how many they were if all weights went as float32."""
    first, later = (parts_of(network, inner, down=down, whole=new) for new in (True, False))
    others = device_rounds - whole
    line = {
        part: {
            "down": whole * first[part].down + others * later[part].down,
            "up": whole * first[part].up + others * later[part].up,
        }
        for part in later
    }
    all = 4 * network.parameters
    plain = sum(round_traffic(all, all, inner.to_bytes()).values(), start=Traffic())
    return {
        "bytes_down": whole * bytes_down(network, down, whole=True) + others * bytes_down(network, down),
        "bytes_up": device_rounds * bytes_up(network, inner),
        "line_bytes_down": sum(each["down"] for each in line.values()),
        "line_bytes_up": sum(each["up"] for each in line.values()),
        "line_bytes_by_part": line,
        "line_bytes_new": whole * sum(first[part].down - later[part].down for part in later),
        "line_bytes_fp32": device_rounds * (plain.down + plain.up),
    }


def inference(
    program: "Program", board: Board, *, name: str, toolchain: Toolchain = "zig", sources: Sequence[Path] = ()
) -> Cost:
    """The cost of inference with an int8 ``program``, called ``name``, from its slot on ``board``, with the user's ``sources``.

    Raises the errors of ``learning_cost``.
    """
    from tinyfl.costs.counted import instructions_of_program
    from tinyfl.fleets.emulation import firmware

    if board.memory is None:
        raise ConfigError(_PROCESS.format(board.name))
    built = firmware(board, toolchain, sources=sources)
    ram = Room({**_fixed(built), "arena": program.arena_bytes}, board.memory.ram.size)
    slot = Room({"header": PROGRAM_HEADER, "program": len(program.content)}, board.memory.inference.size)
    counted = (
        _if_emulated(board, lambda: instructions_of_program(program, board, toolchain)) if ram.fits and slot.fits else None
    )
    count = counted if counted is not None else ceil(_INT8 * program.work)
    payload = sum(_one_way(end.bytes, board) for end in (program.input, program.output))
    assert built.size
    return Cost(
        name,
        board.name,
        ram,
        Room(dict(built.size.flash), board.memory.program.size),
        slot,
        (_work("infer", count, board, counted is not None),),
        payload,
        payload * BITS_PER_BYTE / board.links[0].baud,
        from_slot=True,
    )


def _if_emulated(board: Board, count: Callable[[], T]) -> T | None:
    """The result of ``count``; None if the board or this installation has no emulator."""
    if board.unicorn is None:
        return None
    try:
        return count()
    except InstallError:
        return None


def _fixed(built: Firmware) -> dict[str, int]:
    """RAM in use whatever the model. Padding aligns the arena."""
    memory, size = built.board.memory, built.size
    assert memory is not None
    assert size is not None
    source = size.parts["source"][1] if "source" in size.parts else 0
    agent = sum(size.ram.values()) - memory.stack - source
    padding = memory.ram.size - memory.stack - agent - source - size.arena
    return {
        "stack": memory.stack,
        "agent": agent,
        **({"sources": source} if source else {}),
        **({"padding": padding} if padding else {}),
    }


def _ram(network: Network, built: Firmware, inner: Inner, down: Down) -> Room:
    assert built.board.memory is not None
    weights, plan = 4 * network.parameters, len(network.plan.bytes)
    parts = {**_fixed(built), "plan": plan, "weights": weights}
    parts["activations and deltas"] = network.ram_bytes() - weights
    parts["sample"] = 4 * (network.inputs + network.outputs)
    further = {
        HELD: down.held_bytes,
        "two blocks of what is kept": 8 * network.plan.kept_floats(inner.to_bytes()),
        "gradient": weights if inner.batch > 1 or inner.returns is Returns.gradient or inner.ways else 0,
        "copy of theta": weights if inner.holds_theta else 0,
        "class means and their gradients": 8 * inner.ways * (network.outputs + 1),
    }
    return Room({**parts, **{name: size for name, size in further.items() if size}}, built.board.memory.ram.size)


def _estimated(network: Network, board: Board) -> tuple[int, int]:
    multiplies = {True: 0, False: 0}
    for layer in network.placed:
        multiplies[layer.kind is Kind.depthwise] += layer.multiplies
    outputs = sum(a * b * c for a, b, c in (layer.output for layer in network.placed))
    forward, step = (
        ceil(each * multiplies[False] + depthwise * multiplies[True] + output * outputs)
        for each, depthwise, output in (_FLOAT_UNIT if board.core.endswith("f") else _SOFT_FLOAT)
    )
    return forward, step


def _work(what: str, instructions: int, board: Board, measured: bool) -> Operation:
    seconds = instructions * CYCLES_PER_INSTRUCTION / board.clock
    return Operation(what, instructions, seconds, seconds * board.milliwatts if board.milliwatts else None, measured)


def _one_way(payload: int, board: Board) -> int:
    """Bytes on the link for a payload, in blocks of the board's message size."""
    return payload + MESSAGE_BYTES * ceil(payload / (board.buffer - MESSAGE_BYTES))


def on_boards(
    model: "Network | Program",
    board: str,
    *,
    name: str,
    freeze: int,
    inner: Inner,
    down: Down = PLAIN,
    toolchain: Toolchain,
    sources: Sequence[Path] = (),
) -> list[Cost]:
    """The costs of ``model`` on these boards (boards.select), or on ``all`` boards with a chip, with the user's ``sources``.

    Raises ConfigError for an option that does not apply to the model, and the errors of ``build``.
    """
    selection = [each for each in boards.select(board) if each.memory or board != "all"]
    if isinstance(model, Network):
        network = model.frozen(freeze)
        given: dict[str, Any] = {"inner": inner, "down": down, "toolchain": toolchain, "sources": sources}
        return [learning_cost(network, each, **given) for each in selection]
    if freeze:
        raise ConfigError("an int8 model cannot learn: leave --freeze out.")
    return [inference(model, each, name=name, toolchain=toolchain, sources=sources) for each in selection]


def demand_fit(model: "Network | Program", costs: Sequence[Cost], *, freeze: int, inner: Inner) -> None:
    """Raises DoesNotFit, with a cure, if ``model`` fits none of the boards in ``costs``."""
    if any(cost.fits for cost in costs):
        return
    if isinstance(model, Network):
        raise _refusal(model.frozen(freeze), costs[0], inner)
    raise _refusal_of_program(model, costs[0])


def _refusal(network: Network, cost: Cost, inner: Inner) -> DoesNotFit:
    need = network.arena_bytes(inner) + cost.ram.parts.get(HELD, 0)
    fixed = cost.ram.available - cost.ram.taken + need
    return DoesNotFit(
        f"{network.name} needs {need:,} bytes of RAM to learn; {cost.board} has {fixed:,} "
        f"({cost.ram.available:,} less {cost.ram.available - fixed:,} for the stack and the agent). "
        f"{_cure(network, cost, fixed, inner)} --board all shows every board."
    )


def _cure(network: Network, cost: Cost, room: int, inner: Inner) -> str:
    """Settings that fit into ``room`` bytes, or boards that fit the network."""
    cures, held = [], cost.ram.parts.get(HELD, 0)
    if held and network.arena_bytes(inner) <= room:
        cures.append(f"without --delta ({network.arena_bytes(inner):,} bytes)")
    if inner.residual and (need := network.arena_bytes(inner.sent_as(inner.up)) + held) <= room:
        cures.append(f"without --feedback ({need:,} bytes)")
    if inner.batch > 1 and not inner.needs and network.arena_bytes() + held <= room:
        cures.append(f"in batches of 1 ({network.arena_bytes() + held:,} bytes)")
    for count in range(1, network.weighted):
        need = network.frozen(count).arena_bytes(inner) + held
        if need <= room:
            cures.append(f"with --freeze {count} ({need:,} bytes)")
            break
    larger = [name for name in boards.names() if _more_ram(name, cost) >= network.arena_bytes(inner) + held - room]
    if larger:
        cures.append(f"on {', '.join(larger)}")
    return f"It fits {', or '.join(cures)}." if cures else "Give a network with fewer weights or channels."


def _more_ram(name: str, cost: Cost) -> int:
    """Bytes of RAM of a board beyond those of ``cost``'s board; the agent takes about the same on all."""
    memory = boards.load(name).memory
    return memory.ram.size - memory.stack - cost.ram.available + cost.ram.parts["stack"] if memory else 0


def _refusal_of_program(program: "Program", cost: Cost) -> DoesNotFit:
    others = [name for name in boards.names() if (board := boards.load(name)).memory and _fits(board, program, cost)]
    where = f"It fits on {', '.join(others)}." if others else "Give a smaller model."
    fixed = cost.ram.available - cost.ram.taken + program.arena_bytes
    return DoesNotFit(
        f"the model needs {program.arena_bytes:,} bytes of RAM and a slot of {cost.slot.taken:,} bytes; {cost.board} has "
        f"{fixed:,} and {cost.slot.available:,}. {where}"
    )


def _fits(board: Board, program: "Program", cost: Cost) -> bool:
    assert board.memory is not None
    return _more_ram(board.name, cost) >= cost.ram.taken - cost.ram.available and cost.slot.taken <= board.memory.inference.size
