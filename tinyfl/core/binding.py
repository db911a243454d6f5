"""The ctypes structures of simulators/native/native.h, and the compiled library.

Only tinyfl.core uses them: C trusts pointers and row numbers, and tinyfl.core checks these.
"""

import ctypes
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tinyfl.errors import InstallError


class Plan(ctypes.Structure):
    _fields_ = (("layers", ctypes.c_void_p), ("count", ctypes.c_uint16), ("loss", ctypes.c_uint8))


class NativeSource(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int),
        ("seed", ctypes.c_uint64),
        ("table", ctypes.c_void_p),
        ("bytes", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("targets", ctypes.c_void_p),
        ("gain", ctypes.c_void_p),
    )


class Draw(ctypes.Structure):
    _fields_ = (
        ("seed", ctypes.c_uint64),
        ("stream", ctypes.c_uint32),
        ("devices", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("skip", ctypes.c_uint32),
        ("available", ctypes.c_uint32),
        ("picks", ctypes.c_uint32),
        ("out", ctypes.c_void_p),
    )


class Phase(ctypes.Structure):
    _fields_ = (
        ("samples", ctypes.c_uint32),
        ("batch", ctypes.c_uint32),
        ("passes", ctypes.c_uint32),
        ("rate", ctypes.c_float),
        ("clip", ctypes.c_float),
        ("pull", ctypes.c_float),
        ("layers", ctypes.c_uint64),
        ("support", ctypes.c_uint32),
        ("ways", ctypes.c_uint32),
    )


class Codec(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_uint8), ("share", ctypes.c_uint16))


class Inner(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_uint8),
        ("returns", ctypes.c_uint8),
        ("kept", ctypes.c_uint8),
        ("up", Codec),
        ("local", ctypes.c_uint64),
        ("phases", Phase * 4),
    )


