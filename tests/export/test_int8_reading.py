"""What a .tflite may say in several ways, or leave unsaid, is read as TensorFlow Lite Micro reads it, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
import tflite

pytest.importorskip("tflite_micro", reason="needs tflite-micro, the oracle: pip install 'tinyfl[tf]'")
pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert's schema: pip install 'tinyfl[tf]'")

import tflm
from flat import PADDING, Flat, schema

from tinyfl.errors import DataError
from tinyfl.int8.compile import LOWERED, compile_tflite
from tinyfl.int8.tflite import FIELDS

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "models" / "opcode"
Change = Callable[[Flat], object]


def dense(change: Change = lambda flat: None, *, scales: int = 1, **options: Any) -> bytes:
    """12 inputs and 5 outputs: tensors input, output, weights, bias; one operator."""
    rng, flat = np.random.default_rng(0), Flat()
    scale = np.linspace(0.01, 0.02, scales)
    x, y = flat.tensor((1, 12), 0.05, 1), flat.tensor((1, 5), 0.05, 0)
    w = flat.tensor((5, 12), scale.tolist(), data=rng.integers(-127, 128, (5, 12)))
    b = flat.tensor((5,), (scale * 0.05).tolist(), dtype="INT32", data=rng.integers(-999, 999, 5))
    flat.op("FULLY_CONNECTED", [x, w, b], [y], 4, table="FullyConnectedOptions", **options)
    flat.graph.inputs, flat.graph.outputs = [x], [y]
    change(flat)
    return flat.content(flat.graph.inputs, flat.graph.outputs)


def gated(change: Change = lambda flat: None, *, name: str = "MUL", fused: int = 1) -> bytes:
    """4 inputs times, or plus, 4 constants."""
    flat = Flat()
    x, y = flat.tensor((1, 4), 0.04, -5), flat.tensor((1, 4), 0.05, 3)
    gate = flat.tensor((1, 4), 0.03, 2, data=[1, -50, 100, 7])
    flat.op(name, [x, gate], [y], 2, table=f"{name.capitalize()}Options", fusedActivationFunction=fused)
    change(flat)
    return flat.content([x], [y])


def padded(change: Change = lambda flat: None) -> bytes:
    """4 inputs between two zeros: tensors input, output, margins."""
    flat = Flat()
    x, y = flat.tensor((1, 4), 0.04, -5), flat.tensor((1, 6), 0.04, -5)
    flat.op("PAD", [x, flat.tensor((2, 2), dtype="INT32", data=[[0, 0], [1, 1]])], [y], table="PadOptions")
    change(flat)
    return flat.content([x], [y])


def put(of: str, number: int, **values: Any) -> Change:
    """Sets fields of a table of the model, its graph or a tensor's quantization."""

    def change(flat: Flat) -> None:
        tables = {
            "code": flat.model.operatorCodes,
            "tensor": flat.graph.tensors,
            "operator": flat.graph.operators,
            "buffer": flat.model.buffers,
            "quantization": [t.quantization for t in flat.graph.tensors],
        }[of]
        for name, value in values.items():
            assert hasattr(tables[number], name), name
            setattr(tables[number], name, value)

    return change


def signed(flat: Flat) -> None:
    """A signature that calls the ends otherwise."""
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving", 0
    for name, index in (("inputs", 0), ("outputs", 1)):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = b"other", index
        setattr(signature, name, [entry])
    flat.model.signatureDefs = [signature]


def noted(flat: Flat) -> None:
    entry = schema.MetadataT()
    entry.name, entry.buffer = b"min_runtime_version", 0
    flat.model.metadata = [entry]


def second_options(flat: Flat) -> None:
    operator = flat.graph.operators[0]
    operator.builtinOptions2Type = schema.BuiltinOptions2.StablehloConcatenateOptions
    operator.builtinOptions2 = schema.StablehloConcatenateOptionsT()


