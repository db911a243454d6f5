"""Int8 inference against TensorFlow Lite Micro: networks of MLPerf Tiny's shapes with random weights, converted by TensorFlow.

    python bench/int8.py [MODEL.tflite ...]

For each: outputs that equal TFLM's, bit for bit, natively and on an emulated Cortex-M4F board with the real firmware;
bytes of RAM, against the head of TFLM's arena; bytes of the program, against the file's; and instructions of one inference.
"""

import sys
import time
from pathlib import Path

from common import provenance

from tinyfl.building import boards
from tinyfl.costs.counted import instructions_of_program
from tinyfl.export.infer import run_on_board
from tinyfl.int8.compile import compile_tflite
from tinyfl.int8.native import run_native
from tinyfl.system.installed import quiet

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "export"))

import tflm
import zoo

NETWORKS = ("ds-cnn", "autoencoder", "resnet-8", "mobilenet")
INPUTS = 16
BOARD = "mps2-an386"


def row(name: str, content: bytes) -> str:
    program = compile_tflite(content)
    x = tflm.random_inputs(program, INPUTS)
    theirs = tflm.outputs(content, x)
    native, board = run_native(program, x), run_on_board(program, x, f"emulated:{BOARD}")
    equal = [sum(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True)) for ours in (native, board)]
    head = tflm.head_bytes(content)
    count = instructions_of_program(program, boards.load(BOARD), "zig")
    return (
        f"| {name} | {equal[0]} of {INPUTS} | {equal[1]} of {INPUTS} | {program.arena_bytes:,} | {head:,} | "
        f"{len(program.content):,} | {len(content):,} | {count / 1e6:,.2f} M |"
    )


def main() -> None:
    began = time.monotonic()
    print("| network | native | Cortex-M4F | arena | TFLM's head | program | .tflite | instructions |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in NETWORKS:
        with quiet():
            content = zoo.int8(name)
        print(row(name, content), flush=True)
    for path in map(Path, sys.argv[1:]):
        print(row(path.stem, path.read_bytes()), flush=True)
    print(f"{provenance()}; {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
