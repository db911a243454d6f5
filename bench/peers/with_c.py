"""A plain C loop (loop.c) on one core: scalar, or as fast as the compiler makes it."""

import ctypes
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from job import asked, outer_step

FLAGS = {
    "scalar": ("-O2", "-fno-tree-vectorize", "-fno-tree-slp-vectorize"),
    "vectors": ("-O3", "-march=native", "-ffast-math"),
}


def built(variant: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "loop.so"
        source = Path(__file__).with_name("loop.c")
        subprocess.run(["cc", *FLAGS[variant], "-shared", "-fPIC", str(source), "-o", str(library), "-lm"], check=True)
        return ctypes.CDLL(str(library))


def main() -> None:
    job, variant, after = asked()
    run, theta, done = built(variant).peers_round, job.theta, 0
    x, y = np.array(job.x), np.array(job.y)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, y)]
    while True:
        total = np.zeros(len(theta))
        run(job.name == "J2", ctypes.c_void_p(theta.ctypes.data), *pointers, len(x), x.shape[1], ctypes.c_float(job.rate),
            ctypes.c_void_p(total.ctypes.data))  # fmt: skip
        theta = (theta + outer_step(done) * (total / len(x) - theta)).astype(np.float32)
        done += 1
        after(theta.copy)


if __name__ == "__main__":
    main()
