"""The core compiled for the tests, and a device of it for Python."""

import ctypes
import subprocess
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from once import contents, once
from reference_layers import F32, Layer

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "firmware" / "core"
SOURCES = sorted(CORE.glob("*.c"))
INCLUDED = [*CORE.parent.glob("*/*.[ch]"), *HERE.glob("*.[ch]"), *HERE.parents[1].glob("simulators/native/*.h")]
LEARNER = [
    CORE / f"{name}.c" for name in ("codec", "inner", "learner", "means", "online", "plan", "prototypes", "random", "sine")
]
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-Wno-psabi", "-ffp-contract=off", f"-I{CORE}"]
UNDEFINED = ["-fsanitize=undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
SANITIZED = ["-fsanitize=address", *UNDEFINED, "-g", "-O0"]  # optimised, it takes several times as long to compile

OK, EINVAL, EPLAN, EMEMORY, ENUMERIC, EOVERSIZED = range(0, -6, -1)


def supports(feature: str) -> bool:
    """Whether this processor has a feature, by Linux's name."""
    info = Path("/proc/cpuinfo")
    return info.exists() and f" {feature} " in info.read_text().replace("\n", " ")


def compile_c(cc: str, output: Path, sources: Sequence[Path], *flags: str) -> Path:
    command = [cc, *STRICT, *flags, *map(str, sources), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return output


def compile_once(cc: str, sources: Sequence[Path], *flags: str) -> Path:
    """What compile_c makes of the project's own sources, made once for all tests that want the same."""
    return once(lambda path: compile_c(cc, path, sources, *flags), cc, *flags, *map(str, sources), *contents(sorted(INCLUDED)))


def run(program: Path, *arguments: object) -> str:
    done = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


class CLayer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint8) for name in ("kind", "activation", "learns", "same")),
        *((name, ctypes.c_uint16) for name in ("height", "width", "channels", "outputs")),
        *((name, ctypes.c_uint8) for name in ("kernel_height", "kernel_width", "stride_height", "stride_width")),
    )


class CPlan(ctypes.Structure):
    _fields_ = (("layers", ctypes.POINTER(CLayer)), ("count", ctypes.c_uint16), ("loss", ctypes.c_uint8))


def plan_of(layers: Sequence[Layer], loss: int) -> CPlan:
    rows = [CLayer(*astuple(layer)) for layer in layers]
    return CPlan((CLayer * len(rows))(*rows), len(rows), loss)


def address(array: F32 | None) -> Any:
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)


