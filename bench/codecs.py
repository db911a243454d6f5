"""What codecs cost on a board: flash, and instructions to encode and to decode 10,000 weights, counted in emulation.

python bench/codecs.py
"""

import hashlib
import subprocess
import tempfile
import time
from pathlib import Path

from common import provenance

from tinyfl.algorithms import Inner
from tinyfl.building import boards
from tinyfl.building.toolchains import COMMON, SMALL, compiler, target
from tinyfl.codecs import Codec
from tinyfl.fleets.emulation import firmware
from tinyfl.link.board import LinkedBoard, Round, floats
from tinyfl.link.wire import MachineWire
from tinyfl.networks import Activation, Loss, network
from tinyfl.simulators.unicorn import Machine
from tinyfl.system.loop import in_loop

WEIGHTS = 10_000
CODECS = ("fp32", "fp16", "int8", "int4", "top:30", "top:10", "top:1")
BOARDS = {"mps2-an386": "Cortex-M4F", "mps2-an385": "Cortex-M3", "pico": "Cortex-M0+"}
REST, PREPARE, ENCODE, DECODE = range(4)
HERE = Path(__file__).parent


def counts(name: str) -> dict[str, tuple[float, float]]:
    """By codec, instructions a weight to encode and to decode."""
    board = boards.load(name)
    machine = Machine(firmware(board, "zig", sources=[HERE / "codecs.c"]).elf, board, 1)
    net = network("mlp-1", (1,), 1, Loss.mean_squared_error, Activation.relu)
    theta = net.initial_weights(0)

    async def measure() -> dict[str, tuple[float, float]]:
        linked = await LinkedBoard.connect(MachineWire(machine).open)
        await linked.put_plan(net.plan.bytes)

        async def spent(verb: int, samples: int, codec: Codec) -> int:
            """Instructions of a round of so many passes."""
            await linked.put_weights(theta)
            work, base = verb | codec.kind.value << 2 | codec.share << 5, hashlib.sha256(floats(theta)).digest()
            before = machine.instructions
            await linked.train(Round(0, work, 0, Inner(samples=samples, rate=0.0).to_bytes(), base, "codec"), 600.0)
            return machine.instructions - before

        async def a_pass(verb: int, codec: Codec) -> float:
            return (await spent(verb, 3, codec) - await spent(verb, 1, codec)) / 2

        await spent(PREPARE, 1, Codec.named("fp32"))
        found = {}
        for name in CODECS:
            codec = Codec.named(name)
            rest = await a_pass(REST, codec)
            found[name] = (await a_pass(ENCODE, codec) - rest) / WEIGHTS, (await a_pass(DECODE, codec) - rest) / WEIGHTS
        return found

    return in_loop(measure())


def flash(core: str) -> int:
    """Bytes of the codecs' code and constants."""
    command, _ = compiler(core, "zig")
    source, libc = boards.data("firmware") / "core" / "codec.c", boards.data("firmware") / "ports" / "cortex_m"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "codec.o"
        subprocess.run([*command, *target(core, "zig"), *COMMON, *SMALL, f"-I{libc}", "-c", source, "-o", made], check=True)
        return sections(made)


def sections(path: Path) -> int:
    """Bytes of the sections of an object file that a board holds in flash."""
    from elftools.elf.constants import SH_FLAGS
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as file:
        return sum(each["sh_size"] for each in ELFFile(file).iter_sections() if each["sh_flags"] & SH_FLAGS.SHF_ALLOC)


def main() -> None:
    began = time.monotonic()
    found = {name: counts(name) for name in BOARDS}
    print("| | " + " | ".join(f"{core}: encode | decode" for core in BOARDS.values()) + " |")
    print("| --- |" + " ---: | ---: |" * len(BOARDS))
    for codec in CODECS:
        print(f"| {codec} | " + " | ".join(f"{of[codec][0]:.1f} | {of[codec][1]:.1f}" for of in found.values()) + " |")
    print("| flash, all codecs | " + " | ".join(f"{flash(boards.load(name).core):,} bytes | " for name in BOARDS) + "|")
    print(f"\n{provenance()}; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
