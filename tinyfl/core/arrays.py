"""The arrays that the core takes: their types, checks and addresses."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
U8 = NDArray[np.uint8]


def check_array(array: NDArray[Any], dtype: type, shape: tuple[int, ...], name: str) -> None:
    """Raises ValueError unless ``array`` is of this dtype and shape, in C order."""
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape} in C order")


def address(array: NDArray[Any] | None) -> int | None:
    """Where its values are; None without an array."""
    return None if array is None else array.ctypes.data
