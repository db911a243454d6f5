from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

KerasFiles = Callable[..., bytes]


@pytest.fixture(scope="session")
def keras_files(tensorflow: Any) -> KerasFiles:
    """Int8 .tflite files of zoo.py's models by name, each converted once: (name, end=, per_tensor=)."""
    import zoo

    return cache(zoo.int8)
