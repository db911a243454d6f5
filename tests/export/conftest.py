from collections.abc import Callable
from functools import cache

import pytest

KerasFiles = Callable[..., bytes]


@pytest.fixture(scope="session")
def keras_files() -> KerasFiles:
    """Int8 .tflite files of zoo.py's models by name, each converted once: (name, end=, per_tensor=)."""
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install 'tinyfl[tf]'")
    import zoo

    return cache(zoo.int8)
