"""A model as C source: an array for flash, its size, the standardisation of inputs and outputs, and the classes' names."""

import re

import numpy as np

from tinyfl.int8.native import Program
from tinyfl.tasks.standard import F64, Standardisation

_PER_LINE = 16


def identifier(name: str) -> str:
    """Makes a C identifier of ``name``, with tinyfl's prefix."""
    return "tinyfl_" + re.sub(r"\W", "_", name, flags=re.ASCII)


def c_array(name: str, model: bytes, program: Program | None, standard: Standardisation) -> dict[str, str]:
    """The files NAME.h and NAME.c, by name. ``program`` has the scales of an int8 model, ``standard`` the standardisation of
    inputs and outputs, in double, since x - mean may need more digits than a float has; and the classes, if they have names."""
    own = identifier(name)
    declared, defined = [f"extern const unsigned char {own}[{own.upper()}_BYTES];"], []
    defined.append(f"__attribute__((aligned(16))) const unsigned char {own}[] = {{\n{_bytes(model)}\n}};")
    inputs, outputs = ("mean", "scale"), ("target_mean", "target_scale")
    for present, what, names in (
        (standard.of_inputs, "A model's input is (float)((x - mean) / scale), computed in double, input by input.", inputs),
        (
            standard.of_targets,
            "A value in the units of the data is target_mean + target_scale * output, output by output.",
            outputs,
        ),
    ):
        if present:
            arrays = {name: getattr(standard, name) for name in names}
            if all(values.size > 1 and (values == values[0]).all() for values in arrays.values()):  # as of pixels
                arrays = {name: values[:1] for name, values in arrays.items()}
                what += " Both are the same for all."
            lengths = ", ".join(f"{own}_{part}[{values.size}]" for part, values in arrays.items())
            declared.append(f"\n/* {what} */\nextern const double {lengths};")
            defined += [f"const double {own}_{part}[] = {{\n{_doubles(values)}\n}};" for part, values in arrays.items()]
    if standard.classes.dtype.kind == "U":
        declaration, definition = _classes(own, standard.classes.tolist())
        declared.append(declaration)
        defined.append(definition)
    sizes = [f"#define {own.upper()}_BYTES {len(model)}"]
    if program is not None:
        sizes.append("\n/* An int8 value q represents SCALE x (q - ZERO). */")
        for end, info in (("INPUT", program.input), ("OUTPUT", program.output)):
            sizes.append(f"#define {own.upper()}_{end}_SCALE {_float(info.scale)}")
            sizes.append(f"#define {own.upper()}_{end}_ZERO ({info.zero})")
    header = "\n".join(
        [
            f"/* {name}.tflite; see model-card.md. */",
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


def _classes(own: str, classes: list[str]) -> tuple[str, str]:
    """The declaration and the definition of the classes' names."""
    array = f"const char *const {own}_classes[{len(classes)}]"
    names = "".join(f"    {_string(each)},\n" for each in classes)
    return f"\n/* The classes, output by output, in UTF-8. */\nextern {array};", f"{array} = {{\n{names}}};"


def _bytes(content: bytes) -> str:
    rows = (content[at : at + _PER_LINE] for at in range(0, len(content), _PER_LINE))
    return "\n".join("    " + " ".join(f"0x{byte:02x}," for byte in row) for row in rows)


def _doubles(values: F64) -> str:
    return "\n".join(f"    {value!r}," for value in values.tolist())


def _string(text: str) -> str:
    """A C literal of ``text``. Octal escapes end after three digits, whatever follows, and ``??`` would begin a trigraph."""
    plain = set(range(32, 127)) - {ord(character) for character in '"\\?'}
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode("utf-8", "replace")) + '"'


def _float(value: float) -> str:
    """A C literal of exactly the same float."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if re.search(r"[.e]", text) else f"{text}.0f"
