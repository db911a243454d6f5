"""Damaged .tflite files and programs: made, compiled, and run by the core under sanitizers. As a program, many of them:

python tests/export/damage.py 100000 [SEED]
"""

import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flat import FUSED, PADDING, Flat

from tinyfl.errors import DataError
from tinyfl.int8.compile import compile_tflite

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "firmware" / "core"
SANITIZED = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all", "-g", "-O1"]
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-ffp-contract=off"]


def good_files() -> list[bytes]:
    """A model with every operator, and a few that are small enough for damage to hit what matters."""
    rng = np.random.default_rng(0)
    none, same = FUSED["none"], PADDING["same"]
    pooled = {"table": "Pool2DOptions", "padding": same, "strideH": 2, "strideW": 1, "filterHeight": 2, "filterWidth": 3}

    def windowed(flat: Flat, name: str, x: int, table: str, weights: tuple[int, ...], axis: int, **options: int) -> int:
        scale = (rng.random(weights[axis]) * 0.01 + 0.005).tolist()
        w = flat.tensor(weights, scale, data=rng.integers(-127, 128, weights), axis=axis)
        b = flat.tensor((weights[axis],), scale, dtype="INT32", data=rng.integers(-999, 999, weights[axis]))
        y = flat.tensor((1, 6, 5, 4), 0.05, 3)
        options |= {"padding": same, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        flat.op(name, [x, w, b], [y], 3, table=table, fusedActivationFunction=none, **options)
        return y

    def everything() -> bytes:
        f = Flat()
        x = f.tensor((1, 6, 5, 3), dtype="FLOAT32")
        q = f.tensor((1, 6, 5, 3), 0.04, -5)
        f.op("QUANTIZE", [x], [q], 1, table="QuantizeOptions")
        c = windowed(f, "CONV_2D", q, "Conv2DOptions", (4, 3, 3, 3), 0)
        d = windowed(f, "DEPTHWISE_CONV_2D", c, "DepthwiseConv2DOptions", (1, 3, 3, 4), 3, depthMultiplier=1)
        s = f.tensor((1, 6, 5, 4), 0.08, -20)
        f.op("ADD", [c, d], [s], 2, table="AddOptions", fusedActivationFunction=FUSED["relu6"])
        gate = f.tensor((1, 1, 1, 4), 0.01, 2, data=rng.integers(-128, 128, (1, 1, 1, 4)))
        m = f.tensor((1, 6, 5, 4), 0.02, 7)
        f.op("MUL", [s, gate], [m], 2, table="MulOptions", fusedActivationFunction=none)
        for name, out, zero, options in (
            ("RELU", 0.02, 0, {}),
            ("LEAKY_RELU", 0.03, 1, {"table": "LeakyReluOptions", "alpha": 0.1}),
            ("RELU6", 0.03, 1, {}),
            ("TANH", 1 / 128, 0, {}),
            ("LOGISTIC", 1 / 256, -128, {}),
        ):
            y = f.tensor((1, 6, 5, 4), out, zero)
            f.op(name, [m], [y], 1, **options)
            m = y
        p, a = (f.tensor((1, 3, 5, 4), 1 / 256, -128) for _ in range(2))
        f.op("MAX_POOL_2D", [m], [p], 2, fusedActivationFunction=none, **pooled)
        f.op("AVERAGE_POOL_2D", [m], [a], 2, fusedActivationFunction=none, **pooled)
        joined = f.tensor((1, 3, 5, 8), 1 / 256, -128)
        f.op("CONCATENATION", [p, a], [joined], 2, table="ConcatenationOptions", axis=3)
        margins = f.tensor((4, 2), dtype="INT32", data=[[0, 0], [1, 0], [0, 2], [0, 0]])
        wide = f.tensor((1, 4, 7, 8), 1 / 256, -128)
        f.op("PAD", [joined, margins], [wide], 2, table="PadOptions")
        axes = f.tensor((1,), dtype="INT32", data=[1])
        mean = f.tensor((1, 7, 8), 0.003, -128)
        f.op("MEAN", [wide, axes], [mean], 2, table="ReducerOptions", keepDims=False)
        line = f.tensor((1, 56), 0.003, -128)
        f.op("RESHAPE", [mean], [line], 1, table="ReshapeOptions", newShape=[1, 56])
        w = f.tensor((6, 56), 0.01, data=rng.integers(-127, 128, (6, 56)))
        y = f.tensor((1, 6), 0.05, 0)
        f.op("FULLY_CONNECTED", [line, w, -1], [y], 4, table="FullyConnectedOptions", fusedActivationFunction=none)
        soft, z = f.tensor((1, 6), 1 / 256, -128), f.tensor((1, 6), dtype="FLOAT32")
        f.op("SOFTMAX", [y], [soft], 2, table="SoftmaxOptions", beta=1.0)
        f.op("DEQUANTIZE", [soft], [z], 2, table="DequantizeOptions")
        return f.content([x], [z])

    def convolution() -> bytes:
        f = Flat()
        x = f.tensor((1, 6, 5, 2), 0.04, -5)
        y = windowed(f, "CONV_2D", x, "Conv2DOptions", (4, 2, 3, 2), 0)
        return f.content([x], [y])

    def dense() -> bytes:
        f = Flat()
        x, y = f.tensor((1, 12), 0.05, 1), f.tensor((1, 5), 0.05, 0)
        w = f.tensor((5, 12), 0.01, data=rng.integers(-127, 128, (5, 12)))
        f.op("FULLY_CONNECTED", [x, w, -1], [y], 4, table="FullyConnectedOptions", fusedActivationFunction=none)
        return f.content([x], [y])

    return [everything(), convolution(), dense()]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One to four flipped bits, strange bytes, strange or moved words; now and then a piece cut out or put in."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        kind = rng.randrange(8)
        if kind < 2:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at] = rng.randrange(256)
        elif kind < 6:
            at &= ~3
            word = rng.choice([0, 1, 2, 3, 127, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1, rng.getrandbits(rng.randint(1, 32))])
            if kind == 5 and len(data) >= 8:
                (word,) = struct.unpack_from("<I", data, rng.randrange(len(data) - 4) & ~3)
            data[at : at + 4] = struct.pack("<I", word)[: len(data) - at]
        elif rng.randrange(6) == 0:
            del data[at : at + (rng.randint(1, 64) if rng.randrange(2) else len(data))]
        elif rng.randrange(3) == 0:
            data[at:at] = rng.randbytes(rng.randint(1, 16))
        if not data:
            return b""
    return bytes(data)