def load(path: Path) -> Any:
    lib = ctypes.CDLL(str(path))
    pointer, size, real, u32, u64 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_float, ctypes.c_uint32, ctypes.c_uint64
    plan = ctypes.POINTER(CPlan)
    lib.tinyfl_plan_check.argtypes = [plan]
    lib.tinyfl_plan_read.argtypes = [plan, pointer, size]
    for name in ("plan_weights", "plan_inputs", "plan_outputs", "learner_bytes"):
        measure = getattr(lib, f"tinyfl_{name}")
        measure.argtypes, measure.restype = [plan], size
    lib.tinyfl_learner_init.argtypes = [pointer, plan, pointer, pointer, size, real]
    lib.tinyfl_infer.argtypes = [pointer, pointer, pointer]
    lib.tinyfl_evaluate.argtypes = [pointer] * 5
    lib.tinyfl_learn.argtypes = [pointer, pointer, pointer, real, pointer]
    lib.tinyfl_accumulate.argtypes = [pointer] * 5
    lib.tinyfl_step.argtypes = [pointer, pointer, real, u32]
    lib.tinyfl_random.argtypes = [u64, u32, u32, u32, u32, pointer]
    lib.tinyfl_means_bytes.argtypes, lib.tinyfl_means_bytes.restype = [u32, u32], size
    lib.tinyfl_means_init.argtypes = [pointer, u32, u32, pointer, ctypes.c_int, pointer]
    lib.tinyfl_means_prepare.argtypes, lib.tinyfl_means_prepare.restype = [pointer, pointer], None
    lib.tinyfl_means_add.argtypes = [pointer, u32, pointer]
    lib.tinyfl_means_clear.argtypes = [pointer, u32]
    lib.tinyfl_means_distances.argtypes, lib.tinyfl_means_distances.restype = [pointer] * 3, None
    lib.tinyfl_means_nearest.argtypes, lib.tinyfl_means_nearest.restype = [pointer, pointer, real, pointer, pointer], None
    lib.tinyfl_online_bytes.argtypes, lib.tinyfl_online_bytes.restype = [pointer], size
    lib.tinyfl_online_init.argtypes = [pointer, pointer, u32, pointer]
    lib.tinyfl_online_enter.argtypes = [pointer, pointer]
    lib.tinyfl_online_sample.argtypes = [pointer] * 4
    lib.tinyfl_online_label.argtypes = [pointer, u32, u32, pointer]
    lib.tinyfl_online_target.argtypes = [pointer, u32, pointer, pointer]
    lib.tinyfl_online_add.argtypes, lib.tinyfl_online_remove.argtypes = [pointer], [pointer, u32]
    lib.tinyfl_online_learnt_bytes.argtypes, lib.tinyfl_online_learnt_bytes.restype = [pointer], size
    lib.tinyfl_online_restore.argtypes = [pointer, pointer, size]
    lib.online_size.restype = size
    lib.mean_loss.argtypes, lib.mean_loss.restype = [real, u64], real
    lib.learner_size.restype = size
    lib.sine.argtypes = [u64, u32, u32, u32, pointer]
    for name in ("exp", "log", "tanh", "sigmoid", "sin", "rsqrt", "uniform"):
        getattr(lib, f"over_{name}").argtypes = [pointer, pointer, size]
    return lib


def over(lib: Any, name: str, x: F32) -> F32:
    """The core's function ``name`` of each x."""
    x = np.ascontiguousarray(x, np.float32)
    y = np.empty_like(x)
    getattr(lib, f"over_{name}")(address(x), address(y), x.size)
    return y


class Device:
    """A learner of the C core over its own copy of theta. Calls return the code, then what the call gives."""

    def __init__(self, lib: Any, layers: Sequence[Layer], loss: int, theta: F32, clip: float = 0.0) -> None:
        self.lib, self.clip = lib, clip
        self.plan = plan_of(layers, loss)
        self.weights = theta.copy()
        self.bytes: int = lib.tinyfl_learner_bytes(self.plan)
        self.memory = np.zeros(self.bytes // 4, np.float32)
        self.learner = (ctypes.c_uint64 * ((lib.learner_size() + 7) // 8))()
        self.code = self.initialise()

    def initialise(self) -> int:
        return int(
            self.lib.tinyfl_learner_init(
                self.learner, self.plan, address(self.weights), address(self.memory), self.bytes, self.clip
            )
        )

    def infer(self, x: F32) -> tuple[int, F32]:
        output = np.full(self.lib.tinyfl_plan_outputs(self.plan), np.nan, np.float32)
        return self.lib.tinyfl_infer(self.learner, address(x), address(output)), output

    def evaluate(self, x: F32, y: F32) -> tuple[int, np.float32]:
        loss = np.zeros(1, np.float32)
        return self.lib.tinyfl_evaluate(self.learner, address(x), address(y), address(loss), None), loss[0]

    def learn(self, x: F32, y: F32, rate: float) -> tuple[int, np.float32]:
        loss = np.zeros(1, np.float32)
        return self.lib.tinyfl_learn(self.learner, address(x), address(y), rate, address(loss)), loss[0]

    def accumulate(self, x: F32, y: F32, gradient: F32) -> tuple[int, np.float32]:
        loss = np.zeros(1, np.float32)
        code = self.lib.tinyfl_accumulate(self.learner, address(x), address(y), address(gradient), address(loss))
        return code, loss[0]

    def step(self, gradient: F32, rate: float, samples: int) -> int:
        return int(self.lib.tinyfl_step(self.learner, address(gradient), rate, samples))