ALIKE: dict[str, bytes] = {
    "operator's number in builtin_code alone": dense(put("code", 0, deprecatedBuiltinCode=0)),
    "in builtin_code alone, of operators that ADD would take": gated(put("code", 0, deprecatedBuiltinCode=0)),
    "in the deprecated field alone": dense(put("code", 0, builtinCode=0)),
    "with a negative deprecated field": dense(put("code", 0, deprecatedBuiltinCode=-1)),
    "batch of unknown size": dense(put("tensor", 0, shapeSignature=[-1, 12])),
    "no word on the rank": dense(put("tensor", 0, hasRank=False)),
    "bias without a scale": dense(put("tensor", 3, quantization=None)),
    "buffer whose offset says that it is inside": dense(put("buffer", 1, offset=1, size=60)),
    "kept dimensions": dense(keepNumDims=True),
    "what is for weights apart from int8": dense(asymmetricQuantizeInputs=True, quantizedBiasType=4),
    "scale for each channel": dense(scales=5),
    "signature": dense(signed),
    "metadata": dense(noted),
    "options of a second kind": dense(second_options),
    "variable inputs, of which none is": dense(put("operator", 0, mutatingVariableInputs=[False] * 3)),
}


@pytest.mark.parametrize("case", ALIKE)
def test_other_ways_to_say_the_same_are_read_as_tflm_reads_them(case: str) -> None:
    assert len(np.unique(tflm.assert_equal(ALIKE[case], count=16), axis=0)) > 1


def options(table: str, **values: int) -> Change:
    def change(flat: Flat) -> None:
        operator = flat.graph.operators[0]
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
        operator.builtinOptions = getattr(schema, f"{table}T")() if table != "NONE" else None
        for name, value in values.items():
            setattr(operator.builtinOptions, name, value)

    return change


def details(kind: str) -> Change:
    value = getattr(schema, f"{kind}T")()
    return put("quantization", 2, detailsType=getattr(schema.QuantizationDetails, kind), details=value)


def one_more_input(flat: Flat) -> None:
    value = flat.tensor((1,), 0.04, -5, data=[100])
    flat.graph.operators[0].inputs.append(value)


def convolution_with(table: str) -> bytes:
    flat = Flat()
    x, y = flat.tensor((1, 4, 4, 2), 0.04), flat.tensor((1, 4, 4, 2), 0.05)
    w = flat.tensor((2, 3, 3, 2), 0.01, data=np.ones((2, 3, 3, 2)))
    flat.op("CONV_2D", [x, w], [y], 3, table=table, padding=PADDING["same"], strideH=1, strideW=1)
    return flat.content([x], [y])


