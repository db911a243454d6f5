"""A model as C: an array for flash, its size, and what is done to inputs before and outputs after."""

import re

import numpy as np

from tinyfl.core import F32
from tinyfl.inference import Program

_PER_LINE = 16


def identifier(name: str) -> str:
    """``name`` as a C identifier of ours."""
    return "tinyfl_" + re.sub(r"\W", "_", name, flags=re.ASCII)


def c_array(name: str, model: bytes, program: Program | None, mean: F32, scale: F32) -> dict[str, str]:
    """The files NAME.h and NAME.c, by name. ``program`` has the scales of an int8 model; inputs are (x - mean) / scale."""
    own = identifier(name)
    declared, defined = [f"extern const unsigned char {own}[{own.upper()}_BYTES];"], []
    defined.append(f"__attribute__((aligned(16))) const unsigned char {own}[] = {{\n{_bytes(model)}\n}};")
    if (mean != 0).any() or (scale != 1).any():
        declared.append(
            "\n/* A model's input is (x - mean) / scale, input by input. */\n"
            f"extern const float {own}_mean[{mean.size}], {own}_scale[{scale.size}];"
        )
        defined += [
            f"const float {own}_{what}[] = {{\n{_floats(values)}\n}};" for what, values in (("mean", mean), ("scale", scale))
        ]
    sizes = [f"#define {own.upper()}_BYTES {len(model)}"]
    if program is not None:
        sizes.append("\n/* An int8 value q stands for SCALE x (q - ZERO). */")
        for end, info in (("INPUT", program.input), ("OUTPUT", program.output)):
            sizes.append(f"#define {own.upper()}_{end}_SCALE {_float(info.scale)}")
            sizes.append(f"#define {own.upper()}_{end}_ZERO ({info.zero})")
    header = "\n".join(
        [
            f"/* {name}.tflite; model-card.md beside it says what it is. */",
            f"#ifndef {own.upper()}_H",
            f"#define {own.upper()}_H",
            "",
            *sizes,
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            *declared,
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            "#endif",
            "",
        ]
    )
    return {f"{name}.h": header, f"{name}.c": f'#include "{name}.h"\n\n' + "\n\n".join(defined) + "\n"}


def _bytes(content: bytes) -> str:
    rows = (content[at : at + _PER_LINE] for at in range(0, len(content), _PER_LINE))
    return "\n".join("    " + " ".join(f"0x{byte:02x}," for byte in row) for row in rows)


def _floats(values: F32) -> str:
    return "\n".join(f"    {_float(value)}," for value in values)


def _float(value: float) -> str:
    """A C literal that reads back as the same float."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if re.search(r"[.e]", text) else f"{text}.0f"
