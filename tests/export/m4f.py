"""The core's int8 inference on an emulated Cortex-M4F: its functions alone, called in a bare image, without agent or port."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.building.toolchains import COMMON, CORES, FAST, LITERAL, OURS
from tinyfl.int8.program import Program

FIRMWARE = Path(__file__).parents[2] / "firmware"
CODE, PROGRAM, RAM, STACK, RETURN = 0x10000, 0x100000, 0x20000000, 0x2FFF0000, 0xF000
TEST_MAIN = """
#include <string.h>

#include "program.h"
int run(const void *bytes, size_t count, void *arena, size_t room, const char *in, char *out, size_t batch)
{
    tinyfl_program p;
    int code = tinyfl_program_open(&p, bytes, count);
    for (; code == TINYFL_OK && batch > 0; batch--, in += p.input.bytes, out += p.output.bytes) {
        memcpy((char *)arena + p.input.offset, in, p.input.bytes);
        code = tinyfl_program_run(&p, arena, room);
        memcpy(out, (char *)arena + p.output.offset, p.output.bytes);
    }
    return code;
}
"""


def image(folder: Path, toolchain: str = "zig") -> Path:
    """An ELF file of the core's inference, linked to CODE with `run` first."""
    gcc, triple, processor = CORES["cortex-m4f"]
    if toolchain == "zig":
        command = [sys.executable, "-m", "ziglang", "cc", "-target", triple, f"-mcpu={processor}", "-fno-sanitize=all"]
    else:
        command = ["arm-none-eabi-gcc", *gcc]
    command += ["-mthumb", "-ffreestanding", *COMMON, *OURS]
    command += [f"-I{FIRMWARE / 'core'}", f"-I{FIRMWARE / 'ports' / 'cortex_m'}"]
    main = folder / "main.c"
    main.write_text(TEST_MAIN)
    sources = [
        (main, ("-Os",)),
        *((FIRMWARE / "core" / f"{n}.c", FAST[toolchain]) for n in ("program", "windows", "elementwise")),
    ]
    sources.append((FIRMWARE / "ports" / "cortex_m" / "memory.c", LITERAL[toolchain]))
    objects = []
    for source, flags in sources:
        objects.append(folder / f"{toolchain}-{source.stem}.o")
        _run([*command, *flags, "-c", str(source), "-o", str(objects[-1])])
    elf = folder / f"{toolchain}.elf"
    script = folder / "image.ld"
    script.write_text(
        f"SECTIONS {{ . = {CODE:#x}; .text : {{ *(.text .text.* .rodata .rodata.*) }} /DISCARD/ : {{ *(.ARM.*) }} }}"
    )
    link = ["-nostdlib", "-T", str(script), "-Wl,-e,run", "-Wl,--gc-sections"]
    link.append("-rtlib=compiler-rt" if toolchain == "zig" else "-lgcc")
    _run([*command[: command.index("-std=c99")], *map(str, objects), *link, "-o", str(elf)])
    return elf


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Board:
    """An emulated core with the image in it."""

    def __init__(self, elf: Path) -> None:
        import unicorn
        from elftools.elf.elffile import ELFFile
        from unicorn import arm_const

        self.arm = arm_const
        self.core: Any = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        self.core.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_M4)
        self.core.mem_map(0, 1 << 24)
        self.core.mem_map(RAM, 1 << 28)
        with elf.open("rb") as file:
            read = ELFFile(file)
            for segment in read.iter_segments("PT_LOAD"):
                self.core.mem_write(segment["p_vaddr"], segment.data())
            self.entry = read.header["e_entry"]

    def run(self, program: Program, x: NDArray[Any]) -> NDArray[Any]:
        """As tinyfl.int8.native.run_native, on the board; x raw."""
        arm, core = self.arm, self.core
        inputs = RAM + (program.arena_bytes + 15) // 16 * 16
        outputs = inputs + x.nbytes
        core.mem_write(PROGRAM, program.content)
        core.mem_write(inputs, x.tobytes())
        registers = (PROGRAM, len(program.content), RAM, program.arena_bytes)
        for register, value in zip(range(arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R0 + 4), registers, strict=True):
            core.reg_write(register, value)
        core.mem_write(STACK, b"".join(value.to_bytes(4, "little") for value in (inputs, outputs, len(x))))
        core.reg_write(arm.UC_ARM_REG_SP, STACK)
        core.reg_write(arm.UC_ARM_REG_LR, RETURN | 1)
        core.emu_start(self.entry | 1, RETURN)
        assert core.reg_read(arm.UC_ARM_REG_R0) == 0
        shape = (len(x), *program.output.shape)
        size = len(x) * program.output.bytes
        return np.frombuffer(bytes(core.mem_read(outputs, size)), program.output.dtype).reshape(shape)