def build(folder: Path, command: Sequence[str], sanitized: Sequence[str] = SANITIZED) -> Path:
    """The C program of fuzz_program.c, by the compiler ``command``."""
    program = folder / "fuzz_program"
    sources = [HERE / "fuzz_program.c", *(CORE / f"{name}.c" for name in ("program", "windows", "elementwise"))]
    whole = [*command, *STRICT, *sanitized, f"-I{CORE}", *map(str, sources), "-o", str(program)]
    done = subprocess.run(whole, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def answered(done: "subprocess.CompletedProcess[bytes]") -> Counter[str]:
    """How many programs were refused, ran, or would have taken too long for a test."""
    assert done.returncode == 0, (done.stdout[-2000:] + done.stderr[-4000:]).decode(errors="replace")
    words = done.stdout.decode().split()
    return Counter(dict(zip(words[::2], map(int, words[1::2]), strict=True)))


def damaged_programs(program: Path, folder: Path, count: int, seed: int) -> Counter[str]:
    """What becomes of ``count`` damaged programs."""
    paths = []
    for i, content in enumerate(good_files()):
        paths.append(folder / f"{i}.program")
        paths[-1].write_bytes(compile_tflite(content).content)
    return answered(subprocess.run([program, str(seed), str(count), *paths], capture_output=True))


def damaged_files(program: Path, count: int, seed: int) -> tuple[Counter[str], float]:
    """What becomes of ``count`` damaged .tflite files, and the seconds that the slowest took to compile."""
    rng = random.Random(seed)
    originals = good_files()
    answers: Counter[str] = Counter()
    slowest, compiled = 0.0, list[bytes]()
    for _ in range(count):
        content = damaged(rng.choice(originals), rng)
        start = time.perf_counter()
        try:
            compiled.append(compile_tflite(content).content)
        except DataError:
            answers["refused"] += 1
        slowest = max(slowest, time.perf_counter() - start)
        if len(compiled) == 1000:
            answers += of_core(program, compiled)
            compiled.clear()
    return answers + of_core(program, compiled), slowest


def of_core(program: Path, compiled: Sequence[bytes]) -> Counter[str]:
    """The core refuses nothing that the host has compiled."""
    pipe = b"".join(struct.pack("<I", len(content)) + content for content in compiled)
    answers = answered(subprocess.run([program, "-"], input=pipe, capture_output=True))
    assert answers["refused"] == 0, answers
    return answers


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = build(folder, [shutil.which("cc") or "gcc"])
        print("programs:", dict(damaged_programs(program, folder, count, seed)), flush=True)
        answers, slowest = damaged_files(program, count, seed)
    print(".tflite files:", dict(answers), f"slowest to compile {slowest:.2f} s")


if __name__ == "__main__":
    main()
