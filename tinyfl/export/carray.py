"""A model as C: an array for flash, its size, and what is done to inputs before and outputs after."""

import re

import numpy as np

from tinyfl.int8.native import Program
from tinyfl.tasks.standard import F64, Standardisation

_PER_LINE = 16


def identifier(name: str) -> str:
    """``name`` as a C identifier of ours."""
    return "tinyfl_" + re.sub(r"\W", "_", name, flags=re.ASCII)


def c_array(name: str, model: bytes, program: Program | None, standard: Standardisation) -> dict[str, str]:
    """The files NAME.h and NAME.c, by name. ``program`` has the scales of an int8 model, ``standard`` what is done to inputs
    and outputs, in double: a float's digits may not reach beyond the mean."""
    own = identifier(name)
    declared, defined = [f"extern const unsigned char {own}[{own.upper()}_BYTES];"], []
    defined.append(f"__attribute__((aligned(16))) const unsigned char {own}[] = {{\n{_bytes(model)}\n}};")
    inputs, outputs = ("mean", "scale"), ("target_mean", "target_scale")
    for wanted, what, named in (
        (standard.of_inputs, "A model's input is (float)((x - mean) / scale), worked out in double, input by input.", inputs),
        (
            standard.of_targets,
            "A value in the units of the data is target_mean + target_scale * output, output by output.",
            outputs,
        ),
    ):
        if wanted:
            arrays = {which: getattr(standard, which) for which in named}
            lengths = ", ".join(f"{own}_{which}[{values.size}]" for which, values in arrays.items())
            declared.append(f"\n/* {what} */\nextern const double {lengths};")
            defined += [f"const double {own}_{which}[] = {{\n{_doubles(values)}\n}};" for which, values in arrays.items()]
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


def _doubles(values: F64) -> str:
    return "\n".join(f"    {value!r}," for value in values.tolist())


def _float(value: float) -> str:
    """A C literal that reads back as the same float."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if re.search(r"[.e]", text) else f"{text}.0f"