REFUSED: dict[str, tuple[bytes, str]] = {
    "options of another operator": (gated(options("AddOptions", fusedActivationFunction=1)), "are AddOptions, but MulOptions"),
    "of another, for ADD": (gated(options("MulOptions"), name="ADD"), r"\(ADD\): its options are MulOptions, but AddOptions"),
    "of another, with strides": (convolution_with("DepthwiseConv2DOptions"), "Conv2DOptions are needed"),
    "no options": (dense(options("NONE")), "its options are missing, but FullyConnectedOptions are needed"),
    "a value to pad with": (padded(one_more_input), r"\(PAD\): it has 3 inputs, but only 2 are supported"),
    "an input too many": (dense(one_more_input), "it has 4 inputs, but only 3 are supported"),
    "input without a zero point": (dense(put("quantization", 0, zeroPoint=None)), "t0 needs one scale and one zero point"),
    "output without a zero point": (dense(put("quantization", 1, zeroPoint=None)), "t1 needs one scale and one zero point"),
    "weights without zero points": (dense(put("quantization", 2, zeroPoint=None)), "t2 have 1 scales and 0 zero points"),
    "too few zero points": (dense(put("quantization", 2, zeroPoint=[0]), scales=5), "t2 have 5 scales and 1 zero points"),
    "weights along another axis": (dense(put("quantization", 2, quantizedDimension=1), scales=5), "need one good scale, or"),
    "bias of another scale": (dense(put("quantization", 3, scale=[1.0])), "its bias has the scale 1.0, but the product"),
    "scales of its own rule": (dense(details("CustomQuantization")), "quantised by another rule"),
    "scales by blocks": (dense(details("BlockwiseQuantization")), "quantised by another rule"),
    "scales of several axes": (dense(details("MultiAxisQuantization")), "quantised by another rule"),
    "weights beside the file": (dense(put("tensor", 2, externalBuffer=7)), "t2 are INT8, of a newer schema"),
    "weights after the file": (dense(put("buffer", 1, offset=999, size=60)), "kept outside the model"),
    "weights that vary": (dense(put("tensor", 2, isVariable=True)), "t2 are INT8, a variable"),
    "weights of 4 bits": (dense(put("tensor", 2, type=schema.TensorType.INT4)), "t2 are INT4"),
    "weights of 2 bits": (dense(put("tensor", 2, type=schema.TensorType.INT2)), "t2 are type 19"),
    "options of a newer schema": (dense(quantSpec=[1, 2]), "it has fields of a newer schema"),
    "custom options": (dense(put("operator", 0, customOptions=[1, 2])), "it has custom options"),
    "intermediate tensors": (dense(put("operator", 0, intermediates=[0])), "it has intermediate tensors"),
    "an operator of a newer schema": (dense(put("code", 0, builtinCode=209)), r"\(operator 209\): it is not supported"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_read_as_something_else_is_refused(case: str) -> None:
    content, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        compile_tflite(content)


@pytest.mark.parametrize(("name", "ops"), [
    ("gate_mul", ("FULLY_CONNECTED", "FULLY_CONNECTED", "LOGISTIC", "MUL", "FULLY_CONNECTED")),
    ("t_mlp_fio", ("QUANTIZE", "FULLY_CONNECTED", "FULLY_CONNECTED", "DEQUANTIZE")),
])  # fmt: skip
def test_files_of_other_converters(name: str, ops: tuple[str, ...]) -> None:
    path = CASES / f"{name}.tflite"
    if not path.exists():
        pytest.skip("needs ../shared/cases/models/opcode, which is not on this machine")
    assert compile_tflite(path.read_bytes()).ops == ops
    tflm.assert_equal(path.read_bytes(), count=64)


def test_names_from_a_file_cannot_steer_a_terminal() -> None:
    name = b"\x1b]0;mine\x07\n" + b"x" * 500
    unscaled = dense(put("tensor", 1, name=name, quantization=None))
    custom = dense(put("code", 0, builtinCode=schema.BuiltinOperator.CUSTOM, customCode=name))
    for content in (unscaled, custom):
        with pytest.raises(DataError) as refused:
            compile_tflite(content)
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 500


def test_every_known_field_is_read_as_the_schema_has_it() -> None:
    """The tflite package is generated code, some of it changed by hand: its accessors beside those of LiteRT's schema."""
    for kind in FIELDS:
        table = getattr(schema, f"{kind}T")()
        names = [name for name, value in vars(table).items() if type(value) in (int, float, bool)]
        for number, name in enumerate(names, 1):
            setattr(table, name, not value if isinstance(value := getattr(table, name), bool) else number)
        builder = flatbuffers.Builder()
        builder.Finish(table.Pack(builder))
        content = bytes(builder.Output())
        ours, theirs = (getattr(package, kind).GetRootAs(content) for package in (tflite, schema))
        scalars = [name for name in vars(type(theirs)) if name[0].lower() + name[1:] in names and hasattr(ours, name)]
        assert scalars or not names, kind
        other = {name for name in scalars if getattr(ours, name)() != getattr(theirs, name)()}
        assert other <= ({"BuiltinCode"} if kind == "OperatorCode" else set()), kind


def test_all_fields_that_the_tflite_package_knows_are_counted() -> None:
    class Counting:
        def StartObject(self, fields: int) -> None:
            self.fields = fields

    counting = Counting()
    assert {known.options for known in LOWERED.values()} - {""} <= set(FIELDS)
    for kind, fields in FIELDS.items():
        getattr(tflite, f"{kind}Start")(counting)
        assert counting.fields == fields, kind
