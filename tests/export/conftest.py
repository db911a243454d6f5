from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from once import once

KerasFiles = Callable[..., bytes]


@pytest.fixture(scope="session")
def keras_files() -> KerasFiles:
    """Int8 .tflite files of zoo.py's models by name, each converted once for all workers: (name, end=, per_tensor=). TensorFlow
    is loaded for those not yet made only."""
    if find_spec("tensorflow") is None:
        pytest.skip("needs TensorFlow: pip install 'tinyfl[tf]'")

    def made(name: str, end: str = "int8", per_tensor: bool = False) -> bytes:
        def convert(path: Path) -> None:
            import zoo

            path.write_bytes(zoo.int8(name, end=end, per_tensor=per_tensor))

        return once(convert, "zoo", name, end, str(per_tensor)).read_bytes()

    return cache(made)