class Cohort(ctypes.Structure):
    _fields_ = (
        ("plan", ctypes.POINTER(Plan)),
        ("theta", ctypes.c_void_p),
        ("source", NativeSource),
        ("devices", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("round", ctypes.c_uint32),
        ("inner", Inner),
        ("sum", ctypes.c_void_p),
        ("updates", ctypes.c_void_p),
        ("kept", ctypes.c_void_p),
        ("loss", ctypes.c_void_p),
        ("code", ctypes.c_void_p),
        ("stop", ctypes.POINTER(ctypes.c_int)),
    )


class Adaptation(ctypes.Structure):
    _fields_ = (
        ("plan", ctypes.POINTER(Plan)),
        ("theta", ctypes.c_void_p),
        ("support", NativeSource),
        ("query", NativeSource),
        ("count", ctypes.c_size_t),
        ("shots", ctypes.c_uint32),
        ("queries", ctypes.c_uint32),
        ("inner", Inner),
        ("steps", ctypes.c_void_p),
        ("checkpoints", ctypes.c_size_t),
        ("loss", ctypes.c_void_p),
        ("accuracy", ctypes.c_void_p),
        ("outputs", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("stop", ctypes.POINTER(ctypes.c_int)),
    )


class Embedding(ctypes.Structure):
    _fields_ = (
        ("plan", ctypes.POINTER(Plan)),
        ("theta", ctypes.c_void_p),
        ("source", NativeSource),
        ("count", ctypes.c_size_t),
        ("outputs", ctypes.c_void_p),
        ("stop", ctypes.POINTER(ctypes.c_int)),
    )


class Problems(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("places", ctypes.c_uint32),
        ("centre", ctypes.c_void_p),
        ("normalised", ctypes.c_int),
        ("count", ctypes.c_size_t),
        ("shots", ctypes.c_uint32),
        ("queries", ctypes.c_uint32),
        ("support", ctypes.c_void_p),
        ("query", ctypes.c_void_p),
        ("support_labels", ctypes.c_void_p),
        ("query_labels", ctypes.c_void_p),
        ("loss", ctypes.c_void_p),
        ("accuracy", ctypes.c_void_p),
        ("nearest", ctypes.c_void_p),
        ("means", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
    )


class Stretch(ctypes.Structure):
    """Of simulators/native/online.c."""

    _fields_ = (
        ("plan", ctypes.POINTER(Plan)),
        ("theta", ctypes.c_void_p),
        ("online", ctypes.c_void_p),
        ("count", ctypes.c_uint32),
        *((name, ctypes.c_void_p) for name in ("x", "labelled", "labels", "targets", "codes", "answers", "classes")),
        *((name, ctypes.c_void_p) for name in ("confidence", "scores", "learnt", "outputs", "losses")),
    )


@cache
def library() -> Any:
    """Loads the compiled core.

    Raises InstallError if it is not installed with this package.
    """
    import tinyfl

    name = "libtinyfl.dylib" if sys.platform == "darwin" else "libtinyfl.so"
    # In an editable install the package is in the clone, and the library in site-packages.
    for folder in [*map(Path, tinyfl.__path__), *(Path(entry) / "tinyfl" for entry in sys.path)]:
        if (folder / name).is_file():
            return declare(ctypes.CDLL(str(folder / name)))
    raise InstallError(
        f"{name}, the compiled core, is not installed beside the package. Run `pip install .` in the clone "
        "(`pip install -e .` to work on it), and start Python outside the clone after a plain install."
    )


def declare(lib: Any) -> Any:
    pointer, size, u32, u64 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint64
    lib.tinyfl_native_train.argtypes = [ctypes.POINTER(Cohort), ctypes.c_int, ctypes.c_int]
    lib.tinyfl_native_train_rounds.argtypes = [
        ctypes.POINTER(Cohort), size, pointer, ctypes.POINTER(Codec), pointer, ctypes.c_int, ctypes.c_int,
    ]  # fmt: skip
    lib.tinyfl_native_adapt.argtypes = [ctypes.POINTER(Adaptation), ctypes.c_int, ctypes.c_int]
    lib.tinyfl_native_race.argtypes = [ctypes.POINTER(Adaptation), size, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    lib.tinyfl_native_embed.argtypes = [ctypes.POINTER(Embedding), ctypes.c_int, ctypes.c_int]
    lib.tinyfl_native_classify.argtypes = [ctypes.POINTER(Problems)]
    lib.tinyfl_native_samples.argtypes = [ctypes.POINTER(NativeSource), pointer, size, u32, u32, u32, u32, pointer, pointer]
    lib.tinyfl_native_sine.argtypes = [u64, pointer, size, pointer, size, pointer]
    lib.tinyfl_native_random.argtypes = [u64, u32, pointer, pointer, size, size, pointer]
    for name in ("weights", "inputs", "outputs"):
        measure = getattr(lib, f"tinyfl_native_{name}")
        measure.argtypes, measure.restype = [ctypes.POINTER(Plan)], size
    lib.tinyfl_native_ram.argtypes = lib.tinyfl_native_kept_weights.argtypes = [ctypes.POINTER(Plan), ctypes.POINTER(Inner)]
    lib.tinyfl_native_working_bytes.argtypes = [ctypes.POINTER(Plan), ctypes.c_int, u32]
    lib.tinyfl_native_inner_fits.argtypes = [ctypes.POINTER(Plan), ctypes.POINTER(Inner)]
    for measure in (lib.tinyfl_native_ram, lib.tinyfl_native_kept_weights, lib.tinyfl_native_working_bytes):
        measure.restype = size
    lib.tinyfl_native_inner_read.argtypes = [ctypes.POINTER(Inner), ctypes.c_char_p, size]
    lib.tinyfl_native_read.argtypes = [ctypes.POINTER(Plan), pointer, size]
    lib.tinyfl_native_online_bytes.argtypes, lib.tinyfl_native_online_size.argtypes = [ctypes.c_char_p], []
    lib.tinyfl_native_online_init.argtypes = [pointer, ctypes.c_char_p, u32, pointer]
    lib.tinyfl_native_online_learnt_bytes.argtypes = lib.tinyfl_native_online_add.argtypes = [pointer]
    lib.tinyfl_native_online_restore.argtypes = [pointer, pointer, size]
    lib.tinyfl_native_online_remove.argtypes = [pointer, u32]
    lib.tinyfl_native_online_label.argtypes, lib.tinyfl_native_online_wanted.argtypes = [pointer, u32, u32], [pointer]
    lib.tinyfl_native_online_wanted.restype = u32
    lib.tinyfl_native_online_replace.argtypes = [pointer, u32, pointer]
    lib.tinyfl_native_online_run.argtypes = [ctypes.POINTER(Stretch)]
    for name in ("size", "bytes", "learnt_bytes"):
        getattr(lib, f"tinyfl_native_online_{name}").restype = size
    return lib
