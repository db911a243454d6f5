"""Toolchains: the compilers for firmware, and their flags for each core."""

import shutil
import subprocess
import sys
from importlib import metadata, util
from typing import Literal

from tinyfl.errors import ConfigError, InstallError

Toolchain = Literal["zig", "gcc"]
TOOLCHAINS: tuple[Toolchain, ...] = ("zig", "gcc")

# gcc's flags, zig's target, and zig's processor with its FPU, since thumb-freestanding-eabi alone means soft float.
CORES = {
    "cortex-m0plus": (["-mcpu=cortex-m0plus", "-masm-syntax-unified"], "thumb-freestanding-eabi", "cortex_m0plus"),
    "cortex-m3": (["-mcpu=cortex-m3"], "thumb-freestanding-eabi", "cortex_m3"),
    "cortex-m4f": (
        ["-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"],
        "thumb-freestanding-eabihf",
        "cortex_m4+vfp4d16sp",
    ),
    "cortex-m7f": (
        ["-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"],
        "thumb-freestanding-eabihf",
        "cortex_m7+fp_armv8d16sp",
    ),
    "cortex-m33f": (
        ["-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"],
        "thumb-freestanding-eabihf",
        "cortex_m33+fp_armv8d16sp",
    ),
}
# The same for programs of Linux, linked statically, so that the device needs no library. Elsewhere qemu-CORE runs them.
LINUX = {"aarch64": (["-march=armv8-a"], "aarch64-linux-musl", "generic")}

# No fused multiply-add, so that every target computes the same bits (firmware/SPEC.md, arithmetic).
COMMON = [
    "-std=c99",
    "-g",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-ffunction-sections",
    "-fdata-sections",
    "-Wall",
    "-Wextra",
]
OURS = ["-Wconversion", "-Werror"]
# Speed matters in the files with kernels only. Their blocks (core/dense.h) are fast once their loops are unrolled.
# gcc does so at -O3 only; zig at -O2 already, but it unrolls everything else too, to 20,000 bytes, and spills a block of 8.
# Instructions of one SGD step of 1-32-32-1 (relu) on a Cortex-M4F, and bytes of the core:
#   gcc  -Os 33,457 and 5,034; -O2 32,933 and 6,864; -O3 15,058 and 7,772
#   zig  -Os 43,176 and 5,978; -O2 18,132 and 20,430; -Os, unrolled 18,128 and 6,906; the same with blocks of 4 16,549 and 6,148
SMALL = ("-Os",)
KERNELS = ("learner.c", "windows.c", "elementwise.c", "random.c", "sine.c")
FAST = {"gcc": ("-O3",), "zig": ("-Os", "-mllvm", "-unroll-threshold=400", "-DTINYFL_BLOCK=4"), "process": ("-O3",)}
# The compiler must not replace the loops inside memcpy and the like by calls to themselves.
LITERAL = {"gcc": ("-O2", "-fno-builtin", "-fno-tree-loop-distribute-patterns"), "zig": ("-Os", "-fno-builtin")}
FREESTANDING = ["-mthumb", "-ffreestanding", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables"]


def compiler(core: str, toolchain: Toolchain) -> tuple[list[str], str]:
    """The compiler command for ``core``, and the compiler's version.

    Raises ConfigError for an unknown toolchain, InstallError if it is not installed.
    """
    if toolchain not in TOOLCHAINS:
        raise ConfigError(f"no toolchain is called {toolchain!r}. There are: {', '.join(TOOLCHAINS)}.")
    if core == "host":
        name, cure = "cc", "apt-get install gcc libc6-dev"
    elif toolchain == "gcc" and core in LINUX:
        name, cure = f"{core}-linux-gnu-gcc", f"apt-get install gcc-{core}-linux-gnu, or use --toolchain zig"
    elif toolchain == "gcc":
        name, cure = "arm-none-eabi-gcc", "apt-get install gcc-arm-none-eabi, or use --toolchain zig"
    elif util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"], metadata.version("ziglang")
    else:
        raise InstallError("ziglang, the default toolchain, is not installed. Run: pip install 'tinyfl[firmware]'")
    path = shutil.which(name)
    if not path:
        raise InstallError(f"{name} is not on the PATH. Run: {cure}.")
    return [path], subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout


def target(core: str, toolchain: Toolchain) -> list[str]:
    """Compiler flags for ``core``."""
    if core == "host":
        return []
    gcc, triple, processor = CORES[core] if core in CORES else LINUX[core]
    flags = gcc if toolchain == "gcc" else ["-target", triple, f"-mcpu={processor}", "-fno-sanitize=all"]
    return [*flags, *(FREESTANDING if core in CORES else ["-static"])]
